//! Whether looking if announced sections change is worth what it costs: hashing, how many sections could change
//! at all, how soon a change is seen, and what the agent that looks takes of a CPU.

use super::{Bench, heading};
use crate::oracle::elf;
use framewalk_sframe::convert::{EhFrame, eh_frame};
use framewalk_sframe::{Arch, Builder};
use object::Endianness;
use object::elf::{FileHeader64, PF_W, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use std::fs::{self, File};
use std::hash::Hasher;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::Xxh3;

const FILES: &[&str] = &[
    "/usr/bin/python3",
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
    "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
];
const PROGRAMS: &[&str] = &["/usr/bin", "/usr/lib"];
/// Each time is the best of so many.
const ROUNDS: usize = 20;
/// Bytes that are read at once, as by the agent.
const PIECE: usize = 256 << 10;
/// Sections that are rewritten.
const CHANGES: usize = 10;
/// How long the agent's CPU time is taken.
const SECONDS: u64 = 10;
/// How long to wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    hashing()?;
    writable();
    watching(bench)
}

// ---- hashing ------------------------------------------------------------------------------------

fn hashing() -> Result<(), String> {
    heading(&format!(
        "a hash of a section, read from a process as the agent does; best of {ROUNDS}, microseconds"
    ));
    println!(
        "  {:<44} {:>9} {:>9} {:>9} {:>9} {:>11}",
        "the .sframe that this file would have", "kB", "read", "XXH3", "SipHash", "ns/kB: both"
    );
    let memory =
        File::open("/proc/self/mem").map_err(|error| format!("/proc/self/mem: {error}"))?;
    let mut piece = vec![0; PIECE];
    for path in FILES {
        let Some(section) = section_of(path) else {
            continue;
        };
        let at = section.as_ptr() as u64;
        let mut read = |each: &mut dyn FnMut(&[u8])| {
            for start in (0..section.len()).step_by(PIECE) {
                let piece = &mut piece[..(section.len() - start).min(PIECE)];
                // SANITY: it is this program's own memory, and stays.
                memory
                    .read_exact_at(piece, at + start as u64)
                    .expect("own memory");
                each(piece);
            }
        };
        let only = best(|| read(&mut |_| {}));
        let xxh3 = best(|| {
            let mut hash = Xxh3::new();
            read(&mut |piece| hash.update(piece));
            std::hint::black_box(hash.digest());
        });
        let sip = best(|| {
            let mut hash = std::hash::DefaultHasher::new();
            read(&mut |piece| hash.write(piece));
            std::hint::black_box(hash.finish());
        });
        let micro = |time: Duration| time.as_secs_f64() * 1e6;
        let kilobytes = section.len() as f64 / 1000.0;
        println!(
            "  {path:<44} {kilobytes:>9.0} {:>9.1} {:>9.1} {:>9.1} {:>11.1}",
            micro(only),
            micro(xxh3.saturating_sub(only)),
            micro(sip.saturating_sub(only)),
            micro(xxh3) * 1000.0 / kilobytes
        );
    }
    Ok(())
}

fn best(mut work: impl FnMut()) -> Duration {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    let times = (0..ROUNDS).map(|_| {
        let begin = now();
        work();
        now().saturating_sub(begin)
    });
    times.min().unwrap_or_default()
}

/// The section that a linker could have put into this file: its `.eh_frame`, converted.
fn section_of(path: &str) -> Option<Vec<u8>> {
    let data = fs::read(path).ok()?;
    let section = elf::sections(&data).ok()?.eh_frame?;
    let input = EhFrame::new(section.bytes, section.address, Arch::Amd64);
    let mut builder = Builder::new(Arch::Amd64);
    builder.extend(eh_frame(input).functions);
    builder.finish(section.address).ok()
}

// ---- what can be written ------------------------------------------------------------------------

/// Where linkers put unwind data: `.sframe` lies beside `.eh_frame`, in the same segment.
fn writable() {
    let (mut files, mut with_sframe, mut writable) = (0, 0, Vec::new());
    for path in elf::files(PROGRAMS) {
        if !matches!(elf::linked_for(&path), Ok(Some(Arch::Amd64))) {
            continue;
        }
        let Ok(data) = fs::read(&path) else { continue };
        let Ok(sections) = elf::sections(&data) else {
            continue;
        };
        with_sframe += usize::from(sections.sframe.is_some());
        let Some(section) = sections.sframe.or(sections.eh_frame) else {
            continue;
        };
        files += 1;
        if is_writable(&data, section.address).unwrap_or(false) {
            writable.push(path);
        }
    }
    heading(&format!("linked files in {}", PROGRAMS.join(" and ")));
    println!("  {files} with unwind data, {with_sframe} of them with .sframe");
    println!(
        "  {} of them have it in a segment that can be written",
        writable.len()
    );
    for path in writable.iter().take(5) {
        println!("    {}", path.display());
    }
}

fn is_writable(data: &[u8], address: u64) -> object::Result<bool> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    Ok(header.program_headers(endian, data)?.iter().any(|segment| {
        let start = segment.p_vaddr(endian);
        segment.p_type(endian) == PT_LOAD
            && (start..start.saturating_add(segment.p_memsz(endian))).contains(&address)
            && segment.p_flags(endian).contains(PF_W)
    }))
}

// ---- the agent ------------------------------------------------------------------------------------

fn watching(bench: &Bench) -> Result<(), String> {
    let announcer = build(bench)?;
    let agent = Agent::start(bench)?;
    caught(bench, &agent, &announcer)?;
    heading(&format!("CPU time of the agent, over {SECONDS} s"));
    println!(
        "  {:<44} {:>12} {:>12}",
        "while it watches", "ms a second", "ns/kB"
    );
    usage(&agent, "nothing", 0)?;
    for (number, size) in [(100, 64), (4000, 64), (200, 256 << 10), (4000, 16 << 10)] {
        let mut announcer = Announcer::start(&announcer)?;
        let refused = announcer.ask(&format!("flood {number} {size}"))?;
        if refused != "0" {
            return Err(format!("{refused} of {number} sections were refused"));
        }
        agent.wait(bench, |process| {
            let sections = process["sections"].as_array()?;
            let known = sections
                .iter()
                .filter(|section| section["announced"]["changed"] == false);
            (known.count() == number).then_some(())
        })?;
        let what = format!("{number} writable sections of {size} bytes");
        usage(&agent, &what, number as u64 * size as u64)?;
    }
    Ok(())
}

/// How soon a section that is rewritten all the time is out of use.
fn caught(bench: &Bench, agent: &Agent, program: &Path) -> Result<(), String> {
    let library = crate::run::top().join("vectors/announce/calls.v3.so");
    let (mut looked, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..CHANGES {
        let mut announcer = Announcer::start(program)?;
        announcer.ask(&format!("load {}", library.display()))?;
        let begin = Instant::now();
        let answer = announcer.ask("copy")?;
        let key = answer.split(' ').next().unwrap_or_default().to_string();
        let section = |process: &Value| {
            let wanted = format!("0x{key}");
            let sections = process["sections"].as_array()?;
            let mut of_key = sections.iter().filter(|s| s["announced"]["key"] == *wanted);
            of_key.next().map(|section| section["announced"].clone())
        };
        agent.wait(bench, |process| section(process)?["changed"].as_bool())?;
        looked.push(begin.elapsed());
        let begin = Instant::now();
        announcer.ask(&format!("scribble {key}"))?;
        agent.wait(bench, |process| {
            (section(process)?["quarantined"] == true).then_some(())
        })?;
        seen.push(begin.elapsed());
    }
    heading(&format!(
        "a thread that rewrites a section in a loop, {CHANGES} times"
    ));
    println!(
        "  {:<44} {:>9} {:>9} {:>9}",
        "milliseconds", "least", "median", "most"
    );
    for (what, mut times) in [
        ("registration to the first look, as listed", looked),
        ("first write to quarantine, as listed", seen),
    ] {
        times.sort();
        let at = |index: usize| times[index].as_secs_f64() * 1e3;
        let (middle, last) = (times.len() / 2, times.len() - 1);
        println!(
            "  {what:<44} {:>9.0} {:>9.0} {:>9.0}",
            at(0),
            at(middle),
            at(last)
        );
    }
    Ok(())
}

fn usage(agent: &Agent, what: &str, bytes: u64) -> Result<(), String> {
    let before = agent.cpu()?;
    std::thread::sleep(Duration::from_secs(SECONDS));
    let each = (agent.cpu()? - before).as_secs_f64() / SECONDS as f64;
    let per = match bytes {
        0 => String::new(),
        bytes => format!("{:.1}", each * 1e9 / (bytes as f64 / 1000.0)),
    };
    println!("  {what:<44} {:>12.2} {per:>12}", each * 1e3);
    Ok(())
}

/// The program that announces what it is told.
fn build(bench: &Bench) -> Result<PathBuf, String> {
    let source = crate::run::top().join("crates/framewalk/tests/programs/announcer.c");
    let output = bench.path("announcer");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-pthread", "-o"]).arg(&output).arg(source);
    match crate::run::status(gcc)? {
        status if status.success() => Ok(output),
        status => Err(format!("gcc: {status}")),
    }
}

struct Announcer {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Announcer {
    fn start(program: &Path) -> Result<Announcer, String> {
        let fail = |error| format!("{}: {error}", program.display());
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(fail)?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(commands), Some(answers)) = pipes else {
            return Err("no pipes".into());
        };
        let mut announcer = Announcer {
            child,
            commands,
            answers: BufReader::new(answers),
        };
        announcer.line()?;
        Ok(announcer)
    }

    fn ask(&mut self, command: &str) -> Result<String, String> {
        writeln!(self.commands, "{command}").map_err(|error| format!("{command}: {error}"))?;
        self.line()
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(1..) => Ok(line.trim_end().to_string()),
            Ok(0) => Err("the announcing program has ended".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An agent of its own.
struct Agent {
    child: Child,
    folder: String,
}

impl Agent {
    fn start(bench: &Bench) -> Result<Agent, String> {
        let folder = format!("/sys/fs/bpf/framewalk_bench_{}", std::process::id());
        let child = Command::new(&bench.framewalk)
            .args(["agent", "--pin", &folder])
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("framewalk: {error}"))?;
        let mut agent = Agent { child, folder };
        let begin = Instant::now();
        while agent.sections(bench).is_none() {
            if agent.child.try_wait().is_ok_and(|status| status.is_some()) {
                return Err("framewalk agent ended (is this root?)".into());
            }
            patience(begin)?;
        }
        Ok(agent)
    }

    fn sections(&self, bench: &Bench) -> Option<Value> {
        let output = Command::new(&bench.framewalk)
            .args(["sections", "--json", "--pin", &self.folder])
            .output()
            .ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits until something is true of the process that announces.
    fn wait<T>(&self, bench: &Bench, is: impl Fn(&Value) -> Option<T>) -> Result<T, String> {
        let begin = Instant::now();
        loop {
            let listed = self.sections(bench);
            let found = listed
                .as_ref()
                .and_then(|listed| listed["processes"].as_array())
                .and_then(|processes| processes.iter().find_map(&is));
            match found {
                Some(found) => return Ok(found),
                None => patience(begin)?,
            }
        }
    }

    /// Its CPU time so far.
    fn cpu(&self) -> Result<Duration, String> {
        let path = format!("/proc/{}/schedstat", self.child.id());
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
        nanoseconds
            .map(Duration::from_nanos)
            .ok_or(format!("{path}: {text}"))
    }
}

/// Time goes by; not for ever.
fn patience(begin: Instant) -> Result<(), String> {
    std::thread::sleep(Duration::from_millis(5));
    match begin.elapsed() < PATIENCE {
        true => Ok(()),
        false => Err("the agent did not do what is measured".into()),
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
        let _ = fs::remove_file(format!(
            "/run/framewalk{}.lock",
            self.folder.replace('/', "-")
        ));
    }
}
