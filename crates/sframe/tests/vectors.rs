//! Sections that GNU binutils wrote, against what GNU readelf says about them.

use framewalk_sframe::convert::{self, EhFrame};
use framewalk_sframe::{
    Arch, Builder, Cfa, Fault, FunctionRows, Pc, Place, Section, Unwind, check,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors/sframe")
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn text(name: &str) -> String {
    String::from_utf8(bytes(name)).unwrap()
}

/// Name and address of every section of one kind.
fn sections(kind: &str) -> Vec<(String, u64)> {
    let list = text("sections.txt");
    let parse = |line: &str| {
        let (name, address) = line.split_once(" 0x").unwrap();
        (name.to_owned(), u64::from_str_radix(address, 16).unwrap())
    };
    let all = list
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(parse);
    all.filter(|(name, _)| name.ends_with(kind)).collect()
}

fn address(name: &str) -> u64 {
    sections(name).first().unwrap().1
}

fn functions(section: &Section<'_>) -> Vec<FunctionRows> {
    let copy = |function: framewalk_sframe::Function<'_>| FunctionRows {
        start: function.start,
        size: function.size,
        pc: function.pc,
        signal: function.signal,
        key_b: function.key_b,
        rows: function.rows().map(Result::unwrap).collect(),
    };
    section.functions().map(Result::unwrap).map(copy).collect()
}

/// Lines without the blanks at their ends.
fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

#[test]
fn text_is_that_of_readelf() {
    let mut compared = 0;
    for (name, address) in sections(".sframe") {
        let expected = folder().join(name.replace(".sframe", ".readelf.txt"));
        let Ok(expected) = fs::read_to_string(expected) else {
            continue;
        };
        let bytes = bytes(&name);
        let section = Section::parse(&bytes, address).unwrap();
        let ours = lines(&format!(
            "Contents of the SFrame section .sframe:\n{}",
            section.text()
        ));
        assert_eq!(ours, lines(&expected), "{name}");
        compared += 1;
    }
    assert!(compared >= 17, "only {compared} vectors have a text");
}

#[test]
fn linked_sections_are_sound() {
    for (name, address) in sections(".sframe") {
        let bytes = bytes(&name);
        let report = check(&bytes, address);
        let findings = report.findings();
        if name.contains("lld-concatenated") {
            assert!(
                findings.iter().any(|f| f.fault == Fault::Trailing(true)),
                "{name}: {report}"
            );
        } else if name.ends_with(".o.sframe") {
            // Starts are relocations, so all functions seem to begin close to one another.
            assert!(
                findings.iter().all(|f| f.fault == Fault::Overlap),
                "{name}: {report}"
            );
        } else {
            assert!(report.is_sound(), "{name}: {report}");
        }
    }
}

/// Every row of the section is found, and nothing between functions.
#[test]
fn lookups_agree_with_rows() {
    for (name, address) in sections(".sframe") {
        if name.ends_with(".o.sframe") {
            continue;
        }
        let bytes = bytes(&name);
        let section = Section::parse(&bytes, address).unwrap();
        let functions = functions(&section);
        let first = functions.iter().map(|f| f.start).min().unwrap();
        let last = functions
            .iter()
            .filter_map(FunctionRows::end)
            .max()
            .unwrap();
        for pc in (first - 2..last + 2).take(20_000) {
            let found = section.lookup(pc).unwrap();
            let expected = functions.iter().find_map(|function| {
                let distance =
                    pc.checked_sub(function.start)
                        .filter(|d| *d < u64::from(function.size))? as u32;
                let place = match function.pc {
                    Pc::Inc => distance,
                    Pc::Mask { block } => distance % u32::from(block),
                };
                let row = function.rows.iter().rev().find(|row| row.start <= place)?;
                Some((function.start, *row))
            });
            assert_eq!(
                found.map(|f| (f.function.start, f.row)),
                expected,
                "{name} at {pc:#x}"
            );
        }
    }
}

/// What GNU ld 2.47 linked and what we write of it: the same functions and rows, and the same
/// bytes but for the order of row runs, which is free (ld leaves that of its inputs).
#[test]
fn rewriting_changes_nothing() {
    for name in [
        "demo.x86_64.2.47.sframe",
        "demo.aarch64.2.47.sframe",
        "demo.s390x.2.47.sframe",
        "ofp.aarch64.2.47.so.sframe",
    ] {
        let (gnu, address) = (bytes(name), address(name));
        let section = Section::parse(&gnu, address).unwrap();
        let mut builder = Builder::new(section.header().arch);
        builder.extend(functions(&section));
        let ours = builder.finish(address).unwrap();
        let again = Section::parse(&ours, address).unwrap();
        assert_eq!(functions(&again), functions(&section), "{name}");
        assert_eq!(again.header(), section.header(), "{name}");
        assert_eq!(runs(&ours, &again), runs(&gnu, &section), "{name}");
        if name.starts_with("ofp") {
            assert_eq!(ours, gnu, "{name}");
        }
    }
}

/// The bytes of every function's attribute and rows.
fn runs<'a>(bytes: &'a [u8], section: &Section<'_>) -> Vec<&'a [u8]> {
    let header = section.header();
    let area = &bytes[header.rows_at..header.rows_at + header.rows_len];
    let starts: Vec<usize> = section
        .functions()
        .map(|f| f.unwrap().rows_at as usize)
        .collect();
    let end = |start: usize| {
        starts
            .iter()
            .copied()
            .filter(|other| *other > start)
            .min()
            .unwrap_or(area.len())
    };
    starts
        .iter()
        .map(|&start| &area[start..end(start)])
        .collect()
}

/// Rows by the first address at which they hold, neighbours of the same meaning merged.
fn by_address(functions: &[FunctionRows]) -> BTreeMap<u64, Unwind> {
    let mut rows = BTreeMap::new();
    for function in functions {
        let mut last = None;
        for row in &function.rows {
            if last != Some(row.unwind) && row.start < function.size {
                rows.insert(function.start + u64::from(row.start), row.unwind);
            }
            last = Some(row.unwind);
        }
    }
    rows
}

/// Two roads from the same assembly: GNU as to `.sframe`, and GNU as to `.eh_frame` to us.
#[test]
fn conversion_agrees_with_gnu_as() {
    for (name, arch) in [
        ("demo.x86_64.2.47", Arch::Amd64),
        ("demo.aarch64.2.47", Arch::Aarch64),
        ("demo.s390x.2.47", Arch::S390x),
        ("ofp.aarch64.2.47.so", Arch::Aarch64),
    ] {
        let (eh_frame, sframe) = (format!("{name}.eh_frame"), format!("{name}.sframe"));
        let (cfi, gnu) = (bytes(&eh_frame), bytes(&sframe));
        let section = Section::parse(&gnu, address(&sframe)).unwrap();
        let conversion = convert::eh_frame(EhFrame::new(&cfi, address(&eh_frame), arch));
        assert_eq!(conversion.refused.rows(), 0, "{name}");

        let theirs = functions(&section);
        let covered = |at: u64| {
            theirs
                .iter()
                .any(|f| f.start <= at && at < f.end().unwrap())
        };
        let mut ours = by_address(&conversion.functions);
        let mut expected = by_address(&theirs);
        if name == "demo.x86_64.2.47" {
            // `.plt.got`: GNU ld says CFA = sp + 16, its own `.eh_frame` and the code sp + 8.
            let wrong = expected.remove(&0x10b0).unwrap();
            let right = ours.remove(&0x10b0).unwrap();
            let cfa = |unwind| match unwind {
                Unwind::Caller(rule) => rule.cfa,
                Unwind::Outermost => panic!(),
            };
            let sp = arch.machine().sp;
            assert_eq!(
                (cfa(wrong), cfa(right)),
                (Cfa::Value(sp, 16), Cfa::Value(sp, 8))
            );
        }
        // crt code and, but for x86-64, PLTs have CFI and no SFrame.
        ours.retain(|&at, _| covered(at));
        assert_eq!(ours, expected, "{name}");
    }
}

/// What GNU as 2.47 cannot translate, the converter can.
#[test]
fn conversion_of_edges() {
    let name = "edge.x86_64.2.47.so";
    let cfi = bytes(&format!("{name}.eh_frame"));
    let conversion = convert::eh_frame(EhFrame::new(
        &cfi,
        address(&format!("{name}.eh_frame")),
        Arch::Amd64,
    ));
    let at = |start: u64| conversion.functions.iter().find(|f| f.start == start);
    assert_eq!(at(0x1000).unwrap().rows[0].unwind, Unwind::Outermost);
    assert!(at(0x1008).unwrap().signal);
    // CFA = *(rsp + 160), but a `simple` function has no rule for its return address.
    assert_eq!(at(0x100f), None);
    assert_eq!(at(0x1016), None);
    assert_eq!(conversion.refused.rows(), 2);
}

#[test]
fn fixtures_of_other_versions_have_their_own_meaning() {
    // V2 of s390x: odd words are registers; V3 says the same in flexible rows.
    let meaning = |name: &str| {
        let bytes = bytes(name);
        let section = Section::parse(&bytes, 0).unwrap();
        functions(&section)
            .into_iter()
            .flat_map(|f| f.rows)
            .collect::<Vec<_>>()
    };
    let (v2, v3) = (
        meaning("s390leaf.s390x.2.45.o.sframe"),
        meaning("s390leaf.s390x.2.47.o.sframe"),
    );
    assert_eq!(v2, v3);
    let in_f2 = |row: &framewalk_sframe::Row| {
        matches!(row.unwind, Unwind::Caller(rule)
            if rule.fp == framewalk_sframe::Rule::Value(framewalk_sframe::Register(17), 0))
    };
    assert!(v3.iter().any(in_f2));

    let bytes = bytes("pac.aarch64.2.47.o.sframe");
    let section = Section::parse(&bytes, 0).unwrap();
    let signed = functions(&section)
        .iter()
        .flat_map(|f| &f.rows)
        .any(|row| matches!(row.unwind, Unwind::Caller(rule) if rule.ra_signed));
    assert!(signed);
}

#[test]
fn concatenated_sections_can_be_read_one_by_one() {
    let name = "demo.x86_64.lld-concatenated.2.47.sframe";
    let (all, address) = (bytes(name), address(name));
    let mut rest = all.as_slice();
    let mut found = 0;
    while let Ok(section) = Section::parse(rest, address + (all.len() - rest.len()) as u64) {
        found += 1;
        assert!(section.functions().all(|f| f.is_ok()));
        let next = section.header().section_len().next_multiple_of(8);
        rest = rest.get(next..).unwrap_or_default();
    }
    assert_eq!(found, 2);
    assert!(
        check(&[], 0)
            .findings()
            .iter()
            .all(|f| f.place == Place::Section)
    );
}
