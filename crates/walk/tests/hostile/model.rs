//! What a rule says of a caller, in numbers that no sum overflows and without any check of where the caller may be.

use framewalk_sframe::{CallerRule, Cfa, Register, Rule};
use framewalk_walk::arch::{Arch, FULL};

/// What is known of a frame's registers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) sp: u64,
    pub(super) fp: u64,
    pub(super) full: Option<[u64; FULL]>,
}

pub(super) enum Step {
    Caller {
        pc: u64,
        sp: u64,
        fp: u64,
    },
    /// The return address is zero.
    Zero,
    /// Something is not known, cannot be read, or is no address.
    None,
}

/// The caller by a rule, and what is to be added to its CFA.
pub(super) fn step(
    arch: &Arch,
    known: &Known,
    (rule, more): (CallerRule, i32),
    read: &dyn Fn(u64) -> Option<u64>,
) -> Step {
    match caller(arch, known, &rule, more, read) {
        Some((0, ..)) => Step::Zero,
        Some((pc, sp, fp)) => Step::Caller { pc, sp, fp },
        None => Step::None,
    }
}

fn caller(
    arch: &Arch,
    known: &Known,
    rule: &CallerRule,
    more: i32,
    read: &dyn Fn(u64) -> Option<u64>,
) -> Option<(u64, u64, u64)> {
    if rule.ra_signed && arch.address_bits == u64::MAX {
        return None;
    }
    let register = |register: Register| {
        if register == arch.sp {
            return Some(known.sp);
        }
        if register == arch.fp {
            return Some(known.fp);
        }
        let number = usize::from(register.0);
        known
            .full
            .filter(|_| number < arch.full)
            .map(|full| full[number])
    };
    let sum = |base: u64, offset: i32| u64::try_from(i128::from(base) + i128::from(offset)).ok();
    let at = |base, offset| read(sum(base, offset)?);
    let cfa = match rule.cfa {
        Cfa::Value(base, offset) => sum(register(base)?, offset)?,
        Cfa::At(base, offset) => at(register(base)?, offset)?,
    };
    let cfa = sum(cfa, more)?;
    let value = |rule, own: Option<u64>| match rule {
        Rule::Same => own,
        Rule::AtCfa(offset) => at(cfa, offset),
        Rule::At(base, offset) => at(register(base)?, offset),
        Rule::Value(base, offset) => sum(register(base)?, offset),
    };
    let ra = value(rule.ra, arch.link.and_then(register))?;
    // What an epilogue popped just now is in its register again, and its place perhaps not in the copy of the stack.
    let popped = match rule.fp {
        Rule::AtCfa(offset) => sum(cfa, offset).and_then(|at| known.sp.checked_sub(at)),
        _ => None,
    };
    let popped = popped.filter(|below| known.full.is_some() && (1..=arch.red_zone).contains(below));
    let fp = value(rule.fp, Some(known.fp)).or(popped.map(|_| known.fp))?;
    let sp = cfa.checked_sub(arch.save_area)?;
    Some((ra & arch.address_bits, sp, fp))
}
