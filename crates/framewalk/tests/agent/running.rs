//! Agents, programs that announce, and what `framewalk sections` says of them.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long to wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn framewalk(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_framewalk"))
        .args(arguments)
        .output()
        .unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn skip(test: &str, why: &str) {
    println!("SKIPPED {test}: {why}");
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A folder for an agent to pin into; removed at the end, with what a killed agent left.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("framewalk_test_{}_{next}", std::process::id());
        Folder(Path::new("/sys/fs/bpf").join(name))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        let lock = format!("/run/framewalk{}.lock", self.name().replace('/', "-"));
        let _ = std::fs::remove_file(lock);
    }
}

/// A running agent; killed at the end.
pub(crate) struct Agent {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    pub(crate) folder: String,
    /// Whether callers get answers, or EINVAL.
    pub(crate) answers: bool,
}

impl Agent {
    /// Starts one; None, and a line that says so, where that is not allowed.
    pub(crate) fn start(test: &str, folder: &Folder) -> Option<Agent> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_framewalk"))
            .args(["agent", "--pin", folder.name()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (into, stderr) = (Arc::clone(&said), child.stderr.take().unwrap());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                println!("{line}");
                let mut said = into.lock().unwrap();
                said.push_str(&line);
                said.push('\n');
            }
        });
        let mut agent = Agent {
            child,
            said,
            reader: Some(reader),
            folder: folder.name().into(),
            answers: false,
        };
        let ended = until("the agent starts or ends", || {
            let ended = agent.child.try_wait().unwrap();
            (ended.is_some() || agent.said().contains("framewalk: agent: hook")).then_some(ended)
        });
        if let Some(status) = ended {
            agent.reader.take().unwrap().join().unwrap();
            let said = agent.said();
            // What this test cannot provide. Anything else is a failure.
            let known = [
                "an agent needs root",
                "not in a BPF file system",
                "pid namespace",
                "the kernel refused the BPF programs",
                "/sys/fs/bpf",
            ];
            assert!(
                known.iter().any(|why| said.contains(why)),
                "{status}: {said}"
            );
            skip(test, said.trim());
            return None;
        }
        agent.answers = agent.said().contains("(answers)");
        Some(agent)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stderr.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Sends a signal and waits for the end; what it said until then.
    pub(crate) fn end(mut self, signal: Signal) -> (ExitStatus, String) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let status = until("the agent ends", || self.child.try_wait().unwrap());
        self.reader.take().unwrap().join().unwrap();
        (status, self.said())
    }

    /// `framewalk sections --json`.
    pub(crate) fn sections(&self, more: &[&str]) -> Value {
        let output = framewalk(&[&["sections", "--json", "--pin", &self.folder], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The announced sections of a process, by their keys.
    pub(crate) fn announced(&self, pid: u32) -> Vec<Value> {
        let all = self.sections(&[]);
        let processes = all["processes"].as_array().unwrap();
        let process = processes.iter().find(|process| process["pid"] == pid);
        process.map_or_else(Vec::new, |process| {
            process["sections"].as_array().unwrap().clone()
        })
    }

    /// The announced section with a key.
    pub(crate) fn section(&self, pid: u32, key: u64) -> Option<Value> {
        let key = format!("{key:#x}");
        let mut sections = self.announced(pid).into_iter();
        sections.find(|section| section["announced"]["key"] == key)
    }

    /// Whether it has said that a process changed a section. It hears other tests' processes too, so nothing
    /// can be said of all.
    pub(crate) fn has_caught(&self, pid: u32) -> bool {
        self.said().contains(&format!("({pid}): the section at"))
    }

    /// An answer of the kernel, where it is accepted.
    #[track_caller]
    pub(crate) fn accepted(&self, answer: i64) {
        match self.answers {
            true => assert!(answer > 0, "{answer}"),
            false => assert_eq!(answer, -22),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `tests/programs/announcer.c`, built once.
fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("announcer"))
}

/// `tests/programs/generator.c`, built once.
fn generator() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("generator"))
}

fn build(name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/programs/{name}.c"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let output = folder.join(name);
    // Another test program may be running the old one.
    let new = folder.join(format!("{name}-{}", std::process::id()));
    let gcc = Command::new("gcc")
        .args(["-O2", "-fomit-frame-pointer", "-Wall", "-Werror"])
        .args(["-pthread", "-o"])
        .arg(&new)
        .arg(source)
        .status();
    assert!(gcc.expect("gcc is needed").success());
    std::fs::rename(new, &output).unwrap();
    output
}

/// A library of vectors/announce.
pub(crate) fn library(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../vectors/announce")
        .join(name)
        .canonicalize()
        .unwrap()
}

/// A section as the program knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registered {
    pub(crate) key: u64,
    pub(crate) address: u64,
    pub(crate) length: u64,
    pub(crate) answer: i64,
}

/// A program that announces what it is told; killed at the end.
pub(crate) struct Announcer {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Announcer {
    pub(crate) fn start() -> Announcer {
        let mut announcer = Announcer::start_as(program(), &[]);
        assert_eq!(announcer.line(), "ready");
        announcer
    }

    /// A program that generates code and describes it in an area in a `file` in memory, or in `memory` alone; None where
    /// memory cannot have a name.
    pub(crate) fn generating(area: &str) -> Option<Announcer> {
        let mut announcer = Announcer::start_as(generator(), &[area]);
        (announcer.line() == "ready").then_some(announcer)
    }

    /// The same program under another name.
    pub(crate) fn start_under(path: &Path) -> Announcer {
        std::fs::copy(program(), path).unwrap();
        let mut announcer = Announcer::start_as(path, &[]);
        assert_eq!(announcer.line(), "ready");
        announcer
    }

    fn start_as(program: &Path, arguments: &[&str]) -> Announcer {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (commands, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Announcer {
            child,
            commands: Some(commands),
            answers: BufReader::new(answers),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_string()
    }

    /// Tells it something, and what it answers.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands.as_ref().unwrap(), "{command}").unwrap();
        self.line()
    }

    /// The same, for commands whose answer is a number.
    pub(crate) fn number(&mut self, command: &str) -> i64 {
        let answer = self.ask(command);
        answer.parse().expect(&answer)
    }

    /// The same, for commands that register a section.
    pub(crate) fn register(&mut self, command: &str) -> Registered {
        let line = self.ask(command);
        let words: Vec<&str> = line.split(' ').collect();
        let hex = |at: usize| u64::from_str_radix(words[at], 16).expect(&line);
        Registered {
            key: hex(0),
            address: hex(1),
            length: hex(2),
            answer: words[3].parse().expect(&line),
        }
    }

    /// Opens a library and registers its section.
    pub(crate) fn load(&mut self, name: &str) -> Registered {
        self.register(&format!("load {}", library(name).display()))
    }

    /// Its input ends, and so does it.
    pub(crate) fn end(mut self) {
        self.commands = None;
        let mut rest = String::new();
        self.answers.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
