//! How the walker learns what is known about a pc.

use crate::arch::{AMD64, Arch};
use crate::{Origin, Stop};
use framewalk_sframe::{CallerRule, Unwind};
use std::ops::Range;

/// What is known about one pc. The rows may be as wrong as their author liked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<P> {
    /// What the caller of the walk wants to remember about the pc: an object, a mapping.
    pub place: P,
    /// How to go on from there.
    pub says: Says,
}

/// How to go on from a pc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// The row for this pc.
    Row {
        /// What the row says.
        unwind: Unwind,
        /// The function is a signal trampoline: its caller was interrupted, not calling.
        signal: bool,
        /// Whose row it is; the caller's pc has this origin.
        origin: Origin,
    },
    /// By this rule in the body of the function: where its frame is not made yet, or is undone, the instruction tells.
    Body {
        /// The rule.
        rule: CallerRule,
        /// The function keeps a frame pointer; else its frame is undone at the return only.
        frame_pointer: bool,
        /// The caller was interrupted, not calling.
        signal: bool,
        /// Whose rule it is; the caller's pc has this origin.
        origin: Origin,
    },
    /// By this rule, on another stack: the CFA is what the rule computes plus `add` bytes, and may lie anywhere.
    Switch {
        /// The rule.
        rule: CallerRule,
        /// Bytes.
        add: i32,
        /// Whose rule it is; the caller's pc has this origin.
        origin: Origin,
    },
    /// Executable memory that nobody describes: the frame pointer may be tried.
    Undescribed,
    /// The walk ends here.
    Stop(Stop),
}

/// The code of the walked process.
pub trait Code {
    /// What [`Found::place`] holds.
    type Place;

    /// The machine that it is for. One process has one.
    fn arch(&self) -> &'static Arch {
        &AMD64
    }

    /// What is known about the instruction that contains the byte at `pc` (user address space).
    /// For a caller the walker passes the return address minus one: the call itself.
    fn find(&mut self, pc: u64) -> Found<Self::Place>;

    /// Whether `pc` lies in executable memory at all.
    fn is_code(&mut self, pc: u64) -> bool {
        self.find(pc).says != Says::Stop(Stop::NotCode)
    }

    /// Whether these bytes lie in the mapping that holds the stack pointer, as far as that is known. A new
    /// thread whose frame pointer is still its parent's is not to be walked into the parent's frames.
    fn is_same_stack(&mut self, _sp: u64, _bytes: Range<u64>) -> bool {
        true
    }
}

impl<P, F: FnMut(u64) -> Found<P>> Code for F {
    type Place = P;

    fn find(&mut self, pc: u64) -> Found<P> {
        self(pc)
    }
}
