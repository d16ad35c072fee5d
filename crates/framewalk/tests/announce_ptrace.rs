//! Announcements (docs/abi.md) that the ptrace engine answers, and stacks that are walked by them: without
//! any privilege, as a program sees it.

#[allow(dead_code)]
#[path = "recording/memory_only.rs"]
mod memory_only;
#[allow(dead_code)]
#[path = "recording/recorded.rs"]
mod recorded;
#[allow(dead_code)]
#[path = "recording/targets.rs"]
mod targets;

use framewalk::engines::ptrace::Ptrace;
use framewalk::engines::{Engine, Settings, Target};
use framewalk::launch;
use framewalk::processes::Objects;
use framewalk::sample::{Place, Sample};
use framewalk_walk::{Origin, Stop};
use memory_only::MemoryOnly;
use recorded::{Stack, framewalk, record, skip, words};
use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use targets::{Directory, compile, sources};

/// Builds a target without flags of its own.
fn target(directory: &Directory, name: &str) -> PathBuf {
    let program = directory.path(name);
    compile(&sources().join(format!("{name}.c")), &program, &[]);
    program
}

/// Checks that a part of `announce` found all answers right, and at least so many.
fn check(part: &str, least: u64, output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    let recorder = String::from_utf8_lossy(&output.stderr);
    println!("{said}{recorder}");
    assert!(!said.contains("FAILED"));
    let end = said
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{part}: ")));
    let good = end.and_then(|end| end.strip_suffix(" ok, 0 failed"));
    let good: u64 = good.expect("the program came to its end").parse().unwrap();
    assert!(good >= least, "{good} answers");
    assert!(recorder.contains(" exited with status 0"));
    assert!(recorder.contains("engine ptrace"));
}

/// Records a part of `announce` with the ptrace engine.
fn part(test: &str, part: &str, least: u64, options: &[&str]) {
    let directory = Directory::new();
    let mut arguments = words(&["--engine", "ptrace", "-F", "1999", "-o"]);
    arguments.push(directory.path("x.folded").into());
    arguments.extend(words(options));
    arguments.extend(words(&[
        "--".as_ref(),
        target(&directory, "announce").as_os_str(),
    ]));
    arguments.extend(words(&[part]));
    let output = framewalk(&arguments);
    if let Some(why) = refused(&output) {
        return skip(test, &why);
    }
    check(part, least, &output);
}

/// Why nothing can be recorded here.
fn refused(output: &Output) -> Option<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    let refused = said.contains("nothing can be recorded here");
    refused.then(|| {
        said.trim()
            .lines()
            .last()
            .unwrap_or_default()
            .trim()
            .to_string()
    })
}

#[test]
fn the_program_sees_every_error() {
    part("the_program_sees_every_error", "errors", 110, &[]);
}

#[test]
fn threads_share_what_is_registered() {
    part("threads_share_what_is_registered", "threads", 24, &[]);
}

#[test]
fn a_fork_has_a_copy() {
    part("a_fork_has_a_copy", "fork", 8, &[]);
}

#[test]
fn a_vfork_shares_until_its_exec() {
    part("a_vfork_shares_until_its_exec", "vfork", 20, &[]);
}

#[test]
fn an_exec_drops_all() {
    part("an_exec_drops_all", "exec", 5, &[]);
}

#[test]
fn signals_do_not_disturb_answers() {
    part("signals_do_not_disturb_answers", "signals", 1, &[]);
}

#[test]
fn filters_of_the_program_work_as_without_a_tracer() {
    part(
        "filters_of_the_program_work_as_without_a_tracer",
        "filters",
        7,
        &[],
    );
}

#[test]
fn nobody_answers_when_the_recording_is_over() {
    part(
        "nobody_answers_when_the_recording_is_over",
        "outlast",
        3,
        &["-d", "0.5"],
    );
}

/// A directory that everybody may use, with copies of programs.
struct Open(PathBuf);

impl Open {
    fn new(test: &str, programs: &[&Path]) -> Open {
        let path = std::env::temp_dir().join(format!("framewalk-{test}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        for program in programs {
            std::fs::copy(program, path.join(program.file_name().unwrap())).unwrap();
        }
        Open(path)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Somebody without privileges: the words in front of a command.
fn nobody() -> Vec<&'static str> {
    match rustix::process::geteuid().is_root() {
        true => vec![
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--bounding-set=-all",
        ],
        false => vec!["env"],
    }
}

/// Records all errors from behind these words; what the command then says of its "no new privileges".
fn from_behind(test: &str, words: &[&str], engine: &str) -> Option<String> {
    let [first, more @ ..] = words else {
        return None;
    };
    let possible = Command::new(first).args(more).arg("true").output();
    match possible {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            skip(
                test,
                &format!(
                    "{first}: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                ),
            );
            return None;
        }
        Err(error) => {
            skip(test, &format!("{first}: {error}"));
            return None;
        }
    }
    let directory = Directory::new();
    let (denied, announce) = (target(&directory, "denied"), target(&directory, "announce"));
    let framewalk = Path::new(env!("CARGO_BIN_EXE_framewalk"));
    let open = Open::new(test, &[&denied, &announce, framewalk]);
    let script = "grep NoNewPrivs: /proc/self/status && exec ./announce errors";
    let mut command = Command::new(first);
    command.args(more);
    if engine == "auto" {
        command.arg("./denied");
    }
    let output = command
        .args([
            "./framewalk",
            "record",
            "--engine",
            engine,
            "-o",
            "x.folded",
        ])
        .args(["--", "sh", "-c", script])
        .current_dir(&open.0)
        .output()
        .unwrap();
    if let Some(why) = refused(&output) {
        skip(test, &why);
        return None;
    }
    check("errors", 110, &output);
    let said = String::from_utf8_lossy(&output.stdout);
    let new = said
        .lines()
        .find_map(|line| line.strip_prefix("NoNewPrivs:"));
    Some(new.unwrap().trim().to_string())
}

/// As a container does it: root of a user namespace, where perf_event_open(2) and bpf(2) are denied.
#[test]
fn in_a_user_namespace_without_perf_events() {
    let test = "in_a_user_namespace_without_perf_events";
    let new = from_behind(test, &["unshare", "-Ur"], "auto");
    // There is the capability for a filter.
    assert!(new.is_none_or(|new| new == "0"));
}

#[test]
fn as_nobody_without_perf_events() {
    from_behind("as_nobody_without_perf_events", &nobody(), "auto");
}

#[test]
fn as_nobody_by_giving_up_new_privileges() {
    let test = "as_nobody_by_giving_up_new_privileges";
    let new = from_behind(test, &nobody(), "ptrace");
    assert!(new.is_none_or(|new| new == "1"));
}

const DEPTH: usize = 40;

/// The words that run `memory_only`.
fn memory_only(built: &MemoryOnly, milliseconds: &str, what: &str) -> Vec<OsString> {
    let depth = DEPTH.to_string();
    words(&[
        built.program.as_os_str(),
        built.blob.as_os_str(),
        milliseconds.as_ref(),
        depth.as_ref(),
        what.as_ref(),
    ])
}

/// Takes samples of a command until it ends.
fn samples(test: &str, command: &[OsString]) -> Option<(Vec<Sample>, Vec<String>)> {
    let waiting = launch::hold(command).unwrap();
    let settings = Settings {
        frequency: 997,
        max_frames: 510,
    };
    let mut engine = match Ptrace::open(&Target::Child(waiting.pid()), settings) {
        Ok(engine) => engine,
        Err(unavailable) => {
            skip(
                test,
                &format!("{} (missing: {})", unavailable.what, unavailable.missing),
            );
            return None;
        }
    };
    engine.start().unwrap();
    let (_running, unheard) = waiting.release_to_tracer().unwrap();
    assert!(unheard.is_none(), "{unheard:?}");
    let (mut objects, mut samples) = (Objects::default(), Vec::new());
    let give_up = Instant::now() + Duration::from_secs(60);
    let wait = Duration::from_millis(50);
    while engine
        .poll(wait, &mut objects, &mut |sample| samples.push(sample))
        .unwrap()
    {
        assert!(Instant::now() < give_up);
    }
    let counts = engine.finish(&mut objects, &mut |_| {}).unwrap();
    println!("{counts:?}");
    Some((samples, counts.notes))
}

/// The functions in memory of a stack, innermost first.
fn in_memory<'a>(built: &'a MemoryOnly, sample: &Sample) -> Vec<&'a str> {
    let frames = sample.frames.iter().filter_map(|frame| match frame.place {
        Place::Anonymous(pc) => Some(pc - u64::from(frame.is_return_address)),
        _ => None,
    });
    frames
        .map(|pc| built.function(pc).expect("a function in memory"))
        .collect()
}

/// Samples that were taken in the innermost function in memory.
fn burning<'a>(built: &MemoryOnly, samples: &'a [Sample]) -> Vec<&'a Sample> {
    let burns = |sample: &&Sample| in_memory(built, sample).first() == Some(&"burn");
    let burning: Vec<_> = samples.iter().filter(burns).collect();
    assert!(
        burning.len() >= 30,
        "{} of {}",
        burning.len(),
        samples.len()
    );
    burning
}

#[test]
fn code_and_section_in_memory_alone() {
    let test = "code_and_section_in_memory_alone";
    let built = MemoryOnly::build();
    let Some((samples, notes)) = samples(test, &memory_only(&built, "1000", "announce")) else {
        return;
    };
    assert!(notes.is_empty(), "{notes:?}");
    let burning = burning(&built, &samples);
    for sample in &burning {
        assert_eq!(in_memory(&built, sample), MemoryOnly::stack(DEPTH));
        assert_eq!(sample.stop, Stop::Outermost, "{sample:?}");
        // The rows of the functions in memory led to their callers, the last one to `run`.
        let by_announced = sample
            .frames
            .iter()
            .take_while(|frame| matches!(frame.origin, Origin::Registers | Origin::Announced));
        assert_eq!(by_announced.count(), 1 + DEPTH + 2);
        let guessed = |origin| origin == Origin::FramePointer;
        assert!(!sample.frames.iter().any(|frame| guessed(frame.origin)));
    }
    let complete = samples
        .iter()
        .filter(|sample| sample.stop == Stop::Outermost);
    let complete = complete.count();
    assert!(
        complete * 100 >= samples.len() * 98,
        "{complete} of {}",
        samples.len()
    );
}

#[test]
fn without_an_announcement_there_is_no_way_out() {
    let test = "without_an_announcement_there_is_no_way_out";
    let built = MemoryOnly::build();
    let Some((samples, _)) = samples(test, &memory_only(&built, "500", "silent")) else {
        return;
    };
    for sample in burning(&built, &samples) {
        assert_ne!(sample.stop, Stop::Outermost, "{sample:?}");
        assert_ne!(in_memory(&built, sample), MemoryOnly::stack(DEPTH));
    }
    let mut frames = samples.iter().flat_map(|sample| &sample.frames);
    assert!(frames.all(|frame| frame.origin != Origin::Announced));
}

#[test]
fn a_section_that_has_vanished_is_counted_and_passed_over() {
    let test = "a_section_that_has_vanished_is_counted_and_passed_over";
    let built = MemoryOnly::build();
    let Some((samples, notes)) = samples(test, &memory_only(&built, "500", "vanish")) else {
        return;
    };
    for sample in burning(&built, &samples) {
        assert_ne!(sample.stop, Stop::Outermost, "{sample:?}");
    }
    assert_eq!(notes, ["1 announced sections could not be read"]);
}

/// The same as people do it.
#[test]
fn record_says_what_was_walked_by_announcements() {
    let test = "record_says_what_was_walked_by_announcements";
    let built = MemoryOnly::build();
    let mut arguments = words(&["--engine", "ptrace", "--"]);
    arguments.extend(memory_only(&built, "1000", "announce"));
    let Some(recorded) = record(test, &arguments) else {
        return;
    };
    let anonymous = |stack: &Stack| {
        let anonymous = |name: &&String| *name == "[anonymous code]";
        stack.user.iter().filter(anonymous).count()
    };
    // How many others there are, before and after, is the machine's load.
    let all = recorded.samples_where(|stack| anonymous(stack) > 0);
    let whole = recorded.samples_where(|stack| {
        let complete = stack.cut.is_none() && stack.has("main") && stack.has("run");
        complete && anonymous(stack) == DEPTH + 2
    });
    assert!(whole >= 20 && whole * 100 >= all * 98, "{whole} of {all}");
    let announced = recorded.stats["origins"]["announced"].as_u64().unwrap_or(0);
    assert!(announced >= whole * (DEPTH as u64 + 2), "{announced}");
}
