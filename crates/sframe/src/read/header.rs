//! The header: 28 bytes that say where everything else stands.
//!
//! ```text
//! 0 magic u16 | 2 version u8 | 3 flags u8 | 4 abi u8 | 5 fixed fp i8 | 6 fixed ra i8 | 7 aux len u8
//! 8 functions u32 | 12 rows u32 | 16 row area bytes u32 | 20 index offset u32 | 24 row area offset u32
//! 28 auxiliary header | index offset: index entries ... | row area offset: rows ...
//! ```
//! Both offsets count from the end of the auxiliary header.

use crate::bytes::Bytes;
use crate::error::{Error, Fault};
use crate::layout::{Arch, Layout, layout};
use crate::spec::{Abi, Flag, HEADER_SIZE, MAGIC, Version};
use std::ops::Range;

/// What the header says, checked against the bytes that are there.
///
/// Offsets are bytes from the section's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Version of the format.
    pub version: Version,
    /// Flags, see [`Flag`].
    pub flags: u8,
    /// The machine.
    pub arch: Arch,
    /// Where return addresses always stand, from the CFA; 0 = tracked per row.
    pub fixed_ra: i8,
    /// Number of functions.
    pub functions: u32,
    /// Number of rows, as the header alleges; see [`crate::check()`].
    pub rows: u32,
    /// First byte of the index.
    pub index_at: usize,
    /// Bytes of one index entry.
    pub index_entry: usize,
    /// First byte of the row area.
    pub rows_at: usize,
    /// Bytes of the row area.
    pub rows_len: usize,
}

impl Header {
    /// Whether a flag is set.
    pub fn has(&self, flag: Flag) -> bool {
        self.flags & flag.0 != 0
    }

    /// Bytes of the section by its header; whatever follows is padding.
    pub fn section_len(&self) -> usize {
        self.rows_at + self.rows_len
    }

    /// Checks the header of a section of `len` bytes of which nothing else is at hand.
    pub fn parse(fixed: &[u8; HEADER_SIZE], len: u64) -> Result<Header, Error> {
        let mut first = None;
        let read = Header::read(fixed, len, &mut |fault| {
            first.get_or_insert(fault);
        });
        match (read, first) {
            (Some((header, _)), None) => Ok(header),
            (_, fault) => Err(Error::section(fault.unwrap_or(Fault::HeaderCut))),
        }
    }

    /// The addresses of a function by its index entry alone, in a section whose first byte is at
    /// `section`. `None` where `entry` is cut, and where the function wraps around the address space.
    pub fn function_range(&self, section: u64, index: u32, entry: &[u8]) -> Option<Range<u64>> {
        let layout = layout(self.version)?;
        let mut entry = Bytes::new(entry, self.arch.machine().big_endian);
        let start = self.start(section, index, layout, entry)?;
        entry.skip(usize::from(layout.start_size))?;
        Some(start..start.checked_add(u64::from(entry.u32()?))?)
    }

    /// The first address of a function by its index entry; `None` where it wraps.
    #[inline]
    pub(crate) fn start(
        &self,
        section: u64,
        index: u32,
        layout: &Layout,
        mut entry: Bytes<'_>,
    ) -> Option<u64> {
        let field = match layout.start_size {
            8 => entry.u64()?.cast_signed(),
            _ => i64::from(entry.u32()?.cast_signed()),
        };
        // Relative to the field itself, or to the section.
        let base = if self.has(Flag::PCREL) {
            section
                .checked_add(self.index_at as u64)?
                .checked_add(u64::from(index).checked_mul(self.index_entry as u64)?)?
        } else {
            section
        };
        base.checked_add_signed(field)
    }

    /// Reads the header of a section of `len` bytes, tells every fault, and answers `None` where
    /// nothing can be made of it.
    pub(crate) fn read(
        bytes: &[u8],
        len: u64,
        fault: &mut dyn FnMut(Fault),
    ) -> Option<(Header, &'static Layout)> {
        let Some(fixed) = bytes.get(..HEADER_SIZE) else {
            fault(Fault::HeaderCut);
            return None;
        };
        let big = fixed.starts_with(&MAGIC.to_be_bytes());
        let mut c = Bytes::new(fixed, big);
        if c.u16()? != MAGIC {
            fault(Fault::Magic);
            return None;
        }
        let version = Version(c.u8()?);
        let Some(layout) = layout(version) else {
            fault(Fault::Version(version));
            return None;
        };
        let flags = c.u8()?;
        if flags & !layout.flags != 0 {
            fault(Fault::Flags(flags & !layout.flags));
        }
        let abi = Abi(c.u8()?);
        let Some(arch) = Arch::from_abi(abi) else {
            fault(Fault::Abi(abi));
            return None;
        };
        if arch.machine().big_endian != big {
            fault(Fault::ByteOrder(abi));
            return None;
        }
        let fixed_fp = c.u8()?.cast_signed();
        if fixed_fp != 0 {
            fault(Fault::FixedFp(fixed_fp));
        }
        let fixed_ra = c.u8()?.cast_signed();
        if (fixed_ra == 0) != (arch.machine().fixed_ra == 0) {
            fault(Fault::FixedRa(fixed_ra));
        }
        let auxiliary = c.u8()?;
        let functions = c.u32()?;
        let rows = c.u32()?;
        let rows_len = c.u32()?;
        let index_offset = c.u32()?;
        let rows_offset = c.u32()?;

        // In 64 bits no sum of these can overflow.
        let end = len;
        let base = HEADER_SIZE as u64 + u64::from(auxiliary);
        let index_at = base + u64::from(index_offset);
        let index_end = index_at + u64::from(functions) * u64::from(layout.entry_size);
        let rows_at = base + u64::from(rows_offset);
        let rows_end = rows_at + u64::from(rows_len);
        let mut whole = true;
        for (broken, what) in [
            (base > end, Fault::AuxiliaryCut(auxiliary)),
            (index_end > end, Fault::IndexCut),
            (rows_end > end, Fault::RowsCut),
        ] {
            if broken {
                fault(what);
                whole = false;
            }
        }
        // An empty section of GNU as 2.40 has no row offset at all.
        if index_end > rows_at && functions != 0 {
            fault(Fault::IndexInRows);
        }
        whole.then_some((
            Header {
                version,
                flags,
                arch,
                fixed_ra,
                functions,
                rows,
                index_at: usize::try_from(index_at).ok()?,
                index_entry: usize::from(layout.entry_size),
                rows_at: usize::try_from(rows_at).ok()?,
                rows_len: usize::try_from(rows_len).ok()?,
            },
            layout,
        ))
    }
}
