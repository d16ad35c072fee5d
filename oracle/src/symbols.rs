//! What ELF files say of their functions: names for phases and tables.

use framewalk::processes::ObjectSource;
use object::elf::PT_LOAD;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Object, ObjectSymbol, SymbolKind};
use std::collections::BTreeMap;
use std::io::Read;

/// The bytes of an object.
pub fn bytes(source: &ObjectSource) -> Vec<u8> {
    match source {
        ObjectSource::Vdso(image) => image.to_vec(),
        ObjectSource::File(file) => {
            let mut bytes = Vec::new();
            // By name, so that the position of the shared descriptor stays where it is.
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&**file));
            let read = std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
            read.map_or_else(|_| Vec::new(), |_| bytes)
        }
    }
}

/// The functions of an object: file offset, size, name.
#[derive(Debug, Default)]
pub struct Symbols {
    functions: BTreeMap<u64, (u64, String)>,
    aliases: Vec<(String, u64)>,
}

impl Symbols {
    /// Those of a file of these bytes; none if it is no ELF file.
    pub fn of(bytes: &[u8]) -> Symbols {
        let mut symbols = Symbols::default();
        let Ok(file) = object::File::parse(bytes) else {
            return symbols;
        };
        let segments = segments(bytes);
        for symbol in file.symbols().chain(file.dynamic_symbols()) {
            let (SymbolKind::Text, true, Ok(name)) =
                (symbol.kind(), symbol.is_definition(), symbol.name())
            else {
                continue;
            };
            let Some(offset) = offset(&segments, symbol.address()) else {
                continue;
            };
            symbols.aliases.push((name.to_string(), offset));
            let entry = (symbol.size(), name.to_string());
            symbols.functions.entry(offset).or_insert(entry);
        }
        symbols
    }

    /// The places of a name.
    pub fn places(&self, name: &str) -> impl Iterator<Item = u64> {
        let named = self.aliases.iter().filter(move |(n, _)| n == name);
        named.map(|(_, offset)| *offset)
    }

    /// The function that holds a file offset.
    pub fn name(&self, offset: u64) -> Option<&str> {
        let (start, (size, name)) = self.functions.range(..=offset).next_back()?;
        (offset - start < *size).then_some(name)
    }
}

/// (file offset, address, size) of what is loaded.
pub type Segments = Vec<(u64, u64, u64)>;

/// The loaded segments of a 64-bit little-endian file.
pub fn segments(bytes: &[u8]) -> Segments {
    let Ok(header) = object::elf::FileHeader64::<object::Endianness>::parse(bytes) else {
        return Vec::new();
    };
    let Ok(endian) = header.endian() else {
        return Vec::new();
    };
    let headers = header.program_headers(endian, bytes).unwrap_or(&[]);
    let loaded = headers.iter().filter(|h| h.p_type(endian) == PT_LOAD);
    let segment = |h: &object::elf::ProgramHeader64<object::Endianness>| {
        (h.p_offset(endian), h.p_vaddr(endian), h.p_filesz(endian))
    };
    loaded.map(segment).collect()
}

/// The file offset of an address.
pub fn offset(segments: &Segments, address: u64) -> Option<u64> {
    let find = |(offset, start, size): &(u64, u64, u64)| {
        let at = address.checked_sub(*start).filter(|at| at < size)?;
        offset.checked_add(at)
    };
    segments.iter().find_map(find)
}

/// The address of a file offset.
pub fn address(segments: &Segments, place: u64) -> Option<u64> {
    let find = |(offset, start, size): &(u64, u64, u64)| {
        let at = place.checked_sub(*offset).filter(|at| at < size)?;
        start.checked_add(at)
    };
    segments.iter().find_map(find)
}
