//! Which engines there are, and how one is opened.

use super::kernel::Tick;
use super::{Engine, Settings, Target, Unavailable};

/// The engines, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Walks inside the kernel (BPF).
    Kernel,
    /// An ordinary perf_event ring with registers and copies of stacks.
    Perf,
    /// Stops threads and reads their memory.
    Ptrace,
}

impl Kind {
    /// All of them, best first.
    pub const ALL: &'static [Kind] = &[Kind::Kernel, Kind::Perf, Kind::Ptrace];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Kernel => "kernel",
            Kind::Perf => "perf",
            Kind::Ptrace => "ptrace",
        }
    }
}

/// When the kernel engine walks. The others have only one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Deferred where the kernel can.
    Auto,
    /// Before the thread returns to user mode; reads may fault pages in (Linux 6.18 and later).
    Deferred,
    /// In the sampling interrupt; a page that is not there ends the walk.
    Immediate,
}

impl Mode {
    /// All of them.
    pub const ALL: &'static [Mode] = &[Mode::Auto, Mode::Deferred, Mode::Immediate];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Auto => "auto",
            Mode::Deferred => "deferred",
            Mode::Immediate => "immediate",
        }
    }
}

/// Opens an engine on a target, or says what is missing.
pub fn open(
    kind: Kind,
    mode: Mode,
    target: &Target,
    settings: Settings,
) -> Result<Box<dyn Engine>, Unavailable> {
    match kind {
        Kind::Kernel => {
            super::kernel::open(mode, target, Tick::Clock(settings.frequency), settings)
        }
        Kind::Perf => Ok(Box::new(super::perf::Perf::open(target, settings)?)),
        Kind::Ptrace => Ok(Box::new(super::ptrace::Ptrace::open(target, settings)?)),
    }
}

/// Opens the kernel engine so that it walks at once whenever a thread leaves its CPU, by sleeping or otherwise. A thread
/// that a tracer steps does so at each instruction: the kernel's walk can be compared there with other walks.
pub fn open_at_switches(
    target: &Target,
    settings: Settings,
) -> Result<Box<dyn Engine>, Unavailable> {
    super::kernel::open(Mode::Immediate, target, Tick::Switch, settings)
}
