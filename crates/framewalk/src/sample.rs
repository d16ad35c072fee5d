//! One sample, as every engine delivers it.
//!
//! Frames name code, not addresses: a frame inside a mapped file is (object, file offset), so that
//! nothing needs the process or its mappings to be still there when symbols are looked up.

use framewalk_walk::{Origin, Stop};

/// A mapped file that was met while recording; an index into [`crate::processes::Objects`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub u32);

/// Where the pc of a frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A kernel address.
    Kernel(u64),
    /// A byte of a mapped file: offset from the start of the file.
    Object(ObjectId, u64),
    /// A user address outside every mapped file (generated code), in the sample's process.
    Anonymous(u64),
    /// The same, in code that a frame area describes.
    Described {
        /// The address.
        address: u64,
        /// Its name in [`crate::processes::Generated`]; none where the area has none for it.
        name: Option<GeneratedName>,
        /// It belongs to a language's run time.
        runtime: bool,
    },
}

/// The name that a process gave to code that it generated; an index into [`crate::processes::Generated`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GeneratedName(pub u32);

/// One frame of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frame {
    /// Where the pc lies. For callers this is the return address, exactly as found.
    pub place: Place,
    /// How the pc was learned.
    pub origin: Origin,
    /// The pc is a return address: the instruction meant is the one before it.
    /// False for the topmost frame and for a frame that a signal interrupted.
    pub is_return_address: bool,
}

/// One sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Process (thread group) id in the recorder's pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// The thread's name at the time, as the kernel holds it (at most 15 bytes).
    pub comm: String,
    /// Innermost first: kernel frames, then user frames.
    pub frames: Vec<Frame>,
    /// Why the user stack ended.
    pub stop: Stop,
}
