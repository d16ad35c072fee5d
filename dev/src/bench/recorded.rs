//! A recording as people make it: Debian's python3 at 997 Hz.

use super::{Bench, heading, line};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const SECONDS: &str = "5";

/// A recording of the workload.
pub(super) struct Recording {
    pub(super) stats: Value,
    /// CPU time of framewalk itself, recording and looking names up.
    pub(super) cpu: Duration,
}

impl Recording {
    pub(super) fn number(&self, name: &str) -> f64 {
        self.stats[name].as_f64().unwrap_or(f64::NAN)
    }

    pub(super) fn frames(&self) -> f64 {
        self.number("frames") / self.number("samples")
    }
}

/// Records the workload; None for its own CPU time where the target does not print it.
pub(super) fn record(
    bench: &Bench,
    options: &[&str],
    output: &Path,
    command: &[&std::ffi::OsStr],
) -> Result<Recording, String> {
    let stats = bench.path("recorded.json");
    let mut framewalk = Command::new(&bench.framewalk);
    framewalk
        .arg("record")
        .args(options)
        .arg("-o")
        .arg(output)
        .arg("--stats")
        .arg(&stats);
    if !command.is_empty() {
        framewalk.arg("--").args(command);
    }
    let run = framewalk
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("framewalk: {error}"))?;
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into_owned());
    }
    let stats = super::cost::read_json(&stats)?;
    let cpu = stats["cpu_seconds"]
        .as_f64()
        .ok_or("no cpu_seconds in the statistics")?;
    let cpu = Duration::try_from_secs_f64(cpu).map_err(|error| error.to_string())?;
    Ok(Recording { stats, cpu })
}

/// The workload of all measurements on python3.
pub(super) fn workload(bench: &Bench) -> Result<[std::ffi::OsString; 4], String> {
    Ok([
        super::python()?.into(),
        bench.target("workload.py").into(),
        SECONDS.into(),
        "cpu".into(),
    ])
}

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    let workload = workload(bench)?;
    let command: Vec<_> = workload.iter().map(|word| word.as_os_str()).collect();
    let svg = bench.path("recorded.svg");
    let recording = record(bench, &["--engine", "kernel", "-F", "997"], &svg, &command)?;
    let samples = recording.number("samples");
    heading(&format!(
        "python3, {SECONDS} s at 997 Hz, framewalk record -o .svg"
    ));
    line("samples", samples, "", "");
    line(
        "complete",
        100.0 * recording.number("complete") / samples,
        "%",
        "at least 99",
    );
    line("lost", recording.number("lost"), "", "");
    line("frames per stack", recording.frames(), "", "");
    let kernel = &recording.stats["kernel"]["run_ns"];
    line(
        "in the programs, per sample",
        kernel.as_f64().unwrap_or(f64::NAN) / samples / 1000.0,
        "us",
        "at most 8",
    );
    line(
        "from the kernel, per sample",
        recording.number("bytes") / samples,
        "bytes",
        "",
    );
    line(
        "CPU time of framewalk",
        recording.cpu.as_secs_f64(),
        "s",
        "",
    );
    Ok(())
}
