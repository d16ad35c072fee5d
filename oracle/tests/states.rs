//! The walk in Rust and the kernel's, compiled for this process, in random states: any difference fails.
//!
//! `FRAMEWALK_STATES` asks for more of them, `FRAMEWALK_SEED` for the same ones again.
#![cfg(target_arch = "x86_64")]

use framewalk_oracle::states::compare;

/// Unless FRAMEWALK_STATES says otherwise.
const STATES: u64 = 100_000;

fn set(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

#[test]
fn both_walks_say_the_same() {
    let seed = set("FRAMEWALK_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("FRAMEWALK_SEED={seed}");
    let tally = compare(seed, set("FRAMEWALK_STATES").unwrap_or(STATES));
    print!("{tally}");
    // A test that reaches nothing finds nothing.
    for stop in [
        "complete",
        "read-fault",
        "no-unwind-data",
        "bad-row",
        "cfa-not-above",
    ] {
        assert!(
            tally.stops.keys().any(|met| met.name() == stop),
            "{stop}: {tally}"
        );
    }
}
