//! `oracle readelf`: our text of `.sframe` sections beside that of GNU readelf.
//!
//! readelf reads the versions of its own time only: 2.40 V1, 2.41 to 2.45 V2, later ones V2 and V3.
//! The variable `READELF` names another one than the machine's.

use super::elf;
use framewalk_sframe::Section;
use std::env;
use std::fs;
use std::process::{Command, ExitCode};

/// What comparing one file gave.
enum Outcome {
    Equal(usize),
    Different(String),
    /// There is nothing to compare with, and why.
    Incomparable(String),
}

/// Compares the sections of the files; fails where one differs or none could be compared.
pub(crate) fn run(files: &[&str]) -> ExitCode {
    let (mut equal, mut different) = (0, 0);
    for file in files {
        match compare(file) {
            Outcome::Equal(lines) => {
                equal += 1;
                println!("{file}: {lines} lines, equal");
            }
            Outcome::Different(text) => {
                different += 1;
                println!("{file}: DIFFERENT\n{text}");
            }
            Outcome::Incomparable(why) => println!("{file}: not compared: {why}"),
        }
    }
    println!(
        "{equal} equal, {different} different, {} not compared",
        files.len() - equal - different
    );
    if equal > 0 && different == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn compare(file: &str) -> Outcome {
    let data = match fs::read(file) {
        Ok(data) => data,
        Err(e) => return Outcome::Incomparable(e.to_string()),
    };
    let section = match elf::sections(&data) {
        Ok(sections) => sections.sframe,
        Err(e) => return Outcome::Incomparable(e.to_string()),
    };
    let Some(section) = section else {
        return Outcome::Incomparable("no .sframe".into());
    };
    let ours = match Section::parse(section.bytes, section.address) {
        Ok(section) => lines(&section.text().to_string()),
        Err(e) => return Outcome::Incomparable(e.to_string()),
    };
    let readelf = env::var_os("READELF").unwrap_or_else(|| "readelf".into());
    let output = match Command::new(&readelf).args(["--sframe", file]).output() {
        Ok(output) => output,
        Err(e) => return Outcome::Incomparable(format!("{}: {e}", readelf.display())),
    };
    let theirs = String::from_utf8_lossy(&output.stdout);
    if !theirs.contains("Function Index") {
        let error = String::from_utf8_lossy(&output.stderr);
        return Outcome::Incomparable(format!("readelf: {} {}", theirs.trim(), error.trim()));
    }
    let theirs: Vec<String> = lines(&theirs)
        .into_iter()
        .skip_while(|line| !line.contains("Header :"))
        .collect();
    if ours == theirs {
        return Outcome::Equal(ours.len());
    }
    let nothing = String::new();
    let longest = ours.len().max(theirs.len());
    let pairs = (0..longest).map(|i| {
        (
            ours.get(i).unwrap_or(&nothing),
            theirs.get(i).unwrap_or(&nothing),
        )
    });
    let first = pairs.filter(|(a, b)| a != b).take(5);
    Outcome::Different(
        first
            .map(|(a, b)| format!("  ours    {a}\n  readelf {b}\n"))
            .collect(),
    )
}

/// Lines without the blanks at their ends, and without empty ones at the end.
fn lines(text: &str) -> Vec<String> {
    text.trim_end()
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever version this machine's readelf is, it must not contradict us.
    #[test]
    fn readelf_of_this_machine_agrees() {
        for name in ["demo.x86_64.2.40", "demo.x86_64.2.47"] {
            let path = format!("{}/../vectors/sframe/{name}", env!("CARGO_MANIFEST_DIR"));
            match compare(&path) {
                Outcome::Equal(lines) => assert!(lines > 50),
                Outcome::Different(text) => panic!("{name}:\n{text}"),
                Outcome::Incomparable(why) => println!("skipped {name}: {why}"),
            }
        }
    }
}
