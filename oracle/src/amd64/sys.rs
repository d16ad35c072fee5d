//! ptrace(2), waitpid(2) and process_vm_readv(2).
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

/// Lets a stopped thread run, after a signal (or 0) is delivered.
pub(super) fn run(tid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: the signal is a plain number for the request.
    answer(unsafe { libc::ptrace(libc::PTRACE_CONT, tid, 0, signal as usize) })
}

/// Writes a word into a stopped thread's memory, be it code; the word that was there.
pub(super) fn exchange(tid: i32, address: u64, change: impl FnOnce(u64) -> u64) -> io::Result<u64> {
    let mut was: u64 = 0;
    let local = libc::iovec {
        iov_base: (&raw mut was).cast(),
        iov_len: size_of::<u64>(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut _,
        iov_len: size_of::<u64>(),
    };
    // SAFETY: writes eight bytes to `was`, which has them; the other address is only checked there.
    let read = unsafe { libc::process_vm_readv(tid, &raw const local, 1, &raw const remote, 1, 0) };
    if read != 8 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: address and word are plain numbers for the request.
    answer(unsafe { libc::ptrace(libc::PTRACE_POKETEXT, tid, address, change(was)) })?;
    Ok(was)
}

/// Sets the registers of a stopped thread.
pub(super) fn set_registers(tid: i32, registers: &user_regs_struct) -> io::Result<()> {
    // SAFETY: the request reads one such struct, which there is.
    answer(unsafe { libc::ptrace(libc::PTRACE_SETREGS, tid, 0, &raw const *registers) })
}

/// All that a signal's handler may leave changed.
pub(super) struct State {
    pub(super) registers: user_regs_struct,
    /// NT_X86_XSTATE: what else a processor has.
    more: Vec<u8>,
    blocked: u64,
}

const NT_X86_XSTATE: usize = 0x202;

/// The state of a stopped thread.
pub(super) fn save(tid: i32) -> io::Result<State> {
    let mut more = vec![0; 1 << 14];
    let mut part = libc::iovec {
        iov_base: more.as_mut_ptr().cast(),
        iov_len: more.len(),
    };
    let mut blocked: u64 = 0;
    // SAFETY: the requests write at most as many bytes as they are told, to a buffer and a word that have them.
    unsafe {
        answer(libc::ptrace(
            libc::PTRACE_GETREGSET,
            tid,
            NT_X86_XSTATE,
            &raw mut part,
        ))?;
        answer(libc::ptrace(
            libc::PTRACE_GETSIGMASK,
            tid,
            size_of::<u64>(),
            &raw mut blocked,
        ))?;
    }
    more.truncate(part.iov_len);
    let registers = registers(tid)?;
    Ok(State {
        registers,
        more,
        blocked,
    })
}

/// Gives a stopped thread the state that it had.
pub(super) fn restore(tid: i32, state: &State) -> io::Result<()> {
    let mut part = libc::iovec {
        iov_base: state.more.as_ptr().cast_mut().cast(),
        iov_len: state.more.len(),
    };
    // SAFETY: the requests only read from what they are given, which is as long as they are told.
    unsafe {
        answer(libc::ptrace(
            libc::PTRACE_SETREGSET,
            tid,
            NT_X86_XSTATE,
            &raw mut part,
        ))?;
        answer(libc::ptrace(
            libc::PTRACE_SETSIGMASK,
            tid,
            size_of::<u64>(),
            &raw const state.blocked,
        ))?;
    }
    set_registers(tid, &state.registers)
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
    wait_for(-1)
}

/// The same for one thread.
pub(super) fn wait_for(which: i32) -> io::Result<Option<(i32, i32)>> {
    let mut status = 0;
    loop {
        let flags = libc::__WALL | libc::__WNOTHREAD;
        // SAFETY: writes one int, which there is. Threads of others are not waited for.
        let tid = unsafe { libc::waitpid(which, &raw mut status, flags) };
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
