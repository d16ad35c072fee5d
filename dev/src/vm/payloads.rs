//! What is run in each guest: one table for the host, which packs it and judges it, and for the
//! guest, which runs what was packed.

use super::judge;
use super::kernels::Kernel;
use super::report::Ran;
use crate::test::Test;

#[derive(Debug)]
pub(super) struct Payload {
    pub(super) name: &'static str,
    pub(super) program: Program,
    /// Its arguments, after those that its kind brings with it.
    pub(super) arguments: &'static [&'static str],
    /// Programs of dev/targets that it needs: NAME.c is in the guest as [`target`] says.
    pub(super) targets: &'static [&'static str],
    /// It is killed after so many seconds. Emulation is slow, and slower still where others work, too.
    pub(super) seconds: u64,
    /// The tests that it was.
    pub(super) judge: fn(&Ran, &Kernel) -> Vec<Test>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// A test executable of cargo's: package, name of the file in its folder `tests`.
    Test(&'static str, &'static str),
    /// An example of cargo's: package and name. What it prints is for people.
    Example(&'static str, &'static str),
    /// `framewalk record`; its profile and its statistics are sent to the host.
    Record,
}

pub(super) const PAYLOADS: &[Payload] = &[
    Payload {
        name: "walk",
        program: Program::Test("framewalk-kernel", "walk"),
        arguments: &[],
        targets: &[],
        seconds: 300,
        judge: judge::libtest,
    },
    Payload {
        name: "area",
        program: Program::Test("framewalk-kernel", "area"),
        // A quarter of a million questions, which no kernel answers otherwise than the host's.
        arguments: &["--skip", "every_word_with_every_value"],
        targets: &[],
        seconds: 300,
        judge: judge::libtest,
    },
    // Left out as long as there is no such file.
    Payload {
        name: "announce",
        program: Program::Test("framewalk-kernel", "announce"),
        arguments: &[],
        targets: &[],
        seconds: 600,
        judge: judge::libtest,
    },
    Payload {
        name: "announce cost",
        program: Program::Example("framewalk-kernel", "announce_cost"),
        arguments: &[],
        targets: &[],
        seconds: 300,
        judge: judge::table,
    },
    Payload {
        name: "record immediate",
        program: Program::Record,
        arguments: &[
            "--mode",
            "immediate",
            "--",
            "/targets/depth",
            judge::FRAMES,
            "2000",
            "0",
        ],
        targets: &["depth"],
        seconds: 120,
        judge: judge::immediate,
    },
    Payload {
        name: "record deferred",
        program: Program::Record,
        arguments: &[
            "--mode",
            "deferred",
            "--",
            "/targets/depth",
            judge::FRAMES,
            "2000",
            "0",
        ],
        targets: &["depth"],
        seconds: 120,
        judge: judge::deferred,
    },
    Payload {
        name: "record absent pages",
        program: Program::Record,
        arguments: &["--mode", "auto", "--", "/targets/absent", "3000"],
        targets: &["absent"],
        seconds: 120,
        judge: judge::absent,
    },
];

/// Where `framewalk record` writes in the guest.
pub(super) const FOLDED: &str = "/tmp/stacks.folded";
pub(super) const STATS: &str = "/tmp/stats.json";

/// Tests one after the other: they measure, and the guest has two slow processors.
const TEST: &[&str] = &["--test-threads=1", "--show-output"];
const RECORD: &[&str] = &[
    "record", "--engine", "kernel", "-F", "499", "-o", FOLDED, "--stats", STATS,
];

impl Payload {
    /// The program's place in the guest.
    pub(super) fn place(&self) -> String {
        match self.program {
            Program::Test(package, name) | Program::Example(package, name) => {
                format!("/programs/{package}-{name}")
            }
            Program::Record => "/programs/framewalk".to_string(),
        }
    }

    /// All its arguments.
    pub(super) fn words(&self) -> impl Iterator<Item = &'static str> {
        let kind = match self.program {
            Program::Test(..) => TEST,
            Program::Example(..) => &[],
            Program::Record => RECORD,
        };
        kind.iter().chain(self.arguments).copied()
    }

    /// What it writes and the host wants to see.
    pub(super) fn files(&self) -> &'static [&'static str] {
        match self.program {
            Program::Test(..) | Program::Example(..) => &[],
            Program::Record => &[FOLDED, STATS],
        }
    }
}

/// The place of a target program in the guest.
pub(super) fn target(name: &str) -> String {
    format!("/targets/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_payload_has_what_it_starts() {
        let sources = crate::run::top().join("dev/targets");
        for payload in PAYLOADS {
            for name in payload.targets {
                assert!(sources.join(format!("{name}.c")).exists(), "{name}");
            }
            for word in payload.words().filter(|word| word.starts_with("/targets/")) {
                assert!(
                    payload.targets.iter().any(|name| target(name) == word),
                    "{word}"
                );
            }
            let same = PAYLOADS.iter().filter(|other| other.name == payload.name);
            assert_eq!(same.count(), 1, "{}", payload.name);
        }
    }
}
