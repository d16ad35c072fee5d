//! Comparisons with other people's readers of the same facts.

pub(crate) mod convert;
mod elf;
mod machine;
pub(crate) mod readelf;
mod truth;
