//! What the fuzzer makes of its bytes: producers and what they do, and somebody who scribbles.

use super::TEXT;
use arbitrary::Arbitrary;
use framewalk_announce::area::layout::*;
use framewalk_announce::area::{Area, Function, Label, Place, Rule, Slot};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// An area by its producer, and what is done to it.
#[derive(Debug, Arbitrary)]
pub(super) struct Life {
    pub(super) text_len: u16,
    pub(super) shift: u8,
    pub(super) capacity: u8,
    pub(super) heap: u8,
    pub(super) default: How,
    pub(super) acts: Vec<Act>,
    /// Places to look at, and what the producer does after so many reads of each lookup.
    pub(super) meanwhile: Vec<(u16, Vec<(u8, Act)>)>,
    pub(super) scribbles: Vec<Scribble>,
    /// The same, with scribbles.
    pub(super) after: Vec<(u16, Vec<(u8, Scribble)>)>,
}

#[derive(Debug, Arbitrary)]
pub(super) enum How {
    FramePointer,
    Fixed {
        cfa: u8,
        ra: Where,
        fp: i8,
    },
    Rows(Vec<u8>),
    StackSwitch {
        stack: Where,
        cfa: i8,
        ra: i8,
        fp: i8,
    },
    Outermost,
    Opaque,
    None,
}

#[derive(Debug, Arbitrary)]
pub(super) enum Where {
    At(i8),
    Register(u8),
}

#[derive(Debug, Arbitrary)]
pub(super) enum Called {
    Number(u32),
    Name(String),
}

/// What a producer does.
#[derive(Debug, Arbitrary)]
pub(super) enum Act {
    Publish {
        start: u16,
        size: u16,
        how: How,
        prologue_len: u8,
        runtime: bool,
        signal: bool,
        called: Called,
    },
    /// A small function behind the one before: many of them get into a granule.
    Next {
        how: How,
    },
    Tombstone(u8),
    Move {
        which: u8,
        start: u16,
    },
    Reset,
}

/// A word of the memory gets another value.
#[derive(Debug, Arbitrary)]
pub(super) struct Scribble {
    at: u16,
    value: Value,
}

#[derive(Debug, Arbitrary)]
pub(super) enum Value {
    Any(u32),
    Small(u8),
    Covered(u8),
    Flip(u8),
    Add(i8),
    /// What stands elsewhere.
    Copy(u16),
}

impl How {
    fn rule(&self) -> Rule<'_> {
        let word = |number: i8| 8 * i16::from(number);
        let place = |place: &Where| match *place {
            Where::At(number) => Place::At(word(number)),
            Where::Register(number) => Place::Register(number),
        };
        match self {
            How::FramePointer => Rule::FramePointer,
            How::Fixed { cfa, ra, fp } => Rule::Fixed {
                cfa: 8 * i32::from(*cfa),
                ra: place(ra),
                fp: word(*fp),
            },
            How::Rows(rows) => Rule::Rows(rows),
            How::StackSwitch { stack, cfa, ra, fp } => Rule::StackSwitch {
                stack: place(stack),
                cfa: word(*cfa),
                ra: word(*ra),
                fp: word(*fp),
            },
            How::Outermost => Rule::Outermost,
            How::Opaque => Rule::Opaque,
            How::None => Rule::None,
        }
    }

    /// A default rule lives as long as anything.
    pub(super) fn default(&self) -> Rule<'static> {
        match self.rule() {
            Rule::Rows(_) | Rule::None => Rule::None,
            Rule::FramePointer => Rule::FramePointer,
            Rule::Fixed { cfa, ra, fp } => Rule::Fixed { cfa, ra, fp },
            Rule::StackSwitch { stack, cfa, ra, fp } => Rule::StackSwitch { stack, cfa, ra, fp },
            Rule::Outermost => Rule::Outermost,
            Rule::Opaque => Rule::Opaque,
        }
    }
}

/// A JIT: it does not generate code over code that lives.
pub(super) struct Jit<'m> {
    pub(super) area: Area<'m>,
    pub(super) text_len: u64,
    pub(super) alive: Vec<(Slot, Range<u64>)>,
    /// Where the function before ended.
    pub(super) end: u64,
    /// Of all that were ever published and have one.
    pub(super) names: HashMap<Slot, String>,
}

impl Jit<'_> {
    pub(super) fn act(&mut self, act: &Act) {
        match act {
            Act::Publish {
                start,
                size,
                how,
                prologue_len,
                runtime,
                signal,
                called,
            } => {
                let start = TEXT + u64::from(*start) % self.text_len;
                let function = Function {
                    prologue_len: (*prologue_len).into(),
                    runtime: *runtime,
                    signal: *signal,
                    label: match called {
                        Called::Number(number) => Label::Cookie(*number),
                        Called::Name(name) => Label::Name(name),
                    },
                    ..Function::new(start, (*size).into(), how.rule())
                };
                self.publish(&function);
            }
            Act::Next { how } => self.publish(&Function::new(self.end, 1, how.rule())),
            Act::Tombstone(which) => {
                if let Some((slot, _)) = self.take(*which) {
                    assert!(self.area.tombstone(slot));
                    assert!(!self.area.tombstone(slot), "it died already");
                }
            }
            Act::Move { which, start } => {
                let Some((slot, range)) = self.take(*which) else {
                    return;
                };
                let start = TEXT + u64::from(*start) % self.text_len;
                let to = start..start + (range.end - range.start);
                if !self.is_free(&to) {
                    self.alive.push((slot, range));
                    return;
                }
                let moved = self.area.moved(slot, start);
                if let Ok(to_slot) = moved {
                    self.alive.push((to_slot, to));
                    if let Some(name) = self.names.get(&slot).cloned() {
                        self.names.insert(to_slot, name);
                    }
                }
            }
            Act::Reset => {
                self.alive.clear();
                self.area.reset();
            }
        }
    }

    fn publish(&mut self, function: &Function<'_>) {
        let range = function.start..function.start + u64::from(function.size);
        if self.is_free(&range)
            && let Ok(slot) = self.area.publish(function)
        {
            self.end = range.end;
            self.alive.push((slot, range));
            if let Label::Name(name) = function.label {
                self.names.insert(slot, cut(name).to_string());
            }
        }
    }

    fn take(&mut self, which: u8) -> Option<(Slot, Range<u64>)> {
        match self.alive.len() {
            0 => None,
            many => Some(self.alive.swap_remove(usize::from(which) % many)),
        }
    }

    fn is_free(&self, range: &Range<u64>) -> bool {
        let apart = |other: &Range<u64>| other.end <= range.start || range.end <= other.start;
        self.alive.iter().all(|(_, other)| apart(other))
    }

    pub(super) fn at(&self, pc: u64) -> Option<u32> {
        let holds = self.alive.iter().find(|(_, range)| range.contains(&pc));
        holds.map(|(slot, _)| slot.number())
    }
}

impl Scribble {
    /// What never changes is not read again, so it is left alone.
    pub(super) fn apply(&self, memory: &[AtomicU32]) {
        let first = (GEOMETRY_SIZE / 4) as usize;
        let place = |at: u16| first + usize::from(at) % (memory.len() - first);
        let word = &memory[place(self.at)];
        let old = word.load(Relaxed);
        let value = match self.value {
            Value::Any(value) => value,
            Value::Small(value) => value.into(),
            Value::Covered(slot) => COVERED | u32::from(slot),
            Value::Flip(bit) => old ^ 1 << (bit % 32),
            Value::Add(number) => old.wrapping_add_signed(number.into()),
            Value::Copy(from) => memory[place(from)].load(Relaxed),
        };
        word.store(value, Relaxed);
    }
}

/// As much of a name as an area holds.
fn cut(name: &str) -> &str {
    let most = (0..=MAX_NAME as usize).rev();
    let mut heads = most.filter_map(|most| name.get(..most));
    match name.len() <= MAX_NAME as usize {
        true => name,
        false => heads.next().unwrap(),
    }
}
