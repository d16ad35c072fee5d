//! What differs between versions and between machines, as table rows.
//!
//! A version decides where fields stand and which constructs exist; a machine decides registers
//! and what the words of a default row mean. Nothing else in the crate asks for either by name.

use crate::row::Register;
use crate::spec::{Abi, Flag, Version, func_info};

/// Where the attribute of a function (row count, info bytes, block size) stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attribute {
    /// In the index entry itself.
    Entry,
    /// In front of the function's rows.
    Rows,
}

/// A version of the format.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) version: Version,
    /// Flags that may be set.
    pub(crate) flags: u8,
    /// Bytes of an index entry.
    pub(crate) entry_size: u8,
    /// Bytes of its start field.
    pub(crate) start_size: u8,
    pub(crate) attribute: Attribute,
    /// The block size of PCMASK functions is written down.
    pub(crate) has_block: bool,
    /// Info bits that mean something.
    pub(crate) info_bits: u8,
    /// A row without words says "outermost".
    pub(crate) empty_row: bool,
    /// A default function without rows and without the signal bit says "outermost".
    pub(crate) empty_function: bool,
    /// An odd RA or FP word names a register, on machines that do so.
    pub(crate) register_words: bool,
}

/// Bytes of the attribute in front of a function's rows (V3).
pub(crate) const ATTRIBUTE_SIZE: usize = 5;

const COMMON_INFO: u8 = func_info::ROW_START | func_info::MASK | func_info::KEY_B;

static LAYOUTS: [Layout; 3] = [
    Layout {
        version: Version::V1,
        flags: Flag::SORTED.0 | Flag::FRAME_POINTER.0,
        entry_size: 17,
        start_size: 4,
        attribute: Attribute::Entry,
        has_block: false,
        info_bits: COMMON_INFO,
        empty_row: false,
        empty_function: false,
        register_words: false,
    },
    Layout {
        version: Version::V2,
        flags: Flag::SORTED.0 | Flag::FRAME_POINTER.0 | Flag::PCREL.0,
        entry_size: 20,
        start_size: 4,
        attribute: Attribute::Entry,
        has_block: true,
        info_bits: COMMON_INFO,
        empty_row: true,
        empty_function: false,
        register_words: true,
    },
    Layout {
        version: Version::V3,
        flags: Flag::SORTED.0 | Flag::PCREL.0,
        entry_size: 16,
        start_size: 8,
        attribute: Attribute::Rows,
        has_block: true,
        info_bits: COMMON_INFO | func_info::SIGNAL,
        empty_row: true,
        empty_function: true,
        register_words: false,
    },
];

pub(crate) fn layout(version: Version) -> Option<&'static Layout> {
    LAYOUTS.iter().find(|layout| layout.version == version)
}

/// What the words of a default row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracks {
    /// CFA, then FP. The return address stands at the header's fixed offset.
    Fp,
    /// CFA, then RA, then FP. A return address without word is still in its register.
    RaFp,
}

/// A machine, as far as SFrame knows it.
///
/// Register numbers are DWARF numbers of the machine's psABI.
#[derive(Debug)]
pub struct Machine {
    pub(crate) abi: Abi,
    /// Byte order of everything in the section.
    pub big_endian: bool,
    /// Stack pointer.
    pub sp: Register,
    /// Frame pointer.
    pub fp: Register,
    /// Return address column.
    pub ra: Register,
    /// The caller's stack pointer is `CFA + this`.
    pub sp_from_cfa: i32,
    /// Where the return address always stands, from the CFA; 0 = it is tracked per row.
    pub fixed_ra: i8,
    pub(crate) tracks: Tracks,
    /// CFA offset = word * scale + bias.
    pub(crate) cfa_scale: i64,
    pub(crate) cfa_bias: i64,
    /// An RA word of 0 says "in its register".
    pub(crate) zero_ra_is_same: bool,
    /// Odd words name registers, in versions that do so.
    pub(crate) register_words: bool,
    /// Highest register that a rule can name: general registers, and on AArch64 and s390x floating point registers,
    /// into which compilers spill.
    pub(crate) last_register: u8,
    /// Return addresses may be signed.
    pub(crate) signs_ra: bool,
    /// Block size of PCMASK functions where the version has no field for it.
    pub(crate) default_block: u8,
}

const AARCH64: Machine = Machine {
    abi: Abi::AARCH64_LE,
    big_endian: false,
    sp: Register(31),
    fp: Register(29),
    ra: Register(30),
    sp_from_cfa: 0,
    fixed_ra: 0,
    tracks: Tracks::RaFp,
    cfa_scale: 1,
    cfa_bias: 0,
    zero_ra_is_same: false,
    register_words: false,
    last_register: 95,
    signs_ra: true,
    default_block: 16,
};

static MACHINES: [Machine; 4] = [
    Machine {
        abi: Abi::AMD64,
        big_endian: false,
        sp: Register(7),
        fp: Register(6),
        ra: Register(16),
        sp_from_cfa: 0,
        fixed_ra: -8,
        tracks: Tracks::Fp,
        cfa_scale: 1,
        cfa_bias: 0,
        zero_ra_is_same: false,
        register_words: false,
        last_register: 15,
        signs_ra: false,
        default_block: 16,
    },
    AARCH64,
    Machine {
        abi: Abi::AARCH64_BE,
        big_endian: true,
        ..AARCH64
    },
    Machine {
        abi: Abi::S390X,
        big_endian: true,
        sp: Register(15),
        fp: Register(11),
        ra: Register(14),
        sp_from_cfa: -160,
        fixed_ra: 0,
        tracks: Tracks::RaFp,
        cfa_scale: 8,
        cfa_bias: 160,
        zero_ra_is_same: true,
        register_words: true,
        last_register: 31,
        signs_ra: false,
        default_block: 32,
    },
];

/// The machines that SFrame has numbers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// x86-64, LP64.
    Amd64,
    /// AArch64, little endian.
    Aarch64,
    /// AArch64, big endian.
    Aarch64Be,
    /// s390x (64-bit z/Architecture).
    S390x,
}

impl Arch {
    /// All of them.
    pub const ALL: [Arch; 4] = [Arch::Amd64, Arch::Aarch64, Arch::Aarch64Be, Arch::S390x];

    /// The machine's row of the table.
    pub fn machine(self) -> &'static Machine {
        match self {
            Arch::Amd64 => &MACHINES[0],
            Arch::Aarch64 => &MACHINES[1],
            Arch::Aarch64Be => &MACHINES[2],
            Arch::S390x => &MACHINES[3],
        }
    }

    /// Its number in the header.
    pub fn abi(self) -> Abi {
        self.machine().abi
    }

    /// The machine with this number in the header.
    pub fn from_abi(abi: Abi) -> Option<Arch> {
        Arch::ALL.into_iter().find(|arch| arch.abi() == abi)
    }
}
