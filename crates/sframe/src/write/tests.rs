use super::*;
use crate::row::{CallerRule, Cfa, Register, Rule, Unwind};
use crate::{Found, Section};

fn row(start: u32, offset: i32) -> Row {
    Row {
        start,
        unwind: Unwind::Caller(CallerRule {
            cfa: Cfa::Value(Register(7), offset),
            ra: Rule::AtCfa(-8),
            fp: Rule::Same,
            ra_signed: false,
        }),
    }
}

/// The same three functions as GNU as 2.47 assembles into these bytes (`two.x86_64.2.47.o`), with
/// the starts that ld would give them and the flags of linked output.
#[test]
fn bytes_are_those_of_gnu() {
    let mut builder = Builder::new(Arch::Amd64);
    builder.push(FunctionRows::new(
        0x1110,
        0x1b,
        vec![row(0, 8), row(1, 16), row(0x1a, 8)],
    ));
    builder.push(FunctionRows::new(0x1100, 0x10, vec![row(0, 8)]));
    builder.push(FunctionRows::new(
        0x1130,
        0x11,
        vec![row(0, 8), row(4, 16), row(0xd, 8)],
    ));
    let bytes = builder.finish(0x1000).unwrap();
    #[rustfmt::skip]
    let expected = [
        0xe2, 0xde, 3, 5, 3, 0, 0xf8, 0, 3, 0, 0, 0, 7, 0, 0, 0,
        0x24, 0, 0, 0, 0, 0, 0, 0, 0x30, 0, 0, 0,
        0xe4, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0,
        0xe4, 0, 0, 0, 0, 0, 0, 0, 0x1b, 0, 0, 0, 8, 0, 0, 0,
        0xf4, 0, 0, 0, 0, 0, 0, 0, 0x11, 0, 0, 0, 0x16, 0, 0, 0,
        1, 0, 0, 0, 0, 0, 3, 8,
        3, 0, 0, 0, 0, 0, 3, 8, 1, 3, 0x10, 0x1a, 3, 8,
        3, 0, 0, 0, 0, 0, 3, 8, 4, 3, 0x10, 0xd, 3, 8,
    ];
    assert_eq!(bytes, expected);

    let section = Section::parse(&bytes, 0x1000).unwrap();
    let found = |pc| {
        section
            .lookup(pc)
            .unwrap()
            .map(|Found { function, row }| (function.start, row))
    };
    assert_eq!(found(0x10ff), None);
    assert_eq!(found(0x110f), Some((0x1100, row(0, 8))));
    assert_eq!(found(0x1129), Some((0x1110, row(1, 16))));
    assert_eq!(found(0x112b), None);
    assert_eq!(found(0x1140), Some((0x1130, row(0xd, 8))));
    assert_eq!(section.span(), Some(0x1100..0x1141));
}

#[test]
fn overlap_is_an_error() {
    let mut builder = Builder::new(Arch::Amd64);
    builder.push(FunctionRows::new(0x1000, 0x10, vec![row(0, 8)]));
    builder.push(FunctionRows::new(0x100f, 0x10, vec![row(0, 8)]));
    assert_eq!(
        builder.finish(0),
        Err(WriteError::Overlap { start: 0x100f })
    );
}
