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
    let kind = u8::arbitrary(bytes)? % 16;
    let unwind = match kind {
        0 | 1 => return Ok(Says::Undescribed),
        2 => return Ok(Says::Stop(Stop::NotCode)),
        3 => Unwind::Outermost,
        _ => Unwind::Caller(CallerRule {
            cfa: match bool::arbitrary(bytes)? {
                true => Cfa::Value(register(arch, bytes)?, offset(bytes)?),
                false => Cfa::At(register(arch, bytes)?, offset(bytes)?),
            },
            ra: rule(arch, bytes)?,
            fp: rule(arch, bytes)?,
            ra_signed: kind == 4,
        }),
    };
    // The oracle knows the frames of signals by their origin.
    let signal = kind == 5;
    let origin = if signal {
        Origin::Announced
    } else {
        Origin::File
    };
    Ok(Says::Row {
        unwind,
        signal,
        origin,
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
