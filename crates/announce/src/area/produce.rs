//! The producer's side of a frame area: describes generated code, function by function.
//!
//! No allocation, no lock, no system call for a function, and nothing that panics: memory that somebody else scribbles on
//! makes wrong entries, or errors, and nothing worse. Any number of threads may publish and tombstone at the same time.

use super::function::{CreateError, Function, Label, Options, PublishError, Slot};
use super::layout::*;
use super::protocol::{Entry, Protocol, Refused, Shape, Words};
use super::rule::{RuleError, Use, check, encode};
use crate::abi::{KIND_AREA, REPLACE};
use crate::register::{Answer, announce_at, unregister};
use core::sync::atomic::AtomicU32;

/// ELF's number of this machine.
const MACHINE: u16 = if cfg!(target_arch = "x86_64") {
    62
} else if cfg!(target_arch = "aarch64") {
    183
} else {
    0
};

/// A function as words, which C has from the beginning.
pub(super) struct Raw<'a> {
    pub(super) start: u64,
    pub(super) size: u32,
    pub(super) described: Described,
    pub(super) rows: &'a [u8],
    pub(super) cookie: u32,
    pub(super) name: Option<&'a [u8]>,
}

/// A frame area in memory that somebody else owns.
#[derive(Debug)]
pub struct Area<'memory> {
    protocol: Protocol<&'memory [AtomicU32]>,
    text_start: u64,
    text_len: u64,
    key: u64,
    len: u64,
}

impl<'memory> Area<'memory> {
    /// Makes an area of memory that holds zeros, and nothing but zeros.
    pub fn new(
        memory: &'memory [AtomicU32],
        options: &Options,
    ) -> Result<Area<'memory>, CreateError> {
        let len = options.area_len()?;
        // Rows are refused as a default rule, whatever they are.
        let (described, _) = encode(&options.default_rule);
        Area::with_default(memory, options, described, len)
    }

    /// The same, with the default rule in words.
    pub(super) fn with_default(
        memory: &'memory [AtomicU32],
        options: &Options,
        described: Described,
        len: u64,
    ) -> Result<Area<'memory>, CreateError> {
        check(described, Use::Default).map_err(CreateError::Rule)?;
        if (memory.len() as u64) < len / 4 {
            return Err(CreateError::Memory);
        }
        let shift = options.granule_shift;
        let parts = Parts::new(options.capacity, options.text_len, shift);
        // At most 2^30.
        let heap = (len - parts.heap_at) as u32;
        let shape = Shape::new(options.capacity, options.text_len, shift, heap);
        let area = Area {
            protocol: Protocol::new(memory, shape),
            text_start: options.text_start,
            text_len: options.text_len,
            key: options.key,
            len,
        };
        area.write_header(described);
        Ok(area)
    }

    /// Writes what never changes.
    fn write_header(&self, described: Described) {
        let one = |at, value| self.protocol.write_header(at, value);
        let two = |at: u64, value: u64| {
            let [a, b, c, d, e, f, g, h] = value.to_ne_bytes();
            one(at, u32::from_ne_bytes([a, b, c, d]));
            one(at + 4, u32::from_ne_bytes([e, f, g, h]));
        };
        let pair = |at, low: u64, high: u64| {
            let ([a, b], [c, d]) = ((low as u16).to_ne_bytes(), (high as u16).to_ne_bytes());
            one(at, u32::from_ne_bytes([a, b, c, d]));
        };
        let shape = self.protocol.shape();
        one(BYTE_ORDER_AT, BYTE_ORDER);
        pair(HEADER_SIZE_AT, HEADER_SIZE, ENTRY_SIZE);
        pair(MACHINE_AT, MACHINE.into(), shape.shift.into());
        one(CAPACITY_AT, shape.capacity);
        two(TEXT_START_AT, self.text_start);
        two(TEXT_LEN_AT, self.text_len);
        two(AREA_LEN_AT, self.len);
        two(KEY_AT, self.key);
        one(DEFAULT_AT, described.how);
        one(DEFAULT_AT + 4, described.rule[0]);
        one(DEFAULT_AT + 8, described.rule[1]);
        // Whoever finds the magic finds the rest.
        self.protocol.words().release();
        two(MAGIC_AT, u64::from_ne_bytes(MAGIC));
    }

    /// Bytes of the area.
    pub fn area_len(&self) -> u64 {
        self.len
    }

    /// The key under which it is registered.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// Its memory: anybody may look, with eyes that believe nothing.
    pub fn words(&self) -> &[AtomicU32] {
        self.protocol.words()
    }

    /// Entries that it can have.
    pub fn capacity(&self) -> u32 {
        self.protocol.shape().capacity
    }

    /// Slots handed out in this generation, those of dead entries included.
    pub fn claimed(&self) -> u32 {
        self.protocol.claimed()
    }

    /// Describes a function. Only then may its code be made reachable.
    pub fn publish(&self, function: &Function<'_>) -> Result<Slot, PublishError> {
        let (mut described, rows) = encode(&function.rule);
        let flag = |set, flag: u32| if set { flag << 8 } else { 0 };
        described.how |= flag(function.runtime, RUNTIME)
            | flag(function.signal, SIGNAL)
            | u32::from(function.prologue_len) << 16;
        let (cookie, name) = match function.label {
            Label::Cookie(cookie) => (cookie, None),
            Label::Name(name) => (0, Some(name.as_bytes())),
        };
        self.publish_raw(&Raw {
            start: function.start,
            size: function.size,
            described,
            rows,
            cookie,
            name,
        })
    }

    pub(super) fn publish_raw(&self, raw: &Raw<'_>) -> Result<Slot, PublishError> {
        let rows = raw.rows.len();
        if raw.described.how & NAMED << 8 != 0 {
            return Err(PublishError::Rule(RuleError::Flags(NAMED)));
        }
        check(raw.described, Use::Function { rows }).map_err(PublishError::Rule)?;
        let mut entry = Entry {
            start: self.offset(raw.start, raw.size)?,
            size: raw.size,
            described: raw.described,
            cookie: raw.cookie,
        };
        // Where there is no slot, nothing is taken from the heap.
        if self.claimed() >= self.capacity() {
            return Err(PublishError::Full);
        }
        if !raw.rows.is_empty() {
            let at = self.append(rows as u32, raw.rows.iter().copied())?;
            entry.described.rule = [at, rows as u32];
        }
        if let Some(name) = raw.name {
            let name = cut(name);
            let length = name.len() as u8;
            let bytes = core::iter::once(length).chain(name.iter().copied());
            entry.cookie = self.append(u32::from(length) + 1, bytes)?;
            entry.described.how |= NAMED << 8;
        }
        self.publish_entry(&entry)
    }

    fn publish_entry(&self, entry: &Entry) -> Result<Slot, PublishError> {
        let number = self.protocol.publish(entry).map_err(|why| match why {
            Refused::Overlap => PublishError::Overlap,
            Refused::Crowded => PublishError::Crowded,
            Refused::Full | Refused::Overtaken => PublishError::Full,
        })?;
        Ok(Slot {
            number,
            generation: self.protocol.generation(),
        })
    }

    /// Where a function lies in the text.
    fn offset(&self, start: u64, size: u32) -> Result<u32, PublishError> {
        let offset = start.checked_sub(self.text_start);
        let offset = offset.ok_or(PublishError::Range)?;
        let room = self.text_len.checked_sub(offset);
        match room {
            Some(room) if size > 0 && u64::from(size) <= room => Ok(offset as u32),
            _ => Err(PublishError::Range),
        }
    }

    /// Appends to the heap.
    fn append(
        &self,
        length: u32,
        bytes: impl IntoIterator<Item = u8>,
    ) -> Result<u32, PublishError> {
        let at = self.protocol.reserve(length);
        let at = at.ok_or(PublishError::HeapFull)?;
        self.protocol.write(at, bytes);
        Ok(at)
    }

    /// Says that a function is gone: to be called before its code is freed, moved or overwritten. False if the slot was not
    /// alive any more.
    pub fn tombstone(&self, slot: Slot) -> bool {
        self.protocol.kill(slot.number, slot.generation)
    }

    /// Says that a function goes to another address: to be called before its old code is freed or overwritten and its new
    /// one made reachable. Whatever the answer, it is described at its old place no longer.
    pub fn moved(&self, slot: Slot, start: u64) -> Result<Slot, PublishError> {
        let entry = self.protocol.entry(slot.number);
        if !self.tombstone(slot) {
            return Err(PublishError::NotLive);
        }
        let mut entry = entry.ok_or(PublishError::NotLive)?;
        entry.start = self.offset(start, entry.size)?;
        self.publish_entry(&entry)
    }

    /// Begins anew, with all slots and all of the heap. None of the code that the area describes may exist any more.
    pub fn reset(&mut self) {
        self.protocol.reset();
    }

    /// Registers the area under its key, beside what the key holds already.
    pub fn register(&self) -> Answer {
        self.announce(0)
    }

    /// Registers the area in the place of everything that its key holds, at once: no walk sees the time between. So
    /// a larger area takes over, when it describes everything that still exists.
    pub fn replace(&self) -> Answer {
        self.announce(REPLACE)
    }

    /// Unregisters everything that its key holds.
    pub fn unregister(&self) -> Answer {
        unregister(self.key)
    }

    fn announce(&self, flags: u64) -> Answer {
        let address = self.protocol.words().as_ptr() as usize;
        announce_at(self.key, address, self.len as usize, KIND_AREA | flags)
    }
}

/// At most [`MAX_NAME`] bytes, and no half of a character.
fn cut(name: &[u8]) -> &[u8] {
    let most = MAX_NAME as usize;
    let Some((mut head, rest)) = name.split_at_checked(most) else {
        return name;
    };
    let continues = |byte: &u8| byte & 0xc0 == 0x80;
    if !rest.first().is_some_and(continues) {
        return head;
    }
    // The bytes of the character that is cut, and its first one.
    while let Some((last, before)) = head.split_last() {
        head = before;
        if !continues(last) {
            break;
        }
    }
    head
}
