//! `demo`: a flame graph of Debian's python3, which has no frame pointers.

use crate::run;
use std::process::{Command, ExitCode};

const PYTHON: &str = "/usr/bin/python3";
const SECONDS: &str = "5";

pub(crate) fn run(options: &[&str]) -> ExitCode {
    let framewalk = match run::framewalk() {
        Ok(framewalk) => framewalk,
        Err(error) => return run::fail(&error),
    };
    let output = run::top().join("flamegraph.svg");
    let mut record = Command::new(framewalk);
    record.arg("record").arg("-o").arg(&output).args(options);
    record.args(["--", PYTHON]);
    record
        .arg(run::top().join("dev/targets/workload.py"))
        .arg(SECONDS);
    match run::status(record) {
        Ok(status) if status.success() => {
            println!("open this in a browser: {}", output.display());
            ExitCode::SUCCESS
        }
        Ok(status) => run::fail(&format!("framewalk record: {status}")),
        Err(error) => run::fail(&error),
    }
}
