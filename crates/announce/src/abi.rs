//! The numbers of the ABI, once: for the process's side, for the reference registry, and (printed by the
//! kernel crate's build) for the BPF programs.

/// prctl(2) option: `prctl(REGISTER, key, address, length, kind | flags)` answers an id above 0.
pub const REGISTER: u32 = 0x5346_4701;
/// prctl(2) option: `prctl(UNREGISTER, key, 0, 0, 0)` answers how many sections were removed, above 0.
pub const UNREGISTER: u32 = 0x5346_4702;

/// Kind: an SFrame section in the caller's memory, version 2 or 3.
pub const KIND_SECTION: u64 = 0;
/// Kind: a frame area in the caller's memory ([`crate::area`]).
pub const KIND_AREA: u64 = 1;
/// Flag: takes the place of everything that the key holds, at once.
pub const REPLACE: u64 = 0x100;

/// Sections of one address space, at most.
pub const MAX_SECTIONS: u32 = 4096;
/// Of these, frame areas, at most.
pub const MAX_AREAS: u32 = 64;
/// Bytes of rows of one function that are looked through; longer ones are malformed.
pub const MAX_ROW_BYTES: usize = 32 << 10;
/// User addresses lie below this (AMD64: 47 bits).
pub const USER_END: u64 = 1 << 47;

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $errno:literal, $name:literal, $text:literal;)*) => {
        /// Why an announcement was refused: each an errno.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i32)]
        pub enum Refusal { $($(#[$doc])* $variant = $errno,)* }

        impl Refusal {
            /// Every refusal.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$variant,)*];

            /// The errno (include/uapi/asm-generic/errno.h), positive.
            pub const fn errno(self) -> i32 {
                self as i32
            }

            /// The refusal with this errno, if it is one.
            pub const fn from_errno(errno: i32) -> Option<Refusal> {
                match errno { $($errno => Some(Refusal::$variant),)* _ => None }
            }

            /// The name of the errno.
            pub const fn name(self) -> &'static str {
                match self { $(Refusal::$variant => $name,)* }
            }

            /// One clause for people.
            pub const fn text(self) -> &'static str {
                match self { $(Refusal::$variant => $text,)* }
            }
        }

        impl core::fmt::Display for Refusal {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{} ({})", self.text(), self.name())
            }
        }

        impl core::error::Error for Refusal {}
    };
}

refusals! {
    /// The key holds nothing.
    UnknownKey = 2, "ENOENT", "nothing is registered under this key";
    /// The header, or the first or last function's entry, cannot be read.
    Unreadable = 14, "EFAULT", "the section cannot be read";
    /// Text of another section of this address space is in the way.
    Overlap = 17, "EEXIST", "its text overlaps that of a registered section";
    /// Unknown kind or flags, or not a range of user addresses.
    Arguments = 22, "EINVAL", "bad kind, flags or address range";
    /// A quota is used up, or there is no memory for more.
    Quota = 28, "ENOSPC", "no room for another section";
    /// The header contradicts itself or the length.
    Malformed = 74, "EBADMSG", "the header is malformed";
    /// A version of SFrame, or a machine, that is not read.
    Unsupported = 93, "EPROTONOSUPPORT", "this version or machine is not supported";
}
