//! Profiles as files: one module per format, and the file that appears only when it is whole.

pub mod file;
pub mod firefox;
pub mod folded;
pub mod pprof;
pub mod svg;
mod tree;

use crate::processes::Objects;
use crate::profile::Profile;
use crate::symbols::Symbols;
use std::io::{self, Write};
use std::path::Path;

/// A format, told by the end of the file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A flame graph.
    Svg,
    /// One line per stack: `outermost;...;innermost count`.
    Folded,
    /// For pprof.
    Pprof,
    /// For the Firefox Profiler.
    Firefox,
}

/// The formats and the file name endings that ask for them.
const ENDINGS: &[(&str, Format)] = &[
    (".svg", Format::Svg),
    (".folded", Format::Folded),
    (".pb.gz", Format::Pprof),
    (".json.gz", Format::Firefox),
];

impl Format {
    /// The format that a file's name asks for, or the sentence to say.
    pub fn of(path: &Path) -> Result<Format, String> {
        let name = path.to_string_lossy();
        let found = ENDINGS.iter().find(|(ending, _)| name.ends_with(ending));
        found.map(|&(_, format)| format).ok_or_else(|| {
            let endings: Vec<_> = ENDINGS.iter().map(|&(ending, _)| ending).collect();
            format!(
                "{}: the name must end with one of {}",
                path.display(),
                endings.join(", ")
            )
        })
    }
}

/// All that a format may show.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The samples.
    pub profile: &'a Profile,
    /// The names of their frames.
    pub symbols: &'a Symbols,
    /// The files that their frames lie in.
    pub objects: &'a Objects,
    /// What was recorded.
    pub title: &'a str,
    /// One line about it.
    pub subtitle: &'a str,
    /// Time between two samples of a running thread, nanoseconds.
    pub period_ns: u64,
    /// When recording began, nanoseconds since 1970.
    pub began_wall_ns: u64,
    /// When recording began, CLOCK_MONOTONIC nanoseconds, as the samples have it.
    pub began_monotonic_ns: u64,
    /// How long it took, nanoseconds.
    pub duration_ns: u64,
}

/// Writes a profile.
pub fn write(format: Format, view: &View, writer: &mut dyn Write) -> io::Result<()> {
    match format {
        Format::Svg => svg::write(view, writer),
        Format::Folded => folded::write(view, writer),
        Format::Pprof => pprof::write(view, writer),
        Format::Firefox => firefox::write(view, writer),
    }
}
