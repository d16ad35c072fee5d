//! Debian's python3, which has no frame pointers.

use super::recorded::{Recorded, Stack, record, words};
use super::targets;
use std::path::Path;

const PYTHON: &str = "/usr/bin/python3";
const EVAL: &str = "_PyEval_EvalFrameDefault";

fn recorded(test: &str, script: &str) -> Option<Recorded> {
    if !Path::new(PYTHON).exists() {
        super::recorded::skip(test, "there is no /usr/bin/python3");
        return None;
    }
    let script = targets::sources().join(script);
    let mut arguments = words(&["--engine", "kernel", "-F", "997", "--", PYTHON]);
    arguments.extend(words(&[script]));
    arguments.extend(words(&["3"]));
    record(test, &arguments)
}

/// How often the interpreter's loop is on the stack.
fn loops(stack: &Stack) -> usize {
    stack.user.iter().filter(|name| *name == EVAL).count()
}

#[test]
fn python_stacks_are_complete() {
    let Some(recorded) = recorded("python_stacks_are_complete", "workload.py") else {
        return;
    };
    recorded.assert_complete(99);
    assert!(recorded.samples() > 200);
    let complete = recorded.samples_where(|stack| stack.cut.is_none());
    let started = |stack: &Stack| {
        let first = stack.user.first().map(String::as_str);
        first == Some("_start") || stack.begins_in_linker()
    };
    let rightly = recorded.samples_where(|stack| stack.cut.is_none() && started(stack));
    assert_eq!(
        rightly, complete,
        "complete stacks that do not begin where programs do"
    );
    let in_main = recorded.samples_where(|stack| stack.has("Py_BytesMain"));
    assert!(in_main * 100 >= recorded.samples() * 95, "{in_main}");
}

#[test]
fn python_calls_nest() {
    let Some(recorded) = recorded("python_calls_nest", "through_c.py") else {
        return;
    };
    recorded.assert_complete(99);
    // The loop of the module (which runs the first call of `nested`, too, as of 3.11), one for each
    // call of `nested` by `map`, and sometimes one for the generator of `leaf`.
    let whole = 31..=34;
    let deep = recorded.samples_where(|stack| whole.contains(&loops(stack)));
    let deeper = recorded.samples_where(|stack| loops(stack) > *whole.end());
    assert!(
        deep * 100 >= recorded.samples() * 80,
        "{deep} of {}",
        recorded.samples()
    );
    assert_eq!(deeper, 0, "deeper than the program goes");
}
