//! SFrame, the compact stack trace format that assemblers write, between bytes and meaning.
//!
//! [`Section`] reads sections that anybody may have written, [`Builder`] writes canonical ones,
//! [`check()`] lists everything that is wrong with one, and `convert` makes one of `.eh_frame`.
//! All of them speak in [`Row`]s.
//!
//! Whatever is read is an allegation: nothing panics, every loop and allocation is bounded by the
//! bytes given.
//!
//! ```
//! use framewalk_sframe::{Arch, Builder, CallerRule, Cfa, FunctionRows, Register, Row, Rule, Section, Unwind};
//!
//! // A function that does nothing to its stack: the caller's frame begins above the return address.
//! let rule = CallerRule { cfa: Cfa::Value(Register(7), 8), ra: Rule::AtCfa(-8), fp: Rule::Same, ra_signed: false };
//! let row = Row { start: 0, unwind: Unwind::Caller(rule) };
//! let mut builder = Builder::new(Arch::Amd64);
//! builder.push(FunctionRows::new(0x1000, 0x20, vec![row]));
//! let bytes = builder.finish(0x4000)?;
//!
//! let section = Section::parse(&bytes, 0x4000)?;
//! assert_eq!(section.lookup(0x1010)?.map(|found| found.row), Some(row));
//! assert!(section.lookup(0x1020)?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
pub use read::{Found, Function, Functions, Header, MAX_EMPTY, Pc, Rows, Section};
pub use row::{CallerRule, Cfa, Register, Row, Rule, Unwind};
pub use text::Text;
pub use write::{Builder, FunctionRows, Unsayable, WriteError};
