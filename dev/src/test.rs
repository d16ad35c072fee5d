//! `test`: everything that is checked, and how much of it was skipped.
//!
//! A test that cannot run here passes and prints `SKIPPED test: why` (or `skipped: why`): it is
//! counted as skipped, not as passed. Formatting and lints count as one test each.

use crate::{fuzz, run, vm};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

pub(crate) const FMT: &[&str] = &["fmt", "--all", "--check"];
pub(crate) const CLIPPY: &[&str] = &[
    "clippy",
    "--workspace",
    "--all-targets",
    "--",
    "-D",
    "warnings",
];
const TEST: &[&str] = &[
    "test",
    "--workspace",
    "--no-fail-fast",
    "--",
    "--show-output",
];

pub(crate) fn run(_: &[&str]) -> ExitCode {
    let mut tests = Tests::default();
    let own = [("fmt", FMT), ("clippy", CLIPPY)].map(|(name, words)| (name, run::cargo(words)));
    for (name, check) in own.into_iter().chain(fuzz::checks()) {
        let passed = run::status(check).is_ok_and(|status| status.success());
        let outcome = match passed {
            true => Outcome::Passed,
            false => Outcome::Failed(String::new()),
        };
        let test = Test::new(name, outcome);
        println!("{test}");
        tests.list.push(test);
    }
    for cargo in [run::cargo(TEST), fuzz::tests()] {
        if let Err(error) = cargo_test(cargo, &mut tests) {
            eprintln!("{error}");
            tests
                .list
                .push(Test::new("cargo test", Outcome::Failed(error)));
        }
    }
    vm::all(&mut |test| tests.list.push(test));
    for (name, why) in tests.skipped() {
        println!("SKIPPED {name}: {why}");
    }
    let (failed, skipped) = (tests.failed(), tests.skipped().count());
    let passed = tests.list.len() - failed - skipped;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// A test and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// Why, if it is not said elsewhere.
    Failed(String),
    /// Why.
    Skipped(String),
}

impl Test {
    pub(crate) fn new(name: &str, outcome: Outcome) -> Test {
        let name = name.to_string();
        Test { name, outcome }
    }

    /// A test that fails with a reason.
    pub(crate) fn of(name: &str, result: Result<(), String>) -> Test {
        Test::new(
            name,
            result.map_or_else(Outcome::Failed, |()| Outcome::Passed),
        )
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "test {} ... ", self.name)?;
        match &self.outcome {
            Outcome::Passed => write!(f, "ok"),
            Outcome::Failed(why) if why.is_empty() => write!(f, "FAILED"),
            Outcome::Failed(why) => write!(f, "FAILED: {why}"),
            Outcome::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

/// The tests so far.
#[derive(Debug, Default)]
pub(crate) struct Tests {
    pub(crate) list: Vec<Test>,
}

impl Tests {
    pub(crate) fn failed(&self) -> usize {
        let failed = |test: &&Test| matches!(test.outcome, Outcome::Failed(_));
        self.list.iter().filter(failed).count()
    }

    /// Names and reasons.
    fn skipped(&self) -> impl Iterator<Item = (&str, &str)> {
        self.list.iter().filter_map(|test| match &test.outcome {
            Outcome::Skipped(why) => Some((test.name.as_str(), why.as_str())),
            _ => None,
        })
    }

    /// A result as a test program prints it.
    fn result(&mut self, name: &str, result: &str) {
        let outcome = match result {
            "ok" => Outcome::Passed,
            "FAILED" => Outcome::Failed(String::new()),
            ignored => Outcome::Skipped(ignored.to_string()),
        };
        self.list.push(Test::new(name, outcome));
    }

    /// A test that passed says that it was skipped. Once is enough, however many reasons it gives.
    fn skip(&mut self, name: &str, why: &str) {
        let latest = self.list.iter_mut().rev().find(|test| test.name == name);
        if let Some(test) = latest.filter(|test| test.outcome == Outcome::Passed) {
            test.outcome = Outcome::Skipped(why.to_string());
        }
    }
}

/// Runs the tests, shows what they say apart from the words of those that pass, and counts.
fn cargo_test(mut cargo: Command, tests: &mut Tests) -> Result<(), String> {
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cargo: {error}"))?;
    let failed = tests.failed();
    let mut report = Report::default();
    for line in child
        .stdout
        .take()
        .map(BufReader::new)
        .into_iter()
        .flat_map(|lines| lines.split(b'\n'))
    {
        let line = line.map_err(|error| format!("cargo test: {error}"))?;
        let line = String::from_utf8_lossy(&line);
        if report.line(&line, tests) {
            println!("{line}");
        }
    }
    let status = child
        .wait()
        .map_err(|error| format!("cargo test: {error}"))?;
    match status.success() || tests.failed() > failed {
        true => Ok(()),
        // A test program that did not build, or that did not live to tell.
        false => Err(format!("cargo test: {status}")),
    }
}

/// Where in the report of a test program we are.
#[derive(Default)]
pub(crate) struct Report {
    /// The test whose output follows.
    section: Option<String>,
    /// Within the output of tests that passed.
    quiet: bool,
}

impl Report {
    /// Takes a line; true if it is worth showing.
    pub(crate) fn line(&mut self, line: &str, tests: &mut Tests) -> bool {
        if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.section = Some(name.to_string());
        } else if line == "successes:" || line == "failures:" {
            self.section = None;
            self.quiet = line == "successes:";
        } else if line.starts_with("test result: ") {
            *self = Report::default();
        } else if let (Some(name), Some(why)) = (&self.section, skipped(line)) {
            if self.quiet {
                tests.skip(name, why);
            }
        } else if let (None, Some((name, result))) = (&self.section, result(line)) {
            tests.result(name, result);
        }
        !self.quiet
    }
}

/// Why a test was skipped, if this line of its output says so.
fn skipped(line: &str) -> Option<&str> {
    if let Some(rest) = line.strip_prefix("SKIPPED ") {
        return Some(rest.split_once(": ").map_or(rest, |(_, why)| why));
    }
    line.strip_prefix("skipped: ")
}

/// A line `test name ... result`.
fn result(line: &str) -> Option<(&str, &str)> {
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let known = matches!(result, "ok" | "FAILED") || result.starts_with("ignored");
    known.then_some((name, result))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
running 4 tests
test one ... ok
test two ... ok
test three ... FAILED
test four ... ignored, needs a printer

successes:

---- one stdout ----
SKIPPED one: no engine: at all
SKIPPED one: and no time
test six ... ok

---- two stdout ----
nothing to say

successes:
    one
    two

failures:

---- three stdout ----
test seven ... ok
boom

failures:
    three

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

test five - doc (line 3) ... ok
";

    #[test]
    fn a_skipped_test_is_not_a_passed_one() {
        let (mut tests, mut report) = (Tests::default(), Report::default());
        let shown: Vec<&str> = REPORT
            .lines()
            .filter(|line| report.line(line, &mut tests))
            .collect();
        assert!(shown.contains(&"boom") && !shown.contains(&"nothing to say"));
        let skipped: Vec<_> = tests.skipped().collect();
        let known = [
            ("one", "no engine: at all"),
            ("four", "ignored, needs a printer"),
        ];
        assert_eq!(skipped, known);
        assert_eq!((tests.list.len(), tests.failed()), (5, 1));
    }
}
