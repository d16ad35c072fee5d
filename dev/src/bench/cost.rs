//! What a sample costs the program that is sampled, everything included: the event, the program, the
//! scheduling of task work, the walk.
//!
//! A target, pinned to a CPU of its own, does equal units of work and says how long each took: with an
//! empty BPF program on a fast clock, with `bpf_get_stack`, with `framewalk record`, in turn, many
//! short runs. Machines are shared and their clocks change, so a method's time is the lower quartile of
//! its units; its difference to that of the empty program, divided by the ticks, is the cost.

use super::machine::{Sysctl, reserve_cpu};
use super::reference::{Counts, Reference};
use super::{Bench, heading};
use crate::run;
use serde_json::Value;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Ticks per second of the target's time.
const FREQUENCY: u32 = 20_000;
const ROUNDS: usize = 15;
/// Frames from the function that works to main.
const DEPTHS: [u32; 3] = [8, 36, 127];
/// Units of about 5 ms, that is of 100 ticks.
const UNITS: &str = "60";

#[derive(Clone, Copy, PartialEq)]
enum Method {
    Empty,
    GetStack,
    Framewalk(&'static str),
}

const METHODS: [Method; 5] = [
    Method::Empty,
    Method::GetStack,
    Method::Framewalk("auto"),
    Method::Framewalk("deferred"),
    Method::Framewalk("immediate"),
];

/// What the runs of one method came to.
#[derive(Default)]
struct Runs {
    /// Nanoseconds of each unit, run by run.
    units: Vec<Vec<f64>>,
    counts: Counts,
}

fn lower_quartile(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 4).copied().unwrap_or(f64::NAN)
}

impl Runs {
    /// Nanoseconds of a unit.
    fn unit(&self) -> f64 {
        lower_quartile(self.units.concat())
    }

    /// Half of what lies between the quartiles of the same number taken run by run.
    fn spread(&self) -> f64 {
        let mut each: Vec<f64> = self.units.iter().cloned().map(lower_quartile).collect();
        each.sort_by(f64::total_cmp);
        let at = |quarter: usize| {
            each.get(each.len() * quarter / 4)
                .copied()
                .unwrap_or(f64::NAN)
        };
        (at(3) - at(1)) / 2.0
    }
}

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    let _rate = Sysctl::set("/proc/sys/kernel/perf_event_max_sample_rate", "100000")?;
    let _share = Sysctl::set("/proc/sys/kernel/perf_cpu_time_max_percent", "0")?;
    let cpu = reserve_cpu()?.to_string();
    let mut reference = Reference::load()?;

    let depth = bench.path("depth");
    let mut gcc = Command::new("gcc");
    gcc.args([
        "-O2",
        "-fno-omit-frame-pointer",
        "-mno-omit-leaf-frame-pointer",
    ]);
    gcc.args(["-fno-optimize-sibling-calls", "-o"])
        .arg(&depth)
        .arg(bench.target("depth.c"));
    if !run::status(gcc)?.success() {
        return Err("depth.c could not be compiled".into());
    }

    heading(&format!(
        "cost of a sample at {FREQUENCY} Hz, {ROUNDS} runs of {UNITS} units each; bpf_get_stack: by frame pointer"
    ));
    println!(
        "  {:<30} {:>8} {:>11} {:>10} {:>13} {:>15}",
        "target, method", "frames", "ns/sample", "ns/frame", "in programs", "x bpf_get_stack"
    );
    for frames in DEPTHS {
        let frames = frames.to_string();
        let target = [
            depth.as_os_str(),
            frames.as_ref(),
            UNITS.as_ref(),
            cpu.as_ref(),
        ];
        table(bench, &mut reference, &format!("C, {frames} deep"), &target)?;
    }
    let script = bench.target("workload.py");
    let target = [
        super::python()?.as_ref(),
        script.as_os_str(),
        "units".as_ref(),
        UNITS.as_ref(),
        cpu.as_ref(),
    ];
    table(bench, &mut reference, "python3", &target)?;
    println!("  limits: at most 1.0 x bpf_get_stack at 36; python3 at most 8000 ns a sample");
    Ok(())
}

type Target<'a> = [&'a std::ffi::OsStr];

/// Measures all methods on one target, interleaved.
fn table(
    bench: &Bench,
    reference: &mut Reference,
    name: &str,
    target: &Target,
) -> Result<(), String> {
    let mut runs: [Runs; METHODS.len()] = Default::default();
    for _ in 0..ROUNDS {
        for (method, runs) in METHODS.iter().zip(&mut runs) {
            let (units, counts) = match method {
                Method::Empty => with_program(reference, false, target)?,
                Method::GetStack => with_program(reference, true, target)?,
                Method::Framewalk(mode) => with_framewalk(bench, mode, target)?,
            };
            runs.units.push(units);
            runs.counts.samples += counts.samples;
            runs.counts.run_ns += counts.run_ns;
            runs.counts.frames += counts.frames;
        }
    }
    let empty = runs[0].unit();
    let mut get_stack = f64::NAN;
    for (method, runs) in METHODS.iter().zip(&runs).skip(1) {
        let unit = runs.unit();
        let ticks = unit / 1e9 * f64::from(FREQUENCY);
        let cost = (unit - empty) / ticks;
        let samples = runs.counts.samples.max(1) as f64;
        let frames = runs.counts.frames as f64 / samples;
        let method_name = match method {
            Method::Framewalk(mode) => format!("framewalk, {mode}"),
            _ => "bpf_get_stack".to_string(),
        };
        if *method == Method::GetStack {
            get_stack = cost;
        }
        println!(
            "  {:<30} {frames:>8.1} {cost:>11.0} {:>10.1} {:>13.0} {:>15.2}",
            format!("{name}, {method_name}"),
            cost / frames,
            runs.counts.run_ns as f64 / samples,
            cost / get_stack,
        );
    }
    let ticks = empty / 1e9 * f64::from(FREQUENCY);
    println!(
        "  {:<30} spread of the empty program: +-{:.0} ns/sample",
        "",
        runs[0].spread() / ticks
    );
    Ok(())
}

/// The numbers that the target prints.
fn units(text: &str) -> Result<Vec<f64>, String> {
    let units: Result<Vec<f64>, _> = text.lines().map(str::parse).collect();
    match units {
        Ok(units) if !units.is_empty() => Ok(units),
        _ => Err(format!("the target printed {text:?}")),
    }
}

fn with_program(
    reference: &mut Reference,
    get_stack: bool,
    target: &Target,
) -> Result<(Vec<f64>, Counts), String> {
    let (program, arguments) = target.split_first().ok_or("no target")?;
    let fail = |error: std::io::Error| format!("{}: {error}", program.display());
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().map_err(fail)?;
    let link = reference.attach(get_stack, child.id(), FREQUENCY)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(b"\n").map_err(fail)?;
    }
    let mut text = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut text).map_err(fail)?;
    }
    child.wait().map_err(fail)?;
    drop(link);
    Ok((units(&text)?, reference.take_counts()))
}

fn with_framewalk(
    bench: &Bench,
    mode: &str,
    target: &Target,
) -> Result<(Vec<f64>, Counts), String> {
    let (folded, stats) = (bench.path("cost.folded"), bench.path("cost.json"));
    let mut command = Command::new(&bench.framewalk);
    command.args(["record", "--engine", "kernel", "--mode", mode, "-F"]);
    command
        .arg(FREQUENCY.to_string())
        .arg("-o")
        .arg(&folded)
        .arg("--stats")
        .arg(&stats);
    let output = command.arg("--").args(target).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("framewalk: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let units = units(&String::from_utf8_lossy(&output.stdout))?;
    let stats = read_json(&stats)?;
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let counts = Counts {
        samples: number(&stats["samples"]),
        run_ns: number(&stats["kernel"]["run_ns"]),
        frames: number(&stats["frames"]),
    };
    Ok((units, counts))
}

pub(super) fn read_json(path: &Path) -> Result<Value, String> {
    let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}
