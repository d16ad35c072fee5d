//! The agent: one process that keeps the kernel side of the announce ABI (docs/abi.md) loaded for the whole machine,
//! and its maps pinned, so that others find them.
//!
//! Alive is whoever holds the lock; what lies in the folder says nothing, for an agent that was killed leaves it
//! behind.

mod integrity;
mod late;
mod lock;
mod memory;

pub use integrity::{Caught, Changes, Keeper, Tally};
pub use late::{Latecomer, sees_all_pids};
pub use lock::{Holder, Lock};

use crate::symbols;
use framewalk_kernel::{Registry, RegistryMaps};
use rustix::fs::statfs;
use rustix::process::geteuid;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Where the agent of this machine pins its maps.
pub const FOLDER: &str = "/sys/fs/bpf/framewalk";
/// include/uapi/linux/magic.h
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
/// Bits of a mode: who else may write.
const OTHERS_WRITE: u32 = 0o022;

/// Where an agent pins its maps; and by that, which agent it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    folder: PathBuf,
}

/// An agent, as others find it.
#[derive(Debug)]
pub enum Found {
    /// There is none; or one that is about to start or to end.
    Nobody,
    /// One is alive, and these are its maps.
    Maps(Holder, Box<RegistryMaps>),
    /// One is alive, and its maps cannot be used: why.
    Unusable(Holder, String),
}

/// The maps of this machine's agent, if one is alive. If they cannot be used, one line says why; not to those who lack
/// the rights for it.
pub fn maps() -> Option<RegistryMaps> {
    match Place::default().find() {
        Found::Nobody | Found::Unusable(Holder { said: None, .. }, _) => None,
        Found::Maps(_, maps) => Some(*maps),
        Found::Unusable(holder, why) => {
            eprintln!("framewalk: {holder} is not used: {why}");
            None
        }
    }
}

impl Default for Place {
    fn default() -> Place {
        Place {
            folder: FOLDER.into(),
        }
    }
}

impl Place {
    /// A folder, which need not be there yet; the folder that it lies in must.
    pub fn new(folder: &Path) -> io::Result<Place> {
        let folder = std::path::absolute(folder)?;
        let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // However it is called, it is one place: locks go by name.
        let folder = parent.canonicalize()?.join(name);
        Ok(Place { folder })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The agent, if one is alive.
    pub fn find(&self) -> Found {
        let Some(holder) = lock::holder(&self.folder) else {
            return Found::Nobody;
        };
        if holder.said.as_ref().is_some_and(String::is_empty) {
            return Found::Nobody;
        }
        // Who may not read the one may not open the other.
        if holder.said.is_none() {
            return Found::Unusable(holder, "only root can use its maps".into());
        }
        let maps = self.check().and_then(|()| {
            RegistryMaps::open(&self.folder).map_err(|error| io::Error::other(error.to_string()))
        });
        match maps {
            Ok(maps) => Found::Maps(holder, Box::new(maps)),
            Err(error) => Found::Unusable(holder, error.to_string()),
        }
    }

    /// Makes the folder, for this user alone.
    pub fn make(&self) -> io::Result<()> {
        let parent = self.folder.parent().unwrap_or(&self.folder);
        let kind = statfs(parent)?.f_type as u32;
        if kind != BPF_FS_MAGIC {
            return Err(io::Error::other(
                "not in a BPF file system (mount -t bpf bpf /sys/fs/bpf)",
            ));
        }
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => self.check(),
        }
    }

    /// Anybody may make folders in a BPF file system: what others can change is not believed.
    fn check(&self) -> io::Result<()> {
        let meta = fs::symlink_metadata(&self.folder)?;
        let ours = meta.uid() == 0 || meta.uid() == geteuid().as_raw();
        match meta.is_dir() && ours && meta.mode() & OTHERS_WRITE == 0 {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "{} is not a folder that only root can change; remove it",
                self.folder.display()
            ))),
        }
    }
}

/// Which hook is in use, and what the better ones lack.
pub fn describe(registry: &Registry) -> String {
    let hook = registry.hook();
    let how = match hook.answers() {
        true => "answers",
        false => "only listens: programs see EINVAL, and are heard all the same",
    };
    let mut said = format!("hook {} ({how})", hook.name());
    for (better, why) in registry.refusals() {
        let why = why.lines().next().unwrap_or_default();
        let why = why.split(" (os error").next().unwrap_or_default();
        said.push_str(&format!("; not {}: {why}", better.name()));
    }
    symbols::clean(&said)
}
