//! `oracle convert`: converts the `.eh_frame` of every file, writes it, reads it back, and asks
//! gimli at every row boundary whether that is true.

use super::elf;
use super::machine::State;
use super::truth::{self, Range};
use framewalk_sframe::convert::{self, EhFrame, Refusal, Refused};
use framewalk_sframe::{Arch, Builder, Section, check};
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Share of refused rows at which the oracle fails.
const MOST_REFUSED: f64 = 0.001;

/// Mismatches told in words.
const TOLD: usize = 20;

const SEEDS: [u64; 2] = [1, 0x5eed];

#[derive(Default)]
struct Totals {
    files: u64,
    unreadable: u64,
    entries: u64,
    functions: u64,
    rows_read: u64,
    rows: u64,
    compared: u64,
    mismatches: u64,
    unread_by_gimli: u64,
    refused: Refused,
    converting: Duration,
    writing: Duration,
    sframe_bytes: u64,
    eh_frame_bytes: u64,
    told: Vec<String>,
    /// File, refused rows; for the most refused reason to be looked at.
    examples: Vec<(Refusal, u64, PathBuf)>,
}

impl Totals {
    fn merge(&mut self, other: Totals) {
        self.files += other.files;
        self.unreadable += other.unreadable;
        self.entries += other.entries;
        self.functions += other.functions;
        self.rows_read += other.rows_read;
        self.rows += other.rows;
        self.compared += other.compared;
        self.mismatches += other.mismatches;
        self.unread_by_gimli += other.unread_by_gimli;
        self.refused.merge(&other.refused);
        self.converting += other.converting;
        self.writing += other.writing;
        self.sframe_bytes += other.sframe_bytes;
        self.eh_frame_bytes += other.eh_frame_bytes;
        self.told.extend(other.told);
        for (refusal, rows, path) in other.examples {
            self.example(refusal, rows, path);
        }
    }

    fn mismatch(&mut self, text: impl FnOnce() -> String) {
        self.mismatches += 1;
        if self.told.len() < TOLD {
            self.told.push(text());
        }
    }

    /// Keeps the file that loses most for each reason.
    fn example(&mut self, refusal: Refusal, rows: u64, path: PathBuf) {
        match self
            .examples
            .iter_mut()
            .find(|(known, ..)| *known == refusal)
        {
            Some(known) if known.1 >= rows => {}
            Some(known) => *known = (refusal, rows, path),
            None => self.examples.push((refusal, rows, path)),
        }
    }
}

/// Runs the oracle over all linked files of the machines that SFrame knows, below the paths.
pub(crate) fn run(paths: &[&str]) -> ExitCode {
    let paths = if paths.is_empty() {
        &["/usr/bin", "/usr/lib"]
    } else {
        paths
    };
    let files = elf::files(paths);
    let next = AtomicUsize::new(0);
    let totals = Mutex::new(Totals::default());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Totals::default();
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    file(path, &mut own);
                }
                if let Ok(mut totals) = totals.lock() {
                    totals.merge(own);
                }
            });
        }
    });
    match totals.into_inner() {
        Ok(totals) => report(&totals),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Processor time of this thread: other work on the machine does not count.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

fn file(path: &Path, totals: &mut Totals) {
    let arch = match elf::linked_for(path) {
        Ok(Some(arch)) => arch,
        Ok(None) => return,
        Err(e) => {
            eprintln!("{}: {e}, passed over", path.display());
            totals.unreadable += 1;
            return;
        }
    };
    let data = match fs::read(path) {
        Ok(data) => data,
        Err(e) => {
            eprintln!("{}: {e}, passed over", path.display());
            totals.unreadable += 1;
            return;
        }
    };
    let sections = match elf::sections(&data) {
        Ok(sections) => sections,
        Err(e) => {
            eprintln!("{}: {e}, passed over", path.display());
            totals.unreadable += 1;
            return;
        }
    };
    let Some(eh_frame) = sections.eh_frame else {
        return;
    };
    totals.files += 1;

    let begun = cpu_time();
    let conversion = convert::eh_frame(EhFrame::new(eh_frame.bytes, eh_frame.address, arch));
    totals.converting += cpu_time().saturating_sub(begun);
    totals.entries += conversion.entries;
    totals.functions += conversion.functions.len() as u64;
    totals.rows_read += conversion.rows_read;
    totals.rows += conversion.rows;
    for (refusal, count) in conversion.refused.iter() {
        totals.example(refusal, count.rows, path.to_owned());
    }
    totals.refused.merge(&conversion.refused);

    let begun = cpu_time();
    let mut builder = Builder::new(arch);
    builder.extend(conversion.functions);
    let written = builder.finish(eh_frame.address);
    totals.writing += cpu_time().saturating_sub(begun);
    let written = match written {
        Ok(written) => written,
        Err(e) => return totals.mismatch(|| format!("{}: cannot be written: {e}", path.display())),
    };
    totals.sframe_bytes += written.len() as u64;
    totals.eh_frame_bytes += eh_frame.bytes.len() as u64 + sections.eh_frame_hdr;
    for finding in check(&written, eh_frame.address).findings() {
        totals.mismatch(|| format!("{}: written section: {finding}", path.display()));
    }
    match Section::parse(&written, eh_frame.address) {
        Ok(section) => compare(path, arch, &section, &eh_frame, &conversion.refused, totals),
        Err(e) => totals.mismatch(|| format!("{}: cannot be read back: {e}", path.display())),
    }
}

/// Asks at the first, second and last byte of each of gimli's rows, and around its entries.
fn compare(
    path: &Path,
    arch: Arch,
    section: &Section<'_>,
    eh_frame: &elf::Bytes<'_>,
    refused: &Refused,
    totals: &mut Totals,
) {
    let overlapping = refused.get(Refusal::Overlap).functions > 0;
    let mut absent = 0;
    let (mut ranges, unread) = truth::each_row(arch, eh_frame.bytes, eh_frame.address, |row| {
        let mut missing = false;
        let last = row.end - 1;
        let places = [row.start, (row.start + 1).min(last), last];
        for (i, &pc) in places.iter().enumerate() {
            if places[..i].contains(&pc) {
                continue;
            }
            totals.compared += 1;
            let found = match section.lookup(pc) {
                Ok(found) => found,
                Err(e) => {
                    totals.mismatch(|| format!("{} at {pc:#x}: {e}", path.display()));
                    continue;
                }
            };
            let Some(found) = found else {
                missing = true;
                continue;
            };
            for seed in SEEDS {
                let state = State::new(arch, seed, pc);
                let (ours, theirs) = (state.apply(&found.row.unwind), row.apply(&state));
                if theirs != Some(ours) && !overlapping {
                    totals.mismatch(|| {
                        format!(
                            "{} at {pc:#x}: {:x?} gives {ours:x?}, gimli {theirs:x?}",
                            path.display(),
                            found.row
                        )
                    });
                    break;
                }
            }
        }
        absent += u64::from(missing);
    });
    totals.unread_by_gimli += unread.entries + unread.tables;
    if absent > refused.rows() {
        totals.mismatch(|| {
            format!(
                "{}: {absent} rows absent, {} refused",
                path.display(),
                refused.rows()
            )
        });
    }
    outside(path, section, &mut ranges, totals);
}

/// Where no entry says anything, we must not either.
fn outside(path: &Path, section: &Section<'_>, ranges: &mut [Range], totals: &mut Totals) {
    ranges.sort_by_key(|range| range.start);
    let mut covered = 0;
    for (i, range) in ranges.iter().enumerate() {
        covered = range.end.max(covered);
        let next = ranges.get(i + 1).map_or(u64::MAX, |next| next.start);
        if next <= covered {
            continue;
        }
        for pc in [covered, next - 1] {
            totals.compared += 1;
            if !matches!(section.lookup(pc), Ok(None)) {
                totals
                    .mismatch(|| format!("{} at {pc:#x}: a row where no entry is", path.display()));
            }
        }
    }
}

fn report(totals: &Totals) -> ExitCode {
    let rows = totals.rows_read.max(1) as f64;
    let per_row = |time: Duration| time.as_nanos() as f64 / rows;
    println!("files                     {:>12}", totals.files);
    println!("files that cannot be read {:>12}", totals.unreadable);
    println!("entries of .eh_frame      {:>12}", totals.entries);
    println!("functions written         {:>12}", totals.functions);
    println!("rows of .eh_frame         {:>12}", totals.rows_read);
    println!("rows written              {:>12}", totals.rows);
    println!("places compared           {:>12}", totals.compared);
    println!("entries gimli cannot read {:>12}", totals.unread_by_gimli);
    println!("mismatches                {:>12}", totals.mismatches);
    let refused = totals.refused.rows();
    let share = refused as f64 / rows;
    println!(
        "rows refused              {refused:>12}  {:.4} %",
        share * 100.0
    );
    for (refusal, count) in totals.refused.iter() {
        let example = totals.examples.iter().find(|(known, ..)| *known == refusal);
        println!(
            "  {:<23} {:>12}  {:.4} %  in {} entries; most in {}",
            refusal.name(),
            count.rows,
            count.rows as f64 / rows * 100.0,
            count.functions,
            example.map_or(String::new(), |(_, _, path)| path.display().to_string()),
        );
    }
    println!(
        "conversion, ns per row    {:>12.1}",
        per_row(totals.converting)
    );
    println!(
        "writing, ns per row       {:>12.1}",
        per_row(totals.writing)
    );
    println!("bytes of SFrame           {:>12}", totals.sframe_bytes);
    println!(
        "bytes of .eh_frame + hdr  {:>12}  ratio {:.3}",
        totals.eh_frame_bytes,
        totals.sframe_bytes as f64 / totals.eh_frame_bytes.max(1) as f64
    );
    for text in &totals.told {
        println!("mismatch: {text}");
    }
    if totals.files == 0 {
        eprintln!("no linked file of a known machine with .eh_frame found");
        return ExitCode::FAILURE;
    }
    if totals.mismatches > 0 || share >= MOST_REFUSED {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
