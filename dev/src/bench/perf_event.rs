//! The sampling clock, as framewalk opens it for a process.
#![allow(unsafe_code)]

use perf_event_open_sys::bindings::{
    PERF_COUNT_SW_CPU_CLOCK, PERF_FLAG_FD_CLOEXEC, PERF_TYPE_SOFTWARE, perf_event_attr,
};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Opens the software clock on a process.
pub(super) fn open(pid: u32, frequency: u32) -> io::Result<OwnedFd> {
    let mut attr = perf_event_attr {
        type_: PERF_TYPE_SOFTWARE,
        size: size_of::<perf_event_attr>() as u32,
        config: PERF_COUNT_SW_CPU_CLOCK.into(),
        ..Default::default()
    };
    attr.__bindgen_anon_1.sample_freq = frequency.into();
    attr.set_freq(1);
    attr.set_inherit(1);
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: attr is a valid perf_event_attr of the size that it states, and outlives the call.
    let fd = unsafe {
        perf_event_open_sys::perf_event_open(&mut attr, pid, -1, -1, PERF_FLAG_FD_CLOEXEC.into())
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
