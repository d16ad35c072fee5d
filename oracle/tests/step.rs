//! Every boundary of a share of the programs, and a program whose unwind data is wrong.
#![cfg(target_arch = "x86_64")]

use framewalk_oracle::amd64::{Begin, Stepped};
use framewalk_oracle::ends::ends;
use framewalk_oracle::judge::{Judge, Verdict, Wrong};
use framewalk_oracle::peers::{Peers, build_inside};
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

/// Peers look at the same boundaries, from outside and inside, and what they look at goes on as if nothing had been.
#[test]
fn peers_are_asked() {
    let program = PROGRAMS.iter().find(|p| p.name == "vdso").unwrap();
    let prepared = program.prepare(&directory());
    let (mut command, library) = match prepared.and_then(|c| Ok((c, build_inside(&directory())?))) {
        Ok(both) => both,
        Err(why) => return println!("SKIPPED peers_are_asked: {why}"),
    };
    command.env("LD_PRELOAD", library);
    let mut machine = Stepped::start(&mut command, program.begin).unwrap();
    let mut judge = Judge::of(program.phases);
    let mut peers = Peers::new(Ok(()));
    let mut n = 0;
    let result = judge.run_with(&mut machine, 4000, |machine, boundary, judge| {
        n += 1;
        match n % 37 {
            0 => peers.ask(machine, boundary, judge),
            _ => Ok(()),
        }
    });
    result.unwrap();
    assert_eq!(judge.counts.all, 4000);
    assert_eq!(judge.phases.missing(), []);
    for end in ends(&judge) {
        assert!(end.gap.is_some(), "{end}");
    }
    for (name, why) in &peers.skipped {
        println!("SKIPPED peers_are_asked {name}: {why}");
    }
    for (name, share) in &peers.shares {
        let known = share.right + share.early + share.wrong;
        assert_eq!(known, share.asked, "{name}");
        match *name {
            // The program has none.
            "frame pointers" => assert!(share.wrong + share.early > share.right, "{share:?}"),
            // Both read the program's own unwind data, vdso included.
            "glibc backtrace()" | "libgcc _Unwind_Backtrace()" if share.asked > 0 => {
                assert!(share.right * 10 > share.asked * 8, "{name}: {share:?}");
            }
            _ if share.asked == 0 => println!("SKIPPED peers_are_asked {name}: it was never asked"),
            _ => {}
        }
    }
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
