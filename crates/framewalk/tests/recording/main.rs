//! Real recordings of real programs, from the command line to the folded stacks.
//!
//! Each test runs `framewalk record` as people do. A test whose engine is not allowed here prints
//! `SKIPPED test: why`.

mod absent;
mod bad_input;
mod engines;
mod follow;
mod jit_guess;
mod jit_node;
mod python;
mod recorded;
mod stacks;
mod targets;
mod torture;
