//! The seccomp filter that hands announcements (docs/abi.md) to the tracer. Every other system call
//! passes as if there were no filter.
//!
//! A filter needs CAP_SYS_ADMIN in the user namespace, or "no new privileges": a setuid program then does
//! not change its user any more. That is only set where the capability is missing. There it takes hardly
//! anything away: a tracer without privileges keeps its tracees from gaining any, too.

// Two system calls between fork and exec: no allocation, no lock.
#![allow(unsafe_code)]

use framewalk_announce::abi::{REGISTER, UNREGISTER};
use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};
use std::io;

/// What comes with the tracer's event (PTRACE_GETEVENTMSG): a program's own filter says something else.
pub const HANDED_OVER: u16 = 0x4657;

/// `AUDIT_ARCH_X86_64` (include/uapi/linux/audit.h): EM_X86_64, 64 bits, little endian.
const ARCH: u32 = 0xc000_003e;
/// Offsets in `struct seccomp_data` (include/uapi/linux/seccomp.h). Of the option only the lower half
/// counts, as in the kernel.
const NUMBER: u32 = 0;
const ARCH_AT: u32 = 4;
const OPTION: u32 = 16;

const fn load(offset: u32) -> sock_filter {
    operation(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
}

/// Skips `yes` or `no` operations.
const fn equal(value: u32, yes: u8, no: u8) -> sock_filter {
    operation(BPF_JMP | BPF_JEQ | BPF_K, yes, no, value)
}

const fn answer(value: u32) -> sock_filter {
    operation(BPF_RET | BPF_K, 0, 0, value)
}

const fn operation(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    let code = code as u16;
    sock_filter { code, jt, jf, k }
}

/// x32 calls have the same arch, but other numbers.
static FILTER: [sock_filter; 9] = [
    load(ARCH_AT),
    equal(ARCH, 0, 5),
    load(NUMBER),
    equal(libc::SYS_prctl as u32, 0, 3),
    load(OPTION),
    equal(REGISTER, 2, 0),
    equal(UNREGISTER, 1, 0),
    answer(libc::SECCOMP_RET_ALLOW),
    answer(libc::SECCOMP_RET_TRACE | HANDED_OVER as u32),
];

/// Installs it in the calling thread, for all that comes of it.
pub(super) fn install() -> io::Result<()> {
    // Without this, kernels before 5.16 would slow the program down against speculation (SSBD).
    let mut flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    let mut privileged = true;
    loop {
        let Err(error) = set(flags) else {
            return Ok(());
        };
        match error.raw_os_error() {
            Some(libc::EINVAL) if flags != 0 => flags = 0,
            Some(libc::EACCES) if privileged => {
                privileged = false;
                no_new_privileges()?;
            }
            _ => return Err(error),
        }
    }
}

fn set(flags: libc::c_ulong) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: FILTER.len() as u16,
        filter: (&raw const FILTER).cast_mut().cast(),
    };
    // SAFETY: the kernel copies the program, which lives through the call and has the length that it
    // states; nothing is written.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    check(result)
}

fn no_new_privileges() -> io::Result<()> {
    // SAFETY: numbers only.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    check(result.into())
}

fn check(result: libc::c_long) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
