//! Bytes in a target's order, and what hostile authors do to them.

use arbitrary::{Arbitrary, Result, Unstructured};

pub(crate) struct Out {
    pub(crate) bytes: Vec<u8>,
    big: bool,
}

impl Out {
    pub(crate) fn new(big: bool) -> Out {
        let bytes = Vec::new();
        Out { bytes, big }
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// The lowest `N` bytes.
    fn number<const N: usize>(&mut self, value: u64) {
        let mut bytes = value.to_le_bytes();
        let bytes = &mut bytes[..N];
        if self.big {
            bytes.reverse();
        }
        self.bytes.extend(&*bytes);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.number::<2>(value.into());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.number::<4>(value.into());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.number::<8>(value);
    }

    /// As many of the lowest bytes as the format's code for a size says.
    pub(crate) fn low(&mut self, value: u32, code: u8) {
        match code {
            0 => self.number::<1>(value.into()),
            1 => self.number::<2>(value.into()),
            _ => self.number::<4>(value.into()),
        }
    }

    pub(crate) fn fill(&mut self, count: usize) {
        self.bytes.resize(self.bytes.len() + count, 0);
    }
}

/// Changes some bytes; whether it did.
pub(crate) fn corrupt(u: &mut Unstructured<'_>, bytes: &mut Vec<u8>) -> Result<bool> {
    let changes = match u8::arbitrary(u)? {
        0..0x40 => 0,
        many => many % 8,
    };
    for _ in 0..changes {
        if bytes.is_empty() {
            break;
        }
        // Headers are short, and what they say matters most.
        let near = u8::arbitrary(u)? % 4 == 0;
        let most = if near {
            bytes.len().min(48)
        } else {
            bytes.len()
        };
        let at = u.choose_index(most)?;
        match u8::arbitrary(u)? % 8 {
            0 => bytes[at] = u8::arbitrary(u)?,
            1 => bytes[at] ^= 1 << (u8::arbitrary(u)? % 8),
            2 => bytes[at] = bytes[at].wrapping_add_signed(i8::arbitrary(u)?),
            3 => bytes[at] = *u.choose(&[0, 1, 0x7f, 0x80, 0xff])?,
            4 => {
                // An extreme number, or one near it.
                let value = u.choose(&[0u32, 1 << 31, u32::MAX])?;
                let value = value.wrapping_add_signed(i8::arbitrary(u)?.into());
                let end = (at + 4).min(bytes.len());
                for (byte, new) in bytes[at..end].iter_mut().zip(value.to_le_bytes()) {
                    *byte = new;
                }
            }
            5 => bytes.truncate(at),
            6 => {
                let from = u.choose_index(bytes.len())?;
                let count = usize::from(u8::arbitrary(u)?).min(bytes.len() - from.max(at));
                bytes.copy_within(from..from + count, at);
            }
            _ => {
                bytes.remove(at);
            }
        }
    }
    Ok(changes > 0)
}
