//! What a process says about its own code: the announce ABI (docs/abi.md), the process's side.
//!
//! No allocation, no locks, no dependencies: usable before main, in constructors, in signal handlers and
//! inside a dynamic loader.
#![no_std]

pub mod abi;

pub use abi::Refusal;
