//! From a frame to its caller.
//!
//! Both ways compute everything, check it, read, and only then commit by returning new registers.

use crate::arch::AMD64;
use crate::{Memory, Registers, Stop};
use framewalk_sframe::{CallerRule, Cfa, Rule};

/// The largest frame: a CFA further above the stack pointer is taken for nonsense.
pub const MAX_FRAME_SIZE: u64 = 1 << 26;
/// How often one walk may leave the stack upwards rule behind: below signal handlers that ran on a stack of their own
/// (sigaltstack(2)), and where generated code says that it changes stacks.
pub const MAX_SWITCHES: usize = 64;
/// Words read from the walked process per frame by a rule, at most: CFA, return address, frame pointer.
pub const READS_PER_FRAME: usize = 3;

/// The switches of stack in one walk: what keeps a hostile chain of signal frames from looping.
#[derive(Debug, Clone)]
pub struct Switches {
    taken: [(u64, u64); MAX_SWITCHES],
    count: usize,
}

impl Default for Switches {
    fn default() -> Switches {
        Switches {
            taken: [(0, 0); MAX_SWITCHES],
            count: 0,
        }
    }
}

impl Switches {
    /// Permits one more change of stack to this return address and CFA.
    fn take(&mut self, ra: u64, cfa: u64) -> Result<(), Stop> {
        let (taken, free) = self.taken.split_at_mut(self.count.min(MAX_SWITCHES));
        if taken.contains(&(ra, cfa)) {
            return Err(Stop::Loop);
        }
        *free.first_mut().ok_or(Stop::CfaNotAbove)? = (ra, cfa);
        self.count += 1;
        Ok(())
    }
}

/// What lies between a frame and its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// A call: the caller's frame is above, on the same stack.
    Call,
    /// A signal: the frame is its trampoline, and the caller may have another stack.
    Signal,
    /// A call that changed stacks; so many bytes are to be added to the CFA.
    Switch(i32),
}

/// The caller's registers by a row's rule.
pub fn step<M: Memory + ?Sized>(
    frame: &Registers,
    rule: &CallerRule,
    between: Between,
    switches: &mut Switches,
    memory: &mut M,
) -> Result<Registers, Stop> {
    // This machine has no register that a return address could still be in, nor signed ones.
    if rule.ra == Rule::Same || rule.ra_signed {
        return Err(Stop::BadRow);
    }
    let mut read =
        |address: Option<u64>| address.and_then(|a| memory.word(a)).ok_or(Stop::ReadFault);
    let cfa = match rule.cfa {
        Cfa::Value(base, offset) => add(frame.get(base)?, offset).ok_or(Stop::CfaBad)?,
        Cfa::At(base, offset) => read(add(frame.get(base)?, offset))?,
    };
    let cfa = match between {
        Between::Switch(more) => add(cfa, more).ok_or(Stop::CfaBad)?,
        _ => cfa,
    };
    // Nothing of the topmost frame is on the stack where its return address is in a register: vfork(3)
    // keeps it there across the system call.
    let on_stack = match rule.ra {
        Rule::Value(..) if frame.full.is_some() && cfa == frame.sp && is_aligned(cfa) => Ok(()),
        _ => check_cfa(frame.sp, cfa),
    };
    if between == Between::Call || !is_aligned(cfa) || cfa >= AMD64.user_end {
        on_stack?;
    }
    let mut value = |rule| match rule {
        Rule::Same => Ok(frame.fp),
        Rule::AtCfa(offset) => read(add(cfa, offset)),
        Rule::At(base, offset) => read(add(frame.get(base)?, offset)),
        Rule::Value(base, offset) => add(frame.get(base)?, offset).ok_or(Stop::BadRow),
    };
    let pc = value(rule.ra)?;
    let fp = match (value(rule.fp), rule.fp) {
        // A copy of a stack begins at the stack pointer. What a row says to be saved right below it
        // was popped by the epilogue just now: the register holds it again.
        (Err(Stop::ReadFault), Rule::AtCfa(offset)) if is_popped(frame, add(cfa, offset)) => {
            frame.fp
        }
        (fp, _) => fp?,
    };
    if pc == 0 {
        return Err(Stop::ZeroReturn);
    }
    if on_stack.is_err() {
        switches.take(pc, cfa)?;
    }
    Ok(Registers {
        pc,
        sp: cfa,
        fp,
        full: None,
    })
}

/// A CFA on the same stack: aligned, above the stack pointer, and not too far.
fn check_cfa(sp: u64, cfa: u64) -> Result<(), Stop> {
    match cfa.checked_sub(sp) {
        _ if !is_aligned(cfa) => Err(Stop::CfaBad),
        None | Some(0) => Err(Stop::CfaNotAbove),
        Some(1..=MAX_FRAME_SIZE) => Ok(()),
        Some(_) => Err(Stop::CfaBad),
    }
}

fn is_aligned(cfa: u64) -> bool {
    cfa.is_multiple_of(AMD64.word)
}

/// Whether an address lies in the red zone of the topmost frame.
fn is_popped(frame: &Registers, address: Option<u64>) -> bool {
    let below = address.and_then(|address| frame.sp.checked_sub(address));
    frame.full.is_some() && below.is_some_and(|below| (1..=AMD64.red_zone).contains(&below))
}

fn add(base: u64, offset: i32) -> Option<u64> {
    base.checked_add_signed(offset.into())
}
