//! A process's memory for tests, and sections put together byte by byte.

/// Pieces of memory. A read succeeds inside of one piece only.
#[derive(Debug, Clone, Default)]
pub(crate) struct Process(Vec<(u64, Vec<u8>)>);

impl Process {
    pub(crate) fn new(address: u64, bytes: Vec<u8>) -> Process {
        Process(vec![(address, bytes)])
    }

    pub(crate) fn map(&mut self, address: u64, bytes: Vec<u8>) {
        self.0.push((address, bytes));
    }

    pub(crate) fn read(&self, address: u64, into: &mut [u8]) -> bool {
        let piece = self.0.iter().find_map(|(start, bytes)| {
            let at = usize::try_from(address.checked_sub(*start)?).ok()?;
            bytes.get(at..)?.get(..into.len())
        });
        piece.map(|piece| into.copy_from_slice(piece)).is_some()
    }
}

pub(crate) const SORTED: u8 = 1;
pub(crate) const FRAME_POINTER: u8 = 2;
pub(crate) const PCREL: u8 = 4;

/// Everything that a header and an index say.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) magic: u16,
    pub(crate) version: u8,
    pub(crate) flags: u8,
    pub(crate) abi: u8,
    pub(crate) fixed_fp: i8,
    pub(crate) fixed_ra: i8,
    pub(crate) aux: u8,
    pub(crate) functions: u32,
    pub(crate) rows_len: u32,
    pub(crate) index_at: u32,
    pub(crate) rows_at: u32,
    /// The start field and size of each entry, as they are written.
    pub(crate) entries: Vec<(i64, u32)>,
}

impl Section {
    /// One that is in order, at `address`, with these functions (start, size).
    pub(crate) fn new(version: u8, flags: u8, address: u64, functions: &[(u64, u32)]) -> Section {
        let entry = Section::entry(version) as u64;
        let count = functions.len() as u32;
        let field = |(i, &(start, size)): (u64, &(u64, u32))| {
            let base = if flags & PCREL != 0 {
                address + 28 + i * entry
            } else {
                address
            };
            (start.wrapping_sub(base) as i64, size)
        };
        Section {
            magic: 0xdee2,
            version,
            flags,
            abi: 3,
            fixed_fp: 0,
            fixed_ra: -8,
            aux: 0,
            functions: count,
            rows_len: 3,
            index_at: 0,
            rows_at: count * entry as u32,
            entries: (0..).zip(functions).map(field).collect(),
        }
    }

    /// Bytes of an index entry.
    pub(crate) fn entry(version: u8) -> usize {
        if version == 2 { 20 } else { 16 }
    }

    /// The bytes; the index and the rows stand where a sound section has them.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_le_bytes().to_vec();
        out.extend([self.version, self.flags, self.abi]);
        out.extend([self.fixed_fp as u8, self.fixed_ra as u8, self.aux]);
        for word in [
            self.functions,
            0,
            self.rows_len,
            self.index_at,
            self.rows_at,
        ] {
            out.extend(word.to_le_bytes());
        }
        for &(start, size) in &self.entries {
            match self.version {
                2 => out.extend((start as i32).to_le_bytes()),
                _ => out.extend(start.to_le_bytes()),
            }
            out.extend(size.to_le_bytes());
            out.resize(out.len().next_multiple_of(4), 0);
            out.extend(vec![
                0;
                Section::entry(self.version)
                    - if self.version == 2 { 8 } else { 12 }
            ]);
        }
        out.extend([0; 3]);
        out
    }
}

/// What the header of a frame area says.
#[derive(Debug, Clone)]
pub(crate) struct Area {
    pub(crate) text: u64,
    pub(crate) text_len: u64,
    pub(crate) area_len: u64,
    pub(crate) capacity: u32,
    pub(crate) shift: u16,
    pub(crate) key: u64,
}

impl Area {
    /// One that is nothing but its header, which says that all code keeps frame pointers.
    pub(crate) fn new(key: u64, text: std::ops::Range<u64>) -> Area {
        Area {
            text: text.start,
            text_len: text.end - text.start,
            area_len: 256,
            capacity: 0,
            shift: 12,
            key,
        }
    }

    /// The part of the header that never changes, field by field.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"SFAREA\0\x01".to_vec();
        out.extend(0x0102_0304u32.to_le_bytes());
        for half in [256, 32, 62, self.shift] {
            out.extend(half.to_le_bytes());
        }
        out.extend(self.capacity.to_le_bytes());
        for word in [self.text, self.text_len, self.area_len, self.key] {
            out.extend(word.to_le_bytes());
        }
        out.extend(1u32.to_le_bytes());
        out.resize(128, 0);
        out
    }
}
