//! What the guests run, built here: there is no compiler in them.

use super::initramfs::Initramfs;
use super::payloads::{PAYLOADS, Payload, Program, target};
use crate::run;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Builds the programs of these payloads and writes the guests' file system. Payloads whose source
/// does not exist are left out; says which are in.
pub(super) fn pack(chosen: &[&'static Payload], directory: &Path) -> Result<Packed, String> {
    let artifacts = artifacts(chosen)?;
    let mut initramfs = Initramfs::default();
    // By way of /proc: cargo may have replaced the file since this program began.
    let this = format!("/proc/{}/exe", std::process::id());
    initramfs.program("/init", Path::new(&this))?;
    let mut payloads = Vec::new();
    for &payload in chosen {
        let program = match payload.program {
            Program::Test(package, test) => artifacts.get(&(package.into(), test.into(), true)),
            Program::Example(package, name) => artifacts.get(&(package.into(), name.into(), false)),
            Program::Record => artifacts.get(&("framewalk".into(), "framewalk".into(), false)),
        };
        match (program, &payload.program) {
            (Some(program), _) => initramfs.program(&payload.place(), program)?,
            (None, Program::Test(package, test)) if !exists(package, test) => continue,
            (None, program) => return Err(format!("cargo built no {program:?}")),
        }
        for name in payload.targets {
            initramfs.program(&target(name), &compile(name, directory)?)?;
        }
        payloads.push(payload);
    }
    let archive = directory.join("initramfs.cpio");
    initramfs.write(&archive)?;
    Ok(Packed { archive, payloads })
}

#[derive(Debug)]
pub(super) struct Packed {
    pub(super) archive: PathBuf,
    pub(super) payloads: Vec<&'static Payload>,
}

impl Packed {
    /// A payload that is in, by its name.
    pub(super) fn payload(&self, name: &str) -> Option<&'static Payload> {
        let payloads = &mut self.payloads.iter().copied();
        payloads.find(|payload| payload.name == name)
    }
}

/// Whether a test of a package has a source.
fn exists(package: &str, test: &str) -> bool {
    let folder = package.strip_prefix("framewalk-").unwrap_or(package);
    let tests = run::top().join("crates").join(folder).join("tests");
    tests.join(format!("{test}.rs")).exists() || tests.join(test).exists()
}

/// Package, target, whether it is a test; executable.
type Artifacts = BTreeMap<(String, String, bool), PathBuf>;

/// A test that runs the program itself: to build it is to build the program.
const BRINGS_FRAMEWALK: &str = "command";

/// Builds as `./run test` does, so that neither does the other's work again, and no more than is needed.
fn artifacts(payloads: &[&Payload]) -> Result<Artifacts, String> {
    let mut words = vec![
        "test",
        "--workspace",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ];
    for payload in payloads {
        words.extend(match payload.program {
            Program::Test(package, test) if exists(package, test) => ["--test", test],
            Program::Test(..) => continue,
            Program::Example(..) => continue,
            Program::Record => ["--test", BRINGS_FRAMEWALK],
        });
    }
    let mut artifacts = built(&words)?;
    for payload in payloads {
        // As a test, an example would be another program.
        if let Program::Example(package, name) = payload.program {
            let words = ["build", "--package", package, "--example", name];
            let json = "--message-format=json-render-diagnostics";
            artifacts.append(&mut built(&[&words[..], &[json]].concat())?);
        }
    }
    Ok(artifacts)
}

/// Runs cargo; the executables that it made.
fn built(words: &[&str]) -> Result<Artifacts, String> {
    let output = run::cargo(words).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo {}: {}", words.join(" "), output.status));
    }
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

/// The executables among cargo's messages.
fn executables(messages: &str) -> Artifacts {
    let mut all = Artifacts::new();
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        if let Some(executable) = message["executable"].as_str() {
            let (target, is_test) = (&message["target"], &message["profile"]["test"]);
            let is_test = is_test.as_bool().unwrap_or(false);
            // Unit tests of a library are tests, too; those of a folder `tests` have a kind of their own.
            if is_test && target["kind"][0] != "test" {
                continue;
            }
            let manifest = text(&message["manifest_path"]);
            let folder = Path::new(&manifest).parent().and_then(Path::file_name);
            let folder = folder.and_then(|name| name.to_str()).unwrap_or_default();
            let package = match folder {
                "framewalk" => folder.to_string(),
                folder => format!("framewalk-{folder}"),
            };
            all.insert((package, text(&target["name"]), is_test), executable.into());
        }
    }
    all
}

/// Compiles a target program: without frame pointers, as most programs are.
fn compile(name: &str, directory: &Path) -> Result<PathBuf, String> {
    let program = directory.join("targets").join(name);
    fs::create_dir_all(directory.join("targets"))
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let mut gcc = Command::new("gcc");
    gcc.args([
        "-O2",
        "-fomit-frame-pointer",
        "-fno-optimize-sibling-calls",
        "-pthread",
        "-o",
    ]);
    gcc.arg(&program)
        .arg(run::top().join(format!("dev/targets/{name}.c")));
    match run::status(gcc)? {
        status if status.success() => Ok(program),
        status => Err(format!("gcc of dev/targets/{name}.c: {status}")),
    }
}

/// The payloads with these names; all without names.
pub(super) fn chosen(names: &[&str]) -> Vec<&'static Payload> {
    let all = PAYLOADS.iter();
    all.filter(|payload| names.is_empty() || names.contains(&payload.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_among_messages() {
        let messages = r#"
not json
{"reason":"compiler-artifact","executable":null,"target":{"name":"walk"}}
{"reason":"compiler-artifact","manifest_path":"/top/crates/kernel/Cargo.toml","target":{"kind":["test"],"name":"walk"},"profile":{"test":true},"executable":"/target/debug/deps/walk-1"}
{"reason":"compiler-artifact","manifest_path":"/top/crates/kernel/Cargo.toml","target":{"kind":["lib"],"name":"framewalk_kernel"},"profile":{"test":true},"executable":"/target/debug/deps/framewalk_kernel-1"}
{"reason":"compiler-artifact","manifest_path":"/top/crates/framewalk/Cargo.toml","target":{"kind":["bin"],"name":"framewalk"},"profile":{"test":true},"executable":"/target/debug/deps/framewalk-1"}
{"reason":"compiler-artifact","manifest_path":"/top/crates/framewalk/Cargo.toml","target":{"kind":["bin"],"name":"framewalk"},"profile":{"test":false},"executable":"/target/debug/framewalk"}
{"reason":"build-finished","success":true}
"#;
        let all: Vec<_> = executables(messages).into_iter().collect();
        let key = |package: &str, name: &str, test| (package.to_string(), name.to_string(), test);
        let known = [
            (
                key("framewalk", "framewalk", false),
                "/target/debug/framewalk".into(),
            ),
            (
                key("framewalk-kernel", "walk", true),
                "/target/debug/deps/walk-1".into(),
            ),
        ];
        assert_eq!(all, known);
    }

    #[test]
    fn a_test_without_a_source_is_known() {
        assert!(exists("framewalk-kernel", "walk") && exists("framewalk", "recording"));
        assert!(!exists("framewalk-kernel", "nothing"));
        assert!(exists("framewalk", BRINGS_FRAMEWALK));
    }
}
