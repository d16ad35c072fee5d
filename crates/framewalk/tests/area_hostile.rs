//! A process that lies in frame areas (`dev/targets/area_liar.c`), beside two that do not: the lies are the liar's own
//! affair. framewalk neither ends nor waits for it, says little about it, and needs no more memory.

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

/// CPU time of each liar, ms.
const EACH: usize = 300;
/// Samples of a second.
const OFTEN: &str = "1999";
/// Frames of a stack at most.
const MOST: usize = 510;
/// What framewalk may need, MB. Without any liar it is about 50.
const MEGABYTES: u64 = 400;

/// Records them all: the liars one after the other, the others all the while.
fn recorded(test: &str, modes: &[&str], options: &[&str]) -> Option<Recorded> {
    let directory = Directory::new();
    let program = directory.path("area_liar");
    targets::compile(&targets::sources().join("area_liar.c"), &program, &[]);
    let modes_in_turn = modes.join(" ");
    let beside = EACH * modes.len() / 2;
    // What meets a file for the first time is finished outside of the kernel, where it is too late to believe areas.
    let script = format!(
        "$1 honest 100 warm; $1 honest {beside} honest & $0 {beside} mixed & \
         for mode in {modes_in_turn}; do $1 $mode {EACH} || exit 1; done; wait; \
         grep VmHWM: /proc/$PPID/status >&2"
    );
    let mut arguments = words(options);
    arguments.extend(words(&["--", "sh", "-c", &script]));
    arguments.push(targets::torture().into());
    arguments.push(program.into());
    record(test, &arguments)
}

/// The whole stack of generated code, outermost first.
fn right(stack: &Stack) -> Result<(), &'static str> {
    let generated = |name: &&String| {
        let number = name.strip_prefix('f').map(str::parse::<usize>);
        matches!(number, Some(Ok(_))) || name.contains("anonymous")
    };
    let code: Vec<&String> = stack.user.iter().filter(generated).collect();
    // Before and after there is code of the linker and of the compiler that nothing describes.
    if stack.cut.is_some() && !code.is_empty() {
        return Err("it is cut");
    }
    let in_turn = code
        .iter()
        .enumerate()
        .all(|(n, name)| **name == format!("f{n}"));
    let top = code.last() == stack.user.last().as_ref();
    match in_turn && (code.is_empty() || top) {
        true => Ok(()),
        false => Err("it is another one"),
    }
}

/// What holds whatever the liars do: nobody else suffers, and so many samples of each liar are there.
fn check(recorded: &Recorded, modes: &[&str], least: u64) {
    let said = &recorded.said;
    assert!(said.contains("exited with status 0"), "{said}");
    assert!(said.lines().count() < 30, "it says too much");
    let megabytes = said
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"))
        .map(|kilobytes| kilobytes.parse::<u64>().unwrap() / 1024);
    println!("{megabytes:?} MB");
    assert!(megabytes.is_some_and(|megabytes| megabytes < MEGABYTES));

    let calls = Calls::of(targets::torture());
    let trampolines = calls.trampolines(&recorded.stacks);
    let of = |comm: &'static str| move |stack: &Stack| stack.comm == comm;
    for (stack, _) in &recorded.stacks {
        assert!(stack.user.len() <= MOST, "{} frames", stack.user.len());
        assert!(!stack.user.iter().any(|name| name.contains('\x1b')));
        let result = match stack.comm.as_str() {
            "torture" => calls.check(stack, &trampolines),
            "honest" => right(stack).map_err(str::to_string),
            _ => Ok(()),
        };
        if let Err(what) = result {
            panic!("{what}: {stack:?}");
        }
    }
    for comm in ["torture", "honest"] {
        let all = recorded.samples_where(of(comm));
        let cut = recorded.samples_where(|stack| of(comm)(stack) && stack.cut.is_some());
        assert!(all >= 50 && cut * 50 <= all, "{cut} of {all} are cut");
    }
    let honest = recorded.samples_where(of("honest"));
    // How much of it is the program's beginning depends on how busy the machine is.
    let whole = recorded.samples_where(|stack| of("honest")(stack) && stack.has("f15"));
    assert!(whole >= 50, "{whole} of {honest}");
    for mode in modes {
        let liar = recorded.samples_where(|stack| stack.comm == *mode);
        assert!(liar >= least, "{liar} samples of {mode}");
    }
    // Every stack has a reason why it ended.
    let reasons = recorded.stats["stopped"].as_object().unwrap();
    let reasons: u64 = reasons.values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(
        reasons + recorded.count("complete"),
        recorded.count("samples")
    );
}

/// In every mode of the kernel engine: `also` is asked about each recording.
fn in_the_kernel(test: &str, modes: &[&str], frequency: &str, also: impl Fn(&Recorded)) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for kernel_mode in ["auto", "deferred", "immediate"] {
        let options = ["--engine", "kernel", "--mode", kernel_mode, "-F", frequency];
        if let Some(recorded) = recorded(test, modes, &options) {
            check(&recorded, modes, 20);
            assert_eq!(recorded.count("lost"), 0);
            also(&recorded);
        }
    }
}

/// A note that says so many of something.
fn noted(recorded: &Recorded, what: &str) -> u64 {
    let notes = recorded.stats["notes"].as_array().unwrap();
    let notes = notes.iter().map(|note| note.as_str().unwrap());
    let mut counts = notes.filter_map(|note| note.strip_suffix(what)?.trim().parse().ok());
    counts.next().unwrap_or(0)
}

const MALFORMED: &str = "lookups in announced sections met nonsense";
const UNREADABLE: &str = "lookups in announced sections could not be read";
const OVERTAKEN: &str = "lookups in frame areas were overtaken by changes";

/// The frames of these liars' longest stack.
fn longest(recorded: &Recorded, mode: &str) -> usize {
    let of_mode = recorded.stacks.iter().filter(|(s, _)| s.comm == mode);
    let frames = of_mode.map(|(stack, _)| stack.user.len());
    frames.max().unwrap_or(0)
}

#[test]
fn words_that_change() {
    let test = "words_that_change";
    in_the_kernel(
        test,
        &["words", "flip", "chains", "count", "rows"],
        OFTEN,
        |r| {
            assert!(noted(r, MALFORMED) > 0 && noted(r, OVERTAKEN) > 0);
        },
    );
}

#[test]
fn names_of_all_kinds() {
    let test = "names_of_all_kinds";
    in_the_kernel(test, &["names"], OFTEN, |_| {});
}

/// More names than a reader could read: samples, and those of others, go before.
#[test]
fn a_storm_of_names() {
    let test = "a_storm_of_names";
    in_the_kernel(test, &["storm", "storm", "storm"], "4999", |_| {});
}

#[test]
fn memory_that_goes() {
    let test = "memory_that_goes";
    let modes = ["unmap", "protect", "cut", "shared", "killed"];
    in_the_kernel(test, &modes, OFTEN, |r| assert!(noted(r, UNREADABLE) > 0));
}

#[test]
fn stacks_that_lead_astray() {
    let test = "stacks_that_lead_astray";
    let modes = ["self", "thread", "text", "nowhere", "pair", "fall", "climb"];
    in_the_kernel(test, &modes, OFTEN, |r| {
        assert!(longest(r, "self") <= 40 && longest(r, "pair") <= 40);
        let fall = longest(r, "fall");
        assert!((60..=80).contains(&fall), "{fall}");
        assert!(longest(r, "climb") > 400);
    });
}

#[test]
fn text_and_sizes_beyond_measure() {
    let test = "text_and_sizes_beyond_measure";
    in_the_kernel(test, &["libc", "main", "large", "many"], OFTEN, |r| {
        // The last slots of the largest area are as good as any.
        let large = |stack: &Stack| stack.comm == "large" && stack.has("f15");
        let whole = r.samples_where(|stack| large(stack) && right(stack).is_ok());
        assert!(whole * 10 >= r.samples_where(large) * 9 && whole > 0);
    });
}

/// The observer reads the same from outside, of threads that are stopped.
#[test]
fn by_ptrace() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let modes = [
        "words", "flip", "chains", "rows", "names", "protect", "cut", "shared", "fall", "libc",
    ];
    let options = ["--engine", "ptrace", "-F", "299"];
    if let Some(recorded) = recorded("by_ptrace", &modes, &options) {
        // It is slow, and says how many ticks it missed.
        check(&recorded, &modes, 5);
        assert!(
            noted(
                &recorded,
                "times malformed data in announced sections was met"
            ) > 0
        );
        assert!(noted(&recorded, "announced sections could not be read") > 0);
        assert!((60..=80).contains(&longest(&recorded, "fall")));
    }
}
