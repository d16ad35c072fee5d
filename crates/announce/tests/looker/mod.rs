//! Looks into areas that tests made, as a consumer does: by the untrusting observer, and without a lock.
#![allow(dead_code)]

pub(crate) mod oracle;

use framewalk_announce::area::layout::*;
use framewalk_announce::area::observe::{Fault, Found, Geometry};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Acquire;

/// Memory for an area.
pub(crate) fn zeros(bytes: u64) -> Vec<AtomicU32> {
    (0..bytes.div_ceil(4)).map(|_| AtomicU32::new(0)).collect()
}

/// Reads any bytes, word by word, in this order.
pub(crate) fn read(memory: &[AtomicU32], at: u64, into: &mut [u8]) -> bool {
    for (at, byte) in (at..).zip(into) {
        let Some(word) = memory.get(at as usize / 4) else {
            return false;
        };
        // Each byte by a read of its own: more torn than any consumer's.
        *byte = word.load(Acquire).to_ne_bytes()[at as usize % 4];
    }
    true
}

pub(crate) fn bytes(memory: &[AtomicU32], at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    assert!(read(memory, at, &mut bytes));
    bytes
}

pub(crate) fn word(memory: &[AtomicU32], at: u64) -> u32 {
    memory[at as usize / 4].load(Acquire)
}

/// Word of an entry.
pub(crate) fn field(memory: &[AtomicU32], slot: u32, field: u64) -> u32 {
    word(memory, HEADER_SIZE + ENTRY_SIZE * u64::from(slot) + field)
}

/// An area as its consumers see it.
pub(crate) struct Looker<'m> {
    pub(crate) memory: &'m [AtomicU32],
    pub(crate) geometry: Geometry,
}

impl Looker<'_> {
    pub(crate) fn new(memory: &[AtomicU32], length: u64) -> Looker<'_> {
        let mut header = [0; GEOMETRY_SIZE as usize];
        assert!(read(memory, 0, &mut header));
        Looker {
            memory,
            geometry: Geometry::parse(&header, length).unwrap(),
        }
    }

    pub(crate) fn look(&self, pc: u64) -> Result<Option<Found>, Fault> {
        let mut read = |at, into: &mut [u8]| read(self.memory, at, into);
        self.geometry.look_up(pc, &mut read)
    }

    /// The slot of the entry that holds a pc.
    pub(crate) fn slot(&self, pc: u64) -> Option<u32> {
        self.look(pc).unwrap().and_then(|found| found.slot)
    }

    pub(crate) fn name(&self, pc: u64) -> String {
        let mut read = |at, into: &mut [u8]| read(self.memory, at, into);
        let found = self.look(pc).unwrap().unwrap();
        let mut name = [0; MAX_NAME as usize];
        let name = found.name(&self.geometry, &mut name, &mut read).unwrap();
        String::from_utf8(name.to_vec()).unwrap()
    }

    /// Slots along the chain that a granule leads to, dead ones included.
    pub(crate) fn chain(&self, granule: u64) -> Vec<u32> {
        let mut link = word(self.memory, self.geometry.parts().index_at + 4 * granule);
        assert_eq!(link & COVERED, 0, "granule {granule} is covered");
        let mut chain = Vec::new();
        while link != 0 {
            assert!(chain.last().is_none_or(|&above| link - 1 < above));
            chain.push(link - 1);
            link = field(self.memory, link - 1, NEXT);
        }
        chain
    }
}
