//! Walks at every boundary, and what they are worth.

use crate::machine::{Boundary, Event, Machine};
use crate::shadow::{Entry, Shadow};
use framewalk::processes::{Mappings, Objects, ProcessCode, Tables};
use framewalk::sample::Place;
use framewalk_walk::{Memory, Origin, Start, Stop, walk};
use std::collections::{BTreeMap, HashMap};
use std::io;

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
pub struct Found {
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
) -> Found {
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
            return Found {
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
    Found {
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
    objects: Objects,
    tables: Tables,
    /// What was found.
    pub counts: Counts,
}

struct Words<'a, M>(&'a mut M, u32);

impl<M: Machine> Memory for Words<'_, M> {
    fn word(&mut self, address: u64) -> Option<u64> {
        self.0.word(self.1, address)
    }
}

impl Judge {
    /// Steps a machine at most `limit` times, and looks at each boundary.
    pub fn run<M: Machine>(&mut self, machine: &mut M, limit: u64) -> io::Result<()> {
        for _ in 0..limit {
            let Some(boundary) = machine.step()? else {
                break;
            };
            self.look(machine, &boundary)?;
        }
        Ok(())
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
        }
        let mappings = &self.mappings[&pid];
        let mut frames = Vec::with_capacity(64);
        let mut memory = Words(machine, pid);
        // The oracle reads the stack from here on: one window.
        let _ = memory.word(sp);
        let mut code = ProcessCode::new(mappings, &self.objects, &mut self.tables);
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
        let mut at = self.shadows[&tid].truth(pc, sp).skip(found.frame);
        let at = at.next().map_or(0, |e| e.pc - u64::from(!e.interrupted));
        let place = mappings.find(at).map(|mapping| mapping.place(at));
        let (object, offset) = match place {
            Some(Place::Object(id, offset)) => {
                (self.objects.get(id).path.display().to_string(), offset)
            }
            Some(_) => ("generated code".into(), at),
            None => ("no code".into(), at),
        };
        let other = Other {
            verdict: found.verdict,
            guessed: found.guessed,
            object,
            offset,
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
