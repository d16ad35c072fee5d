//! The rows of one function.
//!
//! ```text
//! start u8, u16 or u32, by the function's info | info u8 | words, each of 1, 2 or 4 bytes by the row's info
//! ```

use super::function::Function;
use crate::bytes::{Bytes, Width};
use crate::error::{Error, Fault};
use crate::row::Row;
use crate::spec::row_info;

/// A row whose extent is known and whose words are not looked at yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawRow<'a> {
    pub(crate) number: u32,
    pub(crate) start: u32,
    pub(crate) info: u8,
    pub(crate) word_size: Width,
    pub(crate) words: Bytes<'a>,
}

impl RawRow<'_> {
    pub(crate) fn word_count(&self) -> u8 {
        (self.info >> row_info::WORDS_SHIFT) & row_info::WORDS
    }

    pub(crate) fn meaning(&self, function: &Function<'_>) -> Result<Row, Error> {
        match self.unwind(function) {
            Ok(unwind) => Ok(Row {
                start: self.start,
                unwind,
            }),
            Err(fault) => Err(Error::row(function.index, self.number, fault)),
        }
    }
}

/// Rows without their meaning: ends at the first whose extent or order is bad.
#[derive(Debug, Clone)]
pub(crate) struct RawRows<'a> {
    bytes: Bytes<'a>,
    function: u32,
    row_start: Width,
    furthest: u32,
    next: u32,
    count: u32,
    /// The least that the next row may start at.
    least: u64,
}

impl<'a> RawRows<'a> {
    pub(crate) fn new(function: &Function<'a>) -> RawRows<'a> {
        RawRows {
            bytes: function.bytes,
            function: function.index,
            row_start: function.row_start,
            furthest: function.last_row_start(),
            next: 0,
            count: function.row_count,
            least: 0,
        }
    }

    #[inline]
    fn read(&mut self) -> Result<RawRow<'a>, Fault> {
        let start = self.bytes.unsigned(self.row_start).ok_or(Fault::RowCut)?;
        let info = self.bytes.u8().ok_or(Fault::RowCut)?;
        let code = (info >> row_info::SIZE_SHIFT) & row_info::SIZE;
        let word_size = Width::from_code(code).ok_or(Fault::WordSize(code))?;
        let count = usize::from((info >> row_info::WORDS_SHIFT) & row_info::WORDS);
        let words = self.bytes;
        self.bytes
            .skip(count * word_size.bytes())
            .ok_or(Fault::RowCut)?;
        if u64::from(start) < self.least {
            return Err(Fault::RowOrder(start));
        }
        if start > self.furthest {
            return Err(Fault::RowOutside(start));
        }
        self.least = u64::from(start) + 1;
        Ok(RawRow {
            number: self.next,
            start,
            info,
            word_size,
            words,
        })
    }

    /// Bytes of the row area from the next row on.
    pub(crate) fn rest(&self) -> Bytes<'a> {
        self.bytes
    }
}

impl<'a> Iterator for RawRows<'a> {
    type Item = Result<RawRow<'a>, Error>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.count {
            return None;
        }
        let row = self.read();
        let number = self.next;
        // A bad row ends it: what follows cannot be trusted to be a row.
        self.next = if row.is_ok() { number + 1 } else { self.count };
        Some(row.map_err(|fault| Error::row(self.function, number, fault)))
    }
}

/// Iterator over the rows of a function.
#[derive(Debug, Clone)]
pub struct Rows<'a> {
    function: Function<'a>,
    raw: RawRows<'a>,
    implied: Option<Row>,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(function: Function<'a>) -> Rows<'a> {
        Rows {
            function,
            raw: RawRows::new(&function),
            implied: function.implied(),
        }
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(row) = self.implied.take() {
            return Some(Ok(row));
        }
        let row = self.raw.next()?.and_then(|raw| raw.meaning(&self.function));
        if row.is_err() {
            self.raw.next = self.raw.count;
        }
        Some(row)
    }
}
