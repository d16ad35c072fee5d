//! The words that say a rule; the inverse of what the reader makes of them.

use super::Unsayable;
use crate::bytes::Width;
use crate::layout::{Machine, Tracks};
use crate::row::{CallerRule, Cfa, Register, Rule, Unwind};
use crate::spec::{control, row_info};

/// Most words that a row can have: three rules of a control word and an offset.
const MAX_WORDS: usize = 6;

/// The info byte and words of a row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Words {
    words: [u32; MAX_WORDS],
    count: u8,
    size: u8,
    flags: u8,
}

impl Words {
    fn push(&mut self, word: u32, width: Width) {
        if let Some(slot) = self.words.get_mut(usize::from(self.count)) {
            *slot = word;
            self.count += 1;
            self.size = self.size.max(width as u8);
        }
    }

    fn signed(&mut self, word: i32) {
        self.push(word.cast_unsigned(), Width::of_signed(word));
    }

    /// A control word without a register.
    fn control(&mut self, word: u32) {
        self.push(word, Width::of_unsigned(word));
    }

    fn register(
        &mut self,
        register: Register,
        load: bool,
        machine: &Machine,
    ) -> Result<(), Unsayable> {
        if register.0 > machine.last_register {
            return Err(Unsayable::Register(register.0));
        }
        let number = (u32::from(register.0) << control::NUMBER_SHIFT) | control::REGISTER;
        self.control(number | if load { control::LOAD } else { 0 });
        Ok(())
    }

    pub(super) fn as_slice(&self) -> &[u32] {
        self.words
            .get(..usize::from(self.count))
            .unwrap_or_default()
    }

    pub(super) fn size(&self) -> Width {
        Width::from_code(self.size).unwrap_or(Width::W4)
    }

    pub(super) fn info(&self) -> u8 {
        self.flags | (self.count << row_info::WORDS_SHIFT) | (self.size << row_info::SIZE_SHIFT)
    }
}

fn cfa_word(offset: i32, machine: &Machine) -> Option<i32> {
    let distance = i64::from(offset) - machine.cfa_bias;
    if distance % machine.cfa_scale != 0 {
        return None;
    }
    i32::try_from(distance / machine.cfa_scale).ok()
}

fn untracked_ra(machine: &Machine) -> Rule {
    match machine.fixed_ra {
        0 => Rule::Same,
        offset => Rule::AtCfa(i32::from(offset)),
    }
}

/// A row as a default row, where that can say it.
pub(super) fn default_words(unwind: &Unwind, machine: &Machine) -> Option<Words> {
    let Unwind::Caller(CallerRule {
        cfa,
        ra,
        fp,
        ra_signed,
    }) = *unwind
    else {
        return Some(Words::default());
    };
    let mut words = Words::default();
    if ra_signed {
        if !machine.signs_ra {
            return None;
        }
        words.flags |= row_info::SIGNED_RA;
    }
    let Cfa::Value(base, offset) = cfa else {
        return None;
    };
    if base == machine.sp {
        words.flags |= row_info::BASE_SP;
    } else if base != machine.fp {
        return None;
    }
    words.signed(cfa_word(offset, machine)?);
    match (machine.tracks, ra) {
        (Tracks::Fp, ra) if ra == untracked_ra(machine) => {}
        (Tracks::RaFp, Rule::AtCfa(0)) if machine.zero_ra_is_same => return None,
        (Tracks::RaFp, Rule::AtCfa(offset)) => words.signed(offset),
        (Tracks::RaFp, Rule::Same) if fp == Rule::Same => {}
        (Tracks::RaFp, Rule::Same) if machine.zero_ra_is_same => words.signed(0),
        _ => return None,
    }
    match fp {
        Rule::Same => {}
        Rule::AtCfa(offset) => words.signed(offset),
        _ => return None,
    }
    Some(words)
}

/// A row as a flexible row.
pub(super) fn flexible_words(unwind: &Unwind, machine: &Machine) -> Result<Words, Unsayable> {
    let Unwind::Caller(CallerRule {
        cfa,
        ra,
        fp,
        ra_signed,
    }) = *unwind
    else {
        return Ok(Words::default());
    };
    let mut words = Words::default();
    if ra_signed {
        if !machine.signs_ra {
            return Err(Unsayable::Signed);
        }
        words.flags |= row_info::SIGNED_RA;
    }
    let (register, offset, load) = match cfa {
        Cfa::Value(register, offset) => (register, offset, false),
        Cfa::At(register, offset) => (register, offset, true),
    };
    words.register(register, load, machine)?;
    words.signed(cfa_word(offset, machine).ok_or(Unsayable::CfaScale)?);
    if ra == untracked_ra(machine) {
        if fp != Rule::Same {
            words.control(0);
        }
    } else {
        rule_words(&mut words, ra, machine)?;
    }
    if fp != Rule::Same {
        rule_words(&mut words, fp, machine)?;
    }
    Ok(words)
}

fn rule_words(words: &mut Words, rule: Rule, machine: &Machine) -> Result<(), Unsayable> {
    let offset = match rule {
        Rule::Same => return Err(Unsayable::Rule),
        Rule::AtCfa(offset) => {
            words.control(control::LOAD);
            offset
        }
        Rule::At(register, offset) => {
            words.register(register, true, machine)?;
            offset
        }
        Rule::Value(register, offset) => {
            words.register(register, false, machine)?;
            offset
        }
    };
    words.signed(offset);
    Ok(())
}

/// Whether a row has words at all.
#[cfg_attr(not(feature = "convert"), allow(dead_code))]
pub(crate) fn sayable(unwind: &Unwind, machine: &Machine) -> bool {
    default_words(unwind, machine).is_some() || flexible_words(unwind, machine).is_ok()
}
