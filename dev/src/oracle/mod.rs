//! Comparisons with other people's readers of the same facts.

mod convert;
pub(crate) mod elf;
mod machine;
mod readelf;
mod truth;

use std::process::ExitCode;

/// `oracle convert [PATH...]`, `oracle readelf FILE...`.
pub(crate) fn run(words: &[&str]) -> ExitCode {
    match words {
        ["convert", paths @ ..] => convert::run(paths),
        ["readelf", files @ ..] if !files.is_empty() => readelf::run(files),
        _ => {
            eprintln!("usage: oracle convert [PATH...] | oracle readelf FILE...");
            ExitCode::from(2)
        }
    }
}
