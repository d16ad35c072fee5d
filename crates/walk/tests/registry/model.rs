//! Random sequences against a model that does everything the slow way.

use super::memory::{Area, Process, SORTED, Section};
use framewalk_announce::abi::{KIND_AREA, KIND_SECTION, REPLACE, Refusal};
use framewalk_announce::area::layout::MAX_AREA;
use framewalk_walk::registry::{Registry, What};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Text in slots of 16 bytes: first and number.
    Register {
        pid: u32,
        key: u64,
        slot: u64,
        slots: u32,
        /// Bytes of the area; 0: a section.
        area: u64,
        replace: bool,
    },
    Unregister {
        pid: u32,
        key: u64,
    },
    Fork(u32, u32),
    Share(u32, u32),
    Exec(u32),
    Exit(u32),
}

const ROOM: usize = 14;
const SLOTS: u64 = 24;

fn step() -> impl Strategy<Value = Step> {
    let (pid, key) = (1..5u32, 1..5u64);
    prop_oneof![
        10 => (pid.clone(), key.clone(), 0..SLOTS, 1..4u32, area(), prop::bool::weighted(0.3)).prop_map(
            |(pid, key, slot, slots, area, replace)| Step::Register { pid, key, slot, slots, area, replace }
        ),
        4 => (pid.clone(), key).prop_map(|(pid, key)| Step::Unregister { pid, key }),
        2 => (pid.clone(), pid.clone()).prop_map(|(a, b)| Step::Fork(a, b)),
        2 => (pid.clone(), pid.clone()).prop_map(|(a, b)| Step::Share(a, b)),
        1 => pid.clone().prop_map(Step::Exec),
        1 => pid.prop_map(Step::Exit),
    ]
}

fn area() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(256),
        Just(MAX_AREA / 2),
        Just(MAX_AREA / 4 + 1)
    ]
}

/// Text start, text end, key, bytes of the area.
type Held = (u64, u64, u64, u64);

/// Every process has the number of its address space.
#[derive(Debug, Default)]
struct Model {
    of: BTreeMap<u32, usize>,
    spaces: Vec<Vec<Held>>,
}

impl Model {
    fn space(&mut self, pid: u32) -> usize {
        let Model { of, spaces } = self;
        *of.entry(pid).or_insert_with(|| {
            spaces.push(Vec::new());
            spaces.len() - 1
        })
    }

    fn total(&self) -> usize {
        let used = |space: &usize| self.of.values().any(|used| used == space);
        (0..self.spaces.len())
            .filter(used)
            .map(|space| self.spaces[space].len())
            .sum()
    }

    fn register(&mut self, pid: u32, new: Held, replace: bool) -> Result<(), Refusal> {
        let total = self.total();
        let space = self.space(pid);
        let held = &self.spaces[space];
        let stays: Vec<Held> = held
            .iter()
            .filter(|h| !(replace && h.2 == new.2))
            .copied()
            .collect();
        if replace && stays.len() == held.len() {
            return Err(Refusal::UnknownKey);
        }
        if stays
            .iter()
            .any(|h| (h.0..h.1).any(|byte| (new.0..new.1).contains(&byte)))
        {
            return Err(Refusal::Overlap);
        }
        if total - (held.len() - stays.len()) + 1 > ROOM {
            return Err(Refusal::Quota);
        }
        let bytes: u64 = stays.iter().map(|held| held.3).sum();
        if new.3 > 0 && bytes + new.3 > MAX_AREA {
            return Err(Refusal::Quota);
        }
        self.spaces[space] = stays;
        self.spaces[space].push(new);
        Ok(())
    }

    fn unregister(&mut self, pid: u32, key: u64) -> Result<u32, Refusal> {
        let space = self.space(pid);
        let before = self.spaces[space].len();
        self.spaces[space].retain(|held| held.2 != key);
        match before - self.spaces[space].len() {
            0 => Err(Refusal::UnknownKey),
            removed => Ok(removed as u32),
        }
    }

    fn fork(&mut self, parent: u32, child: u32) {
        if parent == child {
            return;
        }
        let space = self.space(parent);
        let copy = self.spaces[space].clone();
        self.of.remove(&child);
        let fits = self.total() + copy.len() <= ROOM;
        let space = self.space(child);
        self.spaces[space] = if fits { copy } else { Vec::new() };
    }

    fn share(&mut self, parent: u32, child: u32) {
        if parent != child {
            let space = self.space(parent);
            self.of.insert(child, space);
        }
    }

    fn list(&self) -> BTreeMap<u32, Vec<Held>> {
        let sorted = |space: &usize| {
            let mut held = self.spaces[*space].clone();
            held.sort();
            held
        };
        let all = self.of.iter().map(|(&pid, space)| (pid, sorted(space)));
        all.filter(|(_, held)| !held.is_empty()).collect()
    }
}

fn register(registry: &mut Registry, pid: u32, new: Held, replace: bool) -> Result<u64, Refusal> {
    const AT: u64 = 0x100_0000;
    let (bytes, kind) = match new.3 {
        0 => {
            let section = Section::new(3, SORTED, AT, &[(new.0, (new.1 - new.0) as u32)]);
            (section.bytes(), KIND_SECTION)
        }
        area_len => {
            let area = Area::new(new.2, new.0..new.1);
            (Area { area_len, ..area }.bytes(), KIND_AREA)
        }
    };
    let length = if kind == KIND_AREA {
        new.3
    } else {
        bytes.len() as u64
    };
    let process = Process::new(AT, bytes);
    let mut read = |address, into: &mut [u8]| process.read(address, into);
    let flags = kind | if replace { REPLACE } else { 0 };
    let announced = registry.register(pid, new.2, AT, length, flags, &mut read)?;
    Ok(announced.number)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_registry_is_the_model(steps in prop::collection::vec(step(), 0..80)) {
        let (mut registry, mut model) = (Registry::with_room(ROOM), Model::default());
        let mut last = 0;
        for step in steps {
            match step {
                Step::Register { pid, key, slot, slots, area, replace } => {
                    let start = 0x1000 + slot * 16;
                    let new = (start, start + u64::from(slots) * 16, key, area);
                    let answer = register(&mut registry, pid, new, replace);
                    prop_assert_eq!(answer.map(|_| ()), model.register(pid, new, replace));
                    if let Ok(number) = answer {
                        prop_assert!(number > last);
                        last = number;
                    }
                }
                Step::Unregister { pid, key } => {
                    prop_assert_eq!(registry.unregister(pid, key), model.unregister(pid, key));
                }
                Step::Fork(parent, child) => {
                    registry.fork(parent, child);
                    model.fork(parent, child);
                }
                Step::Share(parent, child) => {
                    registry.share(parent, child);
                    model.share(parent, child);
                }
                Step::Exec(pid) => {
                    registry.exec(pid);
                    model.of.remove(&pid);
                }
                Step::Exit(pid) => {
                    registry.exit(pid);
                    model.of.remove(&pid);
                }
            }
            let listed = registry.list();
            let held = |(&pid, listed): (&u32, &Vec<framewalk_walk::registry::Listed>)| {
                (pid, listed.iter().map(|l| {
                    let area = if l.version.is_none() { l.len.into() } else { 0 };
                    (l.text_start, l.text_end, l.key, area)
                }).collect::<Vec<Held>>())
            };
            prop_assert_eq!(listed.iter().map(held).collect::<BTreeMap<_, _>>(), model.list());
            prop_assert_eq!(registry.len(), model.total());
            for pid in 1..5 {
                let all = model.list().remove(&pid).unwrap_or_default();
                for pc in (0x1000 - 8..0x1000 + SLOTS * 16 + 64).step_by(8) {
                    let held = all.iter().find(|held| (held.0..held.1).contains(&pc));
                    let found = registry.find(pid, pc).map(|found| {
                        let area = match found.claim.what {
                            What::Area(_) => found.claim.len.into(),
                            What::Section { .. } => 0,
                        };
                        (found.claim.text.start, found.claim.text.end, found.key, area)
                    });
                    prop_assert_eq!(found, held.copied());
                }
            }
        }
        let mut numbers: Vec<u64> = (1..5).flat_map(|pid| registry.sections(pid)).map(|s| s.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        prop_assert_eq!(numbers.len(), registry.len());
    }
}
