//! Whether sections are still what they were when they were registered.
//!
//! A hash of each is made soon after its registration is heard, and made again from time to time: of those that
//! were writable every round (a second), of the others seldom. What is another then is quarantined: walks do not use it any
//! more. Work is bounded per round, in bytes and sections; whose turn does not come waits, and is counted.
//!
//! The hash is no proof of anything: whoever wants to cheat changes a section between two looks and changes it back, and
//! only its own stacks are wrong. It finds accidents: memory that was used again, a table that was edited in place.

use super::memory::{Budget, MAX_SECTION, Now, Reader};
use framewalk_kernel::{Error, Hashes, Registry, RegistryMaps, Section};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

/// What the map of hashes is called where it is pinned, and so, by which function they are made.
const NAME: &str = "hashes-xxh3";
/// What one round may read.
const ROUND: Budget = Budget {
    sections: 16 << 10,
    bytes: 64 << 20,
};
/// What may be read of new sections until the next round.
const FRESH: Budget = Budget {
    sections: 8 << 10,
    bytes: 32 << 20,
};
/// What one address space may have read in its turn.
const TURN: Budget = Budget {
    sections: 4 << 10,
    bytes: 64 << 20,
};
// SANITY: so every section that may be read at all is read in some round.
const _: () = assert!(ROUND.bytes >= MAX_SECTION as u64 && TURN.bytes >= MAX_SECTION as u64);
/// Rounds until a section that was not writable, or could not be read, is looked at again.
const SELDOM: u64 = 60;

/// A section that was seen to have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caught {
    /// A process that has it.
    pub pid: u32,
    /// The section.
    pub section: Section,
}

/// How many sections there were in the last round, and which of them have no hash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// All.
    pub sections: usize,
    /// Those that have not had their turn yet.
    pub waiting: usize,
    /// Those that could not be read.
    pub unreadable: usize,
    /// Those that are larger than what is read.
    pub too_large: usize,
    /// Those for whose hashes there is no room.
    pub beyond: usize,
}

impl Tally {
    /// What is worth a line; nothing where all have a hash.
    pub fn note(&self) -> Option<String> {
        let counts = [
            (self.waiting, "wait for their turn"),
            (self.unreadable, "cannot be read"),
            (self.too_large, "are too large"),
            (self.beyond, "are too many"),
        ];
        let some = counts.into_iter().filter(|&(count, _)| count > 0);
        let said: Vec<String> = some
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        let all = self.sections;
        (!said.is_empty()).then(|| {
            format!(
                "of {all} sections some are not watched for changes: {}",
                said.join(", ")
            )
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// None where it could not be read.
    hash: Option<u64>,
    /// In which round it was read last.
    round: u64,
}

/// Keeps the hashes.
#[derive(Debug)]
pub struct Keeper {
    hashes: Hashes,
    reader: Reader,
    /// By address space, then by number.
    known: HashMap<u64, HashMap<u64, Known>>,
    count: usize,
    round: u64,
    /// In which round the current lap began. In a lap each address space has one turn.
    lap: u64,
    /// The address space that the next round goes on with, and what is left of its turn.
    next: u64,
    turn: Budget,
    fresh: Budget,
}

impl Keeper {
    /// Nothing is known yet.
    pub fn new() -> Result<Keeper, Error> {
        Ok(Keeper {
            hashes: Hashes::create()?,
            reader: Reader::default(),
            known: HashMap::new(),
            count: 0,
            round: 0,
            lap: 0,
            next: 0,
            turn: TURN,
            fresh: FRESH,
        })
    }

    /// Makes the hashes known to others.
    pub fn pin(&mut self, folder: &Path) -> Result<(), Error> {
        self.hashes.pin(folder, NAME)
    }

    /// Takes back what [`Keeper::pin`] did.
    pub fn unpin(folder: &Path) {
        let _ = std::fs::remove_file(folder.join(NAME));
    }

    /// Hashes what was registered in these address spaces since, by these processes.
    pub fn registered(&mut self, registry: &Registry, spaces: &BTreeSet<(u64, u32)>) {
        let maps = registry.maps();
        for &(space, pid) in spaces {
            // Where several share it all have to be asked: in the next round.
            if maps.processes_of(space) != Some(1) {
                continue;
            }
            let known = self.known.get(&space);
            let new =
                |section: &Section| known.is_none_or(|known| !known.contains_key(&section.number));
            let mut sections = maps.sections_of(space).unwrap_or_default();
            sections.retain(|section| new(section) && self.may_be_read(section));
            let fits = take(&mut self.fresh, &sections);
            sections.truncate(fits);
            let read = self.reader.read(maps, space, &[pid], sections);
            for (section, now) in read {
                self.look(space, &section, &now);
            }
        }
    }

    /// One round: looks again at what is due, quarantines what has changed, forgets what is gone.
    pub fn round(&mut self, registry: &Registry) -> Result<(Vec<Caught>, Tally), Error> {
        self.round += 1;
        self.fresh = FRESH;
        let (mut budget, mut tally, mut caught) = (ROUND, Tally::default(), Vec::new());
        let maps = registry.maps();
        let sharers = maps.sharers();
        self.forget(|space| sharers.contains_key(&space));
        let begin = std::mem::take(&mut self.next);
        let rest = sharers.range(begin..).map(|of| (of, false));
        let again = sharers.range(..begin).map(|of| (of, true));
        if begin == 0 {
            self.lap = self.round;
        }
        let mut full = false;
        for ((&space, processes), again) in rest.chain(again) {
            if again && !full {
                self.lap = self.round;
            }
            let sections = maps.sections_of(space).unwrap_or_default();
            let registered: HashSet<u64> = sections.iter().map(|section| section.number).collect();
            self.forget_in(space, |number| registered.contains(&number));
            if !full {
                let mut turn = match space == begin {
                    true => self.turn,
                    false => TURN,
                };
                let mut due = self.due(space, &sections);
                let may = take(&mut turn, &due);
                let fits = take(&mut budget, &due[..may]);
                if fits < may {
                    full = true;
                    // What did not fit is still to come.
                    self.next = space;
                    self.turn = turn;
                    due[fits..may]
                        .iter()
                        .for_each(|section| self.turn.give(section));
                }
                due.truncate(fits);
                let read = self.reader.read(maps, space, processes, due);
                for (section, now) in read {
                    if self.look(space, &section, &now)
                        && registry.quarantine(space, section.number)?
                    {
                        let pid = processes.first().copied().unwrap_or(0);
                        caught.push(Caught { pid, section });
                    }
                }
            }
            self.count_in(space, &sections, &mut tally);
        }
        Ok((caught, tally))
    }

    /// What is due in this round: what was not looked at for longest first.
    fn due(&self, space: u64, sections: &[Section]) -> Vec<Section> {
        let known = self.known.get(&space);
        let looked = |section: &Section| known.and_then(|known| known.get(&section.number));
        let mut due: Vec<(u64, &Section)> = sections
            .iter()
            .filter(|section| self.may_be_read(section))
            .filter_map(|section| match looked(section) {
                None if self.count >= Hashes::MAX => None,
                None => Some((u64::MAX, section)),
                Some(known) => {
                    let often = section.writable && known.hash.is_some();
                    let age = self.round - known.round;
                    let is = known.round < self.lap && age >= if often { 1 } else { SELDOM };
                    is.then_some((age, section))
                }
            })
            .collect();
        due.sort_by_key(|&(age, _)| std::cmp::Reverse(age));
        due.into_iter()
            .map(|(_, section)| section.clone())
            .collect()
    }

    /// Frame areas are made to change.
    fn may_be_read(&self, section: &Section) -> bool {
        !section.quarantined && !section.area && section.length <= MAX_SECTION
    }

    /// Takes in what a section is now. True if it was another before.
    fn look(&mut self, space: u64, section: &Section, now: &Now) -> bool {
        let (number, round) = (section.number, self.round);
        let of_space = self.known.entry(space).or_default();
        let known = of_space.get(&number).copied();
        if let Some(hash) = known.and_then(|known| known.hash) {
            let known = Known {
                hash: Some(hash),
                round,
            };
            of_space.insert(number, known);
            return now.changed(hash) == Some(true);
        }
        // While sharers disagree one of them is leaving: the next round will tell.
        if now.is_torn() || (known.is_none() && self.count >= Hashes::MAX) {
            return false;
        }
        let hash = now.hash().filter(|&hash| self.hashes.set(number, hash));
        of_space.insert(number, Known { hash, round });
        self.count += usize::from(known.is_none());
        false
    }

    fn count_in(&self, space: u64, sections: &[Section], tally: &mut Tally) {
        let known = self.known.get(&space);
        let watched = |section: &&Section| !section.area;
        tally.sections += sections.iter().filter(watched).count();
        let used = sections.iter().filter(|section| !section.quarantined);
        for section in used.filter(watched) {
            match known.and_then(|known| known.get(&section.number)) {
                Some(Known { hash: Some(_), .. }) => {}
                Some(Known { hash: None, .. }) => tally.unreadable += 1,
                None if section.length > MAX_SECTION => tally.too_large += 1,
                None if self.count >= Hashes::MAX => tally.beyond += 1,
                None => tally.waiting += 1,
            }
        }
    }

    /// Forgets the address spaces that are not to be kept.
    fn forget(&mut self, keep: impl Fn(u64) -> bool) {
        let (hashes, count) = (&self.hashes, &mut self.count);
        self.known.retain(|&space, numbers| {
            let keep = keep(space);
            if !keep {
                numbers.keys().for_each(|&number| hashes.forget(number));
                *count -= numbers.len();
            }
            keep
        });
    }

    /// Forgets the sections of an address space that are not to be kept.
    fn forget_in(&mut self, space: u64, keep: impl Fn(u64) -> bool) {
        let (hashes, count) = (&self.hashes, &mut self.count);
        if let Some(numbers) = self.known.get_mut(&space) {
            numbers.retain(|&number, _| {
                let keep = keep(number);
                if !keep {
                    hashes.forget(number);
                    *count -= 1;
                }
                keep
            });
        }
    }
}

/// Takes from a budget what reading these sections costs, from the first one on; how many it allows.
fn take(budget: &mut Budget, sections: &[Section]) -> usize {
    let allowed = sections.iter().take_while(|section| {
        let allows = budget.allows(section);
        if allows {
            budget.take(section);
        }
        allows
    });
    allowed.count()
}

/// Asks, for others than the agent, whether sections have changed.
#[derive(Debug)]
pub struct Changes {
    hashes: Option<Hashes>,
    reader: Reader,
    left: Budget,
}

impl Changes {
    /// By the hashes of the agent that pins into this folder.
    pub fn open(folder: &Path) -> Changes {
        Changes {
            // Of another version: nothing can be said then.
            hashes: Hashes::open(folder, NAME).ok(),
            reader: Reader::default(),
            left: Budget {
                sections: u32::MAX,
                bytes: 1 << 30,
            },
        }
    }

    /// For each of these sections of an address space, by number, whether it has changed since it was registered; left out
    /// where that cannot be said.
    pub fn of(
        &mut self,
        maps: &RegistryMaps,
        space: u64,
        processes: &[u32],
        sections: &[Section],
    ) -> HashMap<u64, bool> {
        let quarantined = sections.iter().filter(|section| section.quarantined);
        let mut changed: HashMap<u64, bool> =
            quarantined.map(|section| (section.number, true)).collect();
        let Some(hashes) = &self.hashes else {
            return changed;
        };
        let mut before = HashMap::new();
        let mut ask = sections.to_vec();
        ask.retain(|section| {
            let hash = (!section.quarantined && section.length <= MAX_SECTION)
                .then(|| hashes.get(section.number))
                .flatten();
            before.extend(hash.map(|hash| (section.number, hash)));
            hash.is_some()
        });
        ask.truncate(take(&mut self.left, &ask));
        let read = self.reader.read(maps, space, processes, ask);
        for (section, now) in read {
            let before = before.get(&section.number).copied();
            if let Some(is) = before.and_then(|before| now.changed(before)) {
                changed.insert(section.number, is);
            }
        }
        changed
    }
}
