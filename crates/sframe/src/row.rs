//! The hub: one small row, version- and architecture-neutral, to which every source of unwind
//! data lowers and which every walker executes. Nobody else interprets formats.
//!
//! Offsets are bytes. Registers carry DWARF numbers of the machine's psABI. A row holds from
//! `start` (bytes from the function's first byte; for PCMASK functions from the first byte of
//! the repeated block) to the next row's start or the function's end.

/// A register by its DWARF number (AMD64 psABI figure 3.36: 6 = rbp, 7 = rsp, 16 = return address).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Register(pub u8);

/// How the canonical frame address is computed. On AMD64 it is also the caller's stack pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cfa {
    /// `register + offset`
    Value(Register, i32),
    /// the word at `register + offset`
    At(Register, i32),
}

/// How a caller's return address or frame pointer is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Still in its own register (for the frame pointer: unchanged, never "undefined").
    Same,
    /// the word at `CFA + offset`
    AtCfa(i32),
    /// the word at `register + offset`
    At(Register, i32),
    /// `register + offset`
    Value(Register, i32),
}

/// What it takes to get from a frame to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallerRule {
    /// The canonical frame address.
    pub cfa: Cfa,
    /// The return address, which is the caller's pc.
    pub ra: Rule,
    /// The caller's frame pointer.
    pub fp: Rule,
    /// The return address is signed here (AArch64 PAC) and has to be stripped before use.
    pub ra_signed: bool,
}

/// What a row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unwind {
    /// No caller exists: the outermost frame.
    Outermost,
    /// The caller is found by this rule.
    Caller(CallerRule),
}

/// One row of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    /// First byte to which the row applies, from the function's (or repeated block's) start.
    pub start: u32,
    /// What holds from there on.
    pub unwind: Unwind,
}
