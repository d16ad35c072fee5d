//! What the words of an entry mean, for those who read them and believe nothing.

use super::layout::*;
use super::rule::{Place, check_words, high, low};

/// How to get to the caller: what an entry's words mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// As at the first instruction of any function (psABI).
    Entry,
    /// By the frame pointer.
    FramePointer,
    /// CFA = SP + `cfa`; the rest from there. `fp` 0: unchanged.
    Fixed {
        /// Bytes.
        cfa: i32,
        /// The return address.
        ra: Place,
        /// The frame pointer.
        fp: i16,
    },
    /// By rows in the heap: so many bytes at this place of the area.
    Rows {
        /// Bytes from the start of the area.
        at: u64,
        /// Bytes.
        len: u32,
    },
    /// CFA = another stack's pointer + `cfa`; the rest from there.
    StackSwitch {
        /// That pointer; a word of the stack is counted from SP.
        stack: Place,
        /// Bytes.
        cfa: i16,
        /// The return address.
        ra: i16,
        /// The frame pointer.
        fp: i16,
    },
    /// There is no caller.
    Outermost,
    /// There is no telling.
    Opaque,
}

/// The meaning of an entry's words at an offset in its function, if they have one. `heap`: bytes that are in use.
pub(super) fn meaning(
    Described { how, rule }: Described,
    offset: u32,
    heap_at: u64,
    heap: u64,
) -> Option<Rule> {
    check_words(how, rule).ok()?;
    let (kind, flags, prologue) = (how & 0xff, how >> 8 & 0xff, how >> 16);
    // Registers were checked to be few.
    let place = |number: i16| match flags & IN_REGISTER {
        0 => Place::At(number),
        _ => Place::Register(number as u8),
    };
    let [first, second] = rule;
    let meaning = match kind {
        FRAME_POINTER => Rule::FramePointer,
        FIXED => Rule::Fixed {
            cfa: first as i32,
            ra: place(low(second)),
            fp: high(second),
        },
        ROWS if !(1..=MAX_ROWS).contains(&second) => return None,
        ROWS if u64::from(first) + u64::from(second) > heap => return None,
        ROWS => Rule::Rows {
            at: heap_at + u64::from(first),
            len: second,
        },
        STACK_SWITCH => Rule::StackSwitch {
            stack: place(low(first)),
            cfa: high(first),
            ra: low(second),
            fp: high(second),
        },
        OUTERMOST => Rule::Outermost,
        OPAQUE => Rule::Opaque,
        _ => return None,
    };
    Some(match offset < prologue {
        true => Rule::Entry,
        false => meaning,
    })
}

/// Whether these words can be a default rule: nothing that needs an entry's start, rows or name.
pub(super) fn is_default(described: Described) -> bool {
    super::rule::check(described, super::rule::Use::Default).is_ok()
}
