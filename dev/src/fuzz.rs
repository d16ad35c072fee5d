//! `fuzz`: runs the targets of `fuzz/` under libFuzzer, built as cargo-fuzz does, but by the stable compiler: the code
//! under test is safe Rust, so nothing but the compiler's coverage is needed, and no sanitizer.

use crate::run;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGETS: &[&str] = &["area", "convert", "files", "registry", "section", "texts", "walk"];
const SECONDS: &str = "60";
const MANIFEST: &str = "fuzz/Cargo.toml";

/// What libFuzzer wants to know of a program, and the order of its comparisons as they were written.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// Longer inputs find nothing that shorter ones do not.
const LONGEST: &str = "-max_len=4096";
/// What one input may take: seconds, and MiB of memory.
const BOUNDS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=1024"];

/// Checks the targets, and what is in them, without libFuzzer.
const CLIPPY: &[&str] = &[
    "clippy",
    "--locked",
    "--manifest-path",
    MANIFEST,
    "--all-targets",
    "--",
    "-D",
    "warnings",
];
const FMT: &[&str] = &["fmt", "--manifest-path", MANIFEST, "--check"];
/// Runs the inputs that are checked in, without libFuzzer.
const CORPUS: &[&str] = &[
    "test",
    "--locked",
    "--manifest-path",
    MANIFEST,
    "--lib",
    "--",
    "--show-output",
];

/// The formatting and lints, as those of the workspace are checked.
pub(crate) fn checks() -> [(&'static str, Command); 2] {
    [("fmt of fuzz", FMT), ("clippy of fuzz", CLIPPY)].map(|(name, words)| (name, cargo(words)))
}

/// Its tests.
pub(crate) fn tests() -> Command {
    cargo(CORPUS)
}

/// Runs cargo for the other workspace: what it builds lies beside what is built here.
fn cargo(words: &[&str]) -> Command {
    let mut cargo = run::cargo(words);
    cargo.env("CARGO_TARGET_DIR", run::target().join("fuzz"));
    cargo
}

pub(crate) fn run(words: &[&str]) -> ExitCode {
    let (targets, rest) = match words.split_first() {
        Some((name, rest)) if TARGETS.contains(name) => (vec![*name], rest),
        _ => (TARGETS.to_vec(), words),
    };
    let seconds = match rest {
        [] => SECONDS,
        [seconds] if seconds.parse::<u32>().is_ok() => seconds,
        _ => return run::fail("usage: ./run fuzz [TARGET] [SECONDS]"),
    };
    for target in targets {
        match fuzz(target, seconds) {
            Ok(()) => {}
            Err(why) => return run::fail(&format!("fuzz {target}: {why}")),
        }
    }
    ExitCode::SUCCESS
}

fn fuzz(target: &str, seconds: &str) -> Result<(), String> {
    let here = run::target().join("fuzz");
    let program = build(target, &here)?;
    // What is found is kept here, and with it what made it fail; what is checked in is only read.
    let [corpus, artifacts] = ["corpus", "artifacts"].map(|name| here.join(name).join(target));
    for directory in [&corpus, &artifacts] {
        fs::create_dir_all(directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    let mut command = Command::new(program);
    command
        .args([LONGEST, "-print_final_stats=1"])
        .args(BOUNDS)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(&corpus)
        .arg(run::top().join("fuzz/corpus").join(target));
    match run::status(command)? {
        status if status.success() => Ok(()),
        status => Err(format!("{status}; see {}", artifacts.display())),
    }
}

fn build(target: &str, here: &Path) -> Result<PathBuf, String> {
    let host = host()?;
    // With a target named, what runs while building is built without these flags.
    let words = ["build", "--locked", "--release", "--features", "run"];
    let mut cargo = cargo(&words);
    cargo.args([
        "--manifest-path",
        MANIFEST,
        "--bin",
        target,
        "--target",
        &host,
    ]);
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env("RUSTFLAGS", FLAGS.join(" "));
    let status = run::status(cargo)?;
    match status.success() {
        true => Ok(here.join(host).join("release").join(target)),
        false => Err(format!("cargo {}: {status}", words.join(" "))),
    }
}

/// The triple of this machine.
fn host() -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output();
    let output = output.map_err(|error| format!("rustc: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_string)
        .ok_or("rustc does not say what it compiles for".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_source_and_a_corpus() {
        let fuzz = run::top().join("fuzz");
        let sources = fs::read_dir(fuzz.join("targets")).unwrap();
        let sources = sources.map(|entry| entry.unwrap().path());
        let mut names: Vec<_> = sources
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_string())
            .collect();
        names.sort();
        assert_eq!(names, TARGETS);
        for target in TARGETS {
            let corpus = fs::read_dir(fuzz.join("corpus").join(target)).unwrap();
            let bytes: u64 = corpus.map(|f| f.unwrap().metadata().unwrap().len()).sum();
            assert!((1..32 << 10).contains(&bytes), "{target}: {bytes} bytes");
        }
    }

    #[test]
    fn other_words_are_refused() {
        assert_eq!(run(&["nothing"]), ExitCode::FAILURE);
        assert_eq!(run(&["area", "many"]), ExitCode::FAILURE);
    }
}
