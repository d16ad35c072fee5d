//! The walk in the kernel, of stacks, registers and files that somebody corrupted: each walk ends, says why, and is the one of
//! the walk in Rust over the same memory. A walk that is due and does not come within a minute fails the test.
//!
//! A traced process stands still; a test changes its memory and registers, lets it try one instruction, and the kernel engine
//! walks when it leaves its CPU. `FRAMEWALK_CORRUPTIONS` says how often, `FRAMEWALK_SEED` for the same again.
#![cfg(target_arch = "x86_64")]

mod files;
mod make;
mod victim;

use framewalk::engines::{Engine, Settings, Target, open_at_switches};
use framewalk::processes::{Mappings, Objects, ProcessCode, Tables, walk_process};
use framewalk::sample::{Frame, Sample};
use framewalk_walk::{Origin, Start, Stop};
use make::Corruption;
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use victim::{Victim, program, registers};

const SETTINGS: Settings = Settings {
    frequency: 1,
    max_frames: 510,
};
/// Unless FRAMEWALK_CORRUPTIONS says otherwise.
const CORRUPTIONS: u64 = 5_000;

/// One at a time: who forks while another writes a program keeps it from being executed.
static TURN: Mutex<()> = Mutex::new(());

fn set(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// What two walks of the same were.
#[derive(Debug, PartialEq, Eq)]
enum Walked {
    Alike,
    /// The kernel's met a page that it could not read.
    Absent,
}

/// The kernel engine on some victims, and what walks in Rust need.
struct Walks {
    engine: Box<dyn Engine>,
    objects: Objects,
    tables: Tables,
    /// Samples that came, and walks that were due: one for each instruction that was tried. (More come where the thread
    /// left its CPU in between.)
    taken: u64,
    due: u64,
    stops: BTreeMap<Stop, u64>,
}

impl Walks {
    fn open(victims: &[&Victim]) -> Result<Walks, String> {
        let pids = victims.iter().map(|v| v.tid.as_raw().cast_unsigned());
        let mut engine = open_at_switches(&Target::Pids(pids.collect()), SETTINGS)
            .map_err(|refused| format!("{} ({})", refused.what, refused.missing))?;
        engine.start().unwrap();
        Ok(Walks {
            engine,
            objects: Objects::default(),
            tables: Tables::default(),
            taken: 0,
            due: 0,
            stops: BTreeMap::new(),
        })
    }

    fn mappings(&mut self, victim: &Victim) -> Mappings {
        let pid = victim.tid.as_raw().cast_unsigned();
        Mappings::of_process(pid, &mut self.objects).expect("it lives")
    }

    /// The kernel's last walk of a victim since `begun`.
    fn inside(&mut self, victim: &Victim, begun: u64) -> (Vec<Frame>, Stop) {
        let tid = victim.tid.as_raw().cast_unsigned();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut last: Option<Sample> = None;
        while last.is_none() {
            assert!(Instant::now() < deadline, "the kernel did not walk");
            let mut took = 0;
            let mut take = |sample: Sample| {
                took += 1;
                if sample.tid == tid && sample.time_ns >= begun {
                    last = Some(sample);
                }
            };
            let objects = &mut self.objects;
            self.engine
                .poll(Duration::ZERO, objects, &mut take)
                .unwrap();
            self.taken += took;
        }
        self.due += 1;
        let mut sample = last.expect("one came");
        sample.frames.retain(|frame| frame.origin != Origin::Kernel);
        assert!(sample.frames.len() <= SETTINGS.max_frames);
        (sample.frames, sample.stop)
    }

    fn outside(
        &mut self,
        victim: &Victim,
        at: &libc::user_regs_struct,
        mappings: &Mappings,
    ) -> (Vec<Frame>, Stop) {
        let mut code = ProcessCode::new(mappings, &self.objects, &mut self.tables);
        let mut frames = Vec::new();
        let start = Start::topmost(registers(at));
        let mut memory = |address| victim.word(address);
        let stop = walk_process(
            start,
            &mut memory,
            &mut code,
            SETTINGS.max_frames,
            &mut frames,
        );
        (frames, stop)
    }

    /// Ends it: the kernel knows of no walk that was lost. (That each one came was waited for.)
    fn finish(mut self) -> BTreeMap<Stop, u64> {
        let mut after = 0;
        let counts = self.engine.finish(&mut self.objects, &mut |_| after += 1);
        let counts = counts.unwrap();
        assert_eq!(counts.lost, 0);
        println!(
            "{} walks were due, {} came, none was lost",
            self.due,
            self.taken + after
        );
        self.stops
    }

    /// One instruction with these registers, walked by both. What of the kernel's ended before the other one is answered
    /// apart: a page may be mapped and yet absent, and the walk in the kernel cannot wait for it there.
    fn both(
        &mut self,
        victim: &Victim,
        with: libc::user_regs_struct,
        mappings: &Mappings,
    ) -> Result<Walked, String> {
        let begun = now();
        let at = victim.step(with);
        let inside = self.inside(victim, begun);
        let outside = self.outside(victim, &at, mappings);
        *self.stops.entry(inside.1).or_default() += 1;
        if inside == outside {
            return Ok(Walked::Alike);
        }
        if inside.1 == Stop::ReadFault && outside.0.starts_with(&inside.0) {
            return Ok(Walked::Absent);
        }
        Err(format!(
            "at {:#x?}: inside {inside:x?}, outside {outside:x?}",
            registers(&at)
        ))
    }
}

#[test]
fn corrupted_stacks_and_registers() {
    const TEST: &str = "corrupted_stacks_and_registers";
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let program = match program() {
        Ok(program) => program,
        Err(why) => return println!("SKIPPED {TEST}: {why}"),
    };
    let seed = set("FRAMEWALK_SEED").unwrap_or_else(|| fastrand::u64(..));
    let corruptions = set("FRAMEWALK_CORRUPTIONS").unwrap_or(CORRUPTIONS);
    println!("FRAMEWALK_SEED={seed}");
    let (victim, healthy) = (
        Victim::start(&program, None).unwrap(),
        Victim::start(&program, None).unwrap(),
    );
    let mut walks = match Walks::open(&[&victim, &healthy]) {
        Ok(walks) => walks,
        Err(why) => return println!("SKIPPED {TEST}: {why}"),
    };
    let (mappings, beside) = (walks.mappings(&victim), walks.mappings(&healthy));
    // Every table is there before anything is corrupted: what is finished outside has only a piece of the stack.
    for mapping in mappings.iter() {
        let mut with = victim.still;
        victim.put(with.rsp, mapping.start + 1);
        with.rip = victim.still.rip;
        let deadline = Instant::now() + Duration::from_secs(60);
        while walks.both(&victim, with, &mappings) != Ok(Walked::Alike) {
            assert!(Instant::now() < deadline, "{mapping:x?}");
        }
    }
    victim.restore();
    walks.stops.clear();
    let (mut truth, mut again) = (None, 0);
    let mut made: BTreeMap<&str, u64> = BTreeMap::new();
    let mut random = fastrand::Rng::with_seed(seed);
    for number in 0..corruptions {
        let Corruption { kind, with } = make::corrupt(&mut random, &victim, &mappings);
        // What was absent is there after the walk outside.
        for turn in 0..2 {
            match walks.both(&victim, with, &mappings) {
                Ok(Walked::Alike) => break,
                Ok(Walked::Absent) if turn == 0 => again += 1,
                other => panic!("corruption {number}, {kind}: {other:?}"),
            }
        }
        victim.restore();
        *made.entry(kind).or_default() += 1;
        if number % 16 == 0 {
            let begun = now();
            let at = healthy.step(healthy.still);
            let walked = walks.inside(&healthy, begun);
            assert_eq!(walked, walks.outside(&healthy, &at, &beside));
            assert_eq!(walked.1, Stop::Outermost);
            assert_eq!(*truth.get_or_insert(walked.clone()), walked);
        }
    }
    println!(
        "{corruptions} corruptions, walked alike by both, {again} of them once the pages were there: {made:?}"
    );
    // Pages are absent seldom: what is not there does not come to be forgiven.
    assert!(again * 100 <= corruptions, "{again}");
    let stops = walks.finish();
    for (stop, count) in &stops {
        println!("  {count:>8} {}", stop.name());
    }
    for stop in [
        Stop::ReadFault,
        Stop::CfaNotAbove,
        Stop::CfaBad,
        Stop::NotCode,
        Stop::ZeroReturn,
    ] {
        assert!(stops.contains_key(&stop), "{stop:?} was never met");
    }
}
