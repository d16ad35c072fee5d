//! A whole section: its functions, and the row for a pc.

use super::function::{Format, Function};
use super::header::Header;
use crate::bytes::Bytes;
use crate::error::{Error, Fault};
use crate::row::Row;
use crate::spec::Flag;
use std::ops::Range;

/// Functions of size zero in a row that a lookup in a sorted section passes over, at most.
pub const MAX_EMPTY: u32 = 64;

/// A section with checked geometry. Copying it copies no bytes.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    header: Header,
    format: Format<'a>,
    index: Bytes<'a>,
    address: u64,
}

/// What a lookup found.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The function that holds the pc.
    pub function: Function<'a>,
    /// The row that applies there.
    pub row: Row,
}

impl<'a> Section<'a> {
    /// Checks a section's header and geometry, in constant time.
    ///
    /// `address` is that of the section's first byte, in the address space in which functions
    /// shall come out: `sh_addr` for link-time addresses, plus the load bias for run-time ones.
    /// Bytes behind the section are ignored ([`crate::check()`] tells them). Sections of
    /// relocatable files are not understood: their starts are relocations.
    pub fn parse(bytes: &'a [u8], address: u64) -> Result<Section<'a>, Error> {
        let mut first = None;
        let parsed = Section::read(bytes, address, &mut |fault| {
            first.get_or_insert(fault);
        });
        match (parsed, first) {
            (Some(section), None) => Ok(section),
            (_, fault) => Err(Error::section(fault.unwrap_or(Fault::HeaderCut))),
        }
    }

    pub(crate) fn read(
        bytes: &'a [u8],
        address: u64,
        fault: &mut dyn FnMut(Fault),
    ) -> Option<Section<'a>> {
        let (header, layout) = Header::read(bytes, bytes.len() as u64, fault)?;
        let machine = header.arch.machine();
        let whole = Bytes::new(bytes, machine.big_endian);
        let index_len = usize::try_from(header.functions)
            .ok()?
            .checked_mul(header.index_entry)?;
        let index = whole.range(header.index_at, index_len)?;
        let rows = whole.range(header.rows_at, header.rows_len)?;
        let format = Format {
            layout,
            machine,
            fixed_ra: header.fixed_ra,
            rows,
        };
        Some(Section {
            header,
            format,
            index,
            address,
        })
    }

    /// What the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Address of the section's first byte, as given to [`Section::parse`].
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Number of functions.
    pub fn len(&self) -> u32 {
        self.header.functions
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.header.functions == 0
    }

    /// Every function, in the order of the index. A bad one is told and passed over.
    pub fn functions(&self) -> Functions<'a> {
        Functions {
            section: *self,
            next: 0,
        }
    }

    /// The function with this number.
    pub fn function(&self, index: u32) -> Result<Function<'a>, Error> {
        let mut first = None;
        let function = self.read_function(index, &mut |fault| {
            first.get_or_insert(fault);
        });
        match (function, first) {
            (Some(function), None) => Ok(function),
            (_, fault) => Err(Error::function(index, fault.unwrap_or(Fault::IndexCut))),
        }
    }

    pub(crate) fn read_function(
        &self,
        index: u32,
        fault: &mut dyn FnMut(Fault),
    ) -> Option<Function<'a>> {
        let at = (index as usize).checked_mul(self.header.index_entry)?;
        let entry = self.index.range(at, self.header.index_entry)?;
        let Some(start) = self.start(index) else {
            fault(Fault::StartWraps);
            return None;
        };
        self.format.function(index, start, entry, fault)
    }

    /// First address of a function; `None` past the index and where it wraps.
    #[inline]
    fn start(&self, index: u32) -> Option<u64> {
        let at = (index as usize).checked_mul(self.header.index_entry)?;
        let entry = self.index.from(at)?;
        self.header
            .start(self.address, index, self.format.layout, entry)
    }

    #[inline]
    fn size(&self, index: u32) -> Option<u32> {
        let at = (index as usize).checked_mul(self.header.index_entry)?;
        self.index
            .from(at.checked_add(usize::from(self.format.layout.start_size))?)?
            .u32()
    }

    #[inline]
    fn contains(&self, index: u32, pc: u64) -> bool {
        match (self.start(index), self.size(index)) {
            (Some(start), Some(size)) => start <= pc && pc - start < u64::from(size),
            _ => false,
        }
    }

    /// The addresses from the first function's start to the last one's end, for a sorted section.
    pub fn span(&self) -> Option<Range<u64>> {
        let last = self.header.functions.checked_sub(1)?;
        let end = self.start(last)?.checked_add(u64::from(self.size(last)?))?;
        self.header.has(Flag::SORTED).then_some(self.start(0)?..end)
    }

    /// The number of the function that holds `pc`.
    ///
    /// A binary search where the section says that it is sorted, else one pass over the index.
    pub fn find(&self, pc: u64) -> Result<Option<u32>, Error> {
        if !self.header.has(Flag::SORTED) {
            return Ok((0..self.len()).find(|&index| self.contains(index, pc)));
        }
        // Where the index is not sorted after all, every reader of it shall find the same: these are the steps of the
        // one inside the kernel, too (crates/kernel/bpf/lookup.h).
        let wraps = |index| Error::function(index, Fault::StartWraps);
        let (mut first, mut count) = (0, self.len());
        while count > 1 {
            let half = count / 2;
            let middle = first + half;
            count -= half;
            if self.start(middle).ok_or(wraps(middle))? <= pc {
                first = middle;
            } else {
                count = half;
            }
        }
        // Functions of size zero exist, also at the start of another one.
        let least = first.saturating_sub(MAX_EMPTY);
        let mut last = first;
        while last > least && self.size(last) == Some(0) {
            last -= 1;
        }
        if count == 0 {
            return Ok(None);
        }
        self.start(last).ok_or(wraps(last))?;
        Ok(Some(last).filter(|&index| self.contains(index, pc)))
    }

    /// What applies at `pc`: `None` where no function or no row says anything.
    ///
    /// For the pc of a caller, ask for `pc - 1`: a return address may stand behind its function.
    pub fn lookup(&self, pc: u64) -> Result<Option<Found<'a>>, Error> {
        let Some(index) = self.find(pc)? else {
            return Ok(None);
        };
        let function = self.function(index)?;
        Ok(function.row_at(pc)?.map(|row| Found { function, row }))
    }
}

/// Iterator over the functions of a section.
#[derive(Debug, Clone)]
pub struct Functions<'a> {
    section: Section<'a>,
    next: u32,
}

impl<'a> Iterator for Functions<'a> {
    type Item = Result<Function<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next;
        if index >= self.section.len() {
            return None;
        }
        self.next += 1;
        Some(self.section.function(index))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.section.len() - self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Functions<'_> {}
