//! From meaning to bytes: canonical V3.
//!
//! Canonical means as GNU ld writes it: offsets of index and rows without holes, functions
//! sorted and relative to their own field, the narrowest row starts that the function's size
//! allows, the narrowest words that hold every word of a row, and flexible rows only in functions
//! that need them. Rows stand in the order of functions.

mod encode;
mod error;
#[cfg(test)]
mod tests;

#[cfg(feature = "convert")]
pub(crate) use encode::sayable;
pub use error::{Unsayable, WriteError};

use crate::bytes::{Sink, Width};
use crate::layout::{ATTRIBUTE_SIZE, Arch, Machine, layout};
use crate::read::Pc;
use crate::row::Row;
use crate::spec::{Flag, HEADER_SIZE, MAGIC, Version, func_info};
use encode::{Words, default_words, flexible_words};

/// Most rows that one index entry can count.
const MAX_ROWS: usize = u16::MAX as usize;

/// Bytes of an index entry (V3).
const ENTRY_SIZE: usize = 16;

/// A function to be written, and what conversion makes of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRows {
    /// First address, in the address space of [`Builder::finish`]'s argument.
    pub start: u64,
    /// Bytes.
    pub size: u32,
    /// How rows are found.
    pub pc: Pc,
    /// A signal frame.
    pub signal: bool,
    /// AArch64: return addresses are signed with key B.
    pub key_b: bool,
    /// Rows, each start above the one before. Without any, the function is left out, or is a signal frame that
    /// nobody could describe: V3 has no other function without rows that is not outermost.
    pub rows: Vec<Row>,
}

impl FunctionRows {
    /// An ordinary function.
    pub fn new(start: u64, size: u32, rows: Vec<Row>) -> FunctionRows {
        FunctionRows {
            start,
            size,
            pc: Pc::Inc,
            signal: false,
            key_b: false,
            rows,
        }
    }

    /// Its last address plus one; `None` where that wraps.
    pub fn end(&self) -> Option<u64> {
        self.start.checked_add(u64::from(self.size))
    }
}

/// Collects functions and writes a section.
#[derive(Debug)]
pub struct Builder {
    arch: Arch,
    limit: usize,
    functions: Vec<FunctionRows>,
}

impl Builder {
    /// An empty section for a machine.
    pub fn new(arch: Arch) -> Builder {
        Builder {
            arch,
            limit: MAX_ROWS,
            functions: Vec::new(),
        }
    }

    /// Writes at most this many rows per index entry: ordinary functions with more get several,
    /// one behind the other, so that a reader's scan is bounded. Lookups answer the same.
    /// PCMASK functions are left whole: their blocks have at most 255 rows.
    pub fn rows_per_function(mut self, limit: usize) -> Builder {
        self.limit = limit.clamp(1, MAX_ROWS);
        self
    }

    /// Adds a function, in any order. One of size 0 or without rows says nothing and is left out, but for signal
    /// frames without rows: they say that nobody could describe this code.
    pub fn push(&mut self, function: FunctionRows) {
        self.functions.push(function);
    }

    /// The section's bytes, for a section whose first byte is at `address`.
    ///
    /// Functions that overlap are an error.
    pub fn finish(mut self, address: u64) -> Result<Vec<u8>, WriteError> {
        self.functions
            .retain(|f| f.size != 0 && (f.signal || !f.rows.is_empty()));
        self.functions.sort_by_key(|f| f.start);
        let mut end = 0;
        for function in &self.functions {
            if function.start < end {
                return Err(WriteError::Overlap {
                    start: function.start,
                });
            }
            end = function.end().ok_or(WriteError::Wraps {
                start: function.start,
            })?;
        }

        let machine = self.arch.machine();
        let rows = self.functions.iter().map(|f| f.rows.len()).sum::<usize>();
        let mut out = Output {
            machine,
            entries: Vec::with_capacity(self.functions.len()),
            rows: Sink::new(machine.big_endian, rows.saturating_mul(5)),
            row_count: 0,
        };
        for function in &self.functions {
            out.function(function, self.limit)?;
        }
        out.finish(address)
    }
}

impl Extend<FunctionRows> for Builder {
    fn extend<T: IntoIterator<Item = FunctionRows>>(&mut self, functions: T) {
        self.functions.extend(functions);
    }
}

struct Entry {
    start: u64,
    size: u32,
    rows_at: u32,
}

struct Output {
    machine: &'static Machine,
    entries: Vec<Entry>,
    rows: Sink,
    row_count: u32,
}

impl Output {
    /// Writes a function as one or several entries.
    fn function(&mut self, function: &FunctionRows, limit: usize) -> Result<(), WriteError> {
        check_rows(function)?;
        let limit = if function.pc == Pc::Inc {
            limit
        } else {
            MAX_ROWS
        };
        if function.rows.is_empty() {
            return self.part(function, 0, function.size, &[]);
        }
        let mut parts = function.rows.chunks(limit).peekable();
        let mut from = 0;
        while let Some(rows) = parts.next() {
            let to = parts
                .peek()
                .and_then(|next| next.first())
                .map_or(function.size, |row| row.start);
            if to > from {
                self.part(function, from, to, rows)?;
            }
            from = to;
        }
        Ok(())
    }

    /// Writes the rows of one entry, for the bytes `from..to` of the function.
    fn part(
        &mut self,
        function: &FunctionRows,
        from: u32,
        to: u32,
        rows: &[Row],
    ) -> Result<(), WriteError> {
        let start = function.start + u64::from(from);
        let size = to - from;
        let rows_at = u32::try_from(self.rows.len()).map_err(|_| WriteError::TooLarge)?;
        self.entries.push(Entry {
            start,
            size,
            rows_at,
        });

        let flex = rows
            .iter()
            .any(|row| default_words(&row.unwind, self.machine).is_none());
        let (mask, block, row_start) = match function.pc {
            Pc::Inc => (0, 0, Width::of_unsigned(size)),
            Pc::Mask { block } => (func_info::MASK, block, Width::W1),
        };
        let count = u16::try_from(rows.len()).map_err(|_| WriteError::TooLarge)?;
        self.rows.u16(count);
        self.rows.u8(row_start as u8
            | mask
            | if function.key_b { func_info::KEY_B } else { 0 }
            | if function.signal {
                func_info::SIGNAL
            } else {
                0
            });
        self.rows.u8(if flex { func_info::FLEX } else { 0 });
        self.rows.u8(block);
        for row in rows {
            let unsayable = |what| WriteError::Unsayable {
                start: function.start,
                row: row.start,
                what,
            };
            let words = match default_words(&row.unwind, self.machine) {
                Some(words) if !flex => words,
                _ => flexible_words(&row.unwind, self.machine).map_err(unsayable)?,
            };
            self.row(row.start - from, row_start, &words);
        }
        self.row_count = self
            .row_count
            .checked_add(u32::from(count))
            .ok_or(WriteError::TooLarge)?;
        Ok(())
    }

    fn row(&mut self, start: u32, row_start: Width, words: &Words) {
        self.rows.low(start, row_start);
        self.rows.u8(words.info());
        for &word in words.as_slice() {
            self.rows.low(word, words.size());
        }
    }

    fn finish(self, address: u64) -> Result<Vec<u8>, WriteError> {
        let count = u32::try_from(self.entries.len()).map_err(|_| WriteError::TooLarge)?;
        let rows_at =
            u32::try_from(self.entries.len() * ENTRY_SIZE).map_err(|_| WriteError::TooLarge)?;
        let rows_len = u32::try_from(self.rows.len()).map_err(|_| WriteError::TooLarge)?;
        let flags = Flag::SORTED.0 | Flag::PCREL.0;
        debug_assert!(layout(Version::V3).is_some_and(|l| usize::from(l.entry_size) == ENTRY_SIZE));

        let mut out = Sink::new(
            self.machine.big_endian,
            HEADER_SIZE + self.entries.len() * ENTRY_SIZE + self.rows.len(),
        );
        out.u16(MAGIC);
        out.u8(Version::V3.0);
        out.u8(flags);
        out.u8(self.machine.abi.0);
        out.u8(0); // no fixed FP offset
        out.u8(self.machine.fixed_ra.cast_unsigned());
        out.u8(0); // no auxiliary header
        out.u32(count);
        out.u32(self.row_count);
        out.u32(rows_len);
        out.u32(0);
        out.u32(rows_at);
        for entry in &self.entries {
            let field = address
                .checked_add(out.len() as u64)
                .ok_or(WriteError::AddressWraps)?;
            let distance = i64::try_from(i128::from(entry.start) - i128::from(field));
            out.u64(
                distance
                    .map_err(|_| WriteError::Distance { start: entry.start })?
                    .cast_unsigned(),
            );
            out.u32(entry.size);
            out.u32(entry.rows_at);
        }
        out.append(&self.rows);
        Ok(out.into_vec())
    }
}

/// Rows in order, inside of their function or block.
fn check_rows(function: &FunctionRows) -> Result<(), WriteError> {
    let start = function.start;
    let furthest = match function.pc {
        Pc::Inc => function.size,
        Pc::Mask { block: 0 } => return Err(WriteError::Block { start }),
        Pc::Mask { block } => u32::from(block) - 1,
    };
    let mut least = 0;
    for row in &function.rows {
        if u64::from(row.start) < least {
            return Err(WriteError::RowOrder {
                start,
                row: row.start,
            });
        }
        if row.start > furthest {
            return Err(WriteError::RowOutside {
                start,
                row: row.start,
            });
        }
        least = u64::from(row.start) + 1;
    }
    Ok(())
}

// The attribute is written field by field above.
const _: () = assert!(ATTRIBUTE_SIZE == 2 + 1 + 1 + 1);
