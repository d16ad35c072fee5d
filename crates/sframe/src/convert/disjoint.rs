//! Sorting functions by address, so that none overlaps another.

use super::{Conversion, Refusal};
use crate::write::FunctionRows;
use std::collections::BTreeMap;

/// Sorts the functions. Of those that overlap, the first in the section stays.
pub(super) fn first_wins(conversion: &mut Conversion) {
    let functions = &mut conversion.functions;
    let mut starts: Vec<_> = functions
        .iter()
        .map(|f| (f.start, f.start.saturating_add(u64::from(f.size))))
        .collect();
    starts.sort_unstable();
    if starts
        .windows(2)
        .any(|pair| matches!(pair, [(_, end), (start, _)] if end > start))
    {
        drop_overlapping(conversion);
    } else {
        functions.sort_by_key(|f| f.start);
    }
}

fn drop_overlapping(conversion: &mut Conversion) {
    let mut kept: BTreeMap<u64, FunctionRows> = BTreeMap::new();
    for function in std::mem::take(&mut conversion.functions) {
        let end = function.start.saturating_add(u64::from(function.size));
        // Those kept are disjoint, so only the last one below our end can touch us.
        let below = kept.range(..end).next_back();
        if below.is_some_and(|(_, other)| other.end().is_none_or(|other| other > function.start)) {
            conversion
                .refused
                .add(Refusal::Overlap, 1, function.rows.len() as u64);
        } else {
            kept.insert(function.start, function);
        }
    }
    conversion.functions = kept.into_values().collect();
}
