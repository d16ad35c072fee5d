//! Producers that die between any two stores: what they leave is nothing, or right, and the others go on.

mod looker;

use framewalk_announce::area::layout::*;
use framewalk_announce::area::observe::Fault;
use framewalk_announce::area::protocol::{Entry, Protocol, Shape, Words};
use framewalk_announce::area::{Area, Options};
use looker::{Looker, zeros};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicU32;

/// Memory that can be written so many times.
struct Mortal<'m> {
    memory: &'m [AtomicU32],
    left: &'m Cell<u32>,
}

/// What a producer dies of.
struct Killed;

impl Mortal<'_> {
    fn store(&self) {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => resume_unwind(Box::new(Killed)),
        }
    }
}

impl Words for Mortal<'_> {
    fn get(&self, word: u32) -> u32 {
        Words::get(&self.memory, word)
    }

    fn get_acquire(&self, word: u32) -> u32 {
        self.memory.get_acquire(word)
    }

    fn set(&self, word: u32, value: u32) {
        self.store();
        self.memory.set(word, value);
    }

    fn set_release(&self, word: u32, value: u32) {
        self.store();
        self.memory.set_release(word, value);
    }

    fn add(&self, word: u32, value: u32) -> u32 {
        self.store();
        self.memory.add(word, value)
    }

    fn swap(&self, word: u32, from: u32, to: u32) -> Result<(), u32> {
        self.store();
        self.memory.swap(word, from, to)
    }

    fn release(&self) {
        self.memory.release();
    }
}

const TEXT: u64 = 0x10000;
const LEN: u64 = 0x400;
const CAPACITY: u32 = 32;
const SHIFT: u32 = 6;
const HEAP: u32 = 64;

fn options() -> Options {
    Options {
        capacity: CAPACITY,
        granule_shift: SHIFT,
        heap: HEAP.into(),
        ..Options::new(TEXT, LEN)
    }
}

fn entry(start: u32, size: u32) -> Entry {
    Entry {
        start,
        size,
        described: Described {
            how: FIXED,
            rule: [8 * (start + size), halves(-8, 0)],
        },
        cookie: start << 16 | size,
    }
}

/// What stands in the memory.
type Producer<'m> = Protocol<&'m [AtomicU32]>;

/// Functions and their slots: two of them dead and still in their chain, one covers granules.
fn furnish(producer: &Producer<'_>) -> Vec<(Entry, u32)> {
    let all = [(0, 8), (8, 8), (16, 8), (24, 8), (0x180, 0x100)];
    let all = all.map(|(start, size)| entry(start, size));
    let mut alive: Vec<_> = all
        .into_iter()
        .map(|entry| (entry, producer.publish(&entry).unwrap()))
        .collect();
    for (_, slot) in alive.drain(1..3) {
        assert!(producer.kill(slot, 0));
    }
    alive
}

/// The text: in a function that is alive, in none, or in one that may be there or not.
fn check(looker: &Looker<'_>, alive: &[(Entry, u32)], perhaps: &[Entry]) {
    // Everything begins and ends at multiples of eight.
    for at in (0..LEN as u32).filter(|at| [0, 7].contains(&(at % 8))) {
        let holds = |entry: &Entry| (entry.start..entry.start + entry.size).contains(&at);
        let seen = looker.look(TEXT + u64::from(at)).unwrap();
        let cookie = seen.and_then(|found| found.cookie());
        if let Some((entry, slot)) = alive.iter().find(|(entry, _)| holds(entry)) {
            assert_eq!(cookie, Some(entry.cookie), "{at:#x}");
            assert_eq!(seen.unwrap().slot, Some(*slot), "{at:#x}");
        } else if let Some(entry) = perhaps.iter().find(|entry| holds(entry)) {
            assert!(
                cookie.is_none_or(|cookie| cookie == entry.cookie),
                "{at:#x}"
            );
        } else {
            assert_eq!(seen, None, "{at:#x}");
        }
    }
}

/// Lets a producer do something and die of every store in turn. `there` says what is alive when it died of none, and
/// `perhaps` what may be until then; the others then go on.
fn killed(
    work: impl Fn(&Protocol<Mortal<'_>>, &mut Vec<(Entry, u32)>),
    doomed: Option<usize>,
    perhaps: &[Entry],
) -> u32 {
    let options = options();
    let len = options.area_len().unwrap();
    for stores in 0.. {
        let memory = zeros(len);
        Area::new(&memory, &options).unwrap();
        let looker = Looker::new(&memory, len);
        let shape = Shape::new(CAPACITY, LEN, SHIFT, HEAP);
        let producer = Protocol::new(&memory[..], shape);
        let mut alive = furnish(&producer);
        check(&looker, &alive, &[]);

        let left = Cell::new(stores);
        let mortal = Mortal {
            memory: &memory,
            left: &left,
        };
        let mut after = alive.clone();
        let mortal = Protocol::new(mortal, shape);
        let died = catch_unwind(AssertUnwindSafe(|| work(&mortal, &mut after)));
        let mut perhaps = perhaps.to_vec();
        match died {
            Ok(()) => {
                alive = after;
                perhaps.clear();
            }
            // What was to be tombstoned may be so already.
            Err(_) => perhaps.extend(doomed.map(|at| alive.remove(at).0)),
        }
        check(&looker, &alive, &perhaps);

        // The others publish in the same granules and elsewhere, and take away.
        for start in [32, 40, 0x140, 0x288, 0x2f8] {
            let entry = entry(start, 8);
            alive.push((entry, producer.publish(&entry).unwrap()));
            check(&looker, &alive, &perhaps);
        }
        while let Some((_, slot)) = alive.pop() {
            assert!(producer.kill(slot, 0));
            check(&looker, &alive, &perhaps);
        }
        if died.is_ok() {
            return stores;
        }
    }
    unreachable!()
}

#[test]
fn a_producer_dies_while_it_publishes() {
    // In the granule with the dead, over two that it covers, into a third.
    let new = entry(48, 0xc0);
    let publish = |producer: &Protocol<Mortal<'_>>, alive: &mut Vec<_>| {
        alive.push((new, producer.publish(&new).unwrap()));
    };
    let stores = killed(publish, None, &[new]);
    // Claimed, 8 words, next, one pruned, pushed, two covered.
    assert_eq!(stores, 14);
}

#[test]
fn a_producer_dies_while_it_tombstones() {
    let at = 2;
    let kill = |producer: &Protocol<Mortal<'_>>, alive: &mut Vec<(Entry, u32)>| {
        assert!(producer.kill(alive.remove(at).1, 0));
    };
    assert_eq!(killed(kill, Some(at), &[]), 2);
}

#[test]
fn a_producer_dies_while_it_moves() {
    let at = 2;
    let new = entry(0x300, 0x100);
    let moves = |producer: &Protocol<Mortal<'_>>, alive: &mut Vec<(Entry, u32)>| {
        assert!(producer.kill(alive.remove(at).1, 0));
        alive.push((new, producer.publish(&new).unwrap()));
    };
    assert_eq!(killed(moves, Some(at), &[new]), 2 + 14);
}

#[test]
fn a_producer_dies_with_a_piece_of_the_heap() {
    let writes = |producer: &Protocol<Mortal<'_>>, _: &mut Vec<_>| {
        let at = producer.reserve(10).unwrap();
        producer.write(at, [7; 10]);
    };
    assert_eq!(killed(writes, None, &[]), 4);
}

#[test]
fn a_producer_dies_while_it_resets() {
    let options = options();
    let len = options.area_len().unwrap();
    let granules = (LEN >> SHIFT) as u32;
    let all = 1 + granules + 3 + 1;
    for stores in 0..=all {
        let memory = zeros(len);
        Area::new(&memory, &options).unwrap();
        let looker = Looker::new(&memory, len);
        let shape = Shape::new(CAPACITY, LEN, SHIFT, HEAP);
        let alive = furnish(&Protocol::new(&memory[..], shape));
        let left = Cell::new(stores);
        let mortal = Mortal {
            memory: &memory,
            left: &left,
        };
        let mut mortal = Protocol::new(mortal, shape);
        let died = catch_unwind(AssertUnwindSafe(|| mortal.reset()));
        assert_eq!(died.is_err(), stores < all);
        match stores {
            0 => check(&looker, &alive, &[]),
            n if n == all => check(&looker, &[], &[]),
            // For ever being reset: nobody says anything any more.
            _ => assert!((0..LEN).all(|at| looker.look(TEXT + at) == Err(Fault::Busy))),
        }
    }
}
