//! Agents come and go.

use crate::running::{Agent, Announcer, Folder, framewalk, stderr, until};
use rustix::process::Signal;
use std::os::unix::fs::{MetadataExt, chown};

#[test]
fn only_one_at_a_time() {
    let folder = Folder::new();
    let Some(agent) = Agent::start("only_one_at_a_time", &folder) else {
        return;
    };
    let before = std::fs::metadata(folder.path().join("registry"))
        .unwrap()
        .ino();
    let second = framewalk(&["agent", "--pin", folder.name()]);
    let said = stderr(&second);
    assert_eq!(second.status.code(), Some(1), "{said}");
    for part in ["runs already", &agent.pid().to_string(), folder.name()] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let after = std::fs::metadata(folder.path().join("registry"))
        .unwrap()
        .ino();
    assert_eq!(before, after, "the first one's maps");
    let mut announcer = Announcer::start();
    let registered = announcer.load("calls.v3.so");
    assert!(agent.section(announcer.pid(), registered.key).is_some());
}

#[test]
fn a_signal_ends_it_and_nothing_is_left() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = Folder::new();
        let test = "a_signal_ends_it_and_nothing_is_left";
        let Some(agent) = Agent::start(test, &folder) else {
            return;
        };
        let mode = std::fs::metadata(folder.path()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700, "for root alone");
        assert!(folder.path().join("registry").exists());
        let (status, said) = agent.end(signal);
        assert!(status.success(), "{status}: {said}");
        assert!(said.contains("framewalk: agent: ended: "), "{said}");
        assert!(!folder.path().exists());
        let listed = framewalk(&["sections", "--pin", folder.name()]);
        assert_eq!(listed.status.code(), Some(1));
        assert!(stderr(&listed).contains("no agent is running"));
    }
}

#[test]
fn what_a_killed_one_leaves_is_replaced() {
    let folder = Folder::new();
    let test = "what_a_killed_one_leaves_is_replaced";
    let Some(agent) = Agent::start(test, &folder) else {
        return;
    };
    let mut announcer = Announcer::start();
    let first = announcer.load("calls.v3.so");
    assert!(agent.section(announcer.pid(), first.key).is_some());
    agent.end(Signal::KILL);
    assert!(folder.path().join("registry").exists(), "it is left");
    let listed = framewalk(&["sections", "--pin", folder.name()]);
    assert!(
        stderr(&listed).contains("no agent is running"),
        "and means nothing"
    );

    let agent = Agent::start(test, &folder).unwrap();
    assert_eq!(
        agent.announced(announcer.pid()).len(),
        0,
        "it heard nothing yet"
    );
    let second = announcer.load("calls.v2.so");
    agent.accepted(second.answer);
    assert!(agent.section(announcer.pid(), second.key).is_some());
    assert!(agent.section(announcer.pid(), first.key).is_none());
}

#[test]
fn folders_that_will_not_do() {
    let test = "folders_that_will_not_do";
    let folder = Folder::new();
    let Some(agent) = Agent::start(test, &folder) else {
        return;
    };
    drop(agent);
    let refused = |folder: &str, part: &str| {
        let output = framewalk(&["agent", "--pin", folder]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(part) && said.contains(folder),
            "{part}: {said}"
        );
    };
    let plain = std::env::temp_dir().join(format!("framewalk_test_{}", std::process::id()));
    refused(plain.to_str().unwrap(), "not in a BPF file system");
    assert!(!plain.exists());
    refused("/sys/fs/bpf/is/not/there", "No such file or directory");

    let others = Folder::new();
    std::fs::create_dir(others.path()).unwrap();
    chown(others.path(), Some(65534), Some(65534)).unwrap();
    refused(others.name(), "only root can change");
    for name in [plain.to_str().unwrap(), "/sys/fs/bpf/is/not/there"] {
        let lock = format!("/run/framewalk{}.lock", name.replace('/', "-"));
        let _ = std::fs::remove_file(lock);
    }
}

#[test]
fn without_privileges_it_says_what_is_missing() {
    let test = "without_privileges_it_says_what_is_missing";
    let Some(output) = crate::doctor::as_nobody(test, &["agent"]) else {
        return;
    };
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("an agent needs root"), "{said}");
}

#[test]
fn processes_that_end_leave_the_registry() {
    let folder = Folder::new();
    let test = "processes_that_end_leave_the_registry";
    let Some(agent) = Agent::start(test, &folder) else {
        return;
    };
    let mut announcer = Announcer::start();
    let pid = announcer.pid();
    agent.accepted(announcer.load("calls.v3.so").answer);
    announcer.register("copy");
    assert_eq!(agent.announced(pid).len(), 2);
    assert_eq!(announcer.ask("exec"), "ready");
    assert_eq!(agent.announced(pid).len(), 0, "exec drops all");
    announcer.load("calls.v3.so");
    assert_eq!(agent.announced(pid).len(), 1);
    announcer.end();
    until("it is gone", || {
        agent.announced(pid).is_empty().then_some(())
    });
}
