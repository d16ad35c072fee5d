//! Several targets, two at a time, and one table of what came of it.

use super::{Place, build, corpora};
use crate::run;
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

const AT_A_TIME: usize = 2;

/// What came of a target.
#[derive(Debug, Default, PartialEq, Eq)]
struct Row {
    target: String,
    executions: u64,
    seconds: u64,
    /// Edges that were taken, and features: edges with how often they were, and results of comparisons.
    edges: u64,
    features: u64,
    corpus: u64,
    /// Names of the inputs that made it fail.
    findings: Vec<String>,
    /// Why it could not be run to its end, if nothing was found.
    broken: Option<String>,
}

/// Fails if anything was found.
pub(super) fn run(targets: &[&str], seconds: &str) -> Result<(), String> {
    build(targets)?;
    let logs = run::target().join("fuzz/logs");
    fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    println!(
        "{} targets, {AT_A_TIME} at a time; see {}",
        targets.len(),
        logs.display()
    );
    let left = Mutex::new(targets.iter());
    let rows = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(target) = left.lock().ok().and_then(|mut left| left.next()) {
                    let row = fuzz(target, seconds, &logs);
                    println!("{}", row.line());
                    if let Ok(mut rows) = rows.lock() {
                        rows.push(row);
                    }
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_default();
    rows.sort_by(|one, other| one.target.cmp(&other.target));
    let kept = corpora::keep(targets);
    println!("\n{}", Row::HEAD);
    for row in &rows {
        println!("{}", row.line());
        for finding in &row.findings {
            println!("  {finding}");
        }
        if let Some(why) = &row.broken {
            println!("  {why}");
        }
    }
    let bad = rows
        .iter()
        .filter(|row| !row.findings.is_empty() || row.broken.is_some());
    match bad.count() {
        0 => kept,
        bad => Err(format!("{bad} targets failed; see {}", logs.display())),
    }
}

/// Runs one, into its log.
fn fuzz(target: &str, seconds: &str, logs: &Path) -> Row {
    let mut row = Row {
        target: target.to_string(),
        ..Row::default()
    };
    let log = logs.join(format!("{target}.log"));
    let begun = Instant::now();
    let ran = || -> Result<_, String> {
        let place = Place::of(target)?;
        let before = names(&place.artifacts);
        let text = |error| format!("{}: {error}", log.display());
        let file = File::create(&log).map_err(text)?;
        let mut command = place.command(seconds);
        command.stdin(Stdio::null());
        command.stdout(file.try_clone().map_err(text)?).stderr(file);
        let status = run::status(command)?;
        let mut found = names(&place.artifacts);
        found.retain(|name| !before.contains(name));
        Ok((status, found, fs::read(&log).map_err(text)?))
    };
    match ran() {
        Ok((status, findings, log)) => {
            row.read(&String::from_utf8_lossy(&log));
            row.broken = (!status.success() && findings.is_empty()).then(|| status.to_string());
            row.findings = findings;
        }
        Err(why) => row.broken = Some(why),
    }
    row.seconds = begun.elapsed().as_secs();
    row
}

fn names(directory: &Path) -> Vec<String> {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = files
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

impl Row {
    const HEAD: &str = "target      executions   seconds    edges   features   corpus   findings";

    fn line(&self) -> String {
        let Row {
            target,
            executions,
            seconds,
            edges,
            features,
            corpus,
            findings,
            ..
        } = self;
        let findings = findings.len();
        format!(
            "{target:<10} {executions:>11} {seconds:>9} {edges:>8} {features:>10} {corpus:>8} {findings:>10}"
        )
    }

    /// Takes what libFuzzer says of itself: `#7 DONE cov: 1 ft: 2 corp: 3/4b ...` last, then statistics.
    fn read(&mut self, log: &str) {
        for line in log.lines() {
            let mut words = line.split_whitespace();
            if line.starts_with('#') {
                while let Some(word) = words.next() {
                    let place = match word {
                        "cov:" => &mut self.edges,
                        "ft:" => &mut self.features,
                        "corp:" => &mut self.corpus,
                        _ => continue,
                    };
                    let number = words.next().and_then(|word| word.split('/').next());
                    *place = number.and_then(|word| word.parse().ok()).unwrap_or(*place);
                }
            } else if words.next() == Some("stat::number_of_executed_units:") {
                let number = words.next().and_then(|word| word.parse().ok());
                self.executions = number.unwrap_or(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_and_the_statistics_count() {
        let mut row = Row::default();
        row.read(
            "INFO: Seed: 7\n\
             #2\tINITED cov: 5 ft: 6 corp: 1/1b exec/s: 0 rss: 26Mb\n\
             #9\tNEW    cov: 15 ft: 17 corp: 3/12Kb lim: 4 exec/s: 0 rss: 27Mb L: 3/4 MS: 1 CopyPart-\n\
             stat::number_of_executed_units: 4096\n\
             stat::average_exec_per_sec:     7\n",
        );
        let expected = Row {
            executions: 4096,
            edges: 15,
            features: 17,
            corpus: 3,
            ..Row::default()
        };
        assert_eq!(row, expected);
        assert_eq!(expected.line().len(), Row::HEAD.len());
    }
}
