//! The ring that the kernel writes into (perf_event_open(2), "MMAP layout"). The only file of this
//! engine with unsafe code beside [`crate::engines::perf_event`].
#![allow(unsafe_code)]

use perf_event_open_sys::bindings::perf_event_mmap_page;
use perf_event_open_sys::ioctls;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{NonNull, slice_from_raw_parts};
use std::sync::atomic::{AtomicU64, Ordering};

/// Lets an event write into the ring of another on the same CPU.
pub(in crate::engines) fn set_output(event: &OwnedFd, ring: &Ring) -> io::Result<()> {
    // SAFETY: both descriptors are events; the argument is a plain number.
    let result = unsafe { ioctls::SET_OUTPUT(event.as_raw_fd(), ring.event.as_raw_fd() as _) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A ring that the kernel writes records into and this process reads them from.
#[derive(Debug)]
pub(in crate::engines) struct Ring {
    event: OwnedFd,
    /// One page of control data, then the data.
    base: NonNull<u8>,
    /// Bytes of data, a power of two.
    size: usize,
    /// Bytes read so far.
    tail: u64,
}

// SAFETY: the mapping belongs to this value alone; it is process-wide, not bound to a thread.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps the ring of an event, `size` bytes of data (a power of two, at least a page).
    pub(in crate::engines) fn map(event: OwnedFd, size: usize) -> io::Result<Ring> {
        if !size.is_power_of_two() || size < page_size() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let length = page_size() + size;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &event,
                0,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Ring {
            event,
            base,
            size,
            tail: 0,
        })
    }

    /// Appends everything that has been written since the last time, and frees its room.
    pub(in crate::engines) fn drain(&mut self, into: &mut Vec<u8>) {
        let head = self
            .word(offset_of!(perf_event_mmap_page, data_head))
            .load(Ordering::Acquire);
        // The kernel never writes more than the room that was freed.
        let length = usize::try_from(head.wrapping_sub(self.tail))
            .unwrap_or(usize::MAX)
            .min(self.size);
        let from = self.tail as usize & (self.size - 1);
        let first = length.min(self.size - from);
        self.copy(from, first, into);
        self.copy(0, length - first, into);
        self.tail = head;
        // The records are copied before their room is given back.
        self.word(offset_of!(perf_event_mmap_page, data_tail))
            .store(head, Ordering::Release);
    }

    fn copy(&self, from: usize, length: usize, into: &mut Vec<u8>) {
        assert!(from <= self.size && length <= self.size - from);
        // SAFETY: the range lies inside the mapped data (asserted), which lives as long as `self`.
        // The kernel does not write between tail and head, where the caller reads.
        into.extend_from_slice(unsafe {
            &*slice_from_raw_parts(self.base.as_ptr().add(page_size() + from), length)
        });
    }

    /// A word of the control page, which the kernel uses at the same time.
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < page_size());
        // SAFETY: the word lies inside the mapped control page, is aligned (both asserted), and all
        // access to it on this side is atomic.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and no reference into it is left.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), page_size() + self.size) };
    }
}
