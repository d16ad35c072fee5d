//! `bench`: one table from one run.
//!
//! Every number is measured here and now; a part that cannot be measured says why. Ratios and limits
//! are printed, the verdict is the reader's.

mod announce;
mod announce_audit;
mod area;
mod build;
mod conversion;
mod cost;
mod dwarf;
mod integrity;
mod jits;
mod luajit;
mod machine;
mod perf_event;
mod recorded;
mod reference;

use crate::run;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What all measurements need.
struct Bench {
    framewalk: PathBuf,
    /// A directory of its own for built programs and recordings.
    scratch: PathBuf,
    targets: PathBuf,
}

type Part = fn(&Bench) -> Result<(), String>;

const PARTS: &[(&str, Part)] = &[
    ("cost", cost::run),
    ("python", recorded::run),
    ("dwarf", dwarf::run),
    ("jits", jits::run),
    ("conversion", conversion::run),
    ("audit", announce_audit::run),
    ("announce", announce::run),
    ("integrity", integrity::run),
    ("area", area::run),
    ("luajit", luajit::run),
    ("build", build::run),
];

/// Runs the parts that are named, or all.
pub(crate) fn run(words: &[&str]) -> ExitCode {
    if let Some(unknown) = words
        .iter()
        .find(|word| PARTS.iter().all(|(name, _)| name != *word))
    {
        let names: Vec<_> = PARTS.iter().map(|(name, _)| *name).collect();
        return run::fail(&format!("{unknown} is none of {}", names.join(", ")));
    }
    let bench = match prepare() {
        Ok(bench) => bench,
        Err(error) => return run::fail(&error),
    };
    machine::describe();
    let mut failed = false;
    for (name, part) in PARTS {
        if !words.is_empty() && !words.contains(name) {
            continue;
        }
        if let Err(error) = part(&bench) {
            println!("{name}: not measured: {error}");
            failed = true;
        }
    }
    let _ = std::fs::remove_dir_all(&bench.scratch);
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn prepare() -> Result<Bench, String> {
    let framewalk = run::framewalk()?;
    let scratch = framewalk.with_file_name(format!("bench-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;
    let targets = run::top().join("dev/targets");
    Ok(Bench {
        framewalk,
        scratch,
        targets,
    })
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    fn target(&self, name: &str) -> PathBuf {
        self.targets.join(name)
    }
}

const PYTHON: &str = "/usr/bin/python3";

/// Debian's python3.
fn python() -> Result<&'static str, String> {
    match Path::new(PYTHON).exists() {
        true => Ok(PYTHON),
        false => Err(format!("there is no {PYTHON}")),
    }
}

/// A heading of the table.
fn heading(text: &str) {
    println!("\n{text}");
}

/// A line of the table.
fn line(what: &str, value: f64, unit: &str, limit: &str) {
    println!("  {what:<44} {value:>12.3} {unit:<12} {limit}");
}
