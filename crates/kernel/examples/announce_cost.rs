//! What announcing costs, and what many sections cost walks: one table from one run. Needs root.
//!
//! Code and sections are made here: functions that call the next one, each with a section of its own. The
//! time of a call is the median over batches; what a sample costs is what the programs counted.

#![allow(unsafe_code)]

use framewalk_announce::abi::{MAX_SECTIONS, REGISTER, UNREGISTER};
use framewalk_kernel::{Hook, Mode, Options, Record, Registry, Sampler};
use framewalk_sframe::{Arch, Builder, CallerRule, Cfa, FunctionRows, Register, Row, Rule, Unwind};
use std::error::Error;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A prctl option that nobody knows.
const NOBODYS: u32 = 0x5346_47ff;

/// `sub $8,%rsp; mov (%rdi),%rax; add $8,%rdi; call *%rax; add $8,%rsp; ret`
const CALL: &[u8] = &[
    0x48, 0x83, 0xec, 8, 0x48, 0x8b, 7, 0x48, 0x83, 0xc7, 8, 0xff, 0xd0, 0x48, 0x83, 0xc4, 8, 0xc3,
];
/// `1: dec %rsi; jnz 1b; ret`
const SPIN: &[u8] = &[0x48, 0xff, 0xce, 0x75, 0xfb, 0xc3];
/// From one function to the next, and from one section to the next; bytes.
const STRIDE: usize = 128;
/// Functions on the stack while it is sampled.
const DEPTH: usize = 36;
const FREQUENCY: u64 = 4000;

fn main() -> Result<(), Box<dyn Error>> {
    let code = Code::make(MAX_SECTIONS as usize)?;
    let unheard = per_call(1000, |_| call(NOBODYS, 0, 0, 0));
    println!("nanoseconds per call, medians of batches");
    println!("  {:<44} {unheard:>8.0}", "unknown option, nobody listens");
    let mut tried = 0;
    for &hook in Hook::ALL {
        match Registry::load(&[hook]) {
            Ok(registry) => {
                tried += 1;
                println!(
                    "  {} ({}):",
                    hook.name(),
                    if hook.answers() { "answers" } else { "listens" }
                );
                calls(&code, registry);
            }
            Err(error) => println!("  {}: not possible here: {error}", hook.name()),
        }
    }
    if tried == 0 {
        return Err("no hook can be used".into());
    }
    println!("a sample of {DEPTH} frames, each in a section of its own, rules cached");
    let mut medians = Vec::new();
    for sections in [64, MAX_SECTIONS as usize] {
        let nanoseconds = walks(&code, sections)?;
        println!("  {sections:>5} sections registered {nanoseconds:>27.0} ns");
        medians.push(nanoseconds);
    }
    println!(
        "  4096 against 64: {:.2} x (limit 2)",
        medians[1] / medians[0]
    );
    Ok(())
}

/// The costs of calls while this registry listens.
fn calls(code: &Code, mut registry: Registry) {
    let mut line = |what: &str, nanoseconds: f64| {
        println!("    {what:<42} {nanoseconds:>8.0}");
        // Nobody reads what was heard while it is measured.
        let _ = registry.heard();
    };
    line("unknown option", per_call(1000, |_| call(NOBODYS, 0, 0, 0)));
    for held in [16, 256, 4000] {
        let base = MAX_SECTIONS as usize - held;
        // Libraries are mapped downwards.
        let order = |n: usize| base + held - 1 - n;
        let (mut register, mut unregister) = (Vec::new(), Vec::new());
        for _ in 0..(20_000 / held).max(3) {
            let begin = Instant::now();
            (0..held).for_each(|n| code.register(order(n)));
            register.push(begin.elapsed().as_nanos() as f64 / held as f64);
            let begin = Instant::now();
            (0..held).for_each(|n| call(UNREGISTER, order(n) as u64, 0, 0));
            unregister.push(begin.elapsed().as_nanos() as f64 / held as f64);
        }
        line(&format!("register, 0 to {held} held"), median(register));
        line(&format!("unregister, {held} to 0 held"), median(unregister));
    }
}

/// Nanoseconds per sample in the programs.
fn walks(code: &Code, sections: usize) -> Result<f64, Box<dyn Error>> {
    let registry = Registry::load(Hook::ALL)?;
    let spacing = (sections - 1) / DEPTH;
    let chain: Vec<usize> = (0..DEPTH).map(|n| n * spacing).collect();
    // The last one is where the time is spent.
    let last = MAX_SECTIONS as usize - 1;
    let registered = (0..sections - 1).chain([last]);
    registered.clone().for_each(|n| code.register(n));
    let held = registry.maps().of_process(std::process::id());
    let held = held.map_or(0, |space| space.sections.len());
    if held != sections {
        return Err(format!("{held} of {sections} sections are registered").into());
    }
    let mut results = Vec::new();
    for _ in 0..5 {
        let options = Options {
            mode: Some(Mode::Immediate),
            max_frames: Options::MAX_FRAMES,
            ring_bytes: 8 << 20,
        };
        let mut sampler = Sampler::load(options, Some(registry.maps()))?;
        sampler.attach(clock()?)?;
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(400) {
            code.run(&chain, 10_000_000);
        }
        sampler.detach();
        let mut ends = std::collections::BTreeMap::<_, u64>::new();
        sampler.poll(Duration::ZERO, &mut |record| {
            if let Record::Sample(sample) = record {
                *ends.entry((sample.frames.len(), sample.stop)).or_default() += 1;
            }
        })?;
        let counts = sampler.counts()?;
        // Some samples are of this function here, and end at once.
        if counts.frames < counts.samples * DEPTH as u64 * 8 / 10 {
            return Err(format!("walks were cut: frames and ends {ends:?}; {counts:?}").into());
        }
        results.push(counts.run_ns as f64 / counts.run_cnt as f64);
    }
    for n in registered {
        call(UNREGISTER, n as u64, 0, 0);
    }
    Ok(median(results))
}

/// Functions and their sections, in memory alone.
struct Code {
    text: *mut u8,
    sections: Vec<u8>,
    lengths: Vec<usize>,
}

impl Code {
    fn make(functions: usize) -> Result<Code, Box<dyn Error>> {
        let bytes = functions * STRIDE;
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let text = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if text == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        let text = text.cast::<u8>();
        let mut code = Code {
            text,
            sections: vec![0; bytes],
            lengths: Vec::new(),
        };
        for n in 0..functions {
            let spins = n == functions - 1;
            let bytes = if spins { SPIN } else { CALL };
            // SAFETY: both fit the stride, and the mapping has one for each.
            unsafe {
                text.add(n * STRIDE)
                    .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            }
            let offsets: &[(u32, i32)] = if spins {
                &[(0, 8)]
            } else {
                &[(0, 8), (4, 16), (17, 8)]
            };
            let rows = offsets.iter().map(|&(start, cfa)| Row {
                start,
                unwind: match n {
                    0 => Unwind::Outermost,
                    _ => Unwind::Caller(CallerRule {
                        cfa: Cfa::Value(Register(7), cfa),
                        ra: Rule::AtCfa(-8),
                        fp: Rule::Same,
                        ra_signed: false,
                    }),
                },
            });
            let mut builder = Builder::new(Arch::Amd64);
            let size = bytes.len() as u32;
            builder.push(FunctionRows::new(code.function(n), size, rows.collect()));
            let section = builder.finish(code.section(n))?;
            code.sections[n * STRIDE..][..section.len()].copy_from_slice(&section);
            code.lengths.push(section.len());
        }
        Ok(code)
    }

    fn function(&self, n: usize) -> u64 {
        self.text as u64 + (n * STRIDE) as u64
    }

    fn section(&self, n: usize) -> u64 {
        self.sections.as_ptr() as u64 + (n * STRIDE) as u64
    }

    fn register(&self, n: usize) {
        call(REGISTER, n as u64, self.section(n), self.lengths[n] as u64);
    }

    /// Calls the functions of the chain, and at its end turns so often.
    fn run(&self, chain: &[usize], turns: u64) {
        let last = self.lengths.len() - 1;
        let next: Vec<u64> = chain[1..]
            .iter()
            .chain([&last])
            .map(|&n| self.function(n))
            .collect();
        // SAFETY: each function takes the next one's address and keeps to the System V ABI; the last one uses
        // nothing but the count.
        unsafe {
            let first: extern "sysv64" fn(*const u64, u64) =
                std::mem::transmute(self.function(chain[0]) as *const u8);
            first(next.as_ptr(), turns);
        }
    }
}

fn call(option: u32, key: u64, address: u64, length: u64) {
    // SAFETY: the two options and the one that nobody knows read at most the caller's memory.
    unsafe { libc::syscall(libc::SYS_prctl, option, key, address, length, 0u64) };
}

fn per_call(batch: usize, mut call: impl FnMut(usize)) -> f64 {
    let mut batches = Vec::new();
    for _ in 0..50 {
        let begin = Instant::now();
        (0..batch).for_each(&mut call);
        batches.push(begin.elapsed().as_nanos() as f64 / batch as f64);
    }
    median(batches)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// A software clock on the calling thread, as perf_event_open(2) wants it.
fn clock() -> std::io::Result<OwnedFd> {
    let mut attr = [0u64; 17];
    attr[0] = 1 | (136 << 32); // PERF_TYPE_SOFTWARE, size
    attr[2] = FREQUENCY;
    attr[5] = 1 << 10 | 1 << 5; // freq, exclude_kernel
    // SAFETY: attr is 136 bytes as it says, and outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), 0, -1, -1, 8) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: a new descriptor of nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
