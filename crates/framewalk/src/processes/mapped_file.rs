//! Opens the file behind a mapping, and makes sure that it is that file.

use super::maps::{Device, plain_path};
use rustix::fs::{OFlags, major, minor};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The most of mountinfo and fdinfo that is read, bytes.
const MAX_INFO: u64 = 1 << 24;

/// A mapping of a file, as /proc/PID/maps or a kernel event describes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MappedFile<'a> {
    pub(crate) pid: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) device: Device,
    pub(crate) inode: u64,
    /// As the kernel writes it.
    pub(crate) path: &'a [u8],
}

impl MappedFile<'_> {
    /// The path for people.
    pub(crate) fn path(&self) -> PathBuf {
        OsStr::from_bytes(&plain_path(self.path)).into()
    }

    /// Whether this is memory that only looks like a file: memfd_create(2), shmget(2).
    pub(crate) fn is_memory(&self) -> bool {
        [&b"/memfd:"[..], b"/SYSV", b"/dev/zero"]
            .iter()
            .any(|prefix| self.path.starts_with(prefix))
    }

    /// Opens it: through the mapping itself where that is allowed (CAP_CHECKPOINT_RESTORE), else by
    /// path as the process or as we see it, or as the process's executable. Whatever has another
    /// inode is another file and not taken.
    pub(crate) fn open(&self) -> io::Result<File> {
        let pid = self.pid;
        let mut candidates =
            vec![format!("/proc/{pid}/map_files/{:x}-{:x}", self.start, self.end).into()];
        let paths = [plain_path(self.path), self.path.to_vec()];
        for path in &paths[..if paths[0] == paths[1] { 1 } else { 2 }] {
            let mut inside = format!("/proc/{pid}/root").into_bytes();
            inside.extend_from_slice(path);
            candidates.push(PathBuf::from(OsStr::from_bytes(&inside)));
            candidates.push(PathBuf::from(OsStr::from_bytes(path)));
        }
        candidates.push(format!("/proc/{pid}/exe").into());
        let mut error = io::Error::from(io::ErrorKind::NotFound);
        for candidate in candidates.iter().filter(|path| path.is_absolute()) {
            match self.open_as(candidate) {
                Ok(file) => return Ok(file),
                // Nothing else can work either: no descriptors left.
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
                    return Err(e);
                }
                Err(e) => error = e,
            }
        }
        Err(error)
    }

    /// Looks at the file before it is opened in earnest: opening a device or a FIFO has effects.
    fn open_as(&self, path: &Path) -> io::Result<File> {
        let flags = (OFlags::PATH | OFlags::CLOEXEC).bits() as i32;
        let found = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(path)?;
        let meta = found.metadata()?;
        if !meta.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let device = Device {
            major: major(meta.dev()),
            minor: minor(meta.dev()),
        };
        if meta.ino() != self.inode
            || (device != self.device && self.mount_device(&found) != Some(self.device))
        {
            return Err(io::ErrorKind::NotFound.into());
        }
        File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
    }

    /// The device of the file's mount. It is what the kernel shows for mappings, and not the file's
    /// own where a file system has several (btrfs, overlayfs).
    fn mount_device(&self, file: &File) -> Option<Device> {
        let fdinfo = read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
        let mount = fdinfo
            .lines()
            .find_map(|line| line.strip_prefix("mnt_id:"))?
            .trim();
        // proc(5): `36 35 98:0 /mnt1 ...`: mount id, parent, device
        let mounts = File::open(format!("/proc/{}/mountinfo", self.pid)).ok()?;
        BufReader::new(mounts.take(MAX_INFO))
            .split(b'\n')
            .map_while(Result::ok)
            .find_map(|line| {
                let mut fields = line
                    .split(|&byte| byte == b' ')
                    .map(|field| std::str::from_utf8(field).ok());
                let is_it = fields.next()?? == mount;
                let (major, minor) = fields.nth(1)??.split_once(':')?;
                let device = Device {
                    major: major.parse().ok()?,
                    minor: minor.parse().ok()?,
                };
                is_it.then_some(device)
            })
    }
}

fn read_to_string(path: String) -> Option<String> {
    let mut text = String::new();
    File::open(path)
        .ok()?
        .take(MAX_INFO)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}
