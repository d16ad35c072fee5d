//! The walk of the kernel, compiled as ordinary C into this process (feature `host`): for tests, which compare it with
//! the walk in Rust, and give both memories that fail where they want.
//!
//! It is the same source as the BPF programs'. Mappings are in a maple tree as the kernel has it, tables in an arena,
//! announced sections in the same maps. What C leaves undefined traps.
#![allow(unsafe_code)]

use crate::Walked;
use crate::skeleton::types::fw_object_state;
use framewalk_sframe::{Error, Section};
use framewalk_walk::{Origin, Start};
use std::ffi::{c_int, c_long, c_void};
use std::fmt;
use std::ptr::NonNull;

#[repr(C)]
struct RawWorld([u8; 0]);

type Reader = unsafe extern "C" fn(*mut c_void, *mut u8, u32, u64) -> c_int;

/// `struct fw_world_walk` of `host/host.c`.
#[repr(C)]
#[derive(Debug)]
struct RawWalk {
    pc: u64,
    sp: u64,
    fp: u64,
    registers: [u64; 16],
    limit: u32,
    origin: u32,
    top: u8,
    is_return: u8,
    sleepable: u8,
    may_defer: u8,
    stop: u32,
    words: u32,
    frames: u32,
    reads: u32,
    out_of_loops: u32,
    stack: *const u64,
}

unsafe extern "C" {
    fn fw_world_new() -> *mut RawWorld;
    fn fw_world_free(world: *mut RawWorld);
    fn fw_world_clear(world: *mut RawWorld);
    fn fw_world_object(
        world: *mut RawWorld,
        number: u32,
        state: u32,
        origin: u32,
        section: *const u8,
        length: u32,
        index: u32,
        functions: u32,
        rows_at: u32,
        rows_len: u32,
    ) -> c_int;
    fn fw_world_map(
        world: *mut RawWorld,
        start: u64,
        end: u64,
        page: u64,
        executable: c_int,
        object: c_int,
    ) -> c_int;
    fn fw_world_mapped(world: *mut RawWorld, leaf: u32);
    fn fw_world_announce(
        world: *mut RawWorld,
        area: c_int,
        key: u64,
        address: u64,
        length: u64,
        number: u64,
        read: Reader,
        context: *mut c_void,
    ) -> c_long;
    fn fw_world_walk(world: *mut RawWorld, walk: *mut RawWalk, read: Reader, context: *mut c_void);
}

/// Reads memory of the walked process: all of the slice, from an address on, or false.
pub type Read<'a> = dyn FnMut(u64, &mut [u8]) -> bool + 'a;

unsafe extern "C" fn read(context: *mut c_void, to: *mut u8, size: u32, from: u64) -> c_int {
    // SAFETY: the context is what `World::with_reader` made of a reader that outlives the call, and `to` has `size` bytes
    // of an initialised buffer that nobody else looks at meanwhile.
    let (read, to) = unsafe {
        (
            &mut *context.cast::<&mut Read<'_>>(),
            std::slice::from_raw_parts_mut(to, size as usize),
        )
    };
    c_int::from(!read(from, to))
}

/// What is known of a mapped file.
#[derive(Debug, Clone, Copy)]
pub enum Object<'a> {
    /// Its table: a V3 section in the space of file offsets, and whose.
    Table(&'a [u8], Origin),
    /// Nobody describes it.
    Bare,
    /// Code of another machine.
    Foreign,
}

/// How a walk is made.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Frames, at most.
    pub limit: u32,
    /// Reads may sleep.
    pub sleepable: bool,
    /// The walk can be tried again where they may.
    pub may_defer: bool,
}

/// A process, as far as a walk looks at one.
pub struct World {
    raw: NonNull<RawWorld>,
    announced: u64,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

impl Default for World {
    fn default() -> World {
        World::new()
    }
}

impl World {
    /// Mappings, at most.
    pub const MAX_MAPPINGS: usize = 64;
    /// Objects have numbers below this.
    pub const MAX_OBJECTS: u32 = 16;
    /// Announced sections and areas, at most.
    pub const MAX_ANNOUNCED: usize = 45;

    /// One without mappings.
    ///
    /// # Panics
    /// Where there is no memory for it.
    pub fn new() -> World {
        // SAFETY: no arguments; it answers an object of its own or null.
        let raw = unsafe { fw_world_new() };
        World {
            raw: NonNull::new(raw).expect("memory for a world"),
            announced: 0,
        }
    }

    /// Forgets all mappings, objects and announcements, and what was cached.
    pub fn clear(&mut self) {
        self.announced = 0;
        // SAFETY: the object is this one's own.
        unsafe { fw_world_clear(self.raw.as_ptr()) };
    }

    /// Says what is known of the object with this number.
    ///
    /// # Panics
    /// Where the number is too large, or the arena full.
    pub fn object(&mut self, number: u32, object: Object<'_>) -> Result<(), Error> {
        let (state, section, origin) = match object {
            Object::Table(section, origin) => (fw_object_state::FW_OBJECT_READY, section, origin),
            Object::Bare => (fw_object_state::FW_OBJECT_BARE, &[][..], Origin::File),
            Object::Foreign => (fw_object_state::FW_OBJECT_FOREIGN, &[][..], Origin::File),
        };
        let places = match object {
            Object::Table(..) => {
                let parsed = Section::parse(section, 0)?;
                let header = parsed.header();
                [
                    header.index_at as u32,
                    header.functions,
                    header.rows_at as u32,
                    header.rows_len as u32,
                ]
            }
            _ => [0; 4],
        };
        let [index, functions, rows_at, rows_len] = places;
        // SAFETY: the object is this one's own; the section is read during the call only.
        let answer = unsafe {
            fw_world_object(
                self.raw.as_ptr(),
                number,
                state.0,
                origin as u32,
                section.as_ptr(),
                section.len() as u32,
                index,
                functions,
                rows_at,
                rows_len,
            )
        };
        assert_eq!(answer, 0, "object {number}");
        Ok(())
    }

    /// Adds a mapping behind all others: of the object with this number from a page of it on, or of none.
    ///
    /// # Panics
    /// Where it is not behind the others, or one too many.
    pub fn map(&mut self, start: u64, end: u64, executable: bool, object: Option<(u32, u64)>) {
        let (number, page) = object.map_or((-1, 0), |(number, page)| (number as c_int, page));
        // SAFETY: the object is this one's own.
        let answer = unsafe {
            let executable = executable.into();
            fw_world_map(self.raw.as_ptr(), start, end, page, executable, number)
        };
        assert_eq!(answer, 0, "mapping {start:#x}..{end:#x}");
    }

    /// Makes the tree of the mappings, whose leaves have so many slots: 11 to 16.
    pub fn mapped(&mut self, leaf: u32) {
        // SAFETY: the object is this one's own.
        unsafe { fw_world_mapped(self.raw.as_ptr(), leaf) };
    }

    /// Registers a section or an area at an address, which is read; an errno where it is refused. Texts of several must
    /// not overlap.
    pub fn announce(
        &mut self,
        area: bool,
        key: u64,
        address: u64,
        length: u64,
        mut memory: &mut Read<'_>,
    ) -> Result<(), i64> {
        self.announced += 1;
        let number = (1 << 20) + self.announced;
        let context: *mut &mut Read<'_> = &raw mut memory;
        // SAFETY: the object is this one's own; the reader is used during the call only.
        let answer = unsafe {
            fw_world_announce(
                self.raw.as_ptr(),
                area.into(),
                key,
                address,
                length,
                number,
                read,
                context.cast(),
            )
        };
        if answer == 0 { Ok(()) } else { Err(answer) }
    }

    /// Walks.
    ///
    /// # Panics
    /// Where the walk used up the kernel's budget for loops, or answers what is no answer: a fault.
    pub fn walk(&mut self, start: &Start, how: How, mut memory: &mut Read<'_>) -> Walked {
        let mut registers = [0; 16];
        if let Some(full) = &start.registers.full {
            registers.copy_from_slice(&full[..16]);
        }
        let mut walk = RawWalk {
            pc: start.registers.pc,
            sp: start.registers.sp,
            fp: start.registers.fp,
            registers,
            limit: how.limit,
            origin: start.origin as u32,
            top: start.registers.full.is_some().into(),
            is_return: start.is_return_address.into(),
            sleepable: how.sleepable.into(),
            may_defer: how.may_defer.into(),
            stop: 0,
            words: 0,
            frames: 0,
            reads: 0,
            out_of_loops: 0,
            stack: std::ptr::null(),
        };
        let context: *mut &mut Read<'_> = &raw mut memory;
        // SAFETY: the object is this one's own; `walk` and the reader outlive the call. What `stack` points to is the
        // object's, `words` long, and copied before anything else can happen to it.
        let words = unsafe {
            fw_world_walk(self.raw.as_ptr(), &raw mut walk, read, context.cast());
            std::slice::from_raw_parts(walk.stack, walk.words as usize)
        };
        assert_eq!(walk.out_of_loops, 0, "the budget of loops was used up");
        Walked {
            reads: walk.reads,
            ..Walked::new(words, walk.frames, walk.stop, walk.pc, walk.sp)
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // SAFETY: it is freed once; nothing refers to it any more.
        unsafe { fw_world_free(self.raw.as_ptr()) };
    }
}

// SAFETY: a world is used by one thread at a time (`&mut`), and holds nothing of the thread that made it: each call
// says anew which world is meant.
unsafe impl Send for World {}
