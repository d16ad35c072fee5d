//! What is wrong with a section, and where.

use crate::spec::{Abi, Version};
use std::fmt;

/// Where in a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The header, or the section as a whole.
    Section,
    /// An index entry or its attribute, by its number.
    Function(u32),
    /// A row, by the numbers of its function and its own.
    Row(u32, u32),
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The section ends before its header does.
    HeaderCut,
    /// It does not begin with the magic number.
    Magic,
    /// A version that does not exist.
    Version(Version),
    /// Flags that the version does not know.
    Flags(u8),
    /// An unknown machine.
    Abi(Abi),
    /// The machine's byte order is not the section's.
    ByteOrder(Abi),
    /// A fixed FP offset, which no machine has.
    FixedFp(i8),
    /// A fixed RA offset on a machine that tracks it, or none on a machine that has one.
    FixedRa(i8),
    /// The auxiliary header runs past the end.
    AuxiliaryCut(u8),
    /// The index runs past the end.
    IndexCut,
    /// The rows run past the end.
    RowsCut,
    /// Index and rows overlap or are out of order.
    IndexInRows,
    /// The header's number of rows is not the sum over all functions.
    RowTotal(u64),
    /// Something stands behind the rows; another whole section if `true` (unmerged objects).
    Trailing(bool),
    /// A function's start wraps around the address space.
    StartWraps,
    /// A function's end wraps around the address space.
    EndWraps,
    /// A function starts below the one before it although the section says "sorted".
    NotSorted,
    /// A function starts inside the one before it.
    Overlap,
    /// More functions of no size in a row than a lookup passes over, in a section that says "sorted".
    Empties,
    /// Its rows or its attribute start behind the row area.
    RowsOutside(u32),
    /// So many functions claim the same rows that reading all of them is not worth it.
    RowsShared,
    /// An unknown width of row starts.
    RowStartWidth(u8),
    /// Info bits that mean nothing.
    FunctionInfo(u8),
    /// An unknown kind of rows.
    RowKind(u8),
    /// A block size of 0, or larger than the function.
    Block(u8),
    /// A key bit on a machine without keys.
    Key,
    /// A row runs past the end of the row area.
    RowCut,
    /// The first row does not start with the function.
    FirstRow(u32),
    /// A row does not start behind the row before it.
    RowOrder(u32),
    /// A row starts behind its function or block.
    RowOutside(u32),
    /// Info bits that mean nothing on this machine.
    RowInfo(u8),
    /// An unknown size of words.
    WordSize(u8),
    /// A number of words that means nothing here.
    WordCount(u8),
    /// A control word that means nothing, or a CFA without register.
    Control(u32),
    /// A register number that no machine has.
    RegisterNumber(u32),
    /// An offset outside of 32 bits.
    OffsetRange,
}

/// What is wrong with a section, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Error {
    /// Where.
    pub place: Place,
    /// What.
    pub fault: Fault,
}

impl Error {
    pub(crate) const fn section(fault: Fault) -> Error {
        Error {
            place: Place::Section,
            fault,
        }
    }

    pub(crate) const fn function(index: u32, fault: Fault) -> Error {
        Error {
            place: Place::Function(index),
            fault,
        }
    }

    pub(crate) const fn row(function: u32, row: u32, fault: Fault) -> Error {
        Error {
            place: Place::Row(function, row),
            fault,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Section => f.write_str("section"),
            Place::Function(index) => write!(f, "function {index}"),
            Place::Row(function, row) => write!(f, "function {function} row {row}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::HeaderCut => f.write_str("ends before its header does"),
            Fault::Magic => f.write_str("no SFrame magic number"),
            Fault::Version(v) => write!(f, "unknown version {}", v.0),
            Fault::Flags(flags) => write!(f, "unknown flags {flags:#x}"),
            Fault::Abi(abi) => write!(f, "unknown machine {}", abi.0),
            Fault::ByteOrder(abi) => write!(f, "byte order does not fit machine {}", abi.0),
            Fault::FixedFp(v) => write!(f, "unexpected fixed FP offset {v}"),
            Fault::FixedRa(v) => write!(f, "unexpected fixed RA offset {v}"),
            Fault::AuxiliaryCut(len) => {
                write!(f, "auxiliary header of {len} bytes runs past the end")
            }
            Fault::IndexCut => f.write_str("function index runs past the end"),
            Fault::RowsCut => f.write_str("rows run past the end"),
            Fault::IndexInRows => f.write_str("function index and rows overlap"),
            Fault::RowTotal(sum) => write!(f, "number of rows is not the sum {sum}"),
            Fault::Trailing(true) => f.write_str("another section follows (unmerged input)"),
            Fault::Trailing(false) => f.write_str("bytes other than zero follow"),
            Fault::StartWraps => f.write_str("start wraps around the address space"),
            Fault::EndWraps => f.write_str("end wraps around the address space"),
            Fault::NotSorted => f.write_str("starts below its predecessor in a sorted section"),
            Fault::Overlap => f.write_str("starts inside its predecessor"),
            Fault::Empties => f.write_str("too many functions of no size before it"),
            Fault::RowsOutside(at) => write!(f, "rows at {at:#x} are outside of the row area"),
            Fault::RowsShared => f.write_str("rows are claimed by too many functions"),
            Fault::RowStartWidth(code) => write!(f, "unknown row start width {code}"),
            Fault::FunctionInfo(info) => write!(f, "unknown info bits {info:#x}"),
            Fault::RowKind(kind) => write!(f, "unknown row kind {kind}"),
            Fault::Block(block) => write!(f, "impossible block size {block}"),
            Fault::Key => f.write_str("key bit on a machine without keys"),
            Fault::RowCut => f.write_str("runs past the end of the row area"),
            Fault::FirstRow(at) => write!(f, "first row starts at {at:#x}, not at 0"),
            Fault::RowOrder(at) => write!(f, "start {at:#x} is not behind its predecessor"),
            Fault::RowOutside(at) => write!(f, "start {at:#x} is outside of its function"),
            Fault::RowInfo(info) => write!(f, "info {info:#x} means nothing on this machine"),
            Fault::WordSize(code) => write!(f, "unknown word size {code}"),
            Fault::WordCount(count) => write!(f, "{count} words mean nothing here"),
            Fault::Control(word) => write!(f, "control word {word:#x} means nothing here"),
            Fault::RegisterNumber(number) => write!(f, "impossible register {number}"),
            Fault::OffsetRange => f.write_str("offset outside of 32 bits"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SFrame {}: {}", self.place, self.fault)
    }
}

impl std::error::Error for Error {}
