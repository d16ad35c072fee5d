//! The reference registry: what processes announced about their code, and every call on it.
//!
//! It is docs/abi.md in Rust: the ptrace engine answers with it, and the registry inside the kernel has to
//! end in the same state after the same calls. Time per call is bounded by the sections of one address
//! space, memory by the room that it was given; nothing that a process says can make it panic.

mod claim;

pub use claim::{Claim, What};

use framewalk_announce::abi::{
    KIND_AREA, KIND_SECTION, MAX_AREAS, MAX_SECTIONS, REGISTER, REPLACE, Refusal, UNREGISTER,
};
use framewalk_announce::area::layout::MAX_AREA;
use framewalk_sframe::spec::Version;
use std::collections::BTreeMap;
use std::ops::Range;

/// Sections of all address spaces together, if nothing else is said: some 150 MB.
pub const ROOM: usize = 1 << 20;

/// A registered section or frame area. (Where nothing else is said, "section" means both.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Counted up by the registry: no two sections ever have the same one, not even copies of one.
    pub number: u64,
    /// What its announcer calls it by.
    pub key: u64,
    /// What was registered.
    pub claim: Claim,
}

impl Announced {
    /// The announcer's receipt, above 0.
    pub fn id(&self) -> i32 {
        (self.number & ID) as i32
    }
}

/// The bits of a number that fit prctl(2)'s result.
const ID: u64 = i32::MAX as u64;

/// A section in a listing: what two registries must agree on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// First address of its text.
    pub text_start: u64,
    /// Last address plus one.
    pub text_end: u64,
    /// Its key.
    pub key: u64,
    /// First byte of the section.
    pub address: u64,
    /// Bytes of the section.
    pub len: u32,
    /// Version of the format; none of a frame area.
    pub version: Option<Version>,
}

/// What one address space holds.
#[derive(Debug, Default)]
struct Space {
    /// Sorted by text, none overlaps another.
    sections: Vec<Announced>,
    /// Processes that have it.
    sharers: usize,
}

/// What all processes announced.
#[derive(Debug)]
pub struct Registry {
    spaces: BTreeMap<u64, Space>,
    /// Only processes that announced something, or share an address space.
    processes: BTreeMap<u32, u64>,
    last_space: u64,
    last_number: u64,
    sections: usize,
    room: usize,
    uncopied: u64,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::with_room(ROOM)
    }
}

impl Registry {
    /// An empty registry for so many sections in all.
    pub fn with_room(sections: usize) -> Registry {
        Registry {
            spaces: BTreeMap::new(),
            processes: BTreeMap::new(),
            last_space: 0,
            last_number: 0,
            sections: 0,
            room: sections,
            uncopied: 0,
        }
    }

    /// Answers a prctl(2) call like the kernel would: a number above 0 or a negative errno. `None`:
    /// it is none of the two.
    pub fn prctl(
        &mut self,
        pid: u32,
        option: u32,
        [key, second, third, fourth]: [u64; 4],
        read: &mut dyn FnMut(u64, &mut [u8]) -> bool,
    ) -> Option<i32> {
        let answer = match option {
            REGISTER => self
                .register(pid, key, second, third, fourth, read)
                .map(|announced| announced.id()),
            UNREGISTER if (second, third, fourth) == (0, 0, 0) => {
                self.unregister(pid, key).map(|removed| removed as i32)
            }
            UNREGISTER => Err(Refusal::Arguments),
            _ => return None,
        };
        Some(answer.unwrap_or_else(|refusal| -refusal.errno()))
    }

    /// Takes a section in the memory that `read` reads.
    pub fn register(
        &mut self,
        pid: u32,
        key: u64,
        address: u64,
        length: u64,
        kind_and_flags: u64,
        read: &mut dyn FnMut(u64, &mut [u8]) -> bool,
    ) -> Result<&Announced, Refusal> {
        let kind = kind_and_flags & !REPLACE;
        if kind != KIND_SECTION && kind != KIND_AREA {
            return Err(Refusal::Arguments);
        }
        let claim = Claim::read(key, address, length, kind, read)?;
        let replaced = |held: &Announced| kind_and_flags & REPLACE != 0 && held.key == key;
        let held = self.sections(pid);
        let gone = held.iter().filter(|held| replaced(held)).count();
        if kind_and_flags & REPLACE != 0 && gone == 0 {
            return Err(Refusal::UnknownKey);
        }
        let mut near = overlapping(held, &claim.text).iter();
        if near.any(|held| !replaced(held)) {
            return Err(Refusal::Overlap);
        }
        if held.len() - gone >= MAX_SECTIONS as usize || self.sections - gone >= self.room {
            return Err(Refusal::Quota);
        }
        if kind == KIND_AREA {
            let stay = held.iter().filter(|held| !replaced(held));
            let areas = stay.filter(|held| matches!(held.claim.what, What::Area(_)));
            let (count, bytes) = areas.fold((0, 0), |(count, bytes), area| {
                (count + 1, bytes + u64::from(area.claim.len))
            });
            if count >= MAX_AREAS || bytes + length > MAX_AREA {
                return Err(Refusal::Quota);
            }
        }
        let number = self.next_number();
        self.sections = self.sections - gone + 1;
        let space = self.space(pid);
        let sections = &mut self.spaces.entry(space).or_default().sections;
        sections.retain(|held| !replaced(held));
        let place = sections.partition_point(|held| held.claim.text.start < claim.text.start);
        let announced = Announced { number, key, claim };
        sections.insert(place, announced);
        Ok(&sections[place])
    }

    /// Removes everything that a key holds; how many sections that were.
    pub fn unregister(&mut self, pid: u32, key: u64) -> Result<u32, Refusal> {
        let space = self.processes.get(&pid);
        let Some(space) = space.and_then(|space| self.spaces.get_mut(space)) else {
            return Err(Refusal::UnknownKey);
        };
        let before = space.sections.len();
        space.sections.retain(|held| held.key != key);
        let removed = before - space.sections.len();
        self.sections -= removed;
        match removed {
            0 => Err(Refusal::UnknownKey),
            _ => Ok(removed as u32),
        }
    }

    /// A process was made with a copy of its parent's address space.
    pub fn fork(&mut self, parent: u32, child: u32) {
        if parent == child {
            return;
        }
        self.leave(child);
        let mut sections = self.sections(parent).to_vec();
        if sections.is_empty() {
            return;
        }
        if self.sections + sections.len() > self.room {
            self.uncopied += 1;
            return;
        }
        self.sections += sections.len();
        for section in &mut sections {
            section.number = self.next_number();
        }
        let space = self.space(child);
        self.spaces.entry(space).or_default().sections = sections;
    }

    /// A process was made that has its parent's own address space: vfork(2), or clone(2) with CLONE_VM.
    pub fn share(&mut self, parent: u32, child: u32) {
        if parent == child {
            return;
        }
        self.leave(child);
        let space = self.space(parent);
        self.spaces.entry(space).or_default().sharers += 1;
        self.processes.insert(child, space);
    }

    /// A process runs another program now, in an address space of its own.
    pub fn exec(&mut self, pid: u32) {
        self.leave(pid);
    }

    /// A process has ended.
    pub fn exit(&mut self, pid: u32) {
        self.leave(pid);
    }

    /// The section whose text holds a pc.
    pub fn find(&self, pid: u32, pc: u64) -> Option<&Announced> {
        find(self.sections(pid), pc)
    }

    /// What a process has registered, by address of text.
    pub fn sections(&self, pid: u32) -> &[Announced] {
        let space = self.processes.get(&pid);
        space
            .and_then(|space| self.spaces.get(space))
            .map_or(&[], |space| &space.sections)
    }

    /// How many sections there are in all.
    pub fn len(&self) -> usize {
        self.sections
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sections == 0
    }

    /// How many forks found no room for their copy.
    pub fn uncopied(&self) -> u64 {
        self.uncopied
    }

    /// Every process that holds something, with all of it by address of text. Two registries that
    /// heard the same are equal in this.
    pub fn list(&self) -> BTreeMap<u32, Vec<Listed>> {
        let of_process = |&pid: &u32| {
            let listed = self.sections(pid).iter().map(|held| Listed {
                text_start: held.claim.text.start,
                text_end: held.claim.text.end,
                key: held.key,
                address: held.claim.address,
                len: held.claim.len,
                version: held.claim.what.version(),
            });
            (pid, listed.collect::<Vec<_>>())
        };
        let processes = self.processes.keys().map(of_process);
        processes.filter(|(_, listed)| !listed.is_empty()).collect()
    }

    fn next_number(&mut self) -> u64 {
        // SANITY: 64 bits are not counted up in any time.
        self.last_number += 1;
        if self.last_number & ID == 0 {
            self.last_number += 1;
        }
        self.last_number
    }

    /// The address space of a process; a new one if it has none yet.
    fn space(&mut self, pid: u32) -> u64 {
        *self.processes.entry(pid).or_insert_with(|| {
            self.last_space += 1;
            let space = Space {
                sections: Vec::new(),
                sharers: 1,
            };
            self.spaces.insert(self.last_space, space);
            self.last_space
        })
    }

    fn leave(&mut self, pid: u32) {
        let Some(number) = self.processes.remove(&pid) else {
            return;
        };
        let Some(space) = self.spaces.get_mut(&number) else {
            return;
        };
        space.sharers -= 1;
        if space.sharers == 0 {
            self.sections -= space.sections.len();
            self.spaces.remove(&number);
        }
    }
}

/// The section whose text holds a pc, of sections that are sorted and disjoint.
pub fn find(sections: &[Announced], pc: u64) -> Option<&Announced> {
    let next = sections.partition_point(|held| held.claim.text.end <= pc);
    sections
        .get(next)
        .filter(|held| held.claim.text.start <= pc)
}

fn overlapping<'a>(sections: &'a [Announced], text: &Range<u64>) -> &'a [Announced] {
    let first = sections.partition_point(|held| held.claim.text.end <= text.start);
    let last = sections.partition_point(|held| held.claim.text.start < text.end);
    sections.get(first..last).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_fit_an_int_and_are_never_0() {
        let mut registry = Registry {
            last_number: ID - 1,
            ..Registry::default()
        };
        let mut id = || (registry.next_number() & ID) as i32;
        assert_eq!([id(), id(), id()], [i32::MAX, 1, 2]);
    }
}
