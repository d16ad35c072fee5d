//! Walks that were not right, by function and reason.

use crate::gaps::{Facts, Gap, explain};
use crate::judge::{Judge, Verdict};
use crate::symbols::bytes;
use std::collections::BTreeMap;
use std::fmt;

/// Walks that ended in the same function for the same reason.
#[derive(Debug)]
pub struct End {
    /// Early or wrong.
    pub verdict: Verdict,
    /// A frame of it was a guess.
    pub guessed: bool,
    /// The mapped file, or what is known instead.
    pub object: String,
    /// The function, where the file names it.
    pub function: Option<String>,
    /// File offsets (or addresses) of the first and the last place.
    pub range: (u64, u64),
    /// How often.
    pub times: u64,
    /// Why, if that is known.
    pub gap: Option<&'static Gap>,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self {
            verdict,
            object,
            range: (first, last),
            times,
            ..
        } = self;
        let guessed = if self.guessed { ", guessed" } else { "" };
        let function = self.function.as_deref().unwrap_or("?");
        write!(
            f,
            "{times} x {verdict:?}{guessed} in {function} ({object}+{first:#x}..{last:#x})"
        )
    }
}

/// All that a judge found, what is wrong first.
pub fn ends(judge: &Judge) -> Vec<End> {
    let mut files = BTreeMap::new();
    for (_, object) in judge.objects.iter() {
        let path = object.path.display().to_string();
        files.insert(path, bytes(&object.source));
    }
    let facts: BTreeMap<_, _> = files
        .iter()
        .filter(|(path, _)| judge.counts.others.keys().any(|other| other.is_in(path)))
        .filter_map(|(name, bytes)| Some((name.as_str(), Facts::of(bytes)?)))
        .collect();
    let mut ends: Vec<End> = Vec::new();
    for (other, times) in &judge.counts.others {
        let inner = other.inner.as_ref();
        let inner = inner.and_then(|(object, at)| Some((facts.get(object.as_str())?, *at)));
        let facts = facts.get(other.object.as_str());
        let function = facts.and_then(|facts| facts.symbols.name(other.offset));
        let gap = facts.and_then(|facts| explain(other.verdict, (facts, other.offset), inner));
        let name = gap.map(|gap| gap.name);
        let same = ends.iter_mut().find(|end| {
            let reason = (end.verdict, end.guessed, end.gap.map(|gap| gap.name));
            reason == (other.verdict, other.guessed, name)
                && end.object == other.object
                && end.function.as_deref() == function
        });
        if let Some(end) = same {
            let (first, last) = end.range;
            end.range = (first.min(other.offset), last.max(other.offset));
            end.times += times;
            continue;
        }
        ends.push(End {
            verdict: other.verdict,
            guessed: other.guessed,
            object: other.object.clone(),
            function: function.map(str::to_string),
            range: (other.offset, other.offset),
            times: *times,
            gap,
        });
    }
    ends.sort_by_key(|end| (end.verdict.is_early(), std::cmp::Reverse(end.times)));
    ends
}
