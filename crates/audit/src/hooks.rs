//! What the loader calls. It holds its own lock then, so nothing here runs twice at a time.
#![allow(unsafe_code)]

use crate::auxiliary;
use crate::headers::{Object, Range, Table};
use crate::memory::Own;
use core::ffi::{c_char, c_long, c_uint};
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};
use framewalk_announce::{Answer, register_at, unregister};

/// The version of the interface that this is written for (glibc 2.35); what is used of it has always been the same.
const VERSION: c_uint = 2;

/// The public part of the loader's link map (link.h).
#[repr(C)]
struct LinkMap {
    bias: usize,
    name: *const c_char,
    dynamic: usize,
}

/// Where an object is not registered.
const NOTHING: usize = 0;

/// The program's cookie, its link map's address. When the loader closes the program, the process is ending.
static PROGRAM: AtomicUsize = AtomicUsize::new(NOTHING);
/// Not 0 when that has happened.
static ENDING: AtomicUsize = AtomicUsize::new(0);

/// The version that both know: the older one. A loader that has none is answered 0, and does without us.
#[unsafe(no_mangle)]
extern "C" fn la_version(version: c_uint) -> c_uint {
    version.min(VERSION)
}

/// The loader has mapped an object. No symbol bindings are of interest: 0.
///
/// # Safety
///
/// The loader calls it, with its link map and a cookie that is ours to set.
#[unsafe(no_mangle)]
unsafe extern "C" fn la_objopen(map: *const LinkMap, _: c_long, cookie: *mut usize) -> c_uint {
    if map.is_null() || cookie.is_null() {
        return 0;
    }
    // SAFETY: the loader's promise.
    let LinkMap {
        bias,
        name,
        dynamic,
    } = unsafe { ptr::read(map) };
    let key = map as usize;
    let object = Object { bias, dynamic };
    // The first object without a name is the program: it is opened before all others.
    // SAFETY: a name is a string.
    let is_program = !name.is_null()
        && unsafe { ptr::read(name) } == 0
        && PROGRAM.load(Ordering::Relaxed) == NOTHING;
    if is_program {
        PROGRAM.store(key, Ordering::Relaxed);
    }
    let mut kept = NOTHING;
    if let Some(Range { address, length }) = unwind_data(object, is_program) {
        // SAFETY: the loader has mapped it, and neither unmaps it nor writes to it while it tells us.
        let answer = unsafe { register_at(key as u64, address, length, 0) };
        // What is refused is not registered. Whoever says nothing may have heard.
        if !matches!(answer, Answer::Refused(_)) {
            kept = key;
        }
    }
    // SAFETY: the loader's promise.
    unsafe { ptr::write(cookie, if is_program { key } else { kept }) };
    0
}

/// Where an object's unwind data is.
fn unwind_data(object: Object, is_program: bool) -> Option<Range> {
    let memory = Own::new();
    // Files begin with their header, and their addresses with 0; but not those of a program at fixed addresses.
    let found =
        Table::behind(&memory, object.bias).and_then(|table| table.unwind_data(&memory, object));
    match found {
        None if is_program && object.bias == 0 => {
            auxiliary::program()?.unwind_data(&memory, object)
        }
        found => found,
    }
}

/// The loader is about to unmap an object; or the process ends, and it closes all of them, the program before those that
/// it needs.
///
/// Then the registry ends as well, and until then their code stays mapped and may run. So nothing is taken back. (Programs
/// that confine themselves may be killed for system calls that they do not expect: at their end, too.)
///
/// # Safety
///
/// The loader calls it, with a cookie that we have set.
#[unsafe(no_mangle)]
unsafe extern "C" fn la_objclose(cookie: *mut usize) -> c_uint {
    if cookie.is_null() {
        return 0;
    }
    // SAFETY: the loader's promise.
    let key = unsafe { ptr::read(cookie) };
    if key == NOTHING || ENDING.load(Ordering::Relaxed) != 0 {
        return 0;
    }
    if key == PROGRAM.load(Ordering::Relaxed) {
        ENDING.store(1, Ordering::Relaxed);
        return 0;
    }
    // Once: whatever the loader does with the cookie later is nothing to us.
    // SAFETY: the loader's promise.
    unsafe { ptr::write(cookie, NOTHING) };
    unregister(key as u64);
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_version_is_agreed_on() {
        let versions = [0, 1, 2, 3, c_uint::MAX].map(|version| la_version(version));
        assert_eq!(versions, [0, 1, 2, 2, 2]);
    }

    #[test]
    fn the_loader_s_mistakes_harm_nobody() {
        let mut cookie = 1;
        // SAFETY: null is looked for; this map is one, of an object that is not there.
        unsafe {
            la_objopen(ptr::null(), 0, &raw mut cookie);
            assert_eq!(cookie, 1);
            let map = LinkMap {
                bias: 0x7fff_ffff_f000,
                name: c"gone.so".as_ptr(),
                dynamic: 0,
            };
            la_objopen(&raw const map, 0, ptr::null_mut());
            la_objopen(&raw const map, 0, &raw mut cookie);
            assert_eq!(cookie, NOTHING);
            la_objclose(&raw mut cookie);
            la_objclose(ptr::null_mut());
        }
    }
}
