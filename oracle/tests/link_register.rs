//! Every instruction of programs for AArch64 and s390x, stepped in QEMU's user mode: the walk from each boundary
//! against the calls that were seen.
//!
//! `FRAMEWALK_STEP_FIXTURES` names another folder of such programs: with more rounds (fixtures/build.sh) it takes longer.

use framewalk_oracle::gdb::{MAX_READ, Stopped, Stub};
use framewalk_oracle::link::{AARCH64_LINK, Link, S390X_LINK};
use framewalk_oracle::shadow::{Did, Shadow};
use framewalk_sframe::convert::{self, EhFrame};
use framewalk_sframe::{Builder, CallerRule, Rule, Section, Unwind};
use framewalk_walk::arch::{Arch, FULL};
use framewalk_walk::{Code, Found, Origin, Registers, Says, Start, Stop, walk};
use object::{Object, ObjectSection};
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

/// Boundaries of one program, at most.
const MAX_STEPS: usize = 50_000_000;
/// The most callers that the programs have at a time, and more.
const MAX_FRAMES: usize = 200;

/// The program's own unwind data and instructions.
struct Program<'a> {
    link: &'static Link,
    table: Section<'a>,
    text: (u64, &'a [u8]),
}

impl Code for &Program<'_> {
    type Place = ();

    fn arch(&self) -> &'static Arch {
        self.link.arch
    }

    fn find(&mut self, pc: u64) -> Found<()> {
        let says = match self.table.lookup(pc) {
            Ok(Some(found)) => Says::Row {
                unwind: found.row.unwind,
                signal: found.function.signal,
                origin: Origin::Converted,
            },
            Ok(None) => Says::Stop(Stop::NoRow),
            Err(_) => Says::Stop(Stop::BadRow),
        };
        Found { place: (), says }
    }
}

impl Program<'_> {
    fn did(&self, pc: u64) -> Did {
        let mut bytes = [0; 6];
        let at = pc.wrapping_sub(self.text.0) as usize;
        for (to, from) in bytes.iter_mut().zip(self.text.1.get(at..).unwrap_or(&[])) {
            *to = *from;
        }
        (self.link.decode)(bytes, pc)
    }
}

/// Ends the emulator with the test.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An emulator that waits before the first instruction.
fn emulate(link: &Link, program: &Path) -> (Emulator, Stub) {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let port = port.unwrap().port();
    let mut command = Command::new(link.emulator);
    command.args(["-cpu", "max", "-g", &port.to_string()]);
    let child = command.arg(program).stdin(Stdio::null()).spawn().unwrap();
    let emulator = Emulator(child);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => {
                stream
                    .set_read_timeout(Some(Duration::from_secs(60)))
                    .unwrap();
                let mut stub = Stub::new(stream).unwrap();
                stub.describe().unwrap();
                return (emulator, stub);
            }
            Err(e) if Instant::now() > deadline => panic!("{}: {e}", link.emulator),
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

#[derive(Debug, Default)]
struct Verdicts {
    boundaries: u64,
    right: u64,
    /// Right so far, but ended before the outermost frame.
    early: BTreeMap<&'static str, u64>,
    wrong: u64,
    /// Boundaries at which the return address is in a register and nothing of the frame on the stack.
    empty: u64,
    in_register: u64,
    signed: u64,
    told: Vec<String>,
}

fn word(link: &Link, bytes: &[u8]) -> Option<u64> {
    let bytes = bytes.get(..8)?.try_into().ok()?;
    Some(match link.big_endian {
        true => u64::from_be_bytes(bytes),
        false => u64::from_le_bytes(bytes),
    })
}

/// The registers of the stopped program; those that take a request each only where a rule wants them.
fn registers(program: &Program<'_>, stub: &mut Stub) -> io::Result<Registers> {
    let link = program.link;
    let bytes = stub.registers()?;
    let words: Vec<u64> = bytes
        .chunks_exact(8)
        .filter_map(|w| word(link, w))
        .collect();
    let pc = words[link.pc];
    let mut full = [0; FULL];
    full[..link.general].copy_from_slice(&words[link.first..][..link.general]);
    if let Some(rule) = rule(program, pc)
        && [rule.ra, rule.fp]
            .iter()
            .any(|rule| matches!(rule, Rule::Value(..)))
    {
        for (to, &number) in full[link.general..].iter_mut().zip(link.others) {
            *to = word(link, &stub.register(number)?).unwrap();
        }
    }
    Ok(Registers {
        pc,
        sp: full[usize::from(link.arch.sp.0)],
        fp: full[usize::from(link.arch.fp.0)],
        full: Some(full),
    })
}

fn rule(program: &Program<'_>, pc: u64) -> Option<CallerRule> {
    match program.table.lookup(pc) {
        Ok(Some(found)) => match found.row.unwind {
            Unwind::Caller(rule) => Some(rule),
            Unwind::Outermost => None,
        },
        _ => None,
    }
}

fn run(program: &Program<'_>, path: &Path) -> Verdicts {
    let link = program.link;
    let (_emulator, mut stub) = emulate(link, path);
    let mut verdicts = Verdicts::default();
    let mut at = registers(program, &mut stub).unwrap();
    let mut shadow = Shadow::new(at.sp, 0);
    for _ in 0..MAX_STEPS {
        judge(program, &mut stub, &shadow, &at, &mut verdicts);
        let did = program.did(at.pc);
        match stub.step().unwrap() {
            Stopped::Signal(5) => {}
            Stopped::Signal(other) => panic!("{}: signal {other} at {:#x}", path.display(), at.pc),
            Stopped::Exited(status) => {
                assert_eq!(status, 0, "{}", path.display());
                return verdicts;
            }
        }
        at = registers(program, &mut stub).unwrap();
        shadow.step(did, at.pc, at.sp);
    }
    panic!("{} does not end", path.display());
}

fn judge(
    program: &Program<'_>,
    stub: &mut Stub,
    shadow: &Shadow,
    at: &Registers,
    verdicts: &mut Verdicts,
) {
    let link = program.link;
    // Memory does not change between two instructions.
    let mut blocks: BTreeMap<u64, Option<Vec<u8>>> = BTreeMap::new();
    let mut memory = |address: u64| {
        let start = address - address % MAX_READ as u64;
        let block = blocks
            .entry(start)
            .or_insert_with(|| stub.memory(start, MAX_READ).unwrap());
        word(link, block.as_ref()?.get((address - start) as usize..)?)
    };
    let (mut found, mut code) = (Vec::new(), program);
    let stop = walk(
        Start::topmost(*at),
        MAX_FRAMES,
        &mut memory,
        &mut code,
        |frame| {
            found.push((frame.pc, frame.sp));
        },
    );
    let truth: Vec<_> = shadow.truth(at.pc, at.sp).map(|e| (e.pc, e.sp)).collect();
    verdicts.boundaries += 1;
    if let Some(rule) = rule(program, at.pc) {
        verdicts.signed += u64::from(rule.ra_signed);
        verdicts.in_register += u64::from(matches!(rule.ra, Rule::Same | Rule::Value(..)));
        let caller = truth.get(1).map(|caller| caller.1);
        verdicts.empty += u64::from(caller == Some(at.sp) && rule.ra == Rule::Same);
    }
    if found == truth && stop == Stop::Outermost {
        verdicts.right += 1;
    } else if truth.starts_with(&found) && stop != Stop::Outermost {
        *verdicts.early.entry(stop.name()).or_default() += 1;
    } else {
        verdicts.wrong += 1;
        if verdicts.told.len() < 3 {
            verdicts.told.push(format!(
                "at {:#x}: {found:x?}, {stop:?}; true is {truth:x?}",
                at.pc
            ));
        }
    }
}

fn step_all(test: &str, machine: &str, link: &'static Link) {
    if Command::new(link.emulator)
        .arg("--version")
        .output()
        .is_err()
    {
        println!("SKIPPED {test}: no {} (package qemu-user)", link.emulator);
        return;
    }
    let folder = env::var_os("FRAMEWALK_STEP_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures"),
        PathBuf::from,
    );
    let mut programs: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    programs.retain(|path| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with(machine)
    });
    programs.sort();
    assert!(!programs.is_empty(), "no programs in {}", folder.display());
    let mut bad = Vec::new();
    for path in programs {
        let data = fs::read(&path).unwrap();
        let file = object::File::parse(&*data).unwrap();
        let section = |name| {
            let section = file.section_by_name(name).unwrap();
            (section.address(), section.data().unwrap())
        };
        let (address, eh_frame) = section(".eh_frame");
        let arch = match link.big_endian {
            true => framewalk_sframe::Arch::S390x,
            false => framewalk_sframe::Arch::Aarch64,
        };
        let converted = convert::eh_frame(EhFrame::new(eh_frame, address, arch));
        let mut builder = Builder::new(arch);
        builder.extend(converted.functions);
        let table = builder.finish(address).unwrap();
        let program = Program {
            link,
            table: Section::parse(&table, address).unwrap(),
            text: section(".text"),
        };
        let verdicts = run(&program, &path);
        println!("{}: {verdicts:?}", path.file_name().unwrap().display());
        assert_eq!(
            verdicts.boundaries,
            verdicts.right + verdicts.wrong + verdicts.early.values().sum::<u64>()
        );
        if verdicts.right != verdicts.boundaries {
            bad.push(path);
        }
    }
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn aarch64_at_every_instruction() {
    step_all("aarch64_at_every_instruction", "aarch64-", &AARCH64_LINK);
}

#[test]
fn s390x_at_every_instruction() {
    step_all("s390x_at_every_instruction", "s390x-", &S390X_LINK);
}
