//! What a table needs of an ELF file, read without mapping it: a file that is cut short or replaced
//! while it is read gives an error, never a SIGBUS.
//!
//! Every size in the file is an allegation: nothing larger than [`MAX_READ`] is read at once, only
//! headers, notes and unwind sections are read at all.

use super::ObjectSource;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{LittleEndian, ReadCache, ReadRef};
use std::fmt;
use std::fs::File;
use std::hash::Hash;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// The largest piece that is read at once. The largest `.eh_frame` known are some tens of MiB.
const MAX_READ: u64 = 1 << 28;
/// Program and section headers, at most.
const MAX_HEADERS: usize = 1 << 16;
/// Executable segments, at most: linkers make one or two.
const MAX_CODE: usize = 64;
/// Notes of all segments, at most.
const MAX_NOTES: usize = 64;
/// The longest build id: SHA-512 would fit.
pub(super) const MAX_BUILD_ID: usize = 64;

/// Why there is no unwind data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lack {
    /// The file cannot be read any more.
    Unreadable(io::ErrorKind),
    /// No ELF file.
    NotElf,
    /// Code of another class, byte order or machine: ELF class and `e_machine`.
    Foreign(u8, u16),
    /// An ELF file whose headers lie.
    Malformed(&'static str),
    /// Neither `.sframe` nor `.eh_frame`.
    NoData,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Unreadable(kind) => write!(f, "cannot be read: {kind}"),
            Lack::NotElf => f.write_str("no ELF file"),
            Lack::Foreign(1, machine) => write!(f, "32-bit code (ELF machine {machine})"),
            Lack::Foreign(_, machine) => {
                write!(f, "code of another machine (ELF machine {machine})")
            }
            Lack::Malformed(what) => write!(f, "malformed: {what}"),
            Lack::NoData => f.write_str("no unwind data"),
        }
    }
}

/// A section's bytes and the address of the first (ELF virtual address space).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Bytes {
    pub(super) address: u64,
    pub(super) bytes: Vec<u8>,
}

/// An executable segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Segment {
    /// Where it is linked to (ELF virtual address space), as far as the file is said to reach.
    pub(super) addresses: Range<u64>,
    /// File offset of the first byte.
    pub(super) offset: u64,
}

/// What a table is built from: two files with equal images have equal tables.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Image {
    pub(super) entry: u64,
    pub(super) segments: Vec<Segment>,
    pub(super) sframe: Option<Bytes>,
    pub(super) eh_frame: Option<Bytes>,
}

impl Image {
    /// Reads an object's headers and unwind sections.
    pub(super) fn read(source: &ObjectSource) -> Result<Image, Lack> {
        match source {
            ObjectSource::Vdso(bytes) => Image::parse(&**bytes),
            ObjectSource::File(file) => {
                let length = file
                    .metadata()
                    .map_err(|error| Lack::Unreadable(error.kind()))?
                    .len();
                Image::parse(Bounded(&ReadCache::new(At {
                    file,
                    position: 0,
                    length,
                })))
            }
        }
    }

    pub(super) fn parse<'a>(data: impl ReadRef<'a>) -> Result<Image, Lack> {
        let header = header(data)?;
        let segments = segments(header, data)?
            .iter()
            .filter(|s| {
                s.p_type(LittleEndian) == elf::PT_LOAD
                    && s.p_flags(LittleEndian).contains(elf::PF_X)
            })
            .map(|s| {
                let (address, size) = (s.p_vaddr(LittleEndian), s.p_filesz(LittleEndian));
                let end = address.checked_add(size)?;
                let offset = s.p_offset(LittleEndian);
                offset.checked_add(size)?;
                Some(Segment {
                    addresses: address..end,
                    offset,
                })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or(Lack::Malformed("a segment wraps around"))?;
        if segments.len() > MAX_CODE {
            return Err(Lack::Malformed("too many executable segments"));
        }
        let sections = header
            .section_headers(LittleEndian, data)
            .map_err(|_| Lack::Malformed("section headers"))?;
        if sections.len() > MAX_HEADERS {
            return Err(Lack::Malformed("too many sections"));
        }
        let names = header
            .section_strings(LittleEndian, data, sections)
            .map_err(|_| Lack::Malformed("section names"))?;
        let find = |name: &[u8]| -> Result<Option<Bytes>, Lack> {
            let mut of_name = sections.iter().filter(|section| {
                section.sh_flags(LittleEndian).contains(elf::SHF_ALLOC)
                    && section.sh_type(LittleEndian) != elf::SHT_NOBITS
                    && section.name(LittleEndian, names) == Ok(name)
            });
            let Some(section) = of_name.next() else {
                return Ok(None);
            };
            let bytes = section
                .data(LittleEndian, data)
                .map_err(|_| Lack::Malformed("an unwind section"))?;
            Ok(Some(Bytes {
                address: section.sh_addr(LittleEndian),
                bytes: bytes.to_vec(),
            }))
        };
        let (sframe, eh_frame) = (find(b".sframe")?, find(b".eh_frame")?);
        if sframe.is_none() && eh_frame.is_none() {
            return Err(Lack::NoData);
        }
        Ok(Image {
            entry: header.e_entry(LittleEndian),
            segments,
            sframe,
            eh_frame,
        })
    }
}

/// The GNU build id of an object, where it has one that can be read.
pub(super) fn build_id(source: &ObjectSource) -> Option<Vec<u8>> {
    match source {
        ObjectSource::Vdso(bytes) => read_build_id(&**bytes),
        ObjectSource::File(file) => {
            let length = file.metadata().ok()?.len();
            read_build_id(Bounded(&ReadCache::new(At {
                file,
                position: 0,
                length,
            })))
        }
    }
}

fn read_build_id<'a>(data: impl ReadRef<'a>) -> Option<Vec<u8>> {
    let header = header(data).ok()?;
    let mut left = MAX_NOTES;
    for segment in segments(header, data).ok()? {
        let Ok(Some(mut notes)) = segment.notes(LittleEndian, data) else {
            continue;
        };
        while let Ok(Some(note)) = notes.next() {
            left = left.checked_sub(1)?;
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(LittleEndian) == elf::NT_GNU_BUILD_ID
            {
                return (1..=MAX_BUILD_ID)
                    .contains(&note.desc().len())
                    .then(|| note.desc().to_vec());
            }
        }
    }
    None
}

/// The header, if the file is x86-64 ELF.
fn header<'a>(data: impl ReadRef<'a>) -> Result<&'a FileHeader64<LittleEndian>, Lack> {
    // Class, byte order and machine lie at the same places in all classes (gABI 4, figure 4-3).
    let ident = data.read_bytes_at(0, 20).map_err(|()| Lack::NotElf)?;
    let &[b'\x7f', b'E', b'L', b'F', class, order, .., low, high] = ident else {
        return Err(Lack::NotElf);
    };
    let machine = u16::from_le_bytes([low, high]);
    if (class, order, machine) != (elf::ELFCLASS64.0, elf::ELFDATA2LSB.0, elf::EM_X86_64.0) {
        return Err(Lack::Foreign(class, machine));
    }
    FileHeader64::parse(data).map_err(|_| Lack::Malformed("header"))
}

fn segments<'a>(
    header: &FileHeader64<LittleEndian>,
    data: impl ReadRef<'a>,
) -> Result<&'a [ProgramHeader64<LittleEndian>], Lack> {
    let segments = header
        .program_headers(LittleEndian, data)
        .map_err(|_| Lack::Malformed("program headers"))?;
    (segments.len() <= MAX_HEADERS)
        .then_some(segments)
        .ok_or(Lack::Malformed("too many segments"))
}

/// A file with a position of its own, so that threads may share the descriptor.
struct At<'a> {
    file: &'a File,
    position: u64,
    length: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for At<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// Refuses to read more than [`MAX_READ`] at once.
#[derive(Clone, Copy)]
pub(super) struct Bounded<R>(pub(super) R);

impl<'a, R: ReadRef<'a>> ReadRef<'a> for Bounded<R> {
    fn len(self) -> Result<u64, ()> {
        self.0.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        if size > MAX_READ {
            return Err(());
        }
        self.0.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        self.0.read_bytes_at_until(range, delimiter)
    }
}
