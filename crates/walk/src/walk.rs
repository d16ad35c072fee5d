//! A whole walk: find, step, deliver, until something ends it.

use crate::{Between, Code, Memory, Origin, Registers, Says, Stop, Switches, guess, settled, step};
use framewalk_sframe::Unwind;

/// Where a walk begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The registers of the first frame.
    pub registers: Registers,
    /// How its pc was learned.
    pub origin: Origin,
    /// Its pc is a return address.
    pub is_return_address: bool,
}

impl Start {
    /// At the registers of a thread.
    pub fn topmost(registers: Registers) -> Start {
        Start {
            registers,
            origin: Origin::Registers,
            is_return_address: false,
        }
    }
}

/// One frame of a walked stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<P> {
    /// The pc (user address space); for a caller the return address, exactly as found.
    pub pc: u64,
    /// The stack pointer of this frame: the CFA of the frame inside.
    pub sp: u64,
    /// What [`Code::find`] said of the place that was looked up (`pc`, or `pc - 1` for a return
    /// address).
    pub place: P,
    /// How the pc was learned.
    pub origin: Origin,
    /// The pc is a return address: the instruction meant is the one before it.
    pub is_return_address: bool,
}

/// Walks from `start` outwards, hands at most `limit` frames to `deliver` (the first is that of
/// `start`), and says why it ended. A caller whose pc is no code is not delivered.
pub fn walk<M: Memory + ?Sized, C: Code + ?Sized>(
    start: Start,
    limit: usize,
    memory: &mut M,
    code: &mut C,
    mut deliver: impl FnMut(Frame<C::Place>),
) -> Stop {
    let Start {
        mut registers,
        mut origin,
        mut is_return_address,
    } = start;
    let arch = code.arch();
    let mut switches = Switches::default();
    for _ in 0..limit {
        let Registers { pc, sp, .. } = registers;
        let found = code.find(pc.wrapping_sub(is_return_address.into()));
        if origin != Origin::Registers && found.says == Says::Stop(Stop::NotCode) {
            return Stop::NotCode;
        }
        deliver(Frame {
            pc,
            sp,
            place: found.place,
            origin,
            is_return_address,
        });
        let caller = match found.says {
            Says::Row {
                unwind: Unwind::Outermost,
                ..
            } => Err(Stop::Outermost),
            Says::Row {
                unwind: Unwind::Caller(rule),
                signal,
                ..
            } => {
                let between = if signal {
                    Between::Signal
                } else {
                    Between::Call
                };
                step(arch, &registers, &rule, between, &mut switches, memory)
            }
            Says::Switch { rule, add, .. } => step(
                arch,
                &registers,
                &rule,
                Between::Switch(add),
                &mut switches,
                memory,
            ),
            Says::Body {
                rule,
                frame_pointer,
                signal,
                ..
            } => {
                let between = if signal {
                    Between::Signal
                } else {
                    Between::Call
                };
                let rule = match is_return_address || !arch.guesses {
                    true => rule,
                    false => settled(&registers, rule, frame_pointer, code, memory),
                };
                step(arch, &registers, &rule, between, &mut switches, memory)
            }
            Says::Undescribed if !arch.guesses => Err(Stop::FramePointer),
            Says::Undescribed => guess(&registers, is_return_address, code, memory),
            Says::Stop(stop) => Err(stop),
        };
        registers = match caller {
            Ok(caller) => caller,
            Err(stop) => return stop,
        };
        (origin, is_return_address) = match found.says {
            Says::Row { origin, signal, .. } => (origin, !signal),
            Says::Body { origin, signal, .. } => (origin, !signal),
            Says::Switch { origin, .. } => (origin, true),
            _ => (Origin::FramePointer, true),
        };
    }
    Stop::Limit
}
