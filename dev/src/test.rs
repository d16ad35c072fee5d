//! `test`: everything that is checked, and how much of it was skipped.
//!
//! A test that cannot run here passes and prints `SKIPPED test: why` (or `skipped: why`): it is
//! counted as skipped, not as passed. Formatting and lints count as one test each.

use crate::run;
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
    let mut counts = Counts::default();
    for (name, arguments) in [("fmt", FMT), ("clippy", CLIPPY)] {
        let passed = run::status(run::cargo(arguments)).is_ok_and(|status| status.success());
        let result = if passed { "ok" } else { "FAILED" };
        println!("test {name} ... {result}");
        counts.test(name, result);
    }
    if let Err(error) = tests(run::cargo(TEST), &mut counts) {
        counts.failed += 1;
        eprintln!("{error}");
    }
    for skipped in &counts.skipped {
        println!("SKIPPED {skipped}");
    }
    println!(
        "{} passed, {} failed, {} skipped",
        counts.passed,
        counts.failed,
        counts.skipped.len()
    );
    match counts.failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    /// `test: why`
    skipped: Vec<String>,
}

impl Counts {
    fn test(&mut self, name: &str, result: &str) {
        match result {
            "ok" => self.passed += 1,
            "FAILED" => self.failed += 1,
            ignored => self.skipped.push(format!("{name}: {ignored}")),
        }
    }
}

/// Runs the tests, shows what they say apart from the words of those that pass, and counts.
fn tests(mut cargo: Command, counts: &mut Counts) -> Result<(), String> {
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cargo: {error}"))?;
    let failed = counts.failed;
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
        if report.line(&line, counts) {
            println!("{line}");
        }
    }
    let status = child
        .wait()
        .map_err(|error| format!("cargo test: {error}"))?;
    match status.success() || counts.failed > failed {
        true => Ok(()),
        // A test program that did not build, or that did not live to tell.
        false => Err(format!("cargo test: {status}")),
    }
}

/// Where in the report of a test program we are.
#[derive(Default)]
struct Report {
    /// The test whose output follows.
    section: Option<String>,
    /// Within the output of tests that passed.
    quiet: bool,
}

impl Report {
    /// Takes a line; true if it is worth showing.
    fn line(&mut self, line: &str, counts: &mut Counts) -> bool {
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
                let name = format!("{name}: ");
                // Once, however many reasons it gives; it was counted as passed when it ended.
                if !counts.skipped.iter().any(|known| known.starts_with(&name)) {
                    counts.passed = counts.passed.saturating_sub(1);
                    counts.skipped.push(name + why);
                }
            }
        } else if let (None, Some((name, result))) = (&self.section, result(line)) {
            counts.test(name, result);
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
        let (mut counts, mut report) = (Counts::default(), Report::default());
        let shown: Vec<&str> = REPORT
            .lines()
            .filter(|line| report.line(line, &mut counts))
            .collect();
        assert!(shown.contains(&"boom") && !shown.contains(&"nothing to say"));
        assert_eq!((counts.passed, counts.failed), (2, 1));
        let skipped = ["four: ignored, needs a printer", "one: no engine: at all"];
        assert_eq!(counts.skipped, skipped);
    }
}
