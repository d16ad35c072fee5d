//! The Rust walker over the mappings of a process and the tables of its objects.

use super::{AnnouncedCode, Backing, CurrentMappings, Mapping, Mappings, Objects, Tables};
use crate::sample::{Frame, Place};
use framewalk_walk::{Code, Found, Memory, Says, Start, Stop, walk};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The code of one process.
#[derive(Debug)]
pub struct ProcessCode<'a> {
    mappings: &'a Mappings,
    objects: &'a Objects,
    tables: &'a mut Tables,
    announced: Option<AnnouncedCode<'a>>,
    last: Option<&'a Mapping>,
    asked: Vec<u64>,
    current: Option<&'a CurrentMappings>,
    stack: Range<u64>,
}

impl<'a> ProcessCode<'a> {
    /// The code behind these mappings; tables are built when they are needed.
    pub fn new(
        mappings: &'a Mappings,
        objects: &'a Objects,
        tables: &'a mut Tables,
    ) -> ProcessCode<'a> {
        ProcessCode {
            mappings,
            objects,
            tables,
            announced: None,
            last: None,
            asked: Vec::new(),
            current: None,
            stack: 0..0,
        }
    }

    /// The same, where what the process announced comes before the tables of its objects.
    pub fn with_announced(self, announced: Option<AnnouncedCode<'a>>) -> ProcessCode<'a> {
        ProcessCode { announced, ..self }
    }

    /// The same, where the kernel can be asked for mappings that are no code.
    pub fn with_current(self, current: &'a CurrentMappings) -> ProcessCode<'a> {
        let current = Some(current);
        ProcessCode { current, ..self }
    }

    /// An address in every mapping that was looked at, and those that were in none.
    pub fn asked(&self) -> &[u64] {
        &self.asked
    }

    /// The mapping that holds a pc: mostly the one that held the pc before.
    fn mapping(&mut self, pc: u64) -> Option<&'a Mapping> {
        let again = self
            .last
            .filter(|last| (last.start..last.end).contains(&pc));
        if again.is_none() {
            self.last = self.mappings.find(pc);
            self.asked.push(pc);
        }
        self.last
    }
}

impl Code for ProcessCode<'_> {
    type Place = Place;

    fn find(&mut self, pc: u64) -> Found<Place> {
        let Some(mapping) = self.mapping(pc) else {
            return Found {
                place: Place::Anonymous(pc),
                says: Says::Stop(Stop::NotCode),
            };
        };
        let announced = self.announced.as_mut().and_then(|code| code.find(pc));
        if let Some(Found { place, says }) = announced {
            let place = place.unwrap_or_else(|| mapping.place(pc));
            return Found { place, says };
        }
        let says = match mapping.backing {
            Backing::Object(id) => self
                .tables
                .get(id, self.objects)
                .find(mapping.file_offset(pc)),
            Backing::Anonymous => Says::Undescribed,
            Backing::Gone => Says::Stop(Stop::ObjectGone),
        };
        Found {
            place: mapping.place(pc),
            says,
        }
    }

    fn is_code(&mut self, pc: u64) -> bool {
        self.mapping(pc).is_some()
    }

    /// A copy of a stack ends where its mapping does, so nothing has to be known of it here.
    fn is_same_stack(&mut self, sp: u64, bytes: Range<u64>) -> bool {
        let Some(current) = self.current else {
            return true;
        };
        if !self.stack.contains(&sp) {
            self.stack = match current.bounds(sp) {
                Ok(bounds) => bounds.unwrap_or(0..0),
                Err(_) => return true,
            };
        }
        self.stack.start <= bytes.start && bytes.end <= self.stack.end
    }
}

/// Copied pieces of a stack: addresses and bytes.
#[derive(Debug, Clone, Default)]
pub struct StackCopy<'a> {
    pieces: Vec<(u64, &'a [u8])>,
    missed: bool,
    process: Option<u32>,
    memory: Option<Arc<File>>,
}

impl<'a> StackCopy<'a> {
    /// One piece, with the address of its first byte.
    pub fn new(base: u64, bytes: &'a [u8]) -> StackCopy<'a> {
        StackCopy {
            pieces: vec![(base, bytes)],
            ..StackCopy::default()
        }
    }

    /// The same, where code is read from the process itself, if it is still there.
    pub fn with_code_of(self, process: u32) -> StackCopy<'a> {
        let process = Some(process);
        StackCopy { process, ..self }
    }

    /// Adds a piece. Where pieces overlap the first one counts; a word across two is not found.
    pub fn push(&mut self, base: u64, bytes: &'a [u8]) {
        self.pieces.push((base, bytes));
    }
}

impl Memory for StackCopy<'_> {
    fn word(&mut self, address: u64) -> Option<u64> {
        let word = self.pieces.iter().find_map(|(base, bytes)| {
            let offset = usize::try_from(address.checked_sub(*base)?).ok()?;
            bytes
                .get(offset..)?
                .first_chunk()
                .copied()
                .map(u64::from_le_bytes)
        });
        self.missed |= word.is_none();
        word
    }

    fn code(&mut self, address: u64) -> Option<u64> {
        if let Some(process) = self.process.take() {
            self.memory = File::open(format!("/proc/{process}/mem"))
                .ok()
                .map(Arc::new);
        }
        let mut bytes = [0; 8];
        let memory = self.memory.as_ref()?;
        memory.read_exact_at(&mut bytes, address).ok()?;
        Some(u64::from_le_bytes(bytes))
    }
}

/// Walks from `start` over live memory; appends at most `limit` frames, innermost (that of
/// `start`) first.
pub fn walk_process(
    start: Start,
    memory: &mut impl Memory,
    code: &mut ProcessCode<'_>,
    limit: usize,
    frames: &mut Vec<Frame>,
) -> Stop {
    walk(start, limit, memory, code, |frame| {
        let place = match frame.place {
            // The code was asked for the call, the sample wants the return address as found.
            Place::Object(id, offset) => {
                Place::Object(id, offset.wrapping_add(frame.is_return_address.into()))
            }
            Place::Described { name, runtime, .. } => Place::Described {
                address: frame.pc,
                name,
                runtime,
            },
            Place::Anonymous(_) | Place::Kernel(_) => Place::Anonymous(frame.pc),
        };
        let (origin, is_return_address) = (frame.origin, frame.is_return_address);
        frames.push(Frame {
            place,
            origin,
            is_return_address,
        });
    })
}

/// The same over a copy of the stack: where the copy is too short, the walk ends with
/// [`Stop::CopyEnded`]. It also finishes walks that began elsewhere (`start` at a caller).
pub fn finish(
    start: Start,
    mut stack: StackCopy<'_>,
    mut code: ProcessCode<'_>,
    limit: usize,
    frames: &mut Vec<Frame>,
) -> Stop {
    match walk_process(start, &mut stack, &mut code, limit, frames) {
        Stop::ReadFault | Stop::FramePointer if stack.missed => Stop::CopyEnded,
        stop => stop,
    }
}
