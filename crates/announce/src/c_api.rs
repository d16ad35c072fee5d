//! The same for C: `include/framewalk.h`, which `./run header` prints, says what they do.
//!
//! One number tells all answers apart, where C has no better sum type: above 0 accepted, 0 nobody, below 0 refused.
//! It asks for no struct to be returned and for no pointer to be checked, and `if (framewalk_register(...) < 0)` reads as
//! C programmers expect it to.
#![allow(unsafe_code)]

use crate::register::{Answer, register_at, unregister};
use core::ffi::{c_uint, c_void};

pub(crate) fn number(answer: Answer) -> i64 {
    match answer {
        Answer::Accepted(number) => i64::try_from(number.get()).unwrap_or(i64::MAX),
        Answer::Nobody => 0,
        Answer::Refused(refusal) => -i64::from(refusal.errno()),
    }
}

/// Registers the `length` bytes at `section`; `flags` are 0 or [`crate::abi::REPLACE`].
///
/// # Safety
///
/// See [`register_at`].
#[cfg_attr(feature = "capi", unsafe(no_mangle))]
pub unsafe extern "C" fn framewalk_register(
    key: u64,
    section: *const c_void,
    length: usize,
    flags: c_uint,
) -> i64 {
    // SAFETY: the caller's promise.
    number(unsafe { register_at(key, section as usize, length, u64::from(flags)) })
}

/// Unregisters everything that the key holds.
#[cfg_attr(feature = "capi", unsafe(no_mangle))]
pub extern "C" fn framewalk_unregister(key: u64) -> i64 {
    number(unregister(key))
}
