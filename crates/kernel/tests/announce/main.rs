//! The registry inside the kernel: real processes make real prctl(2) calls to the real programs, and the reference
//! registry of the walk crate has to say the same. Needs root (or CAP_BPF and CAP_PERFMON); says so and passes over
//! where they are missing.
//!
//! Everything is tested with the best hook that the kernel allows. Where that only listens, the callers see
//! EINVAL, and what they would have been answered is known from the listener.

mod answers;
mod areas;
mod hostile;
mod late;
mod life;
mod oracle;
mod puppet;
mod random;
mod sections;
mod stage;
