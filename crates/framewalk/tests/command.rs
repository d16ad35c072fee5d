//! The command itself, as people start it: what it says to bad input.
//!
//! Nothing here needs privileges; what an engine would do with them is tested elsewhere.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::OnceLock;

fn framewalk(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_framewalk"))
        .args(arguments)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Fails with a message that has all of these parts, and never panics.
#[track_caller]
fn refused(arguments: &[&str], parts: &[&str]) {
    let output = framewalk(arguments);
    let said = said(&output);
    assert!(
        matches!(output.status.code(), Some(1 | 2)),
        "{arguments:?}: {} {said}",
        output.status
    );
    assert!(!said.contains("panicked"), "{said}");
    for part in parts {
        assert!(
            said.contains(part),
            "{arguments:?}: {part:?} is not in {said:?}"
        );
    }
}

/// A directory of its own for each test, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path =
            std::env::temp_dir().join(format!("framewalk-command-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn version_and_help() {
    let version = framewalk(&["--version"]);
    assert!(version.status.success());
    assert_eq!(
        String::from_utf8(version.stdout).unwrap().trim(),
        concat!("framewalk ", env!("CARGO_PKG_VERSION"))
    );
    let help = framewalk(&["record", "--help"]);
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    for part in [
        "-F",
        "-d",
        "-o",
        "--engine",
        "--mode",
        "--stats",
        "--max-frames",
        "-p",
        "-a",
        ".pb.gz",
        "_[?]",
    ] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn exactly_one_target() {
    refused(&["record"], &["--pid", "--all", "COMMAND"]);
    refused(&["record", "-a", "-p", "1"], &["cannot be used with"]);
    refused(&["record", "-a", "--", "true"], &["cannot be used with"]);
    refused(&[], &["record"]);
}

#[test]
fn an_unknown_ending_is_refused_before_anything_runs() {
    let directory = Directory::new("ending");
    let trace = directory.path("trace");
    for name in ["out.txt", "out", "out.json", "out.pb"] {
        let endings = [".svg", ".folded", ".pb.gz", ".json.gz"];
        refused(
            &["record", "-o", &directory.path(name), "--", "touch", &trace],
            &endings,
        );
    }
    assert!(directory.is_empty(), "the command did not run");
}

#[test]
fn output_that_cannot_be_written_is_refused_before_anything_runs() {
    let directory = Directory::new("unwritable");
    let trace = directory.path("trace");
    let missing = directory.path("missing/out.svg");
    refused(
        &["record", "-o", &missing, "--", "touch", &trace],
        &["missing/out.svg", "No such file"],
    );
    // A file system that nobody can write to, whoever runs this test.
    refused(
        &["record", "-o", "/proc/out.svg", "--", "touch", &trace],
        &["/proc/out.svg", "cannot be written"],
    );
    let stats = [
        "record",
        "-o",
        &directory.path("a.svg"),
        "--stats",
        "/proc/a.json",
        "--",
        "touch",
        &trace,
    ];
    refused(&stats, &["/proc/a.json"]);
    assert!(directory.is_empty(), "the command did not run");
}

#[test]
fn a_process_that_does_not_exist() {
    let directory = Directory::new("pid");
    // Above the highest pid that any kernel gives out (PID_MAX_LIMIT, 2^22).
    refused(
        &["record", "-o", &directory.path("a.svg"), "-p", "4194305"],
        &["no process 4194305"],
    );
    refused(&["record", "-p", "0"], &["0"]);
    refused(&["record", "-p", "x"], &["x"]);
    assert!(directory.is_empty());
}

#[test]
fn a_thread_is_no_process() {
    let thread = std::thread::spawn(std::thread::park);
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let mut ids = tasks.map(|task| task.unwrap().file_name().into_string().unwrap());
    let id = ids
        .find(|id| *id != std::process::id().to_string())
        .unwrap();
    refused(&["record", "-p", &id], &["is a thread of process"]);
    thread.thread().unpark();
    thread.join().unwrap();
}

/// Whether some engine can record a child of this test; asked once.
fn can_record() -> bool {
    static REFUSAL: OnceLock<Option<String>> = OnceLock::new();
    let refusal = REFUSAL.get_or_init(|| {
        let directory = Directory::new("probe");
        let output = framewalk(&["record", "-o", &directory.path("a.folded"), "--", "true"]);
        (!output.status.success()).then(|| said(&output))
    });
    if let Some(refusal) = refusal {
        println!("skipped: {refusal}");
    }
    refusal.is_none()
}

#[test]
fn a_command_that_does_not_exist() {
    let directory = Directory::new("enoent");
    if !can_record() {
        return;
    }
    let output = directory.path("a.svg");
    refused(
        &["record", "-o", &output, "--", "/nonexistent/command"],
        &["/nonexistent/command", "No such file"],
    );
    refused(
        &["record", "-o", &output, "--", "/etc/passwd"],
        &["/etc/passwd", "Permission denied"],
    );
    assert!(directory.is_empty());
}

#[test]
fn a_command_that_exits_at_once_still_gives_a_profile() {
    let directory = Directory::new("once");
    if !can_record() {
        return;
    }
    for (command, end) in [
        (&["true"][..], "exited with status 0"),
        (&["sh", "-c", "kill -9 $$"], "killed by signal 9"),
    ] {
        let path = directory.path("a.svg");
        let output = framewalk(&[&["record", "-o", &path, "--"], command].concat());
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains(end), "{}", said(&output));
        assert!(
            fs::read_to_string(&path)
                .unwrap()
                .trim_end()
                .ends_with("</svg>")
        );
    }
}

#[test]
fn a_full_disk_leaves_nothing_that_looks_whole() {
    let directory = Directory::new("full");
    if !can_record() {
        return;
    }
    // A device that is always full, under a name with the right ending.
    let link = directory.path("a.folded");
    std::os::unix::fs::symlink("/dev/full", &link).unwrap();
    let busy = [
        "sh",
        "-c",
        "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done",
    ];
    refused(
        &[&["record", "-o", &link, "--"], &busy[..]].concat(),
        &["/dev/full", "No space left"],
    );

    let disk = directory.0.join("disk");
    fs::create_dir(&disk).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4k,nr_inodes=3", "none"])
        .arg(&disk)
        .output();
    if !mount.is_ok_and(|mount| mount.status.success()) {
        println!("skipped: mounting a small file system needs root");
        return;
    }
    let path = disk.join("a.svg");
    let output = framewalk(&[&["record", "-o", path.to_str().unwrap(), "--"], &busy[..]].concat());
    let names: Vec<_> = fs::read_dir(&disk).unwrap().collect();
    let unmount = Command::new("umount").arg(&disk).status().unwrap();
    assert!(unmount.success());
    assert!(
        !output.status.success() && said(&output).contains("No space left"),
        "{}",
        said(&output)
    );
    assert!(names.is_empty(), "{names:?}");
    assert!(!Path::new(&path).exists());
}

/// Starts a recording and waits until it says which engine it uses: from there on signals end it cleanly.
fn begin(arguments: &[&str]) -> (Child, BufReader<ChildStderr>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_framewalk"));
    let mut child = command
        .args(arguments)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with("framewalk: engine "), "{line}");
    (child, said)
}

fn end(mut child: Child, mut said: BufReader<ChildStderr>) -> String {
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    rest
}

#[test]
fn an_interrupt_ends_the_recording_and_the_command_and_still_writes() {
    let directory = Directory::new("interrupt");
    if !can_record() {
        return;
    }
    for signal in ["-INT", "-TERM", "-HUP"] {
        let path = directory.path("a.folded");
        let (child, said) = begin(&["record", "-o", &path, "--", "sleep", "1000"]);
        let kill = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
        let said = end(child, said);
        assert!(said.contains("a.folded: "), "{said}");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn the_time_is_over_before_the_command_is() {
    let directory = Directory::new("duration");
    if !can_record() {
        return;
    }
    let path = directory.path("a.folded");
    let (child, said) = begin(&["record", "-d", "0.1", "-o", &path, "--", "sleep", "1000"]);
    let said = end(child, said);
    assert!(said.contains("killed by signal 15"), "{said}");
    assert!(Path::new(&path).exists());
}

#[test]
fn a_process_that_vanishes_ends_the_recording() {
    let directory = Directory::new("vanish");
    if !can_record() {
        return;
    }
    let mut target = Command::new("sleep").arg("1000").spawn().unwrap();
    let path = directory.path("a.folded");
    let (child, said) = begin(&["record", "-o", &path, "-p", &target.id().to_string()]);
    target.kill().unwrap();
    target.wait().unwrap();
    let said = end(child, said);
    assert!(said.contains("a.folded: "), "{said}");
}
