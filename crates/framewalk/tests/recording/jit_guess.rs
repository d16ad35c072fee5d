//! Generated code that nobody describes: `generated.c` keeps frame pointers or has something else in their
//! register. A stack is complete and right, or it says that the frame pointer was broken; no frame is made up.

use super::recorded::{Recorded, Stack, record, words};
use super::targets::{self, Directory};
use framewalk_walk::Stop;

const ENGINES: [&str; 3] = ["kernel", "perf", "ptrace"];

/// What the generated code is called by, outermost first; what is before it is the C library's.
const DESCRIBED: [&str; 2] = ["main", "run_generated"];

/// Whether a stack is that of the described part of the program, before the generated code is called or in the handler
/// of the signal that ends it.
fn is_described(stack: &Stack) -> bool {
    stack.has("finish") || stack.user.iter().all(|name| !name.starts_with("gen_"))
}

/// From the first generated function or its caller on, without the mark of guesses.
fn generated(stack: &Stack) -> Vec<&str> {
    let names = stack.user.iter().map(|name| name.trim_end_matches("_[?]"));
    names
        .skip_while(|name| !name.starts_with("gen_") && !DESCRIBED.contains(name))
        .collect()
}

/// Records the program with each engine, as it calls this function.
fn each_engine(test: &str, function: &str, check: impl Fn(&str, &Recorded)) {
    let directory = Directory::new();
    let program = directory.path("generated");
    targets::compile(&targets::sources().join("generated.c"), &program, &[]);
    for engine in ENGINES {
        let arguments = ["--engine", engine, "-F", "997", "--"];
        let mut arguments = words(&arguments);
        arguments.extend(words(&[program.as_os_str()]));
        arguments.extend(words(&[function, "2"]));
        if let Some(recorded) = record(&format!("{test} ({engine})"), &arguments) {
            assert!(
                recorded.samples_where(|stack| !is_described(stack)) > 0,
                "nothing recorded"
            );
            check(engine, &recorded);
        }
    }
}

fn is_cut_rightly(engine: &str, stack: &Stack) -> bool {
    let cut = stack.cut.as_deref().unwrap_or_default();
    // A copy of a stack does not have what lies elsewhere.
    cut.contains(Stop::FramePointer.text())
        || (engine == "perf" && cut.contains(Stop::CopyEnded.text()))
}

/// Every stack of the generated code is one of these, complete, unless the perf engine came too late to read the code.
fn complete(engine: &str, recorded: &Recorded, stacks: &[&[&str]]) {
    let mut whole = 0;
    for (stack, count) in &recorded.stacks {
        if is_described(stack) {
            continue;
        }
        if stack.cut.is_some() {
            assert!(
                engine == "perf" && is_cut_rightly(engine, stack),
                "{stack:?}"
            );
            // As far as it was led, in the time that there was code to be read.
            let names = generated(stack);
            let led = stacks.iter().any(|rest| rest.ends_with(&names));
            assert!(led && !names.is_empty(), "{stack:?}");
            continue;
        }
        let names = generated(stack);
        let rest = names.strip_prefix(&DESCRIBED[..]).expect("called by main");
        assert!(stacks.contains(&rest), "{stack:?}");
        let marked = stack.user.iter().filter(|name| name.ends_with("_[?]"));
        // All but the innermost, whose pc is the register, and the caller of them all.
        assert_eq!(marked.count(), rest.len(), "{stack:?}");
        whole += count;
    }
    assert!(whole > 0);
}

/// Every stack of the generated code is only this function, and says why.
fn broken(engine: &str, recorded: &Recorded, function: &str) {
    for (stack, _) in &recorded.stacks {
        if !is_described(stack) && stack.user.iter().any(|name| name == function) {
            assert_eq!(stack.user, [function], "{stack:?}");
            assert!(is_cut_rightly(engine, stack), "{stack:?}");
        }
    }
    assert!(recorded.samples_where(|stack| stack.has(function)) > 0);
}

#[test]
fn generated_code_with_frame_pointers() {
    each_engine(
        "generated_code_with_frame_pointers",
        "gen_frames",
        |engine, recorded| {
            // Whatever the pc of the innermost function is, in its prologue, body or at its return: nobody is left out.
            complete(
                engine,
                recorded,
                &[
                    &["gen_outer", "gen_middle", "gen_frames"],
                    &["gen_outer", "gen_middle", "gen_frames", "gen_leaf"],
                    &["gen_outer", "gen_middle", "gen_frames", "gen_bang"],
                ],
            );
            let leaf = recorded.samples_where(|stack| stack.has("gen_leaf") && stack.cut.is_none());
            assert!(leaf > 0);
        },
    );
}

#[test]
fn generated_code_without_frame_pointers() {
    for function in ["gen_counter", "gen_itself", "gen_pointer", "gen_unmapped"] {
        let test = format!("generated_code_without_frame_pointers {function}");
        each_engine(&test, function, |engine, recorded| {
            broken(engine, recorded, function);
        });
    }
}

#[test]
fn a_frame_pointer_of_an_older_frame() {
    // The register is still that of gen_middle, which cannot be told: it is left out, and nobody is made up.
    each_engine(
        "a_frame_pointer_of_an_older_frame",
        "gen_older",
        |engine, recorded| {
            complete(engine, recorded, &[&["gen_outer", "gen_older"]]);
        },
    );
}

#[test]
fn a_frame_pointer_of_another_thread() {
    each_engine(
        "a_frame_pointer_of_another_thread",
        "gen_parent",
        |engine, recorded| {
            broken(engine, recorded, "gen_thread");
        },
    );
}
