//! The executable mappings of one process.

use super::Objects;
use super::mapped_file::MappedFile;
use super::maps::{self, Device, Line};
use crate::sample::{ObjectId, Place};
use std::io;

/// Executable mappings of one process, at most: more than any real one has.
const MAX_MAPPINGS: usize = 1 << 16;
/// 64-bit processes have their vdso above this address, 32-bit ones below.
const END_OF_32_BIT: u64 = 1 << 32;

/// What is behind an executable mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// A file, or the vdso.
    Object(ObjectId),
    /// No file: generated code.
    Anonymous,
    /// A file that could not be opened any more.
    Gone,
}

/// One executable mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// First address (user address space of the process).
    pub start: u64,
    /// Last address plus one.
    pub end: u64,
    /// File offset of `start`, bytes.
    pub offset: u64,
    /// What is behind it.
    pub backing: Backing,
}

impl Mapping {
    /// The file offset of a pc inside. Wraps where the process alleges nonsense, like the address
    /// that it stands for.
    pub fn file_offset(&self, pc: u64) -> u64 {
        pc.wrapping_sub(self.start).wrapping_add(self.offset)
    }

    /// The place of a pc inside.
    pub fn place(&self, pc: u64) -> Place {
        match self.backing {
            Backing::Object(id) => Place::Object(id, self.file_offset(pc)),
            Backing::Anonymous | Backing::Gone => Place::Anonymous(pc),
        }
    }
}

/// The executable mappings of one process: sorted, none overlaps another. A fork copies them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mappings {
    mappings: Vec<Mapping>,
}

impl Mappings {
    /// Reads /proc/PID/maps and opens the mapped files.
    pub fn of_process(pid: u32, objects: &mut Objects) -> io::Result<Mappings> {
        let mut mappings = Mappings::default();
        let mut first_error = None;
        maps::parse(maps::open(pid)?, |line| {
            if line.executable {
                let Line {
                    start,
                    end,
                    offset,
                    device,
                    inode,
                    path,
                    ..
                } = line;
                let new = NewMapping {
                    pid,
                    start,
                    end,
                    offset,
                    device,
                    inode,
                    path,
                };
                let error = mappings.insert(new.open(objects)).err();
                first_error = first_error.take().or(error);
            }
        })?;
        first_error.map_or(Ok(mappings), Err)
    }

    /// Adds a mapping; what it overlaps is cut, as mmap(2) with MAP_FIXED does. Fails where a
    /// process has implausibly many.
    pub fn insert(&mut self, new: Mapping) -> io::Result<()> {
        if new.start >= new.end {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.mappings.len() >= MAX_MAPPINGS {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let first = self.mappings.partition_point(|old| old.end <= new.start);
        let last = self.mappings.partition_point(|old| old.start < new.end);
        let below = self
            .mappings
            .get(first)
            .filter(|old| old.start < new.start)
            .copied();
        let above = self.mappings[first..last.max(first)]
            .last()
            .filter(|old| old.end > new.end)
            .copied();
        let below = below.map(|old| Mapping {
            end: new.start,
            ..old
        });
        let above = above.map(|old| Mapping {
            start: new.end,
            offset: old.file_offset(new.end),
            ..old
        });
        let pieces = below.into_iter().chain([new]).chain(above);
        self.mappings.splice(first..last.max(first), pieces);
        Ok(())
    }

    /// The mapping that holds a pc.
    pub fn find(&self, pc: u64) -> Option<&Mapping> {
        let next = self.mappings.partition_point(|mapping| mapping.end <= pc);
        self.mappings
            .get(next)
            .filter(|mapping| mapping.start <= pc)
    }

    /// All of them, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.mappings.iter()
    }
}

/// A mapping as /proc or a kernel event describes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewMapping<'a> {
    pub(crate) pid: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) offset: u64,
    pub(crate) device: Device,
    pub(crate) inode: u64,
    /// As the kernel writes it.
    pub(crate) path: &'a [u8],
}

impl NewMapping<'_> {
    /// Finds out what is behind it, and remembers its file.
    pub(crate) fn open(&self, objects: &mut Objects) -> Mapping {
        let &NewMapping {
            start, end, offset, ..
        } = self;
        Mapping {
            start,
            end,
            offset,
            backing: self.backing(objects),
        }
    }

    fn backing(&self, objects: &mut Objects) -> Backing {
        if self.path == b"[vdso]" {
            let ours = (self.start >= END_OF_32_BIT)
                .then(|| objects.add_vdso().ok())
                .flatten();
            return ours.map_or(Backing::Anonymous, Backing::Object);
        }
        if self.inode == 0 {
            return Backing::Anonymous;
        }
        let &NewMapping {
            pid,
            start,
            end,
            device,
            inode,
            path,
            ..
        } = self;
        let mapped = MappedFile {
            pid,
            start,
            end,
            device,
            inode,
            path,
        };
        match mapped
            .open()
            .and_then(|file| objects.add_file(file, &mapped.path()))
        {
            Ok(id) => Backing::Object(id),
            // A mapped device has no unwind data, and code in shared memory was generated.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput || mapped.is_memory() => {
                Backing::Anonymous
            }
            Err(_) => Backing::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(start: u64, end: u64, offset: u64) -> Mapping {
        Mapping {
            start,
            end,
            offset,
            backing: Backing::Anonymous,
        }
    }

    #[test]
    fn a_new_mapping_cuts_what_it_overlaps() {
        let mut mappings = Mappings::default();
        mappings.insert(mapping(0x1000, 0x5000, 0x100)).unwrap();
        mappings.insert(mapping(0x6000, 0x7000, 0)).unwrap();
        mappings.insert(mapping(0x2000, 0x3000, 0)).unwrap();
        let split = [
            mapping(0x1000, 0x2000, 0x100),
            mapping(0x2000, 0x3000, 0),
            mapping(0x3000, 0x5000, 0x2100),
        ];
        assert_eq!(mappings.mappings[..3], split);
        mappings.insert(mapping(0x1800, 0x6800, 0)).unwrap();
        let cut = [
            mapping(0x1000, 0x1800, 0x100),
            mapping(0x1800, 0x6800, 0),
            mapping(0x6800, 0x7000, 0x800),
        ];
        assert_eq!(mappings.mappings, cut);
        mappings.insert(mapping(0, u64::MAX, 0)).unwrap();
        assert_eq!(mappings.mappings, [mapping(0, u64::MAX, 0)]);
        assert!(mappings.insert(mapping(5, 5, 0)).is_err());
    }

    #[test]
    fn random_insertions_behave_like_a_painted_line() {
        let mut mappings = Mappings::default();
        let mut line = [None; 64];
        let mut seed = 1u64;
        let mut random = || {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (seed >> 33) % 64
        };
        for round in 1..500 {
            let (a, b) = (random(), random());
            let (start, end) = (a.min(b), a.max(b) + 1);
            let offset = round * 1000;
            mappings.insert(mapping(start, end, offset)).unwrap();
            for pc in start..end {
                line[pc as usize] = Some(pc - start + offset);
            }
            for (pc, &expected) in (0..).zip(&line) {
                assert_eq!(mappings.find(pc).map(|m| m.file_offset(pc)), expected);
            }
        }
    }

    #[test]
    fn this_process_has_its_program_and_the_vdso() {
        let mut objects = Objects::default();
        let mappings = Mappings::of_process(std::process::id(), &mut objects).unwrap();
        let here = this_process_has_its_program_and_the_vdso as *const () as u64;
        let Place::Object(id, _) = mappings.find(here).unwrap().place(here) else {
            panic!("not in a file")
        };
        assert_eq!(objects.get(id).path, std::env::current_exe().unwrap());
        assert!(
            objects
                .iter()
                .any(|(_, object)| object.path.as_os_str() == "[vdso]")
        );
        assert!(mappings.find(0).is_none());
        let again = Mappings::of_process(std::process::id(), &mut objects).unwrap();
        assert_eq!(
            again.find(here),
            mappings.find(here),
            "the same object once more"
        );
    }
}
