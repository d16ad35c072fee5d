//! Programs that generate code, none of which says anything about it: node and java, beside perf.

use super::recorded::record;
use super::{Bench, heading};
use serde_json::Value;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const SECONDS: &str = "4";
const RATE: &str = "997";
/// perf's ways to a call chain.
const CHAINS: [&str; 2] = ["fp", "dwarf,65528"];

/// What is recorded.
struct Program {
    name: &'static str,
    command: Vec<OsString>,
}

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    let programs = programs(bench);
    if programs.is_empty() {
        return Err("there is neither /usr/bin/node nor java with javac".into());
    }
    heading(&format!(
        "generated code without cooperation, {SECONDS} s at {RATE} Hz (a complete stack: to _start or clone3)"
    ));
    row("", ["samples", "complete %", "frames", "ends"]);
    let perf = Command::new("perf").arg("version").output().is_ok();
    for program in &programs {
        ours(bench, program)?;
        for chain in CHAINS.iter().filter(|_| perf) {
            let (samples, complete, frames) = perfs(bench, program, chain)?;
            let share = format!("{:.1}", 100.0 * complete as f64 / samples as f64);
            let mean = format!("{:.1}", frames as f64 / samples as f64);
            let what = format!("  perf --call-graph {chain}");
            row(&what, [&samples.to_string(), &share, &mean, ""]);
        }
    }
    if !perf {
        println!("  perf is not installed");
    }
    Ok(())
}

fn row(what: &str, [samples, complete, frames, ends]: [&str; 4]) {
    println!("  {what:<52} {samples:>8} {complete:>10} {frames:>8}  {ends}");
}

fn programs(bench: &Bench) -> Vec<Program> {
    let mut programs = Vec::new();
    let node = Path::new("/usr/bin/node");
    if node.exists() {
        for (name, option) in [("node", None), ("node --no-opt", Some("--no-opt"))] {
            let mut command = vec![node.into()];
            command.extend(option.map(OsString::from));
            command.extend([bench.target("deep.js").into(), SECONDS.into()]);
            programs.push(Program { name, command });
        }
    }
    let compiled = Command::new("javac")
        .arg("-d")
        .args([&bench.scratch, &bench.target("Deep.java")])
        .status();
    if compiled.is_ok_and(|status| status.success()) {
        let java = |name, options: &[&str]| {
            let mut command = vec![OsString::from("java")];
            command.extend(options.iter().map(OsString::from));
            command.extend(["-cp".into(), bench.scratch.clone().into()]);
            command.extend(["Deep".into(), SECONDS.into()]);
            Program { name, command }
        };
        programs.extend([
            java("java", &[]),
            java(
                "java -XX:+PreserveFramePointer",
                &["-XX:+PreserveFramePointer"],
            ),
            java(
                "java -XX:+PreserveFramePointer -Xint",
                &["-XX:+PreserveFramePointer", "-Xint"],
            ),
            java(
                "java -XX:+PreserveFramePointer, C1 alone",
                &["-XX:+PreserveFramePointer", "-XX:TieredStopAtLevel=1"],
            ),
        ]);
    }
    programs
}

fn ours(bench: &Bench, program: &Program) -> Result<(), String> {
    let command: Vec<_> = program.command.iter().map(OsString::as_os_str).collect();
    let folded = bench.path("jits.folded");
    let recording = record(bench, &["-F", RATE], &folded, &command)?;
    let samples = recording.number("samples");
    let share = 100.0 * recording.number("complete") / samples;
    row(
        &format!("{}: framewalk", program.name),
        [
            &samples.to_string(),
            &format!("{share:.1}"),
            &format!("{:.1}", recording.frames()),
            &ends(&recording.stats["stopped"]),
        ],
    );
    Ok(())
}

/// The reasons of the stacks that are not complete.
fn ends(stopped: &Value) -> String {
    let reasons = stopped.as_object().into_iter().flatten();
    let reasons: Vec<_> = reasons
        .map(|(why, count)| format!("{why} {count}"))
        .collect();
    reasons.join(", ")
}

/// Samples, those whose outermost frame is where threads begin, and frames.
fn perfs(bench: &Bench, program: &Program, chain: &str) -> Result<(u64, u64, u64), String> {
    let data = bench.path("jits.data");
    let mut perf = Command::new("perf");
    perf.args([
        "record",
        "-q",
        "-F",
        RATE,
        "-e",
        "cpu-clock",
        "--call-graph",
        chain,
        "-o",
    ]);
    perf.arg(&data).arg("--").args(&program.command);
    let run = perf.stdin(Stdio::null()).output();
    let run = run.map_err(|error| format!("perf: {error}"))?;
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into_owned());
    }
    let mut perf = Command::new("perf");
    // With inlined functions it takes many minutes for node.
    perf.args(["script", "--no-inline", "-F", "ip,sym", "-i"]);
    perf.arg(&data);
    perf.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = perf
        .spawn()
        .map_err(|error| format!("perf script: {error}"))?;
    let (mut samples, mut complete, mut frames) = (0, 0, 0);
    let mut last = String::new();
    let output = child.stdout.take().map(BufReader::new);
    let lines = output.into_iter().flat_map(BufRead::lines);
    // Samples are set apart by empty lines.
    for line in lines.chain([Ok(String::new())]) {
        let line = line.map_err(|error| format!("perf script: {error}"))?;
        if line.trim().is_empty() {
            samples += u64::from(!last.is_empty());
            let outermost = last.split_whitespace().nth(1).unwrap_or_default();
            complete += u64::from(outermost.starts_with("_start") || outermost.contains("clone3"));
            last.clear();
        } else {
            frames += 1;
            last = line;
        }
    }
    child
        .wait()
        .map_err(|error| format!("perf script: {error}"))?;
    let _ = std::fs::remove_file(&data);
    match samples {
        0 => Err("perf script printed no sample".into()),
        _ => Ok((samples, complete, frames)),
    }
}
