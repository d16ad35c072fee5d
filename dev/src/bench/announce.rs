//! What announcing costs a process, and what many announced sections cost walks: the kernel crate's example
//! `announce_cost`, which also runs where there is nothing but a kernel.

use super::{Bench, heading};
use crate::run;

pub(super) fn run(_: &Bench) -> Result<(), String> {
    heading("announcements (limit: registering costs at most 3000 ns beyond an unknown option)");
    let arguments = [
        "run",
        "--quiet",
        "--release",
        "--package",
        "framewalk-kernel",
    ];
    let example = ["--example", "announce_cost"];
    let mut cargo = run::cargo(&arguments);
    cargo.args(example);
    match run::status(cargo)? {
        status if status.success() => Ok(()),
        status => Err(format!("announce_cost: {status}")),
    }
}
