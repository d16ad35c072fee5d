//! Which objects have tables, and which of them the kernel knows by which key.

use super::builds::Builds;
use crate::processes::{Lack, ObjectSource, Objects, Table, Tables};
use crate::sample::ObjectId;
use framewalk_kernel::{self as kernel, Key, Sampler};
use rustix::fs::{major, minor};
use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

/// Objects, their tables, and their keys.
pub(super) struct Registry {
    builds: Builds,
    pub(super) tables: Tables,
    /// What the kernel calls each object.
    keys: HashMap<ObjectId, Vec<Key>>,
    handles: HashMap<ObjectId, kernel::Table>,
    /// Sections in the arena by the table they came from.
    sections: HashMap<*const Table, kernel::Table>,
    known: HashSet<Key>,
    /// Objects below this number were seen to.
    met: usize,
}

impl Registry {
    pub(super) fn new() -> Registry {
        Registry {
            builds: Builds::start(),
            tables: Tables::default(),
            keys: HashMap::new(),
            handles: HashMap::new(),
            sections: HashMap::new(),
            known: HashSet::new(),
            met: 0,
        }
    }

    /// Sees to the tables of all objects that were met since.
    pub(super) fn meet(&mut self, objects: &Objects) {
        for number in self.met..objects.len() {
            let id = ObjectId(number as u32);
            let source = &objects.get(id).source;
            self.keys.entry(id).or_default().extend(key(source));
            self.builds.request(id, source.clone());
        }
        self.met = objects.len();
    }

    /// The kernel calls this object so.
    pub(super) fn name(&mut self, key: Key, id: ObjectId, sampler: &mut Sampler) {
        self.keys.entry(id).or_default().push(key);
        if let Some(handle) = self.handles.get(&id).copied() {
            self.register(key, &handle, sampler);
        }
    }

    /// Whether the kernel has been told what this is.
    pub(super) fn knows(&self, key: &Key) -> bool {
        self.known.contains(key)
    }

    /// The kernel shall guess where this is mapped: it is memory, or a device.
    pub(super) fn bare(&mut self, key: Key, sampler: &mut Sampler) {
        if let Ok(bare) = Sampler::bare(0) {
            self.register(key, &bare, sampler);
        }
    }

    /// Hands over what was built; waits for the first one at most so long.
    pub(super) fn install(&mut self, wait: Duration, sampler: &mut Sampler) {
        for (id, table) in self.builds.ready(wait) {
            self.tables.insert(id, Arc::clone(&table));
            let known = self.sections.get(&Arc::as_ptr(&table)).copied();
            let handle = match (known, table.lack) {
                (Some(section), _) => section.renumbered(id.0),
                (None, Some(Lack::Foreign(..))) => Sampler::foreign(id.0),
                (None, _) if table.section.is_empty() => Sampler::bare(id.0),
                (None, _) => sampler.add_table(id.0, &table.section, table.origin),
            };
            // Without room the object stays pending, and its samples are finished outside.
            let Ok(handle) = handle else { continue };
            self.sections.insert(Arc::as_ptr(&table), handle);
            self.handles.insert(id, handle);
            for key in self.keys.get(&id).cloned().unwrap_or_default() {
                self.register(key, &handle, sampler);
            }
        }
    }

    fn register(&mut self, key: Key, handle: &kernel::Table, sampler: &mut Sampler) {
        // A full map of objects is counted by the kernel; walks end there, to be finished outside.
        if sampler.register(key, handle).is_ok() {
            self.known.insert(key);
        }
    }

    /// Nothing is being built.
    pub(super) fn idle(&self) -> bool {
        self.builds.idle()
    }
}

/// What the kernel will call a file: right wherever a file's device is that of its file system
/// (not on btrfs or overlayfs, where the kernel has to ask).
fn key(source: &ObjectSource) -> Option<Key> {
    let ObjectSource::File(file) = source else {
        return Some(Key::VDSO);
    };
    let meta = file.metadata().ok()?;
    Some(Key {
        inode: meta.ino(),
        mtime_sec: meta.mtime(),
        size: meta.size(),
        // include/linux/kdev_t.h: MKDEV
        device: major(meta.dev()) << 20 | minor(meta.dev()),
        mtime_nsec: meta.mtime_nsec() as u32,
    })
}
