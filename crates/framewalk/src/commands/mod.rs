//! The verbs of the command line.

pub mod record;
mod summary;
