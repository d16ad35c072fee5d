//! What publishing costs: nanoseconds for a function, alone and among several threads.
//!
//! ```sh
//! cargo run --release -p framewalk-announce --example publish_cost
//! ```

use framewalk_announce::area::{Function, Label, Mapped, Options, Rule};
use std::time::Instant;

const FUNCTIONS: u32 = 1 << 20;
const TEXT: u64 = 0x1000_0000;
/// Bytes of a function, as JITs make them.
const SIZE: u64 = 512;

fn area() -> Mapped {
    let options = Options {
        capacity: FUNCTIONS,
        heap: 64 << 20,
        granule_shift: 12,
        ..Options::new(TEXT, u64::from(FUNCTIONS) * SIZE)
    };
    Mapped::new(&options).expect("an area")
}

fn function(number: u64) -> Function<'static> {
    Function::new(TEXT + number * SIZE, SIZE as u32, Rule::fixed(32))
}

/// Nanoseconds of each of so many.
fn each(count: u32, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / f64::from(count)
}

fn main() {
    for threads in [1, 2, 4] {
        let area = area();
        let share = u64::from(FUNCTIONS / threads);
        let took = each(FUNCTIONS, || {
            std::thread::scope(|scope| {
                for thread in 0..u64::from(threads) {
                    let area = &area;
                    scope.spawn(move || {
                        for number in thread * share..(thread + 1) * share {
                            area.publish(&function(number)).expect("a slot");
                        }
                    });
                }
            });
        });
        println!("publish, {threads} threads, fresh memory: {took:.0} ns");
    }
    let mut area = area();
    for round in ["fresh memory", "after a reset"] {
        let mut slots = Vec::with_capacity(FUNCTIONS as usize);
        let publish = each(FUNCTIONS, || {
            slots.extend((0..FUNCTIONS.into()).map(|number| area.publish(&function(number))));
        });
        let tombstone = each(FUNCTIONS, || {
            for slot in slots.iter().flatten() {
                area.tombstone(*slot);
            }
        });
        let reset = each(1, || area.reset());
        println!(
            "{round}: publish {publish:.0} ns, tombstone {tombstone:.0} ns, reset {reset:.0} ns"
        );
    }
    let named = each(FUNCTIONS, || {
        for number in 0..FUNCTIONS.into() {
            let function = Function {
                label: Label::Name("LazyCompile:*fibonacci /srv/app/math.js:12"),
                ..function(number)
            };
            area.publish(&function).expect("a slot");
        }
    });
    println!("publish with a name of 42 bytes: {named:.0} ns");
    area.reset();
    // One place, over and over: a chain with one dead entry to unlink each time.
    let replaced = each(FUNCTIONS - 1, || {
        let mut old = area.publish(&function(0)).expect("a slot");
        for _ in 1..FUNCTIONS {
            let new = area.publish(&function(0)).expect("a slot");
            area.tombstone(old);
            old = new;
        }
    });
    println!("publish and tombstone the one before: {replaced:.0} ns");
}
