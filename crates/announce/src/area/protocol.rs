//! How entries come into an area and leave it: every store that a consumer may see, in order.
//!
//! Written over a trait of words, so that the same lines run on shared memory, under a model checker that tries every
//! order of loads and stores (`tests/loom.rs`), and with producers that die between any two stores (`tests/area_killed.rs`).
//!
//! Nothing read from the memory is believed: links are followed downward only and a bounded number of times, slots
//! are compared with the capacity, and what lies outside of the memory reads as 0.
//!
//! A chain never misses a live entry: `next` of an entry, even of a dead or unlinked one, leads to everything alive that was
//! pushed before it, because it is only ever moved over dead entries, and what is dead stays dead.

use super::layout::*;

/// Memory of an area, as words of 32 bits, by their number. What does not exist reads as 0 and cannot be changed.
pub trait Words {
    /// Reads, relaxed.
    fn get(&self, word: u32) -> u32;
    /// Reads: what was written before the store that is seen is seen too.
    fn get_acquire(&self, word: u32) -> u32;
    /// Writes, relaxed.
    fn set(&self, word: u32, value: u32);
    /// Writes: who sees it with an acquiring read sees what was written before.
    fn set_release(&self, word: u32, value: u32);
    /// Adds, acquiring and releasing, and answers what was there.
    fn add(&self, word: u32, value: u32) -> u32;
    /// Puts `to` in the place of `from`, acquiring and releasing; what is there instead is the error, acquired.
    fn swap(&self, word: u32, from: u32, to: u32) -> Result<(), u32>;
    /// No later write is seen before what was written until now.
    fn release(&self);
}

/// Where things lie, checked once, and never read from the memory again.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Entries.
    pub capacity: u32,
    /// Bytes of a granule, as a power of two.
    pub shift: u32,
    /// Word where the index begins.
    pub index: u32,
    /// Words of it.
    pub granules: u32,
    /// Word where the heap begins.
    pub heap: u32,
    /// Bytes of it, a multiple of 4.
    pub heap_len: u32,
}

impl Shape {
    /// Of an area with these numbers, all within the bounds of [`super::layout`].
    pub const fn new(capacity: u32, text_len: u64, shift: u32, heap_len: u32) -> Shape {
        let parts = Parts::new(capacity, text_len, shift);
        // An area has at most 2^28 words.
        Shape {
            capacity,
            shift,
            index: (parts.index_at / 4) as u32,
            granules: parts.granules as u32,
            heap: (parts.heap_at / 4) as u32,
            heap_len,
        }
    }
}

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry {
    /// First byte, from the start of the text.
    pub start: u32,
    /// Bytes.
    pub size: u32,
    /// How it is walked.
    pub described: Described,
    /// The JIT's own number, or where in the heap the name is.
    pub cookie: u32,
}

/// Why an entry was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// All slots are used up.
    Full,
    /// A live entry covers the whole granule in which this one starts.
    Overlap,
    /// As many live entries as a consumer passes start in this granule already.
    Crowded,
    /// Another producer was faster, again and again, or the memory is not what it was: another slot may do.
    Overtaken,
}

/// An area's memory, and what is done to it.
#[derive(Debug, Clone)]
pub struct Protocol<W> {
    words: W,
    shape: Shape,
    generation: u32,
}

/// Word of the header.
const fn header(at: u64) -> u32 {
    (at / 4) as u32
}

/// Word of an entry.
const fn word(slot: u32, field: u64) -> u32 {
    ((HEADER_SIZE + ENTRY_SIZE * slot as u64 + field) / 4) as u32
}

/// Words of another producer that one tries to swap before one takes another slot.
const TRIES: u32 = 64;
/// The same for the heap, where there is no other.
const HEAP_TRIES: u32 = 1 << 16;

impl<W: Words> Protocol<W> {
    /// Over memory whose entries, index and counters are zeros.
    pub const fn new(words: W, shape: Shape) -> Protocol<W> {
        Protocol {
            words,
            shape,
            generation: 0,
        }
    }

    /// The memory.
    pub const fn words(&self) -> &W {
        &self.words
    }

    /// Where things lie.
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Even; other than all before.
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// A state of this generation.
    const fn state(&self, state: u32) -> u32 {
        self.generation << STATE_BITS | state
    }

    /// Writes a word of the header that nobody reads yet.
    pub fn write_header(&self, at: u64, value: u32) {
        self.words.set(header(at), value);
    }

    /// Slots that were handed out, but for those beyond the capacity.
    pub fn claimed(&self) -> u32 {
        let claimed = self.words.get(header(CLAIMED_AT));
        claimed.min(self.shape.capacity)
    }

    /// Publishes an entry whose range lies in the text: afterwards the code may be made reachable.
    pub fn publish(&self, entry: &Entry) -> Result<u32, Refused> {
        let granule = entry.start >> self.shape.shift;
        // Each round takes a slot: there are not more rounds than slots.
        loop {
            let slot = self.claim().ok_or(Refused::Full)?;
            self.fill(slot, entry);
            match self.push(slot, granule) {
                Ok(()) => {
                    self.cover(slot, entry);
                    return Ok(slot);
                }
                Err(why) => {
                    self.kill(slot, self.generation);
                    if why != Refused::Overtaken {
                        return Err(why);
                    }
                }
            }
        }
    }

    /// A slot of one's own. The count is not raised when it is beyond the capacity already: it must not wrap.
    fn claim(&self) -> Option<u32> {
        if self.words.get(header(CLAIMED_AT)) >= self.shape.capacity {
            return None;
        }
        let slot = self.words.add(header(CLAIMED_AT), 1);
        (slot < self.shape.capacity).then_some(slot)
    }

    /// Writes the entry; it is alive afterwards, where nobody finds it yet.
    fn fill(&self, slot: u32, entry: &Entry) {
        let words = &self.words;
        words.set(word(slot, STATE), self.state(WRITING));
        words.set(word(slot, START), entry.start);
        words.set(word(slot, SIZE), entry.size);
        words.set(word(slot, HOW), entry.described.how);
        words.set(word(slot, RULE0), entry.described.rule[0]);
        words.set(word(slot, RULE1), entry.described.rule[1]);
        words.set(word(slot, COOKIE), entry.cookie);
        words.set_release(word(slot, STATE), self.state(LIVE));
    }

    /// Makes the entry the first of its granule's chain.
    fn push(&self, slot: u32, granule: u32) -> Result<(), Refused> {
        let at = self.shape.index + granule;
        let mut head = self.words.get_acquire(at);
        for _ in 0..TRIES {
            let next = self.prune(head)?;
            // Slots along a chain decrease, or one who follows it could be led in a circle.
            if next > slot {
                return Err(Refused::Overtaken);
            }
            self.words.set(word(slot, NEXT), next);
            match self.words.swap(at, head, slot + 1) {
                Ok(()) => return Ok(()),
                Err(now) => head = now,
            }
        }
        Err(Refused::Overtaken)
    }

    /// The link to the first live entry of a chain; dead ones behind it are unlinked.
    fn prune(&self, head: u32) -> Result<u32, Refused> {
        if head & COVERED != 0 {
            let slot = (head & !COVERED).wrapping_sub(1);
            return match self.is_live(slot) {
                true => Err(Refused::Overlap),
                false => Ok(0),
            };
        }
        let first = self.first_live(head, self.shape.capacity);
        let mut link = first;
        // With the new one the chain shall not be longer than what a consumer passes.
        for _ in 1..MAX_HOPS {
            if link == 0 {
                return Ok(first);
            }
            let at = word(link - 1, NEXT);
            let next = self.words.get_acquire(at);
            let after = self.first_live(next, link - 1);
            if after != next {
                // Where somebody else has moved it, it leads past dead ones as well.
                let _ = self.words.swap(at, next, after);
            }
            link = after;
        }
        match link {
            0 => Ok(first),
            _ => Err(Refused::Crowded),
        }
    }

    /// The first link from this one on, and not above `most`, to a live entry; 0 if there is none.
    fn first_live(&self, mut link: u32, mut most: u32) -> u32 {
        // No chain was ever longer.
        for _ in 0..MAX_HOPS {
            if link == 0 || link > most {
                return 0;
            }
            if self.is_live(link - 1) {
                return link;
            }
            most = link - 1;
            link = self.words.get_acquire(word(link - 1, NEXT));
        }
        0
    }

    /// Whether a slot exists and its entry is alive.
    fn is_live(&self, slot: u32) -> bool {
        let exists = slot < self.shape.capacity;
        exists && self.words.get_acquire(word(slot, STATE)) == self.state(LIVE)
    }

    /// Marks the granules that the entry covers and does not start in.
    fn cover(&self, slot: u32, entry: &Entry) {
        let first = (entry.start >> self.shape.shift) + 1;
        let end = (u64::from(entry.start) + u64::from(entry.size)) >> self.shape.shift;
        // A text of 4 GiB has at most 2^26 granules.
        for granule in first..(end as u32).min(self.shape.granules) {
            let at = self.shape.index + granule;
            self.words.set_release(at, COVERED | (slot + 1));
        }
    }

    /// Says that an entry of this generation is dead: before its code is freed, moved or overwritten. False if it was not alive.
    pub fn kill(&self, slot: u32, generation: u32) -> bool {
        // What an old generation left stays as it is.
        let ours = generation << STATE_BITS == self.generation << STATE_BITS;
        if !ours || slot >= self.shape.capacity {
            return false;
        }
        let [live, dead] = [LIVE, DEAD].map(|state| self.state(state));
        let killed = self.words.swap(word(slot, STATE), live, dead).is_ok();
        if killed {
            self.words.add(header(TOMBSTONES_AT), 1);
        }
        killed
    }

    /// What a slot says, if it is alive in this generation.
    pub fn entry(&self, slot: u32) -> Option<Entry> {
        if !self.is_live(slot) {
            return None;
        }
        let get = |field| self.words.get(word(slot, field));
        Some(Entry {
            start: get(START),
            size: get(SIZE),
            described: Described {
                how: get(HOW),
                rule: [get(RULE0), get(RULE1)],
            },
            cookie: get(COOKIE),
        })
    }

    /// So many bytes of the heap, from where is the answer: a multiple of 4. `None` if there are no more.
    pub fn reserve(&self, bytes: u32) -> Option<u32> {
        let at = header(HEAP_USED_AT);
        let mut used = self.words.get(at);
        for _ in 0..HEAP_TRIES {
            let end = used.checked_add(bytes)?.checked_next_multiple_of(4)?;
            if end > self.shape.heap_len || !used.is_multiple_of(4) {
                return None;
            }
            match self.words.swap(at, used, end) {
                Ok(()) => return Some(used),
                Err(now) => used = now,
            }
        }
        None
    }

    /// Writes into what was reserved; who sees the entry alive sees it.
    pub fn write(&self, from: u32, bytes: impl IntoIterator<Item = u8>) {
        let mut bytes = bytes.into_iter();
        let mut at = self.shape.heap + from / 4;
        while let Some(first) = bytes.next() {
            let mut next = || bytes.next().unwrap_or(0);
            let word = [first, next(), next(), next()];
            self.words.set(at, u32::from_ne_bytes(word));
            at += 1;
        }
    }

    /// Begins a new generation, in which nothing is described yet. No code of the old one may exist.
    pub fn reset(&mut self) {
        let words = &self.words;
        words.set(header(GENERATION_AT), self.generation.wrapping_add(1));
        words.release();
        for granule in 0..self.shape.granules {
            words.set(self.shape.index + granule, 0);
        }
        for counter in [CLAIMED_AT, HEAP_USED_AT, TOMBSTONES_AT] {
            words.set(header(counter), 0);
        }
        // The states say themselves that they are of another generation.
        self.generation = self.generation.wrapping_add(2);
        words.set_release(header(GENERATION_AT), self.generation);
    }
}
