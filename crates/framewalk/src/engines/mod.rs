//! The engines: three ways to take the same samples, best first: inside the kernel (BPF), an
//! ordinary perf_event ring with stack copies, and ptrace.
//!
//! An engine is opened on a target, started, polled, and finished. It says by [`Unavailable`] what
//! is missing (a capability or a sysctl, by name) so that `auto` can fall to the next one.

mod kernel;
mod open;
pub mod perf;
mod perf_event;
pub mod ptrace;
mod rings;

pub use open::{Kind, Mode, open, open_at_switches};

use crate::processes::Objects;
use crate::sample::Sample;
use std::time::Duration;

/// What to record.
#[derive(Debug, Clone)]
pub enum Target {
    /// These processes, and what they fork and create from now on.
    Pids(Vec<u32>),
    /// A child that waits before its exec; sampling begins at the exec itself.
    Child(u32),
    /// Everything on this machine.
    System,
}

/// How an engine shall sample.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Samples per second and CPU of running threads.
    pub frequency: u32,
    /// Frames per user stack, at most.
    pub max_frames: usize,
}

/// Why an engine cannot run here.
#[derive(Debug, Clone)]
pub struct Unavailable {
    /// What failed, for people: `perf_event_open: permission denied`.
    pub what: String,
    /// What would make it work: a capability or sysctl by name.
    pub missing: String,
}

/// What an engine counted beside the samples that it delivered.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Samples that were due and are known to be lost.
    pub lost: u64,
    /// Time spent inside the kernel's sampling programs, nanoseconds (0 where it cannot be known).
    pub kernel_run_ns: u64,
    /// How often they ran.
    pub kernel_run_cnt: u64,
    /// Bytes that the kernel handed over.
    pub bytes: u64,
    /// Things worth a line to the user: `libfoo.so: 3 functions refused: ...`.
    pub notes: Vec<String>,
}

/// One way of taking samples.
pub trait Engine {
    /// `kernel`, `perf` or `ptrace`.
    fn name(&self) -> &'static str;
    /// `deferred`, `immediate`, or for the others `copy` (perf) and `stopped` (ptrace).
    fn mode(&self) -> &'static str;
    /// It traces a command and answers what that announces, if the command hands it over
    /// ([`crate::launch::Waiting::release_to_tracer`]).
    fn answers_announcements(&self) -> bool {
        false
    }
    /// Begins to sample (for a child: arms the events; its exec starts them).
    fn start(&mut self) -> anyhow::Result<()>;
    /// Waits at most `timeout` for samples and hands over all that are there. False when the target
    /// has ended and nothing more can come.
    fn poll(
        &mut self,
        timeout: Duration,
        objects: &mut Objects,
        sink: &mut dyn FnMut(Sample),
    ) -> anyhow::Result<bool>;
    /// Stops sampling, hands over what is left, and counts.
    fn finish(
        &mut self,
        objects: &mut Objects,
        sink: &mut dyn FnMut(Sample),
    ) -> anyhow::Result<Counts>;
}
