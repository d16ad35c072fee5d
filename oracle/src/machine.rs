//! A machine whose programs can be stepped.

use crate::shadow::Did;
use framewalk_walk::Registers;
use std::io;

/// What happened to a thread in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// An instruction or a system call.
    Stepped(Did),
    /// A signal's handler begins.
    Signal {
        /// pc and sp that were interrupted.
        from: (u64, u64),
        /// Where the handler returns to.
        trampoline: u64,
        /// The stack pointer after that.
        frame: u64,
    },
    /// A thread or process began; it runs where its creator does, or on a stack of its own.
    Began {
        /// The thread that created it.
        parent: u32,
        /// It has a stack of its own.
        own_stack: bool,
    },
    /// It executes another program.
    Exec,
}

/// A thread at the boundary between two instructions.
#[derive(Debug, Clone, Copy)]
pub struct Boundary {
    /// The thread.
    pub tid: u32,
    /// The process, by which its memory is read.
    pub pid: u32,
    /// Its registers now.
    pub registers: Registers,
    /// What led here.
    pub event: Event,
    /// Mappings may have changed since the last boundary.
    pub remapped: bool,
}

/// A program under the control of the oracle.
pub trait Machine {
    /// Bytes that a call pushes.
    const SLOT: u64;

    /// Runs one thread to its next boundary; none when every thread has ended.
    fn step(&mut self) -> io::Result<Option<Boundary>>;

    /// A word of a process's memory, if it can be read.
    fn word(&mut self, pid: u32, address: u64) -> Option<u64>;

    /// Whether an instruction of one of these names was met. Machines may not know.
    fn met(&self, _names: &[&str]) -> bool {
        false
    }
}
