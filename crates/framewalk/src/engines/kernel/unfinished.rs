//! Samples whose walk met an object without a table, with the copy of the stack to finish them.

use super::{convert, deliver};
use crate::processes::{Mappings, Objects, ProcessCode, StackCopy, Tables, finish};
use crate::sample::Sample;
use framewalk_kernel::{SampleRecord, StackRecord};
use framewalk_walk::{Origin, Registers, Start, Stop};
use std::collections::HashMap;
use std::rc::Rc;

/// Bytes of stack that wait at most; beyond it samples are delivered as they are.
const MAX_BYTES: usize = 512 << 20;

/// What waits for tables.
#[derive(Default)]
pub(super) struct Unfinished {
    pieces: HashMap<u64, Pieces>,
    waiting: Vec<Waiting>,
    bytes: usize,
}

#[derive(Default)]
struct Pieces {
    stack: Vec<StackRecord>,
    registers: Option<[u64; 16]>,
}

struct Waiting {
    sample: SampleRecord,
    ticks: Vec<SampleRecord>,
    pieces: Pieces,
    mappings: Rc<Mappings>,
}

impl Unfinished {
    pub(super) fn stack(&mut self, stack: StackRecord) {
        self.bytes += stack.bytes.len();
        self.pieces.entry(stack.id).or_default().stack.push(stack);
    }

    pub(super) fn registers(&mut self, id: u64, values: [u64; 16]) {
        self.pieces.entry(id).or_default().registers = Some(values);
    }

    /// Keeps a sample for later; gives it back when it cannot be finished.
    pub(super) fn sample(
        &mut self,
        mut sample: SampleRecord,
        ticks: Vec<SampleRecord>,
        mappings: Option<Rc<Mappings>>,
    ) -> Option<SampleRecord> {
        let pieces = self.pieces.remove(&sample.id).unwrap_or_default();
        let Some(mappings) = mappings else {
            sample.stop = Stop::ObjectGone;
            self.release(&pieces);
            return Some(sample);
        };
        if self.bytes > MAX_BYTES {
            self.release(&pieces);
            return Some(sample);
        }
        self.waiting.push(Waiting {
            sample,
            ticks,
            pieces,
            mappings,
        });
        None
    }

    fn release(&mut self, pieces: &Pieces) {
        self.bytes -= pieces
            .stack
            .iter()
            .map(|piece| piece.bytes.len())
            .sum::<usize>();
    }

    /// Walks on from where the kernel stopped, and delivers.
    pub(super) fn finish(
        &mut self,
        objects: &Objects,
        tables: &mut Tables,
        limit: usize,
        sink: &mut dyn FnMut(Sample),
    ) {
        for waiting in std::mem::take(&mut self.waiting) {
            let mut sample = convert(&waiting.sample);
            let resume = waiting.sample.resume;
            // The seventeenth is the return address column: the pc.
            let full = waiting
                .pieces
                .registers
                .filter(|_| resume.top)
                .map(|general| {
                    let mut full = [resume.pc; 17];
                    full[..16].copy_from_slice(&general);
                    full
                });
            let start = Start {
                registers: Registers {
                    pc: resume.pc,
                    sp: resume.sp,
                    fp: resume.fp,
                    full,
                },
                origin: resume.origin,
                is_return_address: resume.is_return_address,
            };
            let mut copy = StackCopy::default();
            for piece in &waiting.pieces.stack {
                copy.push(piece.address, &piece.bytes);
            }
            let known = sample
                .frames
                .iter()
                .filter(|frame| frame.origin != Origin::Kernel)
                .count();
            let code = ProcessCode::new(&waiting.mappings, objects, tables);
            sample.stop = finish(
                start,
                copy,
                code,
                limit.saturating_sub(known),
                &mut sample.frames,
            );
            deliver(sample, &waiting.ticks, sink);
            self.release(&waiting.pieces);
        }
    }
}
