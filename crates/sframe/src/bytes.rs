//! The only place that takes bytes apart or puts them together.
//!
//! Every read is bounded by the slice and answers `None` past its end: no method can panic,
//! whatever the numbers are. Offsets are bytes from the slice's first byte.

/// Bytes in a target's order, and a place in them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes<'a> {
    data: &'a [u8],
    big: bool,
}

impl<'a> Bytes<'a> {
    pub(crate) const fn new(data: &'a [u8], big: bool) -> Self {
        Bytes { data, big }
    }

    pub(crate) const fn len(&self) -> usize {
        self.data.len()
    }

    /// The rest from `offset` on.
    #[inline]
    pub(crate) fn from(&self, offset: usize) -> Option<Bytes<'a>> {
        Some(Bytes {
            data: self.data.get(offset..)?,
            ..*self
        })
    }

    /// `len` bytes from `offset` on.
    pub(crate) fn range(&self, offset: usize, len: usize) -> Option<Bytes<'a>> {
        let data = self.data.get(offset..offset.checked_add(len)?)?;
        Some(Bytes { data, ..*self })
    }

    /// The first `len` bytes, or as many as there are.
    pub(crate) fn first(&self, len: usize) -> Bytes<'a> {
        let data = self.data.get(..len).unwrap_or(self.data);
        Bytes { data, ..*self }
    }

    /// Passes over `len` bytes.
    #[inline]
    pub(crate) fn skip(&mut self, len: usize) -> Option<()> {
        self.data = self.data.get(len..)?;
        Some(())
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.data.split_first_chunk::<N>()?;
        self.data = rest;
        Some(*head)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Option<u16> {
        let bytes = self.take()?;
        Some(if self.big {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        })
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Option<u32> {
        let bytes = self.take()?;
        Some(if self.big {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Option<u64> {
        let bytes = self.take()?;
        Some(if self.big {
            u64::from_be_bytes(bytes)
        } else {
            u64::from_le_bytes(bytes)
        })
    }

    /// An unsigned number of 1, 2 or 4 bytes.
    #[inline]
    pub(crate) fn unsigned(&mut self, size: Width) -> Option<u32> {
        match size {
            Width::W1 => self.u8().map(u32::from),
            Width::W2 => self.u16().map(u32::from),
            Width::W4 => self.u32(),
        }
    }

    /// A two's complement number of 1, 2 or 4 bytes.
    #[inline]
    pub(crate) fn signed(&mut self, size: Width) -> Option<i32> {
        match size {
            Width::W1 => self.u8().map(|v| i32::from(v.cast_signed())),
            Width::W2 => self.u16().map(|v| i32::from(v.cast_signed())),
            Width::W4 => self.u32().map(u32::cast_signed),
        }
    }
}

/// Size of a row start or of a row's words, by its code in the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Width {
    W1 = 0,
    W2 = 1,
    W4 = 2,
}

impl Width {
    pub(crate) const fn from_code(code: u8) -> Option<Width> {
        match code {
            0 => Some(Width::W1),
            1 => Some(Width::W2),
            2 => Some(Width::W4),
            _ => None,
        }
    }

    pub(crate) const fn bytes(self) -> usize {
        1 << self as u8
    }

    /// The smallest that holds an unsigned number.
    pub(crate) const fn of_unsigned(value: u32) -> Width {
        match value {
            0..=0xff => Width::W1,
            0x100..=0xffff => Width::W2,
            _ => Width::W4,
        }
    }

    /// The smallest that holds a signed number.
    pub(crate) const fn of_signed(value: i32) -> Width {
        match value {
            -0x80..=0x7f => Width::W1,
            -0x8000..=0x7fff => Width::W2,
            _ => Width::W4,
        }
    }
}

/// Bytes being put together in a target's order.
#[derive(Debug)]
pub(crate) struct Sink {
    data: Vec<u8>,
    big: bool,
}

impl Sink {
    pub(crate) fn new(big: bool, capacity: usize) -> Sink {
        Sink {
            data: Vec::with_capacity(capacity),
            big,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.data.len()
    }

    pub(crate) fn append(&mut self, other: &Sink) {
        self.data.extend_from_slice(&other.data);
    }

    pub(crate) fn into_vec(self) -> Vec<u8> {
        self.data
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.data.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.data.extend(if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        });
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.data.extend(if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        });
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.data.extend(if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        });
    }

    /// The low bytes of a number that fits the width (two's complement or unsigned).
    pub(crate) fn low(&mut self, value: u32, size: Width) {
        match size {
            Width::W1 => self.u8(value as u8),
            Width::W2 => self.u16(value as u16),
            Width::W4 => self.u32(value),
        }
    }
}
