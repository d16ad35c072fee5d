//! What runs and what it maps: the objects that were met, their tables, and the mappings of processes.

mod announced;
mod current;
mod generated;
#[cfg(test)]
mod hostile;
mod image;
mod mapped_file;
mod mappings;
pub(crate) mod maps;
mod objects;
mod source;
mod table;
mod tables;
pub(crate) mod task;
mod vma_query;
mod walker;

pub use announced::{AnnouncedCode, Failures, MemoryRead, SectionCopies};
pub use current::CurrentMappings;
pub use generated::Generated;
pub use image::Lack;
pub(crate) use mappings::NewMapping;
pub use mappings::{Backing, Mapping, Mappings};
pub(crate) use maps::Device;
pub use objects::{Object, Objects};
pub use source::ObjectSource;
pub use table::{ROWS_PER_FUNCTION, Table};
pub use tables::{TableBuilder, Tables};
pub use walker::{ProcessCode, StackCopy, finish, walk_process};
