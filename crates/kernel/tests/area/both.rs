//! What the kernel's reader and the observer say of a pc, in words that can be compared.

use framewalk_announce::area::layout::*;
use framewalk_announce::area::observe::{self, Fault, Geometry, Read};
use framewalk_announce::area::{Mapped, Place};
use framewalk_kernel::look::{Look, Looked, LookedRule, Outcome};
use framewalk_sframe::{Arch, Cfa, Register, Rule as Saved, Unwind};
use std::sync::atomic::Ordering::Relaxed;

/// The bytes of the area as the observer reads them.
pub(crate) fn read(area: &Mapped, at: u64, into: &mut [u8]) -> bool {
    let words = area.words();
    for (n, byte) in into.iter_mut().enumerate() {
        let at = at as usize + n;
        let Some(word) = words.get(at / 4) else {
            return false;
        };
        *byte = word.load(Relaxed).to_ne_bytes()[at % 4];
    }
    at + into.len() as u64 <= area.area_len()
}

pub(crate) fn geometry(area: &Mapped) -> Geometry {
    let mut bytes = [0; GEOMETRY_SIZE as usize];
    assert!(read(area, 0, &mut bytes));
    // It is not registered, and has no magic.
    bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
    Geometry::parse(&bytes, area.area_len()).unwrap()
}

/// What both can be compared by.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    pub(crate) slot: Option<u32>,
    pub(crate) rule: LookedRule,
    pub(crate) name: Vec<u8>,
}

impl Answer {
    fn plain(outcome: Outcome) -> Answer {
        let (slot, rule, name) = (None, LookedRule::default(), Vec::new());
        Answer {
            outcome,
            slot,
            rule,
            name,
        }
    }
}

/// The kernel's, of an area at an address of this process.
pub(crate) fn inside(look: &Look, address: u64, geometry: &Geometry, pc: u64) -> Answer {
    let Looked {
        outcome,
        slot,
        rule,
        name,
        ..
    } = look.ask(address, geometry, pc, 1).unwrap();
    match outcome {
        Outcome::Found => Answer {
            outcome,
            slot,
            rule,
            name,
        },
        // There is no rule, but there may be a name.
        Outcome::Opaque => Answer {
            outcome,
            slot,
            rule: LookedRule::default(),
            name,
        },
        _ => Answer::plain(outcome),
    }
}

/// The observer's.
pub(crate) fn outside(geometry: &Geometry, pc: u64, read: &mut Read<'_>) -> Answer {
    match observed(geometry, pc, read) {
        Ok(answer) => answer,
        Err(Fault::Unreadable) => Answer::plain(Outcome::Unreadable),
        Err(Fault::Busy) => Answer::plain(Outcome::Busy),
        Err(Fault::Malformed | Fault::Conflict) => Answer::plain(Outcome::Malformed),
    }
}

const AT_CFA: u8 = 1;
const AT_REGISTER: u8 = 2;
const REGISTER: u8 = 3;
pub(crate) const RSP: u8 = 7;
pub(crate) const RBP: u8 = 6;

fn ordinary(cfa_reg: u8, cfa_off: i32) -> LookedRule {
    LookedRule {
        cfa_reg,
        cfa_off,
        ra_kind: AT_CFA,
        ra_off: -8,
        ..LookedRule::default()
    }
}

fn saved(rule: &mut LookedRule, ra: i16, fp: i16) {
    (rule.ra_kind, rule.ra_off) = (AT_CFA, ra.into());
    (rule.fp_kind, rule.fp_off) = (if fp == 0 { 0 } else { AT_CFA }, fp.into());
}

fn observed(geometry: &Geometry, pc: u64, read: &mut Read<'_>) -> Result<Answer, Fault> {
    let Some(found) = geometry.look_up(pc, read)? else {
        return Ok(Answer::plain(Outcome::Nothing));
    };
    let mut outcome = Outcome::Found;
    let mut signal = found.is_signal();
    let mut rule = match found.rule(geometry)? {
        observe::Rule::Entry => ordinary(RSP, 8),
        observe::Rule::FramePointer => LookedRule {
            fp_kind: AT_CFA,
            fp_off: -16,
            ..ordinary(RBP, 16)
        },
        observe::Rule::Fixed { cfa, ra, fp } => {
            let mut rule = ordinary(RSP, cfa);
            match ra {
                Place::At(ra) => saved(&mut rule, ra, fp),
                Place::Register(register) => {
                    saved(&mut rule, 0, fp);
                    (rule.ra_kind, rule.ra_reg) = (REGISTER, register);
                }
            }
            rule
        }
        observe::Rule::StackSwitch { stack, cfa, ra, fp } => {
            let mut rule = match stack {
                Place::At(at) => LookedRule {
                    cfa_deref: true,
                    ..ordinary(RSP, at.into())
                },
                Place::Register(register) => ordinary(register, 0),
            };
            saved(&mut rule, ra, fp);
            LookedRule {
                cfa_add: cfa.into(),
                switches: true,
                ..rule
            }
        }
        observe::Rule::Outermost => LookedRule {
            outermost: true,
            ..LookedRule::default()
        },
        observe::Rule::Opaque => {
            outcome = Outcome::Opaque;
            LookedRule::default()
        }
        observe::Rule::Rows { at, len } => {
            let mut bytes = vec![0; len as usize];
            if !read(at, &mut bytes) {
                return Err(Fault::Unreadable);
            }
            let function = framewalk_sframe::Function::alone(Arch::Amd64, found.size(), &bytes)
                .map_err(|_| Fault::Malformed)?;
            let row = function.row_at(found.offset().unwrap().into());
            signal |= function.signal;
            match row.map_err(|_| Fault::Malformed)? {
                None => return Ok(Answer::plain(Outcome::Nothing)),
                Some(row) => lowered(row.unwind).ok_or(Fault::Malformed)?,
            }
        }
    };
    rule.signal = signal && outcome == Outcome::Found;
    let mut bytes = [0; MAX_NAME as usize];
    let name = found.name(geometry, &mut bytes, read)?.to_vec();
    found.confirm(read)?;
    Ok(Answer {
        outcome,
        slot: found.slot,
        rule,
        name,
    })
}

/// A row, as the kernel has it: it knows no registers but those of user mode. (Outside they are known, and their values
/// are not.)
fn lowered(unwind: Unwind) -> Option<LookedRule> {
    let Unwind::Caller(rule) = unwind else {
        return Some(LookedRule {
            outermost: true,
            ..LookedRule::default()
        });
    };
    let mut lowered = match rule.cfa {
        Cfa::Value(Register(reg), off) => ordinary(reg, off),
        Cfa::At(Register(reg), off) => LookedRule {
            cfa_deref: true,
            ..ordinary(reg, off)
        },
    };
    let kept = |rule| match rule {
        Saved::Same => (0, 0, 0),
        Saved::AtCfa(off) => (AT_CFA, 0, off),
        Saved::At(Register(reg), off) => (AT_REGISTER, reg, off),
        Saved::Value(Register(reg), off) => (REGISTER, reg, off),
    };
    (lowered.ra_kind, lowered.ra_reg, lowered.ra_off) = kept(rule.ra);
    (lowered.fp_kind, lowered.fp_reg, lowered.fp_off) = kept(rule.fp);
    let known = [lowered.cfa_reg, lowered.ra_reg, lowered.fp_reg]
        .iter()
        .all(|&register| register < 16);
    known.then_some(lowered)
}
