//! Every boundary of a share of the programs, and a program whose unwind data is wrong.
#![cfg(target_arch = "x86_64")]

use framewalk_oracle::amd64::{Begin, Stepped};
use framewalk_oracle::ends::ends;
use framewalk_oracle::judge::{Judge, Verdict, Wrong};
use framewalk_oracle::programs::{PROGRAMS, Program, build};
use std::path::{Path, PathBuf};
use std::process::Command;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs")
}

fn judged(command: &mut Command, program: Option<&Program>, limit: u64) -> Judge {
    let begin = program.map_or(Begin::Exec, |program| program.begin);
    let mut machine = Stepped::start(command, begin).unwrap();
    let mut judge = Judge::of(program.map_or(&[], |program| program.phases));
    judge.run(&mut machine, limit).unwrap();
    judge
}

/// Boundaries of a program that does not say how soon it is where it should be.
const BOUNDARIES: u64 = 4_000;

#[test]
fn no_walk_is_wrong() {
    let mut ran = 0;
    for program in PROGRAMS {
        let mut command = match program.prepare(&directory()) {
            Ok(command) => command,
            Err(why) => {
                println!("SKIPPED no_walk_is_wrong {}: {why}", program.name);
                continue;
            }
        };
        let limit = program.soon.unwrap_or(BOUNDARIES);
        let judge = judged(&mut command, Some(program), limit);
        ran += 1;
        let counts = &judge.counts;
        assert!(counts.all > 1000, "{}: {}", program.name, counts.all);
        for end in ends(&judge) {
            assert!(end.gap.is_some(), "{}: {end}", program.name);
        }
        if program.soon.is_some() {
            let missing = judge.phases.missing();
            assert_eq!(missing, [], "{}", program.name);
        }
    }
    assert!(ran > 0);
}

/// The oracle can fail: it does at the one instruction, and there alone.
#[test]
fn wrong_unwind_data_is_found() {
    let program = match build("wrong.S", &directory()) {
        Ok(program) => program,
        Err(why) => return println!("SKIPPED wrong_unwind_data_is_found: {why}"),
    };
    let counts = judged(&mut Command::new(program), None, 100).counts;
    // lea, call, push, pop, ret, mov, xor, syscall: each has a boundary before it.
    assert_eq!((counts.all, counts.right), (8, 7), "{:#x?}", counts.others);
    let others: Vec<_> = counts.others.into_iter().collect();
    let [(other, 1)] = &others[..] else {
        panic!("{others:#x?}")
    };
    assert_eq!(other.verdict, Verdict::Wrong(Wrong::Pc), "{other:#x?}");
    // The byte after the push, by `f`'s place in the file: lea (7), call (5), mov (5), xor (2), syscall (2), push.
    assert_eq!(other.offset & 0xfff, 7 + 5 + 5 + 2 + 2 + 1, "{other:#x?}");
}
