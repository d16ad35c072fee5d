//! perf_event rings: opened for a target, emptied by a thread of their own, their records put into the
//! order of time, and what they say of processes and mappings remembered.
//!
//! ```text
//! events (thread x CPU) -> rings (CPU) -> reader thread -> rounds -> queue by time -> tracked
//! ```
//!
//! The perf engine takes its samples from here too; the kernel engine only the side band (mmap, exec,
//! fork, exit).

pub(super) mod events;
#[cfg(test)]
mod hostile;
pub(super) mod queue;
pub(super) mod reader;
pub(super) mod record;
#[cfg(test)]
mod record_tests;
pub(super) mod sys;
pub(super) mod tracked;
