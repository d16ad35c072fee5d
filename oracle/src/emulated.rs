//! Programs for machines with a link register, stepped in QEMU's user mode: the walk from each boundary against the
//! calls that were seen.

use crate::gdb::{MAX_READ, Stopped, Stub};
use crate::link::{AARCH64_BE_LINK, AARCH64_LINK, Link, S390X_LINK};
use crate::shadow::{Did, Shadow};
use framewalk_sframe::convert::{self, EhFrame};
use framewalk_sframe::{Builder, CallerRule, Rule, Section, Unwind};
use framewalk_walk::arch::{Arch, FULL};
use framewalk_walk::{Code, Found, Origin, Registers, Says, Start, Stop, walk};
use object::{Architecture, Object, ObjectSection};
use std::collections::BTreeMap;
use std::error::Error;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, iter, thread};

/// The most callers that the programs have at a time, and more.
const MAX_FRAMES: usize = 200;
/// The reason for an end behind the outermost frame, at which no row said that it is.
pub const UNMARKED: &str = "outermost-not-marked";
/// How long the emulator may take to begin, and to answer.
const CONNECTING: Duration = Duration::from_secs(60);

/// Which unwind data walks go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// `.eh_frame`, converted.
    Converted,
    /// The program's own `.sframe`.
    File,
}

/// What of a program's file is needed to step and to walk it.
#[derive(Debug)]
pub struct Image {
    link: &'static Link,
    table: (u64, Vec<u8>),
    text: (u64, Vec<u8>),
}

impl Image {
    /// Of a static program that is not relocated; none if it has no such unwind data.
    pub fn read(path: &Path, data: Data) -> Result<Option<Image>, Box<dyn Error>> {
        let bytes = fs::read(path)?;
        let file = object::File::parse(&*bytes)?;
        let link = match (file.architecture(), file.is_little_endian()) {
            (Architecture::Aarch64, true) => &AARCH64_LINK,
            (Architecture::Aarch64, false) => &AARCH64_BE_LINK,
            (Architecture::S390x, false) => &S390X_LINK,
            _ => return Err("a machine without a link register".into()),
        };
        let section = |name| match file.section_by_name(name) {
            Some(section) => section.data().map(|data| Some((section.address(), data))),
            None => Ok(None),
        };
        let Some((start, text)) = section(".text")? else {
            return Err("no .text".into());
        };
        let table = match data {
            Data::File => section(".sframe")?.map(|(at, bytes)| (at, bytes.to_vec())),
            Data::Converted => match section(".eh_frame")? {
                None => None,
                Some((at, bytes)) => {
                    let conversion = convert::eh_frame(EhFrame::new(bytes, at, link.sframe));
                    let mut builder = Builder::new(link.sframe);
                    builder.extend(conversion.functions);
                    Some((at, builder.finish(at)?))
                }
            },
        };
        Ok(table.map(|table| Image {
            link,
            table,
            text: (start, text.to_vec()),
        }))
    }

    /// The machine.
    pub fn link(&self) -> &'static Link {
        self.link
    }

    /// The table of rows.
    pub fn section(&self) -> Result<Section<'_>, framewalk_sframe::Error> {
        Section::parse(&self.table.1, self.table.0)
    }
}

/// The program's own unwind data and instructions.
#[derive(Debug)]
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

/// Ends the emulator with the run.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An emulator that waits before the first instruction.
fn emulate(link: &Link, program: &Path, arguments: usize) -> io::Result<(Emulator, Stub)> {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new(link.emulator);
    command.args(["-cpu", "max", "-g", &port.to_string()]);
    command.arg(program).args(iter::repeat_n("x", arguments));
    let emulator = Emulator(command.stdin(Stdio::null()).spawn()?);
    let deadline = Instant::now() + CONNECTING;
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(CONNECTING))?;
                let mut stub = Stub::new(stream)?;
                stub.describe()?;
                return Ok((emulator, stub));
            }
            Err(e) if Instant::now() > deadline => return Err(e),
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// What the walks from the boundaries of one program are worth, and what they went through.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// Boundaries.
    pub boundaries: u64,
    /// Every frame, and then it said that there is no more.
    pub right: u64,
    /// Right so far, but ended before the outermost frame.
    pub early: BTreeMap<&'static str, u64>,
    /// A frame that is not there, or an end before the end.
    pub wrong: u64,
    /// The return address is in the link register and nothing of the frame on the stack.
    pub empty: u64,
    /// The return address is in a register.
    pub in_register: u64,
    /// The return address is signed.
    pub signed: u64,
    /// The caller's frame pointer is in another register.
    pub fp_in_register: u64,
    /// The first of the wrong ones, in words.
    pub told: Vec<String>,
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
    let general = words.get(link.first..).and_then(|w| w.get(..link.general));
    let (Some(&pc), Some(general)) = (words.get(link.pc), general) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut full = [0; FULL];
    full[..link.general].copy_from_slice(general);
    if let Some(rule) = rule(program, pc)
        && [rule.ra, rule.fp]
            .iter()
            .any(|rule| matches!(rule, Rule::Value(..)))
    {
        for (to, &number) in full[link.general..].iter_mut().zip(link.others) {
            let bytes = stub.register(number)?;
            *to = word(link, &bytes).ok_or(io::ErrorKind::InvalidData)?;
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

/// Steps a program of this image, with so many arguments, until it ends or for `limit` boundaries.
pub fn run(
    image: &Image,
    path: &Path,
    arguments: usize,
    limit: u64,
) -> Result<Verdicts, Box<dyn Error>> {
    let program = &Program {
        link: image.link,
        table: image.section()?,
        text: (image.text.0, &image.text.1),
    };
    let (_emulator, mut stub) = emulate(image.link, path, arguments)?;
    let mut verdicts = Verdicts::default();
    let mut at = registers(program, &mut stub)?;
    let mut shadow = Shadow::new(at.sp, 0);
    while verdicts.boundaries < limit {
        judge(program, &mut stub, &shadow, &at, &mut verdicts)?;
        let did = program.did(at.pc);
        match stub.step()? {
            Stopped::Signal(5) => {}
            Stopped::Signal(other) => {
                return Err(format!("signal {other} at {:#x}", at.pc).into());
            }
            Stopped::Exited(0) => break,
            Stopped::Exited(status) => return Err(format!("status {status}").into()),
        }
        at = registers(program, &mut stub)?;
        shadow.step(did, at.pc, at.sp);
    }
    Ok(verdicts)
}

fn judge(
    program: &Program<'_>,
    stub: &mut Stub,
    shadow: &Shadow,
    at: &Registers,
    verdicts: &mut Verdicts,
) -> io::Result<()> {
    let link = program.link;
    // Memory does not change between two instructions.
    let mut blocks: BTreeMap<u64, Option<Vec<u8>>> = BTreeMap::new();
    let mut broken = None;
    let mut memory = |address: u64| {
        let start = address - address % MAX_READ as u64;
        let block = blocks.entry(start).or_insert_with(|| {
            let block = stub.memory(start, MAX_READ);
            block.unwrap_or_else(|error| {
                broken = Some(error);
                None
            })
        });
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
    if let Some(error) = broken {
        return Err(error);
    }
    let truth: Vec<_> = shadow.truth(at.pc, at.sp).map(|e| (e.pc, e.sp)).collect();
    verdicts.boundaries += 1;
    if let Some(rule) = rule(program, at.pc) {
        verdicts.signed += u64::from(rule.ra_signed);
        verdicts.in_register += u64::from(matches!(rule.ra, Rule::Same | Rule::Value(..)));
        verdicts.fp_in_register += u64::from(matches!(rule.fp, Rule::Value(..)));
        let caller = truth.get(1).map(|caller| caller.1);
        verdicts.empty += u64::from(caller == Some(at.sp) && rule.ra == Rule::Same);
    }
    if found == truth && stop == Stop::Outermost {
        verdicts.right += 1;
    } else if truth.starts_with(&found) && stop != Stop::Outermost {
        let reason = match found.len() == truth.len() {
            true => UNMARKED,
            false => stop.name(),
        };
        *verdicts.early.entry(reason).or_default() += 1;
    } else {
        verdicts.wrong += 1;
        if verdicts.told.len() < 3 {
            verdicts.told.push(format!(
                "at {:#x}: {found:x?}, {stop:?}; true is {truth:x?}",
                at.pc
            ));
        }
    }
    Ok(())
}
