//! Numbers of the SFrame specification: each with its name and where it stands.
//!
//! Facts only; how they are put together per version and machine is the table in `layout.rs`.

/// First two bytes of every section, in the target's byte order ("SFrame Preamble").
pub const MAGIC: u16 = 0xdee2;

/// Bytes of the fixed header, the same in all versions ("SFrame Header").
pub const HEADER_SIZE: usize = 28;

macro_rules! numbers {
    ($(#[$doc:meta])* $kind:ident: $($(#[$item_doc:meta])* $item:ident = $value:literal, $name:literal;)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $kind(pub u8);

        impl $kind {
            $($(#[$item_doc])* pub const $item: $kind = $kind($value);)*

            /// Every number of the specification, lowest first.
            pub const ALL: &'static [$kind] = &[$($kind::$item,)*];

            /// The name in the specification, if it has one.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $($value => Some($name),)* _ => None }
            }
        }
    };
}

numbers! {
    /// Version of the format ("SFrame Preamble", `sfp_version`).
    Version:
    /// binutils 2.40.
    V1 = 1, "SFRAME_VERSION_1";
    /// binutils 2.41 to 2.45.
    V2 = 2, "SFRAME_VERSION_2";
    /// binutils 2.46 and later.
    V3 = 3, "SFRAME_VERSION_3";
}

numbers! {
    /// One bit of the section's flags ("SFrame Flags", `sfp_flags`).
    Flag:
    /// Functions are sorted by start address.
    SORTED = 0x1, "SFRAME_F_FDE_SORTED";
    /// All functions keep the frame pointer (V1, V2).
    FRAME_POINTER = 0x2, "SFRAME_F_FRAME_POINTER";
    /// A function's start is relative to its own field, not to the section.
    PCREL = 0x4, "SFRAME_F_FDE_FUNC_START_PCREL";
}

numbers! {
    /// Machine and byte order ("SFrame ABI/arch Identifier", `sfh_abi_arch`).
    Abi:
    /// AArch64, big endian.
    AARCH64_BE = 1, "SFRAME_ABI_AARCH64_ENDIAN_BIG";
    /// AArch64, little endian.
    AARCH64_LE = 2, "SFRAME_ABI_AARCH64_ENDIAN_LITTLE";
    /// AMD64, little endian.
    AMD64 = 3, "SFRAME_ABI_AMD64_ENDIAN_LITTLE";
    /// s390x, big endian (V2 erratum 1 and later).
    S390X = 4, "SFRAME_ABI_S390X_ENDIAN_BIG";
}

/// Bits of a function's info byte ("The SFrame FDE Info Word").
pub mod func_info {
    /// Width of row starts: 0 = u8, 1 = u16, 2 = u32.
    pub const ROW_START: u8 = 0x0f;
    /// Set: row starts are relative to a repeated block (PCMASK).
    pub const MASK: u8 = 0x10;
    /// AArch64: return addresses are signed with key B.
    pub const KEY_B: u8 = 0x20;
    /// Signal frame (V3).
    pub const SIGNAL: u8 = 0x80;
    /// Second info byte (V3): the kind of rows, 0 = default, 1 = flexible.
    pub const ROW_KIND: u8 = 0x1f;
    /// Flexible rows.
    pub const FLEX: u8 = 1;
}

/// Bits of a row's info byte ("The SFrame FRE Info Word").
pub mod row_info {
    /// Set: the CFA's base is the stack pointer; clear: the frame pointer.
    pub const BASE_SP: u8 = 0x01;
    /// Shift of the number of words.
    pub const WORDS_SHIFT: u8 = 1;
    /// Mask of the number of words, shifted.
    pub const WORDS: u8 = 0x0f;
    /// Shift of the words' size code: 0 = 1 byte, 1 = 2, 2 = 4.
    pub const SIZE_SHIFT: u8 = 5;
    /// Mask of the size code, shifted.
    pub const SIZE: u8 = 0x03;
    /// AArch64: the return address is signed here.
    pub const SIGNED_RA: u8 = 0x80;
}

/// Bits of a control word of flexible rows (V3, "Flexible FDE").
pub mod control {
    /// Set: the base is a register; clear: the CFA.
    pub const REGISTER: u32 = 0x1;
    /// Set: the value is loaded from the address.
    pub const LOAD: u32 = 0x2;
    /// Unused, zero.
    pub const UNUSED: u32 = 0x4;
    /// Shift of the DWARF register number.
    pub const NUMBER_SHIFT: u32 = 3;
}
