//! This process's memory, asked before it is read.
#![allow(unsafe_code)]

use crate::headers::Memory;
use core::cell::Cell;
use framewalk_announce::system;

/// Nobody maps anything lower (vm.mmap_min_addr), and so nothing there is worth a question.
const LOWEST: usize = 1 << 16;
/// Pages are as large as this, or larger.
const PAGE: usize = 4096;

/// The memory of this process. It must stay mapped where it was found readable: that of an object that the loader has
/// mapped does while the loader tells of it.
pub(crate) struct Own {
    /// The page that was found readable last.
    page: Cell<usize>,
}

impl Own {
    pub(crate) fn new() -> Own {
        Own { page: Cell::new(0) }
    }

    fn readable(&self, address: usize) -> bool {
        let page = address / PAGE;
        if self.page.get() != page {
            if !system::readable(address) {
                return false;
            }
            self.page.set(page);
        }
        true
    }
}

impl Memory for Own {
    fn read(&self, address: usize) -> Option<[u8; 8]> {
        let last = address.checked_add(7)?;
        if address < LOWEST || !self.readable(address) || !self.readable(last) {
            return None;
        }
        // SAFETY: both pages that it may lie in can be read, and stay (see `Own`). A filter that refuses the question
        // lets us believe the loader, which gave the address.
        Some(unsafe { core::ptr::read_volatile(address as *const [u8; 8]) })
    }
}
