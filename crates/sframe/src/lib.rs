//! SFrame, the compact stack trace format that assemblers write, between bytes and meaning.
#![forbid(unsafe_code)]

pub mod row;

pub use row::{CallerRule, Cfa, Register, Row, Rule, Unwind};
