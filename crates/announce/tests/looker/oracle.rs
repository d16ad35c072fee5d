//! What has to hold of every answer of the observer, whatever the memory holds, and what it has to answer where only
//! producers wrote: for tests of random lives, and for the fuzzer. Slow, and so simple that it is right.

use super::{Looker, field, read, word};
use framewalk_announce::area::layout::*;
use framewalk_announce::area::observe::{Fault, Found, Geometry, MAX_READS, Rule};
use std::ops::Range;
use std::sync::atomic::AtomicU32;

/// Memory that may be read in one range only, and not more often than is allowed.
pub(crate) struct Bounded<'m> {
    memory: &'m [AtomicU32],
    within: Range<u64>,
    left: u32,
}

impl<'m> Bounded<'m> {
    pub(crate) fn new(memory: &'m [AtomicU32], within: Range<u64>, most: u32) -> Bounded<'m> {
        let left = most;
        Bounded {
            memory,
            within,
            left,
        }
    }

    pub(crate) fn read(&mut self, at: u64, into: &mut [u8]) -> bool {
        let end = at.checked_add(into.len() as u64);
        assert!(
            self.within.start <= at && end.is_some_and(|end| end <= self.within.end),
            "{} bytes at {at} are not in {:?}",
            into.len(),
            self.within
        );
        assert!(self.left > 0, "too many reads");
        self.left -= 1;
        read(self.memory, at, into)
    }
}

/// One lookup, in memory that lies still.
fn look(looker: &Looker<'_>, pc: u64) -> Result<Option<Found>, Fault> {
    let area = 0..looker.geometry.area_len;
    let mut memory = Bounded::new(looker.memory, area, MAX_READS);
    let mut read = |at, into: &mut [u8]| memory.read(at, into);
    looker.geometry.look_up(pc, &mut read)
}

/// Slots of all entries that are alive and hold a place, chains or not.
pub(crate) fn holders(looker: &Looker<'_>, pc: u64) -> Vec<u32> {
    let Looker { memory, geometry } = looker;
    let live = word(memory, GENERATION_AT) << STATE_BITS | LIVE;
    let holds = |slot: &u32| {
        let [start, size] = [START, SIZE].map(|at| u64::from(field(memory, *slot, at)));
        let start = geometry.text.start + start;
        field(memory, *slot, STATE) == live && (start..start + size).contains(&pc)
    };
    let all = (0..geometry.capacity).filter(holds).collect();
    match geometry.text.contains(&pc) {
        true => all,
        false => Vec::new(),
    }
}

/// Slots that a granule's word leads to, as far as they are slots and none comes twice; and whether it is a chain as
/// producers make them.
fn led_to(looker: &Looker<'_>, granule: u64) -> (Vec<u32>, bool) {
    let Looker { memory, geometry } = looker;
    let link = word(memory, geometry.parts().index_at + 4 * granule);
    let (mut slots, mut next) = (Vec::new(), link & !COVERED);
    while let Some(slot) = next.checked_sub(1) {
        if slot >= geometry.capacity || slots.contains(&slot) {
            return (slots, false);
        }
        slots.push(slot);
        next = match link & COVERED {
            0 => field(memory, slot, NEXT),
            _ => 0,
        };
    }
    let sound = slots.is_sorted_by(|above, below| above > below);
    let short = slots.len() <= MAX_HOPS as usize;
    (slots, sound && short)
}

/// What is answered without a fault rests on sound chains, and on all that they lead to.
fn check_chains(looker: &Looker<'_>, pc: u64, slot: Option<u32>) {
    let Looker { memory, geometry } = looker;
    if geometry.capacity == 0 || !geometry.text.contains(&pc) {
        return assert_eq!(slot, None);
    }
    assert_eq!(word(memory, GENERATION_AT) & 1, 0, "a reset is under way");
    let own = (pc - geometry.text.start) >> geometry.granule_shift;
    let mut reached = Vec::new();
    for granule in own.saturating_sub(1)..=own {
        let (slots, sound) = led_to(looker, granule);
        assert!(sound, "granule {granule}: {slots:?}");
        reached.extend(slots);
    }
    let mut all = holders(looker, pc);
    all.retain(|slot| reached.contains(slot));
    assert_eq!(all, Vec::from_iter(slot), "of {reached:?}");
}

/// Looks, and checks the answer: in memory that lies still, whatever it holds.
pub(crate) fn look_at_anything(looker: &Looker<'_>, pc: u64) -> Result<Option<Found>, Fault> {
    let Looker { memory, geometry } = looker;
    let generation = word(memory, GENERATION_AT);
    let answer = look(looker, pc);
    assert_eq!(answer, look(looker, pc), "the same memory");
    match answer {
        Err(Fault::Unreadable) => panic!("all of it can be read"),
        Err(Fault::Busy) => assert_eq!(generation & 1, 1, "nothing changes"),
        Err(Fault::Conflict) => assert!(holders(looker, pc).len() > 1),
        Err(Fault::Malformed) => {}
        Ok(None) => assert!(
            !geometry.text.contains(&pc) || geometry.default.how & 0xff == NONE,
            "the default rule holds"
        ),
        Ok(Some(found)) => check(looker, pc, &found),
    }
    if let Ok(found) = answer {
        check_chains(looker, pc, found.and_then(|found| found.slot));
    }
    answer
}

fn check(looker: &Looker<'_>, pc: u64, found: &Found) {
    let Looker { memory, geometry } = looker;
    let heap = heap(memory, geometry);
    match found.slot {
        Some(slot) => {
            assert!(holders(looker, pc).contains(&slot), "{found:?}");
            assert_eq!(word(memory, GENERATION_AT), found.generation);
            assert!(found.generation & 1 == 0 && slot < word(memory, CLAIMED_AT));
            let start = geometry.text.start + u64::from(field(memory, slot, START));
            assert_eq!(found.offset(), Some((pc - start) as u32));
            assert_eq!(found.size(), field(memory, slot, SIZE));
        }
        None => assert_eq!((found.offset(), found.size()), (None, 0)),
    }
    // The words that it had meant something: they were looked at.
    let rule = found.rule(geometry).unwrap();
    if let Rule::Rows { at, len } = rule {
        assert!(heap.start <= at && at + u64::from(len) <= heap.end);
        assert!(found.slot.is_some() && (1..=MAX_ROWS).contains(&len));
    }
    let mut bounded = Bounded::new(memory, heap, 2);
    let mut name = [0; MAX_NAME as usize];
    let name = found.name(geometry, &mut name, &mut |at, into| bounded.read(at, into));
    assert!(name.is_ok());
    assert!(found.cookie().is_none() || name == Ok(&[]));
    let mut bounded = Bounded::new(memory, 0..geometry.area_len, 2);
    let confirmed = found.confirm(&mut |at, into| bounded.read(at, into));
    assert_eq!(confirmed, Ok(()), "nothing changed");
}

/// The part of the heap that is in use.
fn heap(memory: &[AtomicU32], geometry: &Geometry) -> Range<u64> {
    let from = geometry.parts().heap_at;
    let used = u64::from(word(memory, HEAP_USED_AT));
    from..geometry.area_len.min(from + used)
}

/// The same where only producers wrote, of whom nobody is under way and none generated code over code that lives.
pub(crate) fn look_at_sound(looker: &Looker<'_>, pc: u64) -> Option<Found> {
    let found = look_at_anything(looker, pc).unwrap();
    let slot = found.and_then(|found| found.slot);
    assert_eq!(Vec::from_iter(slot), holders(looker, pc));
    found
}
