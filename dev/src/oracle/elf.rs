//! The sections of ELF files that the oracles are about.

use object::Endianness;
use object::elf;
use object::read::elf::{FileHeader, SectionHeader};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A section's bytes and its address.
pub(crate) struct Bytes<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) address: u64,
}

/// The unwind sections of a linked ELF64 file of AMD64.
#[derive(Default)]
pub(crate) struct Sections<'a> {
    pub(crate) eh_frame: Option<Bytes<'a>>,
    pub(crate) eh_frame_hdr: u64,
    pub(crate) sframe: Option<Bytes<'a>>,
}

/// Whether a file begins as a linked little-endian ELF64 file of AMD64 does.
pub(crate) fn is_linked_amd64(path: &Path) -> io::Result<bool> {
    let mut head = [0u8; 20];
    let mut file = fs::File::open(path)?;
    match file.read_exact(&mut head) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(e) => return Err(e),
    }
    let word = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let elf64 = head.starts_with(&[
        0x7f,
        b'E',
        b'L',
        b'F',
        elf::ELFCLASS64.0,
        elf::ELFDATA2LSB.0,
    ]);
    Ok(
        elf64
            && [elf::ET_EXEC.0, elf::ET_DYN.0].contains(&word(16))
            && word(18) == elf::EM_X86_64.0,
    )
}

/// Finds the unwind sections.
pub(crate) fn sections(data: &[u8]) -> object::Result<Sections<'_>> {
    let header = elf::FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let table = header.sections(endian, data)?;
    let mut found = Sections::default();
    for section in table.iter() {
        let bytes = || -> object::Result<Option<Bytes<'_>>> {
            if section.sh_type(endian) == elf::SHT_NOBITS {
                return Ok(None);
            }
            let bytes = section.data(endian, data)?;
            Ok(Some(Bytes {
                bytes,
                address: section.sh_addr(endian),
            }))
        };
        match table.section_name(endian, section)? {
            b".eh_frame" => found.eh_frame = bytes()?,
            b".eh_frame_hdr" => found.eh_frame_hdr = section.sh_size(endian),
            b".sframe" => found.sframe = bytes()?,
            _ => {}
        }
    }
    Ok(found)
}

/// All files below the paths, symbolic links left out.
pub(crate) fn files(paths: &[&str]) -> Vec<PathBuf> {
    let mut pending: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    let mut files = Vec::new();
    while let Some(path) = pending.pop() {
        let Ok(kind) = fs::symlink_metadata(&path).map(|m| m.file_type()) else {
            eprintln!("{}: cannot be looked at, passed over", path.display());
            continue;
        };
        if kind.is_dir() {
            match fs::read_dir(&path) {
                Ok(entries) => pending.extend(entries.flatten().map(|entry| entry.path())),
                Err(e) => eprintln!("{}: {e}, passed over", path.display()),
            }
        } else if kind.is_file() {
            files.push(path);
        }
    }
    files.sort();
    files
}
