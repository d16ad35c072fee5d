//! Sections, put together byte by byte so that anything can be wrong with them, or by the writer.

use framewalk_sframe::{Arch, Builder, FunctionRows, Row, Unwind};

pub(crate) const SORTED: u8 = 1;
pub(crate) const PCREL: u8 = 4;
pub(crate) const HEADER: usize = 28;

/// Fields of the header: offset and bytes (SFrame specification, "SFrame Header").
pub(crate) const FIELDS: [(usize, usize); 12] = [
    (0, 2),  // magic
    (2, 1),  // version
    (3, 1),  // flags
    (4, 1),  // ABI
    (5, 1),  // fixed FP offset
    (6, 1),  // fixed RA offset
    (7, 1),  // bytes of the auxiliary header
    (8, 4),  // functions
    (12, 4), // rows
    (16, 4), // bytes of rows
    (20, 4), // index
    (24, 4), // rows
];

/// What a sound section may look like.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) version: u8,
    pub(crate) flags: u8,
    /// Bytes between header and index, between index and rows, behind the rows.
    pub(crate) auxiliary: u8,
    pub(crate) gap: u32,
    pub(crate) tail: u32,
    /// Start and size.
    pub(crate) functions: Vec<(u64, u32)>,
}

impl Shape {
    pub(crate) fn new(version: u8, flags: u8, functions: &[(u64, u32)]) -> Shape {
        Shape {
            version,
            flags,
            auxiliary: 0,
            gap: 0,
            tail: 0,
            functions: functions.to_vec(),
        }
    }

    /// Bytes of an index entry.
    pub(crate) fn entry(&self) -> usize {
        if self.version == 2 { 20 } else { 16 }
    }

    /// Where the entry with this number is.
    pub(crate) fn entry_at(&self, number: usize) -> usize {
        HEADER + usize::from(self.auxiliary) + number * self.entry()
    }

    /// The bytes, for a section whose first byte is at `address`.
    pub(crate) fn bytes(&self, address: u64) -> Vec<u8> {
        let count = self.functions.len() as u32;
        let rows_at = count * self.entry() as u32 + self.gap;
        let mut out = vec![
            0xe2,
            0xde,
            self.version,
            self.flags,
            3,
            0,
            0xf8,
            self.auxiliary,
        ];
        for word in [count, count, count, 0, rows_at] {
            out.extend(word.to_le_bytes());
        }
        out.extend(vec![0x55; usize::from(self.auxiliary)]);
        for (number, &(start, size)) in self.functions.iter().enumerate() {
            let base = match self.flags & PCREL {
                0 => address,
                _ => address + self.entry_at(number) as u64,
            };
            let start = start.wrapping_sub(base);
            match self.version {
                2 => out.extend((start as u32).to_le_bytes()),
                _ => out.extend(start.to_le_bytes()),
            }
            out.extend(size.to_le_bytes());
            out.resize(self.entry_at(number + 1), 0);
        }
        // Nobody looks at the rows when a section is registered.
        out.resize(out.len() + (self.gap + count + self.tail) as usize, 0);
        out
    }
}

/// The smallest sound section: one function.
pub(crate) fn section(address: u64, start: u64, size: u32) -> Vec<u8> {
    Shape::new(3, SORTED | PCREL, &[(start, size)]).bytes(address)
}

/// As the writer makes it.
pub(crate) fn written(address: u64, functions: &[(u64, u32)]) -> Vec<u8> {
    let mut builder = Builder::new(Arch::Amd64);
    builder.extend(functions.iter().map(|&(start, size)| {
        let unwind = Unwind::Outermost;
        FunctionRows::new(start, size, vec![Row { start: 0, unwind }])
    }));
    builder.finish(address).expect("functions in order")
}

/// Puts a number into bytes.
pub(crate) fn put(bytes: &mut [u8], at: usize, len: usize, value: u64) {
    bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
}

/// Gets it.
pub(crate) fn get(bytes: &[u8], at: usize, len: usize) -> u64 {
    let mut word = [0; 8];
    word[..len].copy_from_slice(&bytes[at..at + len]);
    u64::from_le_bytes(word)
}
