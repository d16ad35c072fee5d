//! A registry and a model of it that does everything the slow way: whatever is done to both, they answer alike.
//! Property tests and fuzz targets ask the same.

use super::memory::{Area, Process, SORTED, Section};
use framewalk_announce::abi::{
    KIND_AREA, KIND_SECTION, MAX_AREAS, MAX_SECTIONS, REGISTER, REPLACE, Refusal, UNREGISTER,
};
use framewalk_announce::area::layout::{GEOMETRY_SIZE, MAX_AREA};
use framewalk_walk::registry::{Announced, Claim, Listed, Registry, What};
use std::collections::{BTreeMap, BTreeSet};

/// What is registered is read in so many pieces, at most: a header and two index entries.
const MOST_READS: usize = 3;
/// A piece is the part of an area's header that never changes, at most.
const LONGEST_READ: usize = GEOMETRY_SIZE as usize;

#[derive(Debug, Clone)]
pub(crate) enum Step {
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
    /// Any call, with any memory behind it.
    Call {
        pid: u32,
        option: u32,
        arguments: [u64; 4],
        memory: Process,
    },
    Fork(u32, u32),
    Share(u32, u32),
    Exec(u32),
    Exit(u32),
}

/// Text start, text end, key, bytes of the area.
type Held = (u64, u64, u64, u64);

/// Every process has the number of its address space.
#[derive(Debug)]
struct Model {
    room: usize,
    of: BTreeMap<u32, usize>,
    spaces: Vec<Vec<Held>>,
    uncopied: u64,
}

impl Model {
    fn space(&mut self, pid: u32) -> usize {
        let Model { of, spaces, .. } = self;
        *of.entry(pid).or_insert_with(|| {
            spaces.push(Vec::new());
            spaces.len() - 1
        })
    }

    fn total(&self) -> usize {
        let used: BTreeSet<usize> = self.of.values().copied().collect();
        used.into_iter().map(|space| self.spaces[space].len()).sum()
    }

    fn register(&mut self, pid: u32, new: Held, replace: bool) -> Result<(), Refusal> {
        let total = self.total();
        let space = self.space(pid);
        let held = &self.spaces[space];
        let goes = |held: &&Held| replace && held.2 == new.2;
        let stays: Vec<Held> = held.iter().filter(|held| !goes(held)).copied().collect();
        if replace && stays.len() == held.len() {
            return Err(Refusal::UnknownKey);
        }
        if stays.iter().any(|held| held.0 < new.1 && new.0 < held.1) {
            return Err(Refusal::Overlap);
        }
        let left = total - (held.len() - stays.len());
        if left + 1 > self.room || stays.len() + 1 > MAX_SECTIONS as usize {
            return Err(Refusal::Quota);
        }
        let areas: Vec<u64> = stays
            .iter()
            .map(|held| held.3)
            .filter(|&area| area > 0)
            .collect();
        let bytes = areas.iter().sum::<u64>() + new.3;
        if new.3 > 0 && (areas.len() + 1 > MAX_AREAS as usize || bytes > MAX_AREA) {
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
        let fits = self.total() + copy.len() <= self.room;
        self.uncopied += u64::from(!fits);
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

/// The registry and its model.
#[derive(Debug)]
pub(crate) struct Both {
    registry: Registry,
    model: Model,
    /// The last number that was given.
    last: u64,
}

impl Both {
    /// Both empty, with room for so many sections.
    pub(crate) fn with_room(room: usize) -> Both {
        let (of, spaces, uncopied) = (BTreeMap::new(), Vec::new(), 0);
        let model = Model {
            room,
            of,
            spaces,
            uncopied,
        };
        let registry = Registry::with_room(room);
        let last = 0;
        Both {
            registry,
            model,
            last,
        }
    }

    /// Does the same to both, and compares their answers.
    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Register {
                pid,
                key,
                slot,
                slots,
                area,
                replace,
            } => {
                let start = 0x1000 + slot * 16;
                let new = (start, start + u64::from(slots) * 16, key, area);
                let answer = self.register(pid, new, replace);
                assert_eq!(answer, self.model.register(pid, new, replace));
            }
            Step::Unregister { pid, key } => {
                let answer = self.registry.unregister(pid, key);
                assert_eq!(answer, self.model.unregister(pid, key));
            }
            Step::Call {
                pid,
                option,
                arguments,
                memory,
            } => self.call(pid, option, arguments, &memory),
            Step::Fork(parent, child) => {
                self.registry.fork(parent, child);
                self.model.fork(parent, child);
            }
            Step::Share(parent, child) => {
                self.registry.share(parent, child);
                self.model.share(parent, child);
            }
            Step::Exec(pid) => {
                self.registry.exec(pid);
                self.model.of.remove(&pid);
            }
            Step::Exit(pid) => {
                self.registry.exit(pid);
                self.model.of.remove(&pid);
            }
        }
    }

    /// Registers what is in order.
    fn register(&mut self, pid: u32, new: Held, replace: bool) -> Result<(), Refusal> {
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
        let flags = kind | if replace { REPLACE } else { 0 };
        let answer = bounded(&process, AT..AT + length, |read| {
            let announced = self
                .registry
                .register(pid, new.2, AT, length, flags, read)?;
            Ok(announced.number)
        });
        let number = answer?;
        self.is_new(number);
        Ok(())
    }

    /// What the bytes claim is for [`Claim::read`] to say; what becomes of the claim, for the model.
    fn call(&mut self, pid: u32, option: u32, arguments: [u64; 4], memory: &Process) {
        let [key, address, length, kind] = arguments;
        let range = address..address.saturating_add(length);
        let answer = bounded(memory, range.clone(), |read| {
            self.registry.prctl(pid, option, arguments, read)
        });
        let expected = match option {
            REGISTER => {
                let replace = kind & REPLACE != 0;
                let claim = match kind & !REPLACE {
                    kind @ (KIND_SECTION | KIND_AREA) => bounded(memory, range, |read| {
                        Claim::read(key, address, length, kind, read)
                    }),
                    _ => Err(Refusal::Arguments),
                };
                let registered = claim.and_then(|claim| {
                    let text = claim.text;
                    assert!(text.start < text.end && text.start > 0);
                    let area = match claim.what {
                        What::Area(_) => claim.len.into(),
                        What::Section { .. } => 0,
                    };
                    self.model
                        .register(pid, (text.start, text.end, key, area), replace)
                });
                let newest = |sections: &[Announced]| sections.iter().map(|held| held.number).max();
                registered.map(|()| {
                    let number = newest(self.registry.sections(pid)).unwrap();
                    self.is_new(number);
                    (number & i32::MAX as u64) as i32
                })
            }
            UNREGISTER if arguments[1..] == [0, 0, 0] => self
                .model
                .unregister(pid, key)
                .map(|removed| removed as i32),
            UNREGISTER => Err(Refusal::Arguments),
            _ => return assert_eq!(answer, None),
        };
        assert!(answer.is_some_and(|answer| answer != 0));
        assert_eq!(
            answer,
            Some(expected.unwrap_or_else(|refusal| -refusal.errno()))
        );
    }

    fn is_new(&mut self, number: u64) {
        assert!(number > self.last);
        self.last = number;
    }

    /// Both hold the same; what the registry holds is sorted, disjoint and within its quotas.
    pub(crate) fn compare(&mut self) {
        let area = |version: bool, len: u32| if version { 0 } else { len.into() };
        let held = |listed: &Listed| {
            let area = area(listed.version.is_some(), listed.len);
            (listed.text_start, listed.text_end, listed.key, area)
        };
        let listed = self.registry.list();
        let of_process =
            |(&pid, listed): (&u32, &Vec<Listed>)| (pid, listed.iter().map(held).collect());
        let listed: BTreeMap<u32, Vec<Held>> = listed.iter().map(of_process).collect();
        assert_eq!(listed, self.model.list());
        assert_eq!(self.registry.len(), self.model.total());
        assert_eq!(self.registry.is_empty(), self.model.total() == 0);
        assert!(self.registry.len() <= self.model.room);
        assert_eq!(self.registry.uncopied(), self.model.uncopied);

        let mut numbers = BTreeSet::new();
        for (&pid, &space) in &self.model.of {
            let sections = self.registry.sections(pid);
            assert!(sections.len() <= MAX_SECTIONS as usize);
            let texts: Vec<_> = sections
                .iter()
                .map(|held| held.claim.text.clone())
                .collect();
            assert!(texts.windows(2).all(|pair| pair[0].end <= pair[1].start));
            let edges = texts.iter().flat_map(|text| [text.start, text.end]);
            for edge in edges {
                for pc in [edge - 1, edge] {
                    let all = &self.model.spaces[space];
                    let expected = all.iter().find(|held| (held.0..held.1).contains(&pc));
                    let found = self.registry.find(pid, pc).map(|found| {
                        let area = area(found.claim.what.version().is_some(), found.claim.len);
                        let text = &found.claim.text;
                        (text.start, text.end, found.key, area)
                    });
                    assert_eq!(found.as_ref(), expected);
                }
            }
            numbers.extend(sections.iter().map(|held| held.number));
            self.last = self.last.max(numbers.last().copied().unwrap_or(0));
        }
        assert_eq!(numbers.len(), self.registry.len());
        assert!(self.registry.find(u32::MAX, 0x1000).is_none());
    }
}

/// Lets somebody read a process's memory: few pieces, each inside of what was named.
fn bounded<T>(
    process: &Process,
    range: std::ops::Range<u64>,
    reads: impl FnOnce(&mut dyn FnMut(u64, &mut [u8]) -> bool) -> T,
) -> T {
    let mut count = 0;
    reads(&mut |address, into| {
        count += 1;
        assert!(count <= MOST_READS && into.len() <= LONGEST_READ);
        assert!(range.start <= address && address + into.len() as u64 <= range.end);
        process.read(address, into)
    })
}
