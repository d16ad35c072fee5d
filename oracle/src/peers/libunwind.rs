//! libunwind over ptrace, if its libraries are there: they are opened when they are needed, so that nothing has to be
//! installed in order to build this.
#![allow(unsafe_code)]

use super::{LIMIT, Peer, Walked};
use crate::amd64::Stepped;
use crate::judge::Judge;
use crate::machine::Boundary;
use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_void};
use std::io;

/// UNW_X86_64_RIP
const RIP: c_int = 16;
/// Words of a cursor: UNW_TDEP_CURSOR_LEN is 127.
const CURSOR: usize = 256;

type Handle = *mut c_void;

/// The functions that are used (libunwind.h, libunwind-ptrace.h).
struct Functions {
    create: unsafe extern "C" fn(c_int) -> Handle,
    destroy: unsafe extern "C" fn(Handle),
    begin: unsafe extern "C" fn(*mut u64, Handle, Handle) -> c_int,
    step: unsafe extern "C" fn(*mut u64) -> c_int,
    get: unsafe extern "C" fn(*mut u64, c_int, *mut u64) -> c_int,
    flush: unsafe extern "C" fn(Handle, u64, u64),
}

pub(super) struct Libunwind {
    functions: Functions,
    space: Handle,
    threads: HashMap<u32, Handle>,
    generation: u64,
}

fn open(name: &CStr) -> Result<Handle, String> {
    // One of them needs what the other one has.
    let flags = libc::RTLD_NOW | libc::RTLD_GLOBAL;
    // SAFETY: opens a library of the system by its name; its constructors are its own business.
    let library = unsafe { libc::dlopen(name.as_ptr(), flags) };
    match library.is_null() {
        true => Err(format!("{} cannot be opened", name.to_string_lossy())),
        false => Ok(library),
    }
}

fn find(library: Handle, name: &CStr) -> Result<Handle, String> {
    // SAFETY: the library was opened and is never closed.
    let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
    match symbol.is_null() {
        true => Err(format!("libunwind has no {}", name.to_string_lossy())),
        false => Ok(symbol),
    }
}

impl Libunwind {
    pub(super) fn load() -> Result<Libunwind, String> {
        let machine = open(c"libunwind-x86_64.so.8")?;
        let ptrace = open(c"libunwind-ptrace.so.0")?;
        let symbols = [
            find(ptrace, c"_UPT_create")?,
            find(ptrace, c"_UPT_destroy")?,
            find(machine, c"_Ux86_64_init_remote")?,
            find(machine, c"_Ux86_64_step")?,
            find(machine, c"_Ux86_64_get_reg")?,
            find(machine, c"_Ux86_64_flush_cache")?,
            find(machine, c"_Ux86_64_create_addr_space")?,
        ];
        let accessors = find(ptrace, c"_UPT_accessors")?;
        let [create, destroy, begin, step, get, flush, space] = symbols;
        // SAFETY: functions of these names have these types, in every version with these sonames.
        let (functions, new) = unsafe {
            let functions = Functions {
                create: std::mem::transmute::<Handle, unsafe extern "C" fn(c_int) -> Handle>(
                    create,
                ),
                destroy: std::mem::transmute::<Handle, unsafe extern "C" fn(Handle)>(destroy),
                begin: std::mem::transmute::<
                    Handle,
                    unsafe extern "C" fn(*mut u64, Handle, Handle) -> c_int,
                >(begin),
                step: std::mem::transmute::<Handle, unsafe extern "C" fn(*mut u64) -> c_int>(step),
                get: std::mem::transmute::<
                    Handle,
                    unsafe extern "C" fn(*mut u64, c_int, *mut u64) -> c_int,
                >(get),
                flush: std::mem::transmute::<Handle, unsafe extern "C" fn(Handle, u64, u64)>(flush),
            };
            let new =
                std::mem::transmute::<Handle, unsafe extern "C" fn(Handle, c_int) -> Handle>(space);
            (functions, new)
        };
        // SAFETY: the accessors are the library's own; 0 means the byte order of this machine.
        let space = unsafe { new(accessors, 0) };
        match space.is_null() {
            true => Err("libunwind makes no address space".into()),
            false => Ok(Libunwind {
                functions,
                space,
                threads: HashMap::new(),
                generation: 0,
            }),
        }
    }

    fn forget(&mut self) {
        for (_, thread) in self.threads.drain() {
            // SAFETY: made by _UPT_create, and in nobody else's hands.
            unsafe { (self.functions.destroy)(thread) };
        }
        // SAFETY: the address space lives as long as this does; an empty range means all of it.
        unsafe { (self.functions.flush)(self.space, 0, 0) };
    }
}

impl Peer for Libunwind {
    fn walk(
        &mut self,
        _: &mut Stepped,
        boundary: &Boundary,
        judge: &Judge,
    ) -> io::Result<Vec<Option<Walked>>> {
        if std::mem::replace(&mut self.generation, judge.generation()) != judge.generation() {
            self.forget();
        }
        let Functions {
            create,
            begin,
            step,
            get,
            ..
        } = self.functions;
        let tid = boundary.tid.cast_signed();
        // SAFETY: takes a number; the thread is stopped and traced by this one.
        let thread = *self
            .threads
            .entry(boundary.tid)
            .or_insert_with(|| unsafe { create(tid) });
        let mut cursor = [0_u64; CURSOR];
        let at = cursor.as_mut_ptr();
        let mut walked = Walked::default();
        // SAFETY: the cursor has room for one, and stays where it is until the walk is over.
        let mut more = unsafe { begin(at, self.space, thread) } == 0;
        while more && walked.frames.len() < LIMIT {
            let mut pc = 0;
            // SAFETY: the cursor was begun; writes one word.
            if unsafe { get(at, RIP, &raw mut pc) } != 0 || pc == 0 {
                walked.ended = pc == 0;
                break;
            }
            walked.frames.push(pc);
            // SAFETY: as above.
            let next = unsafe { step(at) };
            walked.ended = next == 0;
            more = next > 0;
        }
        Ok(vec![Some(walked)])
    }
}

impl Drop for Libunwind {
    fn drop(&mut self) {
        self.forget();
    }
}
