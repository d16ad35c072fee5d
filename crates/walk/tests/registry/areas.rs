//! Frame areas in the registry: the checks of docs/abi.md for kind 1, in their order, and what areas share with sections.

use super::memory::{Area, Process, SORTED, Section};
use framewalk_announce::abi::{KIND_AREA, MAX_AREAS, REPLACE, Refusal, USER_END};
use framewalk_announce::area::layout::*;
use framewalk_walk::registry::{Registry, What};
use proptest::prelude::*;

const PID: u32 = 7;
const AT: u64 = 0x10_0000;
const KEY: u64 = 2;
/// What is registered before every case, under the key 1.
const TAKEN: u64 = 0x50_0000;

/// A call to register, and the world that it meets.
#[derive(Debug, Clone)]
struct Case {
    key: u64,
    address: u64,
    length: u64,
    kind_and_flags: u64,
    bytes: Vec<u8>,
    room: usize,
}

impl Case {
    fn sound() -> Case {
        Case {
            key: KEY,
            address: AT,
            length: HEADER_SIZE,
            kind_and_flags: KIND_AREA,
            bytes: Area::new(KEY, 0x1000..0x2000).bytes(),
            room: 100,
        }
    }

    fn put(&mut self, at: u64, value: u64, len: usize) {
        let at = at as usize;
        self.bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    }

    fn answer(&self) -> Result<u64, Refusal> {
        let mut registry = Registry::with_room(self.room);
        register(&mut registry, 1, TAKEN..TAKEN + 0x1000, HEADER_SIZE, 0).unwrap();
        let process = Process::new(AT, self.bytes.clone());
        let mut reads = 0;
        let mut read = |address, into: &mut [u8]| {
            reads += 1;
            process.read(address, into)
        };
        let Case {
            key,
            address,
            length,
            kind_and_flags,
            ..
        } = *self;
        let answer = registry.register(PID, key, address, length, kind_and_flags, &mut read);
        let answer = answer.map(|announced| announced.number);
        assert!(reads <= 1, "read once, or never");
        let replaced = answer.is_ok() && kind_and_flags & REPLACE != 0;
        let held = 1 + usize::from(answer.is_ok() && !replaced);
        assert_eq!(registry.len(), held, "a refused call changes nothing");
        answer
    }
}

/// Registers an area whose text is this.
fn register(
    registry: &mut Registry,
    key: u64,
    text: std::ops::Range<u64>,
    length: u64,
    flags: u64,
) -> Result<u64, Refusal> {
    let mut area = Area::new(key, text);
    area.area_len = length;
    let process = Process::new(AT, area.bytes());
    let mut read = |address, into: &mut [u8]| process.read(address, into);
    let announced = registry.register(PID, key, AT, length, KIND_AREA | flags, &mut read)?;
    Ok(announced.number)
}

type Break = fn(&mut Case);
type Named = (&'static str, Break);

/// By check: what can be wrong there.
fn breaks() -> Vec<(u32, Refusal, Vec<Named>)> {
    use Refusal::*;
    vec![
        (
            1,
            Arguments,
            vec![
                ("kind 3", |c| c.kind_and_flags |= 2),
                ("flag 0x200", |c| c.kind_and_flags |= 0x200),
                ("flag 2^63", |c| c.kind_and_flags |= 1 << 63),
            ],
        ),
        (
            2,
            Arguments,
            vec![
                ("address 0", |c| c.address = 0),
                ("length 0", |c| c.length = 0),
                ("wraps", |c| c.address = u64::MAX - 3),
                ("ends behind user addresses", |c| c.address = USER_END),
                ("length 2^32", |c| c.length = 1 << 32),
            ],
        ),
        (
            3,
            Malformed,
            vec![
                ("127 bytes", |c| c.length = GEOMETRY_SIZE - 1),
                ("1 byte", |c| c.length = 1),
            ],
        ),
        (
            4,
            Unreadable,
            vec![
                ("nothing mapped", |c| c.address = 0x7000_0000),
                ("one byte less", |c| c.address = AT + 1),
            ],
        ),
        (
            5,
            Malformed,
            vec![
                ("magic", |c| c.put(MAGIC_AT, 0, 4)),
                ("end of the name", |c| c.put(MAGIC_AT + 6, 1, 1)),
                ("byte order", |c| c.put(BYTE_ORDER_AT, 0x0403_0201, 4)),
            ],
        ),
        (
            6,
            Unsupported,
            vec![
                ("version 0", |c| c.put(MAGIC_AT + 7, 0, 1)),
                ("version 2", |c| c.put(MAGIC_AT + 7, 2, 1)),
                ("AArch64", |c| c.put(MACHINE_AT, 183, 2)),
            ],
        ),
        (
            7,
            Malformed,
            vec![
                ("text at 0", |c| c.put(TEXT_START_AT, 0, 8)),
                ("no text", |c| c.put(TEXT_LEN_AT, 0, 8)),
                ("text of more than 4 GiB", |c| {
                    c.put(TEXT_LEN_AT, MAX_TEXT + 1, 8)
                }),
                ("text wraps", |c| c.put(TEXT_START_AT, u64::MAX, 8)),
                ("text behind user addresses", |c| {
                    c.put(TEXT_START_AT, USER_END - 0xfff, 8)
                }),
            ],
        ),
        (
            8,
            Malformed,
            vec![
                ("header size", |c| c.put(HEADER_SIZE_AT, 128, 2)),
                ("entry size", |c| c.put(ENTRY_SIZE_AT, 64, 2)),
                ("capacity", |c| {
                    c.put(CAPACITY_AT, u64::from(MAX_CAPACITY) + 1, 4)
                }),
                ("shift 5", |c| c.put(GRANULE_SHIFT_AT, 5, 2)),
                ("shift 17", |c| c.put(GRANULE_SHIFT_AT, 17, 2)),
                ("shift 65535", |c| c.put(GRANULE_SHIFT_AT, 0xffff, 2)),
                ("another length", |c| c.put(AREA_LEN_AT, 257, 8)),
                ("no room for an entry", |c| c.put(CAPACITY_AT, 1, 4)),
                ("reserved", |c| c.put(GEOMETRY_SIZE - 1, 1, 1)),
                ("default of no kind", |c| c.put(DEFAULT_AT, 7, 4)),
                ("default of rows", |c| c.put(DEFAULT_AT, ROWS.into(), 4)),
                ("default of nothing, with a word", |c| {
                    c.put(DEFAULT_AT, NONE.into(), 4);
                    c.put(DEFAULT_AT + 4, 1, 4);
                }),
            ],
        ),
        (
            9,
            Malformed,
            vec![("another key", |c| c.put(KEY_AT, KEY + 1, 8))],
        ),
        (
            10,
            UnknownKey,
            vec![("replaces nothing", |c| c.kind_and_flags |= REPLACE)],
        ),
        (
            11,
            Overlap,
            vec![
                ("the same", |c| c.put(TEXT_START_AT, TAKEN, 8)),
                ("first byte", |c| c.put(TEXT_START_AT, TAKEN - 0xfff, 8)),
                ("last byte", |c| c.put(TEXT_START_AT, TAKEN + 0xfff, 8)),
            ],
        ),
        (12, Quota, vec![("no room", |c| c.room = 1)]),
    ]
}

#[test]
fn every_check_answers_its_errno() {
    assert_eq!(Case::sound().answer(), Ok(2));
    for (check, refusal, breaks) in breaks() {
        for (what, break_it) in breaks {
            let mut case = Case::sound();
            break_it(&mut case);
            assert_eq!(case.answer(), Err(refusal), "{check} {what}: {case:x?}");
        }
    }
}

#[test]
fn the_first_check_that_fails_answers() {
    let breaks = breaks();
    let mut pairs = 0;
    for (first, refusal, first_breaks) in &breaks {
        for (second, _, second_breaks) in &breaks {
            if first >= second {
                continue;
            }
            for (what, break_it) in first_breaks {
                for (then, break_more) in second_breaks {
                    let mut case = Case::sound();
                    break_more(&mut case);
                    break_it(&mut case);
                    let why = format!("{first} {what}, {second} {then}");
                    assert_eq!(case.answer(), Err(*refusal), "{why}");
                    pairs += 1;
                }
            }
        }
    }
    assert!(pairs > 400, "{pairs}");
}

#[test]
fn what_just_fits() {
    let limits: [Named; 8] = [
        ("text at 1", |c| c.put(TEXT_START_AT, 1, 8)),
        ("text up to the end", |c| {
            c.put(TEXT_START_AT, USER_END - 0x1000, 8)
        }),
        ("text of a byte", |c| c.put(TEXT_LEN_AT, 1, 8)),
        ("text of 4 GiB", |c| {
            c.put(TEXT_START_AT, TAKEN + 0x1000, 8);
            c.put(TEXT_LEN_AT, MAX_TEXT, 8);
        }),
        ("beside another", |c| {
            c.put(TEXT_START_AT, TAKEN - 0x1000, 8)
        }),
        ("an entry and a granule", |c| {
            c.put(CAPACITY_AT, 1, 4);
            c.put(GRANULE_SHIFT_AT, 12, 2);
            c.length = HEADER_SIZE + ENTRY_SIZE + 8;
            c.put(AREA_LEN_AT, c.length, 8);
        }),
        ("1 GiB with the other one", |c| {
            c.length = MAX_AREA - HEADER_SIZE;
            c.put(AREA_LEN_AT, c.length, 8);
        }),
        ("no default", |c| c.put(DEFAULT_AT, NONE.into(), 4)),
    ];
    for (what, change) in limits {
        let mut case = Case::sound();
        change(&mut case);
        assert_eq!(case.answer(), Ok(2), "{what}: {case:x?}");
    }
    let mut case = Case::sound();
    case.length = MAX_AREA - HEADER_SIZE + 1;
    case.put(AREA_LEN_AT, case.length, 8);
    assert_eq!(case.answer(), Err(Refusal::Quota));
}

#[test]
fn quotas_of_areas() {
    let mut registry = Registry::default();
    let most = MAX_AREAS as u64;
    let text = |n: u64| n * 0x1000..(n + 1) * 0x1000;
    for n in 1..=most {
        register(&mut registry, n, text(n), HEADER_SIZE, 0).unwrap();
    }
    let more = |registry: &mut Registry, key, flags| {
        register(registry, key, text(most + 1), HEADER_SIZE, flags)
    };
    assert_eq!(more(&mut registry, 1, 0), Err(Refusal::Quota));
    assert!(more(&mut registry, 1, REPLACE).is_ok());
    registry.fork(PID, 8);
    assert_eq!(registry.sections(8).len() as u64, most);
    assert_eq!(registry.list()[&PID], registry.list()[&8]);
    registry.exec(8);
    assert!(registry.sections(8).is_empty());
    for n in 1..=most {
        assert_eq!(registry.unregister(PID, n), Ok(1));
    }

    let half = MAX_AREA / 2;
    register(&mut registry, 1, text(1), half, 0).unwrap();
    for (length, answer) in [(half + 1, false), (half, true)] {
        assert_eq!(
            register(&mut registry, 2, text(2), length, 0).is_ok(),
            answer
        );
    }
    let last = register(&mut registry, 3, text(3), HEADER_SIZE, 0);
    assert_eq!(last, Err(Refusal::Quota));
    let replaced = register(&mut registry, 2, text(3), half + 1, REPLACE);
    assert_eq!(replaced, Err(Refusal::Quota));
    assert!(register(&mut registry, 2, text(3), half, REPLACE).is_ok());
}

#[test]
fn areas_and_sections_replace_each_other() {
    let mut registry = Registry::default();
    let of_section = |registry: &mut Registry, start, flags| {
        let bytes = Section::new(3, SORTED, AT, &[(start, 0x1000)]).bytes();
        let length = bytes.len() as u64;
        let process = Process::new(AT, bytes);
        let mut read = |address, into: &mut [u8]| process.read(address, into);
        let announced = registry.register(PID, 1, AT, length, flags, &mut read);
        announced.map(|announced| announced.number)
    };
    of_section(&mut registry, 0x1000, 0).unwrap();
    let text = 0x1800..0x2800;
    let area = |registry: &mut Registry, key, flags| {
        register(registry, key, text.clone(), HEADER_SIZE, flags)
    };
    assert_eq!(area(&mut registry, 2, 0), Err(Refusal::Overlap));
    assert_eq!(area(&mut registry, 1, 0), Err(Refusal::Overlap));
    assert_eq!(area(&mut registry, 1, REPLACE), Ok(2));
    let is_area = |registry: &Registry| {
        let [held] = registry.sections(PID) else {
            panic!("one");
        };
        matches!(held.claim.what, What::Area(_))
    };
    assert!(is_area(&registry));
    assert_eq!(of_section(&mut registry, 0x1000, 0), Err(Refusal::Overlap));
    assert_eq!(area(&mut registry, 1, REPLACE), Ok(3), "by itself");
    assert_eq!(of_section(&mut registry, 0x1000, REPLACE), Ok(4));
    assert!(!is_area(&registry));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever stands there: an area that is taken is inside of what a reader may rely on.
    #[test]
    fn any_header(
        faults in prop::collection::vec((0..GEOMETRY_SIZE as usize, any::<u8>()), 0..4),
        capacity in prop_oneof![Just(0), 0..100u32, any::<u32>()],
        shift in 0..20u16,
        text_len in prop_oneof![1..0x10_0000u64, any::<u64>()],
        length in prop_oneof![GEOMETRY_SIZE..0x10_0000, Just(HEADER_SIZE), any::<u32>().prop_map(u64::from)],
    ) {
        let mut area = Area::new(KEY, 0x1000..0x2000);
        (area.capacity, area.shift, area.text_len, area.area_len) = (capacity, shift, text_len, length);
        let mut bytes = area.bytes();
        for (at, value) in faults {
            bytes[at] = value;
        }
        let process = Process::new(AT, bytes.clone());
        let mut read = |address, into: &mut [u8]| process.read(address, into);
        let mut registry = Registry::default();
        if let Ok(held) = registry.register(PID, KEY, AT, length, KIND_AREA, &mut read) {
            let What::Area(geometry) = &held.claim.what else { panic!("{held:?}") };
            let text = held.claim.text.clone();
            prop_assert!(0 < text.start && text.start < text.end && text.end <= USER_END);
            prop_assert!(text.end - text.start <= MAX_TEXT && length <= MAX_AREA);
            prop_assert_eq!((&geometry.text, geometry.area_len, geometry.key), (&text, length, KEY));
            prop_assert!((MIN_SHIFT..=MAX_SHIFT).contains(&geometry.granule_shift));
            let parts = geometry.parts();
            prop_assert!(parts.index_at + 4 * parts.granules <= parts.heap_at && parts.heap_at <= length);
            prop_assert!(bytes[RESERVED_AT as usize..].iter().all(|&byte| byte == 0));
        }
    }
}
