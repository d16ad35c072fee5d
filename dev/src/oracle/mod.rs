//! Comparisons with other people's readers of the same facts.

mod convert;
pub(crate) mod elf;
#[path = "../../../crates/sframe/tests/hostile/machine.rs"]
mod machine;
mod readelf;
#[path = "../../../crates/sframe/tests/hostile/truth.rs"]
mod truth;

use crate::run;
use std::process::ExitCode;

/// `oracle convert [PATH...]`, `oracle readelf FILE...`, `oracle step [--boundaries N] [--markdown] [--peers] [PROGRAM...]`.
pub(crate) fn run(words: &[&str]) -> ExitCode {
    match words {
        ["convert", paths @ ..] => convert::run(paths),
        ["readelf", files @ ..] if !files.is_empty() => readelf::run(files),
        ["step", words @ ..] => {
            let mut stepper = vec!["run", "--release", "--package", "framewalk-oracle"];
            if words.contains(&"--peers") {
                stepper.extend(["--features", "framehop"]);
            }
            stepper.push("--");
            run::exit(run::cargo(&[&stepper[..], words].concat()))
        }
        _ => {
            eprintln!(
                "usage: oracle convert [PATH...] | readelf FILE... | \
                 step [--boundaries N] [--markdown] [--peers] [PROGRAM...]"
            );
            ExitCode::from(2)
        }
    }
}
