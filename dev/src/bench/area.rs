//! What describing generated code costs its producer, beside what profilers are told today; and what it costs a walk to
//! find a function among few and among many.
//!
//! CPU time of this thread, best of several rounds: other programs on the machine shall not count.

use super::{Bench, heading, line};
use framewalk_announce::area::layout::{GEOMETRY_SIZE, MAGIC};
use framewalk_announce::area::observe::Geometry;
use framewalk_announce::area::{Function, Label, Mapped, Options, Rule};
use framewalk_kernel::look::{Look, Outcome};
use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const FUNCTIONS: u32 = 1 << 19;
const ROUNDS: usize = 7;
const TEXT: u64 = 0x10_0000_0000;
/// Bytes of a function, as JITs make them.
const SIZE: u64 = 512;
const NAME: &str = "LazyCompile:*fibonacci /srv/app/math.js:12";

/// Few and many, for lookups.
const LIVE: [u32; 2] = [1_000, 1_000_000];
const LOOKUPS: u64 = 20_000;
/// Of the functions that are looked for.
const DENSE: u64 = 64;

fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Nanoseconds of one of `FUNCTIONS`, in the best round.
fn each(mut round: impl FnMut() -> Result<(), String>) -> Result<f64, String> {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let begin = now();
        round()?;
        best = best.min(now() - begin);
    }
    Ok(best.as_nanos() as f64 / f64::from(FUNCTIONS))
}

fn area(options: &Options) -> Result<Mapped, String> {
    Mapped::new(options).map_err(|error| error.to_string())
}

/// In the order of addresses, or in one that jumps about.
#[derive(Clone, Copy)]
enum Order {
    Ascending,
    Scattered,
}

fn publish(area: &Mapped, label: Label<'_>, order: Order) -> Result<(), String> {
    for number in 0..u64::from(FUNCTIONS) {
        let number = match order {
            Order::Ascending => number,
            // Odd, so that each of a power of two comes once.
            Order::Scattered => number.wrapping_mul(0x9e37_79b1) % u64::from(FUNCTIONS),
        };
        let mut function = Function::new(TEXT + number * SIZE, SIZE as u32, Rule::fixed(32));
        function.label = label;
        area.publish(&function).map_err(|error| error.to_string())?;
    }
    Ok(())
}

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    heading(&format!(
        "describing a generated function, CPU time, best of {ROUNDS} rounds of {FUNCTIONS}"
    ));
    let mut room = area(&Options {
        capacity: FUNCTIONS,
        heap: u64::from(FUNCTIONS) * 48,
        granule_shift: 12,
        ..Options::new(TEXT, u64::from(FUNCTIONS) * SIZE)
    })?;
    let mut published = |label, order| {
        each(|| {
            room.reset();
            publish(&room, label, order)
        })
    };
    let plain = published(Label::Cookie(1), Order::Ascending)?;
    let scattered = published(Label::Cookie(1), Order::Scattered)?;
    let named = published(Label::Name(NAME), Order::Ascending)?;
    line(
        "frame area: publish",
        plain,
        "ns",
        "at most 100 (10 million a second)",
    );
    line("frame area: publish, in any order", scattered, "ns", "");
    line("frame area: publish, named", named, "ns", "");
    let map = written(bench, "map", |file| {
        for number in 0..u64::from(FUNCTIONS) {
            writeln!(file, "{:x} {SIZE:x} {NAME}", TEXT + number * SIZE)?;
        }
        Ok(())
    })?;
    line("a line of a perf map, buffered", map, "ns", "");
    let code = [0x90u8; SIZE as usize];
    let dump = written(bench, "jitdump", |file| {
        for number in 0..u64::from(FUNCTIONS) {
            jitdump(file, number, &code)?;
        }
        Ok(())
    })?;
    line("a record of a jitdump, buffered", dump, "ns", "");
    line(
        "named publish / line of a perf map",
        named / map,
        "x",
        "at most 1",
    );
    line(
        "named publish / record of a jitdump",
        named / dump,
        "x",
        "at most 1",
    );
    look_up()
}

/// Nanoseconds for each function of what writes all of them to a file.
fn written(
    bench: &Bench,
    name: &str,
    mut write: impl FnMut(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<f64, String> {
    let path = bench.path(name);
    let cost = each(|| {
        let mut file = BufWriter::with_capacity(1 << 16, File::create(&path).map_err(said)?);
        write(&mut file).and_then(|()| file.flush()).map_err(said)
    });
    let _ = std::fs::remove_file(path);
    cost
}

fn said(error: std::io::Error) -> String {
    error.to_string()
}

/// JIT_CODE_LOAD (tools/perf/Documentation/jitdump-specification.txt): header, fields, name, code.
fn jitdump(file: &mut impl Write, number: u64, code: &[u8]) -> std::io::Result<()> {
    let address = TEXT + number * SIZE;
    let total = 16 + 40 + NAME.len() + 1 + code.len();
    file.write_all(&0u32.to_ne_bytes())?;
    file.write_all(&(total as u32).to_ne_bytes())?;
    file.write_all(&number.to_ne_bytes())?;
    file.write_all(&std::process::id().to_ne_bytes())?;
    file.write_all(&1u32.to_ne_bytes())?;
    for field in [address, address, code.len() as u64, number] {
        file.write_all(&field.to_ne_bytes())?;
    }
    file.write_all(NAME.as_bytes())?;
    file.write_all(&[0])?;
    file.write_all(code)
}

/// What one lookup inside the kernel costs among few and many live functions.
fn look_up() -> Result<(), String> {
    heading(&format!(
        "finding a function inside the kernel, {LOOKUPS} places at random, nothing remembered"
    ));
    let look = Look::load().map_err(|error| error.to_string())?;
    let mut costs = Vec::new();
    for live in LIVE {
        let cost = found(&look, live)?;
        line(&format!("among {live} live functions"), cost, "ns", "");
        costs.push(cost);
    }
    let ratio = costs[1] / costs[0];
    line("many / few", ratio, "x", "at most 2");
    Ok(())
}

fn found(look: &Look, live: u32) -> Result<f64, String> {
    let area = area(&Options {
        capacity: live,
        heap: 0,
        granule_shift: 8,
        ..Options::new(TEXT, u64::from(live) * DENSE)
    })?;
    for number in 0..u64::from(live) {
        let function = Function::new(TEXT + number * DENSE, DENSE as u32, Rule::fixed(32));
        area.publish(&function).map_err(|error| error.to_string())?;
    }
    let mut header = [0u8; GEOMETRY_SIZE as usize];
    for (bytes, word) in header.chunks_exact_mut(4).zip(area.words()) {
        bytes.copy_from_slice(&word.load(Relaxed).to_ne_bytes());
    }
    // It is written when an area is registered, which this one is not.
    header[..MAGIC.len()].copy_from_slice(&MAGIC);
    let geometry = Geometry::parse(&header, area.area_len()).map_err(|error| error.to_string())?;
    let address = area.words().as_ptr() as u64;
    let mut costs = Vec::new();
    let mut random = 1u64;
    for _ in 0..LOOKUPS {
        // Knuth's multiplier: any order that is not the memory's will do.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let pc = TEXT + (random >> 20) % (u64::from(live) * DENSE);
        let answer = look
            .ask(address, &geometry, pc, 1)
            .map_err(|error| error.to_string())?;
        if answer.outcome != Outcome::Found {
            return Err(format!("{pc:#x}: {answer:?}"));
        }
        costs.push(answer.nanoseconds);
    }
    // The median: an interrupt in between is no cost of the lookup.
    costs.sort_unstable();
    Ok(costs[costs.len() / 2] as f64)
}
