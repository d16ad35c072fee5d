//! A stack whose pages are absent when the event comes: what deferring a walk is for.

use super::recorded::{Recorded, record, skip, words};
use super::targets::{self, Directory};

/// Frames of the thread below `spin`, whose stack this is.
const DEPTH: usize = 200;

fn recorded(test: &str, mode: &str) -> Option<Recorded> {
    let directory = Directory::new();
    let program = directory.path("absent");
    targets::compile(&targets::sources().join("absent.c"), &program, &[]);
    let mut arguments = words(&["--engine", "kernel", "--mode", mode, "--"]);
    arguments.extend(words(&[program.as_os_str()]));
    arguments.extend(words(&["1500"]));
    record(test, &arguments)
}

/// Samples that are spent in `spin` itself, and those of them whose whole stack is there.
fn spins(recorded: &Recorded) -> (u64, u64) {
    let spins =
        recorded.samples_where(|stack| stack.user.last().is_some_and(|last| last == "spin"));
    let whole = recorded.samples_where(|stack| {
        let deep = stack.user.iter().filter(|function| *function == "deep");
        stack.cut.is_none() && deep.count() == DEPTH && stack.has("begin") && stack.has("spin")
    });
    (spins, whole)
}

#[test]
fn walks_that_meet_absent_pages_are_deferred() {
    for mode in ["auto", "deferred"] {
        let test = "walks_that_meet_absent_pages_are_deferred";
        let Some(recorded) = recorded(test, mode) else {
            continue;
        };
        if recorded.stats["mode"] != "deferred" {
            skip(test, "this kernel has no BPF task work (Linux 6.18)");
            continue;
        }
        recorded.assert_complete(99);
        let (spins, whole) = spins(&recorded);
        assert!(
            spins >= 50 && whole * 100 >= spins * 99,
            "{whole} of {spins}"
        );
    }
}

#[test]
fn immediate_walks_say_that_a_page_was_absent() {
    let Some(recorded) = recorded("immediate_walks_say_that_a_page_was_absent", "immediate") else {
        return;
    };
    // The target drops the pages at the start of every turn, and its walks do not bring them back.
    let faults = recorded.stats["stopped"]["read-fault"]
        .as_u64()
        .unwrap_or(0);
    let (spins, whole) = spins(&recorded);
    assert!(
        faults * 2 > spins,
        "{faults} read faults in {spins}, {whole} whole"
    );
    assert_eq!(recorded.count("lost"), 0);
}
