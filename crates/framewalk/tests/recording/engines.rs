//! All engines on the same work: each finds the stacks that are known, and no others.

use super::recorded::{Recorded, record, words};
use super::torture;
use std::collections::BTreeSet;

/// Phases whose stacks fit the copy that the perf engine takes, and without the timer signals of the
/// others: each costs a traced thread two stops, so that on a busy machine it hardly runs.
const PHASES: &[&str] = &["mixed", "library", "never", "dlopen", "threads"];

/// As fast as all of them can be.
const FREQUENCY: &str = "499";

/// A stack of at least this share of the samples (in thousandths) is expected in every recording.
const FREQUENT: u64 = 15;

fn recorded(test: &str, engine: &str, mode: &str) -> Option<Recorded> {
    let options = ["--engine", engine, "--mode", mode, "-F", FREQUENCY];
    torture::recorded(test, &options, "1000", PHASES)
}

/// The stacks that are met often enough to be met in every run: of the program's own functions.
fn frequent(recorded: &Recorded) -> BTreeSet<Vec<String>> {
    let share = recorded.samples() * FREQUENT / 1000;
    let own = |name: &String| {
        torture::INNERMOST.contains(&name.as_str())
            || PHASES.iter().any(|phase| *name == format!("phase_{phase}"))
    };
    let mut stacks = std::collections::BTreeMap::<Vec<String>, u64>::new();
    for (stack, count) in &recorded.stacks {
        if stack.cut.is_none() && stack.user.last().is_some_and(own) {
            *stacks.entry(stack.user.clone()).or_default() += count;
        }
    }
    stacks.retain(|_, count| *count > share);
    stacks.into_keys().collect()
}

fn all_stacks(recorded: &Recorded) -> BTreeSet<Vec<String>> {
    recorded
        .stacks
        .iter()
        .map(|(stack, _)| stack.user.clone())
        .collect()
}

/// Whatever one of the two meets often, the other meets too: function by function the same.
fn agree(test: &str, engine: &str, mode: &str) {
    let Some(one) = recorded(test, "kernel", "auto") else {
        return;
    };
    let Some(other) = recorded(test, engine, mode) else {
        return;
    };
    let (of_one, of_other) = (frequent(&one), frequent(&other));
    println!("{} and {} frequent stacks", of_one.len(), of_other.len());
    assert!(of_one.len() >= 4 && of_other.len() >= 4);
    let missing: Vec<_> = of_one.difference(&all_stacks(&other)).cloned().collect();
    assert!(
        missing.is_empty(),
        "only the kernel engine has {missing:#?}"
    );
    let missing: Vec<_> = of_other.difference(&all_stacks(&one)).cloned().collect();
    assert!(
        missing.is_empty(),
        "only {engine} ({mode}) has {missing:#?}"
    );
}

#[test]
fn kernel_deferred_agrees() {
    agree("kernel_deferred_agrees", "kernel", "deferred");
}

#[test]
fn kernel_immediate_agrees() {
    agree("kernel_immediate_agrees", "kernel", "immediate");
}

#[test]
fn perf_agrees() {
    agree("perf_agrees", "perf", "auto");
}

#[test]
fn ptrace_agrees() {
    agree("ptrace_agrees", "ptrace", "auto");
}

/// Ticks that share a user stack, because the thread is in one system call for long: the kernel's part of each arrives.
#[test]
fn long_system_calls_lose_no_ticks() {
    let test = "long_system_calls_lose_no_ticks";
    for mode in ["auto", "deferred", "immediate"] {
        let mut arguments = words(&["--engine", "kernel", "--mode", mode, "-F", "1999", "--"]);
        arguments.extend(words(&["dd", "if=/dev/zero", "of=/dev/null"]));
        arguments.extend(words(&["bs=256M", "count=20", "status=none"]));
        let Some(recorded) = record(test, &arguments) else {
            return;
        };
        assert_eq!(recorded.count("lost"), 0);
        let inside = recorded.samples_where(|stack| stack.kernel.len() > 2);
        assert!(inside > 20 && inside * 2 > recorded.samples(), "{inside}");
    }
}
