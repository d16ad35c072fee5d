//! `vm`: the tests that need other kernels than this machine's. Boots Debian's kernels under
//! emulation, each with a file system of a few programs, and judges what they report.

mod fetch;
mod guest;
mod initramfs;
mod judge;
mod kernels;
mod machine;
mod payloads;
mod programs;
mod report;

use crate::run;
use crate::test::{Outcome, Test};
use kernels::{KERNELS, Kernel};
use payloads::{PAYLOADS, Payload};
use programs::Packed;
use report::{Guest, Ran};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// The task that is not for people: the first process of a guest.
pub(crate) const GUEST: &str = "vm-guest";

/// All that the guest said, and when: seconds since it was switched on.
const REPORT: &str = "report.log";

/// Lines of what went before, shown after a failure.
const TAIL: usize = 30;
const FAILURES: usize = 200;
/// Characters of such a line.
const WIDTH: usize = 300;

/// Runs the guest's side.
pub(crate) fn guest() -> ExitCode {
    // It ends all processes but itself.
    if std::process::id() != 1 {
        return run::fail("vm-guest is the first process of an emulated machine: see ./run vm");
    }
    guest::run();
    ExitCode::FAILURE
}

/// The task: all kernels and payloads, or those that are named.
pub(crate) fn run(words: &[&str]) -> ExitCode {
    let is_kernel = |word: &&str| KERNELS.iter().any(|kernel| kernel.name == *word);
    let is_payload = |word: &&str| PAYLOADS.iter().any(|payload| payload.name == *word);
    if let Some(word) = words
        .iter()
        .find(|word| !is_kernel(word) && !is_payload(word))
    {
        let kernels: Vec<_> = KERNELS.iter().map(|kernel| kernel.name).collect();
        let payloads: Vec<_> = PAYLOADS.iter().map(|p| format!("\"{}\"", p.name)).collect();
        let (kernels, payloads) = (kernels.join(", "), payloads.join(", "));
        eprintln!("vm: no \"{word}\": kernels are {kernels}; payloads are {payloads}");
        return ExitCode::from(2);
    }
    let named: Vec<&str> = words.iter().copied().filter(is_kernel).collect();
    let kernels = KERNELS
        .iter()
        .filter(|kernel| named.is_empty() || named.contains(&kernel.name));
    let payloads: Vec<&str> = words.iter().copied().filter(is_payload).collect();
    let mut all = Vec::new();
    tests(
        &kernels.collect::<Vec<_>>(),
        &programs::chosen(&payloads),
        &mut |test| {
            all.push(test);
        },
    );
    let failed = all
        .iter()
        .filter(|test| matches!(test.outcome, Outcome::Failed(_)));
    let passed = all.iter().filter(|test| test.outcome == Outcome::Passed);
    match (passed.count(), failed.count()) {
        // Whoever asks for it wants to know that nothing was tested.
        (0, 0) => run::fail("vm: nothing was tested"),
        (_, 0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// All of it, for the runner of all tests.
pub(crate) fn all(see: &mut dyn FnMut(Test)) {
    tests(
        &KERNELS.iter().collect::<Vec<_>>(),
        &programs::chosen(&[]),
        see,
    );
}

/// Runs the payloads on the kernels; hands over each test, its name beginning with `vm KERNEL`.
fn tests(kernels: &[&Kernel], payloads: &[&'static Payload], see: &mut dyn FnMut(Test)) {
    let mut table = Table::default();
    let mut see = |kernel: &Kernel, payload: &str, mut test: Test| {
        table.note(kernel.name, payload, &test.outcome);
        let what = [payload, test.name.as_str()]
            .into_iter()
            .filter(|part| !part.is_empty());
        let what = what.collect::<Vec<_>>().join(": ");
        test.name = match what.as_str() {
            "" => format!("vm {}", kernel.name),
            what => format!("vm {}: {what}", kernel.name),
        };
        println!("{test}");
        see(test);
    };
    let skip = |why: String| Test::new("", Outcome::Skipped(why));
    let fail = |why: String| Test::new("", Outcome::Failed(why));

    let directory = run::target().join("vm");
    let mut packed: Option<Result<Packed, String>> = None;
    for kernel in kernels {
        let image = match machine::available().and_then(|()| kernel.image()) {
            Ok(image) => image,
            Err(why) => {
                see(kernel, "", skip(why));
                continue;
            }
        };
        // Only now that it is needed, and once.
        let packed = packed.get_or_insert_with(|| {
            fs::create_dir_all(&directory)
                .map_err(|error| format!("{}: {error}", directory.display()))?;
            programs::pack(payloads, &directory)
        });
        match packed {
            Ok(packed) => one(kernel, &image, packed, &directory, &mut |payload, test| {
                see(kernel, payload, test);
            }),
            Err(why) => see(kernel, "", fail(why.clone())),
        }
    }
    table.print();
}

/// Boots one kernel and judges all payloads.
fn one(
    kernel: &Kernel,
    image: &Path,
    packed: &Packed,
    directory: &Path,
    see: &mut dyn FnMut(&str, Test),
) {
    let directory = directory.join(kernel.name);
    let failed = |why: String| Test::new("", Outcome::Failed(why));
    let transcript =
        fs::create_dir_all(&directory).and_then(|()| File::create(directory.join(REPORT)));
    let mut transcript = match transcript {
        Ok(transcript) => transcript,
        Err(error) => return see("", failed(format!("{}: {error}", directory.display()))),
    };

    let begin = Instant::now();
    let mut guest = Guest::default();
    let booted = machine::boot(kernel, image, &packed.archive, &directory, &mut |line| {
        let _ = writeln!(transcript, "{:5.1} {line}", begin.elapsed().as_secs_f32());
        if let Some(ran) = guest.line(line) {
            judged(ran, kernel, packed, see);
        }
        guest.release.is_some()
    });

    // What did not come to its end, and why.
    let whole = guest.done && booted.is_ok();
    if let Some(ran) = guest.ran.last().filter(|ran| ran.ended.is_none()) {
        judged(ran, kernel, packed, see);
    }
    for payload in &packed.payloads {
        if !guest.ran.iter().any(|ran| ran.payload == payload.name) {
            see(
                payload.name,
                failed("the machine ended before its turn".to_string()),
            );
        }
    }
    let seconds = begin.elapsed().as_secs();
    let release = guest.release.as_deref();
    if !whole {
        let why = booted
            .err()
            .unwrap_or_else(|| "switched off before it was done".to_string());
        let console = machine::console(&directory);
        let panic = console.iter().find(|line| line.contains("Kernel panic"));
        let panic = panic.map(|line| format!(": {line}")).unwrap_or_default();
        see("", failed(format!("{}: {why}{panic}", image.display())));
        show(&console, TAIL);
        println!(
            "    (all of it: {})",
            directory.join(machine::CONSOLE).display()
        );
    }
    let release = release.unwrap_or("that did not start");
    let report = directory.join(REPORT);
    println!(
        "vm {}: Linux {release}, {seconds} s ({})",
        kernel.name,
        report.display()
    );
}

/// The end of what was printed.
fn show(lines: &[String], most: usize) {
    for line in &lines[lines.len().saturating_sub(most)..] {
        println!("    {}", line.chars().take(WIDTH).collect::<String>());
    }
}

/// Judges a payload; shows what it said if it failed.
fn judged(ran: &Ran, kernel: &Kernel, packed: &Packed, see: &mut dyn FnMut(&str, Test)) {
    let Some(payload) = packed.payload(&ran.payload) else {
        return;
    };
    let tests = (payload.judge)(ran, kernel);
    let failed = tests
        .iter()
        .any(|test| matches!(test.outcome, Outcome::Failed(_)));
    for test in tests {
        see(payload.name, test);
    }
    if failed {
        // What a test program says of those that failed comes last, and may be long.
        let failures = ran.out.iter().position(|line| line == "failures:");
        match failures {
            Some(begin) => show(&ran.out[begin..], FAILURES),
            None => show(&ran.out, TAIL),
        }
        show(&ran.err, TAIL);
    }
}

/// How many tests of each payload ended how, on each kernel.
#[derive(Debug, Default)]
struct Table {
    cells: Vec<(String, String, [usize; 3])>,
}

impl Table {
    fn note(&mut self, kernel: &str, payload: &str, outcome: &Outcome) {
        let same = |(k, p, _): &&mut (String, String, _)| k == kernel && p == payload;
        let which = match outcome {
            Outcome::Passed => 0,
            Outcome::Failed(_) => 1,
            Outcome::Skipped(_) => 2,
        };
        match self.cells.iter_mut().find(same) {
            Some((_, _, counts)) => counts[which] += 1,
            None => {
                let mut counts = [0; 3];
                counts[which] = 1;
                self.cells
                    .push((kernel.to_string(), payload.to_string(), counts));
            }
        }
    }

    /// Payloads downwards, kernels across.
    fn text(&self) -> String {
        let mut kernels: Vec<&str> = Vec::new();
        let mut payloads: Vec<&str> = Vec::new();
        for (kernel, payload, _) in &self.cells {
            if !kernels.contains(&kernel.as_str()) {
                kernels.push(kernel);
            }
            if !payloads.contains(&payload.as_str()) {
                payloads.push(payload);
            }
        }
        let row = |first: &str, cells: &mut dyn Iterator<Item = String>| {
            let cells = cells.map(|cell| format!("{cell:<24}")).collect::<String>();
            format!("{}\n", format!("{first:<24}{cells}").trim_end())
        };
        let mut text = row(
            "",
            &mut kernels.iter().map(|kernel| format!("Linux {kernel}")),
        );
        for payload in payloads {
            let name = if payload.is_empty() {
                "(the machine)"
            } else {
                payload
            };
            text += &row(
                name,
                &mut kernels.iter().map(|kernel| self.cell(kernel, payload)),
            );
        }
        text
    }

    fn cell(&self, kernel: &str, payload: &str) -> String {
        let cell = self
            .cells
            .iter()
            .find(|(k, p, _)| k == kernel && p == payload);
        let counts = cell.map_or([0; 3], |(_, _, counts)| *counts);
        let words = counts.iter().zip(["ok", "FAILED", "skipped"]);
        let words = words.filter(|(count, _)| **count > 0);
        let words: Vec<_> = words
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        if words.is_empty() {
            "-".to_string()
        } else {
            words.join(", ")
        }
    }

    fn print(&self) {
        println!("\n{}", self.text());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_every_kernel_and_payload() {
        let mut table = Table::default();
        let failed = || Outcome::Failed(String::new());
        let skipped = || Outcome::Skipped(String::new());
        for (kernel, payload, outcome) in [
            ("6.12", "walk", Outcome::Passed),
            ("6.12", "walk", skipped()),
            ("6.12", "walk", Outcome::Passed),
            ("7.2", "", skipped()),
            ("6.12", "record", failed()),
        ] {
            table.note(kernel, payload, &outcome);
        }
        let text = "                        Linux 6.12              Linux 7.2\n\
                    walk                    2 ok, 1 skipped         -\n\
                    (the machine)           -                       1 skipped\n\
                    record                  1 FAILED                -\n";
        assert_eq!(table.text(), text);
    }

    #[test]
    fn unknown_words_are_refused() {
        assert_eq!(run(&["6.12", "5.4"]), ExitCode::from(2));
    }

    #[test]
    fn the_guests_side_is_for_guests() {
        assert_eq!(guest(), ExitCode::FAILURE);
    }
}
