//! How long the conversion of `.eh_frame` takes.

use super::{Bench, heading};
use crate::oracle::elf;
use framewalk_sframe::convert::{EhFrame, eh_frame};
use framewalk_sframe::{Arch, Builder};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

const FILES: &[&str] = &[
    "/usr/bin/python3",
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
    "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
];
const ROUNDS: usize = 5;

fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

pub(super) fn run(_: &Bench) -> Result<(), String> {
    heading(&format!(
        "conversion of .eh_frame, best of {ROUNDS}, CPU time"
    ));
    println!(
        "  {:<44} {:>9} {:>12} {:>12} {:>9}",
        "file", "rows", "convert, ns", "write, ns", "a row: both"
    );
    let mut measured = 0;
    for path in FILES {
        let Ok(data) = std::fs::read(path) else {
            continue;
        };
        let sections = elf::sections(&data).map_err(|error| format!("{path}: {error}"))?;
        let Some(section) = sections.eh_frame else {
            continue;
        };
        let input = EhFrame::new(section.bytes, section.address, Arch::Amd64);
        let (mut converting, mut writing, mut rows) = (Duration::MAX, Duration::MAX, 1);
        for _ in 0..ROUNDS {
            let begin = now();
            let conversion = eh_frame(input);
            let converted = now();
            rows = conversion.rows_read.max(1);
            let mut builder = Builder::new(Arch::Amd64);
            builder.extend(conversion.functions);
            let written = builder.finish(section.address);
            writing = writing.min(now().saturating_sub(converted));
            converting = converting.min(converted.saturating_sub(begin));
            written.map_err(|error| format!("{path}: {error}"))?;
        }
        let per_row = |time: Duration| time.as_nanos() as f64 / rows as f64;
        let (convert, write) = (per_row(converting), per_row(writing));
        println!(
            "  {path:<44} {rows:>9} {convert:>12.1} {write:>12.1} {:>9.1}",
            convert + write
        );
        measured += 1;
    }
    match measured {
        0 => Err("none of the files is here".into()),
        _ => Ok(()),
    }
}
