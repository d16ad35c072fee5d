//! The table of a run.

use framewalk_oracle::amd64::Stepped;
use framewalk_oracle::ends::{End, ends};
use framewalk_oracle::gaps::GAPS;
use framewalk_oracle::judge::Judge;
use framewalk_oracle::peers::{Peers, Share, build_inside};
use framewalk_oracle::programs::{PROGRAMS, Program};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Instant;

/// Boundaries in all, unless another number is asked for: some programs end before their share does.
const BOUNDARIES: u64 = 25_000_000;
/// Early ends in a million boundaries, at most.
const EARLY: u64 = 1000;
/// Places that are told for each program and each kind of end.
const TOLD: usize = 12;
/// Peers are asked at every so many-th boundary: a number that no loop is likely to share a factor with.
const EVERY: u64 = 997;
const USAGE: &str = "usage: framewalk-oracle [--boundaries N] [--markdown] [--peers] [PROGRAM...]";

const COLUMNS: [&str; 10] = [
    "program",
    "boundaries",
    "places",
    "right",
    "early",
    "wrong",
    "unexplained",
    "phases",
    "met by",
    "per s",
];

/// What is asked for.
struct Asked {
    boundaries: u64,
    markdown: bool,
    peers: bool,
    programs: Vec<&'static Program>,
}

impl Asked {
    fn parse(mut words: Vec<String>) -> Result<Asked, String> {
        let mut flag = |name: &str| {
            let before = words.len();
            words.retain(|word| word != name);
            words.len() < before
        };
        let (markdown, peers) = (flag("--markdown"), flag("--peers"));
        let mut boundaries = BOUNDARIES;
        if let Some(at) = words.iter().position(|word| word == "--boundaries") {
            let number = words.get(at + 1).and_then(|n| n.parse().ok());
            boundaries = number.ok_or(USAGE)?;
            words.drain(at..=at + 1);
        }
        let known = |word: &&String| !PROGRAMS.iter().any(|p| p.name == **word);
        if let Some(word) = words.iter().find(known) {
            return Err(format!("there is no program {word}\n{USAGE}"));
        }
        let chosen = |p: &&Program| words.is_empty() || words.iter().any(|word| word == p.name);
        Ok(Asked {
            boundaries,
            markdown,
            peers,
            programs: PROGRAMS.iter().filter(chosen).collect(),
        })
    }

    fn row(&self, cells: &[&dyn Display]) {
        let cells: Vec<String> = cells.iter().map(ToString::to_string).collect();
        if self.markdown {
            return println!("| {} |", cells.join(" | "));
        }
        let mut line = format!("{:<20}", cells[0]);
        for cell in &cells[1..] {
            line += &format!(" {cell:>11}");
        }
        println!("{line}");
    }

    fn head(&self, columns: &[&str]) {
        let columns: Vec<&dyn Display> = columns.iter().map(|c| c as &dyn Display).collect();
        self.row(&columns);
        if self.markdown {
            let right: Vec<&dyn Display> = columns[1..].iter().map(|_| &"--:" as _).collect();
            self.row(&[&[&"---" as &dyn Display], &right[..]].concat());
        }
    }
}

/// A program that was stepped.
struct Ran {
    judge: Judge,
    ends: Vec<End>,
    rate: u64,
    peers: Option<Peers>,
}

impl Ran {
    /// Boundaries, right, early, wrong, unexplained.
    fn numbers(&self) -> [u64; 5] {
        let counts = &self.judge.counts;
        let (facts, guesses) = counts.wrong();
        let unexplained = self.ends.iter().filter(|end| end.gap.is_none());
        let unexplained = unexplained.map(|end| end.times).sum();
        [
            counts.all,
            counts.right,
            counts.early(),
            facts + guesses,
            unexplained,
        ]
    }
}

pub(super) fn main() -> Result<bool, String> {
    let asked = Asked::parse(std::env::args().skip(1).collect())?;
    let shares: u64 = asked.programs.iter().map(|p| p.share).sum();
    asked.head(&COLUMNS);
    let mut sum = [0; 5];
    let mut all: BTreeMap<&str, Ran> = BTreeMap::new();
    for program in &asked.programs {
        let ran = match asked.run(program, asked.boundaries * program.share / shares) {
            Ok(ran) => ran,
            Err(why) => {
                println!("SKIPPED {}: {why}", program.name);
                continue;
            }
        };
        let row = ran.numbers();
        for (sum, more) in sum.iter_mut().zip(row) {
            *sum += more;
        }
        let [boundaries, right, early, wrong, unexplained] = row;
        let (phases, met) = ran.judge.phases.count();
        let by = ran.judge.phases.all_by();
        let by = by.map_or("-".into(), |by| by.to_string());
        asked.row(&[
            &program.name,
            &boundaries,
            &ran.judge.places(),
            &right,
            &early,
            &wrong,
            &unexplained,
            &format!("{met}/{phases}"),
            &by,
            &ran.rate,
        ]);
        all.insert(program.name, ran);
    }
    let [boundaries, right, early, wrong, unexplained] = sum;
    let none = "";
    asked.row(&[
        &"all",
        &boundaries,
        &none,
        &right,
        &early,
        &wrong,
        &unexplained,
        &none,
        &none,
        &none,
    ]);
    asked.known(&all);
    asked.peers(&all);
    let mut sound = true;
    for (name, ran) in &all {
        for phase in ran.judge.phases.missing() {
            sound = false;
            println!("{name}: {phase} was not met");
        }
        let unexplained = ran.ends.iter().filter(|end| end.gap.is_none());
        for end in unexplained.take(TOLD) {
            sound = false;
            println!("{name}: {end}");
        }
    }
    if early * 1_000_000 > boundaries * EARLY {
        sound = false;
        println!("more than {EARLY} in a million ended early");
    }
    Ok(sound)
}

impl Asked {
    /// Tells of the reasons that are known.
    fn known(&self, all: &BTreeMap<&str, Ran>) {
        println!();
        self.head(&["known reason", "early", "wrong", "programs"]);
        for gap in GAPS {
            let of = |ran: &Ran, early| -> u64 {
                let ends = ran
                    .ends
                    .iter()
                    .filter(|end| end.verdict.is_early() == early);
                let explained = ends.filter(|end| end.gap.is_some_and(|g| g.name == gap.name));
                explained.map(|end| end.times).sum()
            };
            let sum = |early| -> u64 { all.values().map(|ran| of(ran, early)).sum() };
            let programs = all
                .values()
                .filter(|ran| of(ran, true) + of(ran, false) > 0);
            self.row(&[&gap.name, &sum(true), &sum(false), &programs.count()]);
        }
        println!();
        for gap in GAPS {
            println!("* {}: {}.", gap.name, gap.because);
        }
        println!();
    }

    /// Tells what the peers' walks are worth, beside our own at the same boundaries.
    fn peers(&self, all: &BTreeMap<&str, Ran>) {
        let mut shares: Vec<(&str, Share)> = Vec::new();
        let mut skipped = BTreeMap::new();
        for peers in all.values().filter_map(|ran| ran.peers.as_ref()) {
            for (name, share) in &peers.shares {
                match shares.iter_mut().find(|(known, _)| known == name) {
                    Some((_, sum)) => sum.merge(*share),
                    None => shares.push((name, *share)),
                }
            }
            skipped.extend(peers.skipped.iter().map(|(name, why)| (name, why)));
        }
        if shares.is_empty() {
            return;
        }
        println!("At every {EVERY}th boundary:\n");
        self.head(&["peer", "asked", "right", "early", "wrong"]);
        for (name, share) in shares {
            let Share {
                asked,
                right,
                early,
                wrong,
            } = share;
            let percent = |n: u64| format!("{:.3} %", n as f64 * 100.0 / asked.max(1) as f64);
            self.row(&[
                &name,
                &asked,
                &percent(right),
                &percent(early),
                &percent(wrong),
            ]);
        }
        println!();
        for (name, why) in skipped {
            println!("SKIPPED {name}: {why}");
        }
    }

    fn run(&self, program: &Program, limit: u64) -> Result<Ran, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let directory = own.with_file_name("oracle-programs");
        let mut command = program.prepare(&directory)?;
        let mut peers = self.peers.then(|| {
            let inside = build_inside(&directory);
            Peers::new(inside.map(|library| {
                command.env("LD_PRELOAD", library);
            }))
        });
        let began = Instant::now();
        let machine = Stepped::start(&mut command, program.begin);
        let mut machine = machine.map_err(|error| error.to_string())?;
        let mut judge = Judge::of(program.phases);
        let mut n = 0;
        let result = judge.run_with(&mut machine, limit, |machine, boundary, judge| {
            n += 1;
            match &mut peers {
                Some(peers) if n % EVERY == 0 => peers.ask(machine, boundary, judge),
                _ => Ok(()),
            }
        });
        result.map_err(|error| error.to_string())?;
        let rate = (judge.counts.all as f64 / began.elapsed().as_secs_f64()) as u64;
        let ends = ends(&judge);
        Ok(Ran {
            judge,
            ends,
            rate,
            peers,
        })
    }
}
