//! The maps of the registry, from outside.

use crate::error::Error;
use crate::skeleton::announce::{AnnounceSkel, types};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use std::collections::BTreeMap;
use std::mem::offset_of;
use std::ops::Range;
use std::path::Path;

/// How often a space that is being changed is read again.
const TRIES: usize = 1000;
/// `FW_LAYOUT` of `bpf/shared.h`.
const LAYOUT: u64 = 3;

/// A registered section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The text that it describes.
    pub text: Range<u64>,
    /// The announcer's key.
    pub key: u64,
    /// The section, in the process's memory.
    pub address: u64,
    /// Bytes of it.
    pub length: u32,
    /// No other registration has it.
    pub number: u64,
    /// It is a frame area, which has no version, and no functions or rows that could be counted.
    pub area: bool,
    /// Version of the format.
    pub version: u8,
    /// Functions, by its header.
    pub functions: u32,
    /// Rows, as its header alleges.
    pub rows: u32,
    /// Its mapping was writable when it was registered.
    pub writable: bool,
    /// It was seen to have changed, and is not used any more.
    pub quarantined: bool,
    /// Frames that it was good for.
    pub frames: u64,
    /// Lookups that its memory did not allow.
    pub unreadable: u64,
    /// Lookups that met nonsense.
    pub malformed: u64,
}

/// An address space that has announced something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// No other address space will ever have it.
    pub id: u64,
    /// The processes that share it.
    pub processes: Vec<u32>,
    /// In the order of their text.
    pub sections: Vec<Section>,
}

/// What was counted, over the whole machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RegistryCounts {
    /// Registrations ever made, forks' copies included.
    pub numbers: u64,
    /// Address spaces that are known.
    pub spaces: u64,
    /// Sections in them.
    pub sections: u64,
    /// Calls.
    pub heard: u64,
    /// Calls that were refused.
    pub refused: u64,
    /// Registrations that had to wait for an absent page.
    pub later: u64,
    /// Calls and copies for which there was no room.
    pub full: u64,
    /// Calls that the listener was not told of.
    pub unheard: u64,
}

/// The maps. They live as long as somebody has them open.
#[derive(Debug)]
pub struct RegistryMaps {
    pub(crate) registry: MapHandle,
    pub(crate) spaces: MapHandle,
    pub(crate) pages: MapHandle,
    pub(crate) uses: MapHandle,
    processes: MapHandle,
}

/// The bytes of a value, field by field.
macro_rules! field {
    ($bytes:expr, $type:ty, $struct:ident . $field:ident) => {{
        let at = offset_of!(types::$struct, $field);
        let bytes: &[u8] = $bytes;
        <$type>::from_ne_bytes(bytes.get(at..at + size_of::<$type>())?.try_into().ok()?)
    }};
}

impl RegistryMaps {
    pub(super) fn of(skel: &AnnounceSkel<'_>) -> Result<RegistryMaps, Error> {
        let handle = |map| MapHandle::try_from(map).map_err(Error::Map);
        let maps = &skel.maps;
        Ok(RegistryMaps {
            registry: handle(&maps.registry)?,
            spaces: handle(&maps.spaces)?,
            pages: handle(&maps.pages)?,
            uses: handle(&maps.uses)?,
            processes: handle(&maps.processes)?,
        })
    }

    /// Names and maps, for pinning.
    fn named(&mut self) -> [(&'static str, &mut MapHandle); 5] {
        [
            ("registry", &mut self.registry),
            ("spaces", &mut self.spaces),
            ("pages", &mut self.pages),
            ("uses", &mut self.uses),
            ("processes", &mut self.processes),
        ]
    }

    /// Makes them known to others in a folder of a BPF file system, in place of what is there.
    pub fn pin(&mut self, folder: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(folder).map_err(|error| Error::Pin(folder.to_owned(), error))?;
        for (name, map) in self.named() {
            let path = folder.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::Pin(path, error));
                }
                _ => map.pin(&path).map_err(Error::Map)?,
            }
        }
        Ok(())
    }

    /// Takes back what [`RegistryMaps::pin`] did.
    pub fn unpin(&mut self, folder: &Path) {
        for (name, _) in self.named() {
            let _ = std::fs::remove_file(folder.join(name));
        }
        let _ = std::fs::remove_dir(folder);
    }

    /// The maps that somebody pinned.
    pub fn open(folder: &Path) -> Result<RegistryMaps, Error> {
        let open = |name| MapHandle::from_pinned_path(folder.join(name)).map_err(Error::Map);
        let maps = RegistryMaps {
            registry: open("registry")?,
            spaces: open("spaces")?,
            pages: open("pages")?,
            uses: open("uses")?,
            processes: open("processes")?,
        };
        let sizes = [
            (&maps.registry, size_of::<types::fw_registry>()),
            (&maps.spaces, size_of::<types::fw_space>()),
            (&maps.pages, size_of::<types::fw_page>()),
            (&maps.uses, size_of::<types::fw_use>()),
        ];
        let same = sizes
            .iter()
            .all(|(map, size)| map.value_size() as usize == *size);
        match same
            && maps
                .the_registry()
                .is_some_and(|(layout, _)| layout == LAYOUT)
        {
            true => Ok(maps),
            false => Err(Error::Layout(folder.to_owned())),
        }
    }

    /// Says what these maps mean.
    pub(super) fn begin(&self) -> Result<(), Error> {
        let mut value = vec![0u8; size_of::<types::fw_registry>()];
        let at = offset_of!(types::fw_registry, layout);
        value[at..at + 8].copy_from_slice(&LAYOUT.to_ne_bytes());
        self.registry
            .update(&0u32.to_ne_bytes(), &value, MapFlags::ANY)
            .map_err(Error::Map)
    }

    fn the_registry(&self) -> Option<(u64, RegistryCounts)> {
        let value = self
            .registry
            .lookup(&0u32.to_ne_bytes(), MapFlags::ANY)
            .ok()??;
        Some((
            field!(&value, u64, fw_registry.layout),
            RegistryCounts {
                numbers: field!(&value, u64, fw_registry.numbers),
                spaces: field!(&value, u64, fw_registry.spaces),
                sections: field!(&value, u64, fw_registry.sections),
                heard: field!(&value, u64, fw_registry.heard),
                refused: field!(&value, u64, fw_registry.refused),
                later: field!(&value, u64, fw_registry.later),
                full: field!(&value, u64, fw_registry.full),
                unheard: field!(&value, u64, fw_registry.unheard),
            },
        ))
    }

    /// What was counted.
    pub fn counts(&self) -> RegistryCounts {
        self.the_registry()
            .map(|(_, counts)| counts)
            .unwrap_or_default()
    }

    /// What a process has announced; none where it has not.
    pub fn of_process(&self, pid: u32) -> Option<Space> {
        self.space(self.space_of(pid)?, vec![pid])
    }

    /// Everything that is announced now, by address space.
    pub fn all(&self) -> Vec<Space> {
        self.sharers()
            .into_iter()
            .filter_map(|(id, processes)| self.space(id, processes))
            .collect()
    }

    /// The address spaces that are known now, and the processes that share each, in the order of their ids.
    pub fn sharers(&self) -> BTreeMap<u64, Vec<u32>> {
        let mut sharers = BTreeMap::<u64, Vec<u32>>::new();
        for key in self.processes.keys() {
            let Ok(pid) = key.try_into().map(u32::from_ne_bytes) else {
                continue;
            };
            if let Some(id) = self.space_of(pid) {
                sharers.entry(id).or_default().push(pid);
            }
        }
        for processes in sharers.values_mut() {
            processes.sort_unstable();
            // What is deleted meanwhile makes the kernel begin again.
            processes.dedup();
        }
        sharers
    }

    /// The address space of a process, if it is known.
    pub fn space_of(&self, pid: u32) -> Option<u64> {
        let id = self.processes.lookup(&pid.to_ne_bytes(), MapFlags::ANY);
        Some(u64::from_ne_bytes(id.ok()??.try_into().ok()?))
    }

    /// How many processes share an address space.
    pub fn processes_of(&self, id: u64) -> Option<u32> {
        let value = self.spaces.lookup(&id.to_ne_bytes(), MapFlags::ANY);
        Some(field!(&value.ok()??, u32, fw_space.processes))
    }

    /// One address space, as it was at one moment.
    fn space(&self, id: u64, processes: Vec<u32>) -> Option<Space> {
        let sections = self.sections_of(id)?;
        let sections = sections.into_iter().map(|section| self.used(section));
        Some(Space {
            id,
            processes,
            sections: sections.collect(),
        })
    }

    /// The sections of an address space, as they were at one moment, without what they were good for: that is
    /// kept apart.
    pub fn sections_of(&self, id: u64) -> Option<Vec<Section>> {
        for _ in 0..TRIES {
            let before = self.sequence(id)?;
            let sections = (before.0 % 2 == 0).then(|| self.sections(id, before.1));
            if let Some(Some(sections)) = sections
                && self.sequence(id)? == before
            {
                return Some(sections);
            }
        }
        None
    }

    /// Sequence and number of sections.
    fn sequence(&self, id: u64) -> Option<(u32, u32)> {
        let value = self
            .spaces
            .lookup(&id.to_ne_bytes(), MapFlags::ANY)
            .ok()??;
        let now = field!(&value, u64, fw_space.id);
        (now == id).then_some(())?;
        Some((
            field!(&value, u32, fw_space.sequence),
            field!(&value, u32, fw_space.count),
        ))
    }

    fn sections(&self, id: u64, count: u32) -> Option<Vec<Section>> {
        let size = size_of::<types::fw_section>();
        let per_page = size_of::<types::fw_page>() / size;
        let mut sections = Vec::new();
        for page in 0..(count as usize).div_ceil(per_page) {
            let key = [id.to_ne_bytes(), (page as u64).to_ne_bytes()].concat();
            let value = self.pages.lookup(&key, MapFlags::ANY).ok()??;
            let left = count as usize - sections.len();
            for bytes in value.chunks_exact(size).take(left) {
                sections.push(section(bytes)?);
            }
        }
        Some(sections)
    }

    fn used(&self, mut section: Section) -> Section {
        let used = || {
            let value = self
                .uses
                .lookup(&section.number.to_ne_bytes(), MapFlags::ANY)
                .ok()??;
            Some((
                field!(&value, u64, fw_use.frames),
                field!(&value, u64, fw_use.unreadable),
                field!(&value, u64, fw_use.malformed),
            ))
        };
        (section.frames, section.unreadable, section.malformed) = used().unwrap_or_default();
        section
    }
}

fn section(bytes: &[u8]) -> Option<Section> {
    Some(Section {
        text: field!(bytes, u64, fw_section.start)..field!(bytes, u64, fw_section.end),
        key: field!(bytes, u64, fw_section.key),
        address: field!(bytes, u64, fw_section.address),
        length: field!(bytes, u32, fw_section.length),
        number: field!(bytes, u64, fw_section.number),
        area: field!(bytes, u8, fw_section.area) != 0,
        version: field!(bytes, u8, fw_section.version),
        functions: field!(bytes, u32, fw_section.functions),
        rows: field!(bytes, u32, fw_section.rows),
        writable: field!(bytes, u8, fw_section.writable) != 0,
        quarantined: field!(bytes, u8, fw_section.quarantined) != 0,
        frames: 0,
        unreadable: 0,
        malformed: 0,
    })
}
