//! Hashes of sections, by the number of their registration: made outside of the kernel by whoever keeps the registry
//! (no program reads them), and pinned, so that others can see what has changed since.

use crate::error::Error;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};
use std::path::Path;

/// Sections that have a hash, at most. With what the kernel keeps beside each, some 16 MB.
const MAX_HASHES: u32 = 1 << 18;

/// The hashes. They live as long as somebody has them open.
#[derive(Debug)]
pub struct Hashes {
    map: MapHandle,
}

impl Hashes {
    /// Hashes at most.
    pub const MAX: usize = MAX_HASHES as usize;

    /// None yet.
    pub fn create() -> Result<Hashes, Error> {
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            map_flags: libbpf_sys::BPF_F_NO_PREALLOC,
            ..libbpf_sys::bpf_map_create_opts::default()
        };
        let word = size_of::<u64>() as u32;
        let name = Some("hashes");
        MapHandle::create(MapType::Hash, name, word, word, MAX_HASHES, &options)
            .map(|map| Hashes { map })
            .map_err(Error::Map)
    }

    /// Makes them known to others in a folder of a BPF file system, in place of what is there. The name says by
    /// which function they were made.
    pub fn pin(&mut self, folder: &Path, name: &str) -> Result<(), Error> {
        let path = folder.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::Pin(path, error))
            }
            _ => self.map.pin(&path).map_err(Error::Map),
        }
    }

    /// The hashes that somebody pinned.
    pub fn open(folder: &Path, name: &str) -> Result<Hashes, Error> {
        let map = MapHandle::from_pinned_path(folder.join(name)).map_err(Error::Map)?;
        match (map.key_size(), map.value_size()) {
            (8, 8) => Ok(Hashes { map }),
            _ => Err(Error::Layout(folder.to_owned())),
        }
    }

    /// That of a section; none where it was not made.
    pub fn get(&self, number: u64) -> Option<u64> {
        let hash = self.map.lookup(&number.to_ne_bytes(), MapFlags::ANY);
        Some(u64::from_ne_bytes(hash.ok()??.try_into().ok()?))
    }

    /// Notes it; false where there is no room.
    pub fn set(&self, number: u64, hash: u64) -> bool {
        let (key, value) = (number.to_ne_bytes(), hash.to_ne_bytes());
        self.map.update(&key, &value, MapFlags::ANY).is_ok()
    }

    /// The section is gone.
    pub fn forget(&self, number: u64) {
        // It may never have been noted.
        let _ = self.map.delete(&number.to_ne_bytes());
    }
}
