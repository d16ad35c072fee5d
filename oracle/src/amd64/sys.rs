//! ptrace(2), waitpid(2) and process_vm_readv(2). The only file of the oracle with unsafe code.
#![allow(unsafe_code)]

use libc::user_regs_struct;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

fn answer(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Starts a command that is traced by the calling thread and stops when it is executed.
pub(super) fn spawn(command: &mut Command) -> io::Result<Child> {
    let trace = || {
        // SAFETY: a system call about the calling process that takes no pointers.
        answer(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) })?;
        // Addresses that are the same each time.
        // SAFETY: as above.
        answer(unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) }.into())
    };
    // SAFETY: the closure makes two system calls; it neither allocates nor takes locks.
    unsafe { command.pre_exec(trace) };
    command.spawn()
}

/// Has everything traced that a stopped process creates, and ended when the tracer ends.
pub(super) fn follow(tid: i32) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_EXITKILL;
    // SAFETY: options are a plain number for the request.
    answer(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, tid, 0, options as usize) })
}

/// Keeps the calling thread, and what it starts from now on, on the processor where it is: they take turns
/// anyway, and waking another processor costs more than a step.
pub(super) fn pin() -> io::Result<()> {
    // SAFETY: takes nothing, and answers with a number.
    let here = unsafe { libc::sched_getcpu() };
    let here = usize::try_from(here).map_err(|_| io::Error::last_os_error())?;
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: a set of no processors is all zeros; the macro checks the number against its size.
    unsafe { libc::CPU_SET(here, set.assume_init_mut()) };
    // SAFETY: reads a set of the size that it is told.
    answer(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set.as_ptr()) }.into())
}

/// Lets a stopped thread execute one instruction, after a signal (or 0) is delivered.
pub(super) fn step(tid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: the signal is a plain number for the request.
    answer(unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, tid, 0, signal as usize) })
}

/// The number that came with the event a thread stopped for.
pub(super) fn event_message(tid: i32) -> io::Result<u64> {
    let mut message: libc::c_ulong = 0;
    let at = &raw mut message;
    // SAFETY: the request writes one unsigned long to `at`, which is one.
    answer(unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, tid, 0, at) })?;
    Ok(message)
}

/// The registers of a stopped thread.
pub(super) fn registers(tid: i32) -> io::Result<user_regs_struct> {
    let mut registers = MaybeUninit::<user_regs_struct>::zeroed();
    // SAFETY: the request writes one such struct, which there is.
    answer(unsafe { libc::ptrace(libc::PTRACE_GETREGS, tid, 0, registers.as_mut_ptr()) })?;
    // SAFETY: plain integers, zeroed where the kernel did not write.
    Ok(unsafe { registers.assume_init() })
}

/// The next traced thread that has something to tell, and its wait status; none when none is left.
pub(super) fn wait() -> io::Result<Option<(i32, i32)>> {
    let mut status = 0;
    loop {
        // SAFETY: writes one int, which there is. Threads of others are not waited for.
        let tid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        if tid >= 0 {
            return Ok(Some((tid, status)));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ECHILD) => return Ok(None),
            _ => return Err(error),
        }
    }
}

/// Reads memory of a process; the number of bytes that could be read, page by page.
pub(super) fn read(pid: u32, address: u64, into: &mut [u8]) -> usize {
    const PAGE: usize = 4096;
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    // Only whole pieces are transferred: the end of a mapping must not take all with it.
    let mut remote = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; 5];
    let (mut at, mut left, mut pieces) = (address, into.len(), 0);
    for piece in &mut remote {
        if left == 0 {
            break;
        }
        let length = left.min(PAGE - (at as usize) % PAGE);
        (piece.iov_base, piece.iov_len) = (at as *mut _, length);
        let Some(next) = at.checked_add(length as u64) else {
            break;
        };
        (at, left, pieces) = (next, left - length, pieces + 1);
    }
    // SAFETY: at most `into.len()` bytes are written to `into`; remote addresses are only checked in
    // the other process.
    let read = unsafe {
        libc::process_vm_readv(
            pid.cast_signed(),
            &raw const local,
            1,
            remote.as_ptr(),
            pieces,
            0,
        )
    };
    usize::try_from(read).unwrap_or(0)
}

/// Ends a process.
pub(super) fn kill(pid: u32) {
    // SAFETY: sends a signal to a process that this one traces. It may have ended.
    let _ = unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
}
