//! System calls without libc: errno stays as it is, nothing is allocated or locked, and nothing can enter
//! a dynamic loader again. Made for this crate and for framewalk's audit library.
//!
//! On machines other than x86-64 and AArch64 every call answers `-ENOSYS`: nobody hears announcements there.
#![allow(unsafe_code)]

use core::ptr::NonNull;

/// Numbers of the calls that this crate makes.
#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) const CLOSE: usize = 3;
    pub(super) const MMAP: usize = 9;
    pub(super) const MUNMAP: usize = 11;
    pub(super) const RT_SIGPROCMASK: usize = 14;
    pub(super) const FTRUNCATE: usize = 77;
    pub(super) const PRCTL: usize = 157;
    pub(super) const MEMFD_CREATE: usize = 319;
}
#[cfg(not(target_arch = "x86_64"))]
mod number {
    // include/uapi/asm-generic/unistd.h
    pub(super) const FTRUNCATE: usize = 46;
    pub(super) const CLOSE: usize = 57;
    pub(super) const RT_SIGPROCMASK: usize = 135;
    pub(super) const PRCTL: usize = 167;
    pub(super) const MUNMAP: usize = 215;
    pub(super) const MMAP: usize = 222;
    pub(super) const MEMFD_CREATE: usize = 279;
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
unsafe fn call6(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
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
            in("r9") f,
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
unsafe fn call6(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
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
            in("x5") f,
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
unsafe fn call6(_: usize, _: [usize; 6]) -> isize {
    -38
}

/// A system call of at most five arguments: what the kernel returns, an errno as its negative.
///
/// # Safety
///
/// The call must be sound with these arguments: what it does with memory that they point to counts as done by
/// the caller.
#[inline]
pub unsafe fn call(number: usize, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the caller's promise.
    unsafe { call6(number, [a, b, c, d, e, 0]) }
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

/// New memory of zeros, private to the process, whose first page bears a name where the process's mappings are listed; or
/// an errno.
///
/// The name is that of a file in memory, which nobody has open afterwards. Only the first page is of that file: a written
/// page of a private mapping is a copy, and the file keeps the original. Where no such file is to be had (a filter of
/// system calls, no file descriptor left) all of the memory is given the name where the kernel can do that.
pub(crate) fn map(name: &core::ffi::CStr, length: usize) -> Result<NonNull<u8>, i32> {
    let memory = map_anonymous(length)?;
    if name_first_page(memory, name)? {
        return Ok(memory);
    }
    const SET_VMA: usize = 0x5356_4d41;
    const ANONYMOUS_NAME: usize = 0;
    let (at, name) = (memory.as_ptr() as usize, name.as_ptr() as usize);
    // SAFETY: names a mapping of ours, if it does anything at all.
    unsafe { call(number::PRCTL, [SET_VMA, ANONYMOUS_NAME, at, length, name]) };
    Ok(memory)
}

/// New memory of zeros, private to the process.
pub(crate) fn map_anonymous(length: usize) -> Result<NonNull<u8>, i32> {
    // SAFETY: a mapping where the kernel likes is nobody else's.
    let result = unsafe { mmap(0, length, ANONYMOUS, usize::MAX) };
    let address = usize::try_from(result).map_err(|_| result.unsigned_abs() as i32)?;
    NonNull::new(address as *mut u8).ok_or(EFAULT as i32)
}

/// Puts the first page of a new file in memory, of zeros, in the place of a new one of zeros. False if there is no such file.
fn name_first_page(memory: NonNull<u8>, name: &core::ffi::CStr) -> Result<bool, i32> {
    const CLOSE_ON_EXEC: usize = 1;
    const FIXED: usize = 0x10;
    let name = name.as_ptr() as usize;
    // SAFETY: the name ends with a 0 and is only read.
    let file = unsafe { call(number::MEMFD_CREATE, [name, CLOSE_ON_EXEC, 0, 0, 0]) };
    let Ok(file) = usize::try_from(file) else {
        return Ok(false);
    };
    // SAFETY: the file is our own, new and empty.
    let named = unsafe { call(number::FTRUNCATE, [file, 1, 0, 0, 0]) } == 0;
    let mut result = Ok(named);
    if named {
        let at = memory.as_ptr() as usize;
        // SAFETY: nothing was written to this page yet, and all of it is ours. (A byte stands for its page.)
        let answer = unsafe { mmap(at, 1, FIXED, file) };
        if answer != at as isize {
            // Older kernels may have unmapped the page before they found no memory, and then anybody may be there by now: all of
            // the range is given up, and none of it touched.
            result = Err(answer.unsigned_abs() as i32);
        }
    }
    // SAFETY: nobody else knows of it.
    unsafe { call(number::CLOSE, [file, 0, 0, 0, 0]) };
    result
}

const ANONYMOUS: usize = 0x20;

/// mmap(2) of private memory, readable and writable.
///
/// # Safety
///
/// With MAP_FIXED in `flags`, what is mapped there is the caller's, who has nothing in it.
unsafe fn mmap(address: usize, length: usize, flags: usize, file: usize) -> isize {
    const READ_WRITE: usize = 3;
    const PRIVATE: usize = 2;
    const NO_RESERVE: usize = 0x4000;
    let flags = flags | PRIVATE | NO_RESERVE;
    // SAFETY: the caller's promise.
    unsafe { call6(number::MMAP, [address, length, READ_WRITE, flags, file, 0]) }
}

/// munmap(2).
///
/// # Safety
///
/// What [`map`] answered for this length, and nobody uses it any more.
pub(crate) unsafe fn unmap(memory: NonNull<u8>, length: usize) {
    // SAFETY: the caller's promise.
    unsafe { call(number::MUNMAP, [memory.as_ptr() as usize, length, 0, 0, 0]) };
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
