//! Debian's Erlang, its JIT described by a NIF: from processes' stacks to the schedulers' and back.

#[path = "jits/programs.rs"]
mod programs;
#[allow(dead_code)]
#[path = "recording/recorded.rs"]
mod recorded;
#[allow(dead_code)]
#[path = "recording/targets.rs"]
mod targets;

use programs::example;
use recorded::{Stack, record, skip, words};
use std::path::Path;
use std::process::{Command, Output};
use targets::Directory;

/// The version of the run time whose layout the NIF knows.
const VERSION: &str = "13.1";

fn erlang(words: &[&str]) -> Option<Output> {
    Command::new(words[0]).args(&words[1..]).output().ok()
}

/// Why it cannot be recorded here, if so.
fn missing() -> Option<String> {
    let say = "io:format(\"~s ~p\", [erlang:system_info(version), \
               erlang:system_info(emu_flavor)]), halt().";
    let Some(output) = erlang(&["erl", "-noshell", "-eval", say]) else {
        return Some("there is no erl (package erlang-base)".into());
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let known = said.starts_with(VERSION) && said.ends_with("jit");
    (!known).then(|| format!("this Erlang is {said:?}, not {VERSION} with its JIT"))
}

/// Whether a frame was described by the NIF; names from the perf map begin otherwise.
fn described(name: &str) -> bool {
    ["climb:", "global::"]
        .iter()
        .any(|own| name.starts_with(own))
}

/// Where the Erlang functions of a stack begin, which have to be those of the program, in their order.
fn climbs(stack: &Stack) -> bool {
    let below = [
        "erts_beamasm:normal_exit/0",
        "init:do_boot/3",
        "init:start_em/1",
        "climb:main/1",
        "climb:climb/2",
    ];
    let middle = ["climb:bottom/1", "climb:middle/1"];
    let Some(above) = stack
        .user
        .strip_prefix(below.map(str::to_string).as_slice())
    else {
        return false;
    };
    let own: Vec<&str> = (above.iter().map(String::as_str))
        .filter(|name| name.starts_with("climb:"))
        .collect();
    let (own, rest) = own.split_at(own.len().min(middle.len()));
    let rest_is =
        |name: &str, most: usize| rest.len() <= most && rest.iter().all(|own| *own == name);
    let descends = match rest {
        [descend @ .., "climb:turn/2"] => {
            descend.len() == 11 && descend.iter().all(|own| *own == "climb:descend/2")
        }
        _ => rest_is("climb:descend/2", 11) || rest_is("climb:hash/1", 1),
    };
    middle.starts_with(own) && descends
}

#[test]
fn stacks_of_erlang_are_whole() {
    let test = "stacks_of_erlang_are_whole";
    if let Some(why) = missing() {
        return skip(test, &why);
    }
    let directory = Directory::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../jits/erlang/climb.erl");
    let compiled = Command::new("erlc")
        .args(["-o".as_ref(), directory.path("").as_os_str()])
        .arg(source)
        .status();
    assert!(compiled.unwrap().success());
    let mut arguments = words(&["--engine", "kernel", "--", "erl"]);
    arguments.extend(words(&["+JPperf", "map", "+S", "1:1", "-noshell", "-pa"]));
    arguments.push(directory.path("").into());
    arguments.extend(words(&["-run", "climb", "main"]));
    // Erlang adds the ending.
    arguments.push(example("erlang_describe").with_extension("").into());
    arguments.extend(words(&["5"]));
    let Some(recorded) = record(test, &arguments) else {
        return;
    };
    // Before it is described there is only what rbp happens to say.
    let ours = |stack: &Stack| {
        stack.user.iter().any(|name| described(name))
            && !stack.user.iter().any(|name| name.ends_with("_[?]"))
    };
    let all = recorded.samples_where(ours);
    let whole = recorded.samples_where(|stack| ours(stack) && stack.cut.is_none());
    println!("{whole} of {all} samples in described code are whole");
    assert!(all >= 100, "{all} samples in described code");
    // While garbage is collected there is a time in which the stack that rbp leads to was freed already.
    assert!(whole * 100 >= all * 99, "{whole} of {all}");
    let climbing = |stack: &Stack| {
        let inside = stack.user.iter().any(|name| name == "climb:climb/2");
        ours(stack) && inside && stack.cut.is_none()
    };
    for (stack, _) in recorded.stacks.iter().filter(|(stack, _)| climbing(stack)) {
        assert!(climbs(stack), "{stack:?}");
    }
    // C on the scheduler's stack, called from a process's, and the scheduler itself.
    let hashing = |stack: &Stack| climbing(stack) && stack.has("MD5Update");
    let turning = |stack: &Stack| climbing(stack) && stack.has("climb:turn/2");
    let scheduling = |stack: &Stack| {
        let from_thread = stack.user.first().is_some_and(|name| name == "clone3");
        ours(stack) && stack.has("global::process_main") && from_thread
    };
    let counts = [
        recorded.samples_where(hashing),
        recorded.samples_where(turning),
        recorded.samples_where(scheduling),
    ];
    println!("hashing, turning, scheduling: {counts:?}");
    assert!(counts[0] >= 50 && counts[1] >= 50, "{counts:?}");
    assert!(counts[2] >= 1, "{counts:?}");
}
