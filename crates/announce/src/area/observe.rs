//! Reading another's frame area, at any instant, believing none of it.
//!
//! Whoever looks announces nothing to the producers, takes no lock and waits for nobody. Every number is an
//! allegation: it is checked where it is used; a lookup makes at most [`MAX_READS`] reads, each inside the area, and
//! answers with what holds, with nothing, or with a [`Fault`]. The BPF programs do the same (`area.h` of the
//! kernel crate), and tests hold the two together.
//!
//! Every read may meet any state of the memory. What is answered was so at one moment of the lookup: the entry's
//! words are compared with a second reading of them that began after the first had found it LIVE, and the generation is
//! the same before and after. What is read later by what the entry says (rows, a name) counts only if
//! [`Found::confirm`] says so afterwards.

use super::layout::*;
pub use super::meaning::Rule;
use super::meaning::{is_default, meaning};
use crate::abi::{Refusal, USER_END};
use core::ops::Range;

/// Reads memory of an area: all of `into`, from so many bytes after its start on, or false.
pub type Read<'a> = dyn FnMut(u64, &mut [u8]) -> bool + 'a;

/// Reads of one lookup at most: four tries of header and index, two chains, and the confirmation.
pub const MAX_READS: u32 = 4 * (2 + 2 * MAX_HOPS + 2);
/// ELF's number of this machine (AMD64), whose psABI the rules mean.
pub const MACHINE: u16 = 62;

/// What never changes of an area, as it was when it was registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// The code that it describes (user address space).
    pub text: Range<u64>,
    /// Bytes of the area.
    pub area_len: u64,
    /// Entries.
    pub capacity: u32,
    /// A granule has 2 to the power of this many bytes.
    pub granule_shift: u32,
    /// The key that its producer registers it under.
    pub key: u64,
    /// What holds where no entry does.
    pub default: Described,
}

impl Geometry {
    /// Checks the first bytes of an area that has `length` bytes.
    pub fn parse(bytes: &[u8; GEOMETRY_SIZE as usize], length: u64) -> Result<Geometry, Refusal> {
        let [name @ .., version] = MAGIC;
        if bytes[..7] != name || u32_at(bytes, BYTE_ORDER_AT) != BYTE_ORDER {
            return Err(Refusal::Malformed);
        }
        if bytes[7] != version || u16_at(bytes, MACHINE_AT) != MACHINE {
            return Err(Refusal::Unsupported);
        }
        let sizes = [HEADER_SIZE_AT, ENTRY_SIZE_AT].map(|at| u64::from(u16_at(bytes, at)));
        let start = u64_at(bytes, TEXT_START_AT);
        let text_len = u64_at(bytes, TEXT_LEN_AT);
        let capacity = u32_at(bytes, CAPACITY_AT);
        let granule_shift = u32::from(u16_at(bytes, GRANULE_SHIFT_AT));
        let end = start.checked_add(text_len).filter(|&end| end <= USER_END);
        let (Some(end), 1..=MAX_TEXT, 1..) = (end, text_len, start) else {
            return Err(Refusal::Malformed);
        };
        let default = Described {
            how: u32_at(bytes, DEFAULT_AT),
            rule: [u32_at(bytes, DEFAULT_AT + 4), u32_at(bytes, DEFAULT_AT + 8)],
        };
        let sound = sizes == [HEADER_SIZE, ENTRY_SIZE]
            && capacity <= MAX_CAPACITY
            && (MIN_SHIFT..=MAX_SHIFT).contains(&granule_shift)
            && u64_at(bytes, AREA_LEN_AT) == length
            && bytes[RESERVED_AT as usize..].iter().all(|&byte| byte == 0)
            && is_default(default);
        if !sound || Parts::new(capacity, text_len, granule_shift).heap_at > length {
            return Err(Refusal::Malformed);
        }
        Ok(Geometry {
            text: start..end,
            area_len: length,
            capacity,
            granule_shift,
            key: u64_at(bytes, KEY_AT),
            default,
        })
    }

    /// Where its parts lie.
    pub fn parts(&self) -> Parts {
        let text_len = self.text.end - self.text.start;
        Parts::new(self.capacity, text_len, self.granule_shift)
    }

    /// What is said of the code at `pc`; nothing where neither an entry nor the default rule says anything.
    pub fn look_up(&self, pc: u64, read: &mut Read<'_>) -> Result<Option<Found>, Fault> {
        if !self.text.contains(&pc) {
            return Ok(None);
        }
        // What is published or reset meanwhile is another's code: the one at pc is there, and has been.
        for _ in 0..3 {
            match self.look_once(pc, read) {
                // Two that claim a place may be one that has just gone and the one that came for it.
                Err(Fault::Busy | Fault::Conflict) => {}
                result => return result,
            }
        }
        self.look_once(pc, read)
    }

    fn look_once(&self, pc: u64, read: &mut Read<'_>) -> Result<Option<Found>, Fault> {
        if self.capacity == 0 {
            return Ok(self.by_default());
        }
        let offset = pc - self.text.start;
        let before = Words::read(read)?;
        if before.generation & 1 != 0 {
            return Err(Fault::Busy);
        }
        let mut found: Option<Found> = None;
        for (word, _) in self.granules(offset, read)? {
            self.follow(word, offset, before.generation, &mut found, read)?;
        }
        let Some(mut found) = found else {
            let after = Words::read(read)?;
            return match after.generation == before.generation {
                true => Ok(self.by_default()),
                false => Err(Fault::Busy),
            };
        };
        found.heap_used = found.confirmed(read)?.heap_used;
        found.rule(self)?;
        Ok(Some(found))
    }

    /// The index words of the pc's own granule and of the one before.
    fn granules(&self, offset: u64, read: &mut Read<'_>) -> Result<[(u32, u64); 2], Fault> {
        let own = offset >> self.granule_shift;
        let at = self.parts().index_at + 4 * own;
        let mut bytes = [0; 8];
        // SANITY: granule 0 has the header and entries before it.
        if !read(at - 4, &mut bytes) {
            return Err(Fault::Unreadable);
        }
        let before = if own > 0 { u32_at(&bytes, 0) } else { 0 };
        Ok([(u32_at(&bytes, 4), own), (before, own.wrapping_sub(1))])
    }

    /// Looks for the one entry that holds the place, from a word of the index on.
    fn follow(
        &self,
        word: u32,
        offset: u64,
        generation: u32,
        found: &mut Option<Found>,
        read: &mut Read<'_>,
    ) -> Result<(), Fault> {
        let mut next = word & !COVERED;
        for _ in 0..MAX_HOPS {
            let Some(slot) = next.checked_sub(1) else {
                return Ok(());
            };
            if slot >= self.capacity {
                return Err(Fault::Malformed);
            }
            let entry = Entry::read(slot, read)?;
            if entry.is_live(generation) && entry.holds(offset) {
                if found.as_ref().is_some_and(|other| other.slot != Some(slot)) {
                    return Err(Fault::Conflict);
                }
                *found = Some(Found {
                    slot: Some(slot),
                    generation,
                    entry,
                    offset: (offset - u64::from(entry.start)) as u32,
                    heap_used: 0,
                });
            }
            if word & COVERED != 0 {
                return Ok(());
            }
            if entry.next > slot {
                // An older entry has a lower slot.
                return Err(Fault::Malformed);
            }
            next = entry.next;
        }
        match next {
            0 => Ok(()),
            _ => Err(Fault::Malformed),
        }
    }

    fn by_default(&self) -> Option<Found> {
        (self.default.how & 0xff != NONE).then_some(Found {
            slot: None,
            generation: 0,
            entry: Entry {
                how: self.default.how,
                rule: self.default.rule,
                ..Entry::default()
            },
            offset: u32::MAX,
            heap_used: 0,
        })
    }
}

/// Why nothing is answered, though something may have been said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Memory of the area cannot be read.
    Unreadable,
    /// It was being changed, again and again.
    Busy,
    /// A chain, an entry or a rule is nonsense.
    Malformed,
    /// Two live entries hold the place.
    Conflict,
}

/// The words of the header that change.
#[derive(Debug, Clone, Copy)]
struct Words {
    generation: u32,
    claimed: u32,
    heap_used: u32,
}

impl Words {
    fn read(read: &mut Read<'_>) -> Result<Words, Fault> {
        let mut bytes = [0; (HEAP_USED_AT + 4 - GENERATION_AT) as usize];
        if !read(GENERATION_AT, &mut bytes) {
            return Err(Fault::Unreadable);
        }
        Ok(Words {
            generation: u32_at(&bytes, 0),
            claimed: u32_at(&bytes, CLAIMED_AT - GENERATION_AT),
            heap_used: u32_at(&bytes, HEAP_USED_AT - GENERATION_AT),
        })
    }
}

/// An entry as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Entry {
    start: u32,
    size: u32,
    state: u32,
    how: u32,
    rule: [u32; 2],
    next: u32,
    cookie: u32,
}

impl Entry {
    fn read(slot: u32, read: &mut Read<'_>) -> Result<Entry, Fault> {
        let mut bytes = [0; ENTRY_SIZE as usize];
        if !read(HEADER_SIZE + ENTRY_SIZE * u64::from(slot), &mut bytes) {
            return Err(Fault::Unreadable);
        }
        let word = |at| u32_at(&bytes, at);
        Ok(Entry {
            start: word(START),
            size: word(SIZE),
            state: word(STATE),
            how: word(HOW),
            rule: [word(RULE0), word(RULE1)],
            next: word(NEXT),
            cookie: word(COOKIE),
        })
    }

    fn is_live(&self, generation: u32) -> bool {
        self.state == generation << STATE_BITS | LIVE
    }

    fn holds(&self, offset: u64) -> bool {
        let start = u64::from(self.start);
        (start..start + u64::from(self.size)).contains(&offset)
    }
}

/// What is said of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The entry's number; none where it is the default rule.
    pub slot: Option<u32>,
    /// In this generation.
    pub generation: u32,
    entry: Entry,
    /// Of the place, from the first byte of the function.
    offset: u32,
    heap_used: u32,
}

impl Found {
    /// Bytes from the function's first byte to the place; none where only the default rule holds.
    pub fn offset(&self) -> Option<u32> {
        self.slot.map(|_| self.offset)
    }

    /// Bytes of the function; 0 where only the default rule holds.
    pub fn size(&self) -> u32 {
        self.entry.size
    }

    /// The code belongs to a language's run time.
    pub fn is_runtime(&self) -> bool {
        self.flags() & RUNTIME != 0
    }

    /// The caller was interrupted, and did not call.
    pub fn is_signal(&self) -> bool {
        self.flags() & SIGNAL != 0
    }

    /// The JIT's own number, where it is not a name's place.
    pub fn cookie(&self) -> Option<u32> {
        (self.slot.is_some() && self.flags() & NAMED == 0).then_some(self.entry.cookie)
    }

    fn flags(&self) -> u32 {
        self.entry.how >> 8 & 0xff
    }

    /// What the words mean.
    pub fn rule(&self, geometry: &Geometry) -> Result<Rule, Fault> {
        let heap_at = geometry.parts().heap_at;
        let heap = (geometry.area_len - heap_at).min(self.heap_used.into());
        let Entry { how, rule, .. } = self.entry;
        meaning(Described { how, rule }, self.offset, heap_at, heap).ok_or(Fault::Malformed)
    }

    /// The name, put into `into`; an empty one where there is none, or it lies outside of the heap. To be confirmed.
    pub fn name<'a>(
        &self,
        geometry: &Geometry,
        into: &'a mut [u8; MAX_NAME as usize],
        read: &mut Read<'_>,
    ) -> Result<&'a [u8], Fault> {
        let heap_at = geometry.parts().heap_at;
        let heap = (geometry.area_len - heap_at).min(self.heap_used.into());
        let at = u64::from(self.entry.cookie);
        if self.flags() & NAMED == 0 || at >= heap {
            return Ok(&[]);
        }
        let mut length = [0];
        if !read(heap_at + at, &mut length) {
            return Err(Fault::Unreadable);
        }
        let length = usize::from(length[0]);
        let name = &mut into[..length];
        if at + 1 + length as u64 > heap {
            return Ok(&[]);
        }
        match read(heap_at + at + 1, name) {
            true => Ok(name),
            false => Err(Fault::Unreadable),
        }
    }

    /// Whether all that was said still holds: what was read by it in between holds too, then.
    pub fn confirm(&self, read: &mut Read<'_>) -> Result<(), Fault> {
        match self.slot {
            Some(_) => self.confirmed(read).map(|_| ()),
            None => Ok(()),
        }
    }

    fn confirmed(&self, read: &mut Read<'_>) -> Result<Words, Fault> {
        let slot = self.slot.unwrap_or(u32::MAX);
        let mut again = Entry::read(slot, read)?;
        // Pruning of dead entries changes it; it is nothing that was used.
        again.next = self.entry.next;
        let words = Words::read(read)?;
        if again != self.entry || words.generation != self.generation {
            return Err(Fault::Busy);
        }
        match slot < words.claimed {
            true => Ok(words),
            false => Err(Fault::Malformed),
        }
    }
}

/// Numbers in the machine's own order; 0 where the bytes end before.
fn u16_at(bytes: &[u8], at: u64) -> u16 {
    array(bytes, at).map_or(0, u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: u64) -> u32 {
    array(bytes, at).map_or(0, u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: u64) -> u64 {
    array(bytes, at).map_or(0, u64::from_ne_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: u64) -> Option<[u8; N]> {
    bytes.get(at as usize..)?.first_chunk().copied()
}
