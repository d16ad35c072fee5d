//! Walks of processes in which anything may be said of the code and stand on the stack.

use crate::process::{Process, STACK};
use arbitrary::{Arbitrary, Result, Unstructured};
use framewalk_sframe::{CallerRule, Cfa, Register, Rule, Unwind};
use framewalk_walk::arch::{AARCH64, AMD64, Arch, FULL, S390X};
use framewalk_walk::{Origin, Says, Stop};

const MACHINES: [&Arch; 3] = [&AMD64, &AARCH64, &S390X];
/// Words of the stack.
const WORDS: usize = 256;

/// The bytes are a process.
pub fn walk(data: &[u8]) {
    if let Ok(process) = process(&mut Unstructured::new(data)) {
        process.ends_and_climbs();
    }
}

fn process(bytes: &mut Unstructured<'_>) -> Result<Process> {
    let arch = *bytes.choose(&MACHINES)?;
    let rows = bytes.int_in_range(1..=8)?;
    let code = (0..rows)
        .map(|_| says(arch, bytes))
        .collect::<Result<_>>()?;
    let (pc, sp, fp) = (word(bytes)?, word(bytes)?, word(bytes)?);
    let full = match bool::arbitrary(bytes)? {
        true => {
            let mut full = [0; FULL];
            for register in &mut full {
                *register = word(bytes)?;
            }
            Some(full)
        }
        false => None,
    };
    let is_return_address = u8::arbitrary(bytes)? % 8 == 0;
    let limit = bytes.int_in_range(0..=600)?;
    let stack = (0..WORDS).map(|_| word(bytes)).collect::<Result<_>>()?;
    Ok(Process {
        arch,
        code,
        stack,
        pc,
        sp,
        fp,
        full,
        is_return_address,
        limit,
    })
}

/// A word that looks like a stack address, a code address, or like nothing.
fn word(bytes: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u8::arbitrary(bytes)? % 8 {
        0..4 => STACK + 8 * u64::from(u8::arbitrary(bytes)?),
        4..7 => 0x1000 + u64::from(u8::arbitrary(bytes)? % 0x40),
        _ => u64::arbitrary(bytes)?,
    })
}

fn says(arch: &Arch, bytes: &mut Unstructured<'_>) -> Result<Says> {
    let kind = u8::arbitrary(bytes)? % 32;
    if kind < 3 {
        return Ok(Says::Undescribed);
    }
    if kind == 3 {
        let stop = *bytes.choose(&[Stop::NotCode, Stop::NoRow])?;
        return Ok(Says::Stop(stop));
    }
    let signal = u8::arbitrary(bytes)? % 4 == 0;
    let origin = *bytes.choose(&[Origin::File, Origin::Announced, Origin::FrameArea])?;
    if kind == 4 {
        let unwind = Unwind::Outermost;
        return Ok(Says::Row {
            unwind,
            signal,
            origin,
        });
    }
    let rule = CallerRule {
        cfa: match u8::arbitrary(bytes)? % 3 {
            0 => Cfa::At(register(arch, bytes)?, offset(bytes)?),
            _ => Cfa::Value(register(arch, bytes)?, offset(bytes)?),
        },
        ra: rule(arch, bytes)?,
        fp: rule(arch, bytes)?,
        ra_signed: kind == 5,
    };
    Ok(match kind {
        ..20 => Says::Row {
            unwind: Unwind::Caller(rule),
            signal,
            origin,
        },
        20..26 => Says::Body {
            rule,
            frame_pointer: bool::arbitrary(bytes)?,
            signal,
            origin,
        },
        _ => Says::Switch {
            rule,
            add: offset(bytes)?,
            origin,
        },
    })
}

fn rule(arch: &Arch, bytes: &mut Unstructured<'_>) -> Result<Rule> {
    Ok(match u8::arbitrary(bytes)? % 8 {
        0 => Rule::Same,
        1..5 => Rule::AtCfa(offset(bytes)?),
        5 | 6 => Rule::At(register(arch, bytes)?, offset(bytes)?),
        _ => Rule::Value(register(arch, bytes)?, offset(bytes)?),
    })
}

fn register(arch: &Arch, bytes: &mut Unstructured<'_>) -> Result<Register> {
    Ok(match u8::arbitrary(bytes)? % 8 {
        0..4 => arch.sp,
        4..7 => arch.fp,
        _ => Register(u8::arbitrary(bytes)?),
    })
}

fn offset(bytes: &mut Unstructured<'_>) -> Result<i32> {
    Ok(match u8::arbitrary(bytes)? % 8 {
        0 => i32::arbitrary(bytes)?,
        _ => 8 * i32::from(i8::arbitrary(bytes)?),
    })
}
