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

/// `oracle convert [PATH...]`, `oracle readelf FILE...`, `oracle step [--boundaries N] [--markdown] [--peers] [PROGRAM...]`,
/// `oracle machines [--boundaries N] [--markdown] [MACHINE...]`.
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
        ["machines", words @ ..] => {
            let bin = "framewalk-oracle-machines";
            let stepper = [
                "run",
                "--release",
                "--package",
                "framewalk-oracle",
                "--bin",
                bin,
            ];
            run::exit(run::cargo(&[&stepper[..], &["--"], words].concat()))
        }
        _ => {
            eprintln!(
                "usage: oracle convert [PATH...] | readelf FILE... | \
                 step [--boundaries N] [--markdown] [--peers] [PROGRAM...] | \
                 machines [--boundaries N] [--markdown] [MACHINE...]"
            );
            ExitCode::from(2)
        }
    }
}
