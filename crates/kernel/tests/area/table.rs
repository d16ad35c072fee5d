//! Every word that may change, with every value that somebody could stumble over; and areas of which some pages cannot
//! be read.

use super::both::{Answer, inside, outside};
use super::load;
use super::pages::{PAGE, Pages};
use super::random::Random;
use framewalk_announce::area::layout::*;
use framewalk_announce::area::observe::Geometry;
use framewalk_announce::area::{Area, Function, Label, Options, Place, Rule};
use framewalk_kernel::look::{Look, Outcome};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

const TEXT: u64 = 0x10_0000;
const TEXT_LEN: u64 = 0x400;
/// Places in and beside each of the functions.
const PLACES: [u64; 18] = [
    0, 0x10, 0x13, 0x2f, 0x30, 0x50, 0x90, 0xdf, 0xe0, 0xf0, 0x100, 0x118, 0x128, 0x133, 0x142,
    0x200, 0x3f0, 0x3ff,
];
const FIXED_SLOT: usize = 0;
const ROWS_SLOT: usize = 1;

/// An area with a function of each kind.
struct World {
    words: Vec<AtomicU32>,
    geometry: Geometry,
    tally: BTreeMap<String, u32>,
}

fn publish(area: &Area<'_>) {
    let rows = super::rows(&mut Random::new(3), 0xb0);
    let kinds = [
        (0x10, 0x20, Rule::fixed(24)),
        (0x30, 0xb0, Rule::Rows(&rows)),
        (
            0xe0,
            0x10,
            Rule::StackSwitch {
                stack: Place::At(8),
                cfa: 16,
                ra: -8,
                fp: -16,
            },
        ),
        (0x100, 0x10, Rule::FramePointer),
        (0x110, 0x10, Rule::Opaque),
        (0x120, 0x10, Rule::Outermost),
        (
            0x130,
            0x10,
            Rule::Fixed {
                cfa: 0,
                ra: Place::Register(3),
                fp: 8,
            },
        ),
        (0x140, 8, Rule::FramePointer),
        (0x3f0, 0x10, Rule::fixed(8)),
    ];
    for (n, (start, size, rule)) in kinds.into_iter().enumerate() {
        let name = format!("function {n}");
        let mut function = Function::new(TEXT + start, size, rule);
        function.label = Label::Name(&name);
        function.prologue_len = 4;
        function.runtime = n % 2 == 0;
        let slot = area.publish(&function).unwrap();
        if start == 0x140 {
            area.tombstone(slot);
        }
    }
}

impl World {
    fn new(capacity: u32) -> World {
        let mut options = Options::new(TEXT, TEXT_LEN);
        options.capacity = capacity;
        options.granule_shift = 6;
        options.heap = 1000;
        options.default_rule = Rule::fixed(48);
        let len = options.area_len().unwrap();
        let words: Vec<AtomicU32> = (0..len / 4).map(|_| AtomicU32::new(0)).collect();
        let area = Area::new(&words, &options).unwrap();
        if capacity > 0 {
            publish(&area);
        }
        let mut world = World {
            words,
            geometry: Geometry {
                text: TEXT..TEXT + TEXT_LEN,
                area_len: len,
                capacity,
                granule_shift: 6,
                key: 0,
                default: Described::default(),
            },
            tally: BTreeMap::new(),
        };
        let header: Vec<u8> = world.bytes();
        let header = header.first_chunk().unwrap();
        world.geometry = Geometry::parse(header, len).unwrap();
        world
    }

    fn bytes(&self) -> Vec<u8> {
        let words = self.words.iter();
        words
            .flat_map(|word| word.load(Relaxed).to_ne_bytes())
            .collect()
    }

    fn word(&self, at: u64) -> u32 {
        self.words[at as usize / 4].load(Relaxed)
    }

    fn set(&self, at: u64, value: u32) {
        self.words[at as usize / 4].store(value, Relaxed);
    }

    fn at(&self, slot: usize, field: u64) -> u64 {
        HEADER_SIZE + ENTRY_SIZE * slot as u64 + field
    }

    fn is_alive(&self, slot: usize) -> bool {
        let state = self.word(self.at(slot, STATE));
        state == self.word(GENERATION_AT) << STATE_BITS | LIVE
    }

    /// As if it had been reset so often.
    fn in_generation(&self, generation: u32) {
        for slot in (0..self.geometry.capacity as usize).filter(|&slot| self.is_alive(slot)) {
            self.set(self.at(slot, STATE), generation << STATE_BITS | LIVE);
        }
        self.set(GENERATION_AT, generation);
    }

    /// Both say the same of these places.
    fn ask(&mut self, look: &Look, places: &[u64], what: &str) {
        let address = self.words.as_ptr() as u64;
        let words = &self.words;
        let mut read = |at: u64, into: &mut [u8]| {
            for (byte, at) in into.iter_mut().zip(at as usize..) {
                let Some(word) = words.get(at / 4) else {
                    return false;
                };
                *byte = word.load(Relaxed).to_ne_bytes()[at % 4];
            }
            true
        };
        for place in places {
            let pc = TEXT + place;
            let outside = outside(&self.geometry, pc, &mut read);
            let inside = inside(look, address, &self.geometry, pc);
            assert_eq!(inside, outside, "{what}, at {place:#x}");
            let outcome = format!("{:?}", inside.outcome);
            *self.tally.entry(outcome).or_default() += 1;
        }
    }

    /// What somebody could stumble over.
    fn values(&self, old: u32) -> Vec<u32> {
        let capacity = self.geometry.capacity;
        let heap = (self.geometry.area_len - self.geometry.parts().heap_at) as u32;
        let used = self.word(HEAP_USED_AT);
        let live = self.word(GENERATION_AT) << STATE_BITS | LIVE;
        let mut values = vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 63, 64, 65, 255, 256];
        for bit in [15, 16, 26, 29, 31] {
            values.extend([(1u32 << bit) - 1, 1 << bit, (1 << bit) + 1, (1 << bit) + 8]);
        }
        values.extend([u32::MAX, u32::MAX - 1, u32::MAX - 7, i32::MAX as u32 - 7]);
        for near in [capacity, heap, used, TEXT_LEN as u32, MAX_ROWS, old] {
            values.extend([near.wrapping_sub(1), near, near + 1]);
            values.extend([(near.wrapping_sub(1)) | COVERED, near | COVERED]);
        }
        for generations in 0..3u32 {
            let by = generations << STATE_BITS;
            values.extend([live.wrapping_add(by), live.wrapping_sub(by)]);
        }
        for state in [EMPTY, WRITING, DEAD, 4, 6, 7] {
            values.push(live & !7 | state);
        }
        for bit in 0..32 {
            values.push(old ^ 1 << bit);
        }
        values.sort_unstable();
        values.dedup();
        values
    }
}

#[test]
fn every_word_with_every_value() {
    const TEST: &str = "every_word_with_every_value";
    let Some(look) = load(TEST) else { return };
    let mut tally: BTreeMap<String, u32> = BTreeMap::new();
    for generation in [0, 6, (1 << 29) - 2, 1 << 29, u32::MAX - 1] {
        let mut world = World::new(11);
        world.in_generation(generation);
        world.ask(&look, &PLACES, "as it should be");
        let claimed = u64::from(world.word(CLAIMED_AT));
        assert_eq!(claimed, 9);
        let parts = world.geometry.parts();
        let header = [GENERATION_AT, TOMBSTONES_AT, CLAIMED_AT, HEAP_USED_AT];
        let entries = (HEADER_SIZE..HEADER_SIZE + ENTRY_SIZE * (claimed + 1)).step_by(4);
        let rest = (parts.index_at..parts.heap_at + 90).step_by(4);
        let meets_generation = |at: u64| at < HEADER_SIZE || at % ENTRY_SIZE == STATE;
        for at in header.into_iter().chain(entries).chain(rest) {
            // The others do not know which it is.
            if generation > 0 && !meets_generation(at) {
                continue;
            }
            let old = world.word(at);
            for value in world.values(old) {
                world.set(at, value);
                world.ask(&look, &PLACES, &format!("{value:#x} in {at}"));
            }
            world.set(at, old);
        }
        for (outcome, count) in world.tally {
            *tally.entry(outcome).or_default() += count;
        }
    }
    println!("{tally:?}");
    for outcome in ["Found", "Malformed", "Opaque", "Busy", "Nothing"] {
        assert!(tally.contains_key(outcome), "{outcome} was never met");
    }
}

/// Kinds, flags, prologues and both words of the rule, one with the other.
#[test]
fn every_rule() {
    const TEST: &str = "every_rule";
    let Some(look) = load(TEST) else { return };
    let mut world = World::new(11);
    let used = world.word(HEAP_USED_AT);
    let numbers = [
        0,
        1,
        7,
        8,
        15,
        16,
        0x7fff,
        0x8000,
        0xfff8,
        0x7ff8_7ff8,
        0x8000_0000,
        0xfff8_fff8,
        1 << 26,
        (1 << 26) + 8,
        used - 8,
        used,
        u32::MAX,
    ];
    let flags = (0..=FLAGS).chain([16, 32, 128]);
    for how in flags.flat_map(|flags| (0..8).map(move |kind| kind | flags << 8)) {
        for how in [how, how | 4 << 16, how | 5 << 16] {
            world.set(world.at(FIXED_SLOT, HOW), how);
            for (rule0, rule1) in numbers.iter().flat_map(|&a| numbers.map(|b| (a, b))) {
                world.set(world.at(FIXED_SLOT, RULE0), rule0);
                world.set(world.at(FIXED_SLOT, RULE1), rule1);
                let what = format!("{how:#x} {rule0:#x} {rule1:#x}");
                world.ask(&look, &[0x14], &what);
            }
        }
    }
    println!("{:?}", world.tally);
}

/// Header, entries, index, rows and names on pages of which each one, or two, or all but one cannot be read.
#[test]
fn pages_that_cannot_be_read() {
    const TEST: &str = "pages_that_cannot_be_read";
    let Some(look) = load(TEST) else { return };
    let (mut same, mut unreadable) = (0, 0);
    for capacity in [0, 11, 120, 128, 300] {
        let world = World::new(capacity);
        for offset in [0, 4, 2049, PAGE - 130, PAGE - 100, PAGE - 1] {
            let mut pages = Pages::new(world.bytes(), offset);
            let count = pages.count();
            let hidden = |n: usize| move |page: usize| page == n % count || page == n / count;
            for n in 0..count * count {
                pages.hide(hidden(n));
                let what = format!("{capacity} at {offset}, {n} of {count}");
                for pc in PLACES.map(|place| TEXT + place) {
                    let geometry = &world.geometry;
                    let (from, read) = (&pages, &mut |at, into: &mut [u8]| pages.read(at, into));
                    let outside = outside(geometry, pc, read);
                    let inside = inside(&look, from.address(), geometry, pc);
                    if needs_fewer_rows(&world, from, pc, &inside, &outside) {
                        continue;
                    }
                    assert_eq!(inside, outside, "{what}, at {pc:#x}");
                    match inside.outcome {
                        Outcome::Unreadable => unreadable += 1,
                        _ => same += 1,
                    }
                }
            }
        }
    }
    println!("{same} answers, {unreadable} could not be read");
    assert!(same > 100 && unreadable > 100);
}

/// The kernel reads rows piece by piece, as far as it needs them.
fn needs_fewer_rows(
    world: &World,
    pages: &Pages,
    pc: u64,
    inside: &Answer,
    outside: &Answer,
) -> bool {
    let text = TEXT + 0x30..TEXT + 0xe0;
    if world.geometry.capacity == 0 || !text.contains(&pc) {
        return false;
    }
    let at = world.geometry.parts().heap_at + u64::from(world.word(world.at(ROWS_SLOT, RULE0)));
    let len = world.word(world.at(ROWS_SLOT, RULE1)) as usize;
    outside.outcome == Outcome::Unreadable
        && inside.outcome != Outcome::Unreadable
        && pages.hides(at, len)
}
