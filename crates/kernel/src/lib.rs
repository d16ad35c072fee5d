//! The stack walk inside the kernel: BPF programs, their loader, their tables and their records.
//!
//! The walk itself is C (`bpf/walk.h`, made to be included by other programs too). This crate loads
//! it, fills its tables and reads what it sends. Everything that comes back is bounded and checked:
//! a record that does not parse is counted, never believed.

mod arena;
mod error;
mod features;
#[cfg(feature = "host")]
pub mod host;
mod load;
pub mod look;
mod record;
mod registry;
mod said;
mod skeleton;
mod walked;

pub use error::Error;
pub use load::{Counts, Mode, Options, Sampler, Table};
pub use record::{
    Frame, FramePlace, Key, Record, Registers, Resume, SampleRecord, StackRecord, WantRecord,
};
pub use registry::{
    Entries, Hashes, Heard, Hook, Late, Registry, RegistryCounts, RegistryMaps, Room, Section,
    Space,
};
pub use walked::Walked;
