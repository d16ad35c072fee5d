//! What one hands over to an area and gets from it: options, functions, slots, errors.

use super::layout::*;
use super::rule::{Rule, RuleError};
use crate::register::END as USER_END;
use core::fmt;

/// What an area is for, and how large it is.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// First address of the text: the range in which code is, or will be, generated.
    pub text_start: u64,
    /// Bytes of text, at most [`MAX_TEXT`].
    pub text_len: u64,
    /// Functions that can be published before the area is full or reset, dead ones included. 0: there is only the default rule.
    pub capacity: u32,
    /// A granule of text, in which at most [`MAX_HOPS`] functions may start, has 2 to the power of this many bytes.
    pub granule_shift: u32,
    /// Bytes for rows and names.
    pub heap: u64,
    /// The key under which the area is registered.
    pub key: u64,
    /// For text that no entry describes.
    pub default_rule: Rule<'static>,
}

impl Options {
    /// For a range of text: 65,536 functions, granules of 1 kB, 1 MB for rows and names, no default rule, and the text's
    /// address as key.
    pub const fn new(text_start: u64, text_len: u64) -> Options {
        Options {
            text_start,
            text_len,
            capacity: 1 << 16,
            granule_shift: 10,
            heap: 1 << 20,
            key: text_start,
            default_rule: Rule::None,
        }
    }

    /// Bytes that such an area has.
    pub fn area_len(&self) -> Result<u64, CreateError> {
        let end = self.text_start.checked_add(self.text_len);
        let outside = end.is_none_or(|end| self.text_start == 0 || end > USER_END);
        if self.text_len == 0 || self.text_len > MAX_TEXT || outside {
            return Err(CreateError::Text);
        }
        if self.capacity > MAX_CAPACITY {
            return Err(CreateError::Capacity);
        }
        if !(MIN_SHIFT..=MAX_SHIFT).contains(&self.granule_shift) {
            return Err(CreateError::Granule);
        }
        if self.heap > MAX_AREA {
            return Err(CreateError::TooLarge);
        }
        let parts = Parts::new(self.capacity, self.text_len, self.granule_shift);
        let len = parts.heap_at + self.heap.next_multiple_of(8);
        match len <= MAX_AREA {
            true => Ok(len),
            false => Err(CreateError::TooLarge),
        }
    }
}

/// Why there is no area.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CreateError {
    /// The text is empty, larger than [`MAX_TEXT`], or not of user addresses.
    Text,
    /// More than [`MAX_CAPACITY`] entries.
    Capacity,
    /// `granule_shift` is not between [`MIN_SHIFT`] and [`MAX_SHIFT`].
    Granule,
    /// More than [`MAX_AREA`] bytes.
    TooLarge,
    /// The default rule.
    Rule(RuleError),
    /// The memory is smaller than [`Options::area_len`] says.
    Memory,
    /// No memory was to be had: an errno.
    System(i32),
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CreateError::Text => {
                f.write_str("the text is empty, too large, or not of user addresses")
            }
            CreateError::Capacity => f.write_str("too many entries"),
            CreateError::Granule => f.write_str("granules of this size are not possible"),
            CreateError::TooLarge => f.write_str("the area would be too large"),
            CreateError::Rule(error) => write!(f, "default rule: {error}"),
            CreateError::Memory => f.write_str("the memory is too small"),
            CreateError::System(errno) => write!(f, "no memory: errno {errno}"),
        }
    }
}

impl core::error::Error for CreateError {}

/// How people call a function, or the JIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label<'a> {
    /// The JIT's own number.
    Cookie(u32),
    /// UTF-8, cut at [`MAX_NAME`] bytes.
    Name(&'a str),
}

/// A function to publish.
#[derive(Debug, Clone, Copy)]
pub struct Function<'a> {
    /// Its first address.
    pub start: u64,
    /// Its bytes of code.
    pub size: u32,
    /// How its caller is found.
    pub rule: Rule<'a>,
    /// In so many bytes at its beginning the machine's entry rule holds, not `rule`.
    pub prologue_len: u16,
    /// It belongs to the language's run time, and may be folded away for people.
    pub runtime: bool,
    /// A signal trampoline: the caller was interrupted, not calling.
    pub signal: bool,
    /// Its name.
    pub label: Label<'a>,
}

impl<'a> Function<'a> {
    /// A function with nothing but a rule.
    pub const fn new(start: u64, size: u32, rule: Rule<'a>) -> Function<'a> {
        Function {
            start,
            size,
            rule,
            prologue_len: 0,
            runtime: false,
            signal: false,
            label: Label::Cookie(0),
        }
    }
}

/// Which entry: what [`super::Area::publish`] answers. It means nothing to another area, nor after a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    pub(super) number: u32,
    pub(super) generation: u32,
}

impl Slot {
    /// The number of the entry.
    pub const fn number(self) -> u32 {
        self.number
    }

    /// Never negative: the number, and above its 32 bits the generation.
    pub const fn to_bits(self) -> i64 {
        (self.number as u64 | (self.generation as u64 & 0x1fff_ffff) << 32) as i64
    }

    /// From [`Slot::to_bits`]. Other numbers are slots that are not alive.
    pub const fn from_bits(bits: i64) -> Slot {
        Slot {
            number: bits as u32,
            // Of the upper three bits none gets into a state; a negative number may be no slot, though.
            generation: match bits < 0 {
                true => u32::MAX,
                false => (bits >> 32) as u32,
            },
        }
    }
}

/// Why a function was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PublishError {
    /// It is empty, or does not lie in the text.
    Range,
    /// Its rule.
    Rule(RuleError),
    /// A live function covers the place where it starts.
    Overlap,
    /// [`MAX_HOPS`] live functions start in the same granule.
    Crowded,
    /// All slots are used up.
    Full,
    /// The heap has no room for its rows or name.
    HeapFull,
    /// What is to be moved is not alive.
    NotLive,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PublishError::Range => "not in the text",
            PublishError::Rule(error) => return error.fmt(f),
            PublishError::Overlap => "a live function covers it",
            PublishError::Crowded => "too many functions start in the same granule",
            PublishError::Full => "all slots are used up",
            PublishError::HeapFull => "the heap is used up",
            PublishError::NotLive => "not alive",
        })
    }
}

impl core::error::Error for PublishError {}
