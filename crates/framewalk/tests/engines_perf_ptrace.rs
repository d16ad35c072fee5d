//! The perf and ptrace engines on programs whose every stack is known.

use framewalk::engines::perf::Perf;
use framewalk::engines::ptrace::Ptrace;
use framewalk::engines::{Counts, Engine, Settings, Target, Unavailable};
use framewalk::launch;
use framewalk::processes::Objects;
use framewalk::sample::{Frame, Place, Sample};
use framewalk_walk::{Origin, Stop};
use object::{Object, ObjectSymbol};
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const SETTINGS: Settings = Settings {
    frequency: 997,
    max_frames: 510,
};

/// Where a test that runs other tests puts the built program.
const BUILT: &str = "KNOWN_STACKS";

/// The built program; the same for all tests.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(built) = std::env::var_os(BUILT) {
            return built.into();
        }
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/known_stacks.c");
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("known_stacks-{}", std::process::id()));
        let gcc = Command::new("gcc")
            .args([
                "-O2",
                "-fomit-frame-pointer",
                "-fno-optimize-sibling-calls",
                "-pthread",
                "-o",
            ])
            .arg(&path)
            .arg(source)
            .status()
            .expect("gcc is needed");
        assert!(gcc.success());
        path.canonicalize().unwrap()
    })
}

/// A running program that ends with the test.
struct Running(Child);

impl Running {
    fn start(arguments: &[&str]) -> Running {
        Running::of(program(), arguments)
    }

    fn of(path: &Path, arguments: &[&str]) -> Running {
        let mut child = Command::new(path)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        Running(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What was recorded.
struct Recorded {
    samples: Vec<Sample>,
    objects: Objects,
    counts: Counts,
    ended: bool,
}

/// Records until there are `wanted` samples, or 20 seconds are over.
fn record(mut engine: Box<dyn Engine>, wanted: usize, mut release: impl FnMut()) -> Recorded {
    let mut objects = Objects::default();
    let mut samples = Vec::new();
    engine.start().unwrap();
    release();
    let give_up = Instant::now() + Duration::from_secs(20);
    let mut ended = false;
    while !ended && samples.len() < wanted && Instant::now() < give_up {
        let more = engine.poll(Duration::from_millis(50), &mut objects, &mut |s| {
            samples.push(s)
        });
        ended = !more.unwrap();
    }
    let counts = engine
        .finish(&mut objects, &mut |s| samples.push(s))
        .unwrap();
    Recorded {
        samples,
        objects,
        counts,
        ended,
    }
}

/// Functions of the program by file offset; its segments are linked at their offsets or not, the
/// symbol table's addresses are moved accordingly.
struct Names {
    functions: BTreeMap<u64, (u64, String)>,
}

impl Names {
    fn of(path: &Path) -> Names {
        use object::read::elf::{FileHeader, ProgramHeader};
        let bytes = std::fs::read(path).unwrap();
        let header = object::elf::FileHeader64::<object::LittleEndian>::parse(&*bytes).unwrap();
        let e = object::LittleEndian;
        let segments = header.program_headers(e, &*bytes).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let mut functions = BTreeMap::new();
        for symbol in file
            .symbols()
            .filter(|s| s.kind() == object::SymbolKind::Text)
        {
            let address = symbol.address();
            let Some(segment) = segments.iter().find(|s| {
                s.p_type(e) == object::elf::PT_LOAD
                    && (s.p_vaddr(e)..s.p_vaddr(e) + s.p_memsz(e)).contains(&address)
            }) else {
                continue;
            };
            let offset = address - segment.p_vaddr(e) + segment.p_offset(e);
            let name = symbol
                .name()
                .unwrap()
                .split('.')
                .next()
                .unwrap()
                .to_string();
            functions.insert(offset, (offset + symbol.size(), name));
        }
        Names { functions }
    }

    fn name(&self, offset: u64) -> Option<&str> {
        let (_, (end, name)) = self.functions.range(..=offset).next_back()?;
        (offset < *end).then_some(name)
    }
}

/// Whether this is the program, wherever it was copied to.
fn is_own(path: &Path) -> bool {
    path == program() || path.ends_with("program")
}

impl Recorded {
    /// The program's own functions of a stack, outermost first.
    fn own(&self, sample: &Sample, names: &Names) -> Vec<String> {
        let name = |frame: &Frame| match frame.place {
            Place::Object(id, offset) if is_own(&self.objects.get(id).path) => {
                let offset = offset - u64::from(frame.is_return_address);
                Some(names.name(offset).unwrap_or("?").to_string())
            }
            _ => None,
        };
        sample.frames.iter().rev().filter_map(name).collect()
    }

    /// Where a stack ended.
    fn last(&self, sample: &Sample) -> String {
        match sample.frames.last().map(|frame| frame.place) {
            Some(Place::Object(id, offset)) => {
                format!("{}+{offset:#x}", self.objects.get(id).path.display())
            }
            other => format!("{other:?}"),
        }
    }

    /// Checks that every stack is a beginning of a chain (outermost first) with a signal handler on
    /// top at most, that nearly all are complete, and that most are a whole chain.
    fn check(&self, chains: &[Vec<String>]) {
        let names = Names::of(program());
        let mut stops: HashMap<Stop, usize> = HashMap::new();
        let (mut whole, mut in_main, mut in_handler) = (0, 0, 0);
        for sample in &self.samples {
            *stops.entry(sample.stop).or_default() += 1;
            let mut own = self.own(sample, &names);
            if sample.stop != Stop::Outermost {
                println!("{:?} {own:?} at {}", sample.stop, self.last(sample));
                continue;
            }
            // Before main and in new threads there is other code.
            if own.is_empty() || own == ["_start"] {
                continue;
            }
            in_main += 1;
            let handler = own.iter().position(|name| name == "on_signal");
            if let Some(at) = handler {
                in_handler += 1;
                let handler = own.split_off(at);
                assert!(
                    handler == ["on_signal"] || handler == ["on_signal", "spin"],
                    "{handler:?}"
                );
            }
            let chain = chains.iter().find(|chain| chain.starts_with(&own));
            let chain = chain
                .unwrap_or_else(|| panic!("{own:?}\nis no beginning of\n{chains:?}\n{sample:?}"));
            // A handler may interrupt anything.
            whole += usize::from(handler.is_some() || own.len() + 1 >= chain.len());
            assert_eq!(
                sample
                    .frames
                    .iter()
                    .filter(|f| f.origin == Origin::Registers)
                    .count(),
                1
            );
        }
        println!(
            "{} samples, {in_main} in main, {in_handler} in handlers, {whole} whole, {stops:?}, {:?}",
            self.samples.len(),
            self.counts
        );
        let complete = stops.get(&Stop::Outermost).copied().unwrap_or(0);
        assert!(
            complete * 100 >= self.samples.len() * 99,
            "{complete} of {}",
            self.samples.len()
        );
        assert!(in_main > 20);
        assert!(
            whole * 100 >= in_main * 90,
            "{whole} of {in_main} are whole"
        );
    }
}

/// The chain of calls from `first` on, outermost first.
fn chain(first: &[&str], depth: usize) -> Vec<String> {
    let mut chain = first.to_vec();
    chain.extend(["through_libc", "compare", "realigned", "with_alloca"]);
    chain.extend(vec!["recurse"; depth]);
    chain.extend(["leaf", "spin"]);
    chain.into_iter().map(str::to_string).collect()
}

fn main_chain(depth: usize) -> Vec<String> {
    chain(&["_start", "main"], depth)
}

type Open = fn(&Target) -> Result<Box<dyn Engine>, Unavailable>;

fn perf(target: &Target) -> Result<Box<dyn Engine>, Unavailable> {
    Perf::open(target, SETTINGS).map(|engine| Box::new(engine) as Box<dyn Engine>)
}

fn ptrace(target: &Target) -> Result<Box<dyn Engine>, Unavailable> {
    Ptrace::open(target, SETTINGS).map(|engine| Box::new(engine) as Box<dyn Engine>)
}

/// Opens an engine or says that the test is skipped.
fn open_or_skip(open: Open, target: &Target) -> Option<Box<dyn Engine>> {
    open(target)
        .map_err(|Unavailable { what, missing }| println!("skipped: {what} (missing: {missing})"))
        .ok()
}

fn running_process(open: Open) {
    let running = Running::start(&["", "30"]);
    let target = Target::Pids(vec![running.0.id()]);
    let Some(engine) = open_or_skip(open, &target) else {
        return;
    };
    let recorded = record(engine, 800, || {});
    recorded.check(&[main_chain(30)]);
    assert!(!recorded.ended);
    assert!(
        recorded
            .samples
            .windows(2)
            .all(|w| w[0].time_ns <= w[1].time_ns)
    );
    for sample in &recorded.samples {
        assert_eq!((sample.pid, sample.tid), (running.0.id(), running.0.id()));
        let name = program().file_name().unwrap().to_str().unwrap();
        assert_eq!(sample.comm, name[..name.len().min(15)]);
    }
}

#[test]
fn perf_running_process() {
    running_process(perf);
}

#[test]
fn ptrace_running_process() {
    running_process(ptrace);
}

fn deep_stack(open: Open) {
    let running = Running::start(&["", "240"]);
    let Some(engine) = open_or_skip(open, &Target::Pids(vec![running.0.id()])) else {
        return;
    };
    record(engine, 400, || {}).check(&[main_chain(240)]);
}

#[test]
fn perf_deep_stack() {
    deep_stack(perf);
}

#[test]
fn ptrace_deep_stack() {
    deep_stack(ptrace);
}

fn signals_and_threads(open: Open, what: &str) {
    let running = Running::start(&[what, "12"]);
    let Some(engine) = open_or_skip(open, &Target::Pids(vec![running.0.id()])) else {
        return;
    };
    let recorded = record(engine, 1500, || {});
    recorded.check(&[main_chain(12), chain(&["in_thread"], 12)]);
    let mut threads: Vec<_> = recorded.samples.iter().map(|sample| sample.tid).collect();
    threads.sort_unstable();
    threads.dedup();
    assert!(threads.len() >= 2, "{threads:?}");
}

#[test]
fn perf_signals_and_threads() {
    // A copy holds one stack only: no handlers on stacks of their own.
    signals_and_threads(perf, "st");
}

#[test]
fn ptrace_signals_and_threads() {
    signals_and_threads(ptrace, "sat");
}

/// A command from its first instruction on; it forks, and execs itself once more.
fn command(open: Open) {
    let words = [program().to_str().unwrap(), "fe", "20"].map(Into::into);
    let waiting = launch::hold(&words).unwrap();
    let pid = waiting.pid();
    let Some(engine) = open_or_skip(open, &Target::Child(pid)) else {
        return;
    };
    let mut waiting = Some(waiting);
    let mut running = None;
    let recorded = record(engine, 1500, || {
        running = waiting.take().map(|w| w.release().unwrap())
    });
    recorded.check(&[main_chain(20)]);
    let mut pids: Vec<_> = recorded.samples.iter().map(|sample| sample.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 2, "{pids:?}");
    assert!(pids.contains(&pid));
    for pid in pids {
        let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

#[test]
fn perf_command() {
    command(perf);
}

#[test]
fn ptrace_command() {
    command(ptrace);
}

/// A command that ends at once is recorded to its end.
fn short_command(open: Open) {
    let waiting = launch::hold(&["/bin/true".into()]).unwrap();
    let Some(engine) = open_or_skip(open, &Target::Child(waiting.pid())) else {
        return;
    };
    let mut waiting = Some(waiting);
    let recorded = record(engine, usize::MAX, || {
        waiting.take().unwrap().release().unwrap();
    });
    assert!(recorded.ended, "{:?}", recorded.counts);
    assert!(recorded.samples.len() < 100);
}

#[test]
fn perf_short_command() {
    short_command(perf);
}

#[test]
fn ptrace_short_command() {
    short_command(ptrace);
}

/// A process that vanished is an error that says so.
fn vanished_process(open: Open) {
    let mut child = Command::new("/bin/true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let Err(unavailable) = open(&Target::Pids(vec![pid])) else {
        panic!("opened")
    };
    assert!(
        unavailable.what.contains("has ended") || unavailable.missing.contains("CAP_"),
        "{unavailable:?}"
    );
}

#[test]
fn perf_vanished_process() {
    vanished_process(perf);
}

#[test]
fn ptrace_vanished_process() {
    vanished_process(ptrace);
}

/// A process that is killed while it is recorded ends the recording.
fn killed_process(open: Open) {
    let mut running = Running::start(&["t", "5"]);
    let Some(mut engine) = open_or_skip(open, &Target::Pids(vec![running.0.id()])) else {
        return;
    };
    let mut objects = Objects::default();
    let mut samples = 0;
    engine.start().unwrap();
    let give_up = Instant::now() + Duration::from_secs(20);
    loop {
        let more = engine
            .poll(Duration::from_millis(20), &mut objects, &mut |_| {
                samples += 1
            })
            .unwrap();
        if samples > 20 {
            let _ = running.0.kill();
        }
        if !more {
            break;
        }
        assert!(Instant::now() < give_up);
    }
    engine.finish(&mut objects, &mut |_| {}).unwrap();
    assert_eq!(running.0.wait().unwrap().signal(), Some(9));
}

#[test]
fn perf_killed_process() {
    killed_process(perf);
}

#[test]
fn ptrace_killed_process() {
    killed_process(ptrace);
}

/// The same as somebody without any privilege.
fn as_nobody(test: &str) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: not root, so that the other tests are unprivileged already");
        return;
    }
    let place = std::env::temp_dir().join(format!("framewalk-{test}-{}", std::process::id()));
    std::fs::create_dir(&place).unwrap();
    let (tests, built) = (place.join("tests"), place.join("known_stacks"));
    std::fs::copy(std::env::current_exe().unwrap(), &tests).unwrap();
    std::fs::copy(program(), &built).unwrap();
    let output = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--bounding-set=-all",
        ])
        .arg(&tests)
        .args(["--exact", test, "--nocapture"])
        .env(BUILT, &built)
        .current_dir("/")
        .output();
    std::fs::remove_dir_all(&place).unwrap();
    let output = output.expect("setpriv (util-linux) is needed");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    assert!(text.contains("1 passed"));
}

#[test]
fn perf_without_privileges() {
    as_nobody("perf_running_process");
}

#[test]
fn ptrace_without_privileges() {
    as_nobody("ptrace_running_process");
}

/// The state letter and the tracer of a process.
fn state(pid: u32) -> (char, u32) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .trim()
            .to_string()
    };
    (
        field("State:").chars().next().unwrap(),
        field("TracerPid:").parse().unwrap(),
    )
}

fn kill(pid: u32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), signal)
        .unwrap();
}

/// An engine that is polled until something holds.
struct Polled {
    engine: Box<dyn Engine>,
    objects: Objects,
    samples: usize,
}

impl Polled {
    fn start(mut engine: Box<dyn Engine>) -> Polled {
        engine.start().unwrap();
        Polled {
            engine,
            objects: Objects::default(),
            samples: 0,
        }
    }

    fn until(&mut self, mut holds: impl FnMut(usize) -> bool) {
        let give_up = Instant::now() + Duration::from_secs(20);
        while !holds(self.samples) {
            let samples = &mut self.samples;
            self.engine
                .poll(Duration::from_millis(5), &mut self.objects, &mut |_| {
                    *samples += 1
                })
                .unwrap();
            assert!(Instant::now() < give_up);
        }
    }

    fn finish(mut self) {
        self.engine.finish(&mut self.objects, &mut |_| {}).unwrap();
    }
}

#[test]
fn ptrace_lets_the_target_go_as_it_was() {
    let running = Running::start(&["st", "12"]);
    let pid = running.0.id();
    let Some(engine) = open_or_skip(ptrace, &Target::Pids(vec![pid])) else {
        return;
    };
    let mut polled = Polled::start(engine);
    polled.until(|samples| samples > 100);
    assert_ne!(state(pid).1, 0);
    polled.finish();
    let (state, tracer) = state(pid);
    assert_eq!(tracer, 0);
    assert!(matches!(state, 'R' | 'S'), "{state}");
    // Its threads run on: they use CPU time.
    let used = || std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    let before = used();
    let give_up = Instant::now() + Duration::from_secs(20);
    while used() == before {
        assert!(Instant::now() < give_up);
        std::thread::yield_now();
    }
    // And it can be traced again.
    assert!(ptrace(&Target::Pids(vec![pid])).is_ok());
}

#[test]
fn ptrace_respects_a_stopped_target() {
    use rustix::process::Signal;
    let running = Running::start(&["", "12"]);
    let pid = running.0.id();
    let Some(engine) = open_or_skip(ptrace, &Target::Pids(vec![pid])) else {
        return;
    };
    let mut polled = Polled::start(engine);
    polled.until(|samples| samples > 50);
    // SIGSTOP stops it, and it stays stopped.
    kill(pid, Signal::STOP);
    let mut quiet = (0, Instant::now());
    polled.until(|samples| {
        if quiet.0 != samples {
            quiet = (samples, Instant::now());
        }
        quiet.1.elapsed() > Duration::from_millis(200)
    });
    assert!(matches!(state(pid).0, 't' | 'T'));
    // SIGCONT lets it go on.
    kill(pid, Signal::CONT);
    let so_far = polled.samples;
    polled.until(|samples| samples > so_far + 50);
    // Let go while it is stopped, it is still stopped.
    kill(pid, Signal::STOP);
    polled.until(|_| state(pid).0 == 't');
    polled.finish();
    let give_up = Instant::now() + Duration::from_secs(20);
    while state(pid) != ('T', 0) {
        assert!(Instant::now() < give_up, "{:?}", state(pid));
    }
    kill(pid, Signal::CONT);
}

/// A shell that creates many short processes, recorded to its end by itself.
fn many_processes(open: Open) {
    let script = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); /bin/true & done; wait; exit 7";
    let waiting = launch::hold(&["/bin/sh".into(), "-c".into(), script.into()]).unwrap();
    let Some(engine) = open_or_skip(open, &Target::Child(waiting.pid())) else {
        return;
    };
    let mut waiting = Some(waiting);
    let mut running = None;
    let recorded = record(engine, usize::MAX, || {
        running = waiting.take().map(|w| w.release().unwrap())
    });
    assert!(recorded.ended, "{:?}", recorded.counts);
    let status = running.unwrap().status().flatten();
    assert_eq!(
        status.and_then(|status| status.code()),
        Some(7),
        "nobody else collected it"
    );
    let mut stops: HashMap<Stop, usize> = HashMap::new();
    for sample in &recorded.samples {
        *stops.entry(sample.stop).or_default() += 1;
        if sample.stop != Stop::Outermost {
            println!("{:?} at {}", sample.stop, recorded.last(sample));
        }
    }
    println!("{stops:?} {:?}", recorded.counts);
}

#[test]
fn perf_many_processes() {
    many_processes(perf);
}

#[test]
fn ptrace_many_processes() {
    many_processes(ptrace);
}

/// A program whose file is replaced while it runs is recorded as what it was.
fn replaced_file(open: Open) {
    let place = std::env::temp_dir().join(format!(
        "framewalk-replaced-{}-{}",
        open as usize,
        std::process::id()
    ));
    std::fs::create_dir(&place).unwrap();
    let path = place.join("program");
    std::fs::copy(program(), &path).unwrap();
    let running = Running::of(&path, &["", "30"]);
    std::fs::write(place.join("new"), "#!/bin/sh\n").unwrap();
    std::fs::rename(place.join("new"), &path).unwrap();
    if let Some(engine) = open_or_skip(open, &Target::Pids(vec![running.0.id()])) {
        let recorded = record(engine, 400, || {});
        recorded.check(&[main_chain(30)]);
    }
    std::fs::remove_dir_all(&place).unwrap();
}

#[test]
fn perf_replaced_file() {
    replaced_file(perf);
}

#[test]
fn ptrace_replaced_file() {
    replaced_file(ptrace);
}

#[test]
fn perf_replaced_file_without_privileges() {
    as_nobody("perf_replaced_file");
}

#[test]
fn ptrace_replaced_file_without_privileges() {
    as_nobody("ptrace_replaced_file");
}

/// A program of 32-bit code, without any library.
fn program_32() -> Option<Running> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let name = format!(
        "loop32-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    );
    let (object, path) = (place.join(format!("{name}.o")), place.join(name));
    let source = "_start: jmp _start\n.globl _start\n";
    let mut assembler = Command::new("as")
        .arg("--32")
        .arg("-o")
        .arg(&object)
        .stdin(Stdio::piped())
        .spawn()
        .ok()?;
    std::io::Write::write_all(&mut assembler.stdin.take()?, source.as_bytes()).ok()?;
    assert!(assembler.wait().ok()?.success());
    let linked = Command::new("ld")
        .args(["-m", "elf_i386", "-o"])
        .arg(&path)
        .arg(&object)
        .status()
        .ok()?;
    assert!(linked.success());
    Command::new(&path).spawn().ok().map(Running)
}

fn foreign_code(open: Open) {
    let Some(running) = program_32() else {
        println!("skipped: no binutils, or a kernel without 32-bit programs");
        return;
    };
    let Some(engine) = open_or_skip(open, &Target::Pids(vec![running.0.id()])) else {
        return;
    };
    let recorded = record(engine, 50, || {});
    assert!(recorded.samples.len() >= 50);
    for sample in &recorded.samples {
        assert_eq!(sample.stop, Stop::ForeignCode);
        assert!(
            sample
                .frames
                .iter()
                .all(|frame| frame.origin == Origin::Kernel)
        );
    }
}

#[test]
fn perf_foreign_code() {
    foreign_code(perf);
}

#[test]
fn ptrace_foreign_code() {
    foreign_code(ptrace);
}

#[test]
fn perf_whole_machine() {
    let running = Running::start(&["", "30"]);
    let Some(engine) = open_or_skip(perf, &Target::System) else {
        return;
    };
    let mut recorded = record(engine, 1200, || {});
    let pids: std::collections::HashSet<_> =
        recorded.samples.iter().map(|sample| sample.pid).collect();
    println!("{} processes, {:?}", pids.len(), recorded.counts);
    assert!(!pids.contains(&0), "idle time is not sampled");
    recorded
        .samples
        .retain(|sample| sample.pid == running.0.id());
    recorded.check(&[main_chain(30)]);
}

#[test]
fn ptrace_whole_machine_is_refused() {
    let Err(unavailable) = ptrace(&Target::System) else {
        panic!("opened")
    };
    assert!(
        unavailable.what.contains("whole machine"),
        "{unavailable:?}"
    );
}
