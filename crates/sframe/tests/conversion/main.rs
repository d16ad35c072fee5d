//! Conversion of `.eh_frame`, construct by construct.

mod cfi;

use cfi::*;
use framewalk_sframe::convert::{self, Conversion, Count, EhFrame, Refusal};
use framewalk_sframe::{
    Arch, Builder, CallerRule, Cfa, Pc, Register, Row, Rule, Section, Unwind, check,
};
use proptest::prelude::*;

const RBP: u8 = 6;
const RSP: u8 = 7;
const R10: u8 = 10;
const RIP: u8 = 16;

fn convert(bytes: &[u8]) -> Conversion {
    let conversion = convert::eh_frame(EhFrame::new(bytes, 0x9000, Arch::Amd64));
    // Whatever comes out can be written, and is sound.
    let mut builder = Builder::new(Arch::Amd64);
    builder.extend(conversion.functions.iter().cloned());
    let written = builder.finish(0x9000).unwrap();
    let report = check(&written, 0x9000);
    assert!(report.is_sound(), "{report}");
    assert_eq!(
        conversion.rows,
        Section::parse(&written, 0x9000)
            .unwrap()
            .header()
            .rows
            .into()
    );
    conversion
}

/// Converts one function of 0x40 bytes at 0x1000.
fn one(instructions: &[Vec<u8>]) -> Conversion {
    let mut cfi = Assembler::new();
    let common = cfi.ordinary();
    cfi.function(common, 0x1000, 0x40, &instructions.concat());
    convert(&cfi.finish())
}

fn rows(conversion: &Conversion) -> Vec<(u64, Unwind)> {
    let functions = conversion.functions.iter();
    functions
        .flat_map(|f| {
            f.rows
                .iter()
                .map(|row| (f.start + u64::from(row.start), row.unwind))
        })
        .collect()
}

fn caller(cfa: Cfa, ra: Rule, fp: Rule) -> Unwind {
    Unwind::Caller(CallerRule {
        cfa,
        ra,
        fp,
        ra_signed: false,
    })
}

fn plain(register: u8, offset: i32) -> Unwind {
    caller(
        Cfa::Value(Register(register), offset),
        Rule::AtCfa(-8),
        Rule::Same,
    )
}

fn refused(conversion: &Conversion) -> Vec<(Refusal, Count)> {
    conversion.refused.iter().collect()
}

fn times(functions: u64, rows: u64) -> Count {
    Count { functions, rows }
}

#[test]
fn push_and_leave() {
    let conversion = one(&[
        advance(1),
        vec![0x0e, 16],      // def_cfa_offset 16
        vec![0x80 | RBP, 2], // offset rbp, cfa-16
        advance(3),
        vec![0x0d, RBP], // def_cfa_register rbp
        advance(4),
        vec![0x80 | 3, 3], // offset rbx, cfa-24: not for us
        advance(8),
        vec![0x0a], // remember_state
        def_cfa(RSP, 8),
        vec![0xc0 | RBP], // restore rbp
        advance(1),
        vec![0x0b], // restore_state
    ]);
    let saved = |cfa| caller(cfa, Rule::AtCfa(-8), Rule::AtCfa(-16));
    let (sp, fp) = (Cfa::Value(Register(RSP), 16), Cfa::Value(Register(RBP), 16));
    assert_eq!(
        rows(&conversion),
        [
            (0x1000, plain(RSP, 8)),
            (0x1001, saved(sp)),
            (0x1004, saved(fp)),
            (0x1010, plain(RSP, 8)),
            (0x1011, saved(fp))
        ]
    );
    assert_eq!(conversion.functions.len(), 1);
    assert_eq!((conversion.rows, conversion.rows_read), (5, 6));
    assert_eq!(refused(&conversion), []);
}

/// x86-64 has no register 106, though a row has room for the number.
#[test]
fn registers_that_do_not_exist_are_refused() {
    let conversion = one(&[vec![0x0c, 106, 8], advance(1), plt_of(19, 11)]);
    assert_eq!(
        refused(&conversion),
        [(Refusal::RegisterNumber, times(1, 2))]
    );
    assert_eq!(rows(&conversion), []);
}

/// DWARF 5, 6.4.2: no expression of a CFA may use it, not even for a value that is then passed over.
#[test]
fn a_cfa_that_is_told_by_itself_is_refused() {
    const CALL_FRAME_CFA: u8 = 0x9c;
    let conversion = one(&[
        cfa_expression(&[vec![CALL_FRAME_CFA], breg(RBP, 16)].concat()),
        advance(1),
        cfa_expression(&[breg(RBP, 16), vec![CALL_FRAME_CFA]].concat()),
    ]);
    assert_eq!(refused(&conversion), [(Refusal::Expression, times(1, 2))]);
    assert_eq!(rows(&conversion), []);
}

#[test]
fn drap() {
    let fp = expression(RBP, &breg(RBP, 0));
    let conversion = one(&[
        advance(5),
        def_cfa(R10, 0),
        advance(10),
        fp,
        advance(10),
        cfa_expression(&[breg(RBP, -40), vec![DEREF]].concat()),
    ]);
    let fp = Rule::At(Register(RBP), 0);
    assert_eq!(
        rows(&conversion),
        [
            (0x1000, plain(RSP, 8)),
            (0x1005, plain(R10, 0)),
            (
                0x100f,
                caller(Cfa::Value(Register(R10), 0), Rule::AtCfa(-8), fp)
            ),
            (
                0x1019,
                caller(Cfa::At(Register(RBP), -40), Rule::AtCfa(-8), fp)
            ),
        ]
    );
}

/// glibc's `__restore_rt`: everything is in the `ucontext` that the kernel pushed.
#[test]
fn signal_frame() {
    let mut cfi = Assembler::new();
    let common = cfi.common("zRS", RIP, &[]);
    let instructions = [
        cfa_expression(&[breg(RSP, 160), vec![DEREF]].concat()),
        expression(RBP, &breg(RSP, 120)),
        expression(RIP, &breg(RSP, 168)),
    ];
    cfi.function(common, 0x1000, 0xa, &instructions.concat());
    let conversion = convert(&cfi.finish());
    let sp = |offset| (Register(RSP), offset);
    let at = |(register, offset)| Rule::At(register, offset);
    assert_eq!(
        rows(&conversion),
        [(
            0x1000,
            caller(Cfa::At(Register(RSP), 160), at(sp(168)), at(sp(120)))
        )]
    );
    assert!(conversion.functions[0].signal);
}

#[test]
fn registers_elsewhere() {
    let conversion = one(&[
        vec![0x09, RIP, 11], // register rip, r11
        vec![0x09, RBP, 12], // register rbp, r12
        advance(1),
        val_expression(RIP, &[breg(RSP, 24), vec![DEREF]].concat()),
        vec![0x14, RBP, 3], // val_offset rbp, cfa-24
        advance(1),
        val_expression(RIP, &[PLUS, 40]), // the CFA is on the stack
        expression(RBP, &[PLUS, 40]),
    ]);
    let cfa = Cfa::Value(Register(RSP), 8);
    let value = |register, offset| Rule::Value(Register(register), offset);
    assert_eq!(
        rows(&conversion),
        [
            (0x1000, caller(cfa, value(11, 0), value(12, 0))),
            (
                0x1001,
                caller(cfa, Rule::At(Register(RSP), 24), value(RSP, -16))
            ),
            (0x1002, caller(cfa, value(RSP, 48), Rule::AtCfa(40))),
        ]
    );
}

/// The CFA is the caller's stack pointer, or there are no words for the row.
#[test]
fn a_stack_pointer_that_is_elsewhere_is_refused() {
    // As __longjmp says it, and setcontext.
    let longjmp = [
        vec![0x0c, 5, 0], // def_cfa rdi, 0
        vec![0x09, RSP, 8],
        vec![0x09, RBP, 9],
        vec![0x09, RIP, 1],
    ];
    let setcontext = [vec![0x0c, 1, 0], vec![0x05, RSP, 0x6c]];
    for elsewhere in [longjmp.concat(), setcontext.concat()] {
        let conversion = one(&[advance(8), elsewhere]);
        assert_eq!(rows(&conversion), [(0x1000, plain(RSP, 8))]);
        assert_eq!(refused(&conversion), [(Refusal::StackPointer, times(1, 1))]);
    }
    // The same place, said twice.
    let load = || [breg(RSP, 160), vec![DEREF]].concat();
    let agreeing = [
        [vec![0x0c, 8, 0], vec![0x09, RSP, 8]].concat(),
        vec![0x14, RSP, 0],
        vec![0x08, RSP],
        [cfa_expression(&load()), expression(RSP, &breg(RSP, 160))].concat(),
    ];
    for agreeing in agreeing {
        let conversion = one(&[advance(8), agreeing]);
        assert_eq!(refused(&conversion), []);
    }
}

#[test]
fn undefined_return_address_is_the_outermost_frame() {
    let conversion = one(&[vec![0x07, RIP], advance(4), vec![0xc0 | RIP]]);
    assert_eq!(
        rows(&conversion),
        [(0x1000, Unwind::Outermost), (0x1004, plain(RSP, 8))]
    );
}

/// Without a rule the frame pointer is unchanged, whatever its absence is called.
#[test]
fn frame_pointer_is_never_undefined() {
    let conversion = one(&[
        vec![0x80 | RBP, 2],
        advance(1),
        vec![0x07, RBP],
        advance(1),
        vec![0x08, RBP],
    ]);
    let saved = caller(
        Cfa::Value(Register(RSP), 8),
        Rule::AtCfa(-8),
        Rule::AtCfa(-16),
    );
    assert_eq!(
        rows(&conversion),
        [(0x1000, saved), (0x1001, plain(RSP, 8))]
    );
}

/// `rsp + 8 + (((rip & 15) >= from) << 3)`
fn plt(from: u8) -> Vec<u8> {
    plt_of(RSP, from)
}

fn plt_of(register: u8, from: u8) -> Vec<u8> {
    let tail = vec![0x80, 0, 0x3f, 0x1a, 0x30 + from, 0x2a, 0x33, 0x24, 0x22];
    cfa_expression(&[breg(register, 8), tail].concat())
}

#[test]
fn plt_is_a_function_of_blocks() {
    let mut cfi = Assembler::new();
    let common = cfi.ordinary();
    let instructions = [
        vec![0x0e, 16],
        advance(6),
        vec![0x0e, 24],
        advance(10),
        plt(11),
    ];
    cfi.function(common, 0x1020, 0x60, &instructions.concat());
    // One that does not start with a block, and one that is none.
    cfi.function(common, 0x2008, 0x38, &plt(10));
    cfi.function(common, 0x3008, 6, &plt(10));
    let conversion = convert(&cfi.finish());
    let shape: Vec<_> = conversion
        .functions
        .iter()
        .map(|f| (f.start, f.size, f.pc))
        .collect();
    let block = Pc::Mask { block: 16 };
    assert_eq!(
        shape,
        [
            (0x1020, 16, Pc::Inc),
            (0x1030, 0x50, block),
            (0x2008, 0x38, block),
            (0x3008, 6, Pc::Inc)
        ]
    );
    let row = |start, offset| Row {
        start,
        unwind: plain(RSP, offset),
    };
    assert_eq!(conversion.functions[1].rows, [row(0, 8), row(11, 16)]);
    assert_eq!(
        conversion.functions[2].rows,
        [row(0, 8), row(2, 16), row(8, 8)]
    );
    assert_eq!(conversion.functions[3].rows, [row(0, 8), row(2, 16)]);
    assert_eq!(refused(&conversion), []);
}

/// OpenSSL's assembly: the rows around the one that cannot be said stay.
#[test]
fn a_refused_row_is_a_gap() {
    let conversion = one(&[
        advance(8),
        cfa_expression(&[breg(RSP, 40), vec![DEREF, PLUS, 8]].concat()),
        advance(8),
        vec![0x07, RIP],
        advance(8),
        vec![0xc0 | RIP],
        advance(8),
        def_cfa(RSP, 8),
    ]);
    let shape: Vec<_> = conversion
        .functions
        .iter()
        .map(|f| (f.start, f.size))
        .collect();
    assert_eq!(shape, [(0x1000, 8), (0x1010, 8), (0x1020, 0x20)]);
    assert_eq!(refused(&conversion), [(Refusal::LoadPlus, times(1, 2))]);
    assert_eq!(conversion.rows_read, 5);
}

#[test]
fn every_refused_row_has_a_name() {
    let load = || [breg(RSP, 40), vec![DEREF]].concat();
    let cases: &[(Refusal, Vec<u8>)] = &[
        (
            Refusal::LoadPlus,
            cfa_expression(&[load(), vec![PLUS, 8]].concat()),
        ),
        (
            Refusal::TwoLoads,
            cfa_expression(&[load(), vec![DEREF]].concat()),
        ),
        (Refusal::TwoLoads, expression(RBP, &load())),
        (Refusal::Expression, cfa_expression(&[0x30])),
        (Refusal::Expression, cfa_expression(&[])),
        (Refusal::Expression, cfa_expression(&[0x9c])),
        (
            Refusal::Expression,
            cfa_expression(&[breg(RSP, 0), breg(RBP, 0), vec![0x22]].concat()),
        ),
        (
            Refusal::Expression,
            cfa_expression(&[breg(RSP, 0), vec![0x12; 3]].concat()),
        ),
        (
            Refusal::Expression,
            cfa_expression(&[&[0x2f][..], &[0xfd, 0xff]].concat()),
        ),
        (
            Refusal::CfaValue,
            [cfa_expression(&load()), val_expression(RIP, &[PLUS, 8])].concat(),
        ),
        (
            Refusal::OffsetRange,
            vec![0x0c, RSP, 0x80, 0x80, 0x80, 0x80, 0x10],
        ),
        (Refusal::RegisterNumber, vec![0x0c, 0x80, 0x02, 8]),
        (Refusal::RaUnchanged, vec![0x08, RIP]),
        (Refusal::BadInstructions, vec![0x3f]),
        (Refusal::BadInstructions, vec![0x0b]),
        (Refusal::BadInstructions, vec![0x0a; 40]),
    ];
    for (refusal, instructions) in cases {
        let conversion = one(&[advance(8), instructions.clone()]);
        assert_eq!(
            refused(&conversion),
            [(*refusal, times(1, 1))],
            "{instructions:x?}"
        );
        assert_eq!(conversion.functions.len(), 1, "{refusal}");
        assert_eq!(
            (conversion.functions[0].start, conversion.functions[0].size),
            (0x1000, 8),
            "{refusal}"
        );
    }
}

#[test]
fn no_cfa() {
    let mut cfi = Assembler::new();
    let common = cfi.common("zR", RIP, &[0x80 | RIP, 1]);
    cfi.function(common, 0x1000, 8, &[]);
    assert_eq!(
        refused(&convert(&cfi.finish())),
        [(Refusal::NoCfa, times(1, 1))]
    );
}

#[test]
fn entries_that_describe_nothing() {
    let mut cfi = Assembler::new();
    let common = cfi.ordinary();
    let column = cfi.common("zR", 8, &START);
    let long = cfi.common("zR", RIP, &[0; 2000]);
    cfi.function(common, 0x1000, 0, &[]);
    cfi.function(common, 0, 0x10, &[]);
    cfi.function(common, u64::MAX - 1, 0x10, &[]);
    cfi.function(common, 1 << 63, 0x10, &[]);
    cfi.function(common, 0x1000, 1 << 32, &[]);
    cfi.function(column, 0x1000, 0x10, &[]);
    cfi.function(long, 0x1000, 0x10, &[]);
    cfi.function(0xffff_0000, 0x1000, 0x10, &[]);
    cfi.function(common, 0x1000, 0x10, &[]);
    let conversion = convert(&cfi.finish());
    assert_eq!(
        refused(&conversion),
        [
            (Refusal::ZeroLength, times(1, 0)),
            (Refusal::Tombstone, times(1, 0)),
            (Refusal::Wraps, times(1, 1)),
            (Refusal::TooLong, times(1, 1)),
            (Refusal::TooFar, times(1, 1)),
            (Refusal::BadEntry, times(1, 1)),
            (Refusal::LongCommonEntry, times(1, 1)),
            (Refusal::ReturnColumn, times(1, 1)),
        ]
    );
    assert_eq!(rows(&conversion), [(0x1000, plain(RSP, 8))]);
    assert_eq!(conversion.entries, 9);
}

/// Every row of an entry that is refused as a whole is counted, so that what is absent is what was refused.
#[test]
fn entries_refused_as_a_whole_are_counted_by_rows() {
    // DW_CFA_advance_loc 1; DW_CFA_def_cfa_offset 16; and again with 24.
    let rows = [0x41, 0x0e, 16, 0x41, 0x0e, 24];
    let mut cfi = Assembler::new();
    let common = cfi.ordinary();
    let column = cfi.common("zR", 17, &START);
    cfi.function(column, 0x1000, 0x10, &rows);
    cfi.function(common, 0x2000, 1 << 32, &rows);
    cfi.function(common, 1 << 63, 0x10, &rows);
    let conversion = convert(&cfi.finish());
    assert_eq!(
        refused(&conversion),
        [
            (Refusal::TooLong, times(1, 3)),
            (Refusal::TooFar, times(1, 3)),
            (Refusal::ReturnColumn, times(1, 3)),
        ]
    );
    assert_eq!(conversion.rows_read, 9);
    assert_eq!(conversion.functions, []);
}

/// The first entry wins, in whatever order the addresses come.
#[test]
fn overlapping_entries() {
    let mut cfi = Assembler::new();
    let common = cfi.ordinary();
    for (start, size) in [
        (0x3000, 0x10),
        (0x1000, 0x20),
        (0x1010, 0x20),
        (0x0ff0, 0x4000),
        (0x1020, 0x10),
        (0x3000, 0x10),
    ] {
        cfi.function(common, start, size, &[]);
    }
    let conversion = convert(&cfi.finish());
    let shape: Vec<_> = conversion
        .functions
        .iter()
        .map(|f| (f.start, f.size))
        .collect();
    assert_eq!(shape, [(0x1000, 0x20), (0x1020, 0x10), (0x3000, 0x10)]);
    assert_eq!(refused(&conversion), [(Refusal::Overlap, times(3, 3))]);
}

/// Instructions that leave their function do not leave it for us.
#[test]
fn rows_stay_in_their_function() {
    let conversion = one(&[advance(0x3f), vec![0x0e, 16], advance(0x3f), vec![0x0e, 24]]);
    assert_eq!(
        rows(&conversion),
        [(0x1000, plain(RSP, 8)), (0x103f, plain(RSP, 16))]
    );
    assert_eq!(conversion.functions[0].size, 0x40);
}

#[test]
fn a_cut_section_keeps_what_is_whole() {
    let mut cfi = Assembler::new();
    let common = cfi.ordinary();
    cfi.function(common, 0x1000, 0x10, &[]);
    cfi.function(common, 0x2000, 0x10, &[]);
    let whole = cfi.finish();
    let conversion = convert(&whole[..whole.len() - 9]);
    assert_eq!(rows(&conversion), [(0x1000, plain(RSP, 8))]);
    assert_eq!(refused(&conversion), [(Refusal::BadEntry, times(1, 1))]);
    assert_eq!(convert(&[]).entries, 0);
}

/// Instructions of all kinds, mostly well-formed.
fn instructions() -> impl Strategy<Value = Vec<u8>> {
    let register = 0..18u8;
    let operand = 0..0x80u8;
    let piece = prop_oneof![
        4 => (0x41..0x80u8).prop_map(|op| vec![op]),
        4 => (register.clone(), operand.clone()).prop_map(|(r, o)| vec![0x0c, r, o]),
        4 => operand.clone().prop_map(|o| vec![0x0e, o]),
        2 => (register.clone(), operand.clone()).prop_map(|(r, o)| vec![0x80 | r, o]),
        1 => register.clone().prop_map(|r| vec![0xc0 | r]),
        1 => register.clone().prop_map(|r| vec![0x07, r]),
        1 => prop_oneof![Just(vec![0x0a]), Just(vec![0x0b])],
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(|e| cfa_expression(&e)),
        1 => (register, prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(r, e)| expression(r, &e)),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        convert(&bytes);
    }

    #[test]
    fn mutated_sections_never_panic(
        functions in prop::collection::vec((0..0x400u64, 0..0x80u64, instructions()), 0..8),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut cfi = Assembler::new();
        let common = cfi.ordinary();
        for (start, size, instructions) in &functions {
            cfi.function(common, 0x1000 + start, *size, instructions);
        }
        let mut bytes = cfi.finish();
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        let conversion = convert(&bytes);
        // Nothing is lost silently.
        let accounted = conversion.functions.len() as u64
            + conversion.refused.iter().map(|(_, count)| count.functions).sum::<u64>();
        prop_assert!(accounted >= conversion.entries);
        prop_assert!(conversion.rows <= conversion.rows_read * 3);
    }
}
