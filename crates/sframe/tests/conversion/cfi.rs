//! A small assembler of `.eh_frame`, after the LSB's and DWARF's own tables.

/// Builds a section for AMD64, little endian, with absolute pointers.
#[derive(Default)]
pub(crate) struct Assembler {
    pub(crate) bytes: Vec<u8>,
}

/// `DW_CFA_def_cfa rsp, 8; DW_CFA_offset rip, cfa-8`: what every function of AMD64 starts with.
pub(crate) const START: [u8; 5] = [0x0c, 7, 8, 0x80 | 16, 1];

impl Assembler {
    pub(crate) fn new() -> Assembler {
        Assembler::default()
    }

    /// A length, the contents padded with `DW_CFA_nop`, and where the entry begins.
    fn entry(&mut self, contents: &[u8]) -> u32 {
        let at = self.bytes.len() as u32;
        let padded = contents.len().next_multiple_of(4);
        self.bytes.extend((padded as u32).to_le_bytes());
        self.bytes.extend(contents);
        self.bytes.resize(at as usize + 4 + padded, 0);
        at
    }

    /// A common entry with code alignment 1, data alignment -8 and absolute pointers.
    pub(crate) fn common(&mut self, augmentation: &str, column: u8, instructions: &[u8]) -> u32 {
        let mut contents = vec![0, 0, 0, 0, 1];
        contents.extend(augmentation.bytes());
        contents.extend([0, 1, 0x78, column, 1, 0x00]);
        contents.extend(instructions);
        self.entry(&contents)
    }

    /// The usual common entry.
    pub(crate) fn ordinary(&mut self) -> u32 {
        self.common("zR", 16, &START)
    }

    pub(crate) fn function(
        &mut self,
        common: u32,
        start: u64,
        size: u64,
        instructions: &[u8],
    ) -> u32 {
        let mut contents = Vec::new();
        let field = self.bytes.len() as u32 + 4;
        contents.extend(field.wrapping_sub(common).to_le_bytes());
        contents.extend(start.to_le_bytes());
        contents.extend(size.to_le_bytes());
        contents.push(0);
        contents.extend(instructions);
        self.entry(&contents)
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend([0; 4]);
        self.bytes
    }
}

/// `DW_CFA_advance_loc`
pub(crate) fn advance(distance: u8) -> Vec<u8> {
    assert!(distance < 64);
    vec![0x40 | distance]
}

/// `DW_CFA_def_cfa`
pub(crate) fn def_cfa(register: u8, offset: u8) -> Vec<u8> {
    vec![0x0c, register, offset]
}

/// `DW_CFA_def_cfa_expression`
pub(crate) fn cfa_expression(expression: &[u8]) -> Vec<u8> {
    [&[0x0f, expression.len() as u8], expression].concat()
}

/// `DW_CFA_expression`: saved at the address.
pub(crate) fn expression(register: u8, expression: &[u8]) -> Vec<u8> {
    [&[0x10, register, expression.len() as u8], expression].concat()
}

/// `DW_CFA_val_expression`: the value itself.
pub(crate) fn val_expression(register: u8, expression: &[u8]) -> Vec<u8> {
    [&[0x16, register, expression.len() as u8], expression].concat()
}

/// `DW_OP_breg`
pub(crate) fn breg(register: u8, offset: i16) -> Vec<u8> {
    let mut bytes = vec![0x70 + register];
    let mut rest = offset;
    loop {
        let low = (rest & 0x7f) as u8;
        rest >>= 7;
        let done = (rest == 0 && low & 0x40 == 0) || (rest == -1 && low & 0x40 != 0);
        bytes.push(if done { low } else { low | 0x80 });
        if done {
            return bytes;
        }
    }
}

/// `DW_OP_deref`
pub(crate) const DEREF: u8 = 0x06;

/// `DW_OP_plus_uconst`
pub(crate) const PLUS: u8 = 0x23;
