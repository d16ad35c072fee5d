//! LuaJIT's programs (`jits/luajit`): how many stacks reach their outermost frame, by framewalk with and without what the
//! module says of traces, and by perf.

use super::recorded::record;
use super::{Bench, heading};
use crate::run;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SECONDS: &str = "3";
const RATE: &str = "997";
/// The largest stack copy that perf can take.
const COPY: &str = "dwarf,65528";
const PROGRAMS: [&str; 10] = [
    "nbody",
    "matrix",
    "fib",
    "spills",
    "strings",
    "coroutines",
    "sort",
    "replace",
    "callback",
    "flush",
];

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    let luajit = Command::new("luajit").arg("-v").output();
    luajit.map_err(|error| format!("luajit: {error}"))?;
    let library = library(bench)?;
    heading(&format!(
        "LuaJIT, {SECONDS} s at {RATE} Hz: stacks that reach their outermost frame, %"
    ));
    println!(
        "  {:<12} {:>12} {:>12} {:>12} {:>12} {:>12}  framewalk: at least 95",
        "", "framewalk", "of traces", "no module", "perf dwarf", "perf fp"
    );
    for program in PROGRAMS {
        let (with, of_traces) = ours(bench, program, Some(&library))?;
        let (without, _) = ours(bench, program, None)?;
        let perf = |method| match perf(bench, program, method) {
            Ok(share) => format!("{share:.1}"),
            Err(_) => "-".to_string(),
        };
        let (dwarf, fp) = (perf(COPY), perf("fp"));
        println!(
            "  {program:<12} {with:>12.1} {of_traces:>12.1} {without:>12.1} {dwarf:>12} {fp:>12}"
        );
    }
    Ok(())
}

/// The library for C, built as docs/abi.md says.
fn library(bench: &Bench) -> Result<PathBuf, String> {
    let build = [
        "rustc",
        "--quiet",
        "-p",
        "framewalk-announce",
        "--profile",
        "audit",
        "--features",
        "capi",
        "--crate-type",
        "cdylib",
    ];
    let status = run::status(run::cargo(&build))?;
    if !status.success() {
        return Err(format!("cargo {}: {status}", build.join(" ")));
    }
    let target = bench.framewalk.ancestors().nth(2);
    let target = target.unwrap_or(Path::new("target"));
    Ok(target.join("audit/libframewalk_announce.so"))
}

/// The command that runs a program, with the module or without.
fn command(program: &str, library: Option<&Path>) -> Vec<OsString> {
    let programs = run::top().join("jits/luajit");
    let mut words: Vec<OsString> = vec!["luajit".into()];
    if let Some(library) = library {
        let code = format!(
            "package.path = [[{}/?.lua;]] .. package.path; assert(require('framewalk').start([[{}]]))",
            programs.display(),
            library.display()
        );
        words.extend(["-e".into(), code.into()]);
    }
    words.extend([
        programs.join(format!("{program}.lua")).into(),
        SECONDS.into(),
    ]);
    words
}

/// Percent of all samples that are complete, and of those with a trace in them.
fn ours(bench: &Bench, program: &str, library: Option<&Path>) -> Result<(f64, f64), String> {
    let command = command(program, library);
    let command: Vec<&OsStr> = command.iter().map(|word| word.as_os_str()).collect();
    let folded = bench.path("luajit.folded");
    let options = ["--engine", "kernel", "-F", RATE];
    let recording = record(bench, &options, &folded, &command)?;
    let all = 100.0 * recording.number("complete") / recording.number("samples");
    let text = std::fs::read_to_string(&folded).map_err(|error| error.to_string())?;
    let (mut complete, mut traces) = (0, 0);
    for line in text.lines().filter(|line| line.contains(";trace ")) {
        let count = line
            .rsplit_once(' ')
            .and_then(|(_, count)| count.parse().ok());
        let count: u64 = count.ok_or("a line without a count")?;
        traces += count;
        if !line.contains(";[cut off: ") {
            complete += count;
        }
    }
    Ok((all, 100.0 * complete as f64 / traces as f64))
}

/// Percent of the samples whose stack has the C library's function that calls main.
fn perf(bench: &Bench, program: &str, method: &str) -> Result<f64, String> {
    let data = bench.path("luajit.data");
    let mut perf = Command::new("perf");
    perf.args(["record", "-q", "-F", RATE, "-e", "cpu-clock:u"]);
    perf.args(["--call-graph", method, "-o"]).arg(&data);
    perf.arg("--").args(command(program, None));
    perf.stdout(Stdio::null()).stderr(Stdio::null());
    let status = run::status(perf)?;
    if !status.success() {
        return Err(format!("perf record: {status}"));
    }
    let mut perf = Command::new("perf");
    perf.args(["script", "-F", "ip,sym", "-i"]).arg(&data);
    perf.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = perf.spawn().map_err(|error| format!("perf: {error}"))?;
    let (mut samples, mut complete) = (0_u64, 0_u64);
    let (mut open, mut reached) = (false, false);
    let lines = child.stdout.take().map(BufReader::new).into_iter();
    for line in lines.flat_map(BufRead::lines) {
        let line = line.map_err(|error| format!("perf script: {error}"))?;
        if line.trim().is_empty() {
            complete += u64::from(open && reached);
            (open, reached) = (false, false);
        } else {
            samples += u64::from(!open);
            open = true;
            reached |= line.contains("__libc_start_");
        }
    }
    complete += u64::from(open && reached);
    child
        .wait()
        .map_err(|error| format!("perf script: {error}"))?;
    Ok(100.0 * complete as f64 / samples as f64)
}
