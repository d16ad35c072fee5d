//! LuaJIT as it is, with a module of Lua that describes its traces: they have names, what lies below them is found,
//! and what was flushed is not named any more.

#[allow(dead_code)]
#[path = "recording/recorded.rs"]
mod recorded;
#[path = "jit_luajit/stopped.rs"]
mod stopped;
#[allow(dead_code)]
#[path = "recording/targets.rs"]
mod targets;
#[path = "../../announce/tests/without_std/mod.rs"]
mod without_std;

use framewalk_announce::area::Place;
use framewalk_announce::area::observe::Rule;
use recorded::{Recorded, Stack, record, skip, words};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use stopped::Stopped;
use targets::Directory;

/// The library for C, built as its documentation says.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let features = ["--features", "capi", "--crate-type", "cdylib"];
        let build = [&["rustc", "-p", "framewalk-announce"][..], &features].concat();
        without_std::build(&build).join("libframewalk_announce.so")
    })
}

fn programs() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    crates.join("../../jits/luajit").canonicalize().unwrap()
}

/// Lua that begins to describe traces.
fn start() -> String {
    let (programs, library) = (programs(), library());
    format!(
        "package.path = [[{}/?.lua;]] .. package.path; fw = require('framewalk'); assert(fw.start([[{}]]))",
        programs.display(),
        library.display()
    )
}

/// Whether there is a LuaJIT that the module knows.
fn luajit(test: &str) -> bool {
    let known = "assert(jit.arch == 'x64' and jit.os == 'Linux' and require('ffi').abi('gc64'))";
    match Command::new("luajit").args(["-e", known]).output() {
        Ok(output) if output.status.success() => true,
        Ok(_) => {
            skip(test, "this LuaJIT is not for x86-64 with 64 bit pointers");
            false
        }
        Err(_) => {
            skip(test, "there is no luajit");
            false
        }
    }
}

/// Records a program for so many seconds of its own CPU time.
fn run(test: &str, module: bool, program: &Path, seconds: &str) -> Option<Recorded> {
    let mut command = words(&["--engine", "kernel", "-F", "997", "--", "luajit"]);
    if module {
        command.extend(words(&["-e", &start()]));
    }
    command.extend(words(&[program.as_os_str(), seconds.as_ref()]));
    record(test, &command)
}

/// The traces in a stack, outermost first.
fn traces(stack: &Stack) -> impl Iterator<Item = (usize, &str)> {
    let numbered = stack.user.iter().enumerate();
    numbered
        .filter(|(_, name)| name.starts_with("trace "))
        .map(|(at, name)| (at, name.as_str()))
}

/// Of the samples whose innermost trace is one of this place, nearly all are complete, and `is` holds for what lies
/// below it, from main on; and there are many.
fn assert_below(recorded: &Recorded, place: &str, is: impl Fn(&[String]) -> bool) {
    let innermost = |stack: &Stack| {
        let (at, name) = traces(stack).last()?;
        name.contains(place).then_some(at)
    };
    let all = recorded.samples_where(|stack| innermost(stack).is_some());
    assert!(all * 3 > recorded.samples(), "{all} samples of{place}");
    let right = recorded.samples_where(|stack| {
        let main = stack.user.iter().position(|name| name == "main");
        let below = innermost(stack).zip(main);
        let below = below.map(|(at, main)| &stack.user[main..at]);
        stack.cut.is_none() && below.is_some_and(&is)
    });
    assert!(right * 100 >= all * 99, "{right} of {all}");
}

/// Whether these functions are among those, in this order; and how many are behind the last one.
fn behind(functions: &[String], wanted: &[&str]) -> Option<usize> {
    let mut functions = functions.iter();
    let all = wanted
        .iter()
        .all(|wanted| functions.any(|name| name.contains(wanted)));
    all.then_some(functions.len())
}

/// Of LuaJIT's exported functions, what calls the main chunk.
const MAIN: [&str; 3] = ["main", "lua_cpcall", "lua_pcall"];

#[test]
fn traces_have_names_and_their_callers_are_right() {
    const TEST: &str = "traces_have_names_and_their_callers_are_right";
    if !luajit(TEST) {
        return;
    }
    // A trace runs on the interpreter's frame: what called the interpreter called it.
    let direct = |below: &[String]| behind(below, &MAIN) == Some(0);
    // The interpreter, sort, at least one round of it, and what calls the comparison.
    let sort = |below: &[String]| behind(below, &MAIN).is_some_and(|frames| frames >= 4);
    // The interpreter, and gsub: it calls by itself.
    let replace = |below: &[String]| behind(below, &MAIN).is_some_and(|frames| frames >= 2);
    // The interpreter, three functions of the FFI, the C library.
    let callback = |below: &[String]| {
        let wanted = [&MAIN[..], &["qsort_r"]].concat();
        behind(below, &wanted).is_some()
    };
    type Below<'a> = &'a dyn Fn(&[String]) -> bool;
    for (program, line, below) in [
        ("nbody", "", &direct as Below<'_>),
        ("fib", "", &direct),
        ("spills", "", &direct),
        ("sort", "6", &sort),
        ("replace", "10", &replace),
        ("callback", "8", &callback),
    ] {
        let path = programs().join(format!("{program}.lua"));
        let Some(recorded) = run(TEST, true, &path, "2") else {
            return;
        };
        recorded.assert_complete(95);
        assert_below(&recorded, &format!(" {program}.lua:{line}"), below);
    }
}

#[test]
fn without_the_module_the_same_stacks_are_not_complete() {
    const TEST: &str = "without_the_module_the_same_stacks_are_not_complete";
    if !luajit(TEST) {
        return;
    }
    for program in ["nbody", "spills", "callback"] {
        let path = programs().join(format!("{program}.lua"));
        let Some(recorded) = run(TEST, false, &path, "2") else {
            return;
        };
        let (complete, all) = (recorded.count("complete"), recorded.samples());
        assert!(complete * 5 < all, "{program}: {complete} of {all}");
    }
}

/// Two functions, one after the other; everything is flushed between them. The second one is called by gsub, so that
/// its stacks can be told from the first one's: their traces have frames of C below them.
const FLUSHED: &str = "
local seconds = tonumber(arg[1])
local function first(n) local x = 0 for i = 1, n do x = (x * 31 + i) % 65521 end return x end
while os.clock() < seconds / 2 do first(100000) end
jit.flush()
local function second(n) local x = 0
  for i = 1, n do x = (x * 75 + i) % 65537 end return tostring(x) end
while os.clock() < seconds do
  string.gsub('x', 'x', function() return second(100000) end)
end
";

#[test]
fn what_was_flushed_is_not_named_any_more() {
    const TEST: &str = "what_was_flushed_is_not_named_any_more";
    if !luajit(TEST) {
        return;
    }
    let directory = Directory::new();
    let program = directory.path("flushed.lua");
    std::fs::write(&program, FLUSHED).unwrap();
    let Some(recorded) = run(TEST, true, &program, "3") else {
        return;
    };
    recorded.assert_complete(95);
    let named = |line: &str, deep: bool| {
        recorded.samples_where(|stack| {
            let mut traces = traces(stack);
            let Some((at, _)) = traces.find(|(_, name)| name.ends_with(line)) else {
                return false;
            };
            (behind(&stack.user[..at], &MAIN) > Some(0)) == deep
        })
    };
    let (first, second) = ("flushed.lua:3", "flushed.lua:7");
    assert!(named(first, false) > 100 && named(second, true) > 100);
    assert_eq!((named(first, true), named(second, false)), (0, 0));
}

#[test]
fn traces_that_come_and_go_leave_no_stack_behind() {
    const TEST: &str = "traces_that_come_and_go_leave_no_stack_behind";
    if !luajit(TEST) {
        return;
    }
    let path = programs().join("flush.lua");
    let Some(recorded) = run(TEST, true, &path, "3") else {
        return;
    };
    recorded.assert_complete(90);
    let direct = |below: &[String]| behind(below, &MAIN) == Some(0);
    assert_below(&recorded, " generated", direct);
}

/// Programs that run on one C frame from beginning to end. So its CFA is the same wherever a trace stands, and in the word
/// below it is an address right behind a call, of a function that begins by pushing rbp.
#[test]
fn each_instruction_of_a_trace_leads_to_the_same_frame() {
    const TEST: &str = "each_instruction_of_a_trace_leads_to_the_same_frame";
    if !luajit(TEST) {
        return;
    }
    let mut sizes = BTreeSet::new();
    for program in ["spills", "fib", "strings"] {
        let mut command = Command::new("luajit");
        command.args(["-e", &start()]);
        command
            .arg(programs().join(format!("{program}.lua")))
            .arg("1000");
        command.stdout(Stdio::null());
        let stopped = Stopped::start(command);
        // What is compiled is compiled early.
        for _ in 0..30 {
            stopped.run();
        }
        let (mut frames, mut traces, mut looked) = (BTreeSet::new(), BTreeSet::new(), 0);
        for _ in 0..15 {
            stopped.run();
            let areas = stopped.areas();
            for _ in 0..1000 {
                stopped.step();
                let place = stopped.place();
                let mut holding = areas
                    .iter()
                    .filter(|(_, area)| area.text.contains(&place.pc));
                let Some((start, geometry)) = holding.next() else {
                    continue;
                };
                let (name, rule) = stopped
                    .look_up(*start, geometry, place.pc)
                    .unwrap()
                    .unwrap();
                let Rule::Fixed { cfa, ra, fp } = rule else {
                    // A stub that leaves a trace.
                    assert_eq!((rule, name.as_str()), (Rule::Opaque, ""));
                    continue;
                };
                assert!(name.contains(&format!(" {program}.lua:")), "{name}");
                assert_eq!((ra, fp), (Place::At(-8), -16), "{name}");
                sizes.insert(cfa);
                looked += 1;
                frames.insert(place.sp + u64::from(cfa.cast_unsigned()));
                traces.insert(name);
            }
        }
        println!("{program}: {looked} instructions in {traces:?}");
        assert!(looked > 1000 && traces.len() > 1, "{looked}, {traces:?}");
        let frame = frames.pop_first().unwrap();
        assert!(frames.is_empty(), "{frame:#x} and {frames:#x?}");
        let returns = stopped.word(frame - 8);
        assert_eq!(stopped.word(returns - 5) & 0xff, 0xe8, "no call");
        let distance = stopped.word(returns - 4) as i32;
        let called = returns.wrapping_add_signed(distance.into());
        assert_eq!(stopped.word(called) & 0xff, 0x55, "no push");
    }
    assert!(sizes.len() > 2, "{sizes:?}");
}
