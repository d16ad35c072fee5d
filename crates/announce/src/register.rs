//! The two calls.
//!
//! Arguments that the ABI refuses with EINVAL are refused here, before the call: so EINVAL from the kernel can
//! only mean that it does not know the option. Nothing else is judged on this side; what is read here, of the
//! section's header, only decides which pages are touched, and is bounded by the length.
#![allow(unsafe_code)]

use crate::abi::{self, Refusal};
use crate::system;
use core::num::NonZeroU64;

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Registered, with this id; or unregistered, so many sections.
    Accepted(NonZeroU64),
    /// Nobody answered: the kernel does not know the option (EINVAL), or a filter of system calls keeps it from
    /// being asked (ENOSYS, EPERM, or any errno that is not of the ABI).
    ///
    /// It may have been heard all the same, by one who can only listen. So unregister as if it had been accepted.
    Nobody,
    /// Refused, and nothing has changed.
    Refused(Refusal),
}

impl Answer {
    /// The id, or how many sections were removed.
    pub fn accepted(self) -> Option<NonZeroU64> {
        match self {
            Answer::Accepted(number) => Some(number),
            Answer::Nobody | Answer::Refused(_) => None,
        }
    }

    /// From what the system call returned.
    fn from_result(result: isize) -> Answer {
        if let Some(number) = u64::try_from(result).ok().and_then(NonZeroU64::new) {
            return Answer::Accepted(number);
        }
        let errno = i32::try_from(result.unsigned_abs()).unwrap_or(0);
        match Refusal::from_errno(errno) {
            None | Some(Refusal::Arguments) => Answer::Nobody,
            Some(refusal) => Answer::Refused(refusal),
        }
    }
}

/// Registers an SFrame section under a key of one's own choice, beside what the key holds already.
///
/// ```
/// # static SFRAME: &[u8] = &[0; 28];
/// use framewalk_announce::{Answer, register, unregister};
///
/// let key = SFRAME.as_ptr() as u64;
/// match register(key, SFRAME) {
///     Answer::Accepted(id) => println!("registered: {id}"),
///     Answer::Nobody => {} // Nobody walks stacks here, or one who only listens.
///     Answer::Refused(why) => eprintln!("{why}"),
/// }
/// // Before the code goes away:
/// unregister(key);
/// ```
pub fn register(key: u64, section: &'static [u8]) -> Answer {
    announce(key, section, 0)
}

/// Registers a section in the place of everything that the key holds, at once: no walk sees the time between.
pub fn replace(key: u64, section: &'static [u8]) -> Answer {
    announce(key, section, abi::REPLACE)
}

/// Registers a section that may go away: its owner unregisters it before. See [`crate::Registration`].
pub(crate) fn announce(key: u64, section: &[u8], flags: u64) -> Answer {
    // SAFETY: a slice can be read, and does not change.
    unsafe { register_at(key, section.as_ptr() as usize, section.len(), flags) }
}

/// Registers the section at an address; `flags` are 0 or [`abi::REPLACE`].
///
/// Memory that cannot be read, or is no section, is answered like everything else that the ABI refuses.
///
/// # Safety
///
/// During the call nobody may unmap the range or write into its first 28 bytes. (Afterwards one may, as far as
/// soundness goes; stacks are cut off where unwind data is gone.)
pub unsafe fn register_at(key: u64, address: usize, length: usize, flags: u64) -> Answer {
    if flags & !abi::REPLACE != 0 || !is_user_range(address, length) {
        return Answer::Refused(Refusal::Arguments);
    }
    // SAFETY: the range is one of user addresses, and stays as it is: the caller's promise.
    unsafe { make_resident(address, length) };
    // The flags are those of the ABI: they fit.
    let flags = (abi::KIND_SECTION | flags) as usize;
    let result = system::prctl(abi::REGISTER, key, [address, length, flags]);
    Answer::from_result(result)
}

/// Registers what is resident already, and may change during the call: a frame area.
pub(crate) fn announce_at(key: u64, address: usize, length: usize, flags: u64) -> Answer {
    if !is_user_range(address, length) {
        return Answer::Refused(Refusal::Arguments);
    }
    // The flags are those of the ABI: they fit.
    let result = system::prctl(abi::REGISTER, key, [address, length, flags as usize]);
    Answer::from_result(result)
}

/// Unregisters everything that the key holds.
pub fn unregister(key: u64) -> Answer {
    Answer::from_result(system::prctl(abi::UNREGISTER, key, [0; 3]))
}

/// Where user addresses end. Other machines than AMD64 have more of them; what lies behind their end is still refused.
pub(crate) const END: u64 = if cfg!(target_arch = "x86_64") {
    abi::USER_END
} else {
    1 << 56
};

/// Check 2 of the ABI.
fn is_user_range(address: usize, length: usize) -> bool {
    let end = (address as u64).checked_add(length as u64);
    let fits = u32::try_from(length).is_ok() && end.is_some_and(|end| end <= END);
    fits && address != 0 && length != 0
}

/// Bytes of the fixed header.
const HEADER: usize = 28;

/// Touches the pages that whoever answers reads at once: the header's and those of the first and the last entry of
/// the index. Hooks that cannot sleep cannot wait for a page that is not there.
///
/// # Safety
///
/// The range is one of user addresses, and during the call nobody unmaps it or writes into its first 28 bytes.
unsafe fn make_resident(address: usize, length: usize) {
    if length < HEADER {
        return;
    }
    let mut pages = Pages { last: usize::MAX };
    if !(pages.touch(address) && pages.touch(address + HEADER - 1)) {
        return;
    }
    // SAFETY: the header's pages were just found readable, and they stay.
    let Some((first, last, size)) = (unsafe { index(address, length) }) else {
        return;
    };
    // Whether they can be read is for whoever answers to find out.
    for entry in [address + first, address + last] {
        let _ = pages.touch(entry) && pages.touch(entry + size - 1);
    }
}

/// Where the first and the last entry of the index lie in a section, and the bytes of an entry; if they do.
///
/// # Safety
///
/// The 28 bytes at the address can be read.
unsafe fn index(address: usize, length: usize) -> Option<(usize, usize, usize)> {
    let byte = |at: usize| {
        // SAFETY: within the header.
        unsafe { core::ptr::read_volatile((address + at) as *const u8) }
    };
    let word = |at: usize| u32::from_ne_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]);
    // "SFrame Header": version, bytes of the auxiliary header, functions, offset of their index.
    let size = match byte(2) {
        2 => 20,
        3 => 16,
        _ => return None,
    };
    let first = HEADER as u64 + u64::from(byte(7)) + u64::from(word(20));
    let last = first + u64::from(word(8).checked_sub(1)?) * size;
    let fits = last + size <= length as u64;
    fits.then_some((first as usize, last as usize, size as usize))
}

/// Touches pages, one that is asked for several times in a row only once.
struct Pages {
    last: usize,
}

impl Pages {
    /// Of 4 kB, which may be too small, and then costs a question.
    const SHIFT: u32 = 12;

    /// Whether it can be read.
    fn touch(&mut self, address: usize) -> bool {
        let page = address >> Pages::SHIFT;
        if page != self.last && !system::readable(address) {
            return false;
        }
        self.last = page;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked_as_the_abi_says() {
        let end = END as usize;
        assert!(is_user_range(1, 1));
        assert!(is_user_range(end - 28, 28));
        assert!(is_user_range(4096, u32::MAX as usize));
        assert!(!is_user_range(0, 28));
        assert!(!is_user_range(4096, 0));
        assert!(!is_user_range(end - 27, 28));
        assert!(!is_user_range(usize::MAX, 1));
        assert!(!is_user_range(usize::MAX, usize::MAX));
        assert!(!is_user_range(4096, 1 << 32));
    }

    #[test]
    fn the_index_is_sought_inside_the_section_only() {
        let mut header = [0u8; HEADER];
        let mut look = |version: u8, functions: u32, offset: u32, auxiliary: u8, length| {
            header[2] = version;
            header[7] = auxiliary;
            header[8..12].copy_from_slice(&functions.to_ne_bytes());
            header[20..24].copy_from_slice(&offset.to_ne_bytes());
            // SAFETY: the header is there.
            unsafe { index(header.as_ptr() as usize, length) }
        };
        assert_eq!(look(3, 1, 0, 0, 44), Some((28, 28, 16)));
        assert_eq!(look(3, 1, 0, 0, 43), None);
        assert_eq!(look(2, 3, 4, 8, 100), Some((40, 80, 20)));
        assert_eq!(look(2, 3, 4, 8, 99), None);
        assert_eq!(look(3, 0, 0, 0, 100), None);
        assert_eq!(look(1, 1, 0, 0, 100), None);
        assert_eq!(look(4, 1, 0, 0, 100), None);
        let most = u32::MAX as usize;
        assert_eq!(look(2, u32::MAX, u32::MAX, 255, most), None);
        assert_eq!(
            look(3, 1, u32::MAX - 28 - 16, 0, most),
            Some((most - 16, most - 16, 16))
        );
    }

    #[test]
    fn results_become_answers() {
        let accepted = |number| Answer::Accepted(NonZeroU64::new(number).unwrap());
        assert_eq!(Answer::from_result(1), accepted(1));
        assert_eq!(Answer::from_result(0x7fff_ffff), accepted(0x7fff_ffff));
        // EINVAL, ENOSYS, EPERM, EACCES, and a prctl that does nothing.
        for result in [-22, -38, -1, -13, 0, isize::MIN] {
            assert_eq!(Answer::from_result(result), Answer::Nobody);
        }
        for &refusal in Refusal::ALL {
            if refusal != Refusal::Arguments {
                let answer = Answer::from_result(-(refusal.errno() as isize));
                assert_eq!(answer, Answer::Refused(refusal));
            }
        }
    }
}
