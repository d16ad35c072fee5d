//! The walk in the kernel, over memory of this process.
#![allow(unsafe_code)]

use super::Target;
use super::bytes::Bytes;
use framewalk_kernel::host::{How, Object, Read};
use framewalk_kernel::look::Look;
use framewalk_kernel::{Error, Walked};
use framewalk_walk::Start;
use framewalk_walk::registry::Announced;
use std::io;
use std::ops::Range;

/// The loaded program, and the mappings of the process that is made up. Their addresses are far from those that the
/// kernel gives to anybody.
pub(super) struct Inside {
    look: Look,
    mapped: Vec<(Range<u64>, i32)>,
}

impl Inside {
    pub(super) fn load() -> Result<Inside, Error> {
        Ok(Inside {
            look: Look::load()?,
            mapped: Vec::new(),
        })
    }

    /// What of the mappings can be read, and nothing else, from now on.
    fn protect(&self, gone: &[Range<u64>], hide: bool) {
        const PAGE: u64 = 4096;
        for gone in gone {
            let page = gone.start & !(PAGE - 1);
            let held = self.mapped.iter().find(|(range, _)| range.contains(&page));
            let Some((_, protection)) = held else {
                continue;
            };
            let protection = if hide { libc::PROT_NONE } else { *protection };
            // SAFETY: a page of a mapping that `map` made, to which nobody has a reference.
            let answer = unsafe { libc::mprotect(page as *mut _, PAGE as usize, protection) };
            assert_eq!(answer, 0, "{}", io::Error::last_os_error());
        }
    }
}

impl Target for Inside {
    // Objects are of files.
    const OBJECTS: bool = false;
    // The topmost frame is this call's.
    const TOPMOST: bool = false;

    fn clear(&mut self) {
        for (range, _) in self.mapped.drain(..) {
            let len = (range.end - range.start) as usize;
            // SAFETY: a mapping that `map` made, to which nobody has a reference.
            let answer = unsafe { libc::munmap(range.start as *mut _, len) };
            assert_eq!(answer, 0, "{}", io::Error::last_os_error());
        }
    }

    fn object(&mut self, _: u32, _: Object<'_>) {
        unreachable!("there are none")
    }

    fn map(&mut self, start: u64, end: u64, executable: bool, _: Option<(u32, u64)>) {
        let exec = if executable { libc::PROT_EXEC } else { 0 };
        let protection = libc::PROT_READ | libc::PROT_WRITE | exec;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let len = (end - start) as usize;
        // SAFETY: it replaces nothing, or fails.
        let at = unsafe { libc::mmap(start as *mut _, len, protection, flags, -1, 0) };
        assert_eq!(at as u64, start, "{}", io::Error::last_os_error());
        self.mapped.push((start..end, protection));
    }

    fn mapped(&mut self, _: u32) {}

    fn announce(&mut self, _: u64, _: u64, _: &mut Read<'_>) -> Option<Result<(), i64>> {
        None
    }

    fn walk(&mut self, start: &Start, how: How, memory: &Bytes, sections: &[Announced]) -> Walked {
        for (at, bytes) in memory.regions() {
            let held = self.mapped.iter().find(|(range, _)| range.contains(&at));
            let room = held.map_or(0, |(range, _)| range.end - at);
            assert!(bytes.len() as u64 <= room, "{at:#x}");
            // SAFETY: they lie in a mapping that `map` made, can be written, and nobody has a reference to it.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len());
            }
        }
        self.protect(&memory.gone, true);
        let walked = self.look.walk(start, how.limit, sections);
        self.protect(&memory.gone, false);
        walked.expect("it runs")
    }

    fn walk_by(&mut self, _: &Start, _: How, _: &mut Read<'_>) -> Option<Walked> {
        None
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.clear();
    }
}
