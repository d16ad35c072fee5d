//! What has to hold for whatever bytes are alleged to be a section. Property tests and fuzz targets ask the same.

pub(crate) mod bytes;
pub(crate) mod cfi;
pub(crate) mod machine;
pub(crate) mod made;
mod truth;

use arbitrary::{Result, Unstructured};
use framewalk_sframe::convert::{self, EhFrame};
use framewalk_sframe::spec::Flag;
use framewalk_sframe::{
    Arch, Builder, Error, Fault, FunctionRows, Pc, Place, Row, Section, WriteError, check,
};
use machine::State;

/// Places asked about per section: the work of an input stays bounded.
const MOST_PLACES: usize = 1 << 10;

/// Reads everything that can be read, the way walkers and table builders do. What the reader refuses is what the check
/// finds, and the other way round.
pub(crate) fn section(bytes: &[u8], address: u64) {
    let report = check(bytes, address);
    let section = match Section::parse(bytes, address) {
        Ok(section) => section,
        Err(error) => return assert_eq!(report.findings().first(), Some(&error)),
    };
    let findings = report.findings();
    let shared = |error: &Error| error.fault == Fault::RowsShared;
    let all = report.total() == findings.len() as u64 && !findings.iter().any(shared);
    let found = |error: Error| assert!(!all || findings.contains(&error), "{error}");
    let at = |place: Place| findings.iter().filter(move |error| error.place == place);
    for error in at(Place::Section) {
        assert!(
            matches!(error.fault, Fault::RowTotal(_) | Fault::Trailing(_)),
            "{error}"
        );
    }
    assert_eq!(section.is_empty(), section.functions().next().is_none());
    let mut functions = section.functions();
    for left in [section.len(), section.len().saturating_sub(1)] {
        assert_eq!(functions.len(), left as usize);
        functions.next();
    }
    // The work is bounded by the row area per function, which the mutations keep small.
    for (index, function) in (0..).zip(section.functions()) {
        let function = match function {
            Ok(function) => function,
            Err(error) => {
                found(error);
                continue;
            }
        };
        for error in at(Place::Function(index)) {
            // What is about several functions, or about addresses.
            use Fault::{Block, Empties, EndWraps, NotSorted, Overlap, RowsShared};
            assert!(
                matches!(
                    error.fault,
                    NotSorted | Overlap | Empties | EndWraps | RowsShared | Block(_)
                ),
                "{error}"
            );
        }
        let mut rows = 0u64;
        for (number, row) in (0..).zip(function.rows()) {
            rows += 1;
            match row {
                Err(error) => found(error),
                Ok(_) => {
                    for error in at(Place::Row(index, number)) {
                        use Fault::{FirstRow, WordCount};
                        assert!(matches!(error.fault, FirstRow(_) | WordCount(3)), "{error}");
                    }
                }
            }
        }
        // Each row takes at least two bytes; one more may stand for the error.
        assert!(rows <= bytes.len() as u64 / 2 + 1);
        for pc in [
            function.start,
            function.start.wrapping_add(u64::from(function.size) / 2),
            function.end(),
        ] {
            if let Ok(Some(index)) = section.find(pc) {
                let header = section.header();
                let at = header.index_at + index as usize * header.index_entry;
                let range = header.function_range(address, index, &bytes[at..]);
                // One that wraps has no range, and bytes all the same.
                assert!(range.is_none_or(|range| range.contains(&pc)));
            }
            let found = section.lookup(pc);
            assert!(!matches!(found, Ok(Some(found)) if !found.function.contains(pc)));
            let _ = function.row_at(pc);
        }
    }
    let _ = section.text().to_string();
    if report.is_sound() {
        sound(&section);
    }
}

/// In a section that the check finds nothing in, a lookup is a linear scan, and writing it anew changes no answer.
fn sound(section: &Section<'_>) {
    let functions = functions(section);
    let ends = functions.first().zip(functions.last());
    let ends = ends.map(|(first, last)| first.start..last.end().unwrap());
    assert_eq!(
        section.span(),
        ends.filter(|_| section.header().has(Flag::SORTED))
    );
    let places = places(&functions);
    same(section, &functions, &places);

    let mut builder = Builder::new(section.header().arch);
    builder.extend(functions.iter().filter_map(sayable));
    let bytes = match builder.finish(section.address()) {
        Ok(bytes) => bytes,
        // Other encodings than the writer's may say more, and the new section may be longer.
        Err(WriteError::Unsayable { .. } | WriteError::AddressWraps) => return,
        Err(error) => panic!("{error}"),
    };
    let again = Section::parse(&bytes, section.address()).unwrap();
    same(&again, &functions, &places);
}

/// Without what applies nowhere: functions of no size or no rows, and rows at a function's very end.
fn sayable(function: &FunctionRows) -> Option<FunctionRows> {
    let mut function = function.clone();
    let size = function.size;
    function.rows.retain(|row| row.start < size);
    (!function.rows.is_empty()).then_some(function)
}

/// What a sound section says.
pub(crate) fn functions(section: &Section<'_>) -> Vec<FunctionRows> {
    let functions = section.functions().map(Result::unwrap);
    functions
        .map(|f| FunctionRows {
            start: f.start,
            size: f.size,
            pc: f.pc,
            signal: f.signal,
            key_b: f.key_b,
            rows: f.rows().map(Result::unwrap).collect(),
        })
        .collect()
}

/// Every address at which an answer can change, and its neighbours.
fn places(functions: &[FunctionRows]) -> Vec<u64> {
    let edges = functions.iter().flat_map(|function| {
        let rows = function.rows.iter().map(|row| u64::from(row.start));
        let block = match function.pc {
            Pc::Inc => 0,
            Pc::Mask { block } => u64::from(block),
        };
        let rows = rows.flat_map(move |at| [at, at + block]);
        rows.chain([0, u64::from(function.size)])
            .map(|at| function.start.wrapping_add(at))
    });
    let around = edges.flat_map(|at| [at.wrapping_sub(1), at, at.wrapping_add(1)]);
    around.take(MOST_PLACES).chain([0, u64::MAX]).collect()
}

fn same(section: &Section<'_>, functions: &[FunctionRows], places: &[u64]) {
    for &pc in places {
        let found = section.lookup(pc).unwrap();
        let found = found.map(|found| (found.function.signal, found.row.unwind));
        let expected = linear(functions, pc).map(|(f, row)| (f.signal, row.unwind));
        assert_eq!(found, expected, "at {pc:#x}");
    }
}

fn linear(functions: &[FunctionRows], pc: u64) -> Option<(&FunctionRows, &Row)> {
    let holds = |f: &&FunctionRows| pc >= f.start && pc - f.start < u64::from(f.size);
    let function = functions.iter().find(holds)?;
    let distance = (pc - function.start) as u32;
    let place = match function.pc {
        Pc::Inc => distance,
        Pc::Mask { block } => distance % u32::from(block),
    };
    let rows = function.rows.iter().filter(|row| row.start <= place);
    rows.max_by_key(|row| row.start).map(|row| (function, row))
}

/// A section that is put together from the bytes: if nobody changes it, it says what its author meant; if somebody
/// does, what holds for every section.
pub(crate) fn made_section(u: &mut Unstructured<'_>) -> Result<()> {
    let made::Made {
        mut bytes,
        address,
        functions: meant,
    } = made::section(u)?;
    if !bytes::corrupt(u, &mut bytes)? {
        let report = check(&bytes, address);
        let plain = |f: &FunctionRows| f.rows.first().is_none_or(|row| row.start == 0);
        assert!(report.is_sound(), "{report}: {:?}", report.findings());
        assert!(meant.iter().all(plain));
        let section = Section::parse(&bytes, address).unwrap();
        assert_eq!(functions(&section), meant);
    }
    self::section(&bytes, address);
    Ok(())
}

/// Call frame information that is put together from the bytes, and perhaps changed.
pub(crate) fn made_eh_frame(u: &mut Unstructured<'_>, arch: Arch, address: u64) -> Result<()> {
    let mut bytes = cfi::eh_frame(u, arch, address)?;
    bytes::corrupt(u, &mut bytes)?;
    eh_frame(&bytes, address, arch);
    Ok(())
}

/// Whatever is converted can be written, our own check finds nothing in it, and it says what gimli says of the source.
pub(crate) fn eh_frame(source: &[u8], address: u64, arch: Arch) {
    let conversion = convert::eh_frame(EhFrame::new(source, address, arch));
    let functions = conversion.functions;
    for pair in functions.windows(2) {
        assert!(pair[0].end().unwrap() <= pair[1].start);
    }
    let mut builder = Builder::new(arch);
    builder.extend(functions.iter().cloned());
    let bytes = match builder.finish(address) {
        Ok(bytes) => bytes,
        Err(WriteError::AddressWraps) => return,
        Err(error) => panic!("{error}"),
    };
    let report = check(&bytes, address);
    assert!(report.is_sound(), "{report}: {:?}", report.findings());
    let section = Section::parse(&bytes, address).unwrap();
    same(&section, &functions, &places(&functions));
    as_gimli(&section, source, arch);
}

/// At the first and the last byte of every row that gimli reads, the converted section has the same caller, or nothing.
/// Not where several entries are about that byte: of those, the first that can be said wins.
fn as_gimli(section: &Section<'_>, source: &[u8], arch: Arch) {
    let (entries, unread) = truth::each_row(arch, source, section.address(), |_| {});
    // We find the entries behind a bad one, too.
    if unread.entries > 0 {
        return;
    }
    let of_several = |pc| {
        let holds = entries
            .iter()
            .filter(|entry| (entry.start..entry.end).contains(&pc));
        holds.count() > 1
    };
    truth::each_row(arch, source, section.address(), |row| {
        for pc in [row.start, row.end - 1] {
            if of_several(pc) {
                continue;
            }
            let Some(found) = section.lookup(pc).unwrap() else {
                continue;
            };
            for seed in [1, 0x5eed] {
                let state = State::new(arch, seed, pc);
                let ours = state.apply(&found.row.unwind);
                assert_eq!(row.apply(&state), Some(ours), "at {pc:#x}: {:?}", found.row);
            }
        }
    });
}
