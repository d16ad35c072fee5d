//! The generators of code that are recorded: package framewalk-jits.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds one of them; says where it is then.
pub(crate) fn program(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "framewalk-jits", "--bin", name])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.unwrap().success(), "cargo build {name}");
    target.join("debug").join(name)
}
