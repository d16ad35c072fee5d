//! What /proc says of threads.

use std::fs::{self, File};
use std::io::Read;

/// The start of /proc/PID/task/TID/stat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The thread's name.
    pub(crate) comm: String,
    /// It runs or waits for a CPU.
    pub(crate) running: bool,
    /// The parent process.
    pub(crate) parent: u32,
}

/// Reads it; none where the thread has ended.
pub(crate) fn stat(pid: u32, tid: u32) -> Option<Stat> {
    let mut bytes = [0; 512];
    let length = File::open(format!("/proc/{pid}/task/{tid}/stat"))
        .ok()?
        .read(&mut bytes)
        .ok()?;
    parse_stat(bytes.get(..length)?)
}

/// `1234 (name) R 1 ...`: the name may hold anything, parentheses too (proc(5)).
pub(super) fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let open = bytes.iter().position(|&byte| byte == b'(')?;
    let close = bytes.iter().rposition(|&byte| byte == b')')?;
    let comm = String::from_utf8_lossy(bytes.get(open + 1..close)?).into_owned();
    let mut rest = std::str::from_utf8(bytes.get(close + 1..)?)
        .ok()?
        .split_ascii_whitespace();
    let running = rest.next()? == "R";
    Some(Stat {
        comm,
        running,
        parent: rest.next()?.parse().ok()?,
    })
}

/// The threads of a process, none where it has ended.
pub(crate) fn threads(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// A number from /proc/PID/status.
pub(crate) fn status(tid: u32, field: &str) -> Option<u32> {
    let status = fs::read(format!("/proc/{tid}/status")).ok()?;
    let line = status
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(field.as_bytes()))?;
    std::str::from_utf8(line.strip_prefix(b":")?)
        .ok()?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let parse = |text: &str| parse_stat(text.as_bytes());
        let stat = Stat {
            comm: ") S 7 (".into(),
            running: true,
            parent: 5,
        };
        assert_eq!(parse("12 () S 7 () R 5 12 12 0"), Some(stat));
        for text in [
            "",
            "12",
            "12 (",
            "12 )(",
            "12 (a)",
            "12 (a) R",
            "12 (a) R x",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn this_process() {
        let pid = std::process::id();
        let parent = status(pid, "PPid").unwrap();
        assert_eq!(stat(pid, pid).unwrap().parent, parent);
        assert!(threads(pid).contains(&pid));
        assert_eq!(status(pid, "Tgid"), Some(pid));
        assert!(stat(u32::MAX, u32::MAX).is_none());
    }
}
