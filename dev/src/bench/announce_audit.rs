//! What the audit library costs the programs that it is loaded into: beside no auditing, and beside a library
//! that audits nothing.

use super::{Bench, heading};
use crate::run;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Libraries of the programs that are started.
const LIBRARIES: [usize; 3] = [0, 16, 64];
/// Each start is measured so many times.
const STARTS: usize = 300;
/// Opens and closes in one run, and runs.
const OPENS: &str = "1000";
const RUNS: usize = 15;

/// What audits, in the order of the columns.
type Auditors = [Option<PathBuf>; 3];

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    let auditors = auditors(bench)?;
    heading(
        "LD_AUDIT library: medians of starts, the best of opens; the kernel answers as it does now",
    );
    println!(
        "  {:<44} {:>10} {:>10} {:>10} {:>14}",
        "microseconds", "no audit", "empty", "framewalk", "added, each"
    );
    starts(bench, &auditors)?;
    opens(bench, &auditors)
}

/// A line; what is added to auditing itself, by each of so many objects.
fn line(what: &str, times: [Duration; 3], objects: usize) {
    let [plain, empty, ours] = times.map(|time| time.as_secs_f64() * 1e6);
    let added = (ours - empty) / objects.max(1) as f64;
    println!("  {what:<44} {plain:>10.2} {empty:>10.2} {ours:>10.2} {added:>14.2}");
}

fn starts(bench: &Bench, auditors: &Auditors) -> Result<(), String> {
    for count in LIBRARIES {
        let program = program(bench, count)?;
        let mut times = [const { Vec::new() }; 3];
        // In turns, so that whatever else this machine does happens to all.
        for _ in 0..STARTS {
            for (auditor, times) in auditors.iter().zip(&mut times) {
                times.push(start(&program, auditor.as_deref())?);
            }
        }
        let medians = times.map(|mut times| median(&mut times));
        line(
            &format!("start and end, {count} libraries with .sframe"),
            medians,
            count,
        );
    }
    Ok(())
}

fn opens(bench: &Bench, auditors: &Auditors) -> Result<(), String> {
    let program = program(bench, 0)?;
    let without = bench.path("without.so");
    let source = run::top().join("vectors/announce/src/calls.c");
    let options = ["-shared", "-fPIC", "-O2", "-nostdlib"];
    compile(&without, &options, &[source])?;
    let with = run::top().join("vectors/announce/calls.v3.so");
    for (what, library) in [("with .sframe", &with), ("without", &without)] {
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..RUNS {
            for (auditor, times) in auditors.iter().zip(&mut times) {
                let mut command = audited(&program, auditor.as_deref());
                let output = command.arg(library).arg(OPENS).output();
                let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
                let text = String::from_utf8_lossy(&output.stdout);
                let nanoseconds: f64 = text.trim().parse().map_err(|_| {
                    format!(
                        "{}: {}",
                        program.display(),
                        String::from_utf8_lossy(&output.stderr)
                    )
                })?;
                times.push(Duration::from_nanos(nanoseconds as u64));
            }
        }
        let best = times.map(|times| times.into_iter().min().unwrap_or_default());
        line(&format!("dlopen and dlclose, {what}"), best, 1);
    }
    Ok(())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn audited(program: &Path, auditor: Option<&Path>) -> Command {
    let mut command = Command::new(program);
    command.env_remove("LD_AUDIT");
    if let Some(auditor) = auditor {
        command.env("LD_AUDIT", auditor);
    }
    command
}

fn start(program: &Path, auditor: Option<&Path>) -> Result<Duration, String> {
    let mut command = audited(program, auditor);
    // What the loader has to say about a library that it cannot load is of interest.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let begin = Instant::now();
    let status = run::status(command)?;
    let time = begin.elapsed();
    match status.success() {
        true => Ok(time),
        false => Err(format!("{}: {status}", program.display())),
    }
}

/// A program that needs so many copies of the library.
fn program(bench: &Bench, count: usize) -> Result<PathBuf, String> {
    let program = bench.path(&format!("loads-{count}"));
    let mut files = vec![bench.target("loads.c")];
    for index in 0..count {
        let copy = bench.path(&format!("libcalls-{index}.so"));
        let original = run::top().join("vectors/announce/calls.v3.so");
        std::fs::copy(&original, &copy).map_err(|error| format!("{}: {error}", copy.display()))?;
        files.push(copy);
    }
    // The copies have no names of their own: the program knows them by their paths.
    compile(&program, &["-O2", "-Wl,--no-as-needed"], &files)?;
    Ok(program)
}

fn auditors(bench: &Bench) -> Result<Auditors, String> {
    let empty = bench.path("empty_audit.so");
    let options = ["-shared", "-fPIC", "-O2", "-nostdlib"];
    compile(&empty, &options, &[bench.target("empty_audit.c")])?;
    let build = [
        "build",
        "--quiet",
        "-p",
        "framewalk-audit",
        "--profile",
        "audit",
    ];
    let status = run::status(run::cargo(&build))?;
    if !status.success() {
        return Err(format!("cargo {}: {status}", build.join(" ")));
    }
    // Beside where the release build is.
    let target = bench
        .framewalk
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new("target"));
    let ours = target.join("audit/libframewalk_audit.so");
    Ok([None, Some(empty), Some(ours)])
}

fn compile(output: &Path, options: &[&str], files: &[PathBuf]) -> Result<(), String> {
    let mut gcc = Command::new("gcc");
    gcc.args(options).args(files).arg("-o").arg(output);
    match run::status(gcc)? {
        status if status.success() => Ok(()),
        status => Err(format!("gcc {}: {status}", output.display())),
    }
}
