//! The walk in Rust beside the kernel's in states that nobody has: random tables, sections that processes announce, sound
//! and corrupted, stacks, registers, mappings, and memory that fails at every read.
//!
//! The kernel's walk is the one that is compiled for this process, or the one in the kernel, over memory that this process
//! then really has.

mod bytes;
mod host;
mod kernel;
mod make;
mod process;

use bytes::Bytes;
use fastrand::Rng;
use framewalk_kernel::Walked;
use framewalk_kernel::host::{How, Object, Read, World};
use framewalk_walk::registry::Announced;
use framewalk_walk::{Start, Stop};
use kernel::Inside;
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

/// The kernel's walk, wherever it runs.
trait Target {
    /// There can be objects with tables.
    const OBJECTS: bool;
    /// Walks can begin at topmost frames, and words be unreadable, not only pages.
    const TOPMOST: bool;

    fn clear(&mut self);
    fn object(&mut self, number: u32, object: Object<'_>);
    fn map(&mut self, start: u64, end: u64, executable: bool, object: Option<(u32, u64)>);
    fn mapped(&mut self, leaf: u32);
    /// None where that is not its affair.
    fn announce(&mut self, address: u64, len: u64, read: &mut Read<'_>) -> Option<Result<(), i64>>;
    fn walk(&mut self, start: &Start, how: How, memory: &Bytes, sections: &[Announced]) -> Walked;
    /// None where it reads for itself.
    fn walk_by(&mut self, start: &Start, how: How, read: &mut Read<'_>) -> Option<Walked>;
}

/// States of one process.
const STATES_PER_PROCESS: u64 = 500;

/// Compares at least so many states, with the walk that is compiled for this process.
///
/// # Panics
/// At the first difference, with the seed that leads to it.
pub fn compare(seed: u64, states: u64) -> Tally {
    compare_with(&mut World::new(), seed, states)
}

/// The same with the walk in the kernel, where that can be had.
///
/// # Panics
/// At the first difference, with the seed that leads to it.
pub fn compare_inside(seed: u64, states: u64) -> Result<Tally, framewalk_kernel::Error> {
    Ok(compare_with(&mut Inside::load()?, seed, states))
}

fn compare_with<T: Target>(target: &mut T, seed: u64, states: u64) -> Tally {
    let mut tally = Tally::default();
    let mut seeds = Rng::with_seed(seed);
    while tally.states < states {
        let seed = seeds.u64(..);
        let mut process = Process::new(Rng::with_seed(seed), target, &mut tally);
        for _ in 0..STATES_PER_PROCESS {
            if let Err(difference) = process.state(target, &mut tally) {
                panic!("process of seed {seed}: {difference}");
            }
        }
    }
    tally
}
