//! The entries of an `.eh_frame` section, each found by its length and parsed for itself.
//!
//! ```text
//! length u32 (0xffffffff: u64 follows; 0: the end) | id u32: 0 = common entry (CIE), else function entry (FDE) | ...
//! ```

use super::lower::Slice;
use super::{MAX_COMMON_ENTRY, Refusal};
use crate::bytes::Bytes;
use gimli::{
    BaseAddresses, CommonInformationEntry, EhFrame, EhFrameOffset, FrameDescriptionEntry,
    UnwindSection,
};

/// Common entries remembered: objects of one compiler have one or two, and use them in turn.
const REMEMBERED: usize = 4;

pub(super) enum Entry<'a> {
    Function(FrameDescriptionEntry<Slice<'a>>),
    Refused(Refusal),
}

pub(super) struct Entries<'a, 'b> {
    section: EhFrame<Slice<'a>>,
    bases: &'b BaseAddresses,
    bytes: Bytes<'a>,
    at: usize,
    common: Vec<(usize, CommonInformationEntry<Slice<'a>>)>,
    /// The next one to be forgotten.
    oldest: usize,
}

/// Offset of the entry, whether it is a common one, and offset behind it.
struct Extent {
    at: usize,
    common: bool,
    end: usize,
}

impl<'a, 'b> Entries<'a, 'b> {
    pub(super) fn new(
        section: EhFrame<Slice<'a>>,
        bases: &'b BaseAddresses,
        bytes: Bytes<'a>,
    ) -> Entries<'a, 'b> {
        Entries {
            section,
            bases,
            bytes,
            at: 0,
            common: Vec::new(),
            oldest: 0,
        }
    }

    /// The next entry's extent; an error where the rest of the section cannot be divided.
    fn extent(&mut self) -> Option<Result<Extent, Refusal>> {
        let at = self.at;
        let mut c = self.bytes.from(at)?;
        if c.len() == 0 {
            return None;
        }
        let mut read = || {
            let mut length = u64::from(c.u32()?);
            let mut head = 4usize;
            if length == 0xffff_ffff {
                length = c.u64()?;
                head = 12;
            }
            if length == 0 {
                return Some((0, at, false));
            }
            let end = at
                .checked_add(head)?
                .checked_add(usize::try_from(length).ok()?)?;
            let inside = length >= 4 && end <= self.bytes.len();
            inside.then_some((length, end, c.u32()? == 0))
        };
        match read() {
            Some((0, ..)) => None,
            Some((_, end, common)) => {
                self.at = end;
                Some(Ok(Extent { at, common, end }))
            }
            None => {
                self.at = self.bytes.len();
                Some(Err(Refusal::BadEntry))
            }
        }
    }

    fn parse(&mut self, at: usize) -> Result<FrameDescriptionEntry<Slice<'a>>, Refusal> {
        let Entries {
            section,
            bases,
            common,
            oldest,
            ..
        } = self;
        let mut long = false;
        let parsed = section.fde_from_offset(bases, EhFrameOffset(at), |section, bases, offset| {
            let EhFrameOffset(key) = offset;
            if let Some((_, entry)) = common.iter().find(|(known, _)| *known == key) {
                return Ok(entry.clone());
            }
            let entry = section.cie_from_offset(bases, offset)?;
            if entry.entry_len() > MAX_COMMON_ENTRY {
                long = true;
                return Err(gimli::Error::UnsupportedOffset);
            }
            if common.len() < REMEMBERED {
                common.push((key, entry.clone()));
            } else if let Some(slot) = common.get_mut(*oldest % REMEMBERED) {
                *slot = (key, entry.clone());
                *oldest += 1;
            }
            Ok(entry)
        });
        parsed.map_err(|_| {
            if long {
                Refusal::LongCommonEntry
            } else {
                Refusal::BadEntry
            }
        })
    }
}

impl<'a> Iterator for Entries<'a, '_> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            let extent = match self.extent()? {
                Ok(extent) => extent,
                Err(refusal) => return Some(Entry::Refused(refusal)),
            };
            debug_assert!(extent.end > extent.at);
            if extent.common {
                continue;
            }
            return Some(match self.parse(extent.at) {
                Ok(entry) => Entry::Function(entry),
                Err(refusal) => Entry::Refused(refusal),
            });
        }
    }
}
