//! What a machine's psABI fixes for a walk.
//!
//! The walker of this crate knows the machines below; the BPF walker (`crates/kernel/bpf`), the engines and
//! guesses by the frame pointer are x86-64 only.

use framewalk_sframe::Register;

/// Registers that a full register set has room for: DWARF numbers 0 to 31.
pub const FULL: usize = 32;

/// One machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arch {
    /// The stack pointer.
    pub sp: Register,
    /// The frame pointer.
    pub fp: Register,
    /// The link register: where a call leaves the return address, if it does not push it.
    pub link: Option<Register>,
    /// Registers with DWARF numbers from 0 that a full register set holds; at most [`FULL`].
    pub full: usize,
    /// Bytes of a stack word; CFAs are multiples of it.
    pub word: u64,
    /// Bytes from the caller's stack pointer up to the CFA. They belong to the caller's frame, but the callee saves
    /// registers there.
    pub save_area: u64,
    /// Bytes below the stack pointer that signal handlers leave alone.
    pub red_zone: u64,
    /// The first address that user space can never have.
    pub user_end: u64,
    /// The bits of a return address that are an address. The others hold its signature, where the machine signs them.
    pub address_bits: u64,
    /// Undescribed code may be walked by its frame pointer: its instructions are known.
    pub guesses: bool,
}

/// x86-64: AMD64 psABI figure 3.36 (register numbers) and 3.2.2 (red zone). Code and stacks at addresses of 56 bits, which
/// Linux maps on request only (five-level paging), are not walked.
pub const AMD64: Arch = Arch {
    sp: Register(7),
    fp: Register(6),
    link: None,
    full: 16,
    word: 8,
    save_area: 0,
    red_zone: 128,
    user_end: 1 << 47,
    address_bits: u64::MAX,
    guesses: true,
};

/// AArch64, of either byte order: AADWARF64 4.1 (register numbers), AAPCS64 6.4.5 (the stack), Linux's
/// Documentation/arch/arm64/pointer-authentication.rst (what a signature leaves of a 48-bit address). Code at
/// addresses of 52 bits, which Linux maps on request only, is not walked.
pub const AARCH64: Arch = Arch {
    sp: Register(31),
    fp: Register(29),
    link: Some(Register(30)),
    full: 32,
    word: 8,
    save_area: 0,
    red_zone: 0,
    user_end: 1 << 48,
    address_bits: (1 << 48) - 1,
    guesses: false,
};

/// s390x: ELF Application Binary Interface s390x Supplement 1.2.2 (the stack frame, with the register save area of
/// 160 bytes) and 1.6 (register numbers; floating point registers are 16 to 31). All but the last page may be
/// user space.
pub const S390X: Arch = Arch {
    sp: Register(15),
    fp: Register(11),
    link: Some(Register(14)),
    full: 32,
    word: 8,
    save_area: 160,
    red_zone: 0,
    user_end: !0xfff,
    address_bits: u64::MAX,
    guesses: false,
};

impl Arch {
    /// Whether return addresses may be signed.
    pub const fn signs(&self) -> bool {
        self.address_bits != u64::MAX
    }

    /// Whether the stack can be there.
    pub(crate) const fn is_aligned(&self, address: u64) -> bool {
        address.is_multiple_of(self.word)
    }
}
