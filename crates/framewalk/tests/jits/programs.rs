//! The generators of code that are recorded: package framewalk-jits.
#![allow(dead_code)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds one of them, for speed if asked to; says where it is then.
pub(crate) fn program(name: &str, fast: bool) -> PathBuf {
    build(&["--bin", name], fast).join(name)
}

/// Builds a library that is loaded into another generator.
pub(crate) fn example(name: &str) -> PathBuf {
    let directory = build(&["--example", name], false);
    directory.join("examples").join(format!("lib{name}.so"))
}

fn build(what: &[&str], fast: bool) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "-p", "framewalk-jits"])
        .args(what)
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if fast {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success(), "cargo build {what:?}");
    target.join(if fast { "release" } else { "debug" })
}

/// The words that run a program twice, with one list of arguments and then with another. Samples that meet a file for the first time are
/// finished outside of the kernel, where areas cannot be read: it is too late to believe them. In the second run
/// all files are known.
pub(crate) fn twice(program: &Path, first: &[&str], second: &[&str]) -> Vec<OsString> {
    let line = |arguments: &[&str]| format!("'{}' '{}'", program.display(), arguments.join("' '"));
    let both = format!("{} && {}", line(first), line(second));
    ["sh", "-c", &both].map(OsString::from).into()
}
