//! The parts of the `framewalk` command: engines, processes, symbols, profiles, output.

pub mod agent;
pub mod args;
pub mod commands;
pub mod engines;
pub mod launch;
pub mod output;
pub mod processes;
pub mod profile;
pub mod sample;
pub mod symbols;
