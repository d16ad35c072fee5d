//! Runs `framewalk record` and reads what it wrote.

use super::targets::Directory;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Output};

/// What came of a recording.
pub(crate) struct Recorded {
    pub(crate) stacks: Vec<(Stack, u64)>,
    pub(crate) stats: Value,
    /// What was written to stderr.
    pub(crate) said: String,
}

/// One line of the folded file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stack {
    pub(crate) comm: String,
    /// Why the stack ends before its outermost frame, if it does.
    pub(crate) cut: Option<String>,
    /// Functions, outermost first.
    pub(crate) user: Vec<String>,
    /// Functions of the kernel, outermost first.
    pub(crate) kernel: Vec<String>,
}

impl Stack {
    fn parse(line: &str) -> Option<(Stack, u64)> {
        let (stack, count) = line.rsplit_once(' ')?;
        let mut names = stack.split(';').map(str::to_string).peekable();
        let comm = names.next()?;
        let cut = names.next_if(|name| name.starts_with("[cut off: "));
        let (kernel, user) = names.partition(|name| name.ends_with("_[k]"));
        let stack = Stack {
            comm,
            cut,
            user,
            kernel,
        };
        Some((stack, count.parse().ok()?))
    }

    /// Whether the outermost frame is the dynamic linker's, which has names only with debug symbols.
    pub(crate) fn begins_in_linker(&self) -> bool {
        let named = self.user.get(1).is_some_and(|name| name == "_dl_start");
        named
            || self
                .user
                .first()
                .is_some_and(|name| name.starts_with("ld-"))
    }

    pub(crate) fn has(&self, function: &str) -> bool {
        self.user.iter().any(|name| name == function)
    }
}

/// The words of a command line.
pub(crate) fn words<W: AsRef<OsStr>>(words: &[W]) -> Vec<OsString> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}

/// Runs `framewalk record` with these arguments.
pub(crate) fn framewalk(arguments: &[OsString]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_framewalk"))
        .arg("record")
        .args(arguments)
        .output()
        .unwrap()
}

/// Records; None, and a line that says so, when the engine that was asked for is not allowed here.
pub(crate) fn record(test: &str, arguments: &[OsString]) -> Option<Recorded> {
    let directory = Directory::new();
    let (folded, stats) = (directory.path("x.folded"), directory.path("x.json"));
    let mut all = words(&["-o".as_ref(), folded.as_os_str()]);
    all.extend(words(&["--stats".as_ref(), stats.as_os_str()]));
    all.extend(arguments.iter().cloned());
    let output = framewalk(&all);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("nothing can be recorded here") {
        assert!(!output.status.success() && !folded.exists(), "{said}");
        skip(test, said.trim().lines().last().unwrap_or_default().trim());
        return None;
    }
    println!("{said}");
    assert!(output.status.success(), "{said}");
    Some(read(&folded, &stats, said))
}

fn read(folded: &Path, stats: &Path, said: String) -> Recorded {
    let folded = std::fs::read_to_string(folded).unwrap();
    let stacks = folded.lines().map(|line| Stack::parse(line).expect(line));
    let recorded = Recorded {
        stacks: stacks.collect(),
        stats: serde_json::from_slice(&std::fs::read(stats).unwrap()).unwrap(),
        said,
    };
    println!("{}", recorded.stats);
    assert_eq!(recorded.samples(), recorded.count("samples"));
    recorded
}

/// Says that a test is skipped. The runner of all tests counts these lines.
pub(crate) fn skip(test: &str, why: &str) {
    println!("SKIPPED {test}: {why}");
}

impl Recorded {
    /// A number of the statistics; 0 where it is absent.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.stats[name].as_u64().unwrap_or(0)
    }

    pub(crate) fn samples(&self) -> u64 {
        self.stacks.iter().map(|(_, count)| count).sum()
    }

    /// Samples of stacks with a property.
    pub(crate) fn samples_where(&self, is: impl Fn(&Stack) -> bool) -> u64 {
        let matching = self.stacks.iter().filter(|(stack, _)| is(stack));
        matching.map(|(_, count)| count).sum()
    }

    /// At least so many percent of the samples with a user stack reach its outermost frame, none is
    /// lost, and no frame is a guess.
    pub(crate) fn assert_complete(&self, percent: u64) {
        let stopped = |reason: &str| self.stats["stopped"][reason].as_u64().unwrap_or(0);
        let without: u64 = ["kernel-thread", "exec", "exited"]
            .map(stopped)
            .iter()
            .sum();
        let (complete, all) = (self.count("complete"), self.count("samples") - without);
        assert!(all > 0, "nothing recorded");
        assert!(complete * 100 >= all * percent, "{complete} of {all}");
        assert_eq!(self.count("lost"), 0);
        let guesses = self.samples_where(|stack| stack.user.iter().any(|f| f.ends_with("_[?]")));
        assert_eq!(guesses, 0, "guessed frames");
    }
}
