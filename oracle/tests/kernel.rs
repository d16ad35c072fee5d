//! The walk inside the kernel beside the one outside, at every boundary of a share of the programs.
//!
//! A thread that is stepped leaves its CPU at each boundary. The kernel engine walks there, by the VMA tree, tables and
//! caches that it always has, while the registers of user mode are those that the tracer sees.
#![cfg(target_arch = "x86_64")]

use framewalk::engines::{Engine, Settings, Target, open_at_switches};
use framewalk::processes::{Mappings, Objects, ProcessCode, Tables, walk_process};
use framewalk::sample::{Frame, Sample};
use framewalk_oracle::amd64::Stepped;
use framewalk_oracle::machine::{Boundary, Machine};
use framewalk_oracle::programs::{PROGRAMS, Program};
use framewalk_walk::{Memory, Origin, Start, Stop};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

const SETTINGS: Settings = Settings {
    frequency: 1,
    max_frames: 510,
};
/// Boundaries of all programs together, unless FRAMEWALK_STATES says otherwise.
const BOUNDARIES: u64 = 6_000;

struct Words<'a>(&'a mut Stepped, u32);

impl Memory for Words<'_> {
    fn word(&mut self, address: u64) -> Option<u64> {
        self.0.word(self.1, address)
    }
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Both walkers of one process, with the same objects.
#[derive(Default)]
struct Both {
    objects: Objects,
    tables: Tables,
    mappings: Option<Mappings>,
    /// How the walks of the kernel ended.
    stops: BTreeMap<Stop, u64>,
}

impl Both {
    fn outside(&mut self, machine: &mut Stepped, boundary: &Boundary) -> (Vec<Frame>, Stop) {
        if boundary.remapped || self.mappings.is_none() {
            let mappings = Mappings::of_process(boundary.pid, &mut self.objects);
            self.mappings = Some(mappings.expect("it lives"));
        }
        let mappings = self.mappings.as_ref().expect("just read");
        let mut code = ProcessCode::new(mappings, &self.objects, &mut self.tables);
        let mut frames = Vec::new();
        let start = Start::topmost(boundary.registers);
        let mut memory = Words(machine, boundary.pid);
        let stop = walk_process(
            start,
            &mut memory,
            &mut code,
            SETTINGS.max_frames,
            &mut frames,
        );
        (frames, stop)
    }

    /// The kernel's last walk of this thread since `begun`.
    fn inside(&mut self, engine: &mut dyn Engine, tid: u32, begun: u64) -> (Vec<Frame>, Stop) {
        let mut last: Option<Sample> = None;
        let deadline = Instant::now() + Duration::from_secs(60);
        while last.is_none() {
            assert!(Instant::now() < deadline, "the kernel did not walk");
            let mut take = |sample: Sample| {
                let newer = last
                    .as_ref()
                    .is_none_or(|last| last.time_ns < sample.time_ns);
                if sample.tid == tid && sample.time_ns >= begun && newer {
                    last = Some(sample);
                }
            };
            engine
                .poll(Duration::ZERO, &mut self.objects, &mut take)
                .expect("it samples");
        }
        let mut sample = last.expect("one came");
        sample.frames.retain(|frame| frame.origin != Origin::Kernel);
        (sample.frames, sample.stop)
    }
}

/// Steps a program, and compares; how often both said the same.
fn compared(program: &Program, limit: u64) -> Result<u64, String> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs");
    let mut command = program.prepare(&directory)?;
    let mut machine =
        Stepped::start(&mut command, program.begin).map_err(|error| error.to_string())?;
    let first = machine.step().unwrap().expect("it begins");
    let target = Target::Pids(vec![first.pid]);
    let mut engine = open_at_switches(&target, SETTINGS)
        .map_err(|refused| format!("{} ({})", refused.what, refused.missing))?;
    engine.start().unwrap();
    let mut both = Both::default();
    let mut states = 0;
    while states < limit {
        let begun = now();
        let Some(boundary) = machine.step().unwrap() else {
            break;
        };
        // One address space at a time: children have their own mappings.
        if boundary.pid != first.pid {
            break;
        }
        let outside = both.outside(&mut machine, &boundary);
        let inside = both.inside(engine.as_mut(), boundary.tid, begun);
        let registers = boundary.registers;
        assert_eq!(
            inside, outside,
            "{}, boundary {states}: inside and outside of the kernel differ at {registers:#x?}",
            program.name
        );
        *both.stops.entry(inside.1).or_default() += 1;
        states += 1;
    }
    println!("{}: {states} states, {:?}", program.name, both.stops);
    Ok(states)
}

#[test]
fn the_kernel_walks_alike() {
    let asked = std::env::var("FRAMEWALK_STATES");
    let boundaries = asked.map_or(BOUNDARIES, |n| n.parse().expect("a number"));
    // As many of each: it is the states that differ which count.
    let each = boundaries / PROGRAMS.len() as u64;
    let mut all = 0;
    for program in PROGRAMS {
        match compared(program, each) {
            Ok(states) => all += states,
            Err(why) => println!("SKIPPED the_kernel_walks_alike {}: {why}", program.name),
        }
    }
    println!("{all} states, no difference");
}
