//! Why a section cannot be written.

use std::fmt;

/// What about a row no words can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unsayable {
    /// A return address still in a register on a machine that has none for it, or a frame
    /// pointer without its return address where words cannot skip one.
    Rule,
    /// A CFA offset that the machine's scale does not divide.
    CfaScale,
    /// A signed return address on a machine that signs none.
    Signed,
    /// A register that the machine does not have.
    Register(u8),
}

/// Why a section cannot be written. `start` is the address of the function, `row` the row's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum WriteError {
    /// A function begins inside the one before it.
    Overlap { start: u64 },
    /// A function's end wraps around the address space.
    Wraps { start: u64 },
    /// A block size of 0.
    Block { start: u64 },
    /// A row that does not start behind its predecessor.
    RowOrder { start: u64, row: u32 },
    /// A row that starts behind its function or block.
    RowOutside { start: u64, row: u32 },
    /// A row that the format has no words for.
    Unsayable {
        start: u64,
        row: u32,
        what: Unsayable,
    },
    /// More functions, rows or bytes than 32 bits can count.
    TooLarge,
    /// The section itself wraps around the address space.
    AddressWraps,
    /// A function further than 63 bits away from the section.
    Distance { start: u64 },
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Overlap { start } => {
                write!(f, "function {start:#x} begins inside its predecessor")
            }
            WriteError::Wraps { start } => {
                write!(f, "function {start:#x} wraps around the address space")
            }
            WriteError::Block { start } => write!(f, "function {start:#x} has blocks of no bytes"),
            WriteError::RowOrder { start, row } => {
                write!(
                    f,
                    "function {start:#x}: row {row:#x} is not behind its predecessor"
                )
            }
            WriteError::RowOutside { start, row } => {
                write!(f, "function {start:#x}: row {row:#x} is outside of it")
            }
            WriteError::Unsayable { start, row, what } => {
                write!(
                    f,
                    "function {start:#x}: row {row:#x} cannot be said ({what:?})"
                )
            }
            WriteError::TooLarge => f.write_str("more than 32 bits can count"),
            WriteError::AddressWraps => f.write_str("the section wraps around the address space"),
            WriteError::Distance { start } => {
                write!(f, "function {start:#x} is too far from the section")
            }
        }
    }
}

impl std::error::Error for WriteError {}
