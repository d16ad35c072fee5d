//! The walk in Rust and the kernel's, compiled for this process and in the kernel, in random states: any difference fails.
//!
//! `FRAMEWALK_STATES` asks for more of them, `FRAMEWALK_SEED` for the same ones again.
#![cfg(target_arch = "x86_64")]

use framewalk_oracle::states::{compare, compare_inside};
use std::os::unix::fs::MetadataExt;

/// Unless FRAMEWALK_STATES says otherwise.
const STATES: u64 = 100_000;
const STATES_INSIDE: u64 = 20_000;

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

#[test]
fn the_walk_in_the_kernel_says_the_same() {
    let seed = set("FRAMEWALK_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("FRAMEWALK_SEED={seed}");
    match compare_inside(seed, set("FRAMEWALK_STATES").unwrap_or(STATES_INSIDE)) {
        Ok(tally) => print!("{tally}"),
        Err(why) => {
            let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
            assert!(!root, "root, and yet refused: {why}");
            println!("SKIPPED the_walk_in_the_kernel_says_the_same: {why}");
        }
    }
}
