//! What is to be listed: announced ranges from the agent's maps, discovered ones from what a process maps.

use crate::agent::Changes;
use crate::processes::{Backing, Mapping, Mappings, Objects, Table, Tables, task};
use crate::sample::ObjectId;
use framewalk_announce::abi;
use framewalk_kernel::{RegistryMaps, Section};
use framewalk_walk::Origin;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;

/// SFrame version of the tables that are made here.
const TABLE_VERSION: u8 = 3;

/// One process and its ranges.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) comm: String,
    /// Other processes that have the same memory.
    pub(super) sharers: Vec<u32>,
    /// In the order of their text.
    pub(super) sections: Vec<Listed>,
    pub(super) undescribed: Vec<Undescribed>,
}

/// Where unwind data comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The process announced it.
    Announced,
    /// The process announced a frame area, which describes code as it is generated.
    Area,
    /// The `.sframe` of a mapped file.
    File,
    /// The `.eh_frame` of a mapped file.
    Converted,
}

impl Source {
    pub(super) fn name(self) -> &'static str {
        match self {
            Source::Announced => "announced",
            Source::Area => "frame-area",
            Source::File => "file",
            Source::Converted => "converted",
        }
    }
}

/// A range of code that unwind data is known of.
#[derive(Debug)]
pub(super) struct Listed {
    /// Addresses of the process.
    pub(super) text: Range<u64>,
    pub(super) source: Source,
    pub(super) version: u8,
    pub(super) functions: u32,
    pub(super) rows: u64,
    /// The file that is mapped there, if that was looked for.
    pub(super) object: Option<String>,
    pub(super) announced: Option<Announced>,
}

/// What is only known of announced ones.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) section: Section,
    /// Since it was registered; none where nobody has looked.
    pub(super) changed: Option<bool>,
}

/// A mapping of code that nothing is known of.
#[derive(Debug)]
pub(super) struct Undescribed {
    pub(super) text: Range<u64>,
    pub(super) object: Option<String>,
    pub(super) why: String,
}

/// What the agent knows.
pub(super) struct Known<'a> {
    maps: &'a RegistryMaps,
    /// The processes that share each address space.
    sharers: BTreeMap<u64, Vec<u32>>,
    changes: Changes,
}

impl<'a> Known<'a> {
    pub(super) fn new(maps: &'a RegistryMaps, changes: Changes) -> Known<'a> {
        let sharers = maps.sharers();
        Known {
            maps,
            sharers,
            changes,
        }
    }
}

/// Lists.
pub(super) struct Lister<'a> {
    /// None where no agent is alive.
    pub(super) announced: Option<Known<'a>>,
    pub(super) objects: Objects,
    pub(super) tables: Tables,
}

impl Lister<'_> {
    /// What everybody announced.
    pub(super) fn everybody(&mut self) -> Vec<Process> {
        let Some(Known { sharers, .. }) = &self.announced else {
            return Vec::new();
        };
        let firsts: Vec<u32> = sharers
            .values()
            .filter_map(|pids| pids.first().copied())
            .collect();
        let mut processes: Vec<Process> = firsts
            .into_iter()
            .map(|pid| self.announced_by(pid))
            .collect();
        processes.retain(|process| !process.sections.is_empty());
        processes.sort_by_key(|process| process.pid);
        processes
    }

    /// What a process announced, and what is discovered of it.
    pub(super) fn of_process(&mut self, pid: u32) -> io::Result<Process> {
        let mut process = self.announced_by(pid);
        let mappings = Mappings::of_process(pid, &mut self.objects)?;
        for listed in &mut process.sections {
            if let Some(Mapping {
                backing: Backing::Object(id),
                ..
            }) = mappings.find(listed.text.start)
            {
                listed.object = Some(self.path(*id));
            }
        }
        // What lies above is the kernel's (the vsyscall page).
        let users = |mapping: &&Mapping| mapping.start < abi::USER_END;
        for mapping in mappings.iter().filter(users) {
            let described = |listed: &Listed| {
                listed.text.start < mapping.end && mapping.start < listed.text.end
            };
            let why = match mapping.backing {
                Backing::Object(id) => {
                    let table = self.tables.get(id, &self.objects);
                    match (table.lack, discovered(table, mapping)) {
                        (_, Some(listed)) => {
                            let object = Some(self.path(id));
                            process.sections.push(Listed { object, ..listed });
                            continue;
                        }
                        (Some(lack), None) => lack.to_string(),
                        (None, None) => "unwind data for other parts of the file only".into(),
                    }
                }
                _ if process.sections.iter().any(described) => continue,
                Backing::Anonymous => "not in a file".into(),
                Backing::Gone => "its file cannot be opened any more".into(),
            };
            let object = match mapping.backing {
                Backing::Object(id) => Some(self.path(id)),
                Backing::Anonymous | Backing::Gone => None,
            };
            let text = mapping.start..mapping.end;
            process.undescribed.push(Undescribed { text, object, why });
        }
        process
            .sections
            .sort_by_key(|listed| (listed.text.start, listed.source as u8));
        Ok(process)
    }

    fn announced_by(&mut self, pid: u32) -> Process {
        let comm = task::stat(pid, pid).map(|stat| stat.comm);
        let mut process = Process {
            pid,
            comm: comm.unwrap_or_default(),
            sharers: Vec::new(),
            sections: Vec::new(),
            undescribed: Vec::new(),
        };
        let Some(Known {
            maps,
            sharers,
            changes,
        }) = &mut self.announced
        else {
            return process;
        };
        let Some(space) = maps.of_process(pid) else {
            return process;
        };
        let sharing = sharers.get(&space.id).cloned().unwrap_or(vec![pid]);
        let changed = changes.of(maps, space.id, &sharing, &space.sections);
        process.sharers = sharing;
        process.sharers.retain(|&other| other != pid);
        let listed = |section: Section| announced(section, &changed);
        process.sections = space.sections.into_iter().map(listed).collect();
        process
    }

    fn path(&self, id: ObjectId) -> String {
        self.objects.get(id).path.to_string_lossy().into_owned()
    }
}

fn announced(section: Section, changed: &HashMap<u64, bool>) -> Listed {
    Listed {
        text: section.text.clone(),
        source: match section.area {
            true => Source::Area,
            false => Source::Announced,
        },
        version: section.version,
        functions: section.functions,
        rows: section.rows.into(),
        object: None,
        announced: Some(Announced {
            changed: changed.get(&section.number).copied(),
            section,
        }),
    }
}

/// What a table says of the part of its file that is mapped here: from the first function's start to the last
/// one's end, as for announced sections.
fn discovered(table: &Table, mapping: &Mapping) -> Option<Listed> {
    let text = table.text()?;
    let length = mapping.end - mapping.start;
    let mapped = mapping.offset..mapping.offset.checked_add(length)?;
    let text = text.start.max(mapped.start)..text.end.min(mapped.end);
    // Offsets inside of the mapping, so below its length.
    let address = |offset: u64| mapping.start + (offset - mapping.offset);
    (!text.is_empty()).then(|| Listed {
        text: address(text.start)..address(text.end),
        source: match table.origin {
            Origin::File => Source::File,
            _ => Source::Converted,
        },
        version: TABLE_VERSION,
        functions: table.functions,
        rows: table.rows,
        object: None,
        announced: None,
    })
}
