//! System calls without libc: errno stays as it is, nothing is allocated or locked, and nothing can enter
//! a dynamic loader again. Made for this crate and for framewalk's audit library.
//!
//! On machines other than x86-64 and AArch64 every call answers `-ENOSYS`: nobody hears announcements there.
#![allow(unsafe_code)]

/// Numbers of the calls that this crate makes.
#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) const PRCTL: usize = 157;
    pub(super) const RT_SIGPROCMASK: usize = 14;
}
#[cfg(not(target_arch = "x86_64"))]
mod number {
    // include/uapi/asm-generic/unistd.h
    pub(super) const PRCTL: usize = 167;
    pub(super) const RT_SIGPROCMASK: usize = 135;
}

const EFAULT: isize = 14;

/// A system call: what the kernel returns, an errno as its negative.
///
/// # Safety
///
/// The call must be sound with these arguments: what it does with memory that they point to counts as done by
/// the caller.
#[cfg(target_arch = "x86_64")]
#[inline]
pub unsafe fn call(number: usize, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    let result;
    // SAFETY: the kernel's convention: it keeps all registers but these three. What it does is the caller's promise.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// A system call: what the kernel returns, an errno as its negative.
///
/// # Safety
///
/// The call must be sound with these arguments: what it does with memory that they point to counts as done by
/// the caller.
#[cfg(target_arch = "aarch64")]
#[inline]
pub unsafe fn call(number: usize, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    let result;
    // SAFETY: the kernel's convention: it keeps all registers but x0. What it does is the caller's promise.
    unsafe {
        core::arch::asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            in("x4") e,
            options(nostack),
        );
    }
    result
}

/// A system call that this machine does not have: `-ENOSYS`.
///
/// # Safety
///
/// None to keep; the others have some.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline]
pub unsafe fn call(_: usize, _: [usize; 5]) -> isize {
    -38
}

/// prctl(2) with one of the two options of the ABI.
pub(crate) fn prctl(option: u32, key: u64, arguments: [usize; 3]) -> isize {
    let [address, length, flags] = arguments;
    // A key is one register; there is no machine with narrower ones.
    let key = key as usize;
    // SAFETY: whoever answers these options reads memory of the process at most, and checks what it is told.
    unsafe {
        call(
            number::PRCTL,
            [option as usize, key, address, length, flags],
        )
    }
}

/// Whether the 8 bytes around an address, aligned, can be read: true unless the kernel says no.
///
/// Their page is resident afterwards, where there is one. Unlike a load, the question harms nobody: no signal
/// comes of a page that is absent, or that lies behind the end of a file.
#[inline]
pub fn readable(address: usize) -> bool {
    const NO_SUCH_ACTION: usize = usize::MAX;
    const SET_SIZE: usize = 8;
    let set = address & !(SET_SIZE - 1);
    // SAFETY: the kernel reads the set first (EFAULT if it cannot), then finds that there is no such thing to do
    // with it (EINVAL): the signal mask stays as it is, and nothing is written.
    let result = unsafe {
        call(
            number::RT_SIGPROCMASK,
            [NO_SUCH_ACTION, set, 0, SET_SIZE, 0],
        )
    };
    result != -EFAULT
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn what_can_be_read_is_told_without_harm() {
        let word = 1u64;
        assert!(readable(&raw const word as usize));
        assert!(!readable(8));
        // A kernel address, and the last of all.
        assert!(!readable(usize::MAX - 4096));
        assert!(!readable(usize::MAX));
    }

    #[test]
    fn the_signal_mask_stays_as_it_is() {
        let blocked = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("SigBlk:"));
            std::string::String::from(line.unwrap())
        };
        let before = blocked();
        let all = [u64::MAX; 2];
        assert!(readable(&raw const all as usize));
        assert_eq!(blocked(), before);
    }
}
