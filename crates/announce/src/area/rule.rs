//! Rules: where the caller of a function is, and the words that say it.
//!
//! Words are checked with the same function wherever they come from: from a [`Rule`], or from C as they are.

use super::layout::*;
use core::fmt;

/// Where a word is: in memory, in bytes from the CFA (or, for a stack's pointer, from SP), or in a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// In memory; a multiple of 8.
    At(i16),
    /// In the register with this DWARF number.
    Register(u8),
}

/// How the caller of a frame is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule<'a> {
    /// Nothing is said. For text that no entry describes, not for a function.
    None,
    /// The function keeps a frame pointer: CFA = FP + 2 words, RA and FP right below it.
    FramePointer,
    /// The frame is as large at every instruction.
    Fixed {
        /// CFA = SP + this.
        cfa: i32,
        /// Where the return address is; [`Rule::fixed`] says what is usual.
        ra: Place,
        /// Where the caller's frame pointer is, from the CFA; 0: the function leaves it alone.
        fp: i16,
    },
    /// It depends on the instruction: an SFrame V3 function attribute and its rows, as they lie in a section.
    Rows(&'a [u8]),
    /// The caller's frame is on another stack.
    StackSwitch {
        /// Where the pointer S to the other stack is, from SP.
        stack: Place,
        /// CFA = S + this.
        cfa: i16,
        /// Where the return address is, from the CFA.
        ra: i16,
        /// Where the caller's frame pointer is, from the CFA; 0: the function leaves it alone.
        fp: i16,
    },
    /// There is no caller.
    Outermost,
    /// There is a caller, but no way to tell where.
    Opaque,
}

impl Rule<'_> {
    /// CFA = SP + `cfa`, with the return address in the word below the CFA, and the frame pointer left alone.
    pub const fn fixed(cfa: i32) -> Rule<'static> {
        let ra = Place::At(-8);
        Rule::Fixed { cfa, ra, fp: 0 }
    }
}

/// What is wrong with a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RuleError {
    /// No such kind.
    Kind(u32),
    /// No such flag, or not with this kind.
    Flags(u32),
    /// An offset is not a multiple of 8.
    Misaligned(i32),
    /// No frame has so many bytes.
    Frame(i32),
    /// No such register.
    Register(i16),
    /// Rows have at least 6 bytes and at most [`MAX_ROWS`].
    Rows(usize),
    /// A function has a rule, and a default rule has no rows and no prologue.
    Place,
    /// Words that this kind does not use are not zero.
    Unused,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleError::Kind(kind) => write!(f, "no kind {kind}"),
            RuleError::Flags(flags) => {
                write!(f, "flags {flags:#x} are unknown or not of this kind")
            }
            RuleError::Misaligned(offset) => write!(f, "offset {offset} is no multiple of 8"),
            RuleError::Frame(bytes) => write!(f, "no frame has {bytes} bytes"),
            RuleError::Register(number) => write!(f, "no register {number}"),
            RuleError::Rows(bytes) => write!(f, "rows of {bytes} bytes"),
            RuleError::Place => f.write_str("not as a default rule, or only as one"),
            RuleError::Unused => f.write_str("words that the kind does not use are not zero"),
        }
    }
}

impl core::error::Error for RuleError {}

/// Bytes of a function attribute, and a row has at least one.
const MIN_ROWS: usize = 6;
/// Registers that a walker knows: on AMD64 those of 16 general ones.
const REGISTERS: i16 = if cfg!(target_arch = "x86_64") { 16 } else { 32 };
/// A CFA further above the stack pointer is nonsense.
const MAX_FRAME: i32 = 1 << 26;
/// Offsets are multiples of a word.
const WORD: i32 = 8;

/// The words of a rule, and the bytes that belong into the heap.
pub(super) fn encode<'a>(rule: &Rule<'a>) -> (Described, &'a [u8]) {
    let mut rows: &[u8] = &[];
    let (kind, rule) = match *rule {
        Rule::None => (NONE, [0; 2]),
        Rule::FramePointer => (FRAME_POINTER, [0; 2]),
        Rule::Fixed { cfa, ra, fp } => {
            let (flag, ra) = place(ra);
            (FIXED | flag, [cfa as u32, halves(ra, fp)])
        }
        Rule::Rows(bytes) => {
            rows = bytes;
            (ROWS, [0; 2])
        }
        Rule::StackSwitch { stack, cfa, ra, fp } => {
            let (flag, stack) = place(stack);
            (STACK_SWITCH | flag, [halves(stack, cfa), halves(ra, fp)])
        }
        Rule::Outermost => (OUTERMOST, [0; 2]),
        Rule::Opaque => (OPAQUE, [0; 2]),
    };
    (Described { how: kind, rule }, rows)
}

/// The flag and the number of a place.
const fn place(place: Place) -> (u32, i16) {
    match place {
        Place::At(offset) => (0, offset),
        Place::Register(number) => (IN_REGISTER << 8, number as i16),
    }
}

/// What words are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Function { rows: usize },
    Default,
}

/// Checks words that a producer is about to write; those of rows are not there yet.
pub(super) fn check(described: Described, usage: Use) -> Result<(), RuleError> {
    let Described { how, rule } = described;
    let (kind, flags, prologue) = (how & 0xff, how >> 8 & 0xff, how >> 16);
    let rows = match usage {
        Use::Function { rows } => rows,
        Use::Default => 0,
    };
    match usage {
        Use::Default if kind == ROWS || prologue != 0 || (kind == NONE && how != 0) => {
            return Err(RuleError::Place);
        }
        Use::Default if flags & !(RUNTIME | IN_REGISTER) != 0 => {
            return Err(RuleError::Flags(flags));
        }
        Use::Function { .. } if kind == NONE => return Err(RuleError::Place),
        _ => {}
    }
    check_words(how, rule)?;
    match kind {
        ROWS if rows < MIN_ROWS || rows > MAX_ROWS as usize => Err(RuleError::Rows(rows)),
        ROWS if rule != [0; 2] => Err(RuleError::Unused),
        ROWS => Ok(()),
        _ if rows != 0 => Err(RuleError::Unused),
        _ => Ok(()),
    }
}

/// What has to hold of the words of any rule, whoever wrote them. Where rows lie is not asked.
pub(super) fn check_words(how: u32, rule: [u32; 2]) -> Result<(), RuleError> {
    let (kind, flags) = (how & 0xff, how >> 8 & 0xff);
    let in_register = flags & IN_REGISTER != 0;
    let with_register = kind == FIXED || kind == STACK_SWITCH;
    if flags & !FLAGS != 0
        || (in_register && !with_register)
        || (kind == STACK_SWITCH && flags & SIGNAL != 0)
    {
        return Err(RuleError::Flags(flags));
    }
    match kind {
        FIXED => {
            let cfa = rule[0] as i32;
            offset(cfa)?;
            // The return address is between SP and the CFA, or in a register.
            let least = if in_register { 0 } else { WORD };
            if !(least..=MAX_FRAME).contains(&cfa) {
                return Err(RuleError::Frame(cfa));
            }
            either(low(rule[1]), in_register)?;
            offset(high(rule[1]).into())
        }
        STACK_SWITCH => {
            either(low(rule[0]), in_register)?;
            offset(high(rule[0]).into())?;
            offset(low(rule[1]).into())?;
            offset(high(rule[1]).into())
        }
        ROWS => Ok(()),
        NONE | FRAME_POINTER | OUTERMOST | OPAQUE if rule != [0; 2] => Err(RuleError::Unused),
        NONE | FRAME_POINTER | OUTERMOST | OPAQUE => Ok(()),
        _ => Err(RuleError::Kind(kind)),
    }
}

pub(super) const fn low(word: u32) -> i16 {
    word as u16 as i16
}

pub(super) const fn high(word: u32) -> i16 {
    (word >> 16) as u16 as i16
}

/// A register's number, or an offset.
fn either(number: i16, in_register: bool) -> Result<(), RuleError> {
    match in_register {
        true if !(0..REGISTERS).contains(&number) => Err(RuleError::Register(number)),
        true => Ok(()),
        false => offset(number.into()),
    }
}

fn offset(offset: i32) -> Result<(), RuleError> {
    match offset % WORD {
        0 => Ok(()),
        _ => Err(RuleError::Misaligned(offset)),
    }
}
