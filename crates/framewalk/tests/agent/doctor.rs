//! What is possible here.

use crate::running::{Agent, Folder, framewalk, skip, stderr, stdout};
use std::path::Path;
use std::process::{Command, Output};

/// Runs framewalk as somebody without privileges.
pub(crate) fn as_nobody(test: &str, arguments: &[&str]) -> Option<Output> {
    let program = Path::new(env!("CARGO_BIN_EXE_framewalk"));
    if !rustix::process::geteuid().is_root() {
        return Some(framewalk(arguments));
    }
    // The program may lie where only root can go.
    let copy = std::env::temp_dir().join(format!("framewalk-{test}-{}", std::process::id()));
    std::fs::copy(program, &copy).unwrap();
    let output = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--bounding-set=-all",
        ])
        .arg(&copy)
        .args(arguments)
        .output();
    std::fs::remove_file(&copy).unwrap();
    match output {
        Ok(output) => Some(output),
        Err(error) => {
            skip(test, &format!("setpriv: {error}"));
            None
        }
    }
}

/// The lines, and whether each says yes, no or nothing.
fn lines(output: &Output) -> Vec<(String, String, String)> {
    let text = stdout(output);
    println!("{text}");
    let split = |line: &str| {
        let (name, rest) = line.split_at(15);
        let (good, text) = rest.split_at(5);
        (name.trim().into(), good.trim().into(), text.to_string())
    };
    text.lines().map(split).collect()
}

/// Each line is there once, has a reason, and the status is what the engines say.
fn check(output: &Output) -> Vec<(String, String, String)> {
    let lines = lines(output);
    let names: Vec<&str> = lines.iter().map(|(name, ..)| name.as_str()).collect();
    let expected = [
        "kernel",
        "BTF",
        "BPF programs",
        "BPF arenas",
        "task work",
        "BPF files",
        "perf events",
        "ptrace",
        "announcements",
        "agent",
        "engine kernel",
        "engine perf",
        "engine ptrace",
    ];
    assert_eq!(names, expected, "{}", stderr(output));
    for (name, good, text) in &lines {
        assert!(
            ["yes", "no", "?"].contains(&good.as_str()),
            "{name}: {good}"
        );
        assert!(text.len() > 3, "{name}: {text}");
        assert!(
            !good.contains("no") || text.len() > 15,
            "{name}: no reason: {text}"
        );
    }
    let usable = lines
        .iter()
        .any(|(name, good, _)| name.starts_with("engine ") && good == "yes");
    assert_eq!(output.status.code(), Some(if usable { 0 } else { 1 }));
    assert_eq!(stderr(output), "");
    lines
}

fn line<'a>(lines: &'a [(String, String, String)], name: &str) -> (&'a str, &'a str) {
    let line = lines.iter().find(|line| line.0 == name).unwrap();
    (&line.1, &line.2)
}

#[test]
fn says_what_works_and_why_not() {
    let output = framewalk(&["doctor", "--pin", "/sys/fs/bpf/framewalk_test_nobody"]);
    let lines = check(&output);
    let (good, text) = line(&lines, "agent");
    assert_eq!(good, "no");
    assert!(text.contains("framewalk agent"));
}

#[test]
fn engines_work_as_it_says() {
    let lines = check(&framewalk(&["doctor"]));
    for engine in ["kernel", "perf", "ptrace"] {
        let (good, _) = line(&lines, &format!("engine {engine}"));
        let folder = std::env::temp_dir().join(format!("framewalk-doctor-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let output = folder.join("x.folded");
        let recorded = Command::new(env!("CARGO_BIN_EXE_framewalk"))
            .args(["record", "--engine", engine, "-o"])
            .arg(&output)
            .args(["--", "true"])
            .output()
            .unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            recorded.status.success(),
            good == "yes",
            "{}",
            stderr(&recorded)
        );
    }
}

#[test]
fn without_privileges_it_is_useful_too() {
    let test = "without_privileges_it_is_useful_too";
    let Some(output) = as_nobody(test, &["doctor"]) else {
        return;
    };
    let lines = check(&output);
    let (good, text) = line(&lines, "BPF programs");
    assert_eq!(good, "no");
    assert!(text.contains("CAP_BPF") && text.contains("root"));
    let (good, text) = line(&lines, "engine kernel");
    assert_eq!(good, "no");
    assert!(text.contains("CAP_BPF"), "{text}");
    assert_eq!(line(&lines, "announcements").0, "?");
}

#[test]
fn the_agent_is_seen_by_everybody() {
    let test = "the_agent_is_seen_by_everybody";
    let folder = Folder::new();
    let Some(agent) = Agent::start(test, &folder) else {
        return;
    };
    let arguments = ["doctor", "--pin", folder.name()];
    let process = format!("process {}", agent.pid());
    let lines = check(&framewalk(&arguments));
    let (good, text) = line(&lines, "agent");
    assert!(good == "yes" && text.contains(&process) && text.contains(folder.name()));
    let (good, text) = line(&lines, "announcements");
    assert!(good == "yes" && agent.said().contains(text), "{text}");
    if let Some(output) = as_nobody(test, &arguments) {
        let lines = check(&output);
        let (good, text) = line(&lines, "agent");
        assert!(good == "yes" && text.contains(&process), "{text}");
    }
}
