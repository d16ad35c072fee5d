//! `framewalk-oracle-machines [--boundaries N] [--markdown] [aarch64|aarch64be|s390x]...`: the programs of `fixtures`, each
//! by all unwind data that it has, in one table. N is for each machine; it fails where a walk is wrong.

use framewalk_oracle::emulated::{Data, Image, Verdicts, run};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Boundaries of each machine, unless another number is asked for.
const BOUNDARIES: u64 = 1_000_000;
/// What an argument adds to the boundaries of a program at least.
const PER_ARGUMENT: u64 = 2_000;
const MACHINES: [&str; 3] = ["aarch64", "aarch64be", "s390x"];
const COLUMNS: [&str; 9] = [
    "boundaries",
    "right",
    "early",
    "wrong",
    "nothing on stack",
    "RA in register",
    "RA signed",
    "FP in register",
    "per s",
];

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let markdown = words.iter().any(|word| word == "--markdown");
    words.retain(|word| word != "--markdown");
    let mut boundaries = BOUNDARIES;
    if let Some(at) = words.iter().position(|word| word == "--boundaries")
        && let Some(number) = words.get(at + 1).and_then(|n| n.parse().ok())
    {
        boundaries = number;
        words.drain(at..=at + 1);
    }
    if words.iter().any(|word| !MACHINES.contains(&&**word)) {
        eprintln!(
            "usage: framewalk-oracle-machines [--boundaries N] [--markdown] [aarch64|aarch64be|s390x]..."
        );
        return ExitCode::from(2);
    }
    let names = ["program", "unwind data"].iter().chain(&COLUMNS);
    print_row(names.map(|name| (*name).to_owned()), markdown);
    if markdown {
        let rules = ["---", "---"].iter().chain(&["---:"; COLUMNS.len()]);
        print_row(rules.map(|rule| (*rule).to_owned()), markdown);
    }
    let mut told = Vec::new();
    let mut failed = false;
    for machine in MACHINES {
        if !words.is_empty() && !words.iter().any(|word| word == machine) {
            continue;
        }
        match of_machine(machine, boundaries, markdown) {
            Ok(texts) => told.extend(texts),
            Err(why) => {
                failed = true;
                told.push(format!("{machine}: {why}"));
            }
        }
    }
    println!();
    for text in &told {
        println!("{text}");
    }
    match failed || told.iter().any(|text| text.contains(": wrong")) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

/// Steps the programs of one machine; answers what there is to say below the table.
fn of_machine(
    machine: &str,
    boundaries: u64,
    markdown: bool,
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut programs: Vec<PathBuf> = Vec::new();
    for entry in folder.read_dir()? {
        programs.push(entry?.path());
    }
    programs.sort();
    let prefix = format!("{machine}-");
    let mut runs = Vec::new();
    for path in programs {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(&prefix) {
            continue;
        }
        // What has a section of its own is the same code as one that has none.
        let file = Image::read(&path, Data::File)?;
        let (data, image) = match file {
            Some(image) => (format!("V{}", image.section()?.header().version.0), image),
            None => match Image::read(&path, Data::Converted)? {
                Some(image) => ("converted".into(), image),
                None => continue,
            },
        };
        runs.push((name.into_owned(), data, image, path.clone()));
    }
    let mut told = Vec::new();
    let Some((.., first, _)) = runs.first() else {
        return Err("no programs".into());
    };
    let emulator = first.link().emulator;
    if Command::new(emulator).arg("--version").output().is_err() {
        println!("SKIPPED {machine}: no {emulator} (package qemu-user)");
        return Ok(told);
    }
    let limit = boundaries.div_ceil(runs.len() as u64);
    let arguments = (limit / PER_ARGUMENT + 1) as usize;
    let (mut sum, began) = (Verdicts::default(), Instant::now());
    for (name, data, image, path) in &runs {
        let began = Instant::now();
        let verdicts = run(image, path, arguments, limit)?;
        print_verdicts(name, data, &verdicts, began, markdown);
        told.extend(early(name, &verdicts.early));
        let wrong = verdicts.told.iter();
        told.extend(wrong.map(|text| format!("{name}, {data}: wrong {text}")));
        add(&mut sum, &verdicts);
    }
    print_verdicts(&format!("all of {machine}"), "", &sum, began, markdown);
    Ok(told)
}

fn early(name: &str, early: &BTreeMap<&'static str, u64>) -> Vec<String> {
    let text = |(reason, count): (&&str, &u64)| format!("{name}: {count} early, {reason}");
    early.iter().map(text).collect()
}

fn add(sum: &mut Verdicts, more: &Verdicts) {
    sum.boundaries += more.boundaries;
    sum.right += more.right;
    sum.wrong += more.wrong;
    sum.empty += more.empty;
    sum.in_register += more.in_register;
    sum.signed += more.signed;
    sum.fp_in_register += more.fp_in_register;
    for (reason, count) in &more.early {
        *sum.early.entry(reason).or_default() += count;
    }
}

fn print_verdicts(name: &str, data: &str, v: &Verdicts, began: Instant, markdown: bool) {
    let rate = v.boundaries as f64 / began.elapsed().as_secs_f64();
    let numbers = [
        v.boundaries,
        v.right,
        v.early.values().sum(),
        v.wrong,
        v.empty,
        v.in_register,
        v.signed,
        v.fp_in_register,
        rate as u64,
    ];
    let cells = [name.to_owned(), data.to_owned()].into_iter();
    print_row(cells.chain(numbers.map(|n| n.to_string())), markdown);
}

fn print_row(cells: impl Iterator<Item = String>, markdown: bool) {
    if markdown {
        println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
        return;
    }
    let mut line = String::new();
    for (at, cell) in cells.enumerate() {
        line += &match at {
            0 => format!("{cell:<20}"),
            1 => format!("{cell:<12}"),
            _ => format!(" {cell:>16}"),
        };
    }
    println!("{line}");
}
