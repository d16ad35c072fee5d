//! Holes: code between two functions of a table, which neither describes.
//!
//! Small ones are linkage stubs and assembly. In large ones a walk may try the frame pointer, because some are the
//! output of compilers that keep one and write no unwind data (node's builtins). Others are assembly (codecs,
//! cryptography), where the frame pointer register is as good as random: these are closed by a function
//! without any row for its bytes. The two are told apart by how often the usual prologue occurs. In 2,470 files of a
//! Debian system with 25 holes above 64 kB it did 76 times in 64 kB and more where code keeps frame pointers, and 1.1 times
//! at most where it does not.

use crate::processes::ObjectSource;
use crate::processes::image::Segment;
use framewalk_sframe::{FunctionRows, Section};
use framewalk_walk::MIN_HOLE;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// `push rbp; mov rbp, rsp`, in both encodings.
const PROLOGUES: [[u8; 4]; 2] = [[0x55, 0x48, 0x89, 0xe5], [0x55, 0x48, 0x8b, 0xec]];
/// Code that keeps frame pointers has a prologue in so many bytes, on the average.
const BYTES_PER_PROLOGUE: u64 = 4096;
/// Bytes of a hole that are looked at, at most.
const MAX_SCAN: u64 = 64 << 20;
/// Bytes of all holes of an object.
const MAX_SCANS: u64 = 1 << 30;
const PIECE: usize = 256 << 10;

/// Whether a file offset lies in a large hole of this section. Its functions are sorted and disjoint.
pub(super) fn is_in_large(section: &[u8], offset: u64) -> bool {
    let find = || -> Option<bool> {
        let section = Section::parse(section, 0).ok()?;
        let (mut low, mut high) = (0, section.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if section.function(middle).ok()?.start <= offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let end = section.function(low.checked_sub(1)?).ok()?.end();
        let next = section.function(low).ok()?.start;
        Some(end <= offset && next.checked_sub(end)? >= MIN_HOLE)
    };
    find().unwrap_or(false)
}

/// The large holes between functions, which are sorted and disjoint.
pub(super) fn large(functions: &[FunctionRows]) -> Vec<Range<u64>> {
    functions
        .windows(2)
        .filter_map(|pair| Some(pair[0].end()?..pair[1].start))
        .filter(|hole| hole.end.saturating_sub(hole.start) >= MIN_HOLE)
        .collect()
}

/// The functions that close a hole: none of their bytes has a row. The format can say that only of signal frames.
pub(super) fn closed(hole: &Range<u64>) -> impl Iterator<Item = FunctionRows> + use<> {
    let end = hole.end;
    let starts = std::iter::successors(Some(hole.start), move |&start| {
        start
            .checked_add(u32::MAX.into())
            .filter(|&next| next < end)
    });
    starts.map(move |start| FunctionRows {
        signal: true,
        ..FunctionRows::new(
            start,
            u32::try_from(end - start).unwrap_or(u32::MAX),
            Vec::new(),
        )
    })
}

/// Looks at the code in the holes of one object.
pub(in crate::processes) struct Scan<'a> {
    source: &'a ObjectSource,
    segments: &'a [Segment],
    /// Bytes that may still be looked at: a file may be sparse, and its holes many.
    left: u64,
}

impl<'a> Scan<'a> {
    pub(in crate::processes) fn new(source: &'a ObjectSource, segments: &'a [Segment]) -> Self {
        Scan {
            source,
            segments,
            left: MAX_SCANS,
        }
    }

    /// Whether the code in a hole keeps frame pointers, as far as its bytes tell.
    pub(in crate::processes) fn keeps_frame_pointers(&mut self, hole: &Range<u64>) -> bool {
        let (mut bytes, mut prologues) = (0, 0);
        for segment in self.segments {
            let length = segment.addresses.end - segment.addresses.start;
            let start = hole.start.max(segment.offset);
            let end = hole.end.min(segment.offset.saturating_add(length));
            let end = end.min(start.saturating_add(MAX_SCAN.min(self.left)));
            if start < end {
                self.left -= end - start;
                bytes += end - start;
                prologues += count(self.source, start..end).unwrap_or(0);
            }
        }
        bytes >= MIN_HOLE && prologues >= bytes / BYTES_PER_PROLOGUE
    }
}

fn count(source: &ObjectSource, range: Range<u64>) -> io::Result<u64> {
    let mut piece = vec![0; PIECE];
    let (mut prologues, mut at) = (0, range.start);
    // Pieces overlap by what a prologue could lack.
    while range.end - at > 3 {
        let length = (range.end - at).min(PIECE as u64) as usize;
        match source {
            ObjectSource::File(file) => file.read_exact_at(&mut piece[..length], at)?,
            ObjectSource::Vdso(bytes) => {
                let bytes = usize::try_from(at)
                    .ok()
                    .and_then(|at| bytes.get(at..)?.get(..length));
                piece[..length].copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            }
        }
        let found = piece[..length].windows(4);
        prologues += found
            .filter(|four| PROLOGUES.iter().any(|p| p == four))
            .count() as u64;
        at += length as u64 - 3;
    }
    Ok(prologues)
}

#[cfg(test)]
mod tests {
    use super::*;
    use framewalk_sframe::{Arch, Builder, Row, Unwind};
    use std::sync::Arc;

    fn function(start: u64, size: u32) -> FunctionRows {
        let row = Row {
            start: 0,
            unwind: Unwind::Outermost,
        };
        FunctionRows::new(start, size, vec![row])
    }

    fn section(functions: Vec<FunctionRows>) -> Vec<u8> {
        let mut builder = Builder::new(Arch::Amd64);
        builder.extend(functions);
        builder.finish(0).unwrap()
    }

    #[test]
    fn a_hole_is_large_from_64_kb_between_two_functions() {
        let end = 0x1100;
        let functions = vec![
            function(0x1000, 0x100),
            function(end + MIN_HOLE, 0x100),
            function(end + 2 * MIN_HOLE + 0xff, 0x100),
        ];
        let hole = end..end + MIN_HOLE;
        assert_eq!(large(&functions), std::slice::from_ref(&hole));
        let section = section(functions);
        for (offset, expected) in [
            (0, false),
            (0x10ff, false),
            (end, true),
            (end + MIN_HOLE - 1, true),
            (end + MIN_HOLE, false),
            (end + MIN_HOLE + 0x100, false),
            (u64::MAX, false),
        ] {
            assert_eq!(is_in_large(&section, offset), expected, "{offset:#x}");
        }
        assert!(!is_in_large(&[], 0));
    }

    #[test]
    fn a_closed_hole_is_none_and_has_no_row() {
        let hole = 0x1100..0x1100 + u64::from(u32::MAX) + 0x20000;
        let mut functions = vec![function(0x1000, 0x100)];
        functions.extend(closed(&hole));
        functions.push(function(hole.end, 0x100));
        assert_eq!((functions.len(), large(&functions)), (4, vec![]));
        let bytes = section(functions);
        assert_eq!(framewalk_sframe::check(&bytes, 0).findings(), []);
        let section = Section::parse(&bytes, 0).unwrap();
        for offset in [hole.start, hole.start + 0x8000_0000, hole.end - 1] {
            assert!(section.lookup(offset).unwrap().is_none());
            assert!(!is_in_large(&bytes, offset));
        }
        assert!(section.lookup(hole.end).unwrap().is_some());
    }

    #[test]
    fn prologues_tell_code_from_assembly() {
        let (hole, segments) = (
            0x1000..0x1000 + 2 * MIN_HOLE,
            [Segment {
                addresses: 0x40_1000..0x40_1000 + 4 * MIN_HOLE,
                offset: 0x1000,
            }],
        );
        let code = |every: usize, prologue: [u8; 4]| {
            let mut bytes = vec![0x90; 0x1000 + 4 * MIN_HOLE as usize];
            for at in (0x1000..bytes.len() - 4).step_by(every) {
                bytes[at..at + 4].copy_from_slice(&prologue);
            }
            ObjectSource::Vdso(Arc::from(bytes))
        };
        let keeps = |source: &ObjectSource, hole: &Range<u64>| {
            Scan::new(source, &segments).keeps_frame_pointers(hole)
        };
        for prologue in PROLOGUES {
            assert!(keeps(&code(1000, prologue), &hole));
            assert!(!keeps(&code(10_000, prologue), &hole));
        }
        let dense = code(100, PROLOGUES[0]);
        let elsewhere = 0..0x1000 + MIN_HOLE / 2;
        assert!(!keeps(&dense, &elsewhere), "too little of it is code");
        let beyond = 0x1000..u64::MAX;
        assert!(keeps(&dense, &beyond));
    }

    #[test]
    fn what_is_looked_at_in_one_object_is_bounded() {
        let segments = [Segment {
            addresses: 0..u64::MAX,
            offset: 0,
        }];
        let bytes = PROLOGUES[0].repeat(2 * MIN_HOLE as usize / 4);
        let source = ObjectSource::Vdso(Arc::from(bytes));
        let mut scan = Scan::new(&source, &segments);
        let hole = 0..MIN_HOLE;
        scan.left = 2 * MIN_HOLE - 1;
        assert!(scan.keeps_frame_pointers(&hole));
        assert!(!scan.keeps_frame_pointers(&hole));
        assert!(scan.left < MIN_HOLE);
    }
}
