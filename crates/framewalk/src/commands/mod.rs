//! The verbs of the command line.

pub mod agent;
pub mod record;
pub mod sections;
mod summary;
