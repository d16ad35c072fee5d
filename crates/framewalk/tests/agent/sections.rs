//! What is listed.

use crate::running::{Agent, Announcer, Folder, framewalk, stderr, stdout, until};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;

fn hex(value: &Value) -> u64 {
    let text = value.as_str().unwrap();
    u64::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap()
}

#[test]
fn what_is_registered_is_listed_until_it_is_taken_back() {
    let folder = Folder::new();
    let test = "what_is_registered_is_listed_until_it_is_taken_back";
    let Some(agent) = Agent::start(test, &folder) else {
        return;
    };
    let mut announcer = Announcer::start();
    let pid = announcer.pid();
    assert_eq!(agent.announced(pid).len(), 0);
    for (library, version) in [("calls.v3.so", 3), ("calls.v2.so", 2)] {
        let registered = announcer.load(library);
        agent.accepted(registered.answer);
        let section = agent.section(pid, registered.key).unwrap();
        assert_eq!(section["source"], "announced");
        // What readelf prints for the file.
        assert_eq!(section["version"], version);
        assert_eq!(
            (&section["functions"], &section["rows"]),
            (&7.into(), &29.into())
        );
        let text = &section["text"];
        assert_eq!(hex(&text[0]) - registered.key, 0x1000);
        assert_eq!(hex(&text[1]) - registered.key, 0x11d6);
        let announced = &section["announced"];
        assert_eq!(announced["writable"], false);
        assert_eq!(hex(&announced["section"][0]), registered.address);
        assert_eq!(
            hex(&announced["section"][1]),
            registered.address + registered.length
        );
        assert_eq!(
            (&announced["frames"], &announced["unreadable"]),
            (&0.into(), &0.into())
        );
        let looked = until("the agent has looked at it", || {
            let section = agent.section(pid, registered.key).unwrap();
            section["announced"]["changed"].as_bool()
        });
        assert!(!looked, "unchanged");
    }
    let copy = announcer.register("copy");
    let section = agent.section(pid, copy.key).unwrap();
    assert_eq!(section["announced"]["writable"], true);

    let sections = agent.announced(pid);
    let starts: Vec<u64> = sections
        .iter()
        .map(|section| hex(&section["text"][0]))
        .collect();
    assert_eq!(starts.len(), 3);
    assert!(starts.is_sorted(), "{starts:x?}");
    for (left, section) in sections.iter().enumerate() {
        let key = section["announced"]["key"].as_str().unwrap();
        let answer = announcer.number(&format!("unregister {key}"));
        assert_eq!(answer, if agent.answers { 1 } else { -22 });
        assert_eq!(agent.announced(pid).len(), 2 - left);
    }
}

/// Text ranges of these sources in the libraries of the fixtures.
fn ranges(process: &Value, sources: &[&str]) -> BTreeMap<String, (u64, u64)> {
    let sections = process["sections"].as_array().unwrap().iter();
    let of_source =
        sections.filter(|section| sources.contains(&section["source"].as_str().unwrap()));
    of_source
        .filter_map(|section| {
            let name = section["object"].as_str()?.rsplit('/').next()?;
            let range = (hex(&section["text"][0]), hex(&section["text"][1]));
            name.starts_with("calls").then(|| (name.to_string(), range))
        })
        .collect()
}

#[test]
fn an_agent_that_starts_late_finds_the_same_by_discovery() {
    let folder = Folder::new();
    let test = "an_agent_that_starts_late_finds_the_same_by_discovery";
    let Some(early) = Agent::start(test, &folder) else {
        return;
    };
    let mut announcer = Announcer::start();
    announcer.load("calls.v3.so");
    announcer.load("calls.v2.so");
    let pid = announcer.pid().to_string();
    let heard = early.sections(&["-p", &pid])["processes"][0].clone();
    let announced = ranges(&heard, &["announced"]);
    assert_eq!(announced.len(), 2);
    early.end(Signal::TERM);

    let late = Agent::start(test, &folder).unwrap();
    let found = late.sections(&["-p", &pid])["processes"][0].clone();
    println!("{found}");
    assert_eq!(ranges(&found, &["announced"]).len(), 0);
    assert_eq!(ranges(&found, &["file", "converted"]), announced);
    let file = ranges(&found, &["file"]);
    assert_eq!(file.get("calls.v3.so"), announced.get("calls.v3.so"));
    // Whoever discovers uses only V3: the other library's table is made from its .eh_frame.
    assert_eq!(file.len(), 1);

    // The same without any agent.
    late.end(Signal::TERM);
    let output = framewalk(&["sections", "--json", "-p", &pid, "--pin", folder.name()]);
    assert!(output.status.success());
    assert!(stderr(&output).contains("no agent is running"));
    let alone: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(alone["agent"], Value::Null);
    assert_eq!(alone["processes"][0], found);
}

#[test]
fn the_table_fits_and_terminals_are_left_alone() {
    let folder = Folder::new();
    let test = "the_table_fits_and_terminals_are_left_alone";
    let Some(agent) = Agent::start(test, &folder) else {
        return;
    };
    let name = std::env::temp_dir().join(format!("\x1b[31m{}", std::process::id()));
    let mut announcer = Announcer::start_under(&name);
    std::fs::remove_file(&name).unwrap();
    announcer.load("calls.v3.so");
    let pid = announcer.pid().to_string();
    for more in [&[][..], &["-p", &pid]] {
        let output = framewalk(&[&["sections", "--pin", &agent.folder], more].concat());
        let text = stdout(&output);
        println!("{text}");
        assert!(output.status.success());
        assert!(text.contains("announced") && !text.contains('\x1b'));
        assert_eq!(
            text.contains("libc.so.6"),
            !more.is_empty(),
            "discovered with -p only"
        );
        let heading = text.lines().nth(1).unwrap();
        assert!(heading.trim_start().starts_with("text") && heading.contains("changed"));
        assert!(heading.chars().count() <= 120);
        for line in text.lines().filter(|line| line.contains(" announced ")) {
            assert!(line.chars().count() <= 120, "{line}");
        }
    }
}

#[test]
fn processes_that_cannot_be_listed() {
    let refused = |pid: &str, part: &str| {
        let output = framewalk(&[
            "sections",
            "-p",
            pid,
            "--pin",
            "/sys/fs/bpf/framewalk_test_nobody",
        ]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(part), "{said}");
    };
    refused("2147483647", "there is no process");
    let thread = std::thread::spawn(move || {
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        refused(&tid.to_string(), "is a thread of process");
    });
    thread.join().unwrap();
}
