//! The C header with the numbers that the tables of other crates have: one source for both languages.

use framewalk_announce::area::layout;
use framewalk_announce::{Refusal, abi};
use framewalk_walk::{MIN_HOLE, Origin, Stop};

/// The text of `reasons.h`.
pub(crate) fn reasons() -> String {
    let constant = |kind: &str, name: String, number: u8| {
        let mut upper = String::new();
        for (i, c) in name.chars().enumerate() {
            if c.is_ascii_uppercase() && i > 0 {
                upper.push('_');
            }
            upper.push(c.to_ascii_uppercase());
        }
        format!("#define FW_{kind}_{upper} {number}\n")
    };
    let stops = Stop::ALL
        .iter()
        .map(|s| constant("STOP", format!("{s:?}"), *s as u8));
    let origins = Origin::ALL
        .iter()
        .map(|o| constant("ORIGIN", format!("{o:?}"), *o as u8));
    let refusals = Refusal::ALL
        .iter()
        .map(|refusal| format!("#define FW_{} {}\n", refusal.name(), refusal.errno()));
    let numbers = [
        ("REGISTER", u64::from(abi::REGISTER)),
        ("UNREGISTER", u64::from(abi::UNREGISTER)),
        ("KIND_SECTION", abi::KIND_SECTION),
        ("KIND_AREA", abi::KIND_AREA),
        ("REPLACE", abi::REPLACE),
        ("MAX_SECTIONS", u64::from(abi::MAX_SECTIONS)),
        ("MAX_AREAS", u64::from(abi::MAX_AREAS)),
        ("MAX_ROW_BYTES", abi::MAX_ROW_BYTES as u64),
        ("AREA_MAGIC", u64::from_le_bytes(layout::MAGIC)),
        ("USER_END", abi::USER_END),
        ("MIN_HOLE", MIN_HOLE),
    ]
    .map(|(name, number)| format!("#define FW_{name} {number}ull\n"));
    let area = layout::CONSTANTS
        .iter()
        .map(|(name, number, _)| format!("#define FW_AREA_{name} {number}ull\n"));
    stops
        .chain(origins)
        .chain(refusals)
        .chain(numbers)
        .chain(area)
        .collect()
}
