//! The workshop: the tasks of people and of continuous integration alike, and what checks and
//! measures the project against the rest of the world.

#[cfg(feature = "bench")]
mod bench;
mod demo;
mod fences;
mod fuzz;
mod header;
mod oracle;
mod run;
mod test;
mod vm;

use std::process::ExitCode;

/// A task: its name, its arguments for the list, a line of help, and what it does.
struct Task {
    name: &'static str,
    arguments: &'static str,
    help: &'static str,
    run: fn(&[&str]) -> ExitCode,
}

const TASKS: &[Task] = &[
    Task {
        name: "demo",
        arguments: "[OPTION...]",
        help: "record a real program into flamegraph.svg (options go to `framewalk record`)",
        run: demo::run,
    },
    Task {
        name: "test",
        arguments: "",
        help: "all tests and checks, as CI runs them",
        run: test::run,
    },
    Task {
        name: "vm",
        arguments: "[KERNEL...] [PAYLOAD...]",
        help: "the tests that need another kernel, each in an emulated machine",
        run: vm::run,
    },
    Task {
        name: "fmt",
        arguments: "",
        help: "check the formatting",
        run: |_| run::exit(run::cargo(test::FMT)),
    },
    Task {
        name: "clippy",
        arguments: "",
        help: "lint everything",
        run: |_| run::exit(run::cargo(test::CLIPPY)),
    },
    Task {
        name: "fuzz",
        arguments: "all [SECONDS] | TARGET... [SECONDS] | keep",
        help: "run the targets of fuzz/ under libFuzzer, a minute each (needs g++); keep the smallest corpora",
        run: fuzz::run,
    },
    #[cfg(feature = "bench")]
    Task {
        name: "bench",
        arguments: "[cost] [python] [dwarf] [conversion] [announce] [audit] [integrity] [area] [build]",
        help: "measure, and print one table (as root)",
        run: bench::run,
    },
    Task {
        name: "header",
        arguments: "",
        help: "print crates/announce/include/framewalk.h from the Rust tables",
        run: header::run,
    },
    Task {
        name: "oracle",
        arguments: "convert [PATH...] | readelf FILE... | step [PROGRAM...] | machines [MACHINE...]",
        help: "compare conversions with gimli, sections with readelf, walks with what stepping saw",
        run: oracle::run,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if words == [vm::GUEST] {
        return vm::guest();
    }
    let task = words
        .first()
        .and_then(|name| TASKS.iter().find(|task| task.name == *name));
    match task {
        Some(task) => (task.run)(&words[1..]),
        None => {
            eprintln!("usage: ./run TASK, where TASK is one of\n");
            eprintln!("  {:<44}  install what is missing", "setup");
            for task in TASKS {
                let words = format!("{} {}", task.name, task.arguments);
                eprintln!("  {words:<44}  {}", task.help);
            }
            ExitCode::from(2)
        }
    }
}
