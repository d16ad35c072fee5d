//! Compiles, runs and frees functions with Cranelift on several threads, described in a frame area:
//! `cranelift THREADS FUNCTIONS SECONDS JOURNAL`.
//!
//! A *nest* is a thread's chain of 3 to 10 functions, each of which calls Rust, which calls the next one. When it has run
//! for a while, its functions are freed, and others soon stand at their addresses. A function's name says whose it is:
//! `f<thread>_<nest>_<level>`. JOURNAL becomes a file with a line for each function, `name begin end start size`: it was
//! described from begin to end at most (CLOCK_MONOTONIC, ns). The first line has the two clocks at one moment.
#![allow(unsafe_code)]

use framewalk_announce::area::{Function, Label, Mapped, Options, Rule, Slot};
use framewalk_jits::generate::{Compiled, Generator, Host, Shape};
use framewalk_jits::memory::CodeMemory;
use framewalk_jits::rows::{self, By};
use std::fmt::Write;
use std::hint::black_box;
use std::sync::Barrier;

/// Blocks of code memory for each thread: twice what it uses at most.
const BLOCKS: usize = 20;

/// Turns of the loops in generated code.
const TURNS: i64 = 1000;

/// How often a nest runs at least.
const RUNS: usize = 60;

/// Bytes of rows and name of a function, at most.
const HEAP: u64 = 128;

/// The entry points of a nest.
struct Task {
    functions: Vec<u64>,
}

type Entry = extern "C" fn(task: *const Task, turns: i64) -> i64;

impl Task {
    fn run(&self, level: usize) -> i64 {
        let start = self.functions[level] as usize;
        // SAFETY: a function of this type was generated there, and is not freed while its nest runs.
        let function = unsafe { std::mem::transmute::<usize, Entry>(start) };
        function(self, TURNS)
    }
}

/// What generated code calls to get to the next level.
extern "C" fn descend(task: *const Task, level: i64) -> i64 {
    // SAFETY: generated code hands on what `Task::run` gave it.
    black_box(unsafe { &*task }.run(level as usize + 1))
}

#[allow(clippy::too_many_arguments)]
extern "C" fn descend_wide(
    task: *const Task,
    level: i64,
    a: i64,
    b: i64,
    c: i64,
    d: i64,
    e: i64,
    f: i64,
    g: i64,
    h: i64,
) -> i64 {
    assert_eq!(
        [b, c, d, e, f, g, h].map(|n| n.wrapping_sub(a)),
        [1, 2, 3, 4, 5, 6, 7]
    );
    // SAFETY: as above.
    black_box(unsafe { &*task }.run(level as usize + 1))
}

fn clock(which: libc::clockid_t) -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes a time to a place for one.
    unsafe { libc::clock_gettime(which, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// A function that is described and can be run.
struct Live {
    name: String,
    begun: u64,
    compiled: Compiled,
    slot: Slot,
}

struct Worker<'a> {
    number: u64,
    generator: Generator,
    area: &'a Mapped,
    journal: String,
    random: u64,
}

impl Worker<'_> {
    fn random(&mut self, bound: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.random >> 33) % bound
    }

    /// Compiles a function and describes it.
    fn make(&mut self, nest: u64, level: usize, leaf: bool) -> Live {
        let name = format!("f{}_{nest}_{level}", self.number);
        let shape = match leaf {
            true => Shape::Leaf,
            false => Shape::CALLING[self.random(Shape::CALLING.len() as u64) as usize],
        };
        let by = [By::FramePointer, By::StackPointer][self.random(2) as usize];
        let compiled = self
            .generator
            .function(&name, shape, level as i64, by)
            .expect("a function");
        let rows = rows::bytes(compiled.start, compiled.size, compiled.rows.clone());
        let rows = rows.expect("rows");
        let function = Function {
            label: Label::Name(&name),
            ..Function::new(compiled.start, compiled.size, Rule::Rows(&rows))
        };
        let begun = now();
        let slot = self.area.publish(&function).expect("room in the area");
        Live {
            name,
            begun,
            compiled,
            slot,
        }
    }

    /// Takes a function back, and then its memory.
    fn free(&mut self, live: Live) {
        assert!(self.area.tombstone(live.slot));
        let ended = now();
        let Live {
            name,
            begun,
            compiled,
            ..
        } = live;
        let (start, size) = (compiled.start, compiled.size);
        let _ = writeln!(self.journal, "{name} {begun} {ended} {start} {size}");
        // SAFETY: the nest has returned; nobody runs the function or will.
        unsafe { compiled.into_module().free_memory() };
    }

    /// Nests, one after the other: `count` functions, over the time from `begin` to `end`.
    fn work(&mut self, count: u64, begin: u64, end: u64) {
        let (mut done, mut nest) = (0, 0);
        while done < count {
            let depth = (3 + self.random(8)) as usize;
            let functions: Vec<Live> = (0..depth)
                .map(|level| self.make(nest, level, level + 1 == depth))
                .collect();
            let task = Task {
                functions: functions.iter().map(|live| live.compiled.start).collect(),
            };
            done += depth as u64;
            nest += 1;
            let until = begin + (end - begin) * done.min(count) / count;
            let mut runs = 0;
            while runs < RUNS || now() < until {
                black_box(task.run(0));
                runs += 1;
            }
            for live in functions {
                self.free(live);
            }
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [threads, functions, seconds, journal] = &arguments[..] else {
        panic!("cranelift THREADS FUNCTIONS SECONDS JOURNAL");
    };
    let [threads, functions, seconds] =
        [threads, functions, seconds].map(|number| number.parse::<u64>().expect("a number"));
    let memory = CodeMemory::new(threads as usize * BLOCKS).expect("memory");
    // A nest may be longer than what was asked for, and slots are given up where threads meet.
    let capacity = functions + functions / 8 + threads * 10;
    let area = Mapped::new(&Options {
        capacity: capacity as u32,
        heap: capacity * HEAP,
        ..Options::new(memory.base(), memory.size())
    })
    .expect("an area");
    println!("{:?}", area.register());
    let clocks = format!("{} {}\n", now(), clock(libc::CLOCK_REALTIME));
    let host = || Host {
        descend: descend as *const u8,
        descend_wide: descend_wide as *const u8,
    };
    let barrier = Barrier::new(threads as usize);
    let journals: Vec<String> = std::thread::scope(|scope| {
        let spawn = |number: u64| {
            let (area, barrier) = (&area, &barrier);
            let work = move || {
                let mut worker = Worker {
                    number,
                    generator: Generator::new(memory, host()),
                    area,
                    journal: String::new(),
                    random: number,
                };
                barrier.wait();
                let begin = now();
                worker.work(functions / threads, begin, begin + seconds * 1_000_000_000);
                worker.journal
            };
            let builder = std::thread::Builder::new().name(format!("jit{number}"));
            builder.spawn_scoped(scope, work).expect("a thread")
        };
        let spawned: Vec<_> = (0..threads).map(spawn).collect();
        let joined = spawned.into_iter().map(|thread| thread.join().unwrap());
        joined.collect()
    });
    std::fs::write(journal, clocks + &journals.concat()).expect("a journal");
}
