//! Everything on the machine while a small crate is built again and again.

use super::recorded::record;
use super::{Bench, heading, line};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

const SECONDS: &str = "10";

/// Enough for the compiler and the linker to have something to do.
const SOURCE: &str = r#"use std::collections::{BTreeMap, HashMap};

fn count(text: &str) -> BTreeMap<String, usize> {
    let mut counts = HashMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word.to_lowercase()).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

fn main() {
    for (word, count) in count("so many words and so many more words") {
        println!("{word} {count}");
    }
}
"#;

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    let package = bench.path("small");
    write(&package).map_err(|error| format!("{}: {error}", package.display()))?;
    // The first build is not what is measured.
    build(&package)?;
    let stop = AtomicBool::new(false);
    let (builds, recording) = std::thread::scope(|scope| {
        let builder = scope.spawn(|| {
            let mut builds = 0;
            while !stop.load(Ordering::Relaxed) {
                write(&package).map_err(|error| error.to_string())?;
                build(&package)?;
                builds += 1;
            }
            Ok::<_, String>(builds)
        });
        let output = bench.path("build.svg");
        let recording = record(bench, &["-a", "-F", "997", "-d", SECONDS], &output, &[]);
        stop.store(true, Ordering::Relaxed);
        let builds = builder
            .join()
            .unwrap_or_else(|_| Err("the building thread panicked".into()));
        (builds, recording)
    });
    let (builds, recording) = (builds?, recording?);

    let stopped = &recording.stats["stopped"];
    // Kernel threads have no user stack, and neither have threads inside execve or behind the end of
    // their address space.
    let count = |reason: &str| stopped[reason].as_f64().unwrap_or(0.0);
    let threads = recording.number("samples") - count("kernel-thread");
    let users = threads - count("exec") - count("exited");
    heading(&format!(
        "cargo build of a small crate in a loop, framewalk record -a -d {SECONDS}"
    ));
    line("builds", f64::from(builds), "", "");
    line("samples of user threads", threads, "", "");
    line("samples with a user stack", users, "", "");
    line(
        "complete, of those with a user stack",
        100.0 * recording.number("complete") / users,
        "%",
        "at least 90",
    );
    line(
        "complete, of all of user threads",
        100.0 * recording.number("complete") / threads,
        "%",
        "",
    );
    for (reason, count) in stopped.as_object().into_iter().flatten() {
        let count = count.as_f64().unwrap_or(0.0);
        if reason != "kernel-thread" {
            line(
                &format!("  not complete: {reason}"),
                100.0 * count / threads,
                "%",
                "",
            );
        }
    }
    line("lost", recording.number("lost"), "", "");
    line(
        "CPU time of framewalk",
        recording.cpu.as_secs_f64(),
        "s",
        "",
    );
    Ok(())
}

/// Writes the package; its source is as good as new each time.
fn write(package: &Path) -> std::io::Result<()> {
    let manifest =
        "[package]\nname = \"small\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n";
    std::fs::create_dir_all(package.join("src"))?;
    std::fs::write(package.join("Cargo.toml"), manifest)?;
    std::fs::write(package.join("src/main.rs"), SOURCE)
}

fn build(package: &Path) -> Result<(), String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "--offline"])
        .current_dir(package);
    cargo
        .env("CARGO_TARGET_DIR", package.join("target"))
        .stdin(Stdio::null());
    let status = crate::run::status(cargo)?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("cargo build: {status}")),
    }
}
