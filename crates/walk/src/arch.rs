//! What a machine's psABI fixes for a walk.

use framewalk_sframe::Register;

/// One machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arch {
    /// The stack pointer.
    pub sp: Register,
    /// The frame pointer.
    pub fp: Register,
    /// Registers with DWARF numbers from 0 that a full register set holds.
    pub full: usize,
    /// Bytes of a stack word; CFAs are multiples of it.
    pub word: u64,
    /// Bytes below the stack pointer that signal handlers leave alone.
    pub red_zone: u64,
    /// The first address that user space can never have.
    pub user_end: u64,
}

/// x86-64: AMD64 psABI figure 3.36 (register numbers) and 3.2.2 (red zone); five-level paging bounds user space.
pub const AMD64: Arch = Arch {
    sp: Register(7),
    fp: Register(6),
    full: 17,
    word: 8,
    red_zone: 128,
    user_end: 1 << 56,
};
