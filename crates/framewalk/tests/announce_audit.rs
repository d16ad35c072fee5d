//! The audit library announces what the dynamic loader loads, and the kernel walks by it.

#[allow(dead_code)]
#[path = "recording/recorded.rs"]
mod recorded;
#[allow(dead_code)]
#[path = "recording/targets.rs"]
mod targets;
#[path = "../../announce/tests/without_std/mod.rs"]
mod without_std;

use framewalk_kernel::{Hook, Registry};
use object::{Object, ObjectSection};
use recorded::{record, skip, words};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use targets::{Directory, compile, sources};

/// The library, built as its documentation says.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        without_std::build(&["build", "-p", "framewalk-audit"]).join("libframewalk_audit.so")
    })
}

fn fixture(name: &str) -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    crates.join("../../vectors/announce").join(name)
}

/// What a library would say of itself: first and last address of its text, from its load address.
fn text(path: &Path) -> (u64, u64) {
    let data = std::fs::read(path).unwrap();
    let file = object::File::parse(&*data).unwrap();
    let section = file.section_by_name(".sframe").unwrap();
    let parsed =
        framewalk_sframe::Section::parse(section.data().unwrap(), section.address()).unwrap();
    let functions: Vec<_> = parsed.functions().map(Result::unwrap).collect();
    let start = functions.iter().map(|function| function.start).min();
    let end = functions
        .iter()
        .map(|function| function.start + u64::from(function.size));
    (start.unwrap(), end.max().unwrap())
}

/// `plugins` under the audit library, told what to do line by line.
struct Plugins {
    child: Child,
    told: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Plugins {
    fn start(program: &Path) -> Plugins {
        let mut child = Command::new(program)
            .env("LD_AUDIT", library())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Plugins {
            child,
            told,
            answers,
        }
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.told, "{line}").unwrap();
        self.answers.next().expect("an answer").unwrap()
    }

    /// Opens a file; its link_map and load address.
    fn open(&mut self, number: usize, file: &Path) -> (u64, u64) {
        let answer = self.ask(&format!("open {number} {}", file.display()));
        let numbers: Vec<u64> = answer
            .split(' ')
            .skip(1)
            .map(|number| number.parse().unwrap())
            .collect();
        (numbers[0], numbers[1])
    }
}

/// After each of 1,000 random dlopens and dlcloses the kernel knows exactly the libraries that are open.
#[test]
fn the_registry_is_what_is_loaded() {
    let test = "the_registry_is_what_is_loaded";
    let mut registry = match Registry::load(Hook::ALL) {
        Ok(registry) => registry,
        Err(error) => return skip(test, &error.to_string()),
    };
    let directory = Directory::new();
    let program = directory.path("plugins");
    compile(&sources().join("plugins.c"), &program, &["-ldl"]);
    let copies: Vec<_> = (0..12)
        .map(|n| {
            let original = fixture(["calls.v3.so", "calls.v2.so"][n % 2]);
            let copy = directory.path(&format!("copy-{n}.so"));
            std::fs::copy(&original, &copy).unwrap();
            (copy, text(&original))
        })
        .collect();
    let mut plugins = Plugins::start(&program);
    let pid = plugins.child.id();
    let mut open = BTreeMap::new();
    let mut state = 1u64;
    for _ in 0..1000 {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let number = (state >> 33) as usize % copies.len();
        if open.remove(&number).is_some() {
            assert_eq!(plugins.ask(&format!("close {number}")), "closed");
        } else {
            let (file, (start, end)) = &copies[number];
            let (map, bias) = plugins.open(number, file);
            open.insert(number, (map, bias + start..bias + end));
        }
        let space = registry.maps().of_process(pid);
        let sections = space.map(|space| space.sections).unwrap_or_default();
        let known: BTreeMap<u64, _> = sections.into_iter().map(|s| (s.key, s.text)).collect();
        let expected: BTreeMap<u64, _> = open.values().cloned().collect();
        assert_eq!(known, expected);
    }
    let heard = registry.heard().unwrap();
    let own = heard.iter().filter(|heard| heard.pid == pid);
    assert!(own.clone().count() >= 1000 && own.clone().all(|heard| heard.answer > 0));
    drop(plugins.told);
    assert!(plugins.child.wait().unwrap().success());
    assert!(registry.maps().of_process(pid).is_none());
}

/// Every sample in an announced library has its whole stack, by what was announced.
#[test]
fn samples_in_announced_libraries_are_complete() {
    for (program, version) in [("caller.v3", "v3"), ("caller.v3", "v2"), ("fixed.v3", "v3")] {
        let test = "samples_in_announced_libraries_are_complete";
        let calls = fixture(&format!("calls.{version}.so"));
        let mut arguments = words(&["--engine", "kernel", "--", "env"]);
        let mut audit = std::ffi::OsString::from("LD_AUDIT=");
        audit.push(library());
        arguments.push(audit);
        arguments.push(fixture(program).into());
        arguments.push(calls.into());
        arguments.extend(words(&["700000000", "9"]));
        let Some(recorded) = record(test, &arguments) else {
            return;
        };
        let inside =
            |stack: &recorded::Stack| stack.has("calls_spin") || stack.has("calls_through");
        let all = recorded.samples_where(inside);
        let whole = recorded.samples_where(|stack| {
            let library = ["narrow", "wide", "sized"];
            let frames = stack
                .user
                .iter()
                .filter(|name| library.contains(&name.as_str()));
            inside(stack) && stack.cut.is_none() && frames.count() == 9 && stack.has("main")
        });
        assert!(all >= 50, "{all} samples in the library");
        assert_eq!(whole, all, "whole stacks of samples in the library");
        let announced = recorded.stats["origins"]["announced"].as_u64().unwrap_or(0);
        assert!(
            announced >= whole * 9,
            "{announced} frames by announcements"
        );
    }
}
