//! What a producer writes into a frame area, and what it refuses.

mod looker;

use framewalk_announce::area::layout::*;
use framewalk_announce::area::observe;
use framewalk_announce::area::{
    Area, CreateError, Function, Label, Options, Place, PublishError, Rule, RuleError, Slot,
};
use looker::{Looker, bytes, oracle, word, zeros};
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

const TEXT: u64 = 0x10000;

/// A small area: 64 kB of text, granules of 64 bytes.
fn options(capacity: u32, heap: u64) -> Options {
    Options {
        capacity,
        granule_shift: 6,
        heap,
        key: 0x1122_3344_5566_7788,
        ..Options::new(TEXT, 0x10000)
    }
}

fn plain(start: u64, size: u32) -> Function<'static> {
    Function::new(start, size, Rule::FramePointer)
}

#[test]
fn the_tiny_area_of_the_layout_is_drawn_right() {
    let options = Options {
        text_len: 0x100,
        capacity: 4,
        default_rule: Rule::fixed(16),
        ..options(0, 8)
    };
    let len = options.area_len().unwrap();
    let memory = zeros(len);
    let area = Area::new(&memory, &options).unwrap();
    let f = Function {
        label: Label::Name("f"),
        ..plain(0x10010, 0x20)
    };
    let g = Function {
        prologue_len: 4,
        runtime: true,
        label: Label::Cookie(7),
        ..Function::new(0x10030, 0xb0, Rule::fixed(32))
    };
    let slots = [&f, &g, &plain(0x100e0, 0x10)].map(|f| area.publish(f).unwrap().number());
    assert_eq!(slots, [0, 1, 2]);

    let mut drawn = String::new();
    for (row, bytes) in bytes(&memory, 0, len as usize).chunks(16).enumerate() {
        if bytes.iter().any(|&byte| byte != 0) {
            let _ = write!(drawn, "{:03}:", 16 * row);
            for word in bytes.chunks(4) {
                let _ = write!(
                    drawn,
                    " {:02x}{:02x}{:02x}{:02x}",
                    word[0], word[1], word[2], word[3]
                );
            }
            drawn.push('\n');
        }
    }
    let expected = "\
000: 53464152 45410001 04030201 00012000
016: 3e000600 04000000 00000100 00000000
032: 00010000 00000000 98010000 00000000
048: 88776655 44332211 02000000 10000000
064: f8ff0000 00000000 00000000 00000000
192: 03000000 04000000 00000000 00000000
256: 10000000 20000000 02000000 01080000
288: 30000000 b0000000 02000000 02010400
304: 20000000 f8ff0000 01000000 07000000
320: e0000000 10000000 02000000 01000000
384: 02000000 02000080 02000080 03000000
400: 01660000 00000000
";
    assert_eq!(drawn, expected);

    let looker = Looker::new(&memory, len);
    let pcs = [
        0x1000f, 0x10010, 0x1002f, 0x10030, 0x10080, 0x100d0, 0x100df, 0x100e0, 0x100f0,
    ];
    let found = pcs.map(|pc| looker.slot(pc));
    let [f, g, h] = [Some(0), Some(1), Some(2)];
    assert_eq!(found, [None, f, f, g, g, g, g, h, None]);
    assert_eq!(looker.name(0x10010), "f");
    assert_eq!(looker.look(0x100d0).unwrap().unwrap().cookie(), Some(7));
}

#[test]
fn what_is_published_is_found_until_it_is_dead() {
    let options = options(16, 64);
    let len = options.area_len().unwrap();
    let memory = zeros(len);
    let area = Area::new(&memory, &options).unwrap();
    let looker = Looker::new(&memory, len);

    let slot = area.publish(&plain(TEXT + 0x100, 0x80)).unwrap();
    assert_eq!(looker.slot(TEXT + 0x17f), Some(slot.number()));
    let moved = area.moved(slot, TEXT + 0x130).unwrap();
    assert_eq!(looker.slot(TEXT + 0x100), None);
    assert_eq!(looker.slot(TEXT + 0x1af), Some(moved.number()));
    assert_eq!(word(&memory, TOMBSTONES_AT), 1);

    assert!(!area.tombstone(slot), "it is dead already");
    assert_eq!(area.moved(slot, TEXT), Err(PublishError::NotLive));
    assert!(area.tombstone(moved));
    assert!(!area.tombstone(moved));
    assert_eq!(looker.slot(TEXT + 0x1af), None);
    assert_eq!(word(&memory, TOMBSTONES_AT), 2);

    // The same place again: another slot.
    let again = area.publish(&plain(TEXT + 0x100, 0x80)).unwrap();
    assert_eq!(again.number(), 2);
    assert_eq!(looker.slot(TEXT + 0x100), Some(2));

    // Where it cannot go it is not, and it is not where it was either.
    let gone = area.moved(again, TEXT + 0x10000);
    assert_eq!(gone, Err(PublishError::Range));
    assert_eq!(looker.slot(TEXT + 0x100), None);
}

#[test]
fn a_name_and_rows_move_with_their_function() {
    let options = options(4, 64);
    let len = options.area_len().unwrap();
    let memory = zeros(len);
    let area = Area::new(&memory, &options).unwrap();
    let looker = Looker::new(&memory, len);
    let rows = [1, 0, 0, 0, 0, 0, 3, 8];
    let function = Function {
        label: Label::Name("ö"),
        ..Function::new(TEXT, 16, Rule::Rows(&rows))
    };
    let slot = area.publish(&function).unwrap();
    let used = word(&memory, HEAP_USED_AT);
    area.moved(slot, TEXT + 0x1000).unwrap();
    assert_eq!(word(&memory, HEAP_USED_AT), used, "no second copy");
    assert_eq!(looker.name(TEXT + 0x1000), "ö");
    let found = looker.look(TEXT + 0x1000).unwrap().unwrap();
    let observe::Rule::Rows { at, len } = found.rule(&looker.geometry).unwrap() else {
        panic!("{found:?}");
    };
    assert_eq!(bytes(&memory, at, len as usize), rows);
}

#[test]
fn every_rule_is_read_as_it_was_meant() {
    let at = |ra| Place::At(ra);
    let fixed = |cfa, ra, fp| observe::Rule::Fixed { cfa, ra, fp };
    let switch = |stack, cfa, ra, fp| observe::Rule::StackSwitch { stack, cfa, ra, fp };
    let cases = [
        (Rule::FramePointer, observe::Rule::FramePointer),
        (Rule::fixed(0x1_0008), fixed(0x1_0008, at(-8), 0)),
        (
            Rule::Fixed {
                cfa: 48,
                ra: Place::At(-0x8000),
                fp: -16,
            },
            fixed(48, at(i16::MIN), -16),
        ),
        (
            Rule::Fixed {
                cfa: 0,
                ra: Place::Register(11),
                fp: 0,
            },
            fixed(0, Place::Register(11), 0),
        ),
        (
            Rule::StackSwitch {
                stack: Place::At(24),
                cfa: -8,
                ra: -8,
                fp: -16,
            },
            switch(at(24), -8, -8, -16),
        ),
        (
            Rule::StackSwitch {
                stack: Place::Register(15),
                cfa: 16,
                ra: -8,
                fp: 0,
            },
            switch(Place::Register(15), 16, -8, 0),
        ),
        (Rule::Outermost, observe::Rule::Outermost),
        (Rule::Opaque, observe::Rule::Opaque),
    ];
    for (rule, expected) in cases {
        // As a function's, and as the default.
        let options = Options {
            default_rule: rule,
            ..options(1, 0)
        };
        let len = options.area_len().unwrap();
        let memory = zeros(len);
        let area = Area::new(&memory, &options).unwrap();
        let looker = Looker::new(&memory, len);
        let function = Function {
            prologue_len: 2,
            ..Function::new(TEXT, 3, rule)
        };
        area.publish(&function).unwrap();
        let rules = [TEXT + 1, TEXT + 2, TEXT + 3].map(|pc| {
            let found = looker.look(pc).unwrap().unwrap();
            found.rule(&looker.geometry).unwrap()
        });
        assert_eq!(rules, [observe::Rule::Entry, expected, expected]);
    }
}

#[test]
fn flags_are_read_as_they_were_meant() {
    let options = options(4, 0);
    let len = options.area_len().unwrap();
    let memory = zeros(len);
    let area = Area::new(&memory, &options).unwrap();
    let looker = Looker::new(&memory, len);
    let cases = [(false, false), (false, true), (true, false), (true, true)];
    for ((runtime, signal), start) in cases.into_iter().zip((TEXT..).step_by(16)) {
        let function = Function {
            runtime,
            signal,
            ..plain(start, 16)
        };
        area.publish(&function).unwrap();
        let found = looker.look(start).unwrap().unwrap();
        assert_eq!((found.is_runtime(), found.is_signal()), (runtime, signal));
    }
}

/// Whatever is said to be in use of it.
#[test]
fn the_heap_ends_with_the_area() {
    let options = options(2, 64);
    let len = options.area_len().unwrap();
    let memory = zeros(len);
    let area = Area::new(&memory, &options).unwrap();
    let looker = Looker::new(&memory, len);
    let rows = [1, 0, 0, 0, 0, 0, 3, 8];
    let function = Function {
        label: Label::Name("f"),
        ..Function::new(TEXT, 16, Rule::Rows(&rows))
    };
    area.publish(&function).unwrap();
    let store = |at: u64, value| memory[at as usize / 4].store(value, Relaxed);
    store(HEAP_USED_AT, u32::MAX);
    let heap = (len - looker.geometry.parts().heap_at) as u32;
    let says = |first, rows, name| {
        store(HEADER_SIZE + RULE0, first);
        store(HEADER_SIZE + RULE1, rows);
        store(HEADER_SIZE + COOKIE, name);
        // A name of 7 bytes at the very end.
        memory.last().unwrap().store(7, Relaxed);
        let found = looker.look(TEXT)?.unwrap();
        let mut reads = oracle::Bounded::new(&memory, 0..len, 2);
        let mut into = [0; MAX_NAME as usize];
        let name = found.name(&looker.geometry, &mut into, &mut |at, into| {
            reads.read(at, into)
        });
        assert_eq!(name, Ok(&[][..]));
        found.rule(&looker.geometry)
    };
    assert!(says(heap - 8, 8, heap - 4).is_ok());
    for (first, rows) in [
        (heap - 7, 8),
        (heap, 1),
        (u32::MAX, 1),
        (u32::MAX, u32::MAX),
    ] {
        assert_eq!(says(first, rows, heap), Err(observe::Fault::Malformed));
    }
    assert!(says(0, 8, u32::MAX).is_ok());
}

#[test]
fn rules_that_nobody_could_follow_are_refused() {
    let options = options(8, 0x20000);
    let memory = zeros(options.area_len().unwrap());
    let area = Area::new(&memory, &options).unwrap();
    let fixed = |cfa, ra, fp| Rule::Fixed { cfa, ra, fp };
    let switch = |stack, cfa, ra, fp| Rule::StackSwitch { stack, cfa, ra, fp };
    let long = vec![0; MAX_ROWS as usize + 1];
    let cases = [
        (Rule::None, RuleError::Place),
        (Rule::fixed(12), RuleError::Misaligned(12)),
        (Rule::fixed(0), RuleError::Frame(0)),
        (Rule::fixed(-8), RuleError::Frame(-8)),
        (Rule::fixed(1 << 30), RuleError::Frame(1 << 30)),
        (fixed(16, Place::At(-7), 0), RuleError::Misaligned(-7)),
        (fixed(16, Place::At(-8), 4), RuleError::Misaligned(4)),
        (fixed(16, Place::Register(16), 0), RuleError::Register(16)),
        (switch(Place::At(1), 0, -8, 0), RuleError::Misaligned(1)),
        (switch(Place::At(0), 2, -8, 0), RuleError::Misaligned(2)),
        (switch(Place::At(0), 0, 3, 0), RuleError::Misaligned(3)),
        (switch(Place::At(0), 0, -8, 5), RuleError::Misaligned(5)),
        (
            switch(Place::Register(255), 0, -8, 0),
            RuleError::Register(255),
        ),
        (Rule::Rows(&[1, 0, 0, 0, 0]), RuleError::Rows(5)),
        (Rule::Rows(&long), RuleError::Rows(long.len())),
    ];
    for (rule, error) in cases {
        let answer = area.publish(&Function::new(TEXT, 16, rule));
        assert_eq!(answer, Err(PublishError::Rule(error)), "{rule:?}");
    }
    let signal = Function {
        signal: true,
        ..Function::new(TEXT, 16, switch(Place::At(0), 0, -8, 0))
    };
    let error = RuleError::Flags(SIGNAL);
    assert_eq!(area.publish(&signal), Err(PublishError::Rule(error)));
    assert_eq!(area.claimed(), 0);
    assert_eq!(word(&memory, HEAP_USED_AT), 0);
}

#[test]
fn functions_lie_in_the_text() {
    let options = options(8, 0);
    let memory = zeros(options.area_len().unwrap());
    let area = Area::new(&memory, &options).unwrap();
    for (start, size) in [
        (TEXT - 1, 2),
        (TEXT, 0),
        (TEXT, 0x10001),
        (TEXT + 0xffff, 2),
        (TEXT + 0x10000, 1),
        (u64::MAX, 1),
        (TEXT + 1, u32::MAX),
    ] {
        assert_eq!(area.publish(&plain(start, size)), Err(PublishError::Range));
    }
    area.publish(&plain(TEXT, 0x10000)).unwrap();
    assert_eq!(area.claimed(), 1);
    // All of it is that function's now.
    let inside = area.publish(&plain(TEXT + 0x8000, 1));
    assert_eq!(inside, Err(PublishError::Overlap));
}

#[test]
fn what_is_full_says_so_and_stays_as_it_is() {
    let options = options(3, 16);
    let len = options.area_len().unwrap();
    let memory = zeros(len);
    let mut area = Area::new(&memory, &options).unwrap();
    let named = |name: &'static str, start| Function {
        label: Label::Name(name),
        ..plain(start, 16)
    };
    area.publish(&named("eleven byte", TEXT)).unwrap();
    assert_eq!(
        area.publish(&named("four", TEXT + 16)),
        Err(PublishError::HeapFull)
    );
    assert_eq!(area.claimed(), 1, "no slot was lost");
    area.publish(&named("abc", TEXT + 16)).unwrap();
    area.publish(&plain(TEXT + 32, 16)).unwrap();
    for _ in 0..100 {
        assert_eq!(area.publish(&named("", TEXT + 48)), Err(PublishError::Full));
    }
    assert_eq!(word(&memory, CLAIMED_AT), 3);
    assert_eq!(word(&memory, HEAP_USED_AT), 16);
    let looker = Looker::new(&memory, len);
    assert_eq!(looker.name(TEXT), "eleven byte");
    assert_eq!(looker.name(TEXT + 16), "abc");

    area.reset();
    assert_eq!(looker.slot(TEXT), None);
    let slot = area.publish(&named("fifteen letters", TEXT)).unwrap();
    assert_eq!((slot.number(), looker.slot(TEXT)), (0, Some(0)));
    assert_eq!(looker.name(TEXT), "fifteen letters");
}

#[test]
fn a_reset_forgets_everything_but_the_header() {
    let options = options(4, 8);
    let len = options.area_len().unwrap();
    let memory = zeros(len);
    let mut area = Area::new(&memory, &options).unwrap();
    let looker = Looker::new(&memory, len);
    let mut old = Vec::new();
    for round in 0..100 {
        assert_eq!(word(&memory, GENERATION_AT), 2 * round);
        let slots: Vec<_> = (0..4)
            .map(|i| area.publish(&plain(TEXT + 0x300 * i, 0x200)).unwrap())
            .collect();
        assert!(slots.iter().zip(0..).all(|(slot, n)| slot.number() == n));
        assert!(area.tombstone(slots[0]));
        // Old slots are nobody's, whatever their numbers.
        assert!(old.iter().all(|&slot| !area.tombstone(slot)));
        assert!(old.iter().all(|&slot| area.moved(slot, TEXT).is_err()));
        assert_eq!(looker.slot(TEXT), None);
        assert_eq!(looker.slot(TEXT + 0x300), Some(1));
        assert_eq!(word(&memory, TOMBSTONES_AT), 1);
        old = slots;
        area.reset();
        assert_eq!(looker.slot(TEXT + 0x300), None);
        let counters = [CLAIMED_AT, HEAP_USED_AT, TOMBSTONES_AT].map(|at| word(&memory, at));
        assert_eq!(counters, [0; 3]);
    }
    assert_eq!(Looker::new(&memory, len).geometry, looker.geometry);
}

#[test]
fn slots_are_numbers_for_c() {
    let options = options(2, 0);
    let memory = zeros(options.area_len().unwrap());
    let mut area = Area::new(&memory, &options).unwrap();
    let first = area.publish(&plain(TEXT, 1)).unwrap();
    assert_eq!(first.to_bits(), 0);
    area.reset();
    let second = area.publish(&plain(TEXT, 1)).unwrap();
    assert_eq!(second.to_bits(), 2 << 32);
    for bits in [
        0,
        -1,
        -22,
        i64::MIN,
        i64::MAX,
        1,
        2 << 32 | 1,
        3 << 32,
        4 << 32,
    ] {
        assert!(!area.tombstone(Slot::from_bits(bits)), "{bits:#x}");
    }
    assert!(area.tombstone(Slot::from_bits(second.to_bits())));
}

#[test]
fn a_granule_has_room_for_as_many_as_are_found() {
    let options = options(1000, 0);
    let len = options.area_len().unwrap();
    let memory = zeros(len);
    let area = Area::new(&memory, &options).unwrap();
    let looker = Looker::new(&memory, len);
    let slots: Vec<_> = (0..64)
        .map(|i| area.publish(&plain(TEXT + i, 1)).unwrap())
        .collect();
    for (pc, slot) in (TEXT..).zip(&slots) {
        assert_eq!(looker.slot(pc), Some(slot.number()));
    }
    // Bytes are used up as well; a second one at the same place is a mistake, and finds no room.
    assert_eq!(area.publish(&plain(TEXT, 1)), Err(PublishError::Crowded));
    // Dead ones make room wherever they are.
    area.tombstone(slots[17]);
    area.publish(&plain(TEXT + 17, 1)).unwrap();
    assert_eq!(looker.chain(0).len(), 64);
    for (i, pc) in (0..64).zip(TEXT..) {
        assert_eq!(looker.slot(pc).is_some(), i < 64);
    }
}

#[test]
fn chains_stay_short_when_the_oldest_goes_first() {
    let options = options(100_100, 0);
    let len = options.area_len().unwrap();
    let memory = zeros(len);
    let area = Area::new(&memory, &options).unwrap();
    let looker = Looker::new(&memory, len);
    // Four places in one granule, used in turn; a new one is there before the oldest goes.
    let place = |i: u32| TEXT + u64::from(i % 4) * 16;
    let mut alive = std::collections::VecDeque::new();
    for i in 0..100_000 {
        alive.push_back((i, area.publish(&plain(place(i), 16)).unwrap()));
        if alive.len() > 3 {
            area.tombstone(alive.pop_front().unwrap().1);
        }
        assert!(looker.chain(0).len() <= 4);
    }
    for (i, slot) in alive {
        assert_eq!(looker.slot(place(i)), Some(slot.number()));
    }
}

#[test]
fn covered_granules_are_handed_on() {
    let options = options(100, 0);
    let len = options.area_len().unwrap();
    let memory = zeros(len);
    let area = Area::new(&memory, &options).unwrap();
    let looker = Looker::new(&memory, len);
    let large = area.publish(&plain(TEXT + 0x20, 0x400)).unwrap();
    assert_eq!(looker.slot(TEXT + 0x41f), Some(0));
    assert_eq!(looker.slot(TEXT + 0x420), None);
    area.tombstone(large);
    // A smaller one and another one behind it, in what the large one covered.
    let small = area.publish(&plain(TEXT + 0x60, 0x68)).unwrap().number();
    let behind = area.publish(&plain(TEXT + 0xd0, 0x10)).unwrap().number();
    let found = [0x5f, 0x60, 0xc7, 0xc8, 0xd0, 0xe0, 0x100].map(|at| looker.slot(TEXT + at));
    assert_eq!(
        found,
        [
            None,
            Some(small),
            Some(small),
            None,
            Some(behind),
            None,
            None
        ]
    );
    // And one that covers them, once they are dead.
    assert!(
        area.moved(Slot::from_bits(small.into()), TEXT + 0x1000)
            .is_ok()
    );
    assert!(area.tombstone(Slot::from_bits(behind.into())));
    let large = area.publish(&plain(TEXT + 0x20, 0x400)).unwrap().number();
    assert!((0x20..0x420).all(|at| looker.slot(TEXT + at) == Some(large)));
}

#[test]
fn names_are_cut_between_characters() {
    let options = options(8, 4096);
    let len = options.area_len().unwrap();
    let memory = zeros(len);
    let area = Area::new(&memory, &options).unwrap();
    let looker = Looker::new(&memory, len);
    let a = |n: usize| "a".repeat(n);
    let cases = [
        (String::new(), 0),
        (a(255), 255),
        (a(256), 255),
        (a(254) + "é", 254),
        (a(253) + "é", 255),
        (a(253) + "🦀", 253),
        (a(251) + "🦀a", 255),
        ("é".repeat(200), 254),
    ];
    for ((name, length), start) in cases.iter().zip((TEXT..).step_by(16)) {
        let function = Function {
            label: Label::Name(name),
            ..plain(start, 16)
        };
        area.publish(&function).unwrap();
        assert_eq!(looker.name(start), name[..*length]);
    }
}

#[test]
fn areas_that_cannot_be_are_refused() {
    let good = options(8, 64);
    let cases = [
        (
            Options {
                text_len: 0,
                ..good
            },
            CreateError::Text,
        ),
        (
            Options {
                text_len: MAX_TEXT + 1,
                ..good
            },
            CreateError::Text,
        ),
        (
            Options {
                text_start: 0,
                ..good
            },
            CreateError::Text,
        ),
        (
            Options {
                text_start: u64::MAX,
                ..good
            },
            CreateError::Text,
        ),
        (
            Options {
                capacity: MAX_CAPACITY + 1,
                ..good
            },
            CreateError::Capacity,
        ),
        (
            Options {
                granule_shift: 5,
                ..good
            },
            CreateError::Granule,
        ),
        (
            Options {
                granule_shift: 17,
                ..good
            },
            CreateError::Granule,
        ),
        (
            Options {
                granule_shift: u32::MAX,
                ..good
            },
            CreateError::Granule,
        ),
        (
            Options {
                heap: u64::MAX,
                ..good
            },
            CreateError::TooLarge,
        ),
        (
            Options {
                heap: MAX_AREA,
                ..good
            },
            CreateError::TooLarge,
        ),
        (
            Options {
                default_rule: Rule::Rows(&[0; 8]),
                ..good
            },
            CreateError::Rule(RuleError::Place),
        ),
        (
            Options {
                default_rule: Rule::fixed(7),
                ..good
            },
            CreateError::Rule(RuleError::Misaligned(7)),
        ),
    ];
    let memory = zeros(good.area_len().unwrap());
    for (options, error) in cases {
        assert_eq!(
            Area::new(&memory, &options).err(),
            Some(error),
            "{options:?}"
        );
    }
    let short = &memory[1..];
    assert_eq!(Area::new(short, &good).err(), Some(CreateError::Memory));
    assert!(
        memory
            .iter()
            .all(|word| word.load(std::sync::atomic::Ordering::Relaxed) == 0)
    );
}

#[test]
fn an_area_may_be_nothing_but_its_default_rule() {
    let options = Options {
        default_rule: Rule::FramePointer,
        text_len: MAX_TEXT,
        ..options(0, 0)
    };
    let len = options.area_len().unwrap();
    assert_eq!(len, HEADER_SIZE);
    let memory = zeros(len);
    let area = Area::new(&memory, &options).unwrap();
    let looker = Looker::new(&memory, len);
    let found = looker.look(TEXT + MAX_TEXT - 1).unwrap().unwrap();
    assert_eq!(
        found.rule(&looker.geometry),
        Ok(observe::Rule::FramePointer)
    );
    assert_eq!(area.publish(&plain(TEXT, 16)), Err(PublishError::Full));
    assert!(!area.tombstone(Slot::from_bits(0)));
}
