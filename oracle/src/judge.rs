//! Walks at every boundary, and what they are worth.

use crate::machine::{Boundary, Event, Machine};
use crate::phases::{Phase, Phases};
use crate::shadow::{Entry, Shadow};
use framewalk::processes::{Mappings, Objects, ProcessCode, Tables};
use framewalk::sample::{ObjectId, Place};
use framewalk_walk::{Code, Found, Memory, Origin, Start, Stop, walk};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::ops::Range;

/// Frames of one walk, at most.
const LIMIT: usize = 1 << 12;

/// What a walk is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Every frame, and then it said that there is no more.
    Right,
    /// Right as far as it went, and it said why it went no further.
    Early(Stop),
    /// A frame that is not there, or an end before the end.
    Wrong(Wrong),
}

impl Verdict {
    /// Whether the walk is right as far as it goes.
    pub fn is_early(self) -> bool {
        matches!(self, Verdict::Early(_))
    }
}

/// In what way a walk is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// A frame has another pc.
    Pc,
    /// A frame has another stack pointer.
    Sp,
    /// More frames than there are.
    TooMany,
    /// It called a frame outermost that has a caller.
    TooSoon,
}

/// A verdict, and the frame where the walk went wrong or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Compared {
    /// What the walk is worth.
    pub verdict: Verdict,
    /// The frame whose caller was not found, or not rightly: 0 is the innermost.
    pub frame: usize,
    /// Some frame up to there was a guess.
    pub guessed: bool,
}

/// Compares frames (pc, sp, origin) with the truth.
pub fn compare(
    frames: &[(u64, u64, Origin)],
    stop: Stop,
    truth: impl Iterator<Item = Entry>,
) -> Compared {
    let mut truth = truth.peekable();
    let mut guessed = false;
    for (n, &(pc, sp, origin)) in frames.iter().enumerate() {
        guessed |= origin == Origin::FramePointer;
        let wrong = match truth.next() {
            None => Some(Wrong::TooMany),
            Some(entry) if entry.pc != pc => Some(Wrong::Pc),
            Some(entry) if entry.sp != sp => Some(Wrong::Sp),
            Some(_) => None,
        };
        if let Some(wrong) = wrong {
            return Compared {
                verdict: Verdict::Wrong(wrong),
                frame: n.saturating_sub(1),
                guessed,
            };
        }
    }
    let verdict = match (stop, truth.peek()) {
        (Stop::Outermost, None) => Verdict::Right,
        (Stop::Outermost, Some(_)) => Verdict::Wrong(Wrong::TooSoon),
        (stop, _) => Verdict::Early(stop),
    };
    Compared {
        verdict,
        frame: frames.len().saturating_sub(1),
        guessed,
    }
}

/// Boundaries by verdict and by the place of the frame that was not left rightly.
#[derive(Debug, Default)]
pub struct Counts {
    /// Boundaries.
    pub all: u64,
    /// Those whose walk was right.
    pub right: u64,
    /// Those that used guesses, of whatever verdict.
    pub guessed: u64,
    /// All others.
    pub others: BTreeMap<Other, u64>,
}

/// A kind of walk that was not right: verdict, object and file offset.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Other {
    /// Early or Wrong.
    pub verdict: Verdict,
    /// A frame of it was a guess.
    pub guessed: bool,
    /// The mapped file, or what is known instead.
    pub object: String,
    /// The file offset of the code whose caller was not found (of the call, for a caller), bytes.
    pub offset: u64,
    /// Object and offset of the frame inside of it.
    pub inner: Option<(String, u64)>,
}

impl Other {
    /// Whether it is about code of this file.
    pub fn is_in(&self, object: &str) -> bool {
        self.object == object || self.inner.as_ref().is_some_and(|(name, _)| name == object)
    }
}

impl Counts {
    /// How many walks went wrong, without and with guesses.
    pub fn wrong(&self) -> (u64, u64) {
        let count = |guessed| {
            let wrong = |o: &&Other| matches!(o.verdict, Verdict::Wrong(_)) && o.guessed == guessed;
            let wrong = self.others.iter().filter(|(o, _)| wrong(o));
            wrong.map(|(_, n)| n).sum()
        };
        (count(false), count(true))
    }

    /// How many walks ended early.
    pub fn early(&self) -> u64 {
        let (facts, guesses) = self.wrong();
        self.all - self.right - facts - guesses
    }
}

/// The shadows of the threads, and what walks of them found.
#[derive(Debug, Default)]
pub struct Judge {
    shadows: HashMap<u32, Shadow>,
    mappings: HashMap<u32, Mappings>,
    /// What was mapped.
    pub objects: Objects,
    tables: Tables,
    known: HashMap<u32, Known>,
    /// What was found.
    pub counts: Counts,
    /// What was met.
    pub phases: Phases,
    places: HashSet<(ObjectId, u64)>,
    executed: u64,
    generation: u64,
}

/// What was said of pcs; it stays true until mappings change. Stepping asks for the same callers again and again.
type Known = HashMap<u64, Found<Place>>;

struct Remembered<'a, 'k> {
    code: ProcessCode<'a>,
    known: &'k mut Known,
}

impl Code for Remembered<'_, '_> {
    type Place = Place;

    fn find(&mut self, pc: u64) -> Found<Place> {
        *self.known.entry(pc).or_insert_with(|| self.code.find(pc))
    }

    fn is_code(&mut self, pc: u64) -> bool {
        self.code.is_code(pc)
    }

    fn is_same_stack(&mut self, sp: u64, bytes: Range<u64>) -> bool {
        self.code.is_same_stack(sp, bytes)
    }
}

struct Words<'a, M>(&'a mut M, u32);

impl<M: Machine> Memory for Words<'_, M> {
    fn word(&mut self, address: u64) -> Option<u64> {
        self.0.word(self.1, address)
    }
}

impl Judge {
    /// A judge who waits for these phases.
    pub fn of(phases: &'static [Phase]) -> Judge {
        Judge {
            phases: Phases::new(phases),
            ..Judge::default()
        }
    }

    /// Steps a machine at most `limit` times, and looks at each boundary.
    pub fn run<M: Machine>(&mut self, machine: &mut M, limit: u64) -> io::Result<()> {
        self.run_with(machine, limit, |_, _, _| Ok(()))
    }

    /// The same, where `beside` sees each boundary after the judge, with the frames that there are.
    pub fn run_with<M: Machine>(
        &mut self,
        machine: &mut M,
        limit: u64,
        mut beside: impl FnMut(&mut M, &Boundary, &Judge) -> io::Result<()>,
    ) -> io::Result<()> {
        for n in 0..limit {
            let Some(boundary) = machine.step()? else {
                break;
            };
            self.look(machine, &boundary)?;
            beside(machine, &boundary, self)?;
            if n % 1024 == 0 {
                self.note(machine);
            }
        }
        self.note(machine);
        Ok(())
    }

    fn note<M: Machine>(&mut self, machine: &M) {
        let executed = self.executed;
        self.phases.note(self.counts.all, |phase| match phase {
            Phase::Exec => executed > 1,
            Phase::Instruction(names) => machine.met(names),
            Phase::Symbol(_) => false,
        });
    }

    /// The frames of a thread that is at this pc and stack pointer.
    pub fn truth(&self, tid: u32, pc: u64, sp: u64) -> impl Iterator<Item = Entry> {
        let shadow = self.shadows.get(&tid);
        shadow.into_iter().flat_map(move |s| s.truth(pc, sp))
    }

    /// How many different instructions of files it saw.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// Another number whenever mappings of any process were read anew.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The mappings of a process that was looked at.
    pub fn mappings(&self, pid: u32) -> Option<&Mappings> {
        self.mappings.get(&pid)
    }

    fn look<M: Machine>(&mut self, machine: &mut M, boundary: &Boundary) -> io::Result<()> {
        let &Boundary {
            tid,
            pid,
            registers,
            event,
            remapped,
        } = boundary;
        let (pc, sp) = (registers.pc, registers.sp);
        let fresh = || Shadow::new(sp, M::SLOT);
        match event {
            Event::Exec => {
                self.executed += 1;
                self.shadows.insert(tid, fresh());
            }
            Event::Began { parent, own_stack } => {
                let copy = self.shadows.get(&parent).filter(|_| !own_stack).cloned();
                self.shadows.insert(tid, copy.unwrap_or_else(fresh));
            }
            Event::Stepped(did) => {
                let shadow = self.shadows.entry(tid).or_insert_with(fresh);
                shadow.step(did, pc, sp);
            }
            Event::Signal {
                from,
                trampoline,
                frame,
            } => {
                let shadow = self.shadows.entry(tid).or_insert_with(fresh);
                shadow.signal(from, sp, trampoline, frame);
            }
        }
        if remapped || !self.mappings.contains_key(&pid) {
            let mappings = Mappings::of_process(pid, &mut self.objects)?;
            self.mappings.insert(pid, mappings);
            self.generation += 1;
            self.known.remove(&pid);
        }
        let mappings = &self.mappings[&pid];
        if let Some(Place::Object(id, offset)) = mappings.find(pc).map(|m| m.place(pc))
            && self.places.insert((id, offset))
        {
            self.phases.at(&self.objects, id, offset, self.counts.all);
        }
        let mut frames = Vec::with_capacity(64);
        let mut memory = Words(machine, pid);
        // The oracle reads the stack from here on: one window.
        let _ = memory.word(sp);
        let mut code = Remembered {
            code: ProcessCode::new(mappings, &self.objects, &mut self.tables),
            known: self.known.entry(pid).or_default(),
        };
        let start = Start::topmost(registers);
        let stop = walk(start, LIMIT, &mut memory, &mut code, |frame| {
            frames.push((frame.pc, frame.sp, frame.origin));
        });
        let found = compare(&frames, stop, self.shadows[&tid].truth(pc, sp));
        self.counts.all += 1;
        self.counts.guessed += u64::from(found.guessed);
        if found.verdict == Verdict::Right {
            self.counts.right += 1;
            return Ok(());
        }
        let place = |frame| {
            let entry = self.shadows[&tid].truth(pc, sp).nth(frame);
            let at = entry.map_or(0, |e| e.pc - u64::from(!e.interrupted));
            match mappings.find(at).map(|mapping| mapping.place(at)) {
                Some(Place::Object(id, offset)) => {
                    (self.objects.get(id).path.display().to_string(), offset)
                }
                Some(_) => ("generated code".into(), at),
                None => ("no code".into(), at),
            }
        };
        let (object, offset) = place(found.frame);
        let inner = found.frame.checked_sub(1).map(place);
        let other = Other {
            verdict: found.verdict,
            guessed: found.guessed,
            object,
            offset,
            inner,
        };
        *self.counts.others.entry(other).or_default() += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth() -> impl Iterator<Item = Entry> {
        [(1, 0x10), (2, 0x20), (3, 0x30)]
            .into_iter()
            .map(|(pc, sp)| Entry {
                pc,
                sp,
                interrupted: false,
            })
    }

    #[test]
    fn every_verdict() {
        let frames = [
            (1, 0x10, Origin::Registers),
            (2, 0x20, Origin::Converted),
            (3, 0x30, Origin::Converted),
        ];
        let all = |frames: &[_], stop| compare(frames, stop, truth()).verdict;
        assert_eq!(all(&frames, Stop::Outermost), Verdict::Right);
        assert_eq!(all(&frames, Stop::NoRow), Verdict::Early(Stop::NoRow));
        assert_eq!(all(&frames[..2], Stop::NoRow), Verdict::Early(Stop::NoRow));
        let soon = all(&frames[..2], Stop::Outermost);
        assert_eq!(soon, Verdict::Wrong(Wrong::TooSoon));
        let wrong = |at: usize, frame| {
            let mut frames = frames.to_vec();
            frames.truncate(at);
            frames.push(frame);
            compare(&frames, Stop::NoRow, truth())
        };
        let pc = wrong(1, (9, 0x20, Origin::FramePointer));
        assert_eq!((pc.verdict, pc.frame), (Verdict::Wrong(Wrong::Pc), 0));
        assert!(pc.guessed);
        let sp = wrong(2, (3, 0x38, Origin::Converted));
        assert_eq!((sp.verdict, sp.frame), (Verdict::Wrong(Wrong::Sp), 1));
        let many = wrong(3, (4, 0x40, Origin::Converted));
        assert_eq!(many.verdict, Verdict::Wrong(Wrong::TooMany));
    }
}
