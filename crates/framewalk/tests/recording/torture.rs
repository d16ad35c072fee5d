//! Every stack of a program whose every stack is known.

use super::recorded::{Recorded, record, words};
use super::stacks::Calls;
use super::targets;
use std::collections::BTreeMap;

/// Functions that spend the time, each at the end of one of the chains.
pub(crate) const INNERMOST: &[&str] = &[
    "r_leaf",
    "m_leaf",
    "large_leaf",
    "compared",
    "never_2",
    "handled_2",
    "elsewhere_2",
    "signal_leaf",
    "other_leaf",
    "plugin_2",
    "from_plugin",
    "thread_3",
];

/// Records the program and checks each stack; returns what was recorded.
pub(crate) fn recorded(
    test: &str,
    options: &[&str],
    milliseconds: &str,
    phases: &[&str],
) -> Option<Recorded> {
    let torture = targets::torture();
    let mut arguments = words(options);
    arguments.extend(words(&["--".as_ref(), torture.as_os_str()]));
    arguments.extend(words(&[milliseconds]));
    arguments.extend(words(phases));
    let recorded = record(test, &arguments)?;
    check(&recorded);
    Some(recorded)
}

/// Checks every stack of the program.
pub(crate) fn check(recorded: &Recorded) {
    let calls = Calls::of(targets::torture());
    let trampolines = calls.trampolines(&recorded.stacks);
    let mut wrong = 0;
    for (stack, count) in &recorded.stacks {
        if stack.comm != "torture" {
            continue;
        }
        if let Err(what) = calls.check(stack, &trampolines) {
            wrong += count;
            println!("{count} x {what}: {stack:?}");
        }
    }
    assert_eq!(wrong, 0, "wrong stacks of {}", recorded.samples());
}

/// How often each function was the innermost of the program's own.
fn innermost(recorded: &Recorded) -> BTreeMap<&str, u64> {
    let mut seen = BTreeMap::new();
    for (stack, count) in &recorded.stacks {
        if let Some(function) = stack.user.last() {
            *seen.entry(function.as_str()).or_default() += count;
        }
    }
    seen
}

fn all_phases(test: &str, mode: &str) {
    let options = ["--engine", "kernel", "--mode", mode, "-F", "1999"];
    let Some(recorded) = recorded(test, &options, "600", &[]) else {
        return;
    };
    recorded.assert_complete(99);
    let seen = innermost(&recorded);
    for function in INNERMOST {
        assert!(
            seen.contains_key(function),
            "{function} is missing: {seen:?}"
        );
    }
    let deep =
        |depth| recorded.samples_where(|stack| stack.cut.is_none() && stack.user.len() >= depth);
    assert!(
        deep(400) * 100 >= recorded.samples(),
        "{} deep stacks",
        deep(400)
    );
}

#[test]
fn every_stack_is_the_known_one() {
    all_phases("every_stack_is_the_known_one", "auto");
}

#[test]
fn every_deferred_stack_is_the_known_one() {
    all_phases("every_deferred_stack_is_the_known_one", "deferred");
}

#[test]
fn every_immediate_stack_is_the_known_one() {
    all_phases("every_immediate_stack_is_the_known_one", "immediate");
}
