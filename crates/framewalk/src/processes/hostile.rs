//! What has to hold for whatever bytes are alleged to be an object, or what /proc says. Tests and fuzz targets ask the
//! same.

use super::image::{self, Bounded, Image, MAX_BUILD_ID};
use super::maps::{self, plain_path};
use super::{ObjectSource, ROWS_PER_FUNCTION, Table, task};
use framewalk_sframe::{Pc, Section, check};
use framewalk_walk::{Says, Stop};
use object::ReadCache;
use std::io::{Cursor, Read};

/// Places asked about per object: the work of an input stays bounded.
const MOST_PLACES: usize = 1 << 10;

/// An object's bytes: the table is sound, small to search, about executable bytes of the file alone, and says what it
/// was made of.
pub(crate) fn object(bytes: &[u8]) {
    let source = ObjectSource::Vdso(bytes.into());
    let id = image::build_id(&source);
    assert!(id.is_none_or(|id| (1..=MAX_BUILD_ID).contains(&id.len())));
    let image = Image::read(&source);
    // A file is read in pieces, the vdso from memory: that is no difference.
    let in_pieces = ReadCache::new(Cursor::new(bytes));
    assert_eq!(Image::parse(Bounded(&in_pieces)), image);

    let table = Table::build(&source);
    let text = table.text();
    assert_eq!(text.is_some(), table.lack.is_none());
    let Some(text) = text else {
        assert!(table.section.is_empty() && table.functions == 0);
        let says = table.find(0);
        assert!(matches!(says, Says::Undescribed | Says::Stop(_)));
        return;
    };
    let report = check(&table.section, 0);
    assert!(report.is_sound(), "{report}: {:?}", report.findings());
    let section = Section::parse(&table.section, 0).unwrap();
    let segments = image.unwrap().segments;
    let in_code = |pc: u64| {
        let holds = |s: &image::Segment| {
            pc >= s.offset && pc - s.offset < s.addresses.end - s.addresses.start
        };
        segments.iter().any(holds)
    };
    let mut places = vec![0, u64::MAX, text.start, text.end];
    let mut end = 0;
    for function in section.functions().map(Result::unwrap) {
        assert!(function.start >= end && function.size > 0);
        end = function.end();
        assert!(function.row_count as usize <= ROWS_PER_FUNCTION || function.pc != Pc::Inc);
        // A trampoline has one byte more than it says, and large holes are closed by what has no row.
        assert!(in_code(function.start) || function.row_count == 0);
        places.extend([function.start.wrapping_sub(1), function.start, end - 1, end]);
    }
    assert_eq!(
        (section.function(0).unwrap().start, end),
        (text.start, text.end)
    );
    for pc in places.into_iter().take(MOST_PLACES) {
        let says = table.find(pc);
        assert_ne!(says, Says::Stop(Stop::BadRow), "at {pc:#x}");
        match section.lookup(pc).unwrap() {
            Some(found) => assert!(matches!(says, Says::Row { unwind, signal, origin }
                    if unwind == found.row.unwind && signal == found.function.signal && origin == table.origin)),
            None => assert!(matches!(says, Says::Undescribed | Says::Stop(Stop::NoRow))),
        }
    }
}

/// The text of a process's mappings, in whatever pieces it comes.
pub(crate) fn mappings(text: &[u8], piece: usize) {
    type Told = (u64, u64, bool, u64, u64, Vec<u8>);
    let read = |text: &mut dyn Read| {
        let mut lines: Vec<Told> = Vec::new();
        let end = maps::parse(text, |line| {
            assert!(line.start < line.end);
            let plain = plain_path(line.path);
            assert!(plain.len() <= line.path.len() && !line.path.contains(&b'\n'));
            let maps::Line {
                start,
                end,
                executable,
                offset,
                inode,
                ..
            } = line;
            lines.push((start, end, executable, offset, inode, plain));
        });
        (lines, end.map_err(|error| error.kind()))
    };
    let (lines, end) = read(&mut &*text);
    let newlines = text.iter().filter(|&&byte| byte == b'\n').count();
    assert!(lines.len() <= newlines);
    if end.is_ok() {
        assert!(lines.len() == newlines && text.last().is_none_or(|&last| last == b'\n'));
    }
    let mut pieces = Pieces(text, piece.max(1));
    assert_eq!(read(&mut pieces), (lines, end));
}

/// The text of a thread's state: a name may hold anything.
pub(crate) fn stat(text: &[u8]) {
    let Some(stat) = task::parse_stat(text) else {
        return;
    };
    let name = stat.comm.into_bytes();
    // Bytes that are no text become longer ones.
    assert!(name.len() <= 3 * text.len());
    let state = if stat.running { 'R' } else { 'S' };
    let again = [
        b"1 (",
        &*name,
        format!(") {state} {} 0", stat.parent).as_bytes(),
    ]
    .concat();
    let again = task::parse_stat(&again).unwrap();
    assert_eq!(
        (again.comm.as_bytes(), again.running, again.parent),
        (&*name, stat.running, stat.parent)
    );
}

/// Gives a few bytes at a time.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let most = into.len().min(self.1);
        self.0.read(&mut into[..most])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framewalk_sframe::{Arch, Builder, FunctionRows, Row, Unwind};

    /// Between two functions that are said to be 2^62 bytes apart there is no hole to be closed, 4 GiB by 4 GiB.
    #[test]
    fn functions_are_not_told_to_be_further_apart_than_files_are_long() {
        let mut builder = Builder::new(Arch::Amd64);
        for start in [0x1000, 0x2000] {
            let unwind = Unwind::Outermost;
            let row = Row { start: 0, unwind };
            builder.push(FunctionRows::new(start, 0x100, vec![row]));
        }
        let bytes = builder.finish(0x40_0000).unwrap();
        let table = |offset| {
            let segment = |start, offset| image::Segment {
                addresses: start..start + 0x1000,
                offset,
            };
            let image = Image {
                entry: 0,
                segments: vec![segment(0x1000, 0x1000), segment(0x2000, offset)],
                sframe: Some(image::Bytes {
                    address: 0x40_0000,
                    bytes: bytes.clone(),
                }),
                eh_frame: None,
            };
            Table::from_image(&Ok(image), &mut |_| false)
        };
        let far = table(1 << 62);
        assert_eq!((far.functions, far.holes.len()), (1, 0));
        assert_eq!(far.notes, ["1 functions outside of executable segments"]);
        assert_eq!(table(0x2000).functions, 2);
        // The furthest: 256 GiB are closed by 64 functions of 4 GiB.
        assert!(table((1 << 38) - 0x1000).functions <= 2 + 65);
        assert_eq!(table((1 << 38) - 0xff).functions, 1);
    }

    #[test]
    fn this_program_cut_anywhere() {
        let whole = std::fs::read("/proc/self/maps").unwrap();
        for end in 0..whole.len().min(600) {
            mappings(&whole[..end], end % 7);
        }
        let text = b"12 (a) b) R 5 12 12 0";
        for end in 0..=text.len() {
            stat(&text[..end]);
        }
    }
}
