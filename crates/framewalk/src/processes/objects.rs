//! Every mapped file met while recording, once.

use super::{Generated, ObjectSource, image};
use crate::sample::ObjectId;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most bytes that a vdso image may have; real ones have two to four pages.
const MAX_VDSO: u64 = 1 << 20;

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

/// What makes two open files the same file with the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    mtime: (i64, i64),
}

/// What code was met so far: objects, which stay open (a descriptor each), and generated code.
#[derive(Debug, Default)]
pub struct Objects {
    objects: Vec<Object>,
    files: HashMap<Identity, ObjectId>,
    vdso: Option<ObjectId>,
    /// Names of code that is in no file.
    pub generated: Generated,
}

impl Objects {
    /// The object behind an id.
    ///
    /// # Panics
    /// If the id is not of this collection.
    pub fn get(&self, id: ObjectId) -> &Object {
        &self.objects[id.0 as usize]
    }

    /// How many there are: ids are below it.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// All of them, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectId, &Object)> {
        self.objects
            .iter()
            .enumerate()
            .map(|(i, o)| (ObjectId(i as u32), o))
    }

    /// The id of an open file, new or known (the same device, inode, size and modification time).
    /// Only regular files are objects.
    pub fn add_file(&mut self, file: File, path: &Path) -> io::Result<ObjectId> {
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let identity = Identity {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
        };
        if let Some(&id) = self.files.get(&identity) {
            return Ok(id);
        }
        let id = self.push(path.into(), ObjectSource::File(Arc::new(file)));
        self.files.insert(identity, id);
        Ok(id)
    }

    /// The id of the vdso: the kernel maps the same image into every 64-bit process, so this
    /// process's own copy is read.
    pub fn add_vdso(&mut self) -> io::Result<ObjectId> {
        if let Some(id) = self.vdso {
            return Ok(id);
        }
        let bytes = own_vdso()?;
        let id = self.push("[vdso]".into(), ObjectSource::Vdso(bytes.into()));
        self.vdso = Some(id);
        Ok(id)
    }

    fn push(&mut self, path: PathBuf, source: ObjectSource) -> ObjectId {
        let id = ObjectId(self.objects.len() as u32);
        let build_id = image::build_id(&source);
        self.objects.push(Object {
            path,
            source,
            build_id,
        });
        id
    }
}

fn own_vdso() -> io::Result<Vec<u8>> {
    let mut range = None;
    super::maps::parse(super::maps::open(std::process::id())?, |line| {
        if line.path == b"[vdso]" && line.end - line.start <= MAX_VDSO {
            range = Some(line.start..line.end);
        }
    })?;
    let range = range.ok_or(io::ErrorKind::NotFound)?;
    let mut bytes = vec![0; (range.end - range.start) as usize];
    File::open("/proc/self/mem")?.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::hostile;

    #[test]
    fn the_vdso_changed_anywhere_is_no_danger() {
        let vdso = own_vdso().unwrap();
        hostile::object(&vdso);
        let headers = (0..64).chain((64..0x400).step_by(5));
        for at in headers.chain((0x400..vdso.len()).step_by(61)) {
            for value in [0, 0x7f, 0xff] {
                let mut changed = vdso.clone();
                changed[at] = value;
                hostile::object(&changed);
            }
            hostile::object(&vdso[..at]);
        }
    }
}
