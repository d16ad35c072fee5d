//! Frame areas that were registered before anybody listened (docs/abi.md, "Late start"): looked for by the names of
//! mappings, and taken into the registry as if their processes had made the call now.
//!
//! Processes call mappings what they like, and hold in them what they like; they run meanwhile, fork, exec and end. So what is
//! read here only says where to look: the kernel side reads and checks the header itself, of the address space that
//! was looked at and no other. Processes, mappings and bytes of text are bounded, and each header is read once.

use crate::processes::maps;
use framewalk_announce::abi::{KIND_AREA, MAX_AREAS};
use framewalk_announce::area::layout::{AREA_LEN_AT, GEOMETRY_SIZE, KEY_AT};
use framewalk_kernel::{Error, Late, Registry};
use framewalk_walk::registry::Claim;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt};

/// What the mappings of areas are called: of a file in memory, or without one (crates/announce/src/area/mapping.rs).
const NAMES: [&[u8]; 2] = [b"/memfd:sframe-area (deleted)", b"[anon:sframe-area]"];
/// Processes that are looked at, at most: the kernel side knows no more.
const MAX_PROCESSES: usize = 65536;
/// Areas of one process: there is no room for more.
const MOST: usize = MAX_AREAS as usize;
/// How often those are looked at that came meanwhile.
const MAX_ROUNDS: usize = 8;
/// Bytes of the text of mappings: of one process and of all.
const MAX_TEXT: u64 = 16 << 20;
const MAX_TEXTS: u64 = 256 << 20;
/// An area begins in a page of its own.
const PAGE: u64 = 4096;
/// PROC_PID_INIT_INO, include/linux/proc_ns.h
const INITIAL_PID_NAMESPACE: u64 = 0xeffffffc;

/// Whether processes are called here what the kernel side calls them: not in a container's pid namespace.
pub fn sees_all_pids() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|own| own.ino() == INITIAL_PID_NAMESPACE)
}

/// What came of looking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latecomer {
    /// Areas that were taken in.
    pub adopted: u64,
    /// Areas that overlap what is registered, most of them because they are that.
    pub known: u64,
    /// Mappings with the name that hold no area.
    pub nonsense: u64,
    /// Areas for which there is no room.
    pub full: u64,
    /// Processes that were not looked at, or not at all of their mappings.
    pub passed_over: u64,
    /// Bytes of text that were read.
    texts: u64,
}

/// Where an area may be: of a file only at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    start: u64,
    end: u64,
    of_file: bool,
}

impl Latecomer {
    /// Looks at these processes; without any, at all of this machine, and at those that begin meanwhile.
    pub fn look(registry: &Registry, pids: Option<&[u32]>) -> Result<Latecomer, Error> {
        let mut seen = HashSet::new();
        let mut late = Latecomer::default();
        for round in 1..=MAX_ROUNDS {
            // Listed after the processes before were looked at: what these fork has a copy, or is listed.
            let mut new = pids.map_or_else(everybody, <[u32]>::to_vec);
            new.retain(|pid| !seen.contains(pid));
            if new.is_empty() {
                break;
            }
            for pid in new {
                if seen.len() >= MAX_PROCESSES || late.texts >= MAX_TEXTS {
                    late.passed_over += 1;
                    return Ok(late);
                }
                if late.process(registry, pid)? || round == MAX_ROUNDS {
                    seen.insert(pid);
                }
            }
            std::thread::yield_now();
        }
        Ok(late)
    }

    /// What is worth a line to the user.
    pub fn notes(&self) -> Vec<String> {
        let counts = [
            (
                self.nonsense,
                "mappings called sframe-area hold no frame area",
            ),
            (
                self.full,
                "frame areas of programs that run already had no room",
            ),
            (
                self.passed_over,
                "processes were not searched for frame areas",
            ),
        ];
        let some = counts.into_iter().filter(|&(count, _)| count > 0);
        some.map(|(count, what)| format!("{count} {what}"))
            .collect()
    }

    /// One process. False if it is too early for it.
    fn process(&mut self, registry: &Registry, pid: u32) -> Result<bool, Error> {
        // Before its mappings: they have to be those of this address space.
        let space = match registry.look_at(pid)? {
            Late::Is(space) => space,
            Late::Gone => return Ok(true),
            Late::Early => return Ok(false),
        };
        let candidates = self.candidates(pid);
        let Some(memory) = (!candidates.is_empty())
            .then(|| File::open(format!("/proc/{pid}/mem")).ok())
            .flatten()
        else {
            self.passed_over += u64::from(!candidates.is_empty());
            return Ok(true);
        };
        for candidate in candidates {
            self.candidate(registry, pid, space, candidate, &memory)?;
        }
        Ok(true)
    }

    fn candidates(&mut self, pid: u32) -> Vec<Candidate> {
        let text = match maps::open(pid) {
            Ok(text) => text,
            Err(error) => {
                self.passed_over += u64::from(error.kind() == ErrorKind::PermissionDenied);
                return Vec::new();
            }
        };
        let mut found = Vec::new();
        let room = MAX_TEXT.min(MAX_TEXTS - self.texts.min(MAX_TEXTS));
        let mut text = text.take(room);
        let all = maps::parse(&mut text, |line| collect(&mut found, &line));
        self.texts += room - text.limit();
        // A process that has ended has no lines.
        self.passed_over += u64::from(all.is_err() || found.len() > MOST);
        found.truncate(MOST);
        found
    }

    /// Mappings without a file that touch are one, so areas may lie one behind the other.
    fn candidate(
        &mut self,
        registry: &Registry,
        pid: u32,
        space: u64,
        candidate: Candidate,
        memory: &File,
    ) -> Result<(), Error> {
        let mut at = candidate.start;
        for _ in 0..MOST {
            let mut header = [0; GEOMETRY_SIZE as usize];
            let read = memory.read_exact_at(&mut header, at).is_ok();
            let Some((key, len)) = claimed(&header, at).filter(|_| read) else {
                self.nonsense += 1;
                return Ok(());
            };
            match registry.adopt(pid, space, key, [at, len])? {
                Late::Is(1..) => self.adopted += 1,
                Late::Is(errno) => match -errno as i32 {
                    libc::EEXIST => self.known += 1,
                    libc::ENOSPC => self.full += 1,
                    // It changed meanwhile.
                    _ => self.nonsense += 1,
                },
                Late::Gone | Late::Early => return Ok(()),
            }
            // SANITY: both are below 2^47.
            at += len.next_multiple_of(PAGE);
            if candidate.of_file || at >= candidate.end {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Key and length of the area whose header this is. (Whether all of it is mapped nobody asks a call either.)
fn claimed(header: &[u8; GEOMETRY_SIZE as usize], at: u64) -> Option<(u64, u64)> {
    let word = |at: u64| {
        let at = usize::try_from(at).ok()?;
        let bytes = header.get(at..)?.first_chunk()?;
        Some(u64::from_ne_bytes(*bytes))
    };
    let (key, len) = (word(KEY_AT)?, word(AREA_LEN_AT)?);
    let mut read = |_: u64, into: &mut [u8]| {
        let same = into.len() == header.len();
        if same {
            into.copy_from_slice(header);
        }
        same
    };
    let claim = Claim::read(key, at, len, KIND_AREA, &mut read);
    claim.is_ok().then_some((key, len))
}

/// Takes in a mapping that is called like an area, if it is the beginning of one: of a file in memory that has the
/// header; of memory without a file the first one of those that touch.
fn collect(found: &mut Vec<Candidate>, line: &maps::Line<'_>) {
    let new = Candidate {
        start: line.start,
        end: line.end,
        of_file: line.inode != 0,
    };
    if !NAMES.contains(&line.path) || found.len() > MOST || new.of_file && line.offset != 0 {
        return;
    }
    match found.last_mut() {
        Some(last) if !last.of_file && !new.of_file && last.end == new.start => last.end = new.end,
        _ => found.push(new),
    }
}

/// The processes that there are.
fn everybody() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_that_are_called_so() {
        let text = "\
1000-3000 rw-p 00000000 00:01 7                          /memfd:sframe-area (deleted)
3000-4000 r--p 00002000 00:01 7                          /memfd:sframe-area (deleted)
4000-5000 r--p 00000000 00:01 7                          /memfd:sframe-area (deleted)
5000-6000 r--p 00001000 00:01 8                          /memfd:sframe-area (deleted)
7000-8000 rw-p 00000000 00:00 0                          [anon:sframe-area]
8000-9000 r--p 00000000 00:00 0                          [anon:sframe-area]
a000-b000 rw-p 00000000 00:00 0                          [anon:sframe-area]
b000-c000 rw-p 00000000 00:01 9                          /memfd:sframe-areas (deleted)
c000-d000 rw-p 00000000 00:01 9                          /memfd:sframe-area
d000-e000 rw-p 00000000 00:01 9                          /tmp/memfd:sframe-area (deleted)
";
        let mut found = Vec::new();
        maps::parse(text.as_bytes(), |line| collect(&mut found, &line)).unwrap();
        let found: Vec<_> = found.iter().map(|one| (one.start, one.end)).collect();
        let expected = [
            (0x1000, 0x3000),
            (0x4000, 0x5000),
            (0x7000, 0x9000),
            (0xa000, 0xb000),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn headers_that_are_none() {
        let mut header = [0; GEOMETRY_SIZE as usize];
        assert_eq!(claimed(&header, 0x1000), None);
        header[AREA_LEN_AT as usize..][..8].fill(0xff);
        assert_eq!(claimed(&header, 0x1000), None);
        assert_eq!(claimed(&header, u64::MAX), None);
    }
}
