//! Frame areas: headers, and what each call that registers one is answered.

use crate::sections::{put, section};
use crate::stage::{Actor, Call, PAGE, Stage};
use framewalk_announce::abi::{KIND_AREA, MAX_AREAS, REPLACE, USER_END};
use framewalk_announce::area::layout::*;
use libc::{EBADMSG, EEXIST, EFAULT, EINVAL, ENOENT, ENOSPC, EPROTONOSUPPORT};

/// Memory of the puppets; behind it nothing is mapped.
const AT: u64 = 0x1000_0000_0000;
const END: u64 = AT + 16 * PAGE;
/// Texts that areas describe. Nobody asks whether there is any.
const TEXT: u64 = AT + 0x1000_0000;
/// Bytes of a header, apart from each other.
const STEP: u64 = 0x100;

/// What the header of an area says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) text: u64,
    pub(crate) text_len: u64,
    pub(crate) area_len: u64,
    pub(crate) capacity: u32,
    pub(crate) shift: u16,
    pub(crate) key: u64,
    /// `how` and the two words of the default rule.
    pub(crate) default: [u32; 3],
}

impl Shape {
    /// An area that is nothing but its header: frame pointers.
    pub(crate) fn new(key: u64, text: u64, text_len: u64) -> Shape {
        Shape {
            text,
            text_len,
            area_len: HEADER_SIZE,
            capacity: 0,
            shift: 12,
            key,
            default: [FRAME_POINTER, 0, 0],
        }
    }

    /// Bytes of an area with this geometry and no heap.
    pub(crate) fn least_len(&self) -> u64 {
        Parts::new(self.capacity, self.text_len, self.shift.into()).heap_at
    }

    /// The part of the header that never changes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; GEOMETRY_SIZE as usize];
        bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
        let [how, rule0, rule1] = self.default.map(u64::from);
        for (at, len, value) in [
            (BYTE_ORDER_AT, 4, BYTE_ORDER.into()),
            (HEADER_SIZE_AT, 2, HEADER_SIZE),
            (ENTRY_SIZE_AT, 2, ENTRY_SIZE),
            (MACHINE_AT, 2, 62),
            (GRANULE_SHIFT_AT, 2, self.shift.into()),
            (CAPACITY_AT, 4, self.capacity.into()),
            (TEXT_START_AT, 8, self.text),
            (TEXT_LEN_AT, 8, self.text_len),
            (AREA_LEN_AT, 8, self.area_len),
            (KEY_AT, 8, self.key),
            (DEFAULT_AT, 4, how),
            (DEFAULT_AT + 4, 4, rule0),
            (DEFAULT_AT + 8, 4, rule1),
        ] {
            put(&mut bytes, at as usize, len, value);
        }
        bytes
    }

    /// Writes it, and says how to register it.
    fn prepare(&self, actor: &Actor, at: u64) -> Call {
        actor.write(at, &self.bytes());
        register(self.key, at, self.area_len)
    }
}

/// Fields of the header: offset and bytes.
pub(crate) const FIELDS: [(u64, usize); 15] = [
    (MAGIC_AT, 7),
    (MAGIC_AT + 7, 1),
    (BYTE_ORDER_AT, 4),
    (HEADER_SIZE_AT, 2),
    (ENTRY_SIZE_AT, 2),
    (MACHINE_AT, 2),
    (GRANULE_SHIFT_AT, 2),
    (CAPACITY_AT, 4),
    (TEXT_START_AT, 8),
    (TEXT_LEN_AT, 8),
    (AREA_LEN_AT, 8),
    (KEY_AT, 8),
    (DEFAULT_AT, 4),
    (DEFAULT_AT + 4, 8),
    (RESERVED_AT, 4),
];

pub(crate) fn register(key: u64, at: u64, length: u64) -> Call {
    let mut call = Call::register(key, at, length);
    call.arguments[3] = KIND_AREA;
    call
}

pub(crate) fn replace(mut call: Call) -> Call {
    call.arguments[3] |= REPLACE;
    call
}

/// Values of the fields, and whether they are sound or which error they are. The area has 16 entries, 64 kB of text in
/// granules of 4 kB, and room for more.
fn values() -> Vec<(u64, usize, u64, i32)> {
    let sound = 0;
    let mut values = vec![
        (BYTE_ORDER_AT, 4, 0x0403_0201, EBADMSG),
        (BYTE_ORDER_AT, 4, 0, EBADMSG),
    ];
    // Each byte of the magic; the last one is the version.
    let name = u64::from_le_bytes(MAGIC);
    for byte in 0..7 {
        values.push((MAGIC_AT, 8, name ^ 1 << (8 * byte), EBADMSG));
    }
    let mut of = |at, len, cases: &[(u64, i32)]| {
        values.extend(cases.iter().map(|&(value, errno)| (at, len, value, errno)));
    };
    let (unsupported, malformed) = (EPROTONOSUPPORT, EBADMSG);
    of(
        MAGIC_AT + 7,
        1,
        &[(0, unsupported), (2, unsupported), (255, unsupported)],
    );
    of(
        MACHINE_AT,
        2,
        &[(0, unsupported), (183, unsupported), (62 << 8, unsupported)],
    );
    for (at, size) in [(HEADER_SIZE_AT, HEADER_SIZE), (ENTRY_SIZE_AT, ENTRY_SIZE)] {
        let cases = [0, size - 1, size + 1, 0xffff];
        of(at, 2, &cases.map(|value| (value, malformed)));
    }
    of(
        GRANULE_SHIFT_AT,
        2,
        &[
            (0, malformed),
            (5, malformed),
            // 1024 granules, and a single one.
            (6, sound),
            (16, sound),
            (17, malformed),
            (12 + 32, malformed),
            (0xffff, malformed),
        ],
    );
    // 256 bytes of header, 32 an entry, 64 of the index, in 8192.
    of(
        CAPACITY_AT,
        4,
        &[
            (0, sound),
            (1, sound),
            (246, sound),
            (247, malformed),
            (MAX_CAPACITY.into(), malformed),
            (u64::from(MAX_CAPACITY) + 1, malformed),
            (u32::MAX.into(), malformed),
        ],
    );
    of(
        TEXT_START_AT,
        8,
        &[
            (0, malformed),
            (1, sound),
            (USER_END - 0x10000, sound),
            (USER_END - 0xffff, malformed),
            (USER_END, malformed),
            (1 << 63, malformed),
            (u64::MAX - 0xffff, malformed),
            (u64::MAX, malformed),
        ],
    );
    // 7424 bytes of index: 1856 granules.
    of(
        TEXT_LEN_AT,
        8,
        &[
            (0, malformed),
            (1, sound),
            (1856 << 12, sound),
            ((1856 << 12) + 1, malformed),
            (MAX_TEXT, malformed),
            (MAX_TEXT + 1, malformed),
            (1 << 63, malformed),
            (u64::MAX, malformed),
        ],
    );
    let lengths = [0, LENGTH - 1, LENGTH + 1, LENGTH | 1 << 32, u64::MAX];
    of(AREA_LEN_AT, 8, &lengths.map(|len| (len, malformed)));
    let keys = [0, 8, KEY | 1 << 32, u64::MAX];
    of(KEY_AT, 8, &keys.map(|key| (key, malformed)));
    for at in (RESERVED_AT..GEOMETRY_SIZE).step_by(4) {
        of(at, 4, &[(1, malformed), (1 << 31, malformed)]);
    }
    values
}

const KEY: u64 = 7;
const LENGTH: u64 = 0x2000;

/// How a default rule may be, and how not: `how`, the words, and the error.
fn defaults() -> Vec<([u32; 3], i32)> {
    let how = |kind: u32, flags: u32| kind | flags << 8;
    let mut all = vec![
        ([NONE, 0, 0], 0),
        ([NONE, 1, 0], EBADMSG),
        ([NONE, 0, 1], EBADMSG),
        ([FIXED, 8, halves(-8, 0)], 0),
        ([FIXED, 0, halves(-8, 0)], EBADMSG),
        ([FIXED, 12, halves(-8, 0)], EBADMSG),
        ([FIXED, 1 << 26, halves(-8, -16)], 0),
        ([FIXED, (1 << 26) + 8, halves(-8, 0)], EBADMSG),
        ([FIXED, 8u32.wrapping_neg(), halves(-8, 0)], EBADMSG),
        ([FIXED, 8, halves(-7, 0)], EBADMSG),
        ([FIXED, 8, halves(-8, 4)], EBADMSG),
        ([how(FIXED, IN_REGISTER), 0, halves(0, 0)], 0),
        ([how(FIXED, IN_REGISTER), 0, halves(15, 0)], 0),
        ([how(FIXED, IN_REGISTER), 0, halves(16, 0)], EBADMSG),
        ([how(FIXED, IN_REGISTER), 0, halves(-1, 0)], EBADMSG),
        ([STACK_SWITCH, halves(8, 16), halves(-8, 0)], 0),
        ([STACK_SWITCH, halves(4, 16), halves(-8, 0)], EBADMSG),
        ([STACK_SWITCH, halves(8, 4), halves(-8, 0)], EBADMSG),
        ([STACK_SWITCH, halves(8, 8), halves(-4, 0)], EBADMSG),
        (
            [how(STACK_SWITCH, IN_REGISTER), halves(16, 0), halves(-8, 0)],
            EBADMSG,
        ),
        // A default has no heap, no name, and is no signal's.
        ([ROWS, 0, 8], EBADMSG),
        ([7, 0, 0], EBADMSG),
        ([0xff, 0, 0], EBADMSG),
    ];
    for kind in [FRAME_POINTER, OUTERMOST, OPAQUE] {
        all.push(([kind, 0, 0], 0));
        all.push(([kind, 1, 0], EBADMSG));
        all.push(([kind, 0, 1], EBADMSG));
        all.push(([how(kind, RUNTIME), 0, 0], 0));
        for flags in [SIGNAL, IN_REGISTER, NAMED, 16, 0x80] {
            all.push(([how(kind, flags), 0, 0], EBADMSG));
        }
        // Every entry has a prologue, text as a whole has none.
        all.push(([kind | 1 << 16, 0, 0], EBADMSG));
    }
    for flags in [RUNTIME, SIGNAL, IN_REGISTER] {
        all.push(([how(NONE, flags), 0, 0], EBADMSG));
    }
    all
}

/// Registers it; if it is taken, takes it back. The reference says the same, or [`Stage::ask`] fails.
fn tried(stage: &mut Stage, actor: &mut Actor, call: Call) -> i32 {
    let answer = stage.ask(actor, call);
    if answer > 0 {
        let key = call.arguments[0];
        assert_eq!(stage.ask(actor, Call::unregister(key)), 1);
        return 0;
    }
    answer as i32
}

#[test]
fn every_field_at_its_bounds() {
    let Some(mut stage) = Stage::open("every_field_at_its_bounds") else {
        return;
    };
    let mut actor = stage.puppet();
    actor.map(AT, END - AT);
    let shape = Shape {
        area_len: LENGTH,
        capacity: 16,
        ..Shape::new(KEY, TEXT, 0x10000)
    };
    let call = shape.prepare(&actor, AT);
    assert_eq!(tried(&mut stage, &mut actor, call), 0);
    for (at, len, value, errno) in values() {
        let mut bytes = shape.bytes();
        put(&mut bytes, at as usize, len, value);
        actor.write(AT, &bytes);
        let answer = tried(&mut stage, &mut actor, call);
        assert_eq!(answer, -errno, "{len} bytes at {at}: {value:#x}");
        if errno != 0 {
            // A key that holds nothing comes later.
            assert_eq!(tried(&mut stage, &mut actor, replace(call)), -errno);
        }
    }
    for (default, errno) in defaults() {
        let shape = Shape { default, ..shape };
        let call = shape.prepare(&actor, AT);
        let answer = tried(&mut stage, &mut actor, call);
        assert_eq!(answer, -errno, "{default:x?}");
    }
    stage.check();
    stage.exit(actor);
    stage.finish();
}

/// Each call has the fault that is named, and those of all checks behind it.
#[test]
fn areas_are_checked_in_order() {
    let Some(mut stage) = Stage::open("areas_are_checked_in_order") else {
        return;
    };
    let mut actor = stage.puppet();
    actor.map(AT, END - AT);
    let shape = Shape::new(KEY, TEXT, 0x10000);
    // The text is another area's, for which the key is another one, too.
    let taken = Shape::new(8, TEXT, 0x10000).prepare(&actor, AT + PAGE);
    assert!(stage.ask(&mut actor, taken) > 0);
    let mut bytes = shape.bytes();
    let faults: [(&str, u64, u64, i32); 5] = [
        ("key", KEY_AT, 9, EBADMSG),
        ("length", AREA_LEN_AT, LENGTH, EBADMSG),
        ("text", TEXT_START_AT, 0, EBADMSG),
        ("machine", MACHINE_AT, 0, EPROTONOSUPPORT),
        ("magic", MAGIC_AT, 0, EBADMSG),
    ];
    for kind in [KIND_AREA, KIND_AREA | REPLACE] {
        let mut call = shape.prepare(&actor, AT);
        call.arguments[3] = kind;
        let errno = if kind == KIND_AREA { EEXIST } else { ENOENT };
        assert_eq!(stage.ask(&mut actor, call), (-errno).into());
    }
    let ask = |stage: &mut Stage, actor: &mut Actor, address, length, kind| {
        let mut call = register(KEY, address, length);
        call.arguments[3] = kind;
        stage.ask(actor, call) as i32
    };
    for (what, at, value, errno) in faults {
        put(
            &mut bytes,
            at as usize,
            if at == MACHINE_AT { 2 } else { 8 },
            value,
        );
        actor.write(AT, &bytes);
        let answer = ask(&mut stage, &mut actor, AT, HEADER_SIZE, KIND_AREA);
        assert_eq!(answer, -errno, "{what}");
    }
    for (address, length, kind, errno) in [
        (AT, HEADER_SIZE, KIND_AREA | 2, EINVAL),
        (AT, HEADER_SIZE, KIND_AREA | 0x200, EINVAL),
        (0, HEADER_SIZE, KIND_AREA, EINVAL),
        (AT, 0, KIND_AREA, EINVAL),
        (AT, 1 << 32, KIND_AREA, EINVAL),
        (USER_END - 0xff, HEADER_SIZE, KIND_AREA, EINVAL),
        (u64::MAX - 0xfe, HEADER_SIZE, KIND_AREA, EINVAL),
        (AT, GEOMETRY_SIZE - 1, KIND_AREA, EBADMSG),
        (END, GEOMETRY_SIZE - 1, KIND_AREA, EBADMSG),
        (END, GEOMETRY_SIZE, KIND_AREA, EFAULT),
        (END - GEOMETRY_SIZE + 1, GEOMETRY_SIZE, KIND_AREA, EFAULT),
        (USER_END - HEADER_SIZE, HEADER_SIZE, KIND_AREA, EFAULT),
    ] {
        let answer = ask(&mut stage, &mut actor, address, length, kind);
        assert_eq!(answer, -errno, "{length:#x} at {address:#x}, {kind:#x}");
    }
    stage.check();
    stage.exit(actor);
    stage.finish();
}

#[test]
fn areas_and_sections_keep_apart() {
    let Some(mut stage) = Stage::open("areas_and_sections_keep_apart") else {
        return;
    };
    let mut actor = stage.puppet();
    actor.map(AT, END - AT);
    let area = |actor: &Actor, key, n: u64, text, len| {
        Shape::new(key, text, len).prepare(actor, AT + n * STEP)
    };
    let of_section = |actor: &Actor, key, n: u64, text, len| {
        let bytes = section(AT + n * STEP, text, len);
        actor.write(AT + n * STEP, &bytes);
        Call::register(key, AT + n * STEP, bytes.len() as u64)
    };
    let refused = |stage: &mut Stage, actor: &mut Actor, call, errno: i32| {
        assert_eq!(stage.ask(actor, call), (-errno).into(), "{call:x?}");
    };
    let first = of_section(&actor, 1, 0, TEXT + 0x1000, 0x1000);
    let second = area(&actor, 2, 1, TEXT + 0x3000, 0x1000);
    for call in [first, second] {
        assert!(stage.ask(&mut actor, call) > 0);
    }
    // By a byte on either side, around, inside, and the same.
    for (text, len) in [
        (0u64, 0x1001u32),
        (0x1fff, 0x10),
        (0, 0x8000),
        (0x1100, 0x10),
        (0x1000, 0x1000),
    ] {
        for shift in [0, 0x2000] {
            let text = TEXT + text + shift;
            let call = area(&actor, 3, 2, text, len.into());
            refused(&mut stage, &mut actor, call, EEXIST);
            let call = of_section(&actor, 3, 3, text, len);
            refused(&mut stage, &mut actor, call, EEXIST);
        }
    }
    // Between them there is room for one.
    let between = area(&actor, 3, 2, TEXT + 0x2000, 0x1000);
    assert!(stage.ask(&mut actor, between) > 0);
    stage.check();
    // A section by an area, that by another one, and that by a section.
    for call in [
        replace(area(&actor, 1, 4, TEXT + 0x800, 0x1000)),
        replace(area(&actor, 1, 5, TEXT + 0x1800, 0x800)),
        replace(of_section(&actor, 1, 6, TEXT + 0x1000, 0x1000)),
    ] {
        assert!(stage.ask(&mut actor, call) > 0, "{call:x?}");
        stage.check();
    }
    let other = replace(area(&actor, 2, 7, TEXT + 0x2fff, 0x1000));
    refused(&mut stage, &mut actor, other, EEXIST);
    let nobody = replace(area(&actor, 9, 8, TEXT + 0x9000, 0x1000));
    refused(&mut stage, &mut actor, nobody, ENOENT);
    stage.check();
    for key in 1..4 {
        assert_eq!(stage.ask(&mut actor, Call::unregister(key)), 1);
        refused(&mut stage, &mut actor, Call::unregister(key), ENOENT);
    }
    stage.check();
    stage.exit(actor);
    stage.finish();
}

#[test]
fn quotas_of_areas() {
    let Some(mut stage) = Stage::open("quotas_of_areas") else {
        return;
    };
    let mut actor = stage.puppet();
    actor.map(AT, END - AT);
    let area = |actor: &Actor, key: u64, n: u64, area_len| {
        let shape = Shape::new(key, TEXT + n * 0x1000, 0x1000);
        Shape { area_len, ..shape }.prepare(actor, AT + n * STEP)
    };
    let most = MAX_AREAS as u64;
    for n in 0..most {
        let call = area(&actor, n % 8, n, HEADER_SIZE);
        assert!(stage.ask(&mut actor, call) > 0, "{n}");
    }
    let more = area(&actor, 1, most, HEADER_SIZE);
    assert_eq!(stage.ask(&mut actor, more), (-ENOSPC).into());
    // Sections are not areas; and a fork has as many, and no more.
    let bytes = section(AT + (most + 1) * STEP, TEXT + (most + 1) * 0x1000, 8);
    actor.write(AT + (most + 1) * STEP, &bytes);
    let a_section = Call::register(99, AT + (most + 1) * STEP, bytes.len() as u64);
    assert!(stage.ask(&mut actor, a_section) > 0);
    let mut child = stage.fork(&mut actor);
    stage.check();
    assert_eq!(stage.state()[&child.pid].len() as u64, most + 1);
    assert_eq!(stage.ask(&mut child, more), (-ENOSPC).into());
    // In the place of eight there is room for one; and then for seven.
    assert!(stage.ask(&mut child, replace(more)) > 0);
    stage.check();
    for n in 0..8 {
        let call = area(&child, 50, most + 2 + n, HEADER_SIZE);
        let answer = stage.ask(&mut child, call);
        assert_eq!(answer > 0, n < 7, "{n}: {answer}");
    }
    stage.check();
    assert_eq!(stage.ask(&mut child, Call::unregister(50)), 7);
    // exec drops all.
    let child = stage.exec(child);
    stage.check();
    stage.exit(child);
    for key in 0..8 {
        assert_eq!(stage.ask(&mut actor, Call::unregister(key)), 8);
    }

    // Bytes: nobody asks whether they are mapped.
    let half = MAX_AREA / 2;
    for (n, len, fits) in [
        (0, MAX_AREA + 1, false),
        (0, half, true),
        (1, half + 1, false),
        (1, half, true),
        (2, HEADER_SIZE, false),
    ] {
        let call = area(&actor, n, n, len);
        let answer = stage.ask(&mut actor, call);
        let expected = if fits {
            answer.max(1)
        } else {
            (-ENOSPC).into()
        };
        assert_eq!(answer, expected, "{n}: {len:#x}");
    }
    for (len, fits) in [(half + 1, false), (half - HEADER_SIZE, true)] {
        let call = replace(area(&actor, 1, 3, len));
        assert_eq!(stage.ask(&mut actor, call) > 0, fits, "{len:#x}");
    }
    let last = area(&actor, 2, 2, HEADER_SIZE);
    assert!(stage.ask(&mut actor, last) > 0);
    stage.check();
    stage.exit(actor);
    stage.finish();
}
