//! The whole way of a recording, from the command line to the file, with a fake engine.

use clap::Parser;
use framewalk::args::{self, Command, Verb};
use framewalk::commands::record;
use framewalk::engines::{Counts, Engine, Kind, Mode, Settings, Target, Unavailable};
use framewalk::processes::Objects;
use framewalk::sample::{Frame, Place, Sample};
use framewalk_walk::{Origin, Stop};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Delivers samples of this very process, and ends.
struct Fake {
    kind: Kind,
    target: Target,
    samples: Vec<Sample>,
    fails: bool,
}

const COUNTS: (u64, u64, u64) = (2, 12_000, 4096);

impl Engine for Fake {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn mode(&self) -> &'static str {
        "fake"
    }

    fn start(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn poll(
        &mut self,
        _timeout: Duration,
        objects: &mut Objects,
        sink: &mut dyn FnMut(Sample),
    ) -> anyhow::Result<bool> {
        if let Target::Child(pid) = self.target {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
            assert_ne!(
                name.trim(),
                "launch",
                "the command was let go before the first poll"
            );
        }
        objects.add_file(File::open("/proc/self/exe")?, Path::new("/usr/bin/fake"))?;
        self.samples.drain(..).for_each(sink);
        if self.fails {
            anyhow::bail!("the ring is gone")
        } else {
            Ok(false)
        }
    }

    fn finish(
        &mut self,
        _objects: &mut Objects,
        _sink: &mut dyn FnMut(Sample),
    ) -> anyhow::Result<Counts> {
        let (lost, kernel_run_ns, bytes) = COUNTS;
        Ok(Counts {
            lost,
            kernel_run_ns,
            kernel_run_cnt: 7,
            bytes,
            notes: vec!["a note".into()],
        })
    }
}

/// Four samples: two of one stack with kernel, guess and generated code, a cut one, a kernel thread.
fn samples() -> Vec<Sample> {
    let frame = |place, origin| Frame {
        place,
        origin,
        is_return_address: origin != Origin::Registers,
    };
    let kernel = frame(Place::Kernel(8), Origin::Kernel);
    let stack = vec![
        kernel,
        frame(Place::Anonymous(0x1000), Origin::Registers),
        frame(
            Place::Object(framewalk::sample::ObjectId(0), 3),
            Origin::Converted,
        ),
        frame(
            Place::Object(framewalk::sample::ObjectId(0), 5),
            Origin::FramePointer,
        ),
    ];
    let pid = std::process::id();
    let sample = |time_ns, frames, stop| Sample {
        pid,
        tid: pid,
        time_ns,
        comm: "a;b".into(),
        frames,
        stop,
    };
    vec![
        sample(10, stack.clone(), Stop::Outermost),
        sample(30, stack.clone(), Stop::Outermost),
        sample(20, stack[2..3].to_vec(), Stop::NoRow),
        Sample {
            pid: 2,
            tid: 2,
            ..sample(5, vec![kernel], Stop::KernelThread)
        },
    ]
}

/// A directory of its own for each test, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path =
            std::env::temp_dir().join(format!("framewalk-record-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn arguments(words: &[&str]) -> args::Record {
    let words = [&["framewalk", "record"], words].concat();
    match Command::try_parse_from(words).unwrap().verb {
        Verb::Record(record) => record,
        other => panic!("{other:?}"),
    }
}

fn unavailable(kind: Kind) -> Unavailable {
    Unavailable {
        what: format!("no {}", kind.name()),
        missing: "CAP_FAKE".into(),
    }
}

fn run(words: &[&str], samples: Vec<Sample>) -> anyhow::Result<()> {
    let mut samples = Some(samples);
    let mut open = |kind, _: Mode, target: &Target, _: Settings| {
        let samples = samples.take().unwrap();
        Ok(Box::new(Fake {
            kind,
            target: target.clone(),
            samples,
            fails: false,
        }) as Box<dyn Engine>)
    };
    record::run(&arguments(words), &mut open)
}

fn gunzip(path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(File::open(path).unwrap())
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

#[test]
fn folded_and_statistics() {
    let directory = Directory::new("folded");
    let (output, stats) = (directory.path("a.folded"), directory.path("a.json"));
    run(&["-o", &output, "--stats", &stats, "-a"], samples()).unwrap();
    let lines = fs::read_to_string(&output).unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    // The kernel address of the fake samples is before the kernel's first symbol.
    let expected = [
        "a:b;[cut off: no unwind data for this pc];fake+0x2 1",
        "a:b;[kernel] 1",
        "a:b;fake+0x4_[?];fake+0x2;[anonymous code];[kernel] 2",
    ];
    assert_eq!(lines, expected);

    let stats: serde_json::Value = serde_json::from_slice(&fs::read(&stats).unwrap()).unwrap();
    assert_eq!(stats["samples"], 4);
    assert_eq!(stats["complete"], 2);
    assert_eq!(stats["lost"], COUNTS.0);
    assert_eq!(stats["frames"], 4 + 4 + 1 + 1);
    assert_eq!(
        stats["stopped"],
        serde_json::json!({ "no-unwind-data": 1, "kernel-thread": 1 })
    );
    assert_eq!(stats["origins"]["frame-pointer"], 2);
    assert_eq!(stats["origins"]["kernel"], 3);
    assert_eq!(
        stats["kernel"],
        serde_json::json!({ "run_ns": COUNTS.1, "run_cnt": 7 })
    );
    assert_eq!(
        (&stats["engine"], &stats["mode"]),
        (&"kernel".into(), &"fake".into())
    );
    assert_eq!(
        (&stats["bytes"], &stats["unique_stacks"]),
        (&COUNTS.2.into(), &3.into())
    );
    assert!(stats["cpu_seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn flame_graph() {
    let directory = Directory::new("svg");
    let output = directory.path("a.svg");
    run(&["-o", &output, "-a"], samples()).unwrap();
    let text = fs::read_to_string(&output).unwrap();
    assert!(text.starts_with("<?xml") && text.trim_end().ends_with("</svg>"));
    for part in [
        "the whole machine",
        "4 samples",
        "[cut off: no unwind data for this pc]",
        "_[?]",
    ] {
        assert!(text.contains(part), "{part}");
    }
}

/// `a;...` comes after `a-b;...` byte by byte, but `a` comes before `a-b`.
#[test]
fn a_flame_graph_of_names_that_begin_alike() {
    let directory = Directory::new("alike");
    let output = directory.path("a.svg");
    let mut alike = samples();
    for (sample, comm) in alike.iter_mut().zip(["a", "a-b", "a", "a.b"]) {
        sample.comm = comm.into();
    }
    run(&["-o", &output, "-a"], alike).unwrap();
    let text = fs::read_to_string(&output).unwrap();
    for (title, boxes) in [("<title>a (2 samples", 1), ("<title>a-b (1 samples", 1)] {
        assert_eq!(text.matches(title).count(), boxes, "{title}: {text}");
    }
}

#[test]
fn nothing_recorded_still_gives_a_file_of_each_format() {
    let directory = Directory::new("nothing");
    for name in ["a.svg", "a.folded", "a.pb.gz", "a.json.gz"] {
        let output = directory.path(name);
        run(&["-o", &output, "-a"], vec![]).unwrap();
        assert!(Path::new(&output).exists(), "{name}");
    }
    assert_eq!(fs::read(directory.path("a.folded")).unwrap(), b"");
    assert!(
        fs::read_to_string(directory.path("a.svg"))
            .unwrap()
            .contains("0 samples")
    );
}

/// A protocol buffer message as its wire format has it: field numbers with numbers or bytes.
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Value {
    fn bytes(&self) -> &[u8] {
        let Value::Bytes(bytes) = self else {
            panic!("a number where bytes are expected")
        };
        bytes
    }

    fn number(&self) -> u64 {
        let Value::Number(number) = self else {
            panic!("bytes where a number is expected")
        };
        *number
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let (&byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    number
}

fn packed(mut bytes: &[u8]) -> Vec<u64> {
    std::iter::from_fn(|| (!bytes.is_empty()).then(|| varint(&mut bytes))).collect()
}

/// The values of one field of a message.
fn field(mut bytes: &[u8], wanted: u64) -> Vec<Value> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)),
            2 => {
                let length = varint(&mut bytes) as usize;
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                Value::Bytes(value.to_vec())
            }
            wire => panic!("wire type {wire} is in no pprof message"),
        };
        if key >> 3 == wanted {
            values.push(value);
        }
    }
    values
}

/// The first value of a numeric field; what is zero is not written.
fn number(bytes: &[u8], wanted: u64) -> u64 {
    field(bytes, wanted).first().map_or(0, Value::number)
}

/// Read by the numbers of pprof's profile.proto, with nothing of the writer.
#[test]
fn pprof_profile() {
    let directory = Directory::new("pprof");
    let output = directory.path("a.pb.gz");
    run(&["-o", &output, "-F", "1000", "-a"], samples()).unwrap();
    let profile = gunzip(&output);
    let strings: Vec<String> = field(&profile, 6)
        .iter()
        .map(|value| String::from_utf8(value.bytes().to_vec()).unwrap())
        .collect();
    assert_eq!(strings[0], "");
    let string = |bytes: &[u8], wanted| strings[number(bytes, wanted) as usize].as_str();
    let by_id = |wanted| -> std::collections::HashMap<u64, Vec<u8>> {
        let messages = field(&profile, wanted);
        messages
            .iter()
            .map(|message| (number(message.bytes(), 1), message.bytes().to_vec()))
            .collect()
    };
    let (mappings, locations, functions) = (by_id(3), by_id(4), by_id(5));
    assert_eq!(number(&profile, 12), 1_000_000, "the period in nanoseconds");
    let types: Vec<_> = field(&profile, 1)
        .iter()
        .map(|t| {
            (
                string(t.bytes(), 1).to_string(),
                string(t.bytes(), 2).to_string(),
            )
        })
        .collect();
    assert_eq!(
        types,
        [
            ("samples".into(), "count".into()),
            ("cpu".into(), "nanoseconds".into())
        ]
    );

    let mut stacks = Vec::new();
    for sample in field(&profile, 2) {
        let sample = sample.bytes();
        let values = packed(field(sample, 2)[0].bytes());
        assert_eq!(values[1], values[0] * 1_000_000);
        let thread = field(sample, 3)
            .iter()
            .any(|label| (string(label.bytes(), 1), string(label.bytes(), 2)) == ("thread", "a;b"));
        assert!(thread, "the thread's name is a label");
        let names = packed(field(sample, 1)[0].bytes())
            .into_iter()
            .flat_map(|location| {
                let location = &locations[&location];
                let mapping = number(location, 2);
                if mapping != 0 {
                    let range = number(&mappings[&mapping], 2)..number(&mappings[&mapping], 3);
                    let in_range = range.contains(&number(location, 3));
                    assert!(in_range || string(&mappings[&mapping], 5) == "[kernel.kallsyms]");
                }
                let lines = field(location, 4);
                assert!(!lines.is_empty());
                let name =
                    |line: &Value| string(&functions[&number(line.bytes(), 1)], 2).to_string();
                lines.iter().map(name).collect::<Vec<_>>()
            });
        stacks.push((values[0], names.collect::<Vec<_>>().join(" < ")));
    }
    stacks.sort();
    let expected = [
        (1, "[kernel]".to_string()),
        (
            1,
            "fake+0x2 < [cut off: no unwind data for this pc]".to_string(),
        ),
        (
            2,
            "[kernel] < [anonymous code] < fake+0x2 < fake+0x4_[?]".to_string(),
        ),
    ];
    assert_eq!(stacks, expected);
    assert!(
        mappings
            .values()
            .any(|mapping| string(mapping, 5) == "/usr/bin/fake")
    );
}

#[test]
fn firefox_profile() {
    let directory = Directory::new("firefox");
    let output = directory.path("a.json.gz");
    run(&["-o", &output, "-F", "1000", "-a"], samples()).unwrap();
    let profile: serde_json::Value = serde_json::from_slice(&gunzip(&output)).unwrap();
    assert_eq!(profile["meta"]["interval"], 1.0);
    assert_eq!(profile["meta"]["symbolicated"], true);
    let categories = profile["meta"]["categories"].as_array().unwrap();
    let category = |name: &str| {
        categories
            .iter()
            .position(|category| category["name"] == name)
            .unwrap()
    };
    let threads = profile["threads"].as_array().unwrap();
    assert_eq!(threads.len(), 2);
    let pid = std::process::id().to_string();
    let thread = threads
        .iter()
        .find(|thread| thread["pid"] == pid.as_str())
        .unwrap();
    assert_eq!(thread["name"], "a;b");
    let samples = &thread["samples"];
    assert_eq!(samples["length"], 3);
    // Walk the first sample's stack from its innermost frame and collect the categories.
    let column = |table: &str, name: &str, row: u64| thread[table][name][row as usize].as_u64();
    let mut stack = samples["stack"][0].as_u64();
    let mut met = Vec::new();
    while let Some(row) = stack {
        let frame = column("stackTable", "frame", row).unwrap();
        met.push(column("frameTable", "category", frame).unwrap() as usize);
        stack = column("stackTable", "prefix", row);
    }
    let expected = ["Kernel", "Program", "Program", "Guess (by frame pointer)"];
    assert_eq!(met, expected.map(category));
}

#[test]
fn the_best_engine_that_is_allowed_is_taken() {
    let directory = Directory::new("engines");
    let output = directory.path("a.folded");
    let mut asked = Vec::new();
    let mut open = |kind, _: Mode, target: &Target, _: Settings| {
        asked.push(kind);
        match kind {
            Kind::Ptrace => {
                let samples = samples();
                Ok(Box::new(Fake {
                    kind,
                    target: target.clone(),
                    samples,
                    fails: false,
                }) as Box<dyn Engine>)
            }
            kind => Err(unavailable(kind)),
        }
    };
    record::run(&arguments(&["-o", &output, "-a"]), &mut open).unwrap();
    assert_eq!(asked, Kind::ALL);
}

#[test]
fn without_any_engine_there_is_no_file() {
    let directory = Directory::new("none");
    let output = directory.path("a.svg");
    let mut open = |kind, _: Mode, _: &Target, _: Settings| Err(unavailable(kind));
    let error = record::run(&arguments(&["-o", &output, "--", "true"]), &mut open).unwrap_err();
    let error = format!("{error:#}");
    for part in ["no kernel", "no perf", "no ptrace", "CAP_FAKE"] {
        assert!(error.contains(part), "{error}");
    }
    // A mode asks for the one engine that has modes.
    let mut open = |kind, _: Mode, _: &Target, _: Settings| {
        assert_eq!(kind, Kind::Kernel);
        Err(unavailable(kind))
    };
    record::run(
        &arguments(&["-o", &output, "--mode", "deferred", "-a"]),
        &mut open,
    )
    .unwrap_err();
    let error = record::run(
        &arguments(&[
            "-o", &output, "--mode", "deferred", "--engine", "perf", "-a",
        ]),
        &mut open,
    );
    assert!(error.unwrap_err().to_string().contains("--mode"));
    assert!(directory.is_empty());
}

#[test]
fn what_was_recorded_before_an_error_is_written() {
    let directory = Directory::new("error");
    let output = directory.path("a.folded");
    let mut open = |kind, _: Mode, target: &Target, _: Settings| {
        Ok(Box::new(Fake {
            kind,
            target: target.clone(),
            samples: samples(),
            fails: true,
        }) as Box<dyn Engine>)
    };
    let error = record::run(&arguments(&["-o", &output, "-a"]), &mut open).unwrap_err();
    assert!(format!("{error:#}").contains("the ring is gone"));
    assert_eq!(fs::read_to_string(&output).unwrap().lines().count(), 3);
}

#[test]
fn a_command_runs_only_with_an_engine_and_a_name_that_exists() {
    let directory = Directory::new("command");
    let (output, trace) = (directory.path("a.folded"), directory.path("trace"));
    let mut open = |kind, _: Mode, _: &Target, _: Settings| Err(unavailable(kind));
    record::run(
        &arguments(&["-o", &output, "--", "touch", &trace]),
        &mut open,
    )
    .unwrap_err();
    assert!(directory.is_empty(), "it did not run");

    let error = run(&["-o", &output, "--", "/nonexistent/command"], samples()).unwrap_err();
    assert!(
        format!("{error:#}").contains("/nonexistent/command"),
        "{error:#}"
    );
    assert!(directory.is_empty());

    run(&["-o", &output, "--", "sh", "-c", "exit 3"], samples()).unwrap();
    assert!(!fs::read(&output).unwrap().is_empty());
}

#[test]
fn generated_code_has_the_names_of_its_perf_map() {
    let directory = Directory::new("generated");
    let output = directory.path("a.folded");
    let map = format!("/tmp/perf-{}.map", std::process::id());
    fs::write(&map, "5000 10 generated one\n").unwrap();
    let mut sample = samples().swap_remove(0);
    for (frame, address) in sample.frames.iter_mut().zip([0x5008, 0x5010, 0x5011]) {
        frame.place = Place::Anonymous(address);
        frame.is_return_address = frame.origin != Origin::Registers;
    }
    sample.frames.truncate(3);
    let result = run(&["-o", &output, "-a"], vec![sample]);
    fs::remove_file(&map).unwrap();
    result.unwrap();
    let expected = "a:b;[anonymous code];[anonymous code];generated one_[k] 1\n";
    assert_eq!(
        fs::read_to_string(&output).unwrap(),
        expected,
        "0x5010 is behind its end, and so is 0x5011 - 1"
    );
}
