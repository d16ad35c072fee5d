//! What a sample costs the program that is sampled, everything included: the event, the program, the
//! scheduling of task work, the walk.
//!
//! A target with frame pointers, pinned to a CPU of its own, looks at the clock all the time and notes
//! the gaps: each is an interrupt with all that was done in it. The gap with `bpf_get_stack` and with
//! `framewalk record`, less the gap with an empty BPF program, is what a sample costs. Processors
//! are shared with neighbours who slow everything down for a while, so "the gap" is what one in twenty stays
//! below: that of an undisturbed processor. What a walk does to caches and the target notices later
//! is not in it.

use super::machine::{allow_rate, reserve_cpu, stopped};
use super::reference::{Counts, Reference};
use super::{Bench, heading};
use crate::run;
use serde_json::Value;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Ticks per second of the target's time.
const FREQUENCY: u32 = 20_000;
const ROUNDS: usize = 9;
/// Frames from the function that looks to main.
const DEPTHS: [u32; 3] = [8, 36, 127];
/// Of each run.
const MILLISECONDS: &str = "300";

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
    /// Nanoseconds of each gap.
    gaps: Vec<f64>,
    counts: Counts,
}

impl Runs {
    fn add(&mut self, mut gaps: Vec<f64>, counts: Counts) {
        self.gaps.append(&mut gaps);
        self.counts.samples += counts.samples;
        self.counts.run_ns += counts.run_ns;
        self.counts.frames += counts.frames;
    }

    /// The gap of a sample on an undisturbed processor. Other interrupts are much shorter.
    fn gap(&mut self) -> f64 {
        self.gaps.sort_by(f64::total_cmp);
        let median = self
            .gaps
            .get(self.gaps.len() / 2)
            .copied()
            .unwrap_or(f64::NAN);
        self.gaps.retain(|&gap| gap > median / 2.0);
        self.gaps
            .get(self.gaps.len() / 20)
            .copied()
            .unwrap_or(f64::NAN)
    }
}

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    stopped()?;
    let _sysctls = allow_rate(FREQUENCY)?;
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
        "cost of a sample at {FREQUENCY} Hz, {ROUNDS} runs of {MILLISECONDS} ms each, in turn; bpf_get_stack: by frame pointer"
    ));
    println!(
        "  {:<32} {:>8} {:>10} {:>9} {:>12} {:>16}",
        "target, method", "frames", "ns/sample", "ns/frame", "in programs", "x bpf_get_stack"
    );
    for frames in DEPTHS {
        let frames = frames.to_string();
        let target = [
            depth.as_os_str(),
            frames.as_ref(),
            MILLISECONDS.as_ref(),
            cpu.as_ref(),
        ];
        table(bench, &mut reference, &format!("C, {frames} deep"), &target)?;
    }
    println!("  limit: at most 1.0 x bpf_get_stack at 36");
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
            stopped()?;
            let (gaps, counts) = match method {
                Method::Empty => with_program(reference, false, target)?,
                Method::GetStack => with_program(reference, true, target)?,
                Method::Framewalk(mode) => with_framewalk(bench, mode, target)?,
            };
            runs.add(gaps, counts);
        }
    }
    let mut of_get_stack = f64::NAN;
    let [empty, measured @ ..] = &mut runs;
    let nothing = empty.gap();
    println!(
        "  {:<32} {:>8} {nothing:>10.0}   (all of it: the event and the look at the clock)",
        format!("{name}, empty program"),
        ""
    );
    for (method, runs) in METHODS.iter().skip(1).zip(measured) {
        let cost = runs.gap() - nothing;
        let samples = runs.counts.samples.max(1) as f64;
        let frames = runs.counts.frames as f64 / samples;
        let method_name = match method {
            Method::Framewalk(mode) => format!("framewalk, {mode}"),
            _ => "bpf_get_stack".to_string(),
        };
        if *method == Method::GetStack {
            of_get_stack = cost;
        }
        println!(
            "  {:<32} {frames:>8.1} {cost:>10.0} {:>9.1} {:>12.0} {:>16.2}",
            format!("{name}, {method_name}"),
            cost / frames,
            runs.counts.run_ns as f64 / samples,
            cost / of_get_stack,
        );
    }
    Ok(())
}

/// The gaps that the target prints.
fn gaps(text: &str) -> Result<Vec<f64>, String> {
    let gaps: Result<Vec<f64>, _> = text.lines().map(str::parse).collect();
    match gaps {
        Ok(gaps) if !gaps.is_empty() => Ok(gaps),
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
    Ok((gaps(&text)?, reference.take_counts()))
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
    let gaps = gaps(&String::from_utf8_lossy(&output.stdout))?;
    let stats = read_json(&stats)?;
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let counts = Counts {
        samples: number(&stats["samples"]),
        run_ns: number(&stats["kernel"]["run_ns"]),
        frames: number(&stats["frames"]),
    };
    Ok((gaps, counts))
}

pub(super) fn read_json(path: &Path) -> Result<Value, String> {
    let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}
