//! Where the kernel says that the program's headers are: those of a program at fixed addresses cannot be told from
//! what the loader says about it.
#![allow(unsafe_code)]

use crate::headers::{ENTRY, Table};
use core::mem::MaybeUninit;
use framewalk_announce::system::call;

#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) const PRCTL: usize = 157;
    pub(super) const OPENAT: usize = 257;
    pub(super) const READ: usize = 0;
    pub(super) const CLOSE: usize = 3;
}
#[cfg(not(target_arch = "x86_64"))]
mod number {
    // include/uapi/asm-generic/unistd.h
    pub(super) const PRCTL: usize = 167;
    pub(super) const OPENAT: usize = 56;
    pub(super) const READ: usize = 63;
    pub(super) const CLOSE: usize = 57;
}

/// Since Linux 6.4.
const PR_GET_AUXV: usize = 0x4155_5856;

const AT_PHDR: usize = 3;
const AT_PHENT: usize = 4;
const AT_PHNUM: usize = 5;

/// More than kernels have (about 20 pairs on AMD64).
const PAIRS: usize = 32;
/// Filled by the kernel as far as it goes, and not by us first: that would be a function of libc.
type Vector = MaybeUninit<[[usize; 2]; PAIRS]>;

/// The program's headers.
pub(crate) fn program() -> Option<Table> {
    let mut vector = Vector::uninit();
    let pairs = fill(&mut vector)? / size_of::<[usize; 2]>();
    let (mut address, mut count, mut size) = (None, None, None);
    for index in 0..pairs.min(PAIRS) {
        // SAFETY: the kernel has written as many, and there is room for so many.
        let [key, value] = unsafe { vector.as_ptr().cast::<[usize; 2]>().add(index).read() };
        match key {
            AT_PHDR => address = Some(value),
            AT_PHNUM => count = Some(value),
            AT_PHENT => size = Some(value),
            _ => {}
        }
    }
    (size? == ENTRY).then_some(Table {
        address: address?,
        count: count?,
    })
}

/// Gets the auxiliary vector, as far as there is room; says how many bytes of it are there.
fn fill(vector: &mut Vector) -> Option<usize> {
    let (to, room) = (vector.as_mut_ptr() as usize, size_of::<Vector>());
    // SAFETY: the kernel writes there, no more than there is room for.
    let size = unsafe { call(number::PRCTL, [PR_GET_AUXV, to, room, 0, 0]) };
    if size > 0 {
        // It says how much there is, room or not.
        return usize::try_from(size).ok().map(|size| size.min(room));
    }
    let path = c"/proc/self/auxv".as_ptr() as usize;
    // SAFETY: a string, and flags that create nothing (O_RDONLY | O_CLOEXEC).
    let file = unsafe { call(number::OPENAT, [usize::MAX, path, 0x80000, 0, 0]) };
    let file = usize::try_from(file).ok()?;
    // SAFETY: the kernel writes there, no more than there is room for.
    let size = unsafe { call(number::READ, [file, to, room, 0, 0]) };
    // SAFETY: nobody else knows of this descriptor.
    unsafe { call(number::CLOSE, [file, 0, 0, 0, 0]) };
    usize::try_from(size).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_s_headers_are_where_libc_says() {
        // SAFETY: no memory is involved.
        let told = |key| unsafe { libc::getauxval(key) } as usize;
        let expected = Table {
            address: told(libc::AT_PHDR),
            count: told(libc::AT_PHNUM),
        };
        assert_eq!(program(), Some(expected));
    }
}
