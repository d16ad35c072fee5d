//! The arena that the programs share with this process: the rule cache, then tables, one after the
//! other. Tables are immutable once published and never move, so no walk can see a half-written one.
#![allow(unsafe_code)]

use crate::error::Error;
use crate::skeleton::types;
use libbpf_rs::{AsRawLibbpf, Map, libbpf_sys};
use std::ptr::NonNull;

/// From `bpf/shared.h`.
const CACHE_BYTES: usize = (1 << 14) * 16;
const ARENA_BYTES: usize = (1 << 19) * 4096;

/// The index of an SFrame V3 section begins at its byte 28; with sections at 36 modulo 64 no entry of
/// it straddles a cache line.
const SECTION_ALIGN: usize = 64;
const SECTION_BIAS: usize = 36;

/// This process's view of the arena.
#[derive(Debug)]
pub(crate) struct Arena {
    base: NonNull<u8>,
    used: usize,
}

impl Arena {
    /// The view that libbpf mapped when it created `map`. The caller keeps the object that owns the map.
    pub(crate) fn new(map: &Map<'_>) -> Option<Arena> {
        let mut size = 0u64;
        // SAFETY: the pointer is a live libbpf map, and `size` is a size_t that outlives the call.
        let base = unsafe {
            libbpf_sys::bpf_map__initial_value(
                map.as_libbpf_object().as_ptr(),
                (&raw mut size).cast(),
            )
        };
        let base = NonNull::new(base.cast::<u8>())?;
        // The cache's pages have to exist before a program stores there.
        // SAFETY: libbpf mapped ARENA_BYTES writable bytes at `base`; nobody else holds references.
        unsafe { base.as_ptr().write_bytes(0, CACHE_BYTES) };
        Some(Arena {
            base,
            used: CACHE_BYTES,
        })
    }

    /// Copies a section in, for good. Answers its offset.
    pub(crate) fn add(&mut self, section: &[u8]) -> Result<u32, Error> {
        let at = self.used.next_multiple_of(SECTION_ALIGN) + SECTION_BIAS;
        let end = at
            .checked_add(section.len())
            .filter(|end| *end <= ARENA_BYTES);
        let Some(end) = end else {
            return Err(Error::ArenaFull(section.len()));
        };
        // SAFETY: at..end lies inside the mapping (checked above) and behind everything published, so
        // no program reads it yet.
        unsafe {
            self.base
                .as_ptr()
                .add(at)
                .copy_from_nonoverlapping(section.as_ptr(), section.len())
        };
        self.used = end;
        Ok(at as u32)
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.used
    }
}

// SAFETY: plain bytes; structs generated from BTF hold integers only.
unsafe impl Plain for types::fw_object {}
// SAFETY: as above; the struct has no padding (its size is asserted in record.rs).
unsafe impl Plain for types::fw_key {}

/// Types without padding and without invalid bit patterns.
///
/// # Safety
/// Every byte is initialised, and every bit pattern is a value.
pub(crate) unsafe trait Plain: Copy {
    /// The bytes of the value.
    fn bytes(&self) -> &[u8] {
        // SAFETY: `Plain` promises that all size_of::<Self>() bytes are initialised.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }
}
