//! Memory that is shared with other threads, and read by others at any time.

use super::protocol::Words;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

impl Words for &[AtomicU32] {
    fn get(&self, word: u32) -> u32 {
        (**self).get(word as usize).map_or(0, |w| w.load(Relaxed))
    }

    fn get_acquire(&self, word: u32) -> u32 {
        (**self).get(word as usize).map_or(0, |w| w.load(Acquire))
    }

    fn set(&self, word: u32, value: u32) {
        if let Some(w) = (**self).get(word as usize) {
            w.store(value, Relaxed);
        }
    }

    fn set_release(&self, word: u32, value: u32) {
        if let Some(w) = (**self).get(word as usize) {
            w.store(value, Release);
        }
    }

    fn add(&self, word: u32, value: u32) -> u32 {
        let found = (**self).get(word as usize);
        found.map_or(0, |w| w.fetch_add(value, AcqRel))
    }

    fn swap(&self, word: u32, from: u32, to: u32) -> Result<(), u32> {
        match (**self).get(word as usize) {
            Some(w) => w.compare_exchange(from, to, AcqRel, Acquire).map(drop),
            None => Err(0),
        }
    }

    fn release(&self) {
        core::sync::atomic::fence(Release);
    }
}
