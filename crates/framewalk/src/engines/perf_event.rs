//! perf_event_open(2): the one way to a sampling clock, used by the kernel engine and the perf engine.
#![allow(unsafe_code)]

use perf_event_open_sys::bindings::{PERF_FLAG_FD_CLOEXEC, perf_event_attr};
use perf_event_open_sys::ioctls;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Opens an event. `pid` -1 is everybody, `cpu` -1 every processor; not both.
pub(super) fn open(attr: &perf_event_attr, pid: i32, cpu: i32) -> io::Result<OwnedFd> {
    let mut attr = *attr;
    attr.size = size_of::<perf_event_attr>() as u32;
    // SAFETY: attr is a valid perf_event_attr of the size that it states, and outlives the call.
    let fd = unsafe {
        perf_event_open_sys::perf_event_open(&mut attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC.into())
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Starts an event, and those that were inherited from it.
pub(super) fn enable(event: &OwnedFd) -> io::Result<()> {
    // SAFETY: an ioctl without memory arguments on an open descriptor.
    check(unsafe { ioctls::ENABLE(event.as_raw_fd(), 0) })
}

/// Stops an event, and those that were inherited from it.
pub(super) fn disable(event: &OwnedFd) -> io::Result<()> {
    // SAFETY: as in `enable`.
    check(unsafe { ioctls::DISABLE(event.as_raw_fd(), 0) })
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
