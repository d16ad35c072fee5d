//! One function: its index entry and attribute, and the row for a pc in it.
//!
//! ```text
//! V1  start i32 | size u32 | rows at u32 | row count u32 | info u8                          17 bytes
//! V2  start i32 | size u32 | rows at u32 | row count u32 | info u8 | block u8 | 0 u16       20 bytes
//! V3  start i64 | size u32 | attribute at u32                                               16 bytes
//!     attribute, in the row area in front of the rows:
//!     row count u16 | info u8 | second info u8 | block u8                                    5 bytes
//! ```

use super::rows::{RawRow, RawRows, Rows};
use crate::bytes::{Bytes, Width};
use crate::error::{Error, Fault};
use crate::layout::{Arch, Attribute, Layout, Machine, layout};
use crate::row::{Row, Unwind};
use crate::spec::{Version, func_info};

/// How a pc is compared with the starts of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pc {
    /// By its distance from the function's start.
    Inc,
    /// By that distance modulo the size of a block that repeats (PLT).
    Mask {
        /// Bytes of the block, never 0.
        block: u8,
    },
}

/// What all functions of a section share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format<'a> {
    pub(crate) layout: &'static Layout,
    pub(crate) machine: &'static Machine,
    pub(crate) fixed_ra: i8,
    pub(crate) rows: Bytes<'a>,
}

/// One function. Addresses are in the address space given to [`super::Section::parse`].
#[derive(Debug, Clone, Copy)]
pub struct Function<'a> {
    /// Its number in the index.
    pub index: u32,
    /// First address.
    pub start: u64,
    /// Bytes; some have none.
    pub size: u32,
    /// How rows are found.
    pub pc: Pc,
    /// A signal frame: the pc of its caller is where that was interrupted, not a return address.
    pub signal: bool,
    /// AArch64: return addresses are signed with key B, not A.
    pub key_b: bool,
    /// Rows are flexible (V3).
    pub flex: bool,
    /// Rows written down; [`Function::rows`] may yield one where none is.
    pub row_count: u32,
    /// The attribute's or, before V3, the rows' first byte in the row area.
    pub rows_at: u32,
    pub(crate) row_start: Width,
    pub(crate) bytes: Bytes<'a>,
    pub(crate) format: Format<'a>,
}

impl<'a> Format<'a> {
    /// Reads an index entry, tells every fault, and answers `None` where its rows cannot be found.
    pub(crate) fn function(
        &self,
        index: u32,
        start: u64,
        mut entry: Bytes<'_>,
        fault: &mut dyn FnMut(Fault),
    ) -> Option<Function<'a>> {
        entry.skip(usize::from(self.layout.start_size))?;
        let size = entry.u32()?;
        let rows_at = entry.u32()?;
        let rows = usize::try_from(rows_at)
            .ok()
            .and_then(|at| self.rows.from(at));
        let Some(mut bytes) = rows else {
            fault(Fault::RowsOutside(rows_at));
            return None;
        };
        let (row_count, info, second, block) = match self.layout.attribute {
            Attribute::Entry => {
                let (count, info) = (entry.u32()?, entry.u8()?);
                let block = if self.layout.has_block {
                    entry.u8()?
                } else {
                    self.machine.default_block
                };
                (count, info, 0, block)
            }
            Attribute::Rows => {
                let mut attribute = || {
                    Some((
                        u32::from(bytes.u16()?),
                        bytes.u8()?,
                        bytes.u8()?,
                        bytes.u8()?,
                    ))
                };
                let Some(attribute) = attribute() else {
                    fault(Fault::RowsOutside(rows_at));
                    return None;
                };
                attribute
            }
        };
        let reserved = (info & !self.layout.info_bits) | (second & !func_info::ROW_KIND);
        if reserved != 0 {
            fault(Fault::FunctionInfo(reserved));
        }
        let kind = second & func_info::ROW_KIND;
        if kind > func_info::FLEX {
            fault(Fault::RowKind(kind));
            return None;
        }
        let Some(row_start) = Width::from_code(info & func_info::ROW_START) else {
            fault(Fault::RowStartWidth(info & func_info::ROW_START));
            return None;
        };
        let key_b = info & func_info::KEY_B != 0;
        if key_b && !self.machine.signs_ra {
            fault(Fault::Key);
        }
        let pc = match (info & func_info::MASK != 0, block) {
            (false, _) => Pc::Inc,
            (true, 0) => {
                fault(Fault::Block(0));
                return None;
            }
            (true, block) => Pc::Mask { block },
        };
        Some(Function {
            index,
            start,
            size,
            pc,
            signal: info & self.layout.info_bits & func_info::SIGNAL != 0,
            key_b,
            flex: kind == func_info::FLEX,
            row_count,
            rows_at,
            row_start,
            bytes,
            format: *self,
        })
    }
}

impl<'a> Function<'a> {
    /// A function that stands alone, outside of any section: the attribute and the rows that V3 has for it. It starts at
    /// 0 and has `size` bytes of code.
    pub fn alone(arch: Arch, size: u32, bytes: &'a [u8]) -> Result<Function<'a>, Error> {
        let nothing = Error::function(0, Fault::IndexCut);
        let machine = arch.machine();
        let format = Format {
            layout: layout(Version::V3).ok_or(nothing)?,
            machine,
            fixed_ra: machine.fixed_ra,
            rows: Bytes::new(bytes, machine.big_endian),
        };
        let mut entry = [0; 16];
        let sized = match machine.big_endian {
            true => size.to_be_bytes(),
            false => size.to_le_bytes(),
        };
        entry[8..12].copy_from_slice(&sized);
        let entry = Bytes::new(&entry, machine.big_endian);
        let mut first = None;
        let function = format.function(0, 0, entry, &mut |fault| {
            first.get_or_insert(fault);
        });
        match (function, first) {
            (Some(function), None) => Ok(function),
            (_, fault) => Err(fault.map_or(nothing, |fault| Error::function(0, fault))),
        }
    }

    /// The same function, of whose rows only the first bytes are there: what a walker is ready to look through.
    pub fn within(self, bytes: usize) -> Function<'a> {
        Function {
            bytes: self.bytes.first(bytes),
            ..self
        }
    }

    /// Its last address plus one; saturates where that wraps.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(u64::from(self.size))
    }

    /// Whether an address lies in it.
    pub fn contains(&self, pc: u64) -> bool {
        pc.checked_sub(self.start)
            .is_some_and(|offset| offset < u64::from(self.size))
    }

    /// Rows in order. The first bad one is told and ends it.
    ///
    /// A function whose lack of rows means "outermost" yields one row that says so.
    pub fn rows(&self) -> Rows<'a> {
        Rows::new(*self)
    }

    /// The row that stands for no rows, where that has a meaning.
    pub(crate) fn implied(&self) -> Option<Row> {
        let outermost =
            self.row_count == 0 && self.format.layout.empty_function && !self.signal && !self.flex;
        outermost.then_some(Row {
            start: 0,
            unwind: Unwind::Outermost,
        })
    }

    /// The furthest that a row may start.
    pub(crate) fn last_row_start(&self) -> u32 {
        match self.pc {
            // GNU as writes rows at the very end.
            Pc::Inc => self.size,
            Pc::Mask { block } => u32::from(block) - 1,
        }
    }

    /// The row that applies at an address; `None` outside of the function and before its first row.
    pub fn row_at(&self, pc: u64) -> Result<Option<Row>, Error> {
        if !self.contains(pc) {
            return Ok(None);
        }
        let Ok(distance) = u32::try_from(pc - self.start) else {
            return Ok(None);
        };
        let offset = match self.pc {
            Pc::Inc => distance,
            Pc::Mask { block } => distance.checked_rem(u32::from(block)).unwrap_or(0),
        };
        let mut last: Option<RawRow<'a>> = None;
        for row in RawRows::new(self) {
            let row = row?;
            if row.start > offset {
                break;
            }
            last = Some(row);
        }
        match last {
            Some(row) => row.meaning(self).map(Some),
            None => Ok(self.implied()),
        }
    }
}
