//! What holds for all sections, whoever wrote them.

mod hostile;

use arbitrary::Unstructured;
use framewalk_sframe::{
    Arch, Builder, CallerRule, Cfa, FunctionRows, Pc, Register, Row, Rule, Section, Unwind, check,
};
use proptest::prelude::*;

/// No property would see a sum that wraps, if they were not (Cargo.toml, `profile.test`).
#[test]
#[should_panic(expected = "overflow")]
fn overflow_checks_are_on() {
    let sum = std::hint::black_box(u8::MAX) + std::hint::black_box(1);
    println!("{sum}");
}

/// Offsets of all word sizes.
fn offset() -> impl Strategy<Value = i32> {
    prop_oneof![-0x80..0x80i32, -0x8000..0x8000i32, any::<i32>()]
}

fn register() -> impl Strategy<Value = Register> {
    prop_oneof![
        Just(Register(6)),
        Just(Register(7)),
        (0..16u8).prop_map(Register),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    prop_oneof![
        4 => Just(Rule::AtCfa(-16)),
        2 => offset().prop_map(Rule::AtCfa),
        1 => (register(), offset()).prop_map(|(r, o)| Rule::At(r, o)),
        1 => (register(), offset()).prop_map(|(r, o)| Rule::Value(r, o)),
    ]
}

/// Everything that AMD64 rows can say.
fn unwind() -> impl Strategy<Value = Unwind> {
    let cfa = prop_oneof![
        6 => (prop_oneof![Just(Register(6)), Just(Register(7))], offset()).prop_map(|(r, o)| Cfa::Value(r, o)),
        1 => (register(), offset()).prop_map(|(r, o)| Cfa::Value(r, o)),
        1 => (register(), offset()).prop_map(|(r, o)| Cfa::At(r, o)),
    ];
    let ra = prop_oneof![6 => Just(Rule::AtCfa(-8)), 1 => rule()];
    let fp = prop_oneof![Just(Rule::Same), rule()];
    prop_oneof![
        1 => Just(Unwind::Outermost),
        15 => (cfa, ra, fp).prop_map(|(cfa, ra, fp)| Unwind::Caller(CallerRule { cfa, ra, fp, ra_signed: false })),
    ]
}

fn function() -> impl Strategy<Value = FunctionRows> {
    let size = prop_oneof![1..0x200u32, 0xff00..0x1_0100u32, Just(0x2_0000)];
    (size, prop::option::weighted(0.2, 1..=255u8), any::<bool>()).prop_flat_map(
        |(size, block, signal)| {
            let pc = block.map_or(Pc::Inc, |block| Pc::Mask { block });
            let starts = prop::collection::btree_set(0..block.map_or(size, u32::from), 0..24);
            let rows = starts.prop_flat_map(|starts| {
                let count = starts.len();
                (Just(starts), prop::collection::vec(unwind(), count))
            });
            rows.prop_map(move |(starts, unwinds)| FunctionRows {
                // The distance from the function before it; see `section`.
                start: u64::from(size % 7),
                size,
                pc,
                signal,
                key_b: false,
                rows: starts
                    .into_iter()
                    .zip(unwinds)
                    .map(|(start, unwind)| Row { start, unwind })
                    .collect(),
            })
        },
    )
}

/// Disjoint functions that all say something, sorted.
fn program() -> impl Strategy<Value = Vec<FunctionRows>> {
    let place = |functions: Vec<FunctionRows>| {
        let mut at = 0x1000;
        let mut placed = Vec::new();
        for mut function in functions.into_iter().filter(|f| !f.rows.is_empty()) {
            function.start += at;
            at = function.end().unwrap();
            placed.push(function);
        }
        placed
    };
    prop::collection::vec(function(), 0..12).prop_map(place)
}

fn write(functions: &[FunctionRows], address: u64, limit: usize) -> Vec<u8> {
    let mut builder = Builder::new(Arch::Amd64).rows_per_function(limit);
    // In any order.
    builder.extend(functions.iter().rev().cloned());
    builder.finish(address).unwrap()
}

/// Every address at which an answer can change, and its neighbours.
fn places(functions: &[FunctionRows]) -> Vec<u64> {
    let mut places = vec![0, u64::MAX];
    for function in functions {
        let ends = [function.start, function.end().unwrap()];
        let rows = function
            .rows
            .iter()
            .map(|row| function.start + u64::from(row.start));
        let blocks = match function.pc {
            Pc::Inc => 0,
            Pc::Mask { block } => u64::from(block),
        };
        for place in rows.chain(ends) {
            for around in [place - 1, place, place + 1] {
                places.extend([around, around + blocks, around + 2 * blocks]);
            }
        }
    }
    places
}

fn linear(functions: &[FunctionRows], pc: u64) -> Option<(bool, Unwind)> {
    let function = functions
        .iter()
        .find(|f| f.start <= pc && pc < f.end().unwrap())?;
    let distance = (pc - function.start) as u32;
    let place = match function.pc {
        Pc::Inc => distance,
        Pc::Mask { block } => distance % u32::from(block),
    };
    let row = function
        .rows
        .iter()
        .filter(|row| row.start <= place)
        .max_by_key(|row| row.start)?;
    Some((function.signal, row.unwind))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reading_gives_what_was_written(functions in program(), address in 0..u64::MAX / 2) {
        let bytes = write(&functions, address, usize::MAX);
        let section = Section::parse(&bytes, address).unwrap();
        prop_assert_eq!(hostile::functions(&section), functions.clone());
        // A first row behind its function's start and a block larger than its function are findings.
        let plain = |f: &FunctionRows| f.rows[0].start == 0
            && match f.pc { Pc::Inc => true, Pc::Mask { block } => u32::from(block) <= f.size };
        let registers = |f: &FunctionRows| f.rows.iter().all(|row| row_registers(row).all(|r| r.0 <= 16));
        let report = check(&bytes, address);
        prop_assert_eq!(report.is_sound(), functions.iter().all(|f| plain(f) && registers(f)), "{}", report);
        prop_assert_eq!(section.header().section_len(), bytes.len());
    }

    #[test]
    fn lookup_is_a_linear_scan(functions in program()) {
        let bytes = write(&functions, 0x40_0000, usize::MAX);
        let section = Section::parse(&bytes, 0x40_0000).unwrap();
        for pc in places(&functions) {
            let found = section.lookup(pc).unwrap().map(|found| (found.function.signal, found.row.unwind));
            prop_assert_eq!(found, linear(&functions, pc), "at {:#x}", pc);
        }
    }

    #[test]
    fn sorted_or_not_is_the_same(functions in program()) {
        let mut bytes = write(&functions, 0x40_0000, usize::MAX);
        bytes[3] &= !1;
        let section = Section::parse(&bytes, 0x40_0000).unwrap();
        for pc in places(&functions) {
            let found = section.lookup(pc).unwrap().map(|found| (found.function.signal, found.row.unwind));
            prop_assert_eq!(found, linear(&functions, pc), "at {:#x}", pc);
        }
    }

    #[test]
    fn splitting_changes_no_answer(functions in program(), limit in 1..6usize) {
        let bytes = write(&functions, 0, limit);
        let section = Section::parse(&bytes, 0).unwrap();
        for function in hostile::functions(&section) {
            prop_assert!(function.pc != Pc::Inc || function.rows.len() <= limit);
        }
        for pc in places(&functions) {
            let found = section.lookup(pc).unwrap().map(|found| (found.function.signal, found.row.unwind));
            prop_assert_eq!(found, linear(&functions, pc), "at {:#x}", pc);
        }
    }

    #[test]
    fn what_is_written_holds(functions in program(), limit in 1..6usize) {
        hostile::section(&write(&functions, 0x40_0000, limit), 0x40_0000);
    }

    #[test]
    fn any_call_frame_information_converts(bytes in prop::collection::vec(any::<u8>(), 0..200), address: u64) {
        hostile::eh_frame(&bytes, address, Arch::Amd64);
    }

    #[test]
    fn made_sections_hold(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = hostile::made_section(&mut Unstructured::new(&bytes));
    }

    #[test]
    fn made_call_frame_information_converts(
        arch in prop::sample::select(Arch::ALL.to_vec()),
        address in prop::sample::select(vec![0x4000_0000u64, 1 << 47, u64::MAX - 0x2000]),
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let _ = hostile::made_eh_frame(&mut Unstructured::new(&bytes), arch, address);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), address: u64) {
        hostile::section(&bytes, address);
    }

    /// A plausible header in front of noise gets further than noise alone.
    #[test]
    fn noise_behind_a_header_never_panics(
        (version, abi) in (1..4u8, 1..5u8),
        flags in 0..8u8,
        functions in 0..20u32,
        noise in prop::collection::vec(any::<u8>(), 0..600),
        address: u64,
    ) {
        let big = abi == 1 || abi == 4;
        let fixed_ra = if abi == 3 { 0xf8 } else { 0 };
        let flags = match version { 1 => flags & 3, 2 => flags, _ => flags & 5 };
        let entry = match version { 1 => 17, 2 => 20, _ => 16 };
        let rows_at = functions * entry;
        let rows_len = (noise.len() as u32).saturating_sub(rows_at);
        let mut bytes = if big { vec![0xde, 0xe2] } else { vec![0xe2, 0xde] };
        bytes.extend([version, flags, abi, 0, fixed_ra, 0]);
        for word in [functions, 7, rows_len, 0, rows_at] {
            bytes.extend(if big { word.to_be_bytes() } else { word.to_le_bytes() });
        }
        bytes.extend(noise);
        hostile::section(&bytes, address);
    }

    #[test]
    fn mutated_sections_never_panic(
        functions in program(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        address: u64,
    ) {
        let mut bytes = write(&functions, 0, usize::MAX);
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        hostile::section(&bytes, address);
    }

    /// Header and attributes are where a changed byte does most.
    #[test]
    fn mutated_headers_never_panic(functions in program(), at in 0..28usize, value: u8, address: u64) {
        let mut bytes = write(&functions, 0, usize::MAX);
        bytes[at] = value;
        hostile::section(&bytes, address);
    }
}

fn row_registers(row: &Row) -> impl Iterator<Item = Register> {
    let mut registers = Vec::new();
    if let Unwind::Caller(rule) = row.unwind {
        let (Cfa::Value(register, _) | Cfa::At(register, _)) = rule.cfa;
        registers.push(register);
        for rule in [rule.ra, rule.fp] {
            if let Rule::At(register, _) | Rule::Value(register, _) = rule {
                registers.push(register);
            }
        }
    }
    registers.into_iter()
}
