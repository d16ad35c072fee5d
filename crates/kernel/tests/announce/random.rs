//! Numbers that look random, and are the same again for the same seed.

use std::time::SystemTime;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn any_seed() -> u64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    /// A number on the edge of something, or beside the one that it replaces.
    pub(crate) fn edge(&mut self, near: u64) -> u64 {
        let edge = 1u64 << self.below(64);
        let edges = [
            0,
            near,
            near.wrapping_neg(),
            edge,
            edge.wrapping_neg(),
            u64::MAX,
            u32::MAX.into(),
            1 << 47,
            self.next(),
        ];
        let edge = edges[self.below(edges.len() as u64) as usize];
        edge.wrapping_add(self.below(5)).wrapping_sub(2)
    }

    pub(crate) fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}
