//! An object's program headers, as they lie in memory, and the unwind data that they tell of.
//!
//! They are allegations: every address is computed without overflow, read through [`Memory`], which cannot fault,
//! and at most [`MOST`] headers are looked at.

/// Memory that may not be there.
pub(crate) trait Memory {
    /// The 8 bytes at an address; None if they cannot be read.
    fn read(&self, address: usize) -> Option<[u8; 8]>;
}

/// What the loader says about an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Object {
    /// What the loader added to the addresses in the file (`l_addr`).
    pub(crate) bias: usize,
    /// Where its dynamic section is (`l_ld`).
    pub(crate) dynamic: usize,
}

/// A table of program headers in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) address: usize,
    pub(crate) count: usize,
}

/// A range of addresses: the first, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) address: usize,
    pub(crate) length: usize,
}

/// Most headers that are looked at; real objects have about a dozen.
const MOST: usize = 128;
/// The table is no further behind the ELF header than this; in real objects it follows at once.
const FARTHEST: usize = 1 << 16;

/// Bytes of a program header.
pub(crate) const ENTRY: usize = 56;
const IDENT: [u8; 7] = [
    0x7f,
    b'E',
    b'L',
    b'F',
    2, // ELFCLASS64
    if cfg!(target_endian = "little") { 1 } else { 2 },
    1, // EV_CURRENT
];

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_GNU_SFRAME: u32 = 0x6474_e554;
const PF_R: u32 = 4;

/// Reads 8 bytes behind an address. Larger pieces would be copied by functions of libc.
fn bytes(memory: &impl Memory, address: usize, offset: usize) -> Option<[u8; 8]> {
    memory.read(address.checked_add(offset)?)
}

fn number(memory: &impl Memory, address: usize, offset: usize) -> Option<usize> {
    let number = u64::from_ne_bytes(bytes(memory, address, offset)?);
    usize::try_from(number).ok()
}

impl Table {
    /// The table of the object whose ELF header is at an address.
    pub(crate) fn behind(memory: &impl Memory, header: usize) -> Option<Table> {
        if !bytes(memory, header, 0)?.starts_with(&IDENT) {
            return None;
        }
        let offset = number(memory, header, 32)?;
        // Bytes of this header, bytes of an entry, entries, bytes of a section header.
        let [_, _, size0, size1, count0, count1, _, _] = bytes(memory, header, 52)?;
        if usize::from(u16::from_ne_bytes([size0, size1])) != ENTRY || offset > FARTHEST {
            return None;
        }
        Some(Table {
            address: header.checked_add(offset)?,
            count: u16::from_ne_bytes([count0, count1]).into(),
        })
    }

    /// Where the object's unwind data is, if it has any, and if this is the object's table at all: then its
    /// PT_DYNAMIC is where the loader says.
    pub(crate) fn unwind_data(self, memory: &impl Memory, object: Object) -> Option<Range> {
        let mut is_its = false;
        let mut found = None;
        for index in 0..self.count.min(MOST) {
            let header = self.header(memory, index)?;
            // Addresses in the file may be higher than those in memory (prelinked objects): the bias wraps.
            let address = object.bias.wrapping_add(header.address);
            is_its |= header.kind == PT_DYNAMIC && address == object.dynamic;
            if header.kind == PT_GNU_SFRAME {
                found = found.or(Some(header));
            }
        }
        let found = found.filter(|found| is_its && found.length != 0)?;
        for index in 0..self.count.min(MOST) {
            if self.header(memory, index)?.maps(&found) {
                return Some(Range {
                    address: object.bias.wrapping_add(found.address),
                    length: found.length,
                });
            }
        }
        None
    }

    fn header(self, memory: &impl Memory, index: usize) -> Option<Header> {
        let at = self.address.checked_add(index.checked_mul(ENTRY)?)?;
        let [kind @ .., f0, f1, f2, f3] = bytes(memory, at, 0)?;
        Some(Header {
            kind: u32::from_ne_bytes(kind),
            flags: u32::from_ne_bytes([f0, f1, f2, f3]),
            address: number(memory, at, 16)?,
            length: number(memory, at, 32)?,
        })
    }
}

/// A program header: addresses of the file, and bytes that are in the file.
#[derive(Debug, Clone, Copy)]
struct Header {
    kind: u32,
    flags: u32,
    address: usize,
    length: usize,
}

impl Header {
    /// Whether it maps all of another, to be read.
    fn maps(&self, other: &Header) -> bool {
        let ends = (
            self.address.checked_add(self.length),
            other.address.checked_add(other.length),
        );
        let (Some(end), Some(other_end)) = ends else {
            return false;
        };
        self.kind == PT_LOAD
            && self.flags & PF_R != 0
            && self.address <= other.address
            && other_end <= end
    }
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
