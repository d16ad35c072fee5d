//! The protocol of frame areas under a model checker: every order of loads and stores that the memory model allows, within a
//! bound of preemptions. The protocol is the very code that producers run; the observer here reads like a consumer.

use framewalk_announce::area::layout::*;
use framewalk_announce::area::protocol::{Entry, Protocol, Shape, Words};
use loom::sync::Arc;
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use loom::sync::atomic::{AtomicU32, fence};
use loom::thread;
use std::collections::BTreeMap;

/// The words that there are: a checker has better things to do than to look at the others.
#[derive(Clone)]
struct Memory(Arc<BTreeMap<u32, AtomicU32>>);

impl Memory {
    fn new(shape: &Shape) -> Memory {
        let header = [GENERATION_AT, TOMBSTONES_AT, CLAIMED_AT, HEAP_USED_AT];
        let header = header.map(|at| (at / 4) as u32);
        let entries = (HEADER_SIZE / 4) as u32..shape.index;
        let index = shape.index..shape.index + shape.granules;
        let heap = shape.heap..shape.heap + shape.heap_len / 4;
        let all = header.into_iter().chain(entries).chain(index).chain(heap);
        Memory(Arc::new(all.map(|at| (at, AtomicU32::new(0))).collect()))
    }

    fn at(&self, word: u32) -> &AtomicU32 {
        &self.0[&word]
    }
}

impl Words for Memory {
    fn get(&self, word: u32) -> u32 {
        self.at(word).load(Relaxed)
    }

    fn get_acquire(&self, word: u32) -> u32 {
        self.at(word).load(Acquire)
    }

    fn set(&self, word: u32, value: u32) {
        self.at(word).store(value, Relaxed);
    }

    fn set_release(&self, word: u32, value: u32) {
        self.at(word).store(value, Release);
    }

    fn add(&self, word: u32, value: u32) -> u32 {
        self.at(word).fetch_add(value, AcqRel)
    }

    fn swap(&self, word: u32, from: u32, to: u32) -> Result<(), u32> {
        let swapped = self.at(word).compare_exchange(from, to, AcqRel, Acquire);
        swapped.map(drop)
    }

    fn release(&self) {
        fence(Release);
    }
}

type Area = Protocol<Memory>;

const SHIFT: u32 = 6;

fn area(capacity: u32, granules: u64) -> Area {
    let shape = Shape::new(capacity, granules << SHIFT, SHIFT, 0);
    Protocol::new(Memory::new(&shape), shape)
}

/// What it says follows from where it is and from a number: mixtures are found out.
fn entry(start: u32, size: u32, number: u32) -> Entry {
    Entry {
        start,
        size,
        described: Described {
            how: number,
            rule: [number ^ start, number ^ size],
        },
        cookie: number,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Number(u32),
    /// Something changed meanwhile.
    Busy,
}

/// Looks for a place as a consumer does.
fn look(area: &Area, offset: u32) -> Seen {
    let (words, shape) = (area.words(), area.shape());
    let generation_at = (GENERATION_AT / 4) as u32;
    let generation = words.get_acquire(generation_at);
    if generation & 1 != 0 {
        return Seen::Busy;
    }
    let live = generation << STATE_BITS | LIVE;
    let mut found = None;
    let own = offset >> SHIFT;
    for granule in own.saturating_sub(1)..=own {
        let word = words.get_acquire(shape.index + granule);
        let mut link = word & !COVERED;
        while link != 0 {
            let slot = link - 1;
            let get = |field| words.get((HEADER_SIZE / 4) as u32 + 8 * slot + field as u32 / 4);
            let state_at = (HEADER_SIZE / 4) as u32 + 8 * slot + STATE as u32 / 4;
            if words.get_acquire(state_at) == live {
                let [start, size] = [get(START), get(SIZE)];
                if (start..start + size).contains(&offset) {
                    let number = get(COOKIE);
                    let said = (get(HOW), [get(RULE0), get(RULE1)]);
                    fence(Acquire);
                    if words.get(state_at) != live || words.get(generation_at) != generation {
                        return Seen::Busy;
                    }
                    assert_eq!(said, (number, [number ^ start, number ^ size]), "a mixture");
                    if found.is_some_and(|other| other != (slot, number)) {
                        // The first one has died since, and its place was given away.
                        return Seen::Busy;
                    }
                    found = Some((slot, number));
                }
            }
            if word & COVERED != 0 {
                break;
            }
            let next = get(NEXT);
            if next > slot {
                // A chain goes down, unless it is of another generation by now.
                fence(Acquire);
                assert_ne!(words.get(generation_at), generation, "a chain goes up");
                return Seen::Busy;
            }
            link = next;
        }
    }
    fence(Acquire);
    match (words.get(generation_at) == generation, found) {
        (false, _) => Seen::Busy,
        (true, None) => Seen::Nothing,
        (true, Some((_, number))) => Seen::Number(number),
    }
}

fn model(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(test);
}

/// Slots along a granule's chain.
fn chain(area: &Area, granule: u32) -> Vec<u32> {
    let mut link = area.words().get(area.shape().index + granule);
    let mut chain = Vec::new();
    while link != 0 {
        assert!(
            chain.last().is_none_or(|&above| link - 1 < above),
            "goes up"
        );
        chain.push(link - 1);
        link = area
            .words()
            .get((HEADER_SIZE + NEXT) as u32 / 4 + 8 * (link - 1));
    }
    chain
}

#[test]
fn two_producers_in_one_granule_lose_nothing() {
    model(3, || {
        let area = area(4, 1);
        let other = area.clone();
        let producer = thread::spawn(move || {
            other.publish(&entry(0, 16, 1)).unwrap();
            // What is published is found, whatever happens beside it.
            assert_eq!(look(&other, 8), Seen::Number(1));
        });
        area.publish(&entry(16, 16, 2)).unwrap();
        assert_eq!(look(&area, 16), Seen::Number(2));
        producer.join().unwrap();
        assert_eq!(
            [look(&area, 15), look(&area, 31)],
            [Seen::Number(1), Seen::Number(2)]
        );
        assert_eq!(look(&area, 32), Seen::Nothing);
        // A slot that was overtaken is dead and not in the chain.
        assert_eq!(chain(&area, 0).len(), 2);
        assert_eq!(
            area.claimed() - area.words().get(TOMBSTONES_AT as u32 / 4),
            2
        );
    });
}

#[test]
fn three_producers_in_one_granule_keep_the_order() {
    model(2, || {
        let area = area(8, 1);
        let producers = [1, 2].map(|number| {
            let area = area.clone();
            thread::spawn(move || {
                area.publish(&entry(16 * number, 16, number)).unwrap();
            })
        });
        area.publish(&entry(0, 16, 9)).unwrap();
        for producer in producers {
            producer.join().unwrap();
        }
        assert_eq!(chain(&area, 0).len(), 3);
        let seen = [0, 16, 32].map(|at| look(&area, at));
        assert_eq!(seen, [9, 1, 2].map(Seen::Number));
    });
}

#[test]
fn an_observer_sees_a_function_from_its_reachability_to_its_death() {
    model(3, || {
        let area = area(2, 1);
        let observer = area.clone();
        let [reachable, dying] = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
        let flags = (reachable.clone(), dying.clone());
        let thread = thread::spawn(move || {
            let (reachable, dying) = flags;
            let before = reachable.load(Acquire);
            let seen = look(&observer, 8);
            // Who has seen a death knows that it was announced.
            fence(Acquire);
            let after = dying.load(Relaxed);
            match seen {
                // Either function, whole; the first one only if it may still be alive, or died just now.
                Seen::Number(1) => assert!(before < 2, "dead before it was looked for"),
                Seen::Number(2) => {}
                Seen::Number(other) => panic!("{other}"),
                // It was alive before, and nobody has begun to take it away.
                Seen::Nothing | Seen::Busy => assert!(before != 1 || after != 0, "missed"),
            }
            if before == 2 {
                assert_eq!(seen, Seen::Number(2), "missed");
            }
        });
        let slot = area.publish(&entry(0, 16, 1)).unwrap();
        reachable.store(1, Release);
        dying.store(1, Relaxed);
        assert!(area.kill(slot, 0));
        // Other code, at the same place.
        area.publish(&entry(0, 32, 2)).unwrap();
        reachable.store(2, Release);
        thread.join().unwrap();
    });
}

#[test]
fn one_who_goes_through_the_entries_sees_them_whole() {
    model(3, || {
        let mut area = area(1, 1);
        let observer = area.clone();
        let thread = thread::spawn(move || {
            // Without the index, as those do who list what there is.
            let words = observer.words();
            let at = |field| (HEADER_SIZE + field) as u32 / 4;
            let state = words.get_acquire(at(STATE));
            let said = [START, SIZE, HOW, COOKIE].map(|field| words.get(at(field)));
            fence(Acquire);
            if state & 7 == LIVE && words.get(at(STATE)) == state {
                let generation = words.get(GENERATION_AT as u32 / 4);
                if generation << STATE_BITS == state & !7 {
                    let number = 1 + generation / 2;
                    assert_eq!(said, [8 * number, 16 * number, number, number]);
                }
            }
        });
        for number in [1, 2] {
            area.publish(&entry(8 * number, 16 * number, number))
                .unwrap();
            area.reset();
        }
        thread.join().unwrap();
    });
}

#[test]
fn pruning_and_pushing_at_the_same_time_lose_nothing() {
    model(2, || {
        let area = area(8, 1);
        // Four in a chain, of which the two in the middle die.
        let slots = [0, 1, 2, 3].map(|n| area.publish(&entry(8 * n, 8, n)).unwrap());
        assert!(area.kill(slots[2], 0));
        let threads = [4, 5].map(|number| {
            let area = area.clone();
            thread::spawn(move || {
                if number == 4 {
                    assert!(area.kill(slots[1], 0));
                }
                area.publish(&entry(8 * number, 8, number)).unwrap();
            })
        });
        // All the time the oldest one is found behind them.
        assert_eq!(look(&area, 0), Seen::Number(0));
        for thread in threads {
            thread.join().unwrap();
        }
        let alive = [0, 3, 4, 5];
        assert!(alive.iter().all(|&n| look(&area, 8 * n) == Seen::Number(n)));
        assert!([1, 2].iter().all(|&n| look(&area, 8 * n) == Seen::Nothing));
        area.publish(&entry(48, 8, 6)).unwrap();
        assert_eq!(chain(&area, 0).len(), 5, "the dead are gone");
    });
}

#[test]
fn a_covered_granule_is_found_and_handed_on() {
    model(3, || {
        let area = area(3, 3);
        let reachable = Arc::new(AtomicU32::new(0));
        let (observer, flag) = (area.clone(), reachable.clone());
        let thread = thread::spawn(move || {
            let before = flag.load(Acquire);
            let seen = [look(&observer, 64), look(&observer, 130)];
            fence(Acquire);
            if before == 1 {
                let missed = seen.contains(&Seen::Nothing);
                assert!(!missed || flag.load(Relaxed) >= 2, "missed");
            }
            if before == 3 {
                assert_eq!(seen, [Seen::Number(2), Seen::Nothing], "missed");
            }
        });
        let large = area.publish(&entry(32, 100, 1)).unwrap();
        reachable.store(1, Release);
        reachable.store(2, Relaxed);
        assert!(area.kill(large, 0));
        area.publish(&entry(64, 16, 2)).unwrap();
        reachable.store(3, Release);
        thread.join().unwrap();
    });
}

#[test]
fn a_reset_mixes_nothing() {
    model(2, || {
        let mut area = area(2, 1);
        let reachable = Arc::new(AtomicU32::new(0));
        let (observer, flag) = (area.clone(), reachable.clone());
        let slot = area.publish(&entry(0, 16, 1)).unwrap();
        let thread = thread::spawn(move || {
            let before = flag.load(Acquire);
            match look(&observer, 8) {
                Seen::Number(1) => assert!(before < 2, "of another generation"),
                Seen::Number(2) => {}
                Seen::Number(other) => panic!("{other}"),
                Seen::Nothing => assert!(before < 2, "missed"),
                Seen::Busy => {}
            }
        });
        assert!(area.kill(slot, 0));
        area.reset();
        // The same slot, and the same place.
        let again = area.publish(&entry(0, 48, 2)).unwrap();
        assert_eq!(again, slot);
        reachable.store(2, Release);
        thread.join().unwrap();
    });
}

#[test]
fn a_reset_without_a_tombstone_mixes_nothing() {
    model(2, || {
        let mut area = area(1, 1);
        area.publish(&entry(0, 16, 1)).unwrap();
        let observer = area.clone();
        let thread = thread::spawn(move || {
            let seen = look(&observer, 8);
            assert!(!matches!(seen, Seen::Number(other) if other != 1 && other != 2));
        });
        area.reset();
        area.publish(&entry(0, 48, 2)).unwrap();
        thread.join().unwrap();
    });
}

#[test]
fn pieces_of_the_heap_are_nobody_elses() {
    model(3, || {
        let shape = Shape::new(1, 1 << SHIFT, SHIFT, 24);
        let area: Area = Protocol::new(Memory::new(&shape), shape);
        let other = area.clone();
        let thread = thread::spawn(move || {
            let at = other.reserve(5).unwrap();
            other.write(at, [1; 5]);
            at
        });
        let mine = area.reserve(8).unwrap();
        area.write(mine, [2; 8]);
        let its = thread.join().unwrap();
        assert!(mine + 8 <= its || its + 8 <= mine);
        let heap = |at: u32| area.words().get(shape.heap + at / 4).to_ne_bytes();
        assert_eq!([heap(mine), heap(mine + 4)], [[2; 4]; 2]);
        assert_eq!([heap(its), heap(its + 4)], [[1; 4], [1, 0, 0, 0]]);
        assert_eq!(area.reserve(9), None);
        assert_eq!(area.reserve(8), Some(16));
        assert_eq!(area.reserve(1), None);
    });
}
