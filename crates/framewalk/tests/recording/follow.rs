//! Recordings follow what is forked, executed, mapped and opened, from the first instruction on.

use super::recorded::{Recorded, Stack, record, words};
use super::{targets, torture};
use std::ffi::OsString;
use std::process::{Child, Command, Stdio};

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Running {
        Running(command.stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Records a shell script in which `$0` is the torture program.
fn script(test: &str, options: &[&str], script: &str) -> Option<Recorded> {
    let mut arguments = words(&["--engine", "kernel"]);
    arguments.extend(words(options));
    arguments.extend(words(&["--", "sh", "-c", script]));
    arguments.push(targets::torture().into());
    record(test, &arguments)
}

fn of_torture(stack: &Stack) -> bool {
    stack.comm == "torture"
}

#[test]
fn short_lived_children_are_recorded_from_their_first_instruction() {
    let test = "short_lived_children_are_recorded_from_their_first_instruction";
    let loops = "i=0; while [ $i -lt 40 ]; do $0 20 mixed; i=$((i + 1)); done";
    let Some(recorded) = script(test, &["-F", "4999"], loops) else {
        return;
    };
    torture::check(&recorded);
    recorded.assert_complete(98);
    let mixed = recorded.samples_where(|stack| of_torture(stack) && stack.has("m_leaf"));
    // 40 times 20 ms at 4,999 Hz, of CPU time that others may want, too.
    assert!(mixed > 200, "{mixed}");
    // Before the C library there is the dynamic linker, whose entry has no caller.
    let linking = |stack: &Stack| of_torture(stack) && stack.begins_in_linker();
    assert!(
        recorded.samples_where(linking) > 0,
        "no sample of the dynamic linker"
    );
}

#[test]
fn children_of_children_and_pipelines() {
    let test = "children_of_children_and_pipelines";
    let pipeline = "($0 300 mixed & $0 300 never; wait) | cat & exec $0 300 threads";
    let Some(recorded) = script(test, &["-F", "1999"], pipeline) else {
        return;
    };
    torture::check(&recorded);
    recorded.assert_complete(98);
    for function in ["m_leaf", "never_2", "thread_3"] {
        let samples = recorded.samples_where(|stack| of_torture(stack) && stack.has(function));
        assert!(samples > 5, "{samples} samples with {function}");
    }
}

#[test]
fn a_running_process_and_its_threads() {
    let test = "a_running_process_and_its_threads";
    let mut command = Command::new(targets::torture());
    let running = Running::start(command.args(["30000", "threads"]));
    let pid = OsString::from(running.0.id().to_string());
    let mut arguments = words(&["--engine", "kernel", "-F", "997", "-d", "1.5", "-p"]);
    arguments.push(pid);
    let Some(recorded) = record(test, &arguments) else {
        return;
    };
    torture::check(&recorded);
    recorded.assert_complete(98);
    let threads = recorded.samples_where(|stack| stack.has("thread_3"));
    assert!(threads > 50, "{threads}");
}

#[test]
fn everything_on_the_machine() {
    let test = "everything_on_the_machine";
    let mut command = Command::new("sh");
    command.args(["-c", "while :; do $0 20 mixed; done"]);
    let _running = Running::start(command.arg(targets::torture()));
    let arguments = words(&["--engine", "kernel", "-F", "997", "-d", "2", "-a"]);
    let Some(recorded) = record(test, &arguments) else {
        return;
    };
    torture::check(&recorded);
    let mixed = recorded.samples_where(|stack| of_torture(stack) && stack.has("m_leaf"));
    assert!(mixed > 50, "{mixed}");
    let user = |stack: &Stack| of_torture(stack) && !stack.user.is_empty();
    let (all, complete) = (
        recorded.samples_where(user),
        recorded.samples_where(|stack| user(stack) && stack.cut.is_none()),
    );
    assert!(complete * 100 >= all * 97, "{complete} of {all}");
}

#[test]
fn a_process_that_ends_at_once() {
    let test = "a_process_that_ends_at_once";
    let Some(recorded) = script(test, &["-F", "20000"], "exec $0 0 mixed") else {
        return;
    };
    torture::check(&recorded);
    assert!(recorded.samples() > 0);
    assert_eq!(recorded.count("lost"), 0);
}
