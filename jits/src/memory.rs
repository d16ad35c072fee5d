//! Memory for code that is used again and again: a few blocks for very many functions.
#![allow(unsafe_code)]

use cranelift_jit::{BranchProtection, JITMemoryProvider};
use cranelift_module::ModuleResult;
use std::io;
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// Bytes of a block, which holds one function.
pub const BLOCK: usize = 2048;

/// A function begins at any multiple of this in its block.
const STEP: usize = 16;

/// What stands where no function is: traps, so that nobody runs what was freed.
const TRAP: u8 = 0xcc;

/// Memory that can be written and executed, for as long as the process lives.
#[derive(Debug)]
pub struct CodeMemory {
    base: usize,
    len: usize,
    free: Mutex<Free>,
}

#[derive(Debug)]
struct Free {
    blocks: Vec<usize>,
    random: u64,
}

impl Free {
    /// A number below `bound`.
    fn random(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % bound as u64) as usize
    }
}

impl CodeMemory {
    /// Maps memory for so many blocks.
    pub fn new(blocks: usize) -> io::Result<&'static CodeMemory> {
        let len = blocks * BLOCK;
        let base = map(len, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)?;
        // SAFETY: the mapping was just made, and has this length.
        unsafe { ptr::write_bytes(base as *mut u8, TRAP, len) };
        let free = Free {
            blocks: (0..blocks).collect(),
            random: 0x9e37_79b9_7f4a_7c15,
        };
        Ok(Box::leak(Box::new(CodeMemory {
            base,
            len,
            free: Mutex::new(free),
        })))
    }

    /// Its first address.
    pub fn base(&self) -> u64 {
        self.base as u64
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.len as u64
    }

    /// A place for one function: any free block, and any place in it, so that what stood there before rarely began at
    /// the same address.
    fn take(&self, size: usize) -> Option<Place> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let room = BLOCK.checked_sub(size)?;
        let count = free.blocks.len();
        if count == 0 {
            return None;
        }
        let at = free.random(count);
        let block = free.blocks.swap_remove(at);
        let offset = free.random(room / STEP + 1) * STEP;
        Some(Place { block, offset })
    }

    fn give_back(&self, place: Place) {
        let block = self.base + place.block * BLOCK;
        // SAFETY: the block is ours, was taken, and its code is not run any more (`free_memory`'s promise).
        unsafe { ptr::write_bytes(block as *mut u8, TRAP, BLOCK) };
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.blocks.push(place.block);
    }
}

#[derive(Debug, Clone, Copy)]
struct Place {
    block: usize,
    offset: usize,
}

/// Gives a module with one function its memory.
#[derive(Debug)]
pub struct Provider {
    memory: &'static CodeMemory,
    place: Option<Place>,
}

impl Provider {
    /// From there.
    pub fn new(memory: &'static CodeMemory) -> Provider {
        Provider {
            memory,
            place: None,
        }
    }
}

impl JITMemoryProvider for Provider {
    fn allocate_readexec(&mut self, size: usize, align: u64) -> io::Result<*mut u8> {
        let full = || io::Error::from(io::ErrorKind::OutOfMemory);
        if self.place.is_some() || align > STEP as u64 {
            return Err(full());
        }
        let place = self.memory.take(size).ok_or_else(full)?;
        self.place = Some(place);
        Ok((self.memory.base + place.block * BLOCK + place.offset) as *mut u8)
    }

    fn allocate_readwrite(&mut self, _: usize, _: u64) -> io::Result<*mut u8> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocate_readonly(&mut self, _: usize, _: u64) -> io::Result<*mut u8> {
        Err(io::ErrorKind::Unsupported.into())
    }

    unsafe fn free_memory(&mut self) {
        if let Some(place) = self.place.take() {
            self.memory.give_back(place);
        }
    }

    fn finalize(&mut self, _: BranchProtection) -> ModuleResult<()> {
        Ok(())
    }
}

/// Maps anonymous memory; its address.
pub fn map(len: usize, protection: i32) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, wherever the kernel puts it.
    let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
    match base {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        base => Ok(base as usize),
    }
}
