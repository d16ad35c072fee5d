//! What has to be met while a program is stepped, so that its walks are of what it is for.

use crate::symbols::{Symbols, bytes};
use framewalk::processes::Objects;
use framewalk::sample::ObjectId;
use std::collections::HashMap;
use std::fmt;

/// Something that is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The first instruction of a function, of whatever object.
    Symbol(&'static str),
    /// An instruction with one of these names.
    Instruction(&'static [&'static str]),
    /// A child that executes another program.
    Exec,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Phase::Symbol(name) => f.write_str(name),
            Phase::Instruction(names) => write!(f, "`{}`", names.join("` or `")),
            Phase::Exec => f.write_str("exec"),
        }
    }
}

/// The phases of a program, and when they were met.
#[derive(Debug, Default)]
pub struct Phases {
    wanted: &'static [Phase],
    met: Vec<Option<u64>>,
    places: HashMap<ObjectId, HashMap<u64, Vec<usize>>>,
}

impl Phases {
    /// Nothing of `wanted` is met yet.
    pub fn new(wanted: &'static [Phase]) -> Phases {
        Phases {
            wanted,
            met: vec![None; wanted.len()],
            places: HashMap::new(),
        }
    }

    /// Notes that code at an object's file offset is about to be executed, at boundary number `now`.
    pub fn at(&mut self, objects: &Objects, id: ObjectId, offset: u64, now: u64) {
        let wanted = self.wanted;
        let places = self.places.entry(id).or_insert_with(|| {
            let symbols = Symbols::of(&bytes(&objects.get(id).source));
            let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
            for (n, phase) in wanted.iter().enumerate() {
                if let Phase::Symbol(name) = phase {
                    for place in symbols.places(name) {
                        places.entry(place).or_default().push(n);
                    }
                }
            }
            places
        });
        for &n in places.get(&offset).into_iter().flatten() {
            self.met[n].get_or_insert(now);
        }
    }

    /// Notes those that are no functions.
    pub fn note(&mut self, now: u64, met: impl Fn(Phase) -> bool) {
        for (phase, at) in self.wanted.iter().zip(&mut self.met) {
            if at.is_none() && met(*phase) {
                *at = Some(now);
            }
        }
    }

    /// How many there are, and how many were met.
    pub fn count(&self) -> (usize, usize) {
        (self.met.len(), self.met.iter().flatten().count())
    }

    /// The boundary at which the last one was met, if all were.
    pub fn all_by(&self) -> Option<u64> {
        let all: Option<Vec<u64>> = self.met.iter().copied().collect();
        all.map(|all| all.into_iter().max().unwrap_or(0))
    }

    /// Those that were not met.
    pub fn missing(&self) -> Vec<Phase> {
        let both = self.wanted.iter().zip(&self.met);
        both.filter(|(_, at)| at.is_none())
            .map(|(p, _)| *p)
            .collect()
    }
}
