//! The same work recorded by `perf record --call-graph dwarf` and read by `perf script`.

use super::recorded::{record, workload};
use super::{Bench, heading, line};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The largest stack copy that perf can take.
const COPY: &str = "dwarf,65528";

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    if Command::new("perf").arg("version").output().is_err() {
        return Err("perf is not installed".into());
    }
    let workload = workload(bench)?;
    let command: Vec<_> = workload.iter().map(|word| word.as_os_str()).collect();

    let output = bench.path("dwarf.svg");
    let ours = record(bench, &["-F", "997"], &output, &command)?;

    let data = bench.path("perf.data");
    let mut perf = Command::new("perf");
    perf.args([
        "record",
        "-q",
        "-F",
        "997",
        "-e",
        "cpu-clock",
        "--call-graph",
        COPY,
        "-o",
    ]);
    perf.arg(&data).arg("--").args(&command);
    let before = children_cpu()?;
    let run = perf
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("perf: {error}"))?;
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into_owned());
    }
    // What the workload says of itself was not perf's.
    let own = String::from_utf8_lossy(&run.stdout);
    let own: f64 = own
        .trim()
        .parse()
        .map_err(|_| format!("the workload printed {own:?}"))?;
    let recording = (children_cpu()?.saturating_sub(before)).as_secs_f64() - own;

    let before = children_cpu()?;
    let (samples, frames) = script(&data)?;
    let reading = (children_cpu()?.saturating_sub(before)).as_secs_f64();
    let size = std::fs::metadata(&data)
        .map_err(|error| format!("{}: {error}", data.display()))?
        .len() as f64;

    heading(&format!(
        "the same beside perf record --call-graph {COPY} and perf script"
    ));
    line("perf: samples", samples as f64, "", "");
    line(
        "perf: frames per stack",
        frames as f64 / samples as f64,
        "",
        "",
    );
    line(
        "framewalk: frames per stack",
        ours.frames(),
        "",
        "at least perf's",
    );
    line("perf: data", size / 1e6, "MB", "");
    line(
        "framewalk: data from the kernel",
        ours.number("bytes") / 1e6,
        "MB",
        "",
    );
    let per_sample = size / samples as f64 / (ours.number("bytes") / ours.number("samples"));
    line(
        "data per sample, perf / framewalk",
        per_sample,
        "x",
        "at least 20",
    );
    line("perf: CPU time of record", recording, "s", "");
    line("perf: CPU time of script", reading, "s", "");
    line(
        "framewalk: CPU time, names included",
        ours.cpu.as_secs_f64(),
        "s",
        "",
    );
    let ratio = (recording + reading) / ours.cpu.as_secs_f64();
    line("CPU time, perf / framewalk", ratio, "x", "at least 5");
    Ok(())
}

/// CPU time of all children that ended, user and system (proc(5): cutime and cstime of `stat`).
fn children_cpu() -> Result<Duration, String> {
    let stat = std::fs::read_to_string("/proc/self/stat").map_err(|error| error.to_string())?;
    let fields = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace();
    let ticks: u64 = fields
        .skip(13)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_millis(ticks * 1000 / per_second.max(1)))
}

/// Samples and frames in what `perf script` prints: a line that is not indented begins a sample, each
/// indented one is a frame.
fn script(data: &std::path::Path) -> Result<(u64, u64), String> {
    let mut perf = Command::new("perf");
    perf.args(["script", "-i"]).arg(data);
    perf.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = perf
        .spawn()
        .map_err(|error| format!("perf script: {error}"))?;
    let (mut samples, mut frames) = (0, 0);
    for line in child
        .stdout
        .take()
        .map(BufReader::new)
        .into_iter()
        .flat_map(|lines| lines.split(b'\n'))
    {
        match line
            .map_err(|error| format!("perf script: {error}"))?
            .first()
        {
            Some(b' ' | b'\t') => frames += 1,
            Some(_) => samples += 1,
            None => {}
        }
    }
    child
        .wait()
        .map_err(|error| format!("perf script: {error}"))?;
    match samples {
        0 => Err("perf script printed no sample".into()),
        _ => Ok((samples, frames)),
    }
}
