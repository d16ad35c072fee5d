//! Samples whose walk met an object without a table, with the copy of the stack to finish them.

use super::super::rings::tracked::Tracked;
use super::announced::Announcements;
use super::{Names, convert, deliver};
use crate::processes::{Mappings, Objects, ProcessCode, StackCopy, Tables, finish};
use crate::sample::Sample;
use framewalk_kernel::{SampleRecord, StackRecord};
use framewalk_walk::arch::FULL;
use framewalk_walk::registry::Announced;
use framewalk_walk::{Origin, Registers, Start, Stop};
use std::collections::{BTreeMap, HashMap};

/// Bytes of stack that wait at most; beyond it samples are delivered as they are.
const MAX_BYTES: usize = 512 << 20;

/// What waits: first for what its process mapped at the time, then for tables.
#[derive(Default)]
pub(super) struct Unfinished {
    pieces: HashMap<u64, Pieces>,
    /// By time.
    unplaced: BTreeMap<(u64, u64), Waiting>,
    placed: Vec<(Waiting, Mappings, Vec<Announced>)>,
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
}

impl Unfinished {
    pub(super) fn stack(&mut self, stack: StackRecord) {
        self.bytes += stack.bytes.len();
        self.pieces.entry(stack.id).or_default().stack.push(stack);
    }

    pub(super) fn registers(&mut self, id: u64, values: [u64; 16]) {
        self.pieces.entry(id).or_default().registers = Some(values);
    }

    /// Keeps a sample for later; gives it back when too much waits already.
    pub(super) fn sample(
        &mut self,
        sample: SampleRecord,
        ticks: Vec<SampleRecord>,
    ) -> Option<SampleRecord> {
        let pieces = self.pieces.remove(&sample.id).unwrap_or_default();
        if self.bytes > MAX_BYTES {
            self.release(&pieces);
            return Some(sample);
        }
        let key = (sample.time_ns, sample.id);
        self.unplaced.insert(
            key,
            Waiting {
                sample,
                ticks,
                pieces,
            },
        );
        None
    }

    /// Notes the mappings of samples before `until`, which is now, and what their processes announced.
    pub(super) fn place(
        &mut self,
        until: u64,
        tracked: &mut Tracked,
        objects: &mut Objects,
        announcements: &mut Announcements,
    ) {
        while let Some(first) = self.unplaced.first_entry() {
            if first.key().0 >= until {
                break;
            }
            let waiting = first.remove();
            let (pid, tid) = (waiting.sample.pid, waiting.sample.tid);
            let mappings = tracked.mappings(pid, tid, objects).clone();
            self.placed.push((waiting, mappings, announcements.of(pid)));
        }
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
        announcements: &mut Announcements,
        limit: usize,
        names: &mut Names,
        sink: &mut dyn FnMut(Sample),
    ) {
        for (waiting, mappings, announced) in std::mem::take(&mut self.placed) {
            self.release(&waiting.pieces);
            let mut sample = convert(&waiting.sample, names);
            if mappings.iter().next().is_none() {
                sample.stop = Stop::ObjectGone;
                deliver(sample, &waiting.ticks, names, sink);
                continue;
            }
            let resume = waiting.sample.resume;
            // The seventeenth is the return address column: the pc.
            let full = waiting
                .pieces
                .registers
                .filter(|_| resume.top)
                .map(|general| {
                    let mut full = [resume.pc; FULL];
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
            let mut copy = StackCopy::default().with_code_of(sample.pid);
            for piece in &waiting.pieces.stack {
                copy.push(piece.address, &piece.bytes);
            }
            let known = sample
                .frames
                .iter()
                .filter(|frame| frame.origin != Origin::Kernel)
                .count();
            let code = ProcessCode::new(&mappings, objects, tables)
                .with_announced(announcements.code(sample.pid, &announced));
            sample.stop = finish(
                start,
                copy,
                code,
                limit.saturating_sub(known),
                &mut sample.frames,
            );
            deliver(sample, &waiting.ticks, names, sink);
        }
    }
}
