//! Everything that is wrong with a section, not only what the reader meets first.
//!
//! Work is bounded by a multiple of the section's bytes even where many functions claim the same
//! rows, memory by the number of functions, and the list of findings by [`MAX_FINDINGS`].

#[cfg(test)]
mod tests;

use crate::error::{Error, Fault};
use crate::read::{Function, Header, MAX_EMPTY, Pc, RawRows, Section};
use crate::spec::{Flag, MAGIC};
use std::fmt;

/// Most findings that a report lists; more are only counted.
pub const MAX_FINDINGS: usize = 100;

/// Rows may be shared by functions, but not so that reading all takes more than this many times
/// the bytes of the row area.
const MAX_SHARING: u64 = 16;

/// What is wrong with a section.
#[derive(Debug, Clone, Default)]
pub struct Report {
    findings: Vec<Error>,
    total: u64,
    functions: u32,
    rows: u64,
    header: Option<Header>,
}

impl Report {
    /// The findings, in the order of the section, at most [`MAX_FINDINGS`].
    pub fn findings(&self) -> &[Error] {
        &self.findings
    }

    /// How many there are, listed or not.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether there are none.
    pub fn is_sound(&self) -> bool {
        self.total == 0
    }

    /// Functions whose entry could be read.
    pub fn functions(&self) -> u32 {
        self.functions
    }

    /// Rows that could be read.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The header, where the section has one whose geometry fits.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    fn add(&mut self, finding: Error) {
        self.total += 1;
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let unlisted = self.total - self.findings.len() as u64;
        if unlisted > 0 {
            writeln!(f, "and {unlisted} more")?;
        }
        write!(
            f,
            "{} functions, {} rows, {} findings",
            self.functions, self.rows, self.total
        )
    }
}

/// Lists what is wrong with a section whose first byte is at `address`.
pub fn check(bytes: &[u8], address: u64) -> Report {
    let mut report = Report::default();
    let section = Section::read(bytes, address, &mut |fault| {
        report.add(Error::section(fault))
    });
    let Some(section) = section else {
        return report;
    };
    report.header = Some(*section.header());
    trailing(bytes, section.header(), &mut report);

    let mut ranges = Vec::new();
    let mut counted = 0u64;
    let mut budget = (section.header().rows_len as u64).saturating_mul(MAX_SHARING);
    let mut least = 0;
    let mut empties = 0;
    for index in 0..section.len() {
        let function = section.read_function(index, &mut |fault| {
            report.add(Error::function(index, fault))
        });
        let Some(function) = function else { continue };
        report.functions += 1;
        counted += u64::from(function.row_count);
        if section.header().has(Flag::SORTED) && function.start < least {
            report.add(Error::function(index, Fault::NotSorted));
        }
        least = function.start;
        empties = if function.size == 0 { empties + 1 } else { 0 };
        if section.header().has(Flag::SORTED) && empties == MAX_EMPTY + 1 {
            report.add(Error::function(index, Fault::Empties));
        }
        match function.start.checked_add(u64::from(function.size)) {
            Some(end) if end > function.start => ranges.push((function.start, end, index)),
            Some(_) => {}
            None => report.add(Error::function(index, Fault::EndWraps)),
        }
        match function.pc {
            Pc::Mask { block } if u32::from(block) > function.size => {
                report.add(Error::function(index, Fault::Block(block)));
            }
            _ => {}
        }
        if !rows(&function, &mut budget, &mut report) {
            break;
        }
    }
    if report.functions == section.len() && counted != u64::from(section.header().rows) {
        report.add(Error::section(Fault::RowTotal(counted)));
    }
    overlaps(ranges, &mut report);
    report
}

/// What stands behind the section by its header: padding, or objects that nobody merged.
fn trailing(bytes: &[u8], header: &Header, report: &mut Report) {
    let rest = bytes.get(header.section_len()..).unwrap_or_default();
    let Some(first) = rest.iter().position(|&byte| byte != 0) else {
        return;
    };
    let rest = rest.get(first..).unwrap_or_default();
    let magic = if header.arch.machine().big_endian {
        MAGIC.to_be_bytes()
    } else {
        MAGIC.to_le_bytes()
    };
    report.add(Error::section(Fault::Trailing(rest.starts_with(&magic))));
}

/// Checks the rows of a function; `false` once too many have been read in all.
fn rows(function: &Function<'_>, budget: &mut u64, report: &mut Report) -> bool {
    let mut raw = RawRows::new(function);
    loop {
        let before = raw.rest().len();
        let row = match raw.next() {
            None => return true,
            Some(Err(error)) => {
                report.add(error);
                return true;
            }
            Some(Ok(row)) => row,
        };
        let used = (before - raw.rest().len()) as u64;
        let Some(left) = budget.checked_sub(used) else {
            report.add(Error::function(function.index, Fault::RowsShared));
            return false;
        };
        *budget = left;
        report.rows += 1;
        let mut finding = |fault| report.add(Error::row(function.index, row.number, fault));
        if row.number == 0 && row.start != 0 {
            finding(Fault::FirstRow(row.start));
        }
        // The CFA and "no rule" for the RA: readable, but nobody should write the latter.
        if function.flex && row.word_count() == 3 {
            finding(Fault::WordCount(3));
        }
        if let Err(fault) = row.unwind(function) {
            finding(fault);
        }
    }
}

fn overlaps(mut ranges: Vec<(u64, u64, u32)>, report: &mut Report) {
    ranges.sort_unstable();
    let mut furthest = 0;
    for (start, end, index) in ranges {
        if start < furthest {
            report.add(Error::function(index, Fault::Overlap));
        }
        furthest = furthest.max(end);
    }
}
