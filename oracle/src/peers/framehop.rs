//! The crate framehop, over the memory of the stepped process.

use super::{LIMIT, Peer, Walked};
use crate::amd64::Stepped;
use crate::judge::Judge;
use crate::machine::{Boundary, Machine};
use crate::symbols::{address, bytes, segments};
use ::framehop::x86_64::{CacheX86_64, Reg, UnwindRegsX86_64, UnwinderX86_64};
use ::framehop::{ExplicitModuleSectionInfo, Module, Unwinder};
use framewalk::sample::{ObjectId, Place};
use framewalk_walk::Registers;
use object::{Object, ObjectSection};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// The sections of a file, and how far its addresses are from its offsets.
#[derive(Clone)]
struct File {
    sections: ExplicitModuleSectionInfo<Arc<[u8]>>,
    segments: crate::symbols::Segments,
}

#[derive(Default)]
pub(super) struct Framehop {
    files: HashMap<ObjectId, File>,
    unwinders: HashMap<u32, UnwinderX86_64<Arc<[u8]>>>,
    cache: CacheX86_64,
    generation: u64,
}

impl File {
    fn read(bytes: &[u8]) -> File {
        let segments = segments(bytes);
        let mut sections = ExplicitModuleSectionInfo::default();
        if let Ok(file) = object::File::parse(bytes) {
            let range = |name| {
                let section = file.section_by_name(name)?;
                Some(section.address()..section.address() + section.size())
            };
            let data = |name| {
                let section = file.section_by_name(name)?;
                section.data().ok().map(Arc::from)
            };
            sections.text_svma = range(".text");
            sections.text = data(".text");
            sections.got_svma = range(".got");
            sections.eh_frame_svma = range(".eh_frame");
            sections.eh_frame = data(".eh_frame");
            sections.eh_frame_hdr_svma = range(".eh_frame_hdr");
            sections.eh_frame_hdr = data(".eh_frame_hdr");
        }
        File { sections, segments }
    }
}

impl Framehop {
    /// One that knows what a process maps now.
    fn unwinder(&mut self, pid: u32, judge: &Judge) -> UnwinderX86_64<Arc<[u8]>> {
        let mut unwinder = UnwinderX86_64::new();
        for mapping in judge.mappings(pid).into_iter().flat_map(|m| m.iter()) {
            let Place::Object(id, offset) = mapping.place(mapping.start) else {
                continue;
            };
            let object = judge.objects.get(id);
            let file = self
                .files
                .entry(id)
                .or_insert_with(|| File::read(&bytes(&object.source)));
            // A segment may begin in the middle of its first page, in which another one ends.
            let within = address(&file.segments, offset | 0xfff).map(|end| end - 0xfff);
            let Some(start) = within.or_else(|| address(&file.segments, offset)) else {
                continue;
            };
            let name = object.path.display().to_string();
            let base = mapping.start.wrapping_sub(start);
            let range = mapping.start..mapping.end;
            unwinder.add_module(Module::new(name, range, base, file.sections.clone()));
        }
        unwinder
    }
}

fn registers(r: &Registers) -> UnwindRegsX86_64 {
    const ORDER: [Reg; 16] = [
        Reg::RAX,
        Reg::RDX,
        Reg::RCX,
        Reg::RBX,
        Reg::RSI,
        Reg::RDI,
        Reg::RBP,
        Reg::RSP,
        Reg::R8,
        Reg::R9,
        Reg::R10,
        Reg::R11,
        Reg::R12,
        Reg::R13,
        Reg::R14,
        Reg::R15,
    ];
    let mut registers = UnwindRegsX86_64::new(r.pc, r.sp, r.fp);
    for (register, value) in ORDER.into_iter().zip(r.full.into_iter().flatten()) {
        registers.set(register, value);
    }
    registers
}

impl Peer for Framehop {
    fn walk(
        &mut self,
        machine: &mut Stepped,
        boundary: &Boundary,
        judge: &Judge,
    ) -> io::Result<Vec<Option<Walked>>> {
        let pid = boundary.pid;
        if std::mem::replace(&mut self.generation, judge.generation()) != judge.generation() {
            self.unwinders.clear();
        }
        let unwinder = match self.unwinders.remove(&pid) {
            Some(unwinder) => unwinder,
            None => self.unwinder(pid, judge),
        };
        let mut read = |address| machine.word(pid, address).ok_or(());
        let start = registers(&boundary.registers);
        let mut walk =
            unwinder.iter_frames(boundary.registers.pc, start, &mut self.cache, &mut read);
        let mut walked = Walked::default();
        while walked.frames.len() < LIMIT {
            match walk.next() {
                Ok(Some(frame)) => walked.frames.push(frame.address()),
                Ok(None) => {
                    walked.ended = true;
                    break;
                }
                Err(_) => break,
            }
        }
        self.unwinders.insert(pid, unwinder);
        Ok(vec![Some(walked)])
    }
}
