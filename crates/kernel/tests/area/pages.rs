//! Memory of which some pages cannot be read.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr::{null_mut, slice_from_raw_parts_mut};

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;

/// Bytes at an address of this process, and a copy of them that can be looked at.
pub(crate) struct Pages {
    memory: *mut c_void,
    len: usize,
    offset: usize,
    bytes: Vec<u8>,
    hidden: Vec<bool>,
}

impl Pages {
    /// Puts the bytes so far behind the beginning of a page.
    pub(crate) fn new(bytes: Vec<u8>, offset: usize) -> Pages {
        let pages = (offset + bytes.len()).div_ceil(PAGE);
        let len = pages * PAGE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new memory at a place that the kernel chooses.
        let memory = unsafe {
            libc::mmap(
                null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            )
        };
        assert_ne!(memory, libc::MAP_FAILED);
        // SAFETY: it has just been mapped, nobody else knows of it, and the slice is gone before its pages are hidden.
        let all = unsafe { &mut *slice_from_raw_parts_mut(memory.cast::<u8>(), len) };
        all[offset..][..bytes.len()].copy_from_slice(&bytes);
        Pages {
            memory,
            len,
            offset,
            bytes,
            hidden: vec![false; pages],
        }
    }

    /// Where the bytes are.
    pub(crate) fn address(&self) -> u64 {
        self.memory as u64 + self.offset as u64
    }

    /// How many pages have some of them.
    pub(crate) fn count(&self) -> usize {
        self.hidden.len()
    }

    /// From now on these pages cannot be read, and all others can.
    pub(crate) fn hide(&mut self, hide: impl Fn(usize) -> bool) {
        for (page, hidden) in self.hidden.iter_mut().enumerate() {
            *hidden = hide(page);
            let protection = if *hidden {
                libc::PROT_NONE
            } else {
                libc::PROT_READ
            };
            let at = self.memory.wrapping_byte_add(page * PAGE);
            // SAFETY: a page of this map, which no reference of Rust's leads to.
            assert_eq!(unsafe { libc::mprotect(at, PAGE, protection) }, 0);
        }
    }

    /// Whether some of these bytes are hidden.
    pub(crate) fn hides(&self, at: u64, len: usize) -> bool {
        let first = self.offset + at as usize;
        (first..first + len).any(|at| self.hidden.get(at / PAGE).is_none_or(|&hidden| hidden))
    }

    /// Reads from the copy what could be read from the pages.
    pub(crate) fn read(&self, at: u64, into: &mut [u8]) -> bool {
        let bytes = self
            .bytes
            .get(at as usize..)
            .and_then(|b| b.get(..into.len()));
        match bytes {
            Some(bytes) if !self.hides(at, into.len()) => {
                into.copy_from_slice(bytes);
                true
            }
            _ => false,
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the map, as long as it is; no reference leads to it.
        unsafe { libc::munmap(self.memory, self.len) };
    }
}
