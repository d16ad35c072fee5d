//! Whoever starts late finds the frame areas that are there.

use crate::running::{Agent, Announcer, Folder, framewalk, skip, stderr, until};
use rustix::process::Signal;
use serde_json::Value;
use std::path::PathBuf;

const KEY: u64 = 0x5eed;
const ENOENT: i64 = -2;
const EEXIST: i64 = -17;
const EINVAL: i64 = -22;

/// Programs with an area in a file in memory, and in named memory where the kernel has that.
fn generators(test: &str) -> Vec<Announcer> {
    let all = ["file", "memory"].map(Announcer::generating);
    if all[1].is_none() {
        skip(test, "half of it: memory has no names here");
    }
    all.into_iter().flatten().collect()
}

#[test]
fn an_agent_that_starts_late_adopts_areas() {
    let folder = Folder::new();
    let test = "an_agent_that_starts_late_adopts_areas";
    let mut generators = generators(test);
    // Nobody hears it, but for agents of other tests.
    for generator in &mut generators {
        generator.number("register");
    }
    // A child that was forked before anybody listened has an area of its own.
    let child: u32 = generators[0].ask("fork").parse().unwrap();
    let Some(agent) = Agent::start(test, &folder) else {
        return;
    };
    let pids = generators.iter().map(Announcer::pid).chain([child]);
    for pid in pids {
        let section = agent.section(pid, KEY).expect("adopted");
        assert_eq!(section["source"], "frame-area", "{section}");
        assert_eq!(agent.announced(pid).len(), 1);
    }
    for generator in &mut generators {
        let pid = generator.pid();
        // It says the same again, once: then it is known.
        agent.accepted(generator.number("register"));
        assert_eq!(agent.announced(pid).len(), 1);
        let expected = |answer| if agent.answers { answer } else { EINVAL };
        assert_eq!(generator.number("register"), expected(EEXIST));
        assert_eq!(generator.number("unregister"), expected(1));
        assert!(agent.section(pid, KEY).is_none());
        assert_eq!(generator.number("unregister"), expected(ENOENT));
    }
    assert!(agent.section(child, KEY).is_some(), "it has its own");
    drop(generators);
    until("the child is gone", || {
        agent.announced(child).is_empty().then_some(())
    });
}

#[test]
fn what_was_adopted_can_be_taken_back() {
    let folder = Folder::new();
    let test = "what_was_adopted_can_be_taken_back";
    let mut generators = generators(test);
    let Some(agent) = Agent::start(test, &folder) else {
        return;
    };
    for generator in &mut generators {
        assert!(agent.section(generator.pid(), KEY).is_some());
        let answer = generator.number("unregister");
        assert_eq!(answer, if agent.answers { 1 } else { EINVAL });
        assert!(agent.section(generator.pid(), KEY).is_none());
    }
    // Whoever does not want to be found has no magic in the header; and a name proves nothing.
    for generator in &mut generators {
        assert_eq!(generator.number("erase"), 0);
        assert_eq!(generator.number("nonsense"), 0);
    }
    agent.end(Signal::TERM);
    let agent = Agent::start(test, &folder).unwrap();
    for generator in &generators {
        assert!(agent.announced(generator.pid()).is_empty());
    }
    let (_, said) = agent.end(Signal::TERM);
    assert!(
        said.contains("called sframe-area hold no frame area"),
        "{said}"
    );
}

/// What a recording without an agent says of the program's thread that spins.
fn recorded(test: &str, pid: u32) -> Option<Vec<String>> {
    let output = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("late-{pid}.folded"));
    let (pid, path) = (pid.to_string(), output.to_str().unwrap());
    let run = framewalk(&[
        "record", "-p", &pid, "--engine", "kernel", "-d", "1", "-o", path,
    ]);
    let said = stderr(&run);
    if said.contains("nothing can be recorded here") || said.contains("not available") {
        skip(test, said.trim());
        return None;
    }
    assert!(run.status.success(), "{said}");
    println!("{said}");
    let folded = std::fs::read_to_string(&output).unwrap();
    let _ = std::fs::remove_file(output);
    let spinning = |line: &&str| !line.contains("fgets");
    Some(folded.lines().filter(spinning).map(str::to_owned).collect())
}

#[test]
fn a_recording_that_starts_late_walks_by_areas() {
    let test = "a_recording_that_starts_late_walks_by_areas";
    for mut generator in generators(test) {
        let Some(stacks) = recorded(test, generator.pid()) else {
            return;
        };
        let (mut whole, mut other) = (0, 0);
        for stack in &stacks {
            println!("{stack}");
            let (stack, count) = stack.rsplit_once(' ').unwrap();
            let count: u64 = count.parse().unwrap();
            let frames: Vec<&str> = stack.split(';').collect();
            let at = frames
                .iter()
                .position(|frame| frame.contains("outer in memory"));
            let inner = at.and_then(|at| frames.get(at + 1));
            match inner.is_some_and(|frame| frame.contains("inner in memory"))
                && !stack.contains("[cut off")
                && frames
                    .iter()
                    .any(|frame| frame.contains("start_thread") || frame.contains("clone"))
            {
                true => whole += count,
                false => other += count,
            }
        }
        assert!(whole >= 20, "{whole}");
        assert!(other * 20 <= whole, "{other} others, {whole}");

        // Without the area nobody knows.
        assert_eq!(generator.number("erase"), 0);
        let stacks = recorded(test, generator.pid()).unwrap();
        assert!(!stacks.iter().any(|stack| stack.contains("in memory")));
    }
}

/// `--all` finds it as well.
#[test]
fn a_recording_of_everything_searches_everywhere() {
    let test = "a_recording_of_everything_searches_everywhere";
    let Some(generator) = Announcer::generating("file") else {
        return;
    };
    let pid = generator.pid();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let [output, stats] =
        ["folded", "json"].map(|end| folder.join(format!("late-all-{pid}.{end}")));
    let run = framewalk(&[
        "record",
        "-a",
        "-F",
        "97",
        "--engine",
        "kernel",
        "-d",
        "1",
        "-o",
        output.to_str().unwrap(),
        "--stats",
        stats.to_str().unwrap(),
    ]);
    let said = stderr(&run);
    if !run.status.success() {
        return skip(test, said.trim());
    }
    let folded = std::fs::read_to_string(&output).unwrap();
    let numbers: Value = serde_json::from_slice(&std::fs::read(&stats).unwrap()).unwrap();
    println!("{said}\n{numbers}");
    assert!(folded.contains("outer in memory;inner in memory"));
    for path in [output, stats] {
        let _ = std::fs::remove_file(path);
    }
}
