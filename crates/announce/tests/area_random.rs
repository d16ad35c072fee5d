//! Random lives of areas: what the observer sees is what was done; and memory that somebody scribbles on harms nobody.

mod looker;

use framewalk_announce::area::layout::*;
use framewalk_announce::area::{Area, Function, Label, Options, PublishError, Rule, Slot};
use looker::{Looker, oracle, word, zeros};
use proptest::prelude::*;
use std::sync::atomic::Ordering::Relaxed;

const TEXT: u64 = 0x4000_0000;
const LEN: u64 = 0x800;

fn options(capacity: u32, shift: u32) -> Options {
    Options {
        capacity,
        granule_shift: shift,
        heap: 256,
        ..Options::new(TEXT, LEN)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish { start: u64, size: u32, name: String },
    Tombstone(usize),
    Move { which: usize, start: u64 },
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    // Mostly small, in units of four bytes, now and then over several granules; sometimes outside of the text.
    let start = (0..=LEN / 4).prop_map(|at| TEXT + 4 * at);
    let size = prop_oneof![8 => 1u32..40, 2 => 1u32..0x300, 1 => Just(0)];
    prop_oneof![
        20 => (start.clone(), size, "[a-zé]{0,5}").prop_map(|(start, size, name)| {
            Step::Publish { start, size, name }
        }),
        10 => any::<usize>().prop_map(Step::Tombstone),
        5 => (any::<usize>(), start).prop_map(|(which, start)| Step::Move { which, start }),
        1 => Just(Step::Reset),
    ]
}

/// A function that is alive.
struct Alive {
    slot: Slot,
    range: std::ops::Range<u64>,
    name: String,
}

/// What the area has to answer, for a range that no live function is in the way of.
fn is_free(alive: &[Alive], start: u64, size: u32) -> bool {
    let end = start + u64::from(size);
    alive
        .iter()
        .all(|f| f.range.end <= start || end <= f.range.start)
}

fn in_text(start: u64, size: u32) -> bool {
    size > 0 && start + u64::from(size) <= TEXT + LEN
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_seen_is_what_was_done(
        capacity in 1u32..64,
        shift in 6u32..10,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let options = options(capacity, shift);
        let len = options.area_len().unwrap();
        let memory = zeros(len);
        let mut area = Area::new(&memory, &options).unwrap();
        let looker = Looker::new(&memory, len);
        let mut alive: Vec<Alive> = Vec::new();
        for step in steps {
            match step {
                Step::Publish { start, size, name } => {
                    // A JIT does not generate code over code that lives.
                    if !is_free(&alive, start, size) {
                        continue;
                    }
                    let function = Function {
                        label: Label::Name(&name),
                        ..Function::new(start, size, Rule::fixed(8 + 8 * size as i32))
                    };
                    let [claimed, used] = [CLAIMED_AT, HEAP_USED_AT].map(|at| word(&memory, at));
                    let needs = (1 + name.len() as u32).next_multiple_of(4);
                    match area.publish(&function) {
                        Ok(slot) => {
                            prop_assert!(in_text(start, size));
                            let range = start..start + u64::from(size);
                            alive.push(Alive { slot, range, name });
                        }
                        Err(PublishError::Range) => prop_assert!(!in_text(start, size)),
                        Err(PublishError::Full) => prop_assert_eq!(claimed, capacity),
                        Err(PublishError::HeapFull) => prop_assert!(used + needs > 256),
                        Err(PublishError::Crowded) => {
                            let granule = |at: u64| (at - TEXT) >> shift;
                            let there = |f: &&Alive| granule(f.range.start) == granule(start);
                            prop_assert_eq!(alive.iter().filter(there).count(), 64);
                        }
                        Err(other) => prop_assert!(false, "{:?}", other),
                    }
                }
                Step::Tombstone(which) if !alive.is_empty() => {
                    let gone = alive.swap_remove(which % alive.len());
                    prop_assert!(area.tombstone(gone.slot));
                }
                Step::Move { which, start } if !alive.is_empty() => {
                    let gone = alive.swap_remove(which % alive.len());
                    let size = (gone.range.end - gone.range.start) as u32;
                    // To where it is in the way of nobody but itself.
                    if !is_free(&alive, start, size) {
                        alive.push(gone);
                        continue;
                    }
                    match area.moved(gone.slot, start) {
                        Ok(slot) => {
                            let range = start..start + u64::from(size);
                            alive.push(Alive { slot, range, name: gone.name });
                        }
                        Err(PublishError::Range) => prop_assert!(!in_text(start, size)),
                        Err(error) => {
                            prop_assert!(matches!(error, PublishError::Full | PublishError::Crowded));
                        }
                    }
                }
                Step::Reset => {
                    alive.clear();
                    area.reset();
                }
                _ => {}
            }
            let probes = alive.iter().flat_map(|f| [f.range.start, f.range.end - 1, f.range.end]);
            for pc in probes.chain((TEXT..TEXT + LEN).step_by(97)) {
                let expected = alive.iter().find(|f| f.range.contains(&pc));
                let seen = oracle::look_at_sound(&looker, pc);
                prop_assert_eq!(
                    seen.and_then(|found| found.slot),
                    expected.map(|f| f.slot.number())
                );
                if let Some(f) = expected {
                    let offset = (pc - f.range.start) as u32;
                    prop_assert_eq!(seen.unwrap().offset(), Some(offset));
                    prop_assert_eq!(looker.name(pc), f.name.as_str());
                }
            }
            let dead = word(&memory, TOMBSTONES_AT);
            prop_assert_eq!(area.claimed() - dead, alive.len() as u32);
        }
    }

    #[test]
    fn scribbled_memory_harms_nobody(
        scribbles in prop::collection::vec((any::<prop::sample::Index>(), scribble(), step()), 1..200),
    ) {
        let options = options(16, 6);
        let len = options.area_len().unwrap();
        let memory = zeros(len);
        let mut area = Area::new(&memory, &options).unwrap();
        let looker = Looker::new(&memory, len);
        let mut slots = vec![Slot::from_bits(0)];
        for (at, value, step) in scribbles {
            memory[at.index(memory.len())].store(value, Relaxed);
            // Every answer is right, if there is one.
            match step {
                Step::Publish { start, size, name } => {
                    let function = Function {
                        label: Label::Name(&name),
                        ..Function::new(start, size, Rule::FramePointer)
                    };
                    slots.extend(area.publish(&function));
                }
                Step::Tombstone(which) => {
                    area.tombstone(slots[which % slots.len()]);
                }
                Step::Move { which, start } => {
                    slots.extend(area.moved(slots[which % slots.len()], start));
                }
                Step::Reset => area.reset(),
            }
            for pc in (TEXT..TEXT + LEN).step_by(61) {
                let _ = oracle::look_at_anything(&looker, pc);
            }
        }
    }
}

/// Words that mean something, and others.
fn scribble() -> impl Strategy<Value = u32> {
    prop_oneof![
        0u32..40,
        (0u32..20).prop_map(|slot| COVERED | slot),
        Just(u32::MAX),
        Just(i32::MAX as u32),
        any::<u32>(),
    ]
}
