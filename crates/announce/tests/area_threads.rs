//! Many producers at once, and readers that look at any moment.

mod looker;

use framewalk_announce::area::Place;
use framewalk_announce::area::layout::*;
use framewalk_announce::area::observe::{self, Fault};
use framewalk_announce::area::{Area, Function, Label, Options, Rule, Slot};
use looker::{Looker, zeros};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

const TEXT: u64 = 0x7000_0000;
/// Bytes of text, in pieces that one producer at a time has.
const LEN: u64 = 1 << 13;
const PIECE: u64 = 32;
const PIECES: u64 = LEN / PIECE;
const PRODUCERS: u64 = 8;
const READERS: u64 = 2;
/// Functions of one producer.
const FUNCTIONS: u64 = 1000;

/// The cookie of a function says what the entry has to say: a mixture of two functions contradicts itself.
fn function(first: u64, pieces: u64, number: u64) -> Function<'static> {
    // CFA = SP + 8 times the function's number.
    let cookie = number as u32 + 1;
    Function {
        label: Label::Cookie(cookie << 16 | (first as u32) << 8 | pieces as u32),
        ..Function::new(
            TEXT + first * PIECE,
            (pieces * PIECE) as u32,
            Rule::fixed(8 * cookie as i32),
        )
    }
}

/// Pieces of text that producers take and give back, as a JIT's allocator does; and whether what is there is published:
/// 0, or the cookie. It is set after publishing and cleared before the tombstone.
struct Pieces(Vec<AtomicU64>);

const FREE: u64 = 0;
const TAKEN: u64 = 1 << 32;

impl Pieces {
    fn take(&self, first: u64, pieces: u64) -> bool {
        for at in first..first + pieces {
            let piece = &self.0[at as usize];
            if piece.compare_exchange(FREE, TAKEN, SeqCst, SeqCst).is_err() {
                self.put(first, at - first, FREE);
                return false;
            }
        }
        true
    }

    fn put(&self, first: u64, pieces: u64, value: u64) {
        for at in first..first + pieces {
            self.0[at as usize].store(value, SeqCst);
        }
    }
}

fn produce(
    area: &Area<'_>,
    pieces: &Pieces,
    number: u64,
    mut rng: TestRng,
) -> BTreeMap<u64, (u64, Slot)> {
    let mut mine: BTreeMap<u64, (u64, Slot)> = BTreeMap::new();
    let mut published = 0;
    while published < FUNCTIONS {
        let random = rng.next_u64();
        let (first, length) = (random % PIECES, 1 + (random >> 16) % 12);
        let oldest = mine.keys().nth((random >> 32) as usize % 8).copied();
        if let Some(old) = oldest.filter(|_| random >> 60 < 9) {
            let (length, slot) = mine.remove(&old).unwrap();
            // Nobody is to expect it any longer; then it is dead; then its memory is free.
            pieces.put(old, length, TAKEN);
            assert!(area.tombstone(slot));
            pieces.put(old, length, FREE);
        } else if first + length <= PIECES && pieces.take(first, length) {
            let function = function(first, length, number * FUNCTIONS + published);
            let slot = area.publish(&function).unwrap();
            let Label::Cookie(cookie) = function.label else {
                unreachable!()
            };
            pieces.put(first, length, TAKEN | u64::from(cookie));
            mine.insert(first, (length, slot));
            published += 1;
            // Readers shall see most of this, on machines with few processors too.
            std::thread::yield_now();
        }
    }
    mine
}

/// Looks at random places: what is published has to be found, and what is found has to be whole.
fn read(looker: &Looker<'_>, pieces: &Pieces, mut rng: TestRng, done: &AtomicU64) -> [u64; 2] {
    let [mut found, mut busy] = [0; 2];
    while done.load(SeqCst) < PRODUCERS {
        let random = rng.next_u64();
        let at = random % LEN;
        let piece = &pieces.0[(at / PIECE) as usize];
        let before = piece.load(SeqCst);
        let result = looker.look(TEXT + at);
        let after = piece.load(SeqCst);
        // The same function all the time, for no cookie comes again: published before, and dead afterwards at the earliest.
        let expected = (before == after && before & !TAKEN != 0).then_some(before as u32);
        match result {
            Ok(Some(entry)) => {
                found += 1;
                let cookie = entry.cookie().unwrap();
                let (first, length) = (cookie >> 8 & 0xff, cookie & 0xff);
                let start = TEXT + at - u64::from(entry.offset().unwrap());
                assert_eq!(start, TEXT + u64::from(first) * PIECE);
                // An entry that was alive never changes again.
                let size = looker::field(looker.memory, entry.slot.unwrap(), SIZE);
                assert_eq!(u64::from(size), u64::from(length) * PIECE);
                let rule = observe::Rule::Fixed {
                    cfa: 8 * (cookie >> 16) as i32,
                    ra: Place::At(-8),
                    fp: 0,
                };
                assert_eq!(entry.rule(&looker.geometry), Ok(rule));
                if let Some(expected) = expected {
                    assert_eq!(cookie, expected);
                }
            }
            // Somebody changed what was being read, or the place went from one function to another meanwhile. The first may
            // happen to a function that lives, four times in a row.
            Err(Fault::Busy) => busy += 1,
            Ok(None) | Err(Fault::Conflict) => assert_eq!(expected, None, "missed at {at:#x}"),
            Err(fault) => panic!("{fault:?} at {at:#x}"),
        }
    }
    [found, busy]
}

#[test]
fn what_is_published_is_found_among_many_producers() {
    let options = Options {
        capacity: (PRODUCERS * FUNCTIONS) as u32 + 10_000,
        granule_shift: 8,
        heap: 0,
        ..Options::new(TEXT, LEN)
    };
    let len = options.area_len().unwrap();
    let memory = zeros(len);
    let area = Area::new(&memory, &options).unwrap();
    let looker = Looker::new(&memory, len);
    let pieces = Pieces((0..PIECES).map(|_| AtomicU64::new(FREE)).collect());
    let done = AtomicU64::new(0);
    let rng = |seed: u64| {
        let bytes: Vec<u8> = (0..4).flat_map(|i| (seed + i).to_le_bytes()).collect();
        TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
    };
    let (mut alive, mut found, mut busy) = (BTreeMap::new(), 0, 0);
    std::thread::scope(|scope| {
        let produce = |number| {
            let mine = produce(&area, &pieces, number, rng(number));
            done.fetch_add(1, SeqCst);
            mine
        };
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|number| scope.spawn(move || produce(number)))
            .collect();
        let readers: Vec<_> = (0..READERS)
            .map(|seed| {
                let (looker, pieces, done) = (&looker, &pieces, &done);
                scope.spawn(move || read(looker, pieces, rng(100 + seed), done))
            })
            .collect();
        for producer in producers {
            alive.extend(producer.join().unwrap());
        }
        for reader in readers {
            let [some, more] = reader.join().unwrap();
            found += some;
            busy += more;
        }
    });
    println!("{found} found, {busy} busy, {} slots", area.claimed());
    // In the end everything that lives is found, byte for byte, and nothing else.
    let mut expected = vec![None; LEN as usize];
    for (first, (length, slot)) in &alive {
        for at in first * PIECE..(first + length) * PIECE {
            expected[at as usize] = Some(slot.number());
        }
    }
    for (at, slot) in (0..).zip(expected) {
        assert_eq!(looker.slot(TEXT + at), slot, "{at:#x}");
    }
    // Slots that were given up count as dead.
    let tombstones = looker::word(&memory, TOMBSTONES_AT);
    assert_eq!(area.claimed() - tombstones, alive.len() as u32);
}
