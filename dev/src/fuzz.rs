//! `fuzz`: runs the targets of `fuzz/` under libFuzzer, built as cargo-fuzz does, but by the stable compiler: the code
//! under test is safe Rust, so nothing but the compiler's coverage is needed, and no sanitizer.

mod campaign;
mod corpora;

use crate::run;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

const TARGETS: &[&str] = &[
    "area", "convert", "files", "registry", "section", "texts", "walk",
];
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
/// What one input may take: seconds by the clock, on a machine that does other things, too, and MiB of memory.
const BOUNDS: [&str; 2] = ["-timeout=30", "-rss_limit_mb=1024"];

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

/// `fuzz TARGET [SECONDS]`, `fuzz all [SECONDS]` or several targets, `fuzz keep`.
pub(crate) fn run(words: &[&str]) -> ExitCode {
    let done = match words {
        ["keep"] => corpora::keep(TARGETS),
        _ => match asked(words) {
            Some((targets, seconds)) => match targets[..] {
                [target] => fuzz(target, seconds),
                _ => campaign::run(&targets, seconds),
            },
            None => Err("usage: ./run fuzz TARGET... [SECONDS] | all [SECONDS] | keep".to_string()),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => run::fail(&format!("fuzz: {why}")),
    }
}

/// The targets and the seconds that are asked for.
fn asked<'a>(words: &[&'a str]) -> Option<(Vec<&'a str>, &'a str)> {
    let (names, seconds) = match words {
        [names @ .., seconds] if seconds.parse::<u32>().is_ok() => (names, *seconds),
        names => (names, SECONDS),
    };
    match names {
        ["all"] => Some((TARGETS.to_vec(), seconds)),
        [] => None,
        names if names.iter().all(|name| TARGETS.contains(name)) => Some((names.to_vec(), seconds)),
        _ => None,
    }
}

/// Runs one target, for people to watch.
fn fuzz(target: &str, seconds: &str) -> Result<(), String> {
    build(&[target])?;
    let found = Place::of(target)?;
    match run::status(found.command(seconds))? {
        status if status.success() => Ok(()),
        status => Err(format!(
            "{target}: {status}; see {}",
            found.artifacts.display()
        )),
    }
}

/// Where a target is, what it has found interesting, and what made it fail. What is checked in is only read.
struct Place {
    program: PathBuf,
    corpus: PathBuf,
    artifacts: PathBuf,
    checked_in: PathBuf,
}

impl Place {
    fn of(target: &str) -> Result<Place, String> {
        let here = run::target().join("fuzz");
        let [corpus, artifacts] = ["corpus", "artifacts"].map(|name| here.join(name).join(target));
        for directory in [&corpus, &artifacts] {
            fs::create_dir_all(directory)
                .map_err(|error| format!("{}: {error}", directory.display()))?;
        }
        Ok(Place {
            program: here.join(host()?).join("release").join(target),
            corpus,
            artifacts,
            checked_in: run::top().join("fuzz/corpus").join(target),
        })
    }

    fn command(&self, seconds: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args([LONGEST, "-print_final_stats=1"])
            .args(BOUNDS)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", self.artifacts.display()))
            .args([&self.corpus, &self.checked_in]);
        command
    }
}

fn build(targets: &[&str]) -> Result<(), String> {
    // With a triple named, what runs while building is built without these flags.
    let words = ["build", "--locked", "--release", "--features", "run"];
    let mut cargo = cargo(&words);
    cargo.args(["--manifest-path", MANIFEST, "--target", &host()?]);
    cargo.args(targets.iter().flat_map(|target| ["--bin", target]));
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env("RUSTFLAGS", FLAGS.join(" "));
    let status = run::status(cargo)?;
    match status.success() {
        true => Ok(()),
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
            assert!(
                (1..=corpora::MOST_KEPT).contains(&bytes),
                "{target}: {bytes} bytes"
            );
        }
    }

    #[test]
    fn other_words_are_refused() {
        for words in [
            &["nothing"][..],
            &["area", "many"],
            &["all", "area"],
            &["7"],
            &[],
        ] {
            assert_eq!(asked(words), None);
            assert_eq!(run(words), ExitCode::FAILURE);
        }
        assert_eq!(
            asked(&["walk", "area", "7"]),
            Some((vec!["walk", "area"], "7"))
        );
        assert_eq!(asked(&["all"]), Some((TARGETS.to_vec(), SECONDS)));
    }
}
