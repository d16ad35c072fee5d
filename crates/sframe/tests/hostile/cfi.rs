//! Call frame information put together as DWARF 5 (6.4) and the LSB ("Exception Frames") draw it: entries of all forms,
//! mostly in order, with instructions and expressions of all kinds.

use super::bytes::Out;
use arbitrary::{Arbitrary, Result, Unstructured};
use framewalk_sframe::Arch;

/// Common entries, function entries for each, instructions of one entry, operations of one expression, at most.
const MOST_COMMON: u8 = 3;
const MOST_FUNCTIONS: u8 = 5;
const MOST_INSTRUCTIONS: u8 = 10;
const MOST_OPERATIONS: u8 = 5;

struct Maker<'u, 'd> {
    u: &'u mut Unstructured<'d>,
    arch: Arch,
    /// Of the section.
    address: u64,
    /// Where the next function starts, if it is where a compiler would put it.
    next: u64,
    out: Out,
}

/// What a common entry fixes for its functions.
struct Common {
    at: usize,
    augmented: bool,
    lsda: bool,
    encoding: u8,
}

/// The bytes of a section at an address.
pub(crate) fn eh_frame(u: &mut Unstructured<'_>, arch: Arch, address: u64) -> Result<Vec<u8>> {
    let text = *u.choose(&[-0x1_0000, 0x1_0000, 0x1000])?;
    let mut maker = Maker {
        u,
        arch,
        address,
        next: address.wrapping_add_signed(text),
        out: Out::new(arch.machine().big_endian),
    };
    for _ in 0..maker.u.int_in_range(1..=MOST_COMMON)? {
        let common = maker.common()?;
        for _ in 0..maker.u.int_in_range(0..=MOST_FUNCTIONS)? {
            maker.function(&common)?;
        }
    }
    if bool::arbitrary(maker.u)? {
        maker.out.u32(0);
    }
    Ok(maker.out.bytes)
}

impl Maker<'_, '_> {
    /// An entry: its length in front, of 32 or 64 bits.
    fn entry(&mut self, contents: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let long = u8::arbitrary(self.u)? >= 0xf8;
        if long {
            self.out.u32(u32::MAX);
            self.out.u64(0);
        } else {
            self.out.u32(0);
        }
        let start = self.out.bytes.len();
        contents(self)?;
        while !(self.out.bytes.len() - start).is_multiple_of(4) {
            self.out.u8(0);
        }
        let len = (self.out.bytes.len() - start) as u64;
        let mut length = Out::new(self.arch.machine().big_endian);
        match long {
            true => length.u64(len),
            false => length.u32(len as u32),
        }
        let at = start - length.bytes.len();
        self.out.bytes[at..start].copy_from_slice(&length.bytes);
        Ok(())
    }

    fn common(&mut self) -> Result<Common> {
        let at = self.out.bytes.len();
        let augmentation = *self.u.choose(&[
            "zR", "zR", "zR", "zRS", "zPLR", "zRB", "z", "", "eh", "zRG", "zQ",
        ])?;
        let encoding = *self.u.choose(&[
            0x1b, 0x1b, 0x1b, 0x00, 0x1c, 0x03, 0x0b, 0x0c, 0x02, 0x10, 0x01, 0x9b, 0x2b, 0x3b,
            0x50, 0xff,
        ])?;
        let has = |letter| augmentation.contains(letter);
        let common = Common {
            at,
            augmented: augmentation.starts_with('z'),
            lsda: has('L'),
            encoding: if has('R') { encoding } else { 0 },
        };
        self.entry(|m| {
            m.out.u32(0);
            let version = *m.u.choose(&[1, 1, 1, 3, 4])?;
            m.out.u8(version);
            m.out.bytes.extend(augmentation.bytes());
            m.out.u8(0);
            if version == 4 {
                m.out.bytes.extend([8, 0]);
            }
            let scale = *m.u.choose(&[1, 1, 4, 2, 8])?;
            m.unsigned(scale);
            let scale = *m.u.choose(&[-8, -8, -8, -4, 8, 1, 0])?;
            m.signed(scale);
            let column = match u8::arbitrary(m.u)? {
                other @ 0xf0.. => other & 0x7f,
                _ => m.arch.machine().ra.0,
            };
            m.out.u8(column);
            if augmentation.starts_with('z') {
                let mut data = Out::new(m.arch.machine().big_endian);
                for letter in augmentation.chars().skip(1) {
                    match letter {
                        'R' => data.u8(encoding),
                        'L' => data.u8(0x1b),
                        'P' => {
                            data.u8(0x03);
                            data.u32(0x1234);
                        }
                        _ => {}
                    }
                }
                m.unsigned(data.bytes.len() as u64);
                m.out.bytes.extend(data.bytes);
            }
            if u8::arbitrary(m.u)? < 0xe0 {
                m.start();
            }
            m.instructions()
        })?;
        Ok(common)
    }

    /// What a function starts with, by the psABI.
    fn start(&mut self) {
        let machine = self.arch.machine();
        self.out.bytes.extend([0x0c, machine.sp.0]);
        match self.arch {
            Arch::Amd64 => self.out.bytes.extend([8, 0x80 | machine.ra.0, 1]),
            Arch::S390x => self.out.bytes.extend([0xa0, 1]),
            _ => self.out.u8(0),
        }
    }

    fn function(&mut self, common: &Common) -> Result<()> {
        let mut start = self.next;
        match u8::arbitrary(self.u)? {
            gap @ 0..0x80 => start = start.wrapping_add(u64::from(gap % 16)),
            0x80..0xf0 => {}
            0xf0 => start = 0,
            near => start = start.wrapping_sub(u64::from(near & 15)),
        }
        let size = match u8::arbitrary(self.u)? {
            0 => 0,
            0xff => u64::arbitrary(self.u)?,
            many @ 0xf0.. => u64::from(many & 15) << 28,
            few => few.into(),
        };
        self.entry(|m| {
            let field = m.out.bytes.len();
            m.out.u32((field - common.at) as u32);
            m.pointer(common.encoding, start);
            m.pointer(common.encoding & 0x0f, size);
            if common.augmented {
                m.unsigned(if common.lsda { 4 } else { 0 });
                if common.lsda {
                    m.out.u32(0);
                }
            }
            m.instructions()
        })?;
        self.next = start.wrapping_add(size);
        Ok(())
    }

    /// A pointer by its encoding (LSB "DWARF Exception Header Encoding").
    fn pointer(&mut self, encoding: u8, value: u64) {
        let base = match encoding & 0x70 {
            0x10 => self.address.wrapping_add(self.out.bytes.len() as u64),
            _ => 0,
        };
        let value = value.wrapping_sub(base);
        match encoding & 0x0f {
            0x01 => self.unsigned(value),
            0x09 => self.signed(value as i64),
            0x02 | 0x0a => self.out.u16(value as u16),
            0x03 | 0x0b => self.out.u32(value as u32),
            _ => self.out.u64(value),
        }
    }

    fn instructions(&mut self) -> Result<()> {
        for _ in 0..self.u.int_in_range(0..=MOST_INSTRUCTIONS)? {
            self.instruction()?;
        }
        Ok(())
    }

    fn instruction(&mut self) -> Result<()> {
        let kind = u8::arbitrary(self.u)? % 32;
        let register = self.register()?;
        match kind {
            // advance_loc, most often: each makes a row.
            0..6 => {
                let distance = u8::arbitrary(self.u)? & 0x3f;
                self.out.u8(0x40 | distance);
            }
            6 => {
                let distance = u8::arbitrary(self.u)?;
                self.out.bytes.extend([0x02, distance]);
            }
            7 => {
                self.out.u8(0x03);
                let distance = u16::arbitrary(self.u)?;
                self.out.u16(distance);
            }
            8 => {
                self.out.u8(0x04);
                let distance = u32::arbitrary(self.u)?;
                self.out.u32(distance);
            }
            9 => {
                self.out.u8(0x01);
                let place = self.next.wrapping_add(u64::from(u8::arbitrary(self.u)?));
                self.pointer(0x1b, place);
            }
            // offset, restore
            10..13 => {
                self.out.u8(0x80 | register & 0x3f);
                self.few()?;
            }
            13 => self.out.u8(0xc0 | register & 0x3f),
            // def_cfa, def_cfa_register, def_cfa_offset
            14 => self.operands(0x0c, register, false)?,
            15 => self.out.bytes.extend([0x0d, register]),
            16 | 17 => {
                self.out.u8(0x0e);
                self.few()?;
            }
            // def_cfa_sf, def_cfa_offset_sf, offset_extended, its _sf, val_offset, its _sf
            18 => self.operands(0x12, register, true)?,
            19 => {
                self.out.u8(0x13);
                self.few_signed()?;
            }
            20 => self.operands(0x05, register, false)?,
            21 => self.operands(0x11, register, true)?,
            22 => self.operands(0x14, register, false)?,
            23 => self.operands(0x15, register, true)?,
            // restore_extended, undefined, same_value, register
            24 => {
                let operation = *self.u.choose(&[0x06, 0x07, 0x08])?;
                self.out.bytes.extend([operation, register]);
            }
            25 => {
                let other = self.register()?;
                self.out.bytes.extend([0x09, register, other]);
            }
            26 => self.out.u8(0x0a),
            27 => self.out.u8(0x0b),
            28 => {
                self.out.u8(0x0f);
                self.expression(true)?;
            }
            29 | 30 => {
                let operation = *self.u.choose(&[0x10, 0x16])?;
                self.out.bytes.extend([operation, register]);
                self.expression(false)?;
            }
            _ => {
                let operation = *self.u.choose(&[0x00, 0x2d, 0x2e, 0x2f, 0x1d])?;
                let operation = match bool::arbitrary(self.u)? {
                    true => operation,
                    false => u8::arbitrary(self.u)?,
                };
                self.out.u8(operation);
            }
        }
        Ok(())
    }

    /// An instruction with a register and an offset.
    fn operands(&mut self, operation: u8, register: u8, signed: bool) -> Result<()> {
        self.out.bytes.extend([operation, register]);
        match signed {
            true => self.few_signed(),
            false => self.few(),
        }
    }

    /// Those that rows are about, mostly.
    fn register(&mut self) -> Result<u8> {
        let machine = self.arch.machine();
        Ok(match u8::arbitrary(self.u)? {
            0..0x40 => machine.sp.0,
            0x40..0x80 => machine.fp.0,
            0x80..0xc0 => machine.ra.0,
            // One byte of LEB128.
            other => other & 0x7f,
        })
    }

    fn few(&mut self) -> Result<()> {
        let number = match u8::arbitrary(self.u)? {
            0xff => u64::arbitrary(self.u)?,
            many @ 0xf0.. => u64::from(many & 15) << 28,
            few => (few % 40).into(),
        };
        self.unsigned(number);
        Ok(())
    }

    fn few_signed(&mut self) -> Result<()> {
        let number = match u8::arbitrary(self.u)? {
            0xff => i64::arbitrary(self.u)?,
            few => i64::from(few.cast_signed() % 40),
        };
        self.signed(number);
        Ok(())
    }

    fn unsigned(&mut self, mut value: u64) {
        loop {
            let low = (value & 0x7f) as u8;
            value >>= 7;
            self.out.u8(low | u8::from(value != 0) << 7);
            if value == 0 {
                return;
            }
        }
    }

    fn signed(&mut self, mut value: i64) {
        loop {
            let low = (value & 0x7f) as u8;
            value >>= 7;
            let done = value == if low & 0x40 == 0 { 0 } else { -1 };
            self.out.u8(low | u8::from(!done) << 7);
            if done {
                return;
            }
        }
    }

    /// A block: its length in front.
    fn expression(&mut self, of_cfa: bool) -> Result<()> {
        let before = std::mem::take(&mut self.out.bytes);
        let made = match (of_cfa, u8::arbitrary(self.u)?) {
            (true, 0..0x20) => self.linkage(),
            _ => self.operations(of_cfa),
        };
        let block = std::mem::replace(&mut self.out.bytes, before);
        self.unsigned(block.len() as u64);
        self.out.bytes.extend(block);
        made
    }

    /// As GNU ld describes a PLT: `CFA = rsp + 8 + ((rip & 15) >= n) * 8`.
    fn linkage(&mut self) -> Result<()> {
        let from = u8::arbitrary(self.u)? % 20;
        let from = 0x30 + from;
        self.out.bytes.extend([0x77, 8, 0x80, 0]);
        self.out
            .bytes
            .extend([0x3f, 0x1a, from, 0x2a, 0x33, 0x24, 0x22]);
        Ok(())
    }

    fn operations(&mut self, of_cfa: bool) -> Result<()> {
        // What is not of the CFA begins with the CFA on the stack.
        if of_cfa || bool::arbitrary(self.u)? {
            self.base()?;
        }
        for _ in 0..self.u.int_in_range(0..=MOST_OPERATIONS)? {
            match u8::arbitrary(self.u)? % 8 {
                0 | 1 => self.out.u8(0x06),
                2 | 3 => {
                    self.out.u8(0x23);
                    self.few()?;
                }
                4 => {
                    // A small number, or a signed one, and what is done with it.
                    match bool::arbitrary(self.u)? {
                        true => {
                            let number = u8::arbitrary(self.u)? & 31;
                            self.out.u8(0x30 + number);
                        }
                        false => {
                            self.out.u8(0x11);
                            self.few_signed()?;
                        }
                    }
                    let operation = *self.u.choose(&[0x22, 0x1c, 0x1a, 0x24, 0x2a])?;
                    self.out.u8(operation);
                }
                5 => self.base()?,
                6 => self.out.u8(0x9c),
                _ => {
                    let operation = u8::arbitrary(self.u)?;
                    self.out.u8(operation);
                }
            }
        }
        Ok(())
    }

    /// `DW_OP_breg` or `DW_OP_bregx`.
    fn base(&mut self) -> Result<()> {
        let register = self.register()?;
        match register {
            0..32 => self.out.u8(0x70 + register),
            _ => self.out.bytes.extend([0x92, register]),
        }
        self.few_signed()
    }
}
