//! What processes announce, for the kernel engine: heard by the agent where one runs, else by programs of its own
//! that live as long as the recording.

use crate::agent::{self, Latecomer, sees_all_pids};
use crate::engines::Target;
use crate::processes::{AnnouncedCode, SectionCopies};
use framewalk_announce::abi::{KIND_AREA, KIND_SECTION};
use framewalk_kernel::{Hook, Registry, RegistryMaps};
use framewalk_walk::registry::{Announced, Claim};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Looks for frame areas in these processes, or in all.
fn search(registry: &Registry, pids: Option<&[u32]>) -> Latecomer {
    // In a container a pid is somebody else's.
    match sees_all_pids() {
        true => Latecomer::look(registry, pids).unwrap_or_default(),
        false => Latecomer::default(),
    }
}

/// Who hears announcements.
enum Source {
    Agent(Box<RegistryMaps>),
    Own(Box<Registry>),
    Nobody(String),
}

/// Announcements, and copies of sections for walks that are finished outside of the kernel.
pub(super) struct Announcements {
    source: Source,
    /// What was read of sections, by number.
    known: HashMap<u64, Announced>,
    copies: SectionCopies,
    /// What was found of the time before.
    late: Latecomer,
}

impl Announcements {
    /// Without an agent, what the target registered until now is looked for.
    pub(super) fn open(target: &Target) -> Announcements {
        let source = match agent::maps() {
            Some(maps) => Source::Agent(Box::new(maps)),
            None => match Registry::load(Hook::ALL) {
                Ok(registry) => Source::Own(Box::new(registry)),
                Err(error) => Source::Nobody(error.to_string()),
            },
        };
        let late = match (&source, target) {
            // A child has not begun yet.
            (Source::Own(registry), Target::Pids(pids)) => search(registry, Some(pids)),
            (Source::Own(registry), Target::System) => search(registry, None),
            _ => Latecomer::default(),
        };
        Announcements {
            source,
            late,
            known: HashMap::new(),
            copies: SectionCopies::default(),
        }
    }

    /// For the sampling programs.
    pub(super) fn maps(&self) -> Option<&RegistryMaps> {
        match &self.source {
            Source::Agent(maps) => Some(maps),
            Source::Own(registry) => Some(registry.maps()),
            Source::Nobody(_) => None,
        }
    }

    /// What a process has announced until now; its sections are copied while it lives.
    pub(super) fn of(&mut self, pid: u32) -> Vec<Announced> {
        let space = self.maps().and_then(|maps| maps.of_process(pid));
        let sections = space.map(|space| space.sections).unwrap_or_default();
        let usable = sections.into_iter().filter(|section| !section.quarantined);
        let mut memory = None;
        let mut announced = Vec::new();
        for section in usable {
            if let Some(known) = self.known.get(&section.number) {
                announced.push(known.clone());
                continue;
            }
            let memory = memory.get_or_insert_with(|| File::open(format!("/proc/{pid}/mem")));
            let Ok(memory) = memory else { break };
            let mut read = |at: u64, into: &mut [u8]| memory.read_exact_at(into, at).is_ok();
            // Read again, so checked again: it has to be what the kernel was told.
            let kind = if section.area {
                KIND_AREA
            } else {
                KIND_SECTION
            };
            let length = section.length.into();
            let claim = Claim::read(section.key, section.address, length, kind, &mut read);
            let Some(claim) = claim.ok().filter(|claim| claim.text == section.text) else {
                continue;
            };
            let new = Announced {
                number: section.number,
                key: section.key,
                claim,
            };
            self.copies.load(pid, &new, &mut read);
            self.known.insert(section.number, new.clone());
            announced.push(new);
        }
        announced
    }

    /// The code that these sections describe, by their copies.
    pub(super) fn code<'a>(
        &'a mut self,
        pid: u32,
        sections: &'a [Announced],
    ) -> Option<AnnouncedCode<'a>> {
        (!sections.is_empty()).then(|| AnnouncedCode {
            pid,
            sections,
            copies: &mut self.copies,
            read: None,
        })
    }

    /// What is worth a line to the user.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = self.copies.failures().notes();
        notes.extend(self.late.notes());
        if let Source::Nobody(why) = &self.source {
            let why = why.lines().next().unwrap_or_default();
            notes.push(format!("announcements of programs were not heard: {why}"));
        }
        notes
    }
}
