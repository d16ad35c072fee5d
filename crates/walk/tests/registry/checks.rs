//! The checks of docs/abi.md and their order: what is wrong first decides.

use super::memory::{FRAME_POINTER, PCREL, Process, SORTED, Section};
use framewalk_announce::abi::{REGISTER, REPLACE, Refusal, UNREGISTER};
use framewalk_walk::registry::Registry;
use proptest::prelude::*;

const PID: u32 = 7;
const END: u64 = 1 << 47;
const AT: u64 = 0x10_0000;
/// What is registered before every case, under the key 1.
const TAKEN: (u64, u32) = (0x5000, 0x1000);

/// A call to register, and the world that it meets.
#[derive(Debug, Clone)]
struct Case {
    key: u64,
    address: u64,
    /// None: that of the section.
    length: Option<u64>,
    kind_and_flags: u64,
    section: Section,
    /// The first byte of the section that cannot be read, and the last one before those that can again.
    hole: Option<(usize, usize)>,
    room: usize,
}

impl Case {
    fn sound(version: u8) -> Case {
        let section = Section::new(
            version,
            SORTED | PCREL,
            AT,
            &[(0x1000, 0x10), (0x1100, 0x20)],
        );
        Case {
            key: 2,
            address: AT,
            length: None,
            kind_and_flags: 0,
            section,
            hole: None,
            room: 100,
        }
    }

    fn answer(&self) -> Result<u64, Refusal> {
        let mut registry = Registry::with_room(self.room);
        let taken = Section::new(2, SORTED, 0x8000, &[TAKEN]).bytes();
        let length = taken.len() as u64;
        let taken = Process::new(0x8000, taken);
        let mut read = |address, into: &mut [u8]| taken.read(address, into);
        registry
            .register(PID, 1, 0x8000, length, 0, &mut read)
            .unwrap();

        let bytes = self.section.bytes();
        let length = self.length.unwrap_or(bytes.len() as u64);
        let (from, to) = self.hole.unwrap_or((bytes.len(), bytes.len()));
        let mut process = Process::new(AT, bytes[..from].to_vec());
        process.map(AT + to as u64, bytes[to..].to_vec());
        let mut read = |address, into: &mut [u8]| process.read(address, into);
        let answer = registry.register(
            PID,
            self.key,
            self.address,
            length,
            self.kind_and_flags,
            &mut read,
        );
        let answer = answer.map(|announced| announced.number);
        let held = 1 + usize::from(answer.is_ok() && self.kind_and_flags == 0);
        assert_eq!(registry.len(), held, "a refused call changes nothing");
        answer
    }
}

/// Breaks one thing.
type Break = fn(&mut Case);
type Named = (&'static str, Break);

/// By check: everything that can be wrong there.
fn breaks() -> Vec<(u32, Refusal, Vec<Named>)> {
    use Refusal::*;
    vec![
        (
            1,
            Arguments,
            vec![
                ("kind 2", |c| c.kind_and_flags |= 2),
                ("kind 0xff", |c| c.kind_and_flags |= 0xff),
                ("flag 0x200", |c| c.kind_and_flags |= 0x200),
                ("flag 2^63", |c| c.kind_and_flags |= 1 << 63),
            ],
        ),
        (
            2,
            Arguments,
            vec![
                ("address 0", |c| c.address = 0),
                ("length 0", |c| c.length = Some(0)),
                ("wraps", |c| c.address = u64::MAX - 3),
                ("ends at 0", |c| {
                    c.address = 0u64.wrapping_sub(28);
                    c.length = Some(28);
                }),
                ("kernel", |c| c.address = 0xffff_8000_0000_0000),
                ("ends behind user addresses", |c| c.address = END),
                ("length 2^32", |c| c.length = Some(1 << 32)),
                ("length 2^32 and a bit", |c| {
                    c.length = Some((1 << 32) + 100)
                }),
                ("length 2^64 - 1", |c| c.length = Some(u64::MAX)),
            ],
        ),
        (
            3,
            Malformed,
            vec![
                ("27 bytes", |c| c.length = Some(27)),
                ("1 byte", |c| c.length = Some(1)),
            ],
        ),
        (
            4,
            Unreadable,
            vec![
                ("ends with user addresses", |c| {
                    c.length = Some(100);
                    c.address = END - 100;
                }),
                ("nothing mapped", |c| c.address = 0x7000_0000),
                ("first byte", |c| c.hole = Some((0, 1))),
                ("last byte of header", |c| c.hole = Some((27, 28))),
            ],
        ),
        (
            5,
            Malformed,
            vec![
                ("other byte order", |c| c.section.magic = 0xe2de),
                ("no magic", |c| c.section.magic = 0),
            ],
        ),
        (
            6,
            Unsupported,
            vec![
                ("version 0", |c| c.section.version = 0),
                ("version 1", |c| c.section.version = 1),
                ("version 4", |c| c.section.version = 4),
                ("abi 0", |c| c.section.abi = 0),
                ("AArch64 big endian", |c| c.section.abi = 1),
                ("AArch64", |c| c.section.abi = 2),
                ("s390x", |c| c.section.abi = 4),
            ],
        ),
        (
            7,
            Malformed,
            vec![
                ("flag 8", |c| c.section.flags |= 8),
                ("flag 0x80", |c| c.section.flags |= 0x80),
                ("frame pointer flag in V3, or 0x40", |c| {
                    c.section.flags |= if c.section.version == 3 {
                        FRAME_POINTER
                    } else {
                        0x40
                    };
                }),
                ("not sorted", |c| c.section.flags &= !SORTED),
                ("fixed FP", |c| c.section.fixed_fp = -16),
                ("fixed RA 0", |c| c.section.fixed_ra = 0),
                ("fixed RA -16", |c| c.section.fixed_ra = -16),
                ("fixed RA 8", |c| c.section.fixed_ra = 8),
            ],
        ),
        (
            8,
            Malformed,
            vec![
                ("no functions", |c| c.section.functions = 0),
                ("2^32 - 1 functions", |c| c.section.functions = u32::MAX),
                ("one function too many", |c| c.section.functions += 1),
                ("index behind the end", |c| c.section.index_at = u32::MAX),
                ("index 1 byte into the rows", |c| c.section.index_at += 1),
                ("rows 1 byte into the index", |c| c.section.rows_at -= 1),
                ("rows before the index", |c| c.section.rows_at = 0),
                ("rows 1 byte too long", |c| c.section.rows_len += 1),
                ("rows 2^32 - 1", |c| c.section.rows_len = u32::MAX),
                ("rows behind the end", |c| c.section.rows_at = u32::MAX),
                ("auxiliary header over the end", |c| c.section.aux = 255),
                ("auxiliary header of 1 byte", |c| c.section.aux = 1),
                ("cut by its length", |c| {
                    c.length = Some(c.section.bytes().len() as u64 - 1)
                }),
                ("only the header", |c| c.length = Some(28)),
            ],
        ),
        (
            9,
            Unreadable,
            vec![
                ("first entry", |c| c.hole = Some((28, 29))),
                ("end of the first entry", |c| {
                    let end = 28 + Section::entry(c.section.version);
                    c.hole = Some((end - 1, end));
                }),
                ("last entry", |c| {
                    let last = 28 + Section::entry(c.section.version);
                    c.hole = Some((last, last + 1));
                }),
                ("end of the last entry", |c| {
                    let end = 28 + 2 * Section::entry(c.section.version);
                    c.hole = Some((end - 1, end));
                }),
            ],
        ),
        (
            10,
            Malformed,
            vec![
                ("nothing", |c| {
                    c.section = Case::of(c, &[(0x1000, 0), (0x1000, 0)])
                }),
                ("order", |c| {
                    c.section = Case::of(c, &[(0x2000, 8), (0x1000, 8)])
                }),
                ("begins at 0", |c| {
                    c.section = Case::of(c, &[(0, 8), (0x1000, 8)])
                }),
                ("begins below 0", |c| {
                    c.section = Case::of(c, &[(0u64.wrapping_sub(8), 8), (0x1000, 8)])
                }),
                // In 32 bits of distance (V2) the end is out of reach except by size, and size is 32 bits.
                ("ends behind user addresses", |c| {
                    c.section.flags &= !PCREL;
                    c.section.entries[1] = match c.section.version {
                        2 => (i64::from(i32::MIN), 1),
                        _ => ((END - AT) as i64 - 7, 8),
                    };
                }),
                ("starts wrap", |c| {
                    c.section.flags &= !PCREL;
                    // Taken modulo 2^64 the end would be above the first start.
                    c.section.entries[1] = (-(AT as i64) - 16, 0x8_0000);
                }),
                ("smallest start", |c| {
                    c.section.entries[0].0 = i64::from(i32::MIN)
                }),
                ("smallest last start", |c| {
                    c.section.entries[1].0 = i64::MIN | i64::from(i32::MIN)
                }),
            ],
        ),
        (
            11,
            UnknownKey,
            vec![("replaces nothing", |c| {
                c.kind_and_flags |= REPLACE;
                c.key = 3;
            })],
        ),
        (
            12,
            Overlap,
            vec![
                ("the same", |c| {
                    c.section = Case::of(c, &[(TAKEN.0, 8), (TAKEN.0 + 0xff8, 8)])
                }),
                ("first byte", |c| {
                    c.section = Case::of(c, &[(TAKEN.0 - 8, 8), (TAKEN.0, 1)])
                }),
                ("last byte", |c| {
                    c.section = Case::of(c, &[(TAKEN.0 + 0xfff, 1), (0x9000, 1)])
                }),
                ("around", |c| {
                    c.section = Case::of(c, &[(0x100, 8), (0x9000, 8)])
                }),
                ("inside", |c| {
                    c.section = Case::of(c, &[(0x5100, 8), (0x5200, 8)])
                }),
            ],
        ),
        (13, Quota, vec![("no room", |c| c.room = 1)]),
    ]
}

impl Case {
    fn of(&self, functions: &[(u64, u32)]) -> Section {
        Section {
            magic: self.section.magic,
            ..Section::new(self.section.version, self.section.flags, AT, functions)
        }
    }
}

#[test]
fn every_check_answers_its_errno() {
    for version in [2, 3] {
        assert_eq!(Case::sound(version).answer(), Ok(2));
        for (check, refusal, breaks) in breaks() {
            for (what, break_it) in breaks {
                let mut case = Case::sound(version);
                break_it(&mut case);
                assert_eq!(case.answer(), Err(refusal), "{check} {what}: {case:x?}");
            }
        }
    }
}

#[test]
fn the_first_check_that_fails_answers() {
    let breaks = breaks();
    let mut pairs = 0;
    for (first, refusal, first_breaks) in &breaks {
        for (second, _, second_breaks) in &breaks {
            // What a key replaces is not in the way: these two exclude each other.
            if first >= second || (*first, *second) == (11, 12) {
                continue;
            }
            for (what, break_it) in first_breaks {
                for (then, break_more) in second_breaks {
                    let mut case = Case::sound(3);
                    break_more(&mut case);
                    // A section that was replaced whole takes what was broken in the header along.
                    break_it(&mut case);
                    assert_eq!(
                        case.answer(),
                        Err(*refusal),
                        "{first} {what}, {second} {then}"
                    );
                    pairs += 1;
                }
            }
        }
    }
    assert!(pairs > 1000, "{pairs}");
}

#[test]
fn what_just_fits() {
    let limits: [Named; 8] = [
        ("first byte is at 1", |c| {
            c.section = Case::of(c, &[(1, 8), (0x1000, 8)])
        }),
        ("ends at the end of user addresses", |c| {
            if c.section.version == 3 {
                c.section = Case::of(c, &[(0x6000, 8), (END - 8, 8)]);
            }
        }),
        ("touches from below", |c| {
            c.section = Case::of(c, &[(0x100, 8), (TAKEN.0 - 8, 8)])
        }),
        ("touches from above", |c| {
            c.section = Case::of(c, &[(0x6000, 8), (0x7000, 8)])
        }),
        ("bytes behind", |c| c.section.rows_len = 0),
        ("rows without bytes", |c| {
            c.section.rows_len = 0;
            c.section.rows_at += 3;
        }),
        ("other key replaced", |c| {
            c.kind_and_flags = REPLACE;
            c.key = 1;
            c.section = Case::of(c, &[(TAKEN.0, 8), (TAKEN.0 + 8, 8)]);
        }),
        ("room for one more", |c| c.room = 2),
    ];
    for version in [2, 3] {
        for (what, change) in &limits {
            let mut case = Case::sound(version);
            change(&mut case);
            assert_eq!(case.answer(), Ok(2), "{version} {what}");
        }
    }
    // A frame pointer flag means something in V2.
    let mut case = Case::sound(2);
    case.section.flags |= FRAME_POINTER;
    assert_eq!(case.answer(), Ok(2));
}

#[test]
fn the_two_options_and_no_others() {
    let mut registry = Registry::default();
    let section = Section::new(3, SORTED, AT, &[(0x1000, 8)]);
    let length = section.bytes().len() as u64;
    let process = Process::new(AT, section.bytes());
    let mut call = |option, arguments| {
        let mut read = |address, into: &mut [u8]| process.read(address, into);
        registry.prctl(PID, option, arguments, &mut read)
    };
    assert_eq!(call(REGISTER, [9, AT, length, 0]), Some(1));
    assert_eq!(call(REGISTER, [9, AT, length, 0]), Some(-17));
    assert_eq!(call(REGISTER, [9, AT, length, REPLACE]), Some(2));
    for third in [[9, 1, 0, 0], [9, 0, 1, 0], [9, 0, 0, 1], [8, 0, 0, REPLACE]] {
        assert_eq!(call(UNREGISTER, third), Some(-22));
    }
    assert_eq!(call(UNREGISTER, [8, 0, 0, 0]), Some(-2));
    assert_eq!(call(UNREGISTER, [9, 0, 0, 0]), Some(1));
    assert_eq!(call(UNREGISTER, [9, 0, 0, 0]), Some(-2));
    for option in [0, 1, REGISTER - 1, UNREGISTER + 1, u32::MAX] {
        assert_eq!(call(option, [9, AT, length, 0]), None);
    }
}

/// The checks once more, word for word and in numbers that cannot overflow.
fn expected(address: u64, length: u64, process: &Process) -> Result<(u64, u64), Refusal> {
    let (a, l, end) = (i128::from(address), i128::from(length), i128::from(END));
    if address == 0 || length == 0 || a + l > end || l >= 1 << 32 {
        return Err(Refusal::Arguments);
    }
    if length < 28 {
        return Err(Refusal::Malformed);
    }
    let mut h = [0; 28];
    if !process.read(address, &mut h) {
        return Err(Refusal::Unreadable);
    }
    if h[..2] != [0xe2, 0xde] {
        return Err(Refusal::Malformed);
    }
    if !(h[2] == 2 || h[2] == 3) || h[4] != 3 {
        return Err(Refusal::Unsupported);
    }
    let unknown = if h[2] == 2 { !7 } else { !5 };
    if h[3] & unknown != 0 || h[3] & 1 == 0 || h[5] != 0 || h[6] != 0xf8 {
        return Err(Refusal::Malformed);
    }
    let word = |at: usize| i128::from(u32::from_le_bytes(h[at..at + 4].try_into().unwrap()));
    let (functions, entry) = (word(8), if h[2] == 2 { 20 } else { 16 });
    let base = 28 + i128::from(h[7]);
    let (index, rows) = (base + word(20), base + word(24));
    if functions == 0 || index + functions * entry > rows || rows + word(16) > l {
        return Err(Refusal::Malformed);
    }
    let mut spans = Vec::new();
    for i in [0, functions - 1] {
        let at = index + i * entry;
        let mut bytes = vec![0; entry as usize];
        if !process.read((a + at) as u64, &mut bytes) {
            return Err(Refusal::Unreadable);
        }
        let base = if h[3] & 4 != 0 { a + at } else { a };
        let (field, size) = match h[2] {
            2 => (
                i128::from(i32::from_le_bytes(bytes[..4].try_into().unwrap())),
                4,
            ),
            _ => (
                i128::from(i64::from_le_bytes(bytes[..8].try_into().unwrap())),
                8,
            ),
        };
        let size = u32::from_le_bytes(bytes[size..size + 4].try_into().unwrap());
        spans.push((base + field, i128::from(size)));
    }
    let (first, last) = (spans[0].0, spans[1].0 + spans[1].1);
    // A sum that leaves 64 bits is below 0: none can be above.
    match spans[1].0 >= 0 && first > 0 && last > first && last <= end {
        true => Ok((first as u64, last as u64)),
        false => Err(Refusal::Malformed),
    }
}

/// Numbers at which something changes, and around them.
fn edge() -> impl Strategy<Value = u64> {
    let near = prop::sample::select(vec![
        0,
        28,
        44,
        48,
        60,
        68,
        71,
        256,
        1 << 16,
        AT,
        1 << 31,
        1 << 32,
        END,
        1 << 63,
    ]);
    prop_oneof![
        4 => (near, -20i64..20).prop_map(|(near, by)| near.wrapping_add_signed(by)),
        1 => any::<u64>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_headers_are_answered_word_for_word(
        version in 2..=3u8,
        flags in prop_oneof![Just(SORTED), Just(SORTED | PCREL)],
        changes in prop::collection::vec((0..92usize, any::<u8>()), 0..3),
        words in prop::collection::vec((prop::sample::select(vec![8usize, 12, 16, 20, 24, 28, 32, 36, 44, 48, 52, 56]), edge()), 0..3),
        address in prop_oneof![20 => Just(AT), 1 => edge()],
        length in prop_oneof![5 => Just(None), 3 => (0u64..200).prop_map(Some), 1 => edge().prop_map(Some)],
        hole in prop_oneof![5 => Just(92usize), 1 => 0..92usize],
    ) {
        let mut bytes = Section::new(version, flags, AT, &[(0x1000, 0x10), (0x1100, 0x20)]).bytes();
        let sound = bytes.len() as u64;
        bytes.resize(92, 0);
        for (at, word) in words {
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(hole);
        let length = length.unwrap_or(sound);
        let process = Process::new(AT, bytes);
        let mut registry = Registry::default();
        let mut read = |address, into: &mut [u8]| process.read(address, into);
        let answer = registry.register(PID, 1, address, length, 0, &mut read);
        let text = answer.map(|announced| (announced.claim.text.start, announced.claim.text.end));
        prop_assert_eq!(text, expected(address, length, &process));
    }
}
