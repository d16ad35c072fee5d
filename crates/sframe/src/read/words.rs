//! What the words of a row mean.
//!
//! Default rows: offsets in an order that the machine fixes. `CFA = base + offset`; the other
//! words are places to load from, counted from the CFA.
//!
//! Flexible rows (V3): up to three rules in the order CFA, RA, FP, each a control word and an
//! offset. A control word of 0 stands alone and says "no rule"; rules at the end may be left off.

use super::function::Function;
use super::rows::RawRow;
use crate::bytes::{Bytes, Width};
use crate::error::Fault;
use crate::layout::{Machine, Tracks};
use crate::row::{CallerRule, Cfa, Register, Rule, Unwind};
use crate::spec::{control, row_info};

/// Words left in a row.
struct Words<'a> {
    bytes: Bytes<'a>,
    size: Width,
    left: u8,
}

impl Words<'_> {
    fn signed(&mut self) -> Option<i32> {
        self.left = self.left.checked_sub(1)?;
        self.bytes.signed(self.size)
    }

    fn unsigned(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        self.bytes.unsigned(self.size)
    }
}

impl RawRow<'_> {
    pub(crate) fn unwind(&self, function: &Function<'_>) -> Result<Unwind, Fault> {
        let format = &function.format;
        let count = self.word_count();
        if count == 0 {
            return if format.layout.empty_row {
                Ok(Unwind::Outermost)
            } else {
                Err(Fault::WordCount(0))
            };
        }
        let ra_signed = self.info & row_info::SIGNED_RA != 0;
        if ra_signed && !format.machine.signs_ra {
            return Err(Fault::RowInfo(self.info));
        }
        let words = Words {
            bytes: self.words,
            size: self.word_size,
            left: count,
        };
        let (cfa, ra, fp) = if function.flex {
            flexible(words, function)
        } else {
            default(words, self.info, function)
        }?;
        Ok(Unwind::Caller(CallerRule {
            cfa,
            ra,
            fp,
            ra_signed,
        }))
    }
}

/// The rule for a return address that a row says nothing about.
fn untracked_ra(function: &Function<'_>) -> Rule {
    match function.format.fixed_ra {
        0 => Rule::Same,
        offset => Rule::AtCfa(i32::from(offset)),
    }
}

fn cfa_offset(word: i32, function: &Function<'_>) -> Result<i32, Fault> {
    let machine = function.format.machine;
    i32::try_from(i64::from(word) * machine.cfa_scale + machine.cfa_bias)
        .map_err(|_| Fault::OffsetRange)
}

fn default(
    mut words: Words<'_>,
    info: u8,
    function: &Function<'_>,
) -> Result<(Cfa, Rule, Rule), Fault> {
    let (machine, layout) = (function.format.machine, function.format.layout);
    let count = words.left;
    let most = match machine.tracks {
        Tracks::Fp => 2,
        Tracks::RaFp => 3,
    };
    if count > most {
        return Err(Fault::WordCount(count));
    }
    let base = if info & row_info::BASE_SP != 0 {
        machine.sp
    } else {
        machine.fp
    };
    let cfa = Cfa::Value(
        base,
        cfa_offset(words.signed().ok_or(Fault::RowCut)?, function)?,
    );

    let saved = |word: i32| {
        if layout.register_words && machine.register_words && word & 1 != 0 {
            return Ok(Rule::Value(
                register(word.cast_unsigned() >> 1, machine)?,
                0,
            ));
        }
        Ok(Rule::AtCfa(word))
    };
    let mut ra = untracked_ra(function);
    if machine.tracks == Tracks::RaFp && count > 1 {
        let word = words.signed().ok_or(Fault::RowCut)?;
        if !(word == 0 && machine.zero_ra_is_same) {
            ra = saved(word)?;
        }
    }
    let fp = match words.left {
        0 => Rule::Same,
        _ => saved(words.signed().ok_or(Fault::RowCut)?)?,
    };
    Ok((cfa, ra, fp))
}

fn flexible(mut words: Words<'_>, function: &Function<'_>) -> Result<(Cfa, Rule, Rule), Fault> {
    let count = words.left;
    let cut = Fault::WordCount(count);
    let word = words.unsigned().ok_or(cut)?;
    if word & control::REGISTER == 0 || word & control::UNUSED != 0 {
        return Err(Fault::Control(word));
    }
    let offset = cfa_offset(words.signed().ok_or(cut)?, function)?;
    let machine = function.format.machine;
    let base = register(word >> control::NUMBER_SHIFT, machine)?;
    let cfa = match word & control::LOAD {
        0 => Cfa::Value(base, offset),
        _ => Cfa::At(base, offset),
    };
    let ra = flexible_rule(&mut words, machine, cut)?.unwrap_or(untracked_ra(function));
    let fp = flexible_rule(&mut words, machine, cut)?.unwrap_or(Rule::Same);
    if words.left != 0 {
        return Err(cut);
    }
    Ok((cfa, ra, fp))
}

fn flexible_rule(
    words: &mut Words<'_>,
    machine: &Machine,
    cut: Fault,
) -> Result<Option<Rule>, Fault> {
    if words.left == 0 {
        return Ok(None);
    }
    let word = words.unsigned().ok_or(Fault::RowCut)?;
    if word == 0 {
        return Ok(None);
    }
    let offset = words.signed().ok_or(cut)?;
    let base = || register(word >> control::NUMBER_SHIFT, machine);
    match (word & control::REGISTER != 0, word & control::LOAD != 0) {
        _ if word & control::UNUSED != 0 => Err(Fault::Control(word)),
        (true, false) => Ok(Some(Rule::Value(base()?, offset))),
        (true, true) => Ok(Some(Rule::At(base()?, offset))),
        (false, true) if word == control::LOAD => Ok(Some(Rule::AtCfa(offset))),
        (false, _) => Err(Fault::Control(word)),
    }
}

fn register(number: u32, machine: &Machine) -> Result<Register, Fault> {
    match u8::try_from(number) {
        Ok(known) if known <= machine.last_register => Ok(Register(known)),
        _ => Err(Fault::RegisterNumber(number)),
    }
}
