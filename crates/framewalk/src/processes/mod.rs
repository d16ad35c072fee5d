//! What runs and what it maps: the objects that were met, their tables, and the mappings of processes.

mod image;
mod mapped_file;
mod mappings;
mod maps;
mod objects;
mod table;
mod tables;
mod walker;

pub use image::Lack;
pub use mappings::{Backing, Mapping, Mappings};
pub use objects::{Object, ObjectSource, Objects};
pub use table::{ROWS_PER_FUNCTION, Table};
pub use tables::Tables;
pub use walker::{ProcessCode, StackCopy, finish, walk_process};
