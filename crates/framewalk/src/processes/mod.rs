//! What runs and what it maps: the objects that were met, their tables, and the mappings of processes.

mod objects;

pub use objects::{Object, ObjectSource, Objects};
