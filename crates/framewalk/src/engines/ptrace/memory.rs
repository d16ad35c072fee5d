//! The memory of a stopped thread, read in windows: one system call brings many words of a stack.

use super::sys;
use framewalk_walk::Memory;

/// Where a read may end early: memory is mapped in pages.
const PAGE: u64 = 4096;
/// Bytes that one read brings, at most.
const WINDOW: usize = 4 * PAGE as usize;

/// Reads through process_vm_readv(2).
#[derive(Debug)]
pub(super) struct LiveMemory {
    pid: u32,
    start: u64,
    length: usize,
    window: Box<[u8; WINDOW]>,
}

impl LiveMemory {
    pub(super) fn new() -> LiveMemory {
        LiveMemory {
            pid: 0,
            start: 0,
            length: 0,
            window: Box::new([0; WINDOW]),
        }
    }

    /// Forgets what was read: the process, or another one, has run since.
    pub(super) fn of(&mut self, pid: u32) -> &mut LiveMemory {
        (self.pid, self.length) = (pid, 0);
        self
    }

    fn seen(&self, address: u64) -> Option<u64> {
        let offset = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let word = self
            .window
            .get(..self.length)?
            .get(offset..)?
            .first_chunk()?;
        Some(u64::from_le_bytes(*word))
    }
}

impl Memory for LiveMemory {
    fn word(&mut self, address: u64) -> Option<u64> {
        if let Some(word) = self.seen(address) {
            return Some(word);
        }
        // Nothing of the user's lies at the very end of the address space.
        address.checked_add(2 * WINDOW as u64)?;
        let first = (PAGE - address % PAGE) as usize;
        let next = address + first as u64;
        let pieces = [
            (address, first),
            (next, PAGE as usize),
            (next + PAGE, PAGE as usize),
            (next + 2 * PAGE, WINDOW - first - 2 * PAGE as usize),
        ];
        self.start = address;
        self.length = sys::read_memory(self.pid, pieces, &mut self.window[..]);
        self.seen(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_this_process() {
        let words: Vec<u64> = (0..10_000).map(|n| n * 3).collect();
        let mut memory = LiveMemory::new();
        let memory = memory.of(std::process::id());
        let start = words.as_ptr() as u64;
        for n in [0, 1, 2047, 2048, 9_999, 5, 0] {
            assert_eq!(memory.word(start + n * 8), Some(n * 3));
        }
        assert_eq!(memory.word(start + 4), Some(3 << 32), "unaligned words too");
        for address in [0, 8, u64::MAX, u64::MAX - 7, 1 << 63] {
            assert_eq!(memory.word(address), None);
        }
    }

    #[test]
    fn up_to_the_last_mapped_byte() {
        // The end of this thread's stack is the end of a mapping.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let stack = maps.lines().find(|line| line.ends_with("[stack]")).unwrap();
        let end = u64::from_str_radix(stack.split(['-', ' ']).nth(1).unwrap(), 16).unwrap();
        let mut memory = LiveMemory::new();
        let memory = memory.of(std::process::id());
        assert!(memory.word(end - 8).is_some());
        assert!(memory.word(end - 64).is_some());
        assert_eq!(memory.word(end - 4), None);
        assert_eq!(memory.word(end), None);
        assert!(memory.word(end - 8).is_some());
    }
}
