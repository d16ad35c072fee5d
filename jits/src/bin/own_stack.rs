//! Runs code on stacks of its own, described in a frame area: `own_stack THREADS LEVELS SECONDS NAME`,
//! where NAME is that of the threads.
//!
//! Each thread climbs: C calls `enter`, which calls `j_0` on the other stack, which calls `leave`, which calls C on
//! C's stack, and so on, for LEVELS levels, with busy loops everywhere, again and again for SECONDS seconds. Prints what
//! registering the area was answered.
#![allow(unsafe_code)]

use framewalk_announce::area::{Function, Label, Mapped, Options, Place, Rule};
use framewalk_jits::memory::map;
use framewalk_jits::own_stack::{Code, How};
use std::hint::black_box;
use std::ptr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Bytes of a stack that code runs on.
const STACK: usize = 1 << 16;

/// What `enter` and `leave` know of a thread. They go by the order of the first two.
#[repr(C)]
struct Thread {
    c_sp: u64,
    j_sp: u64,
    level: usize,
}

type Enter = unsafe extern "C" fn(thread: *mut Thread, code: u64, argument: *mut Thread);

/// Where the code is.
struct Loaded {
    enter: Enter,
    levels: Vec<u64>,
}

static LOADED: OnceLock<Loaded> = OnceLock::new();

/// A busy loop.
#[inline(never)]
fn spin() {
    for turn in 0..300u32 {
        black_box(turn);
    }
}

/// Enters the code of this level, or returns at the top.
#[inline(always)]
fn climb(thread: *mut Thread) {
    let loaded = LOADED.get().expect("code");
    spin();
    // SAFETY: each thread has its own.
    let level = unsafe { &mut (*thread).level };
    let code = loaded.levels[*level];
    *level += 1;
    // SAFETY: code that was put there for this, with a stack that is large enough.
    unsafe { (loaded.enter)(thread, code, thread) };
    // SAFETY: as above.
    unsafe { (*thread).level -= 1 };
    spin();
}

extern "C" fn climb_even(thread: *mut Thread) {
    climb(thread);
    black_box(());
}

extern "C" fn climb_odd(thread: *mut Thread) {
    climb(thread);
    black_box(());
}

/// Describes the code where it is.
fn describe(code: &Code, base: u64) -> Mapped {
    let options = Options {
        granule_shift: 6,
        ..Options::new(base, code.bytes.len().next_multiple_of(4096) as u64)
    };
    let area = Mapped::new(&options).expect("an area");
    for part in &code.parts {
        let rule = match part.how {
            How::Fixed(height) => Rule::fixed(height),
            How::Switch { slot, above } => Rule::StackSwitch {
                stack: Place::At(slot),
                cfa: above,
                ra: -8,
                fp: 0,
            },
        };
        let start = base + part.bytes.start as u64;
        let function = Function {
            prologue_len: part.prologue,
            label: Label::Name(&part.name),
            ..Function::new(start, part.bytes.len() as u32, rule)
        };
        area.publish(&function).expect("room");
    }
    area
}

/// Puts the code into memory where it can run.
fn load(levels: usize) -> Mapped {
    // The code calls climb_odd from j_0, which is entered from climb_even.
    let climbs = [
        climb_odd as *const () as u64,
        climb_even as *const () as u64,
    ];
    let functions: Vec<u64> = climbs.into_iter().cycle().take(levels).collect();
    let code = Code::new(&functions);
    let len = code.bytes.len().next_multiple_of(4096);
    let base = map(len, libc::PROT_READ | libc::PROT_WRITE).expect("memory");
    // SAFETY: a mapping of at least this length that nobody else knows.
    unsafe { ptr::copy_nonoverlapping(code.bytes.as_ptr(), base as *mut u8, code.bytes.len()) };
    // SAFETY: the same mapping.
    let executable = unsafe {
        let executable = libc::PROT_READ | libc::PROT_EXEC;
        libc::mprotect(base as *mut libc::c_void, len, executable)
    };
    assert_eq!(executable, 0);
    let area = describe(&code, base as u64);
    let loaded = Loaded {
        // SAFETY: `enter` is a function of this type.
        enter: unsafe { std::mem::transmute::<usize, Enter>(base + code.enter) },
        levels: code.levels.iter().map(|at| (base + at) as u64).collect(),
    };
    assert!(LOADED.set(loaded).is_ok());
    area
}

fn climb_until(end: Instant) {
    let stack = map(STACK, libc::PROT_READ | libc::PROT_WRITE).expect("memory");
    let mut thread = Thread {
        c_sp: 0,
        j_sp: (stack + STACK) as u64,
        level: 0,
    };
    while Instant::now() < end {
        climb_even(&raw mut thread);
    }
    assert_eq!((thread.level, thread.j_sp), (0, (stack + STACK) as u64));
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [threads, levels, seconds, name] = &arguments[..] else {
        panic!("own_stack THREADS LEVELS SECONDS NAME");
    };
    let [threads, levels, seconds] =
        [threads, levels, seconds].map(|number| number.parse::<u64>().expect("a number"));
    let area = load(levels as usize);
    println!("{:?}", area.register());
    let end = Instant::now() + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let thread = std::thread::Builder::new().name(name.clone());
            let spawned = thread.spawn_scoped(scope, || climb_until(end));
            spawned.expect("a thread");
        }
    });
}
