//! Sections put together field by field from the specification, of every version and machine, with what they say. Nothing
//! here is the reader's or the writer's.

use super::bytes::Out;
use arbitrary::{Arbitrary, Result, Unstructured};
use framewalk_sframe::{
    Arch, CallerRule, Cfa, FunctionRows, Machine, Pc, Register, Row, Rule, Unwind,
};

/// A sound section, and what its author meant.
pub(crate) struct Made {
    pub(crate) bytes: Vec<u8>,
    pub(crate) address: u64,
    /// In the order of the index.
    pub(crate) functions: Vec<FunctionRows>,
}

/// Functions of one section, at most.
const MOST_FUNCTIONS: u8 = 8;
/// Rows of one function, at most.
const MOST_ROWS: u8 = 12;
/// Where sections may lie; text is at most so far away.
const ADDRESSES: [u64; 3] = [0x4000_0000, 1 << 47, 1 << 63];
const FAR: i32 = 0x1000_0000;

struct Maker<'u, 'd> {
    u: &'u mut Unstructured<'d>,
    arch: Arch,
    version: u8,
}

/// A function of which its rows are written, and its words are not yet placed.
struct Function {
    meant: FunctionRows,
    /// Rows that are written; some meanings need none.
    written: u32,
    info: u8,
    second: u8,
    block: u8,
    rows: Vec<u8>,
}

pub(crate) fn section(u: &mut Unstructured<'_>) -> Result<Made> {
    let arch = *u.choose(&Arch::ALL)?;
    let version = *u.choose(&[3, 3, 2, 2, 1])?;
    let address = *u.choose(&ADDRESSES)?;
    let (sorted, relative) = (
        u8::arbitrary(u)? % 4 != 0,
        version > 1 && bool::arbitrary(u)?,
    );
    let mut maker = Maker { u, arch, version };
    let mut functions = maker.functions(address)?;
    if !sorted && functions.len() > 1 {
        let middle = maker.u.choose_index(functions.len())?;
        functions.rotate_left(middle);
    }
    let bytes = maker.place(address, &functions, sorted, relative)?;
    let functions = functions.into_iter().map(|f| f.meant).collect();
    Ok(Made {
        bytes,
        address,
        functions,
    })
}

impl Maker<'_, '_> {
    fn machine(&self) -> &'static Machine {
        self.arch.machine()
    }

    fn out(&self) -> Out {
        Out::new(self.machine().big_endian)
    }

    fn functions(&mut self, address: u64) -> Result<Vec<Function>> {
        let mut at = address.wrapping_add_signed(self.u.int_in_range(-FAR..=FAR)?.into());
        let count = self.u.int_in_range(0..=MOST_FUNCTIONS)?;
        let mut functions = Vec::new();
        for _ in 0..count {
            at += match u8::arbitrary(self.u)? {
                gap @ 0..0x40 => u64::from(gap),
                _ => 0,
            };
            let function = self.function(at)?;
            at += u64::from(function.meant.size);
            functions.push(function);
        }
        Ok(functions)
    }

    fn function(&mut self, start: u64) -> Result<Function> {
        let size = match u8::arbitrary(self.u)? {
            0 => 0,
            small @ 1..0xe0 => small.into(),
            0xe0..0xf8 => u16::arbitrary(self.u)?.into(),
            _ => 0x1_0000 + u32::from(u16::arbitrary(self.u)?),
        };
        let kind = u8::arbitrary(self.u)?;
        let (key_b, signal, flex) = (
            kind & 1 != 0 && self.machine_signs(),
            kind & 0x0e == 2 && self.version == 3,
            kind & 0x30 == 0x10 && self.version == 3,
        );
        let block = match (kind & 0xc0 == 0x40, self.version) {
            (false, _) => None,
            (true, 1) => Some(if self.arch == Arch::S390x { 32 } else { 16 }),
            (true, _) => Some(u8::arbitrary(self.u)?),
        };
        // A block is repeated, so it is no longer than its function.
        let block = block.filter(|&block| block > 0 && u32::from(block) <= size);
        let furthest = block.map_or(size, |block| u32::from(block) - 1);
        let least = match furthest {
            0..=0xff => 0,
            0x100..=0xffff => 1,
            _ => 2,
        };
        // Nobody has to write the narrowest.
        let width = (least + self.u.int_in_range(0..=2u8)? / 2).min(2);
        let mut out = self.out();
        let mut rows = Vec::new();
        let mut at = 0u32;
        for _ in 0..self.u.int_in_range(0..=MOST_ROWS)? {
            if at > furthest {
                break;
            }
            out.low(at, width);
            let unwind = self.row(flex, &mut out)?;
            rows.push(Row { start: at, unwind });
            at += match u8::arbitrary(self.u)? {
                near @ 0..0xf0 => 1 + u32::from(near % 16),
                _ => 1 + u32::from(u16::arbitrary(self.u)?),
            };
        }
        let written = rows.len() as u32;
        if rows.is_empty() && self.version == 3 && !signal && !flex {
            let unwind = Unwind::Outermost;
            rows.push(Row { start: 0, unwind });
        }
        let pc = block.map_or(Pc::Inc, |block| Pc::Mask { block });
        let mask = if block.is_some() { 0x10 } else { 0 };
        Ok(Function {
            meant: FunctionRows {
                start,
                size,
                pc,
                signal,
                key_b,
                rows,
            },
            written,
            info: width | mask | u8::from(key_b) << 5 | u8::from(signal) << 7,
            second: flex.into(),
            block: block.unwrap_or(0),
            rows: out.bytes,
        })
    }

    fn machine_signs(&self) -> bool {
        matches!(self.arch, Arch::Aarch64 | Arch::Aarch64Be)
    }

    /// Info byte and words of a row, and what they say.
    fn row(&mut self, flex: bool, out: &mut Out) -> Result<Unwind> {
        let kind = u8::arbitrary(self.u)?;
        let size = self.u.int_in_range(0..=2u8)?;
        if kind < 8 && self.version > 1 {
            out.u8(size << 5);
            return Ok(Unwind::Outermost);
        }
        let ra_signed = kind & 1 != 0 && self.machine_signs();
        let (base_sp, words, cfa, ra, fp) = match flex {
            true => self.flexible(size)?,
            false => self.default(size)?,
        };
        let count = words.len() as u8;
        out.u8(u8::from(base_sp) | count << 1 | size << 5 | u8::from(ra_signed) << 7);
        for word in words {
            out.low(word, size);
        }
        Ok(Unwind::Caller(CallerRule {
            cfa,
            ra,
            fp,
            ra_signed,
        }))
    }

    /// A word of a size: mostly what compilers write.
    fn word(&mut self, size: u8) -> Result<i32> {
        let word = match u8::arbitrary(self.u)? {
            often @ 0..0xc0 => i32::from(often % 32) * 8 - 128,
            _ => i32::arbitrary(self.u)?,
        };
        Ok(match size {
            0 => (word as i8).into(),
            1 => (word as i16).into(),
            _ => word,
        })
    }

    /// What a CFA's word stands for; another one where that is too much.
    fn cfa_word(&mut self, size: u8) -> Result<(u32, i32)> {
        let word = self.word(size)?;
        Ok(match self.arch {
            Arch::S390x => {
                // Eighths of the distance from the bias.
                let word = word.clamp(-(1 << 28), (1 << 28) - 64);
                (word as u32, word * 8 + 160)
            }
            _ => (word as u32, word),
        })
    }

    fn default(&mut self, size: u8) -> Result<(bool, Vec<u32>, Cfa, Rule, Rule)> {
        let machine = self.machine();
        let base_sp = bool::arbitrary(self.u)?;
        let base = if base_sp { machine.sp } else { machine.fp };
        let (word, offset) = self.cfa_word(size)?;
        let mut words = vec![word];
        let cfa = Cfa::Value(base, offset);
        let (mut ra, mut fp) = match self.arch {
            Arch::Amd64 => (Rule::AtCfa(-8), Rule::Same),
            _ => (Rule::Same, Rule::Same),
        };
        let more = self
            .u
            .int_in_range(0..=if self.arch == Arch::Amd64 { 1 } else { 2 })?;
        if self.arch != Arch::Amd64 && more > 0 {
            let (word, rule) = self.saved(size)?;
            words.push(word);
            ra = match (self.arch, word) {
                (Arch::S390x, 0) => Rule::Same,
                _ => rule,
            };
        }
        if words.len() == more {
            let (word, rule) = self.saved(size)?;
            words.push(word);
            fp = rule;
        }
        Ok((base_sp, words, cfa, ra, fp))
    }

    /// Where a register is saved. On s390x an odd word of V2 names another register.
    fn saved(&mut self, size: u8) -> Result<(u32, Rule)> {
        if self.arch == Arch::S390x && self.version == 2 && bool::arbitrary(self.u)? {
            let register = self.u.int_in_range(0..=31u8)?;
            return Ok((
                u32::from(register) << 1 | 1,
                Rule::Value(Register(register), 0),
            ));
        }
        let mut word = self.word(size)?;
        if self.arch == Arch::S390x && self.version == 2 {
            word &= !1;
        }
        Ok((word as u32, Rule::AtCfa(word)))
    }

    fn flexible(&mut self, size: u8) -> Result<(bool, Vec<u32>, Cfa, Rule, Rule)> {
        let (register, number) = self.register(size)?;
        let load = bool::arbitrary(self.u)?;
        let (word, offset) = self.cfa_word(size)?;
        let mut words = vec![number | u32::from(load) << 1, word];
        let cfa = match load {
            true => Cfa::At(register, offset),
            false => Cfa::Value(register, offset),
        };
        let untracked = match self.arch {
            Arch::Amd64 => Rule::AtCfa(-8),
            _ => Rule::Same,
        };
        let (mut ra, mut fp) = (untracked, Rule::Same);
        match self.u.int_in_range(0..=3u8)? {
            0 => {}
            1 => ra = self.flexible_rule(size, &mut words)?,
            2 => {
                words.push(0);
                fp = self.flexible_rule(size, &mut words)?;
            }
            _ => {
                ra = self.flexible_rule(size, &mut words)?;
                fp = self.flexible_rule(size, &mut words)?;
            }
        }
        // The lowest bit of the info byte means nothing here.
        Ok((bool::arbitrary(self.u)?, words, cfa, ra, fp))
    }

    fn flexible_rule(&mut self, size: u8, words: &mut Vec<u32>) -> Result<Rule> {
        let kind = self.u.int_in_range(0..=2u8)?;
        let (register, number) = self.register(size)?;
        let offset = self.word(size)?;
        let (word, rule) = match kind {
            0 => (2, Rule::AtCfa(offset)),
            1 => (number, Rule::Value(register, offset)),
            _ => (number | 2, Rule::At(register, offset)),
        };
        words.extend([word, offset as u32]);
        Ok(rule)
    }

    /// A register that the machine has, and that a control word of the size can name.
    fn register(&mut self, size: u8) -> Result<(Register, u32)> {
        let machine = self.machine();
        let last = match self.arch {
            Arch::Amd64 => 15,
            Arch::S390x => 31,
            _ if size == 0 => 31,
            _ => 95,
        };
        let register = match u8::arbitrary(self.u)? % 4 {
            0 => machine.sp,
            1 => machine.fp,
            _ => Register(self.u.int_in_range(0..=last)?),
        };
        Ok((register, u32::from(register.0) << 3 | 1))
    }

    /// Header, index and rows.
    fn place(
        &mut self,
        address: u64,
        functions: &[Function],
        sorted: bool,
        relative: bool,
    ) -> Result<Vec<u8>> {
        let entry = match self.version {
            1 => 17,
            2 => 20,
            _ => 16,
        };
        let (auxiliary, before, between) = match u8::arbitrary(self.u)? {
            0..0xe0 => (0, 0, 0),
            gaps => (gaps & 7, u32::from(gaps >> 3 & 1), u32::from(gaps >> 4 & 1)),
        };
        let index_len = functions.len() as u32 * entry;
        let mut rows = self.out();
        let mut places = Vec::new();
        for function in functions {
            places.push(rows.bytes.len() as u32);
            if self.version == 3 {
                rows.u16(function.written as u16);
                rows.bytes
                    .extend([function.info, function.second, function.block]);
            }
            rows.bytes.extend(&function.rows);
        }
        let keeps = self.version < 3 && bool::arbitrary(self.u)?;
        let mut out = self.out();
        out.u16(0xdee2);
        out.u8(self.version);
        out.u8(u8::from(sorted) | u8::from(keeps) << 1 | u8::from(relative) << 2);
        let (abi, fixed_ra) = match self.arch {
            Arch::Aarch64Be => (1, 0),
            Arch::Aarch64 => (2, 0),
            Arch::Amd64 => (3, 0xf8),
            Arch::S390x => (4, 0),
        };
        out.bytes.extend([abi, 0, fixed_ra, auxiliary]);
        out.u32(functions.len() as u32);
        out.u32(functions.iter().map(|f| f.written).sum());
        out.u32(rows.bytes.len() as u32);
        out.u32(before);
        out.u32(before + index_len + between);
        out.fill(usize::from(auxiliary) + before as usize);
        for (function, place) in functions.iter().zip(places) {
            let base = match relative {
                true => address + out.bytes.len() as u64,
                false => address,
            };
            let start = function.meant.start.wrapping_sub(base);
            match self.version {
                3 => out.u64(start),
                _ => out.u32(start as u32),
            }
            out.u32(function.meant.size);
            out.u32(place);
            if self.version < 3 {
                out.u32(function.written);
                out.u8(function.info);
            }
            if self.version == 2 {
                out.bytes.extend([function.block, 0, 0]);
            }
        }
        out.fill(between as usize);
        out.bytes.extend(rows.bytes);
        Ok(out.bytes)
    }
}
