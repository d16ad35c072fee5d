//! What an ELF file says of a place in it without any symbol: its address, its section, and where
//! the function around it starts.
//!
//! Stripped programs keep `.eh_frame_hdr`, a sorted table of function starts
//! (LSB Core, "Exception Frame Header"); it turns thousands of nameless places into a few nameless
//! functions. Everything is an allegation: read by bounded pieces, never mapped, and what does not
//! make sense is as good as not there.

use crate::processes::ObjectSource;
use object::LittleEndian as LE;
use object::elf::{self, CompressionHeader64, FileHeader64, ProgramHeader64, SectionHeader64};
use object::pod::{self, Pod};
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Bytes that are read in one piece, at most: the largest `.eh_frame_hdr` known has some MiB.
const MAX_READ: u64 = 64 << 20;

/// Bytes that all compressed sections of a file may have once decompressed, and how many for each
/// byte of the file (the most that deflate can do is 1032).
const MAX_DECOMPRESSED: u64 = 4 << 30;
const MAX_RATIO: u64 = 1100;

/// DW_EH_PE_pcrel | DW_EH_PE_sdata4, DW_EH_PE_udata4, DW_EH_PE_datarel | DW_EH_PE_sdata4: what every
/// linker writes.
const HEADER: [u8; 4] = [1, 0x1b, 0x03, 0x3b];

/// The layout of one file. All addresses are of the ELF virtual address space.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Loaded pieces: file offsets, and the address of the first byte.
    segments: Vec<(Range<u64>, u64)>,
    /// Executable sections, and whether they are procedure linkage tables.
    sections: Vec<(Range<u64>, bool)>,
    /// Where functions start, sorted.
    starts: Vec<u64>,
    /// Readers that believe the file's sizes may be let near it.
    is_sound: bool,
}

impl Layout {
    /// Reads what can be read; nothing of what is no 64-bit little-endian ELF file.
    pub(super) fn read(source: &ObjectSource) -> Layout {
        Self::parse(source).unwrap_or_default()
    }

    fn parse(source: &ObjectSource) -> Option<Layout> {
        let mut layout = Layout::default();
        let head = read(source, 0, size_of::<FileHeader64<LE>>() as u64)?;
        let (head, _) = pod::from_bytes::<FileHeader64<LE>>(&head).ok()?;
        let ident = &head.e_ident;
        if ident.magic != elf::ELFMAG
            || (ident.class, ident.data) != (elf::ELFCLASS64, elf::ELFDATA2LSB)
        {
            return None;
        }

        let bytes =
            table::<ProgramHeader64<LE>>(source, head.e_phoff.get(LE), head.e_phnum.get(LE))?;
        for segment in slice::<ProgramHeader64<LE>>(&bytes)? {
            let (offset, size) = (segment.p_offset.get(LE), segment.p_filesz.get(LE));
            let address = segment.p_vaddr.get(LE);
            match segment.p_type.get(LE) {
                elf::PT_LOAD => layout
                    .segments
                    .push((offset..offset.checked_add(size)?, address)),
                elf::PT_GNU_EH_FRAME => {
                    layout.starts = read(source, offset, size)
                        .and_then(|b| starts(&b, address))
                        .unwrap_or_default();
                }
                _ => {}
            }
        }
        if let Some(bytes) = section_headers(source, head) {
            let headers = slice::<SectionHeader64<LE>>(&bytes)?;
            layout.sections = sections(source, head, headers).unwrap_or_default();
            layout.is_sound =
                decompressed(source, headers).is_some_and(|size| size <= MAX_DECOMPRESSED);
        }
        Some(layout)
    }

    /// Whether readers that believe the file's sizes may be let near it: it is a 64-bit ELF file,
    /// and what it claims to decompress to can be allocated.
    pub(super) fn is_sound(&self) -> bool {
        self.is_sound
    }

    /// The address of a file offset.
    pub(super) fn address(&self, offset: u64) -> Option<u64> {
        let (range, address) = self
            .segments
            .iter()
            .find(|(range, _)| range.contains(&offset))?;
        address.checked_add(offset - range.start)
    }

    /// Whether two addresses lie in the same executable section; yes where the file has none.
    pub(super) fn share_section(&self, one: u64, other: u64) -> bool {
        let mut sections = self.sections.iter().map(|(range, _)| range);
        self.sections.is_empty()
            || sections.any(|range| range.contains(&one) && range.contains(&other))
    }

    /// Whether an address lies in a procedure linkage table.
    pub(super) fn is_linkage(&self, address: u64) -> bool {
        self.sections
            .iter()
            .any(|(range, linkage)| *linkage && range.contains(&address))
    }

    /// The start of the function around an address, as far as unwind data tells.
    pub(super) fn start(&self, address: u64) -> Option<u64> {
        let after = self.starts.partition_point(|&start| start <= address);
        let start = *self.starts.get(after.checked_sub(1)?)?;
        // The table has starts only: what lies between two sections belongs to neither.
        self.share_section(start, address).then_some(start)
    }
}

fn section_headers(source: &ObjectSource, head: &FileHeader64<LE>) -> Option<Vec<u8>> {
    // No number: there are none, or more than 65,279 (then section 0 has it), which no program has.
    let count = head.e_shnum.get(LE);
    let none = count == 0 && head.e_shoff.get(LE) != 0;
    if none {
        None
    } else {
        table::<SectionHeader64<LE>>(source, head.e_shoff.get(LE), count)
    }
}

/// What the compressed sections of a file say to have when decompressed, in bytes; nothing if that
/// cannot be.
fn decompressed(source: &ObjectSource, headers: &[SectionHeader64<LE>]) -> Option<u64> {
    let compressed = headers
        .iter()
        .filter(|header| header.sh_flags.get(LE).contains(elf::SHF_COMPRESSED));
    compressed
        .map(|header| {
            let head = read(
                source,
                header.sh_offset.get(LE),
                size_of::<CompressionHeader64<LE>>() as u64,
            )?;
            let (head, _) = pod::from_bytes::<CompressionHeader64<LE>>(&head).ok()?;
            let size = head.ch_size.get(LE);
            (size / MAX_RATIO <= header.sh_size.get(LE)).then_some(size)
        })
        .try_fold(0u64, |sum, size| sum.checked_add(size?))
}

fn sections(
    source: &ObjectSource,
    head: &FileHeader64<LE>,
    headers: &[SectionHeader64<LE>],
) -> Option<Vec<(Range<u64>, bool)>> {
    let names = headers.get(usize::from(head.e_shstrndx.get(LE).0))?;
    let names = read(source, names.sh_offset.get(LE), names.sh_size.get(LE))?;
    let executable = headers
        .iter()
        .filter(|header| header.sh_flags.get(LE).contains(elf::SHF_EXECINSTR));
    executable
        .map(|header| {
            let address = header.sh_addr.get(LE);
            let name = names
                .get(header.sh_name.get(LE) as usize..)
                .unwrap_or_default();
            Some((
                address..address.checked_add(header.sh_size.get(LE))?,
                name.starts_with(b".plt"),
            ))
        })
        .collect()
}

/// The function starts of a `.eh_frame_hdr` at `address`.
fn starts(bytes: &[u8], address: u64) -> Option<Vec<u64>> {
    // Version and encodings, the address of .eh_frame, the number of entries, the entries:
    // function start and its description, both relative to `address`.
    let (header, entries) = bytes.split_at_checked(12)?;
    let count = u32::from_le_bytes(header.get(8..)?.try_into().ok()?);
    if header.get(..4)? != HEADER {
        return None;
    }
    let (entries, _) = entries.as_chunks::<8>();
    let entries = entries.iter().take(usize::try_from(count).ok()?);
    let start = |entry: &[u8; 8]| {
        let [a, b, c, d, ..] = *entry;
        address.wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into())
    };
    let mut starts: Vec<u64> = entries.map(start).collect();
    starts.sort_unstable();
    Some(starts)
}

fn table<T: Pod>(source: &ObjectSource, offset: u64, count: u16) -> Option<Vec<u8>> {
    read(source, offset, u64::from(count) * size_of::<T>() as u64)
}

fn slice<T: Pod>(bytes: &[u8]) -> Option<&[T]> {
    Some(
        pod::slice_from_bytes(bytes, bytes.len() / size_of::<T>())
            .ok()?
            .0,
    )
}

fn read(source: &ObjectSource, offset: u64, size: u64) -> Option<Vec<u8>> {
    match source {
        ObjectSource::File(file) => {
            let length = file.metadata().ok()?.len();
            if size > MAX_READ || offset.checked_add(size)? > length {
                return None;
            }
            let mut bytes = vec![0; size as usize];
            file.read_exact_at(&mut bytes, offset).ok()?;
            Some(bytes)
        }
        ObjectSource::Vdso(image) => {
            let start = usize::try_from(offset).ok()?;
            let end = start.checked_add(usize::try_from(size).ok()?)?;
            image.get(start..end).map(<[u8]>::to_vec)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_starts_are_read_and_sorted() {
        let mut bytes = Vec::from(HEADER);
        bytes.extend([0; 4]);
        bytes.extend(3u32.to_le_bytes());
        for start in [0x20i32, -0x10, 0x40, 0x60] {
            bytes.extend(start.to_le_bytes());
            bytes.extend([0; 4]);
        }
        assert_eq!(
            starts(&bytes, 0x1000).unwrap(),
            [0xff0, 0x1020, 0x1040],
            "three were promised"
        );
        for length in 0..bytes.len() {
            // Cut anywhere: fewer starts, or none.
            assert!(starts(&bytes[..length], 0x1000).is_none_or(|starts| starts.len() <= 3));
        }
        bytes[3] = 0xff;
        assert!(starts(&bytes, 0x1000).is_none());
    }

    #[test]
    fn a_function_does_not_reach_into_another_section() {
        let layout = Layout {
            segments: vec![(0x100..0x200, 0x1100)],
            sections: vec![(0x1100..0x1140, true), (0x1140..0x1200, false)],
            starts: vec![0x1100, 0x1150],
            is_sound: true,
        };
        assert_eq!(layout.address(0x1ff), Some(0x11ff));
        assert_eq!(layout.address(0x200), None);
        assert_eq!(layout.start(0x1145), None, "0x1100 is in the linkage table");
        assert_eq!(layout.start(0x1160), Some(0x1150));
        assert_eq!(layout.start(0x10), None);
        assert!(layout.is_linkage(0x1139) && !layout.is_linkage(0x1140));
    }

    #[test]
    fn this_program_has_function_starts() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let layout = Layout::read(&ObjectSource::File(file.into()));
        assert!(layout.starts.len() > 100 && !layout.sections.is_empty());
        assert!(
            layout
                .starts
                .iter()
                .all(|&start| layout.share_section(start, start))
        );
    }

    #[test]
    fn a_damaged_file_is_no_danger() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let mut head = whole[..4096].to_vec();
        for position in 0..64 {
            for value in [0, 1, 0x7f, 0xff] {
                let before = std::mem::replace(&mut head[position], value);
                let layout = Layout::read(&ObjectSource::Vdso(head.clone().into()));
                let _ = (layout.address(u64::MAX), layout.start(u64::MAX));
                head[position] = before;
            }
        }
    }
}
