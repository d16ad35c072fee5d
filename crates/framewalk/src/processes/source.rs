//! Where an object's bytes are.

use std::fs::File;
use std::sync::Arc;

/// What an object's bytes are.
#[derive(Debug, Clone)]
pub enum ObjectSource {
    /// A file, kept open so that deleting or replacing it changes nothing.
    File(Arc<File>),
    /// The kernel's vdso image, copied from this process.
    Vdso(Arc<[u8]>),
}
