//! Frame areas for C: `include/framewalk.h`, which `./run header` prints, says what the functions do.
//!
//! The structs have the words of the layout in place of [`super::Rule`]s; they are checked like those.
#![allow(unsafe_code)]

use super::function::{Options, PublishError, Slot};
use super::layout::Described;
use super::mapping::Mapped;
use super::produce::Raw;
use super::rule::Rule;
use crate::register::Answer;
use core::ffi::{c_char, c_int, c_void};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::AtomicI64;
use core::sync::atomic::Ordering::Relaxed;

/// `struct framewalk_area_options`: see [`Options`].
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AreaOptions {
    /// First address of the text.
    pub text_start: u64,
    /// Bytes of text.
    pub text_len: u64,
    /// Entries.
    pub capacity: u32,
    /// Bytes of a granule, as a power of two.
    pub granule_shift: u32,
    /// Bytes for rows and names.
    pub heap: u64,
    /// The key.
    pub key: u64,
    /// The default rule's kind and flags.
    pub how: u32,
    /// Its words.
    pub rule: [u32; 2],
}

/// `struct framewalk_function`: see [`super::Function`].
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CFunction {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub size: u32,
    /// Kind, flags and bytes of prologue.
    pub how: u32,
    /// Words of the rule.
    pub rule: [u32; 2],
    /// The JIT's own number.
    pub cookie: u32,
    /// Rows, for that kind.
    pub rows: *const c_void,
    /// Bytes of them.
    pub rows_len: u32,
    /// A name in the place of the cookie, or null.
    pub name: *const c_char,
    /// Bytes of it.
    pub name_len: u32,
}

/// `struct framewalk_area`: an area, and what registering it was answered.
///
/// It lies in a page of its own: nothing here knows of an allocator.
#[derive(Debug)]
pub struct CArea {
    area: Mapped,
    answer: AtomicI64,
}

const ENOSPC: i64 = 28;
const EINVAL: i64 = 22;
const PLACE: usize = size_of::<CArea>();

fn number(answer: Answer) -> i64 {
    crate::c_api::number(answer)
}

/// Maps an area; registers nothing.
///
/// # Safety
///
/// `options` is null, or points to options.
#[cfg_attr(feature = "capi", unsafe(no_mangle))]
pub unsafe extern "C" fn framewalk_area_map(options: *const AreaOptions) -> *mut CArea {
    // SAFETY: the caller's promise.
    let Some(given) = (unsafe { options.as_ref() }) else {
        return null_mut();
    };
    let options = Options {
        text_start: given.text_start,
        text_len: given.text_len,
        capacity: given.capacity,
        granule_shift: given.granule_shift,
        heap: given.heap,
        key: given.key,
        default_rule: Rule::None,
    };
    let described = Described {
        how: given.how,
        rule: given.rule,
    };
    let Ok(place) = crate::system::map_anonymous(PLACE) else {
        return null_mut();
    };
    match Mapped::with_default(&options, described) {
        Ok(area) => {
            let place = place.cast::<CArea>();
            let answer = AtomicI64::new(0);
            // SAFETY: a new page, of which nobody else knows, larger than this.
            unsafe { place.write(CArea { area, answer }) };
            place.as_ptr()
        }
        Err(_) => {
            // SAFETY: it was not used.
            unsafe { crate::system::unmap(place, PLACE) };
            null_mut()
        }
    }
}

/// Maps an area and registers it under its key.
///
/// # Safety
///
/// See [`framewalk_area_map`].
#[cfg_attr(feature = "capi", unsafe(no_mangle))]
pub unsafe extern "C" fn framewalk_area_create(options: *const AreaOptions) -> *mut CArea {
    // SAFETY: the caller's promise.
    let area = unsafe { framewalk_area_map(options) };
    // SAFETY: null, or what was just made.
    unsafe { framewalk_area_replace(area, null_mut()) };
    area
}

/// Registers an area in the place of another one with the same key; of none, if `old` is null.
///
/// # Safety
///
/// Both are null, or areas that were not destroyed.
#[cfg_attr(feature = "capi", unsafe(no_mangle))]
pub unsafe extern "C" fn framewalk_area_replace(area: *mut CArea, old: *mut CArea) -> i64 {
    // SAFETY: the caller's promise.
    let (Some(area), old) = (unsafe { (area.as_ref(), old.as_ref()) }) else {
        return -EINVAL;
    };
    let answer = match old {
        Some(old) => area.area.take_over(&old.area),
        None => area.area.register(),
    };
    let answer = number(answer);
    area.answer.store(answer, Relaxed);
    answer
}

/// What registering the area was answered.
///
/// # Safety
///
/// `area` is null, or an area that was not destroyed.
#[cfg_attr(feature = "capi", unsafe(no_mangle))]
pub unsafe extern "C" fn framewalk_area_answer(area: *const CArea) -> i64 {
    // SAFETY: the caller's promise.
    let area = unsafe { area.as_ref() };
    area.map_or(-EINVAL, |area| area.answer.load(Relaxed))
}

/// Unregisters and unmaps an area.
///
/// # Safety
///
/// `area` is null, or an area that was not destroyed, and nobody uses it any more.
#[cfg_attr(feature = "capi", unsafe(no_mangle))]
pub unsafe extern "C" fn framewalk_area_destroy(area: *mut CArea) {
    let Some(place) = NonNull::new(area) else {
        return;
    };
    // SAFETY: the caller's promise: it is there, and nobody reads it again.
    unsafe { place.drop_in_place() };
    // SAFETY: mapped with this length when it was made.
    unsafe { crate::system::unmap(place.cast(), PLACE) };
}

/// Describes a function.
///
/// # Safety
///
/// `area` is null, or an area that was not destroyed; `function` is null, or points to a function, whose pointers are null or
/// point to so many bytes.
#[cfg_attr(feature = "capi", unsafe(no_mangle))]
pub unsafe extern "C" fn framewalk_area_publish(
    area: *const CArea,
    function: *const CFunction,
) -> i64 {
    // SAFETY: the caller's promise.
    let (Some(area), Some(given)) = (unsafe { (area.as_ref(), function.as_ref()) }) else {
        return -EINVAL;
    };
    let name = NonNull::new(given.name.cast_mut().cast());
    // SAFETY: the caller's promise.
    let rows = unsafe { bytes(NonNull::new(given.rows.cast_mut().cast()), given.rows_len) };
    // SAFETY: the same.
    let name = name.map(|_| unsafe { bytes(name, given.name_len) });
    answer(area.area.publish_raw(&Raw {
        start: given.start,
        size: given.size,
        described: Described {
            how: given.how,
            rule: given.rule,
        },
        rows,
        cookie: given.cookie,
        name,
    }))
}

/// Bytes of C; none where there is nothing.
///
/// # Safety
///
/// The pointer, if there is one, points to so many bytes, which stay as they are for this long.
unsafe fn bytes<'a>(pointer: Option<NonNull<u8>>, length: u32) -> &'a [u8] {
    match pointer {
        // SAFETY: the caller's promise.
        Some(p) => unsafe { core::slice::from_raw_parts(p.as_ptr(), length as usize) },
        None => &[],
    }
}

fn answer(result: Result<Slot, PublishError>) -> i64 {
    match result {
        Ok(slot) => slot.to_bits(),
        Err(PublishError::Full | PublishError::HeapFull | PublishError::Crowded) => -ENOSPC,
        Err(_) => -EINVAL,
    }
}

/// Says that a function is gone.
///
/// # Safety
///
/// `area` is null, or an area that was not destroyed.
#[cfg_attr(feature = "capi", unsafe(no_mangle))]
pub unsafe extern "C" fn framewalk_area_tombstone(area: *const CArea, slot: i64) -> c_int {
    // SAFETY: the caller's promise.
    let area = unsafe { area.as_ref() };
    match area.is_some_and(|area| area.area.tombstone(Slot::from_bits(slot))) {
        true => 0,
        false => -EINVAL as c_int,
    }
}

/// Says that a function goes to another address.
///
/// # Safety
///
/// `area` is null, or an area that was not destroyed.
#[cfg_attr(feature = "capi", unsafe(no_mangle))]
pub unsafe extern "C" fn framewalk_area_move(area: *const CArea, slot: i64, start: u64) -> i64 {
    // SAFETY: the caller's promise.
    match unsafe { area.as_ref() } {
        Some(area) => answer(area.area.moved(Slot::from_bits(slot), start)),
        None => -EINVAL,
    }
}

/// Begins anew.
///
/// # Safety
///
/// `area` is null, or an area that was not destroyed, and no other thread uses it meanwhile.
#[cfg_attr(feature = "capi", unsafe(no_mangle))]
pub unsafe extern "C" fn framewalk_area_reset(area: *mut CArea) {
    // SAFETY: the caller's promise.
    if let Some(area) = unsafe { area.as_mut() } {
        area.area.reset();
    }
}
