//! The lines of /proc/PID/maps (proc(5), fs/proc/task_mmu.c show_map_vma).

use framewalk_announce::abi::USER_END;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

/// The longest line: 73 bytes of numbers and a path of a page whose bytes may all be escaped.
const MAX_LINE: u64 = 128 + 4 * 4096;
/// Lines per process, at most: the kernel's own default limit (vm.max_map_count) is 65530.
const MAX_LINES: usize = 1 << 20;

/// A device number as /proc shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Device {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// One mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// First address.
    pub(crate) start: u64,
    /// Last address plus one; above `start`.
    pub(crate) end: u64,
    pub(crate) executable: bool,
    /// File offset of `start`, bytes.
    pub(crate) offset: u64,
    pub(crate) device: Device,
    /// 0 where there is no file.
    pub(crate) inode: u64,
    /// The path with the kernel's escapes and remarks still in it, `[vdso]`, or nothing.
    pub(crate) path: &'a [u8],
}

/// The text of a process's maps.
pub(crate) fn open(pid: u32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/maps"))
}

/// Reads the mappings of a process, in the order of their addresses. Lines that cannot be understood
/// are an error: the kernel wrote them, so nothing can be said about the process.
pub(crate) fn parse(text: impl Read, mut each: impl FnMut(Line<'_>)) -> io::Result<()> {
    let mut text = BufReader::with_capacity(1 << 16, text);
    let mut bytes = Vec::new();
    for _ in 0..MAX_LINES {
        bytes.clear();
        if text.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(());
        }
        let line = bytes
            .strip_suffix(b"\n")
            .and_then(line)
            .ok_or(io::ErrorKind::InvalidData)?;
        each(line);
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// `start-end perms offset major:minor inode      path`
fn line(bytes: &[u8]) -> Option<Line<'_>> {
    let mut fields = bytes.splitn(6, |&byte| byte == b' ');
    let mut next = || std::str::from_utf8(fields.next()?).ok();
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = next()?.split_once('-')?;
    let permissions = next()?.as_bytes();
    let offset = hex(next()?)?;
    let (major, minor) = next()?.split_once(':')?;
    let device = Device {
        major: u32::from_str_radix(major, 16).ok()?,
        minor: u32::from_str_radix(minor, 16).ok()?,
    };
    let inode = next()?.parse().ok()?;
    let path = fields.next().unwrap_or_default().trim_ascii_start();
    let (start, end) = (hex(start)?, hex(end)?);
    (start < end).then_some(Line {
        start,
        end,
        // The vsyscall page is the kernel's, and at a kernel's address: nobody's stack leads there.
        executable: permissions.get(2) == Some(&b'x') && start < USER_END,
        offset,
        device,
        inode,
        path,
    })
}

/// The path without the kernel's remark and escape. The kernel escapes only the newline (as `\012`)
/// and not the backslash, so a file may really be called `a\012b`: whoever opens the result has to
/// check that it is the mapped file.
pub(crate) fn plain_path(path: &[u8]) -> Vec<u8> {
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"\\012") {
            plain.push(b'\n');
            rest = tail;
        } else {
            plain.push(first);
            rest = tail;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    type Told = (u64, u64, bool, u64, u64, String);

    fn all(text: &str) -> io::Result<Vec<Told>> {
        let mut lines = Vec::new();
        parse(text.as_bytes(), |l| {
            let path = String::from_utf8_lossy(&plain_path(l.path)).into_owned();
            lines.push((l.start, l.end, l.executable, l.offset, l.inode, path));
        })?;
        Ok(lines)
    }

    #[test]
    fn lines_as_the_kernel_writes_them() {
        let text = "\
55eb647ef000-55eb647f3000 r-xp 00001000 fe:00 325843                     /usr/bin/two words (deleted)
7f0000000000-7f0000001000 rw-p 00000000 00:00 0 
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
7f0000002000-7f0000003000 r-xs 00000000 00:01 2066                       /memfd:a\\012b\\\\012 (deleted)
";
        let lines = all(text).unwrap();
        assert_eq!(
            lines[0],
            (
                0x55eb647ef000,
                0x55eb647f3000,
                true,
                0x1000,
                325843,
                "/usr/bin/two words".into()
            )
        );
        assert_eq!(
            lines[1],
            (0x7f0000000000, 0x7f0000001000, false, 0, 0, String::new())
        );
        assert_eq!(lines[2].5, "[vsyscall]");
        assert!(!lines[2].2);
        assert_eq!(lines[3].5, "/memfd:a\nb\\\n");
    }

    #[test]
    fn what_the_kernel_would_never_write_is_refused() {
        for text in [
            "x\n",
            "1-2\n",
            "2-1 r-xp 0 0:0 0\n",
            "1-2 r-xp 0 00:00\n",
            "1-2 r-xp 0 0000 0\n",
            "1-2 r-xp 0 0:0 0",
        ] {
            assert!(all(text).is_err(), "{text}");
        }
        assert!(
            all(&format!(
                "1-2 r-xp 0 0:0 7 /{}\n",
                "x".repeat(MAX_LINE as usize)
            ))
            .is_err()
        );
        assert_eq!(all("").unwrap(), []);
        assert_eq!(all("1-2 r-xp 0 0:0 0\n").unwrap().len(), 1);
    }

    #[test]
    fn this_process() {
        let mut executable = 0;
        parse(open(std::process::id()).unwrap(), |line| {
            executable += usize::from(line.executable)
        })
        .unwrap();
        assert!(executable > 1);
    }
}
