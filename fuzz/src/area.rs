//! Frame areas: ones that producers made, with or without somebody who scribbles on them, before or in the middle of a
//! lookup; and bytes that nobody made.

mod life;

use crate::looker::{self, Looker, oracle, zeros};
use arbitrary::{Arbitrary, Unstructured};
use framewalk_announce::area::layout::*;
use framewalk_announce::area::observe::{Fault, Geometry, MAX_READS};
use framewalk_announce::area::{Area, Options, Slot};
use life::{Act, Jit, Life};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

const TEXT: u64 = 0x4000_0000;
/// A fuzzer shall not spend its time on a large heap or index.
const MOST_BYTES: usize = 1 << 14;

/// The first byte says what the others are.
pub fn area(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    match mode % 4 {
        0 => raw(rest, false),
        1 => raw(rest, true),
        _ => {
            if let Ok(life) = Life::arbitrary_take_rest(Unstructured::new(rest)) {
                lived(&life);
            }
        }
    }
}

/// The bytes are an area, but for the first sixteen: four places to look at. `helped`: its name and its length are right.
fn raw(bytes: &[u8], helped: bool) {
    let Some((places, bytes)) = bytes.split_first_chunk::<16>() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    let len = bytes.len() as u64;
    if bytes.len() < HEADER_SIZE as usize || bytes.len() > MOST_BYTES {
        return;
    }
    if helped {
        bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
        let at = AREA_LEN_AT as usize;
        bytes[at..at + 8].copy_from_slice(&len.to_ne_bytes());
    }
    let header = bytes.first_chunk().unwrap();
    let Ok(geometry) = Geometry::parse(header, len) else {
        return;
    };
    let parts = geometry.parts();
    assert!(parts.heap_at <= len && parts.index_at + 4 * parts.granules <= parts.heap_at);
    assert!(!geometry.text.is_empty() && geometry.text.end <= 1 << 47);
    let memory = zeros(len);
    for (word, bytes) in memory.iter().zip(bytes.chunks(4)) {
        let mut value = [0; 4];
        value[..bytes.len()].copy_from_slice(bytes);
        word.store(u32::from_ne_bytes(value), Relaxed);
    }
    let memory = &memory;
    let looker = Looker { memory, geometry };
    let text = looker.geometry.text.clone();
    let places = places.chunks(4).map(|place| {
        let place = u32::from_ne_bytes(place.try_into().unwrap());
        text.start + u64::from(place) % (text.end - text.start)
    });
    let entries = (0..looker.geometry.capacity).flat_map(|slot| {
        let [start, size] = [START, SIZE].map(|at| u64::from(looker::field(memory, slot, at)));
        edges(&(text.start + start..text.start + start + size))
    });
    for pc in edges(&text).into_iter().chain(places).chain(entries) {
        let _ = oracle::look_at_anything(&looker, pc);
    }
}

/// Where something may be off by one.
fn edges(range: &Range<u64>) -> [u64; 4] {
    [
        range.start.wrapping_sub(1),
        range.start,
        range.end.wrapping_sub(1),
        range.end,
    ]
}

fn lived(life: &Life) {
    let text_len = u64::from(life.text_len) + 1;
    let options = Options {
        capacity: life.capacity.into(),
        granule_shift: MIN_SHIFT + u32::from(life.shift) % (MAX_SHIFT - MIN_SHIFT + 1),
        heap: 4 * u64::from(life.heap),
        default_rule: life.default.default(),
        ..Options::new(TEXT, text_len)
    };
    let len = options.area_len().unwrap();
    let memory = zeros(len);
    let Ok(area) = Area::new(&memory, &options) else {
        // The rule.
        return;
    };
    let mut jit = Jit {
        area,
        text_len,
        alive: Vec::new(),
        end: TEXT,
        names: HashMap::new(),
    };
    let looker = Looker::new(&memory, len);
    for act in &life.acts {
        jit.act(act);
    }
    let places = |jit: &Jit<'_>| -> Vec<u64> {
        let edges = jit.alive.iter().flat_map(|(_, range)| edges(range));
        edges.chain(edges_of_text(text_len)).collect()
    };
    for pc in places(&jit) {
        let found = oracle::look_at_sound(&looker, pc);
        assert_eq!(found.and_then(|found| found.slot), jit.at(pc));
    }
    let claimed = jit.area.claimed().min(jit.area.capacity());
    assert!(claimed >= jit.alive.len() as u32);
    for (place, acts) in &life.meanwhile {
        while_it_works(&looker, &mut jit, TEXT + u64::from(*place) % text_len, acts);
    }

    let places = places(&jit);
    for scribble in &life.scribbles {
        scribble.apply(&memory);
    }
    for &pc in &places {
        let _ = oracle::look_at_anything(&looker, pc);
    }
    for (place, scribbles) in &life.after {
        let pc = TEXT + u64::from(*place) % text_len;
        let mut bounded = oracle::Bounded::new(&memory, 0..len, MAX_READS);
        let mut reads = 0u8;
        let found = looker.geometry.look_up(pc, &mut |at, into| {
            for (_, scribble) in scribbles.iter().filter(|(after, _)| *after == reads) {
                scribble.apply(&memory);
            }
            reads = reads.saturating_add(1);
            bounded.read(at, into)
        });
        if let Ok(Some(found)) = found {
            assert!(found.rule(&looker.geometry).is_ok());
            assert!(found.slot.is_none() || found.offset().unwrap() < found.size());
        }
        let _ = oracle::look_at_anything(&looker, pc);
    }
}

fn edges_of_text(text_len: u64) -> [u64; 4] {
    edges(&(TEXT..TEXT + text_len))
}

/// Memory that a producer works on, while it is read.
struct Worked<'w, 'm> {
    jit: &'w mut Jit<'m>,
    memory: &'m [AtomicU32],
    pc: u64,
    /// What is done after so many words were read.
    acts: &'w [(u8, Act)],
    words: u8,
    /// The slots that held the place, one after the other.
    held: Vec<Option<u32>>,
    resets: bool,
}

impl Worked<'_, '_> {
    fn read(&mut self, at: u64, into: &mut [u8]) -> bool {
        let all = (at..).step_by(4).zip(into.chunks_mut(4));
        for (at, word) in all {
            for (_, act) in self.acts.iter().filter(|(after, _)| *after == self.words) {
                let generation = looker::word(self.memory, GENERATION_AT);
                self.jit.act(act);
                self.resets |= generation != looker::word(self.memory, GENERATION_AT);
                let (before, now) = (self.held.last().copied(), self.jit.at(self.pc));
                // Between one function and the next there is none.
                if before != Some(now) {
                    self.held.push(None);
                }
                self.held.push(now);
            }
            self.words = self.words.saturating_add(1);
            if !looker::read(self.memory, at, word) {
                return false;
            }
        }
        true
    }

    /// From now on.
    fn forget(&mut self) {
        self.held = vec![self.jit.at(self.pc)];
    }
}

/// A lookup during which the producer goes on: what is answered held at one moment of it.
fn while_it_works<'m>(looker: &Looker<'m>, jit: &mut Jit<'m>, pc: u64, acts: &[(u8, Act)]) {
    let geometry = &looker.geometry;
    let mut memory = Worked {
        held: vec![jit.at(pc)],
        memory: looker.memory,
        resets: false,
        words: 0,
        jit,
        pc,
        acts,
    };
    let mut reads = 0;
    let found = geometry.look_up(pc, &mut |at, into| {
        reads += 1;
        assert!(reads <= MAX_READS && at + into.len() as u64 <= geometry.area_len);
        memory.read(at, into)
    });
    let found = match found {
        Ok(found) => found,
        // It was in chains of one generation when those of the next came.
        Err(Fault::Malformed) if memory.resets => return,
        Err(Fault::Busy | Fault::Conflict) if memory.held.len() > 1 => return,
        Err(fault) => panic!("{fault:?}: {:?}", memory.held),
    };
    let slot = found.and_then(|found| found.slot);
    assert!(
        memory.held.contains(&slot),
        "{slot:?} is none of {:?}",
        memory.held
    );
    let (Some(found), Some(slot)) = (found, slot) else {
        return;
    };
    // What is read later by what was found is what the producer wrote, if it is confirmed.
    let mut name = [0; MAX_NAME as usize];
    let name = found.name(geometry, &mut name, &mut |at, into| memory.read(at, into));
    memory.forget();
    if found.confirm(&mut |at, into| memory.read(at, into)).is_ok() {
        assert!(memory.held.contains(&Some(slot)), "it is gone");
        let bits = i64::from(slot) | i64::from(found.generation & 0x1fff_ffff) << 32;
        let known = memory.jit.names.get(&Slot::from_bits(bits));
        assert_eq!(name, Ok(known.map_or("", String::as_str).as_bytes()));
    }
}
