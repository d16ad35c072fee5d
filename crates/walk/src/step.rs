//! From a frame to its caller.
//!
//! Both ways compute everything, check it, read, and only then commit by returning new registers.

use crate::arch::Arch;
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
    arch: &Arch,
    frame: &Registers,
    rule: &CallerRule,
    between: Between,
    switches: &mut Switches,
    memory: &mut M,
) -> Result<Registers, Stop> {
    // Some machines have no register that a return address could still be in, or sign none.
    if (rule.ra == Rule::Same && arch.link.is_none()) || (rule.ra_signed && !arch.signs()) {
        return Err(Stop::BadRow);
    }
    let mut read =
        |address: Option<u64>| address.and_then(|a| memory.word(a)).ok_or(Stop::ReadFault);
    let cfa = match rule.cfa {
        Cfa::Value(base, offset) => add(frame.get(arch, base)?, offset).ok_or(Stop::CfaBad)?,
        Cfa::At(base, offset) => read(add(frame.get(arch, base)?, offset))?,
    };
    let cfa = match between {
        Between::Switch(more) => add(cfa, more).ok_or(Stop::CfaBad)?,
        _ => cfa,
    };
    let sp = cfa.checked_sub(arch.save_area).ok_or(Stop::CfaBad)?;
    // The topmost frame may have nothing on the stack yet or any more, where its return address is in a register
    // or in the save area of its caller. x86-64: vfork(3) keeps it in one across the system call.
    let may_be_empty = match rule.ra {
        Rule::Same | Rule::Value(..) => true,
        _ => arch.save_area > 0,
    };
    let on_stack = if may_be_empty && frame.full.is_some() && sp == frame.sp && arch.is_aligned(sp)
    {
        Ok(())
    } else {
        check_sp(arch, frame.sp, sp)
    };
    if between == Between::Call || !arch.is_aligned(sp) || cfa >= arch.user_end {
        on_stack?;
    }
    let mut value = |rule, own| match rule {
        Rule::Same => own,
        Rule::AtCfa(offset) => read(add(cfa, offset)),
        Rule::At(base, offset) => read(add(frame.get(arch, base)?, offset)),
        Rule::Value(base, offset) => add(frame.get(arch, base)?, offset).ok_or(Stop::BadRow),
    };
    let link = arch
        .link
        .map_or(Err(Stop::BadRow), |link| frame.get(arch, link));
    let pc = value(rule.ra, link)? & arch.address_bits;
    let fp = match (value(rule.fp, Ok(frame.fp)), rule.fp) {
        // A copy of a stack begins at the stack pointer. What a row says to be saved right below it
        // was popped by the epilogue just now: the register holds it again.
        (Err(Stop::ReadFault), Rule::AtCfa(offset)) if is_popped(arch, frame, add(cfa, offset)) => {
            frame.fp
        }
        (fp, _) => fp?,
    };
    if pc == 0 {
        return Err(Stop::ZeroReturn);
    }
    if on_stack.is_err() {
        switches.take(pc, sp)?;
    }
    Ok(Registers {
        pc,
        sp,
        fp,
        full: None,
    })
}

/// A caller's stack pointer on the same stack: aligned, above this frame's, and not too far.
fn check_sp(arch: &Arch, sp: u64, caller: u64) -> Result<(), Stop> {
    match caller.checked_sub(sp) {
        _ if !arch.is_aligned(caller) => Err(Stop::CfaBad),
        None | Some(0) => Err(Stop::CfaNotAbove),
        Some(1..=MAX_FRAME_SIZE) => Ok(()),
        Some(_) => Err(Stop::CfaBad),
    }
}

/// Whether an address lies in the red zone of the topmost frame.
fn is_popped(arch: &Arch, frame: &Registers, address: Option<u64>) -> bool {
    let below = address.and_then(|address| frame.sp.checked_sub(address));
    frame.full.is_some() && below.is_some_and(|below| (1..=arch.red_zone).contains(&below))
}

fn add(base: u64, offset: i32) -> Option<u64> {
    base.checked_add_signed(offset.into())
}
