//! Unwind data, code, stacks and registers: mostly like real ones, some of it hostile.

use fastrand::Rng;
use framewalk_sframe::{
    Arch, Builder, CallerRule, Cfa, FunctionRows, Pc, Register, Row, Rule, Section, Unwind,
};
use std::ops::Range;

/// Bytes of code, many of them calls, prologues and returns.
pub(super) fn code(random: &mut Rng, len: usize) -> Vec<u8> {
    const PIECES: [&[u8]; 12] = [
        &[0x55, 0x48, 0x89, 0xe5],
        &[0x55, 0x48, 0x8b, 0xec],
        &[0xf3, 0x0f, 0x1e, 0xfa],
        &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5],
        &[0xe8, 1, 2, 3, 0],
        &[0xff, 0xd0],
        &[0xff, 0x15, 1, 2, 3, 4],
        &[0xc3],
        &[0xc9, 0xc3],
        &[0x48, 0x8b, 0x65, 0xf8],
        &[0x49, 0x3b, 0xa7, 1, 0, 0, 0],
        &[0xcc],
    ];
    let mut bytes = Vec::with_capacity(len + 16);
    while bytes.len() < len {
        match random.u8(..3) {
            0 => bytes.push(random.u8(..)),
            1 => bytes.extend([0x90; 3]),
            _ => bytes.extend(PIECES[random.usize(..PIECES.len())]),
        }
    }
    bytes.truncate(len);
    bytes
}

/// Multiples of a word, small ones mostly.
fn offset(random: &mut Rng) -> i32 {
    match random.u8(..16) {
        0 => random.i32(..),
        1 => random.i32(-2000..2000),
        2 => 8 * random.i32(-5000..5000),
        _ => 8 * random.i32(-12..24),
    }
}

fn register(random: &mut Rng) -> Register {
    Register(match random.u8(..4) {
        0 => 7,
        1 => 6,
        _ => random.u8(..16),
    })
}

fn rule(random: &mut Rng) -> Rule {
    match random.u8(..4) {
        0 => Rule::Value(register(random), offset(random)),
        1 => Rule::At(register(random), offset(random)),
        _ => Rule::AtCfa(offset(random)),
    }
}

fn unwind(random: &mut Rng) -> Unwind {
    let (sp, fp) = (Register(7), Register(6));
    let caller = |cfa, ra, fp| {
        Unwind::Caller(CallerRule {
            cfa,
            ra,
            fp,
            ra_signed: false,
        })
    };
    let size = 8 * random.i32(1..20);
    match random.u8(..28) {
        0 => Unwind::Outermost,
        1..12 => caller(Cfa::Value(sp, size), Rule::AtCfa(-8), Rule::Same),
        12..20 => caller(Cfa::Value(sp, size + 8), Rule::AtCfa(-8), Rule::AtCfa(-16)),
        20..23 => caller(Cfa::Value(fp, 16), Rule::AtCfa(-8), Rule::AtCfa(-16)),
        23 => caller(
            Cfa::Value(sp, offset(random)),
            Rule::AtCfa(-8),
            Rule::AtCfa(offset(random)),
        ),
        24 => caller(
            Cfa::At(register(random), offset(random)),
            Rule::AtCfa(-8),
            rule(random),
        ),
        25 => caller(
            Cfa::Value(register(random), offset(random)),
            rule(random),
            rule(random),
        ),
        // vfork(3) keeps its return address in a register, with nothing on the stack.
        26 => caller(
            Cfa::Value(sp, 0),
            Rule::Value(register(random), 0),
            Rule::Same,
        ),
        _ => caller(Cfa::Value(sp, size), rule(random), Rule::Same),
    }
}

fn rows(random: &mut Rng, furthest: u32) -> Vec<Row> {
    let most = match random.u8(..64) {
        0 => 3000,
        _ => random.usize(1..8),
    };
    let mut rows = Vec::new();
    let mut start = if random.u8(..16) == 0 { 1 } else { 0 };
    while rows.len() < most && start <= furthest {
        rows.push(Row {
            start,
            unwind: unwind(random),
        });
        start += random.u32(1..2 + furthest / 6);
    }
    rows
}

/// Functions in a text, in order; some of them far apart.
pub(super) fn functions(random: &mut Rng, text: Range<u64>) -> Vec<FunctionRows> {
    let mut functions = Vec::new();
    let mut start = text.start;
    while functions.len() < 40 && start < text.end {
        let longest = (text.end - start).min(600) as u32;
        let size = random.u32(1..=longest);
        let mut function = FunctionRows::new(start, size, Vec::new());
        if random.u8(..12) == 0 {
            let block = random.u8(1..=64);
            function.pc = Pc::Mask { block };
            function.rows = rows(random, u32::from(block) - 1);
        } else if random.u8(..12) == 0 {
            function.signal = true;
            function.rows = match random.bool() {
                true => Vec::new(),
                false => rows(random, size - 1),
            };
        } else {
            function.rows = rows(random, size - 1);
        }
        functions.push(function);
        start += u64::from(size);
        start += match random.u8(..16) {
            0 => 0x1_0000 + random.u64(..0x8000),
            1..4 => random.u64(..64),
            _ => 0,
        };
    }
    functions
}

/// A section for such functions; those that no row can say are left out.
pub(super) fn section(functions: &[FunctionRows], address: u64) -> Vec<u8> {
    let sound = |function: &&FunctionRows| {
        let mut alone = Builder::new(Arch::Amd64);
        alone.push((*function).clone());
        alone.finish(address).is_ok()
    };
    let mut builder = Builder::new(Arch::Amd64);
    builder.extend(functions.iter().filter(sound).cloned());
    builder.finish(address).expect("each of them is sound")
}

/// The same section in version 2, where that can say it: no signal frames, no flexible rows.
pub(super) fn as_v2(v3: &[u8], address: u64) -> Option<Vec<u8>> {
    /// Bytes of the header and of index entries.
    const HEADER: usize = 28;
    const ENTRIES: [usize; 2] = [16, 20];
    /// Bytes of the attribute in front of the rows in version 3.
    const ATTRIBUTE: usize = 5;
    let section = Section::parse(v3, address).ok()?;
    let (header, count) = (*section.header(), section.len() as usize);
    let mut out = v3[..HEADER].to_vec();
    out[2] = 2;
    // Offset of the rows, behind an index with larger entries.
    out[24..28].copy_from_slice(&((count * ENTRIES[1]) as u32).to_le_bytes());
    for function in section.functions() {
        let function = function.ok()?;
        if function.signal || function.flex {
            return None;
        }
        let attribute = header.rows_at + function.rows_at as usize;
        let field = address + out.len() as u64;
        let start = i32::try_from(function.start.wrapping_sub(field).cast_signed()).ok()?;
        out.extend(start.to_le_bytes());
        out.extend(function.size.to_le_bytes());
        out.extend((function.rows_at + ATTRIBUTE as u32).to_le_bytes());
        out.extend(function.row_count.to_le_bytes());
        out.extend([v3[attribute + 2], v3[attribute + 4], 0, 0]);
    }
    out.extend(v3.get(header.rows_at..)?);
    let parsed = Section::parse(&out, address).ok()?;
    (parsed.len() == section.len()).then_some(out)
}

/// Changes some bytes: any, or those that say how many and where.
pub(super) fn corrupt(random: &mut Rng, bytes: &mut [u8]) {
    for _ in 0..random.usize(1..6) {
        let most = match random.bool() {
            true => bytes.len().min(120),
            false => bytes.len(),
        };
        let Some(byte) = bytes.get_mut(random.usize(..most)) else {
            return;
        };
        *byte = match random.u8(..5) {
            0 => 0,
            1 => 0xff,
            2 => *byte ^ 1 << (random.u8(..8)),
            3 => byte.wrapping_add(1),
            _ => random.u8(..),
        };
    }
}
