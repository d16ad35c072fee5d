//! A process that lies about its own code, beside one that does not: the lies end walks of the liar, and are
//! nobody else's affair.

#[allow(dead_code)]
#[path = "recording/recorded.rs"]
mod recorded;
#[allow(dead_code)]
#[path = "recording/stacks.rs"]
mod stacks;
#[allow(dead_code)]
#[path = "recording/targets.rs"]
mod targets;

use recorded::{Recorded, Stack, record, words};
use stacks::Calls;
use std::sync::{Mutex, PoisonError};
use targets::Directory;

/// One at a time: three busy threads each.
static TURN: Mutex<()> = Mutex::new(());

/// Records both at once.
fn recorded(test: &str, mode: &str, kernel_mode: &str) -> Option<Recorded> {
    let directory = Directory::new();
    let program = directory.path("liar");
    targets::compile(&targets::sources().join("liar.c"), &program, &[]);
    let script = format!("$1 {mode} 600 & $0 1000 mixed; wait");
    let mut arguments = words(&["--engine", "kernel", "--mode", kernel_mode]);
    arguments.extend(words(&["-F", "1999", "--", "sh", "-c", &script]));
    arguments.push(targets::torture().into());
    arguments.push(program.into());
    record(test, &arguments)
}

fn honest(stack: &Stack) -> bool {
    stack.comm == "torture"
}

fn of_liar(stack: &Stack) -> bool {
    stack.comm == "liar"
}

/// The honest one's stacks are all right, and nothing is lost.
fn check(test: &str, mode: &str) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for kernel_mode in ["auto", "deferred", "immediate"] {
        let Some(recorded) = recorded(test, mode, kernel_mode) else {
            continue;
        };
        let calls = Calls::of(targets::torture());
        let trampolines = calls.trampolines(&recorded.stacks);
        for (stack, _) in recorded.stacks.iter().filter(|(stack, _)| honest(stack)) {
            if let Err(what) = calls.check(stack, &trampolines) {
                panic!("{what}: {stack:?}");
            }
        }
        assert_eq!(recorded.count("lost"), 0);
        let all = recorded.samples_where(honest);
        let cut = recorded.samples_where(|stack| honest(stack) && stack.cut.is_some());
        assert!(all >= 50 && cut * 50 <= all, "{cut} of {all} are cut");
        let liar = recorded.samples_where(of_liar);
        assert!(liar >= 50, "{liar} samples of the liar");
        // Whatever it said, a stack of it has no more frames than there are.
        let longest = recorded.stacks.iter().filter(|(stack, _)| of_liar(stack));
        let longest = longest.map(|(stack, _)| stack.user.len()).max();
        assert!(longest <= Some(60), "{longest:?}");
    }
}

#[test]
fn sections_rewritten_while_they_are_used() {
    check("sections_rewritten_while_they_are_used", "rewrite");
}

#[test]
fn sections_registered_and_unregistered_while_they_are_used() {
    check(
        "sections_registered_and_unregistered_while_they_are_used",
        "churn",
    );
}

#[test]
fn sections_that_vanish_and_come_back() {
    check("sections_that_vanish_and_come_back", "replace");
}

#[test]
fn a_section_that_claims_the_c_library() {
    check("a_section_that_claims_the_c_library", "libc");
}

#[test]
fn sections_whose_memory_is_gone() {
    check("sections_whose_memory_is_gone", "stale");
}

#[test]
fn rows_that_lead_nowhere() {
    check("rows_that_lead_nowhere", "loop");
}
