//! What a process announced about its own code: sections in its memory, copied once and asked from the copy.
//!
//! The bytes are hostile, whatever was checked when they were registered. A section that cannot be read,
//! or is not what its header said, says nothing and is counted; then the mapped object's table is asked as
//! if nothing had been announced.

mod areas;

use super::Generated;
use crate::sample::Place;
use ahash::RandomState;
use areas::Area;
use framewalk_announce::abi::MAX_ROW_BYTES;
use framewalk_sframe::Section;
use framewalk_walk::registry::{Announced, Claim, What, find};
use framewalk_walk::{Found, Origin, Says};
use std::collections::{HashMap, HashSet};
use std::fmt;

/// The largest section that is copied. The largest `.eh_frame` known are some tens of MiB.
const MAX_SECTION: u32 = 64 << 20;
/// Bytes of all copies.
const MAX_COPIES: usize = 512 << 20;
/// Answers that are kept for each section.
const MAX_ANSWERS: usize = 4096;

/// Reads memory of a process: all of `into`, from an address on, or false.
pub type MemoryRead<'a> = dyn FnMut(u64, &mut [u8]) -> bool + 'a;

/// Copies of sections, by the number of their registration.
#[derive(Debug)]
pub struct SectionCopies {
    copies: HashMap<u64, SectionCopy>,
    bytes: usize,
    room: usize,
    hasher: RandomState,
    failures: Failures,
    /// Names that frame areas have for code: walks find these, samples are to have [`super::Objects::generated`]'s.
    pub names: Generated,
}

/// What went wrong with announced sections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures {
    /// Sections whose memory could not be read.
    pub unreadable: u64,
    /// Sections that are larger than what is copied of one or of all.
    pub too_large: u64,
    /// Lookups that met malformed data.
    pub malformed: u64,
    /// Lookups in frame areas that changed again and again.
    pub busy: u64,
    /// Frames in the text of frame areas that could not be asked any more: they are of samples that were finished afterwards.
    pub late: u64,
}

#[derive(Debug)]
struct SectionCopy {
    pid: u32,
    /// None where it could not be read.
    bytes: Option<Vec<u8>>,
    /// Of the bytes as they were read.
    hash: u64,
    /// What was asked before: sections can be made so that an answer takes long.
    answers: HashMap<u64, Option<Says>, RandomState>,
}

impl Default for SectionCopies {
    fn default() -> SectionCopies {
        SectionCopies {
            copies: HashMap::new(),
            bytes: 0,
            room: MAX_COPIES,
            hasher: RandomState::new(),
            failures: Failures::default(),
            names: Generated::default(),
        }
    }
}

impl SectionCopies {
    /// Reads a section now, while its process is there, if it was not read before.
    pub fn load(&mut self, pid: u32, announced: &Announced, read: &mut MemoryRead) {
        let number = announced.number;
        if matches!(announced.claim.what, What::Section { .. })
            && !self.copies.contains_key(&number)
        {
            let copy = self.copy(pid, &announced.claim, read);
            self.bytes += copy.len();
            self.copies.insert(number, copy);
        }
    }

    /// How to go on from a pc by a section; `None` where it says nothing.
    fn says(
        &mut self,
        pid: u32,
        announced: &Announced,
        pc: u64,
        read: &mut MemoryRead,
    ) -> Option<Says> {
        self.load(pid, announced, read);
        let copy = self.copies.get_mut(&announced.number)?;
        if let Some(&known) = copy.answers.get(&pc) {
            return known;
        }
        let bytes = copy.bytes.as_ref()?;
        let says = look_up(bytes, announced.claim.address, pc).unwrap_or_else(|Malformed| {
            self.failures.malformed += 1;
            None
        });
        if copy.answers.len() >= MAX_ANSWERS {
            copy.answers.clear();
        }
        copy.answers.insert(pc, says);
        says
    }

    /// Reads a section. The header is the one that was checked, whatever stands there now.
    fn copy(&mut self, pid: u32, claim: &Claim, read: &mut MemoryRead) -> SectionCopy {
        let mut copy = SectionCopy {
            pid,
            bytes: None,
            hash: 0,
            answers: HashMap::default(),
        };
        let len = claim.len as usize;
        if claim.len > MAX_SECTION || len > self.room.saturating_sub(self.bytes) {
            self.failures.too_large += 1;
        } else if let Some(mut bytes) = read_section(claim, read) {
            copy.hash = self.hasher.hash_one(&bytes);
            if let (Some(header), What::Section { first_bytes, .. }) =
                (bytes.first_chunk_mut(), &claim.what)
            {
                *header = *first_bytes;
            }
            copy.bytes = Some(bytes);
        } else {
            self.failures.unreadable += 1;
        }
        copy
    }

    /// Whether a section is another now than when it was copied; `None` where it was not, or cannot
    /// be read any more.
    pub fn changed(&self, announced: &Announced, read: &mut MemoryRead) -> Option<bool> {
        let copy = self.copies.get(&announced.number)?;
        copy.bytes.as_ref()?;
        let now = read_section(&announced.claim, read)?;
        Some(self.hasher.hash_one(&now) != copy.hash)
    }

    /// Drops the copies of a process that are not in this list any more.
    pub fn keep(&mut self, pid: u32, registered: &[Announced]) {
        if self.copies.is_empty() {
            return;
        }
        let held: HashSet<u64> = registered.iter().map(|held| held.number).collect();
        let bytes = &mut self.bytes;
        self.copies.retain(|number, copy| {
            let keep = copy.pid != pid || held.contains(number);
            if !keep {
                *bytes -= copy.len();
            }
            keep
        });
    }

    /// What went wrong so far.
    pub fn failures(&self) -> Failures {
        self.failures
    }
}

impl SectionCopy {
    fn len(&self) -> usize {
        self.bytes.as_ref().map_or(0, Vec::len)
    }
}

impl Failures {
    /// What is worth a line to the user.
    pub fn notes(self) -> Vec<String> {
        let counts = [
            (self.unreadable, "announced sections could not be read"),
            (self.too_large, "announced sections are too large"),
            (
                self.malformed,
                "times malformed data in announced sections was met",
            ),
            (
                self.busy,
                "lookups in frame areas were overtaken by changes",
            ),
            (
                self.late,
                "frames in frame areas were walked without them, in samples that had to be finished afterwards",
            ),
        ];
        let some = counts.into_iter().filter(|&(count, _)| count > 0);
        some.map(|(count, what)| format!("{count} {what}"))
            .collect()
    }
}

fn read_section(claim: &Claim, read: &mut MemoryRead) -> Option<Vec<u8>> {
    let mut bytes = vec![0; claim.len as usize];
    read(claim.address, &mut bytes).then_some(bytes)
}

struct Malformed;

fn look_up(bytes: &[u8], address: u64, pc: u64) -> Result<Option<Says>, Malformed> {
    let section = Section::parse(bytes, address).map_err(|_| Malformed)?;
    let Some(index) = section.find(pc).map_err(|_| Malformed)? else {
        return Ok(None);
    };
    let function = section.function(index).map_err(|_| Malformed)?;
    let function = function.within(MAX_ROW_BYTES);
    let row = function.row_at(pc).map_err(|_| Malformed)?;
    Ok(row.map(|row| Says::Row {
        unwind: row.unwind,
        signal: function.signal,
        origin: Origin::Announced,
    }))
}

/// What one process has announced, at the moment of a walk.
pub struct AnnouncedCode<'a> {
    /// The process.
    pub pid: u32,
    /// What it has registered: sorted by text, none overlaps another.
    pub sections: &'a [Announced],
    /// Where the bytes are kept.
    pub copies: &'a mut SectionCopies,
    /// Reads its memory as it is at the moment of the sample; none where that is over.
    pub read: Option<Box<MemoryRead<'a>>>,
}

impl AnnouncedCode<'_> {
    /// How to go on from a pc, and what it is called; `None` where nothing was announced that says it.
    pub fn find(&mut self, pc: u64) -> Option<Found<Option<Place>>> {
        let announced = find(self.sections, pc)?;
        let Some(read) = &mut self.read else {
            return self.find_in_copy(announced, pc);
        };
        match &announced.claim.what {
            What::Section { .. } => {
                let says = self.copies.says(self.pid, announced, pc, &mut **read)?;
                Some(Found { place: None, says })
            }
            What::Area(geometry) => {
                let area = Area {
                    address: announced.claim.address,
                    geometry,
                };
                let SectionCopies {
                    names, failures, ..
                } = &mut *self.copies;
                area.find(pc, names, failures, &mut **read)
            }
        }
    }

    /// The same by what was copied before. Of an area nothing is: it may describe other code by now.
    fn find_in_copy(&mut self, announced: &Announced, pc: u64) -> Option<Found<Option<Place>>> {
        if let What::Area(_) = announced.claim.what {
            self.copies.failures.late += 1;
            return None;
        }
        let says = self
            .copies
            .says(self.pid, announced, pc, &mut |_, _| false)?;
        Some(Found { place: None, says })
    }
}

impl fmt::Debug for AnnouncedCode<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AnnouncedCode { pid, sections, .. } = self;
        f.debug_struct("AnnouncedCode")
            .field("pid", pid)
            .field("sections", sections)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
