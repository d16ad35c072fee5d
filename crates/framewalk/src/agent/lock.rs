//! The agent's lock: a record lock on a file of its own (fcntl(2)), which ends with the process, however that
//! ends, and which others can see without taking it.
//!
//! The file is root's alone: whoever could open it could lock it, and keep agents from starting.

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The most that is read of what an agent says, and of /proc/locks, bytes.
const MAX_SAID: u64 = 1 << 16;
const MAX_LOCKS: u64 = 1 << 24;

/// Who holds the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process; 0 where it is in a pid namespace that cannot be seen from here.
    pub pid: u32,
    /// What it says of itself: nothing until its maps are pinned. None where that may not be read.
    pub said: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            0 => f.write_str("the agent (in another pid namespace)"),
            pid => write!(f, "the agent (process {pid})"),
        }
    }
}

/// The lock, held.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock of the agent that pins into this folder, or says who has it. No other descriptor of
    /// the file may be closed while it is held: that would end the lock.
    pub fn take(folder: &Path) -> io::Result<Result<Lock, Holder>> {
        let path = path(folder);
        let open =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(open)?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
                let gone = Holder { pid: 0, said: None };
                return Ok(Err(holder(folder).unwrap_or(gone)));
            }
            Err(error) => return Err(open(error.into())),
        }
        let mut lock = Lock { file };
        lock.say("").map_err(open)?;
        Ok(Ok(lock))
    }

    /// What others read: something from when the maps are pinned until they no longer are.
    pub fn say(&mut self, what: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(what.as_bytes(), 0)?;
        self.file.flush()
    }
}

/// Who holds the lock of the agent that pins into this folder.
pub(super) fn holder(folder: &Path) -> Option<Holder> {
    let path = path(folder);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return seen(&path),
        Err(_) => return None,
    };
    let wanted = Flock {
        start: 0,
        length: 0,
        pid: None,
        typ: FlockType::ReadLock,
        offset_type: FlockOffsetType::Set,
    };
    let held = fcntl_getlk(&file, &wanted).ok()??;
    let pid = held.pid.map_or(0, |pid| pid.as_raw_nonzero().get());
    let mut said = Vec::new();
    let _ = file.take(MAX_SAID).read_to_end(&mut said);
    Some(Holder {
        pid: u32::try_from(pid).unwrap_or(0),
        said: Some(String::from_utf8_lossy(&said).into_owned()),
    })
}

/// The same for those who may not open the file: /proc/locks tells everybody.
fn seen(path: &Path) -> Option<Holder> {
    let meta = fs::metadata(path).ok()?;
    let (device, inode) = (meta.dev(), meta.ino());
    let file = format!(
        "{:02x}:{:02x}:{inode}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    let mut locks = String::new();
    File::open("/proc/locks")
        .ok()?
        .take(MAX_LOCKS)
        .read_to_string(&mut locks)
        .ok()?;
    // `1: POSIX  ADVISORY  WRITE 1234 00:19:5678 0 EOF` (proc(5))
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let held = words.next() == Some("POSIX");
        let pid = words.nth(2)?.parse().ok()?;
        (held && words.next() == Some(&file)).then_some(Holder { pid, said: None })
    })
}

/// Which file: `/run/framewalk-sys-fs-bpf-framewalk.lock`.
fn path(folder: &Path) -> PathBuf {
    let mut name = String::from("framewalk");
    for &byte in folder.as_os_str().as_bytes() {
        match byte {
            b'/' => name.push('-'),
            b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => name.push(byte.into()),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name.push_str(".lock");
    Path::new("/run").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_folder_has_a_file_of_its_own() {
        let name = |folder: &str| path(Path::new(folder)).to_str().unwrap().to_string();
        assert_eq!(
            name("/sys/fs/bpf/framewalk"),
            "/run/framewalk-sys-fs-bpf-framewalk.lock"
        );
        assert_eq!(name("/a-b/c d"), "/run/framewalk-a%2db-c%20d.lock");
        assert_ne!(name("/a/b"), name("/a-b"));
    }
}
