//! From bytes to meaning.
//!
//! The bytes are allegations. Geometry is checked once, in 64 bits, when a section is parsed;
//! everything behind it goes through one bounded cursor. Nothing is allocated, nothing panics,
//! and every loop is bounded by the bytes of the index or of the row area.

mod function;
mod header;
mod rows;
mod section;
mod words;

pub use function::{Function, Pc};
pub use header::Header;
pub use rows::Rows;
pub use section::{Found, Functions, MAX_EMPTY, Section};

pub(crate) use rows::RawRows;
