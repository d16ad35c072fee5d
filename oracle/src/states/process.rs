//! A process that does not exist, walked by both.

use super::Tally;
use super::bytes::Bytes;
use super::{Target, make};
use fastrand::Rng;
use framewalk::processes::{
    AnnouncedCode, Backing, Lack, Mapping, Mappings, Objects, ProcessCode, SectionCopies, Table,
    Tables,
};
use framewalk::sample::{ObjectId, Place};
use framewalk_announce::abi::{KIND_SECTION, USER_END};
use framewalk_kernel::host::{How, Object};
use framewalk_kernel::{Frame, FramePlace, Walked};
use framewalk_walk::arch::FULL;
use framewalk_walk::registry::{Announced, Claim};
use framewalk_walk::{Code, Found, Origin, Registers, Start, Stop, walk};
use std::ops::Range;
use std::sync::Arc;

const PAGE: u64 = 4096;
/// Where objects are mapped, this far from each other.
const CODE: u64 = 0x1000_0000;
const APART: u64 = 0x100_0000;
/// Generated code, and the sections that its process announces.
const GENERATED: u64 = 0x6000_0000;
const SECTIONS: u64 = 0x6100_0000;
const STACKS: [Range<u64>; 3] = [
    0x2000_0000_0000..0x2000_0000_8000,
    0x2100_0000_0000..0x2100_0000_2000,
    // The last that there can be.
    USER_END - 2 * PAGE..USER_END - PAGE,
];
/// What a frame's word keeps of a file offset, and how many bits of an address.
const ADDRESS_BITS: u32 = 57;
const OFFSET: u64 = (1 << 38) - 1;

/// Everything that a walk looks at.
pub(super) struct Process {
    random: Rng,
    memory: Bytes,
    /// All mappings, code or not.
    mapped: Vec<Range<u64>>,
    mappings: Mappings,
    objects: Objects,
    tables: Tables,
    announced: Vec<Announced>,
    copies: SectionCopies,
    /// Described functions, and places behind calls in code that nobody describes.
    places: Vec<Range<u64>>,
    /// A page that cannot be read is a mapping of its own.
    split: bool,
    /// Of 32 words, so many are nonsense: stacks of few are deep.
    nonsense: u8,
}

/// Both answers, in one form.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    frames: Vec<Frame>,
    stop: Stop,
    pc: u64,
    sp: u64,
}

impl From<Walked> for Answer {
    fn from(walked: Walked) -> Answer {
        let Walked {
            frames,
            stop,
            pc,
            sp,
            ..
        } = walked;
        Answer {
            frames,
            stop,
            pc,
            sp,
        }
    }
}

impl Process {
    pub(super) fn new<T: Target>(random: Rng, world: &mut T, tally: &mut Tally) -> Process {
        world.clear();
        let mut process = Process {
            random,
            memory: Bytes::default(),
            mapped: Vec::new(),
            mappings: Mappings::default(),
            objects: Objects::default(),
            tables: Tables::default(),
            announced: Vec::new(),
            copies: SectionCopies::default(),
            places: Vec::new(),
            split: false,
            nonsense: 0,
        };
        process.nonsense = [1, 4, 20][process.random.usize(..3)];
        for number in 0..if T::OBJECTS { 4 } else { 0 } {
            process.object(number, world);
        }
        process.generated(world, tally);
        let numbers = if T::OBJECTS { 3 } else { 2 };
        for stack in STACKS[..numbers].iter().cloned() {
            process.map(stack.clone(), None, world);
            let len = (stack.end - stack.start) as usize;
            process.memory.add(stack.start, vec![0; len]);
            for at in stack.step_by(8) {
                let word = process.word();
                process.memory.put(at, word);
            }
        }
        world.mapped(process.random.u32(11..=16));
        process
    }

    /// A mapping: code of an object from a page on, generated code (`Some(None)`), or no code.
    fn map<T: Target>(
        &mut self,
        range: Range<u64>,
        code: Option<Option<(u32, u64)>>,
        world: &mut T,
    ) {
        world.map(range.start, range.end, code.is_some(), code.flatten());
        if let Some(object) = code {
            let mapping = Mapping {
                start: range.start,
                end: range.end,
                offset: object.map_or(0, |(_, page)| page * PAGE),
                backing: object.map_or(Backing::Anonymous, |(number, _)| {
                    Backing::Object(ObjectId(number))
                }),
            };
            self.mappings.insert(mapping).expect("there is room");
        }
        self.mapped.push(range);
    }

    fn object<T: Target>(&mut self, number: u32, world: &mut T) {
        let start = CODE + u64::from(number) * APART;
        let pages = self.random.u64(..8);
        let text = pages * PAGE + self.random.u64(..64)..pages * PAGE + 0x1_8000;
        let (table, object);
        let section;
        match number {
            2 => (table, object) = (Table::lacking(Lack::NoData), Object::Bare),
            3 => (table, object) = (Table::lacking(Lack::Foreign(2, 183)), Object::Foreign),
            _ => {
                let functions = make::functions(&mut self.random, text.clone());
                let bias = start.wrapping_sub(pages * PAGE);
                let places = functions.iter().map(|f| {
                    let start = f.start.wrapping_add(bias);
                    start..start + u64::from(f.size)
                });
                self.places.extend(places);
                section = make::section(&functions, 0);
                let origin = [Origin::File, Origin::Converted][self.random.usize(..2)];
                let made = Table::of_section(section.clone(), origin);
                (table, object) = (made.expect("just written"), Object::Table(&section, origin));
            }
        }
        world.object(number, object);
        self.tables.insert(ObjectId(number), Arc::new(table));
        let range = start..start + 0x1_8000;
        self.code(range.clone(), number > 1);
        // In one piece, or in two with a hole between them.
        let middle = start + PAGE * self.random.u64(1..23);
        let pieces = match self.random.bool() {
            true => [start..middle, middle + PAGE..range.end],
            false => [start..middle, middle..range.end],
        };
        for piece in pieces {
            let page = pages + (piece.start - start) / PAGE;
            self.map(piece, Some(Some((number, page))), world);
        }
    }

    fn code(&mut self, range: Range<u64>, undescribed: bool) {
        let code = make::code(&mut self.random, (range.end - range.start) as usize);
        for _ in 0..if undescribed { 3 } else { 0 } {
            let at = self.random.usize(..code.len());
            let call = code[at..].windows(5).position(|five| five[0] == 0xe8);
            if let Some(call) = call {
                let behind = range.start + (at + call + 5) as u64;
                self.places.push(behind..behind + 1);
            }
        }
        self.memory.add(range.start, code);
    }

    /// Generated code, and sections for some of it and for code of an object.
    fn generated<T: Target>(&mut self, world: &mut T, tally: &mut Tally) {
        let range = GENERATED..GENERATED + 4 * PAGE;
        self.code(range.clone(), true);
        self.map(range.clone(), Some(None), world);
        let texts = match T::OBJECTS {
            true => [
                range.start + 0x800..range.end - 0x100,
                CODE + 0x400..CODE + 0x2000,
            ],
            false => [
                range.start + 0x800..range.start + 0x1000,
                range.start + 0x1100..range.end,
            ],
        };
        for (text, address) in texts.into_iter().zip((SECTIONS..).step_by(0x20_0000)) {
            let functions = make::functions(&mut self.random, text);
            let places = functions
                .iter()
                .map(|f| f.start..f.end().unwrap_or(f.start));
            self.places.extend(places);
            let mut section = make::section(&functions, address);
            if self.random.bool()
                && let Some(v2) = make::as_v2(&section, address)
            {
                section = v2;
            }
            if self.random.u8(..4) == 0 {
                make::corrupt(&mut self.random, &mut section);
            }
            let len = section.len() as u64;
            self.map(
                address..address + len.next_multiple_of(PAGE).max(PAGE),
                None,
                world,
            );
            self.memory.add(address, section);
            self.announce(address, len, world, tally);
            if self.random.u8(..3) == 0
                && let Some(bytes) = self.memory.get_mut(address, len as usize)
            {
                make::corrupt(&mut self.random, bytes);
            }
        }
    }

    fn announce<T: Target>(&mut self, address: u64, len: u64, world: &mut T, tally: &mut Tally) {
        let memory = &self.memory;
        let mut read = |at: u64, into: &mut [u8]| memory.read(at, into);
        let claim = Claim::read(address, address, len, KIND_SECTION, &mut read);
        let overlaps = claim.as_ref().is_ok_and(|claim| {
            let text = &claim.text;
            self.announced
                .iter()
                .any(|other| other.claim.text.start < text.end && text.start < other.claim.text.end)
        });
        // Overlap is for the registry to refuse.
        if overlaps {
            return;
        }
        let answer = world.announce(address, len, &mut read);
        let refused = claim
            .as_ref()
            .err()
            .map(|refusal| -i64::from(refusal.errno()));
        if let Some(answer) = answer {
            assert_eq!(answer.err(), refused, "registering {claim:x?}");
            tally.registrations += 1;
        }
        if let Ok(claim) = claim {
            let number = self.random.u64(1 << 21..1 << 33);
            self.announced.push(Announced {
                number,
                key: address,
                claim,
            });
            self.announced.sort_by_key(|held| held.claim.text.start);
        }
    }

    /// A word that could stand on a stack or in a register.
    fn word(&mut self) -> u64 {
        let random = &mut self.random;
        let stack = match random.u8(..8) {
            0 => &STACKS[1],
            1 => &STACKS[2],
            _ => &STACKS[0],
        };
        if random.u8(..32) < self.nonsense {
            return match random.u8(..8) {
                0 => 0,
                1 => random.u64(..),
                2 => random.u64(..PAGE),
                3 => USER_END.wrapping_add_signed(random.i64(-9000..64)),
                4 => u64::MAX - random.u64(..64),
                5 => random.u64(stack.clone()),
                6 => CODE + random.u64(..4 * APART),
                _ => GENERATED + random.u64(..5 * PAGE),
            };
        }
        match random.u8(..4) {
            0 => random.u64(stack.clone()) & !7,
            _ => {
                let place = self.places[random.usize(..self.places.len())].clone();
                random.u64(place) + u64::from(random.bool())
            }
        }
    }

    fn start<T: Target>(&mut self) -> Start {
        let pc = match self.random.u8(..8) {
            0 => self.word(),
            _ => {
                let place = self.random.usize(..self.places.len());
                self.random.u64(self.places[place].clone())
            }
        };
        let sp = match self.random.u8(..8) {
            0 => self.word(),
            1 => STACKS[0].start + PAGE * self.random.u64(..8),
            _ => (STACKS[0].start + self.random.u64(..0x7000)) & !7,
        };
        let fp = match self.random.bool() {
            true => self.word(),
            false => sp.saturating_add(8 * self.random.u64(..64)),
        };
        let mut registers = Registers {
            pc,
            sp,
            fp,
            full: None,
        };
        if !T::TOPMOST || self.random.u8(..4) == 0 {
            return Start {
                registers,
                origin: [Origin::Converted, Origin::FramePointer][self.random.usize(..2)],
                is_return_address: self.random.bool(),
            };
        }
        let mut full = [0; FULL];
        for register in &mut full[..16] {
            *register = self.word();
        }
        (full[6], full[7]) = (fp, sp);
        registers.full = Some(full);
        Start::topmost(registers)
    }

    /// Walks from a state with both, once as it is and once with each read failing.
    pub(super) fn state<T: Target>(
        &mut self,
        world: &mut T,
        tally: &mut Tally,
    ) -> Result<(), String> {
        for _ in 0..self.random.usize(..16) {
            let stack = STACKS[self.random.usize(..3)].clone();
            let (at, word) = (self.random.u64(stack), self.word());
            self.memory.put(at & !7, word);
        }
        let start = self.start::<T>();
        let how = How {
            limit: match self.random.u8(..8) {
                0 => self.random.u32(..4),
                _ => 510,
            },
            sleepable: self.random.bool(),
            may_defer: false,
        };
        let mut asked = Vec::new();
        self.memory.gone.clear();
        self.split = !T::TOPMOST;
        let (outside, reads) = self.both(&start, how, world, &mut asked)?;
        tally.states += 1;
        tally.frames += outside.frames.len() as u64;
        *tally.stops.entry(outside.stop).or_default() += 1;
        asked.sort_unstable();
        asked.dedup();
        // Each word that was read, alone or with its page.
        for at in asked {
            // Code that cannot be read is no code there.
            if !T::TOPMOST && self.mappings.find(at).is_some() {
                continue;
            }
            self.memory.gone = vec![match T::TOPMOST && self.random.u8(..4) > 0 {
                true => at..at.saturating_add(8),
                false => at & !(PAGE - 1)..at | (PAGE - 1),
            }];
            let (outside, _) = self.both(&start, how, world, &mut Vec::new())?;
            tally.states += 1;
            tally.unreadable += 1;
            tally.frames += outside.frames.len() as u64;
            *tally.stops.entry(outside.stop).or_default() += 1;
        }
        self.memory.gone.clear();
        self.interrupted(&start, how, reads, world, tally);
        Ok(())
    }

    /// What the walk in Rust answers; adds the addresses that it read.
    fn outside(&mut self, start: &Start, how: How, asked: &mut Vec<u64>) -> Answer {
        let memory = &self.memory;
        let announced = AnnouncedCode {
            pid: 1,
            sections: &self.announced,
            copies: &mut self.copies,
            read: Some(Box::new(|at: u64, into: &mut [u8]| memory.read(at, into))),
        };
        let code = ProcessCode::new(&self.mappings, &self.objects, &mut self.tables)
            .with_announced(Some(announced));
        let gone = memory.gone.iter().filter(|_| self.split);
        let mut code = Held {
            code,
            mapped: &self.mapped,
            edges: gone
                .flat_map(|gone| [gone.start, gone.start.saturating_add(PAGE)])
                .collect(),
        };
        let mut words = |at: u64| {
            asked.push(at);
            memory.word(at)
        };
        let mut frames = Vec::new();
        let (mut pc, mut sp) = (start.registers.pc, start.registers.sp);
        let stop = walk(*start, how.limit as usize, &mut words, &mut code, |frame| {
            (pc, sp) = (frame.pc, frame.sp);
            let place = match frame.place {
                Place::Object(ObjectId(number), offset) => {
                    let offset = offset.wrapping_add(frame.is_return_address.into());
                    FramePlace::Object(number, offset & OFFSET)
                }
                _ => {
                    let above = 64 - ADDRESS_BITS;
                    FramePlace::Address(
                        ((frame.pc << above).cast_signed() >> above).cast_unsigned(),
                    )
                }
            };
            frames.push(Frame {
                place,
                origin: frame.origin,
                is_return_address: frame.is_return_address,
            });
        });
        Answer {
            frames,
            stop,
            pc,
            sp,
        }
    }

    fn both<T: Target>(
        &mut self,
        start: &Start,
        how: How,
        world: &mut T,
        asked: &mut Vec<u64>,
    ) -> Result<(Answer, u32), String> {
        let mut outside = self.outside(start, how, asked);
        let walked = world.walk(start, how, &self.memory, &self.announced);
        let reads = walked.reads;
        let inside = Answer::from(walked);
        // The kernel's stands on the frame that it could not deliver any more, and on the caller that is no code.
        if matches!(inside.stop, Stop::Limit | Stop::NotCode) {
            (outside.pc, outside.sp) = (inside.pc, inside.sp);
        }
        if outside == inside {
            return Ok((outside, reads));
        }
        Err(format!(
            "{how:?} {start:#x?}, unreadable {:#x?}: Rust says {outside:#x?}, C says {inside:#x?}",
            self.memory.gone
        ))
    }

    /// The walk in C over memory that is there and then is not: it ends, within bounds.
    fn interrupted<T: Target>(
        &mut self,
        start: &Start,
        how: How,
        reads: u32,
        world: &mut T,
        tally: &mut Tally,
    ) {
        let memory = &self.memory;
        for fails in 0..reads {
            for lasting in [false, true] {
                let mut count = 0;
                let how = How {
                    may_defer: self.random.bool(),
                    ..how
                };
                let walked = world.walk_by(start, how, &mut |at, into| {
                    count += 1;
                    let failed = count - 1 == fails || (lasting && count > fails);
                    !failed && memory.read(at, into)
                });
                let Some(walked) = walked else { return };
                assert!(walked.frames.len() <= how.limit as usize);
                // Each frame reads a few words and pieces.
                assert!(walked.reads as usize <= 200 * (walked.frames.len() + 1));
                tally.interrupted += 1;
            }
        }
    }
}

/// The code, where it is known which mapping holds the stack pointer.
struct Held<'a> {
    code: ProcessCode<'a>,
    mapped: &'a [Range<u64>],
    /// Where some of them are cut.
    edges: Vec<u64>,
}

impl Code for Held<'_> {
    type Place = Place;

    fn find(&mut self, pc: u64) -> Found<Place> {
        self.code.find(pc)
    }

    fn is_code(&mut self, pc: u64) -> bool {
        self.code.is_code(pc)
    }

    fn is_same_stack(&mut self, sp: u64, bytes: Range<u64>) -> bool {
        let stack = self.mapped.iter().find(|mapped| mapped.contains(&sp));
        let cut = |&&edge: &&u64| (sp < edge) != (bytes.end <= edge);
        let cut = self.edges.iter().any(|edge| cut(&edge));
        stack.is_some_and(|stack| stack.start <= bytes.start && bytes.end <= stack.end) && !cut
    }
}
