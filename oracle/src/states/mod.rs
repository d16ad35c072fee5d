//! The walk in Rust beside the kernel's, compiled for this process, in states that nobody has: random tables, sections
//! that processes announce, sound and corrupted, stacks, registers, mappings, and memory that fails at every read.

mod bytes;
mod make;
mod process;

use fastrand::Rng;
use framewalk_walk::Stop;
use process::Process;
use std::collections::BTreeMap;
use std::fmt;

/// What was compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// States in which both walked and said the same.
    pub states: u64,
    /// Of them, states in which one read of the walk in Rust was made to fail.
    pub unreadable: u64,
    /// States in which a read of the walk in C failed once, or all from one on did: it only had to end, within bounds.
    pub interrupted: u64,
    /// Frames of all walks.
    pub frames: u64,
    /// Registrations that both took or both refused.
    pub registrations: u64,
    /// How the walks ended.
    pub stops: BTreeMap<Stop, u64>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            states,
            unreadable,
            interrupted,
            frames,
            registrations,
            stops,
        } = self;
        writeln!(
            f,
            "{states} states (of {unreadable} one read failed), {frames} frames, {registrations} registrations: no \
             difference; {interrupted} walks whose memory changed under them"
        )?;
        for (stop, count) in stops {
            writeln!(f, "  {count:>10} {}", stop.name())?;
        }
        Ok(())
    }
}

/// Processes that are made from one seed.
const STATES_PER_PROCESS: u64 = 500;

/// Compares at least so many states.
///
/// # Panics
/// At the first difference, with the seed that leads to it.
pub fn compare(seed: u64, states: u64) -> Tally {
    let mut tally = Tally::default();
    let mut seeds = Rng::with_seed(seed);
    let mut world = framewalk_kernel::host::World::new();
    while tally.states < states {
        let seed = seeds.u64(..);
        let mut process = Process::new(Rng::with_seed(seed), &mut world, &mut tally);
        for _ in 0..STATES_PER_PROCESS {
            if let Err(difference) = process.state(&mut world, &mut tally) {
                panic!("process of seed {seed}: {difference}");
            }
        }
    }
    tally
}
