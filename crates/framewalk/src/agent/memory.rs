//! What announced sections say now: hashes of their bytes, as they are in the memory of their processes.
//!
//! Processes run meanwhile, register and unregister, exec and end, and their ids are used again. So a hash counts
//! only if, after the reading, the registration still exists and the process still has the address space.
//! One moment that this does not show: an exec is heard some time after the memory has changed. Where a process has its
//! address space alone, nothing that uses the registration is left then; where it shares it (vfork(2)), all
//! sharers are asked.

use framewalk_kernel::{RegistryMaps, Section};
use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use xxhash_rust::xxh3::Xxh3;

/// The largest section that is read. The largest `.eh_frame` known are some tens of MiB.
pub(crate) const MAX_SECTION: u32 = 64 << 20;
/// Bytes that are read at once.
const PIECE: usize = 256 << 10;
/// Processes of one address space that are asked, at most.
const MAX_SHARERS: usize = 4;

/// How much may still be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) sections: u32,
    pub(crate) bytes: u64,
}

impl Budget {
    /// Whether it allows this section.
    pub(crate) fn allows(&self, section: &Section) -> bool {
        self.sections > 0 && u64::from(section.length) <= self.bytes
    }

    /// Takes what reading this section costs.
    pub(crate) fn take(&mut self, section: &Section) {
        self.sections = self.sections.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(section.length.into());
    }

    /// Takes nothing for this one after all.
    pub(crate) fn give(&mut self, section: &Section) {
        self.sections = self.sections.saturating_add(1);
        self.bytes = self.bytes.saturating_add(section.length.into());
    }
}

/// The hashes of one section, in the memory of each process that shares the address space. None where it cannot be
/// read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Now(Vec<u64>);

impl Now {
    /// The hash, unless there is none or processes disagree.
    pub(crate) fn hash(&self) -> Option<u64> {
        let first = *self.0.first()?;
        self.0.iter().all(|&hash| hash == first).then_some(first)
    }

    /// Whether processes disagree.
    pub(crate) fn is_torn(&self) -> bool {
        !self.0.is_empty() && self.hash().is_none()
    }

    /// Whether it was another before; none where that cannot be said.
    pub(crate) fn changed(&self, before: u64) -> Option<bool> {
        (!self.0.is_empty()).then(|| self.0.iter().all(|&hash| hash != before))
    }
}

/// Reads memory.
#[derive(Debug)]
pub(crate) struct Reader {
    piece: Vec<u8>,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader {
            piece: vec![0; PIECE],
        }
    }
}

impl Reader {
    /// Reads these sections of an address space. What was gone afterwards is left out; if none of the processes is
    /// there any more, that is everything.
    pub(crate) fn read(
        &mut self,
        maps: &RegistryMaps,
        space: u64,
        processes: &[u32],
        sections: Vec<Section>,
    ) -> Vec<(Section, Now)> {
        // A file that is opened here stays that of the memory of this moment, whatever the process does.
        let memories: Vec<(u32, File)> = processes
            .iter()
            .take(MAX_SHARERS)
            .filter_map(|&pid| Some((pid, File::open(format!("/proc/{pid}/mem")).ok()?)))
            .collect();
        let mut read = Vec::new();
        for section in sections {
            let hashes: Vec<Option<u64>> = memories
                .iter()
                .map(|(_, memory)| self.hash(memory, &section))
                .collect();
            read.push((section, hashes));
        }
        let still: Vec<bool> = memories
            .iter()
            .map(|&(pid, _)| maps.space_of(pid) == Some(space))
            .collect();
        if !still.contains(&true) {
            return Vec::new();
        }
        let registered: HashSet<u64> = maps
            .sections_of(space)
            .unwrap_or_default()
            .iter()
            .map(|section| section.number)
            .collect();
        read.retain(|(section, _)| registered.contains(&section.number));
        read.into_iter()
            .map(|(section, hashes)| {
                let valid = hashes.into_iter().zip(&still).filter(|(_, still)| **still);
                (section, Now(valid.filter_map(|(hash, _)| hash).collect()))
            })
            .collect()
    }

    fn hash(&mut self, memory: &File, section: &Section) -> Option<u64> {
        let mut hash = Xxh3::new();
        let (mut at, mut left) = (section.address, section.length as usize);
        while left > 0 {
            let piece = self.piece.get_mut(..left.min(PIECE))?;
            memory.read_exact_at(piece, at).ok()?;
            hash.update(piece);
            at = at.checked_add(piece.len() as u64)?;
            left -= piece.len();
        }
        Some(hash.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sharers_that_disagree() {
        let now = |hashes: &[u64]| Now(hashes.to_vec());
        assert_eq!((now(&[]).hash(), now(&[]).changed(1)), (None, None));
        assert_eq!((now(&[1]).hash(), now(&[1, 1]).hash()), (Some(1), Some(1)));
        assert_eq!((now(&[1, 2]).hash(), now(&[1, 2]).is_torn()), (None, true));
        assert!(!now(&[]).is_torn() && !now(&[1]).is_torn());
        assert_eq!(now(&[1]).changed(1), Some(false));
        assert_eq!(now(&[2]).changed(1), Some(true));
        assert_eq!(now(&[2, 1]).changed(1), Some(false), "one has it unchanged");
        assert_eq!(now(&[2, 3]).changed(1), Some(true));
    }

    #[test]
    fn the_budget_ends() {
        let mut budget = Budget {
            sections: 2,
            bytes: 100,
        };
        let section = |length| Section {
            length,
            ..a_section()
        };
        assert!(!budget.allows(&section(101)));
        assert!(budget.allows(&section(100)));
        budget.take(&section(60));
        assert!(!budget.allows(&section(41)));
        budget.take(&section(40));
        assert!(!budget.allows(&section(0)));
    }

    fn a_section() -> Section {
        Section {
            text: 0..1,
            key: 0,
            address: 0,
            length: 0,
            number: 0,
            area: false,
            version: 3,
            functions: 1,
            rows: 1,
            writable: false,
            quarantined: false,
            frames: 0,
            unreadable: 0,
            malformed: 0,
        }
    }

    #[test]
    fn memory_is_hashed_in_pieces() {
        let bytes: Vec<u8> = (0..3 * PIECE + 17).map(|n| (n / 7) as u8).collect();
        let memory = File::open("/proc/self/mem").unwrap();
        let mut section = Section {
            address: bytes.as_ptr() as u64,
            length: bytes.len() as u32,
            ..a_section()
        };
        let mut reader = Reader::default();
        let hash = reader.hash(&memory, &section);
        assert_eq!(hash, Some(xxhash_rust::xxh3::xxh3_64(&bytes)));
        section.address = u64::MAX - 5;
        assert_eq!(reader.hash(&memory, &section), None);
        section.address = 0;
        assert_eq!(reader.hash(&memory, &section), None);
    }
}
