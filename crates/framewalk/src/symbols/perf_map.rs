//! The maps that JIT compilers write for profilers: `/tmp/perf-PID.map`.
//!
//! One function per line, `START SIZE name`, both numbers in hexadecimal
//! (tools/perf/Documentation/jit-interface.txt of the kernel). Everybody may write to `/tmp`, so a map is
//! read as what it is: text by a stranger, bounded, never a pipe or a link, and only names come of it.

use rustix::fs::{Mode, OFlags, openat};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

/// Bytes of a map that are read, at most.
const MAX_MAP: u64 = 256 << 20;

/// Where the maps of processes are, found while the processes live.
#[derive(Debug, Default)]
pub struct PerfMaps {
    processes: HashMap<u32, Option<Root>>,
}

/// The root directory of a process, which stays reachable after the process has ended.
#[derive(Debug)]
struct Root {
    directory: OwnedFd,
    /// The process's id inside its own pid namespace: the one that it writes into file names.
    inner_pid: u32,
}

impl PerfMaps {
    /// To be called when a process was seen to run code outside every file.
    pub fn meet(&mut self, pid: u32) {
        self.processes.entry(pid).or_insert_with(|| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory =
                rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()).ok()?;
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let inner = inner.and_then(|pids| pids.split_whitespace().next_back()?.parse().ok());
            Some(Root {
                directory,
                inner_pid: inner.unwrap_or(pid),
            })
        });
    }

    /// The map of a process, as it is now; `None` where it has none.
    pub fn read(&self, pid: u32) -> Option<PerfMap> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let inner = self
            .processes
            .get(&pid)
            .and_then(Option::as_ref)
            .and_then(|root| {
                openat(
                    &root.directory,
                    format!("tmp/perf-{}.map", root.inner_pid),
                    flags,
                    Mode::empty(),
                )
                .ok()
            });
        let file = inner.or_else(|| {
            rustix::fs::open(format!("/tmp/perf-{pid}.map"), flags, Mode::empty()).ok()
        })?;
        let file = File::from(file);
        let found = file.metadata().ok()?;
        let me = rustix::process::geteuid().as_raw();
        let trusted = me == 0 || found.uid() == 0 || found.uid() == me;
        if !found.is_file() || !trusted {
            return None;
        }
        let mut text = Vec::new();
        file.take(MAX_MAP).read_to_end(&mut text).ok()?;
        Some(PerfMap::parse(&text))
    }
}

/// A map in memory.
#[derive(Debug, Default)]
pub struct PerfMap {
    /// Sorted by start; the last written wins where several start alike.
    functions: Vec<Function>,
    names: String,
}

#[derive(Debug)]
struct Function {
    start: u64,
    size: u64,
    name: (usize, usize),
}

impl PerfMap {
    /// Reads what can be read; lines that say something else are passed over.
    pub fn parse(text: &[u8]) -> PerfMap {
        let mut map = PerfMap {
            functions: Vec::new(),
            names: String::from_utf8_lossy(text).into_owned(),
        };
        let names = map.names.as_str();
        for line in names.lines() {
            let mut words = line.splitn(3, ' ');
            let mut number = || {
                let word = words.next()?;
                u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok()
            };
            let (Some(start), Some(size)) = (number(), number()) else {
                continue;
            };
            let Some(name) = words.next().map(str::trim).filter(|name| !name.is_empty()) else {
                continue;
            };
            let at = name.as_ptr() as usize - names.as_ptr() as usize;
            map.functions.push(Function {
                start,
                size,
                name: (at, at + name.len()),
            });
        }
        // Stable: compilers reuse memory, and the later line is the younger function.
        map.functions.sort_by_key(|function| function.start);
        map
    }

    /// The name of the function at an address.
    pub fn find(&self, address: u64) -> Option<&str> {
        let after = self
            .functions
            .partition_point(|function| function.start <= address);
        let function = self.functions.get(after.checked_sub(1)?)?;
        let (first, end) = function.name;
        (address - function.start < function.size)
            .then_some(self.names.get(first..end))
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_address() {
        let map =
            PerfMap::parse(b"20 10 second one\n10 8 first\n0x40 0x10 third\n10 4 first again\n");
        let find = |address| map.find(address);
        assert_eq!(find(0x0f), None);
        assert_eq!(
            find(0x10),
            Some("first again"),
            "the younger of two that start alike"
        );
        assert_eq!(find(0x14), None);
        assert_eq!(find(0x2f), Some("second one"));
        assert_eq!(find(0x30), None);
        assert_eq!(find(0x4f), Some("third"));
        assert_eq!(find(u64::MAX), None);
    }

    #[test]
    fn nonsense_is_passed_over() {
        let text = b"\n\xff\xfe\n10\n10 10\n10 10 \nzz 1 a\n-1 1 a\nffffffffffffffff ffffffffffffffff end\n99999999999999999 1 b\n";
        let map = PerfMap::parse(text);
        assert_eq!(map.functions.len(), 1);
        assert_eq!(map.find(u64::MAX), Some("end"));
        assert_eq!(map.find(0x10), None);
    }

    #[test]
    fn a_pipe_does_not_hang_the_reader() {
        // A pid that no process has.
        let pid = 0x7fff_fff0;
        let path = format!("/tmp/perf-{pid}.map");
        let _ = fs::remove_file(&path);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        let read = PerfMaps::default().read(pid);
        fs::remove_file(&path).unwrap();
        assert!(read.is_none());
    }

    #[test]
    fn the_map_of_this_process() {
        let pid = std::process::id();
        let path = format!("/tmp/perf-{pid}.map");
        fs::write(&path, "1000 10 mine\n").unwrap();
        let mut maps = PerfMaps::default();
        maps.meet(pid);
        maps.meet(0x7fff_fff1);
        let read = maps.read(pid);
        fs::remove_file(&path).unwrap();
        assert_eq!(read.unwrap().find(0x1008), Some("mine"));
        assert!(maps.read(0x7fff_fff1).is_none());
    }
}
