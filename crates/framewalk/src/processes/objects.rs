//! Every mapped file met while recording, once.

use crate::sample::ObjectId;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// What an object's bytes are.
#[derive(Debug)]
pub enum ObjectSource {
    /// A file, kept open so that deleting or replacing it changes nothing.
    File(File),
    /// The kernel's vdso image, copied from this process.
    Vdso(Vec<u8>),
}

/// A mapped file.
#[derive(Debug)]
pub struct Object {
    /// Its path as the process saw it, for people.
    pub path: PathBuf,
    /// Its bytes.
    pub source: ObjectSource,
    /// The GNU build id, where it has one.
    pub build_id: Option<Vec<u8>>,
}

/// The objects met so far.
#[derive(Debug, Default)]
pub struct Objects {
    objects: Vec<Object>,
}

impl Objects {
    /// The object behind an id.
    pub fn get(&self, id: ObjectId) -> &Object {
        &self.objects[id.0 as usize]
    }

    /// All of them, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectId, &Object)> {
        self.objects.iter().enumerate().map(|(i, o)| (ObjectId(i as u32), o))
    }

    /// The id of an open file, new or known (the same device, inode, size and modification time).
    pub fn add_file(&mut self, _file: File, _path: &Path) -> io::Result<ObjectId> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The id of the vdso.
    pub fn add_vdso(&mut self) -> io::Result<ObjectId> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
