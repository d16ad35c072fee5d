//! What a section or a frame area claims about itself: read once when it is registered, never believed further
//! than checked.

use framewalk_announce::abi::{KIND_AREA, Refusal, USER_END};
use framewalk_announce::area::layout::GEOMETRY_SIZE;
use framewalk_announce::area::observe::Geometry;
use framewalk_sframe::Header;
use framewalk_sframe::spec::{Abi, Flag, HEADER_SIZE, MAGIC, Version};
use std::ops::Range;

/// Bytes of the largest index entry (V2).
const MAX_ENTRY: usize = 20;

/// What a process registered: unwind data in its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its first byte (user address space).
    pub address: u64,
    /// Its bytes.
    pub len: u32,
    /// The code that it is about: of a section from the first function's start to the last one's end (user address
    /// space).
    pub text: Range<u64>,
    /// What kind it is, and what was read of it.
    pub what: What,
}

/// What was read of it when it was registered, and is never read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// An SFrame section.
    Section {
        /// What the header says.
        header: Header,
        /// The header as it was; whoever reads the section later puts it in place of what stands there then.
        first_bytes: [u8; HEADER_SIZE],
    },
    /// A frame area.
    Area(Geometry),
}

impl What {
    /// The version of the section; none of an area.
    pub fn version(&self) -> Option<Version> {
        match self {
            What::Section { header, .. } => Some(header.version),
            What::Area(_) => None,
        }
    }
}

impl Claim {
    /// Checks 2 to 10 of docs/abi.md, in their order. Of a section it reads the header and two index entries, of an
    /// area the part of the header that never changes; each once. `kind` is known.
    pub fn read(
        key: u64,
        address: u64,
        length: u64,
        kind: u64,
        read: &mut dyn FnMut(u64, &mut [u8]) -> bool,
    ) -> Result<Claim, Refusal> {
        let end = address.checked_add(length).filter(|&end| end <= USER_END);
        let len = u32::try_from(length).map_err(|_| Refusal::Arguments)?;
        if address == 0 || len == 0 || end.is_none() {
            return Err(Refusal::Arguments);
        }
        match kind {
            KIND_AREA => Claim::of_area(key, address, len, read),
            _ => Claim::of_section(address, len, read),
        }
    }

    fn of_area(
        key: u64,
        address: u64,
        len: u32,
        read: &mut dyn FnMut(u64, &mut [u8]) -> bool,
    ) -> Result<Claim, Refusal> {
        let mut bytes = [0; GEOMETRY_SIZE as usize];
        if u64::from(len) < GEOMETRY_SIZE {
            return Err(Refusal::Malformed);
        }
        if !read(address, &mut bytes) {
            return Err(Refusal::Unreadable);
        }
        let geometry = Geometry::parse(&bytes, len.into())?;
        // Whoever finds the area without having heard the call has to know it by the same key.
        if geometry.key != key {
            return Err(Refusal::Malformed);
        }
        Ok(Claim {
            address,
            len,
            text: geometry.text.clone(),
            what: What::Area(geometry),
        })
    }

    fn of_section(
        address: u64,
        len: u32,
        read: &mut dyn FnMut(u64, &mut [u8]) -> bool,
    ) -> Result<Claim, Refusal> {
        let length = u64::from(len);
        if (len as usize) < HEADER_SIZE {
            return Err(Refusal::Malformed);
        }
        let mut first_bytes = [0; HEADER_SIZE];
        if !read(address, &mut first_bytes) {
            return Err(Refusal::Unreadable);
        }
        check_preamble(&first_bytes)?;
        let header = Header::parse(&first_bytes, length).map_err(|_| Refusal::Malformed)?;
        let last = header.functions.checked_sub(1).ok_or(Refusal::Malformed)?;

        let mut function = |index: u32| {
            let at = header.index_at as u64 + u64::from(index) * header.index_entry as u64;
            let mut entry = [0; MAX_ENTRY];
            // SANITY: no version that got here has longer entries.
            let entry = &mut entry[..header.index_entry];
            // SANITY: the index lies inside the section, whose end is below USER_END.
            match read(address + at, entry) {
                true => Ok(header.function_range(address, index, entry)),
                false => Err(Refusal::Unreadable),
            }
        };
        let first = function(0)?;
        let last = if last == 0 {
            first.clone()
        } else {
            function(last)?
        };
        let (Some(first), Some(last)) = (first, last) else {
            return Err(Refusal::Malformed);
        };
        let text = first.start..last.end;
        if text.is_empty() || text.start == 0 || text.end > USER_END {
            return Err(Refusal::Malformed);
        }
        Ok(Claim {
            address,
            len,
            text,
            what: What::Section {
                header,
                first_bytes,
            },
        })
    }
}

/// The bytes whose errors differ by what is wrong first (checks 5 to 7).
fn check_preamble(bytes: &[u8; HEADER_SIZE]) -> Result<(), Refusal> {
    let [low, high, version, flags, abi, fixed_fp, fixed_ra, ..] = *bytes;
    if u16::from_le_bytes([low, high]) != MAGIC {
        return Err(Refusal::Malformed);
    }
    let known = match Version(version) {
        Version::V2 => Flag::SORTED.0 | Flag::FRAME_POINTER.0 | Flag::PCREL.0,
        Version::V3 => Flag::SORTED.0 | Flag::PCREL.0,
        _ => return Err(Refusal::Unsupported),
    };
    if Abi(abi) != Abi::AMD64 {
        return Err(Refusal::Unsupported);
    }
    let sorted = flags & Flag::SORTED.0 != 0;
    let amd64 = fixed_fp == 0 && fixed_ra.cast_signed() == -8;
    match flags & !known == 0 && sorted && amd64 {
        true => Ok(()),
        false => Err(Refusal::Malformed),
    }
}
