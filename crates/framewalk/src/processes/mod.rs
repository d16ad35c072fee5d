//! What runs and what it maps: the objects that were met, their tables, and the mappings of processes.

mod image;
mod mapped_file;
mod mappings;
mod maps;
mod objects;

pub use image::Lack;
pub use mappings::{Backing, Mapping, Mappings};
pub use objects::{Object, ObjectSource, Objects};
