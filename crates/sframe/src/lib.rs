//! SFrame, the compact stack trace format that assemblers write, between bytes and meaning.
//!
//! [`Section`] reads sections that anybody may have written, [`Builder`] writes canonical ones,
//! [`check()`] lists everything that is wrong with one, and `convert` makes one of `.eh_frame`.
//! All of them speak in [`Row`]s.
//!
//! Whatever is read is an allegation: nothing panics, every loop and allocation is bounded by the
//! bytes given.
#![forbid(unsafe_code)]

mod bytes;
mod check;
#[cfg(feature = "convert")]
pub mod convert;
mod error;
mod layout;
mod read;
pub mod row;
pub mod spec;
mod text;
mod write;

pub use check::{MAX_FINDINGS, Report, check};
pub use error::{Error, Fault, Place};
pub use layout::{Arch, Machine};
pub use read::{Found, Function, Functions, Header, Pc, Rows, Section};
pub use row::{CallerRule, Cfa, Register, Row, Rule, Unwind};
pub use text::Text;
pub use write::{Builder, FunctionRows, Unsayable, WriteError};
