//! The parts of the `framewalk` command: engines, processes, symbols, profiles, output.

pub mod engines;
pub mod processes;
pub mod sample;
