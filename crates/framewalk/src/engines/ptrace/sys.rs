//! The system interface of ptrace(2), waitid(2) and process_vm_readv(2). The only file of this
//! engine with unsafe code.
#![allow(unsafe_code)]

use framewalk_walk::Registers;
use framewalk_walk::arch::FULL;
use std::io;
use std::mem::{MaybeUninit, offset_of, size_of};
use std::ptr::null_mut;

/// A traced thread that has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped {
    pub(super) tid: u32,
    /// The signal that stopped it.
    pub(super) signal: i32,
    /// A PTRACE_EVENT_ number, or 0.
    pub(super) event: i32,
}

fn request(request: libc::c_uint, tid: u32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: the requests of this file that come here neither read nor write our memory: address
    // and data are plain numbers for them (signal numbers, options).
    let result = unsafe { libc::ptrace(request, tid.cast_signed(), address, data) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Begins to trace a thread without stopping it; what it creates is traced too. `filtered`: it also
/// stops where a seccomp filter says so.
pub(super) fn seize(tid: u32, filtered: bool) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACEEXEC;
    let seccomp = if filtered {
        libc::PTRACE_O_TRACESECCOMP
    } else {
        0
    };
    request(libc::PTRACE_SEIZE, tid, 0, (options | seccomp) as usize)
}

/// Asks a thread to stop; it is told by [`stopped`].
pub(super) fn interrupt(tid: u32) -> io::Result<()> {
    request(libc::PTRACE_INTERRUPT, tid, 0, 0)
}

/// Lets a stopped thread go on, with a signal or 0.
pub(super) fn resume(tid: u32, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_CONT, tid, 0, signal as usize)
}

/// Leaves a thread in its group-stop, but hears when that ends.
pub(super) fn listen(tid: u32) -> io::Result<()> {
    request(libc::PTRACE_LISTEN, tid, 0, 0)
}

/// Ends the tracing of a stopped thread, which goes on with a signal or 0.
pub(super) fn detach(tid: u32, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_DETACH, tid, 0, signal as usize)
}

/// The number that came with the event a thread stopped for.
pub(super) fn event_message(tid: u32) -> io::Result<u64> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: the request writes one unsigned long to `data`, which is one.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_GETEVENTMSG,
            tid.cast_signed(),
            null_mut::<libc::c_void>(),
            &raw mut message,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(message)
    }
}

/// The registers of a stopped thread; none where it runs 32-bit code.
pub(super) fn registers(tid: u32) -> io::Result<Option<Registers>> {
    let Some(r) = all_registers(tid)? else {
        return Ok(None);
    };
    // By DWARF number (AMD64 psABI figure 3.36).
    let mut full = [0; FULL];
    full[..17].copy_from_slice(&[
        r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12,
        r.r13, r.r14, r.r15, r.rip,
    ]);
    Ok(Some(Registers {
        pc: r.rip,
        sp: r.rsp,
        fp: r.rbp,
        full: Some(full),
    }))
}

/// The system call that a stopped thread is in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) number: i64,
    /// The first five arguments.
    pub(super) arguments: [u64; 5],
}

/// The system call that a stopped thread is in; none where it runs 32-bit code.
pub(super) fn call(tid: u32) -> io::Result<Option<Call>> {
    Ok(all_registers(tid)?.map(|r| Call {
        number: r.orig_rax.cast_signed(),
        arguments: [r.rdi, r.rsi, r.rdx, r.r10, r.r8],
    }))
}

/// Answers the system call that a thread has stopped before, in place of the kernel.
pub(super) fn answer(tid: u32, result: i64) -> io::Result<()> {
    let rax = offset_of!(libc::user_regs_struct, rax);
    let number = offset_of!(libc::user_regs_struct, orig_rax);
    let poke = libc::PTRACE_POKEUSER;
    request(poke, tid, rax, result as usize)?;
    // No call: the kernel passes over it, and rax is what the thread sees.
    request(poke, tid, number, -1i64 as usize)
}

/// All registers of a stopped thread; none where it runs 32-bit code.
fn all_registers(tid: u32) -> io::Result<Option<libc::user_regs_struct>> {
    const NT_PRSTATUS: usize = 1;
    /// The code segment of 64-bit user code (arch/x86/include/asm/segment.h __USER_CS).
    const USER_CS: u64 = 0x33;
    let mut regs = MaybeUninit::<libc::user_regs_struct>::zeroed();
    let mut vector = libc::iovec {
        iov_base: regs.as_mut_ptr().cast(),
        iov_len: size_of::<libc::user_regs_struct>(),
    };
    // SAFETY: the request writes at most `iov_len` bytes to `iov_base`, which has that many, and the
    // number it wrote into the vector.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_GETREGSET,
            tid.cast_signed(),
            NT_PRSTATUS,
            &raw mut vector,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: plain integers, zeroed where the kernel did not write.
    let r = unsafe { regs.assume_init() };
    if vector.iov_len != size_of::<libc::user_regs_struct>() || r.cs != USER_CS {
        return Ok(None);
    }
    Ok(Some(r))
}

/// A thread traced by the calling thread that has stopped and was not told yet.
pub(super) fn stopped() -> Option<Stopped> {
    let Told { tid, status, .. } =
        look(libc::P_ALL, 0, libc::WSTOPPED | libc::__WNOTHREAD).ok()??;
    Some(Stopped {
        tid,
        signal: status & 0xff,
        event: status >> 8,
    })
}

/// Whether a thread has ended: it waits to be collected, or an exec by another thread ended it
/// without a word.
pub(super) fn has_ended(tid: u32) -> bool {
    // The stops of traced threads are told whether one asks for them or not.
    !matches!(
        look(libc::P_PID, tid, libc::WEXITED | libc::WNOWAIT),
        Ok(None
            | Some(Told {
                code: libc::CLD_TRAPPED | libc::CLD_STOPPED,
                ..
            }))
    )
}

/// Collects a thread that has ended.
pub(super) fn collect(tid: u32) {
    // There may be nothing to collect.
    let _ = look(libc::P_PID, tid, libc::WEXITED);
}

/// What waitid(2) tells of a thread.
#[derive(Debug)]
struct Told {
    tid: u32,
    /// CLD_TRAPPED, CLD_EXITED...
    code: i32,
    status: i32,
}

fn look(which: libc::idtype_t, id: u32, flags: i32) -> io::Result<Option<Told>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the call writes at most one siginfo_t to where there is one.
    let result = unsafe {
        libc::waitid(
            which,
            id,
            info.as_mut_ptr(),
            flags | libc::WNOHANG | libc::__WALL,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed, and filled by a successful waitid: the fields of a child are there.
    let told = unsafe {
        let info = info.assume_init();
        Told {
            tid: info.si_pid().cast_unsigned(),
            code: info.si_code,
            status: info.si_status(),
        }
    };
    Ok((told.tid != 0).then_some(told))
}

/// Reads memory of a thread's process (its user address space): all of it, or false.
pub(super) fn read_all(tid: u32, address: u64, into: &mut [u8]) -> bool {
    let length = into.len();
    read_memory(tid, [(address, length)], into) == length
}

/// Reads memory of a process (its user address space) until the first piece that cannot be read.
/// The pieces together are as long as `into`; the number of bytes read is answered.
pub(super) fn read_memory<const N: usize>(
    pid: u32,
    pieces: [(u64, usize); N],
    into: &mut [u8],
) -> usize {
    let total: usize = pieces.iter().map(|(_, length)| length).sum();
    assert_eq!(total, into.len());
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    let remote = pieces.map(|(address, length)| libc::iovec {
        iov_base: address as *mut _,
        iov_len: length,
    });
    // SAFETY: the call writes at most `into.len()` bytes to `into`; remote addresses are the other
    // process's and only checked there.
    let read = unsafe {
        libc::process_vm_readv(
            pid.cast_signed(),
            &raw const local,
            1,
            remote.as_ptr(),
            N as libc::c_ulong,
            0,
        )
    };
    usize::try_from(read).unwrap_or(0)
}
