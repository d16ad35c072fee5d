//! What a frame area looks like in memory: the numbers, once, for all who write or read one.
//!
//! An area is one contiguous piece of memory of the process, in the machine's byte order:
//!
//! ```text
//!   0    +--------------------------------+
//!        | header: never changes          |  geometry, the default rule
//!  128   | header: changes                |  generation, tombstones | claimed, heap_used
//!  256   +--------------------------------+
//!        | entries, 32 bytes each         |  a function each, in the order in which they were claimed
//!        +--------------------------------+  256 + 32 * capacity
//!        | granule index, 4 bytes each    |  one for each 2^granule_shift bytes of text
//!        +--------------------------------+  rounded up to 8
//!        | heap                           |  rows and names, appended
//!        +--------------------------------+  area_len
//! ```
//!
//! Where the parts lie follows from `capacity`, `text_len` and `granule_shift`; nothing says it a second time, so
//! that nothing can contradict it. An area of capacity 0 has no entries and no index: only its default rule counts.
//!
//! A granule is a stretch of text. Its word in the index is 0, or the slot (plus 1) of the entry that was published
//! last of those that *start* in it: from there `next` leads on to older ones. Or it has bit 31 set: then
//! the slot (plus 1) is that of the entry that covers all of the granule and started before it. So whoever looks for a pc
//! needs two words: that of the pc's own granule, and that of the granule before, for a function may reach over one
//! boundary without covering what lies behind it.
//!
//! A tiny one: text at 0x10000, granules of 64 bytes, `f` (0x20 bytes at 0x10010), `g` (0xb0 bytes at 0x10030) and
//! `h` (0x10 bytes at 0x100e0), published in this order:
//!
//! ```text
//!   0x10000      0x10040      0x10080      0x100c0      0x10100
//!      |  [ f  ][ g  |            |            ][ h  ]     |
//!      granule 0    granule 1    granule 2    granule 3
//!
//!   index    [0] 2            g, and its next leads to f
//!            [1] 0x80000002   g, which covers all of it
//!            [2] 0x80000002   the same
//!            [3] 3            h
//!   entries  [0] f  next 0    [1] g  next 1    [2] h  next 0
//! ```
//!
//! 0x100d0 lies in `g`: granule 3 has only `h`, which does not hold it, and granule 2 leads to `g`, which does.

/// Defines constants, and a table of them for those who print them.
macro_rules! constants {
    ($table:ident: $($(#[doc = $doc:literal])+ $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[doc = $doc])+ pub const $name: $type = $value;)*

        /// All of these, for other languages: name, value, and what it is.
        pub const $table: &[(&str, u64, &str)] = &[
            $((stringify!($name), $name as u64, concat!($($doc),+)),)*
        ];
    };
}

/// What an area begins with: its name and the version of its layout. It is complete only while the area is registered, for
/// those who find the area without having heard of it: written right before the registration, and no longer there when
/// that is taken back.
pub const MAGIC: [u8; 8] = *b"SFAREA\0\x01";

constants! { CONSTANTS:
    /// The word that tells the byte order.
    BYTE_ORDER: u32 = 0x0102_0304;
    /// Bytes of the header.
    HEADER_SIZE: u64 = 256;
    /// Bytes of the header that never change; consumers copy them once.
    GEOMETRY_SIZE: u64 = 128;
    /// Bytes of an entry.
    ENTRY_SIZE: u64 = 32;
    /// Entries at most.
    MAX_CAPACITY: u32 = 1 << 24;
    /// Bytes of text at most.
    MAX_TEXT: u64 = 1 << 32;
    /// Bytes of an area at most, and of all areas of an address space together.
    MAX_AREA: u64 = 1 << 30;
    /// Smallest granule: 64 bytes.
    MIN_SHIFT: u32 = 6;
    /// Largest granule: 64 kB.
    MAX_SHIFT: u32 = 16;
    /// Entries that one lookup passes in one chain, at most.
    MAX_HOPS: u32 = 64;
    /// Bytes of rows of one entry at most.
    MAX_ROWS: u32 = 1 << 16;
    /// Bytes of a name at most; a name is a byte of length, and so many bytes of UTF-8.
    MAX_NAME: u32 = 255;

    /// Header: 8 bytes of magic.
    MAGIC_AT: u64 = 0;
    /// Header, u32: BYTE_ORDER.
    BYTE_ORDER_AT: u64 = 8;
    /// Header, u16: HEADER_SIZE.
    HEADER_SIZE_AT: u64 = 12;
    /// Header, u16: ENTRY_SIZE.
    ENTRY_SIZE_AT: u64 = 14;
    /// Header, u16: ELF's number of the machine, whose psABI the rules mean.
    MACHINE_AT: u64 = 16;
    /// Header, u16: a granule has 2 to the power of this many bytes.
    GRANULE_SHIFT_AT: u64 = 18;
    /// Header, u32: entries.
    CAPACITY_AT: u64 = 20;
    /// Header, u64: first address of the text.
    TEXT_START_AT: u64 = 24;
    /// Header, u64: bytes of the text.
    TEXT_LEN_AT: u64 = 32;
    /// Header, u64: bytes of the whole area.
    AREA_LEN_AT: u64 = 40;
    /// Header, u64: the key under which it is registered, for those who find it without having heard the call.
    KEY_AT: u64 = 48;
    /// Header, three u32: `how` and the two words of the rule for text that no entry describes.
    DEFAULT_AT: u64 = 56;
    /// Header: zeros from here to GEOMETRY_SIZE.
    RESERVED_AT: u64 = 68;
    /// Header, u32, changes: counted up twice by a reset, odd while one is under way.
    GENERATION_AT: u64 = 128;
    /// Header, u32, changes: entries that died in this generation.
    TOMBSTONES_AT: u64 = 132;
    /// Header, u32, changes: slots handed out in this generation; more than the capacity where it was used up.
    CLAIMED_AT: u64 = 192;
    /// Header, u32, changes: bytes of the heap in use.
    HEAP_USED_AT: u64 = 196;

    /// Entry, u32: first byte of the code, from the start of the text.
    START: u64 = 0;
    /// Entry, u32: bytes of code.
    SIZE: u64 = 4;
    /// Entry, u32: generation << 3 | state.
    STATE: u64 = 8;
    /// Entry, u32: kind | flags << 8 | prologue_len << 16.
    HOW: u64 = 12;
    /// Entry, u32: first word of the rule.
    RULE0: u64 = 16;
    /// Entry, u32: second word of the rule.
    RULE1: u64 = 20;
    /// Entry, u32: slot + 1 of the next older entry that starts in the same granule; 0: none.
    NEXT: u64 = 24;
    /// Entry, u32: the JIT's own number; with NAMED where in the heap the name is.
    COOKIE: u64 = 28;

    /// Index: the slot is that of an entry that covers the whole granule and starts before it.
    COVERED: u32 = 1 << 31;

    /// State: never used in this generation.
    EMPTY: u32 = 0;
    /// State: claimed, and being filled.
    WRITING: u32 = 1;
    /// State: describes code that exists.
    LIVE: u32 = 2;
    /// State: the code is about to go, or gone. For ever, in this generation.
    DEAD: u32 = 3;
    /// Bits of the state below the generation.
    STATE_BITS: u32 = 3;

    /// Kind, as a default rule only: there is none.
    NONE: u32 = 0;
    /// Kind: the function keeps a frame pointer (on AMD64: rbp). CFA = FP + 2 words, RA and FP below it.
    FRAME_POINTER: u32 = 1;
    /// Kind: CFA = SP + rule0 (i32). RA is at CFA + low half of rule1, FP at CFA + high half (i16 each; 0: unchanged).
    FIXED: u32 = 2;
    /// Kind: rule1 bytes at rule0 of the heap, an SFrame V3 function attribute and its rows.
    ROWS: u32 = 3;
    /// Kind: the frame goes on on another stack, whose pointer S is in the word at SP + low half of rule0 (i16).
    /// CFA = S + high half of rule0 (i16); rule1 as in FIXED.
    STACK_SWITCH: u32 = 4;
    /// Kind: there is no caller.
    OUTERMOST: u32 = 5;
    /// Kind: there is a caller, but no way to tell where.
    OPAQUE: u32 = 6;

    /// Flag: belongs to a language's run time, and may be folded away for people.
    RUNTIME: u32 = 1;
    /// Flag: a signal trampoline: the caller was interrupted, not calling.
    SIGNAL: u32 = 2;
    /// Flag: what FIXED calls RA, or STACK_SWITCH calls S, is in the register whose DWARF number is in place of the offset.
    IN_REGISTER: u32 = 4;
    /// Flag: the cookie is where the name lies in the heap.
    NAMED: u32 = 8;
    /// Flags that are known.
    FLAGS: u32 = 15;
}

/// Where the parts of an area lie, in bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// The granule index.
    pub index_at: u64,
    /// Words of it.
    pub granules: u64,
    /// The heap: from here to the area's end.
    pub heap_at: u64,
}

impl Parts {
    /// Of an area with these three numbers, whatever they are: nothing overflows where `text_len` is at most
    /// [`MAX_TEXT`] and `granule_shift` at least [`MIN_SHIFT`].
    pub const fn new(capacity: u32, text_len: u64, granule_shift: u32) -> Parts {
        let index_at = HEADER_SIZE + ENTRY_SIZE * capacity as u64;
        let granules = match capacity {
            0 => 0,
            _ => text_len.div_ceil(1 << granule_shift),
        };
        Parts {
            index_at,
            granules,
            heap_at: (index_at + 4 * granules).next_multiple_of(8),
        }
    }
}

/// The words of an entry as they lie in memory, but for state and next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Described {
    /// `kind | flags << 8 | prologue_len << 16`
    pub how: u32,
    /// The two words of the rule.
    pub rule: [u32; 2],
}

/// Two halves in a word, low first.
pub const fn halves(low: i16, high: i16) -> u32 {
    (low as u16 as u32) | (high as u16 as u32) << 16
}

const _: () = assert!(MAX_CAPACITY < COVERED && GEOMETRY_SIZE <= GENERATION_AT);
