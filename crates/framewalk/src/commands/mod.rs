//! The verbs of the command line.

pub mod agent;
pub mod doctor;
pub mod record;
pub mod sections;
mod summary;
