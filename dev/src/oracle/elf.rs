//! The sections of ELF files that the oracles are about.

use framewalk_sframe::Arch;
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

/// The unwind sections of a linked ELF64 file.
#[derive(Default)]
pub(crate) struct Sections<'a> {
    pub(crate) eh_frame: Option<Bytes<'a>>,
    pub(crate) eh_frame_hdr: u64,
    pub(crate) sframe: Option<Bytes<'a>>,
}

/// The machine of a linked ELF64 file, by how it begins; none if it is anything else.
pub(crate) fn linked_for(path: &Path) -> io::Result<Option<Arch>> {
    let mut head = [0u8; 20];
    let mut file = fs::File::open(path)?;
    match file.read_exact(&mut head) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let [0x7f, b'E', b'L', b'F', class, data, ..] = head else {
        return Ok(None);
    };
    let big_endian = data == elf::ELFDATA2MSB.0;
    let word = |at: usize| match big_endian {
        true => u16::from_be_bytes([head[at], head[at + 1]]),
        false => u16::from_le_bytes([head[at], head[at + 1]]),
    };
    if class != elf::ELFCLASS64.0 || ![elf::ET_EXEC.0, elf::ET_DYN.0].contains(&word(16)) {
        return Ok(None);
    }
    let machine = elf::Machine(word(18));
    Ok(match (machine, big_endian) {
        (elf::EM_X86_64, false) => Some(Arch::Amd64),
        (elf::EM_AARCH64, false) => Some(Arch::Aarch64),
        (elf::EM_AARCH64, true) => Some(Arch::Aarch64Be),
        (elf::EM_S390, true) => Some(Arch::S390x),
        _ => None,
    })
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
