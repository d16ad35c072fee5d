//! The C library and its header: the example, compiled as people would, against answers of our choice.

mod supervisor;
mod without_std;

use framewalk_announce::abi::{REGISTER, REPLACE, UNREGISTER};
use framewalk_announce::area::observe::Geometry;
use framewalk_announce::{Refusal, abi};
use framewalk_sframe::{Report, check};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use supervisor::{Call, Filter, Reply, supervised};

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

/// Where the libraries are, built once as the crate's documentation says.
fn libraries() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let build = |kind| {
            let package = ["rustc", "-p", "framewalk-announce", "--features", "capi"];
            without_std::build(&[&package[..], &["--crate-type", kind]].concat())
        };
        build("staticlib");
        build("cdylib")
    })
}

/// Compiles the example of sections; `more` comes last.
fn compile(compiler: &str, name: &str, more: &[&str]) -> PathBuf {
    compile_example(compiler, "register.c", name, more)
}

fn compile_example(compiler: &str, example: &str, name: &str, more: &[&str]) -> PathBuf {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let status = Command::new(compiler)
        .args(["-Wall", "-Wextra", "-Werror", "-O1", "-I"])
        .arg(format!("{CRATE}/include"))
        .args(["-x", if compiler == "g++" { "c++" } else { "c" }])
        .arg(format!("{CRATE}/examples/{example}"))
        .args(["-x", "none", "-o"])
        .arg(&program)
        .args(more)
        .status();
    assert!(status.unwrap().success(), "{compiler} {name}");
    program
}

fn archive() -> String {
    let library = libraries().join("libframewalk_announce.a");
    library.display().to_string()
}

/// What the program printed, the calls, and the findings of the checker in the section of the first.
struct Ran {
    said: Vec<String>,
    calls: Vec<Call>,
    section: Option<Report>,
}

/// Runs the example; the calls get these replies, one after the other.
fn ran(test: &str, program: &Path, replies: [Reply; 3]) -> Option<Ran> {
    let mut section = None;
    let ran = ran_with(test, program, replies, |call| {
        if section.is_none() {
            section = Some(look(call));
        }
    })?;
    Some(Ran { section, ..ran })
}

/// The same; `see` is shown each call while its caller waits.
fn ran_with(
    test: &str,
    program: &Path,
    replies: [Reply; 3],
    mut see: impl FnMut(&Call),
) -> Option<Ran> {
    let mut replies = replies.into_iter();
    let answer = |call: &Call| {
        see(call);
        replies.next().unwrap_or(Reply::Errno(libc::EINVAL))
    };
    let work = || Command::new(program).output().unwrap();
    match supervised(Filter::default(), work, answer) {
        Ok((output, calls)) => {
            assert!(output.status.success(), "{output:?}");
            let said = String::from_utf8(output.stdout).unwrap();
            Some(Ran {
                said: said.lines().map(str::to_owned).collect(),
                calls,
                section: None,
            })
        }
        Err(why) => {
            println!("SKIPPED {test}: {why}");
            None
        }
    }
}

/// Checks the section that a waiting caller registers.
fn look(call: &Call) -> Report {
    check(&bytes(call), call.rest[0])
}

/// What a waiting caller registers.
fn bytes(call: &Call) -> Vec<u8> {
    let [address, length, _] = call.rest;
    let memory = std::fs::File::open(format!("/proc/{}/mem", call.thread)).unwrap();
    let mut bytes = vec![0; length as usize];
    memory.read_exact_at(&mut bytes, address).unwrap();
    bytes
}

#[test]
fn the_example_announces_generated_code_from_a_constructor() {
    let name = "the_example_announces_generated_code_from_a_constructor";
    let program = compile("gcc", name, &["-std=c11", &archive()]);
    let replies = [Reply::Value(3), Reply::Value(0x7fff_fffe), Reply::Value(1)];
    let Some(ran) = ran(name, &program, replies) else {
        return;
    };
    let expected = [
        "register: accepted, 3",
        "the code returns 42",
        "replace: accepted, 2147483646",
        "unregister: accepted, 1",
        "mistake: refused, Invalid argument",
    ];
    assert_eq!(ran.said, expected);
    let report = ran.section.unwrap();
    assert!(report.is_sound(), "{report}");
    assert_eq!((report.functions(), report.rows()), (1, 3));
    // The key is the code's address; it comes first in its mapping, the section second.
    let key = ran.calls[0].key;
    let section = [key + 4096, 58, 0];
    let calls: Vec<_> = ran
        .calls
        .iter()
        .map(|c| (c.option, c.key, c.rest))
        .collect();
    let expected = [
        (REGISTER, key, section),
        (REGISTER, key, [section[0], section[1], REPLACE]),
        (UNREGISTER, key, [0; 3]),
    ];
    assert_eq!(calls, expected);
}

/// What the example of areas prints, with these answers.
fn area_says(answer: i64, replace: i64) -> Vec<String> {
    let said = format!(
        "answer {answer}
framed returns 43
fixed returns 42, slot 0
pushing returns 44, slot 1
moved returns 42, slot 2
tombstone 0
again -22
mistake -22
old slot -22
replace {replace}"
    );
    said.lines().map(str::to_owned).collect()
}

#[test]
fn the_example_of_areas_describes_generated_code() {
    let name = "the_example_of_areas_describes_generated_code";
    let program = compile_example("gcc", "area.c", name, &["-std=c11", &archive()]);
    let mut areas = Vec::new();
    let see = |call: &Call| {
        if call.registers() {
            let maps = std::fs::read_to_string(format!("/proc/{}/maps", call.thread)).unwrap();
            let line = maps.lines().find(|line| {
                let start = format!("{:x}-", call.rest[0]);
                line.starts_with(&start)
            });
            assert!(line.unwrap().contains("sframe-area"), "{line:?}");
            areas.push(bytes(call));
        }
    };
    let replies = [Reply::Value(3), Reply::Value(4), Reply::Value(1)];
    let Some(ran) = ran_with(name, &program, replies, see) else {
        return;
    };
    assert_eq!(ran.said, area_says(3, 4));
    // Each as large as it says, and the second one in the place of the first; taken back once.
    let [first, second] = [&areas[0], &areas[1]].map(|bytes| {
        let header = bytes.first_chunk().unwrap();
        Geometry::parse(header, bytes.len() as u64).unwrap()
    });
    assert_eq!([first.capacity, second.capacity], [1024, 2048]);
    let key = ran.calls[0].key;
    assert_eq!([first.key, second.text.start], [key; 2]);
    let calls = ran.calls.iter().map(|c| (c.option, c.key, c.rest[2]));
    let expected = [
        (REGISTER, key, abi::KIND_AREA),
        (REGISTER, key, abi::KIND_AREA | REPLACE),
        (UNREGISTER, key, 0),
    ];
    assert_eq!(calls.collect::<Vec<_>>(), expected);
}

#[test]
fn an_area_works_whatever_registering_it_is_answered() {
    let name = "an_area_works_whatever_registering_it_is_answered";
    let program = compile_example("gcc", "area.c", name, &["-std=c11", &archive()]);
    for (errno, answer) in [(libc::EINVAL, 0), (libc::EEXIST, -17), (libc::ENOSPC, -28)] {
        let Some(ran) = ran_with(name, &program, [Reply::Errno(errno); 3], |_| {}) else {
            return;
        };
        assert_eq!(ran.said, area_says(answer, answer));
        // What was refused is not taken back.
        let registered = ran.calls.iter().filter(|call| call.registers()).count();
        assert_eq!(
            (registered, ran.calls.len()),
            (2, 2 + usize::from(answer == 0))
        );
    }
}

#[test]
fn the_example_of_areas_is_c_plus_plus_too() {
    let name = "the_example_of_areas_is_c_plus_plus_too";
    if Command::new("g++").arg("--version").output().is_err() {
        println!("SKIPPED {name}: no g++");
        return;
    }
    let program = compile_example("g++", "area.c", name, &["-std=c++11", &archive()]);
    if let Some(ran) = ran_with(name, &program, [Reply::Value(1); 3], |_| {}) {
        assert_eq!(ran.said, area_says(1, 1));
    }
}

#[test]
fn each_answer_is_a_number_of_its_own_in_c() {
    let name = "each_answer_is_a_number_of_its_own_in_c";
    let program = compile("gcc", name, &["-std=c11", &archive()]);
    for errno in [libc::EINVAL, libc::ENOSYS, libc::EPERM] {
        let Some(ran) = ran(name, &program, [Reply::Errno(errno); 3]) else {
            return;
        };
        for what in ["register", "replace", "unregister"] {
            assert!(ran.said.contains(&format!("{what}: nobody answered")));
        }
    }
    for refusal in Refusal::ALL {
        if *refusal == Refusal::Arguments {
            continue;
        }
        let errno = refusal.errno();
        let Some(ran) = ran(name, &program, [Reply::Errno(errno); 3]) else {
            return;
        };
        // As libc says it, without Rust's "(os error 2)".
        let text = std::io::Error::from_raw_os_error(errno).to_string();
        let text = text.split(" (os error").next().unwrap();
        for what in ["register", "replace", "unregister"] {
            let line = format!("{what}: refused, {text}");
            assert!(ran.said.contains(&line), "{:?} for {line}", ran.said);
        }
    }
}

#[test]
fn the_header_is_c_plus_plus_too() {
    let name = "the_header_is_c_plus_plus_too";
    if Command::new("g++").arg("--version").output().is_err() {
        println!("SKIPPED {name}: no g++");
        return;
    }
    let program = compile("g++", name, &["-std=c++11", &archive()]);
    if let Some(ran) = ran(name, &program, [Reply::Value(1); 3]) {
        assert!(ran.said.contains(&"register: accepted, 1".to_owned()));
    }
}

#[test]
fn the_shared_library_needs_nobody_and_cannot_panic() {
    let name = "the_shared_library_needs_nobody_and_cannot_panic";
    let folder = libraries().display().to_string();
    let path = format!("-Wl,-rpath,{folder}");
    let more = ["-std=c11", "-L", &folder, "-lframewalk_announce", &path];
    let program = compile("gcc", name, &more);
    if let Some(ran) = ran(name, &program, [Reply::Value(2); 3]) {
        assert!(ran.said.contains(&"unregister: accepted, 2".to_owned()));
    }

    let library = libraries().join("libframewalk_announce.so");
    let functions = [
        "framewalk_area_answer",
        "framewalk_area_create",
        "framewalk_area_destroy",
        "framewalk_area_map",
        "framewalk_area_move",
        "framewalk_area_publish",
        "framewalk_area_replace",
        "framewalk_area_reset",
        "framewalk_area_tombstone",
        "framewalk_register",
        "framewalk_unregister",
    ];
    without_std::assert_alone(&library, &functions);
    assert_eq!(without_std::needs(&program), 2, "libc and the library");
}

#[test]
fn the_header_has_the_numbers_of_the_abi() {
    let header = std::fs::read_to_string(format!("{CRATE}/include/framewalk.h")).unwrap();
    let defines = [
        ("FRAMEWALK_PR_REGISTER", u64::from(abi::REGISTER)),
        ("FRAMEWALK_PR_UNREGISTER", u64::from(abi::UNREGISTER)),
        ("FRAMEWALK_REPLACE", abi::REPLACE),
    ];
    for (name, number) in defines {
        let line = format!("#define {name} {number:#x}");
        assert!(header.contains(&line), "{line}");
    }
    for refusal in Refusal::ALL {
        let (number, name) = (refusal.errno(), refusal.name());
        assert!(
            header.contains(&format!(" = {number}, /* {name}: ")),
            "{name}"
        );
    }
}
