//! Functions that are compiled, run and freed while a recording looks at them.
//!
//! `FRAMEWALK_JIT=THREADS,FUNCTIONS,SECONDS` asks for more than the few that a test has time for, and for a
//! program that is built for speed: `4,100000,30`.

#[path = "jits/programs.rs"]
mod programs;
#[allow(dead_code)]
#[path = "recording/recorded.rs"]
mod recorded;
#[allow(dead_code)]
#[path = "recording/targets.rs"]
mod targets;
#[path = "jits/timed.rs"]
mod timed;

use programs::{program, twice};
use recorded::{framewalk, skip, words};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use targets::Directory;

/// Bytes in which one function stands at a time.
const BLOCK: u64 = 2048;

/// The clocks of program and recording are compared with each other by way of the wall clock.
const CLOCKS_DIFFER: f64 = 1e6;

/// When a function was described at most, by the wall clock.
struct Life {
    begin: f64,
    end: f64,
}

/// What the program wrote.
struct Journal {
    /// When it began, by the wall clock.
    begin: f64,
    /// Each function's life.
    lives: HashMap<String, Life>,
    /// How many blocks they lived in.
    blocks: usize,
}

fn journal(path: &Path) -> Journal {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let (mono, wall) = lines.next().unwrap().split_once(' ').unwrap();
    let began = wall.parse::<i128>().unwrap();
    let offset = began - mono.parse::<i128>().unwrap();
    let (mut lives, mut blocks) = (HashMap::new(), BTreeSet::new());
    for line in lines {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let numbers: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
        let [begin, end, start, _] = numbers[..] else {
            panic!("{line}");
        };
        let wall = |time: u64| (i128::from(time) + offset) as f64;
        let life = Life {
            begin: wall(begin),
            end: wall(end),
        };
        assert!(lives.insert(name.to_string(), life).is_none(), "{name}");
        blocks.insert(start / BLOCK);
    }
    Journal {
        begin: began as f64,
        lives,
        blocks: blocks.len(),
    }
}

/// Thread, nest and level, of a name that the program gave.
fn identity(name: &str) -> Option<[u64; 3]> {
    let mut numbers = name.strip_prefix('f')?.split('_').map(str::parse);
    let mut next = || numbers.next()?.ok();
    let identity = [next()?, next()?, next()?];
    numbers.next().is_none().then_some(identity)
}

/// What is wrong with the generated functions of a stack: they have to be of one nest, of this thread, from level
/// 0 on, with the host's function between each two, and alive.
fn wrong(sample: &timed::Sample, lives: &HashMap<String, Life>) -> Option<String> {
    let host = |name: &String| name.contains("descend");
    let mut nest = None;
    let (mut level, mut between) = (0, true);
    for name in &sample.names {
        if host(name) {
            between = true;
        }
        let Some([thread, of, at]) = identity(name) else {
            continue;
        };
        if sample.thread != format!("jit{thread}") || *nest.get_or_insert(of) != of {
            return Some(format!("{name} is another nest's"));
        }
        if at != level || !between {
            return Some(format!("{name} is not called from here"));
        }
        let life = lives.get(name)?;
        let (begin, end) = (life.begin - CLOCKS_DIFFER, life.end + CLOCKS_DIFFER);
        if !(begin..=end).contains(&sample.time) {
            let (early, late) = (life.begin - sample.time, sample.time - life.end);
            return Some(format!(
                "{name} is not alive: {early} ns before, {late} after"
            ));
        }
        (level, between) = (level + 1, false);
    }
    None
}

/// No frame names code that was not there, and stacks are whole.
#[test]
fn names_are_those_of_living_code() {
    let test = "names_are_those_of_living_code";
    let directory = Directory::new();
    let [output, stats, lines] =
        ["x.json.gz", "stats.json", "journal"].map(|name| directory.path(name));
    let asked = std::env::var("FRAMEWALK_JIT").ok();
    let program = program("cranelift", asked.is_some());
    let asked = asked.unwrap_or("4,4000,5".to_string());
    let mut arguments = words(&["--engine", "kernel", "-o"]);
    arguments.push(output.clone().into());
    arguments.extend(words(&[
        "--stats".as_ref(),
        stats.as_os_str(),
        "--".as_ref(),
    ]));
    let lines_at = lines.display().to_string();
    let mut second: Vec<&str> = asked.split(',').collect();
    second.push(&lines_at);
    let first = ["2", "400", "2", "/dev/null"];
    arguments.extend(twice(&program, &first, &second));
    let recorded = framewalk(&arguments);
    let said = String::from_utf8_lossy(&recorded.stderr);
    if said.contains("nothing can be recorded here") {
        return skip(test, said.trim().lines().last().unwrap_or_default());
    }
    println!("{said}");
    assert!(recorded.status.success(), "{said}");

    let Journal {
        begin,
        lives,
        blocks,
    } = journal(&lines);
    println!("{} functions in {blocks} blocks", lives.len());
    assert!(lives.len() >= 10 * blocks, "code memory is used again");
    let mut samples = timed::read(&output);
    samples.retain(|sample| sample.time > begin && sample.thread.starts_with("jit"));
    let is_generated = |name: &String| identity(name).is_some();
    let generated: Vec<_> = samples
        .iter()
        .filter(|sample| sample.names.iter().any(is_generated))
        .collect();
    let share = |is: &dyn Fn(&timed::Sample) -> bool| {
        let count =
            |samples: &mut dyn Iterator<Item = &timed::Sample>| samples.filter(|s| is(s)).count();
        (
            count(&mut samples.iter()),
            count(&mut generated.iter().copied()),
        )
    };
    let complete = share(&|sample| sample.cut().is_none());
    let guessed = share(&|sample| sample.guessed);
    println!(
        "{} samples, {} in generated code; complete {complete:?}, guessed {guessed:?}",
        samples.len(),
        generated.len(),
    );
    for sample in &samples {
        let stack = sample.names.join(";");
        assert_eq!(wrong(sample, &lives), None, "{stack}");
        for name in sample.names.iter().filter(|name| is_generated(name)) {
            assert!(lives.contains_key(name), "{name} never lived");
        }
    }
    assert!(generated.len() >= 50, "{}", generated.len());
    assert!(complete.0 * 100 >= samples.len() * 99, "complete stacks");
    assert!(complete.1 * 100 >= generated.len() * 99, "complete stacks");
    assert!(guessed.0 * 100 <= samples.len(), "guessed frames");
    let statistics: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&stats).unwrap()).unwrap();
    println!("{statistics}");
    assert_eq!(statistics["lost"], 0);
}
