//! The command line.

use crate::engines::{Kind, Mode};
use clap::builder::RangedU64ValueParser;
use clap::{ArgGroup, Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The highest sampling rate: the kernel's software clock does not tick faster than every 10 us.
const MAX_FREQUENCY: u64 = 100_000;

/// A profiler that walks user stacks inside the kernel through SFrame.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, propagate_version = true)]
pub struct Command {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs of `framewalk`.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Record where a command, processes or the whole machine spend their CPU time.
    Record(Record),
    /// Listen for the whole machine to what programs announce about their code, until SIGINT or SIGTERM.
    Agent(Agent),
    /// List the ranges of code that unwind data is known of: announced ones, and those that are discovered.
    Sections(Sections),
    /// Say what is possible on this machine, and what is missing for the rest.
    Doctor(Doctor),
}

const AFTER_RECORD_HELP: &str = "\
FILE decides the format: .svg (flame graph), .folded (one line per stack), .pb.gz (pprof),
.json.gz (Firefox Profiler).

Names in the output: `name_[k]` is a function of the kernel, `name_[?]` a caller that is only a
guess (found by frame pointer, in code that no unwind data describes), `[cut off: ...]` stands for
the callers of a stack that could not be walked to its end, and says why.

Examples:
  framewalk record -- python3 work.py          until the command ends
  framewalk record -d 10 -o out.pb.gz -p 4711  a running process, for 10 seconds
  sudo framewalk record -d 10 -a               everything on this machine";

/// `framewalk record`.
#[derive(Debug, Clone, Args)]
#[command(after_help = AFTER_RECORD_HELP)]
#[command(override_usage = "framewalk record [OPTIONS] (-p PID... | -a | -- COMMAND...)")]
#[command(group = ArgGroup::new("target").required(true).args(["pids", "all", "command"]))]
pub struct Record {
    /// Samples per second of every running thread.
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = 997)]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(1..=MAX_FREQUENCY))]
    pub frequency: u32,

    /// Stop after so long (fractions allowed). A COMMAND that still runs then gets SIGTERM.
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,

    /// Where to write the profile; the end of the name decides the format.
    #[arg(short, long, value_name = "FILE", default_value = "framewalk.svg")]
    pub output: PathBuf,

    /// How to take samples. `auto` takes the best that is allowed here: inside the kernel, else by
    /// perf_event_open with copies of stacks, else by ptrace.
    #[arg(long, value_name = "ENGINE", default_value = "auto", value_parser = engine)]
    #[arg(help = "How to take samples: auto, kernel, perf or ptrace")]
    pub engine: Engine,

    /// When the kernel walks: `deferred` (before the thread returns to user space, page faults
    /// allowed; Linux 6.18 and later) or `immediate`. Other than `auto` asks for the kernel engine.
    #[arg(long, value_name = "MODE", default_value = "auto", value_parser = mode)]
    #[arg(help = "When the kernel walks: auto, deferred (Linux 6.18 and later) or immediate")]
    pub mode: Mode,

    /// Also write what was counted, as JSON.
    #[arg(long, value_name = "FILE.json")]
    pub stats: Option<PathBuf>,

    /// Frames of a user stack, at most.
    #[arg(long, value_name = "N", default_value_t = 510)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=510))]
    pub max_frames: usize,

    /// Record these processes, with all their threads and what they start from now on.
    #[arg(short = 'p', long = "pid", value_name = "PID", value_delimiter = ',')]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(1..=i32::MAX as u64))]
    pub pids: Vec<u32>,

    /// Record everything on this machine.
    #[arg(short, long)]
    pub all: bool,

    /// Run this and record it from its first instruction to its end.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

const AFTER_AGENT_HELP: &str = "\
One agent runs at a time. Recordings that are started meanwhile use what it knows. Every minute, and
every second where they can be written, it looks whether announced sections are still what they
were; those that changed are not used any more.";

/// `framewalk agent`.
#[derive(Debug, Clone, Args)]
#[command(after_help = AFTER_AGENT_HELP)]
pub struct Agent {
    /// Where to make the maps known to others: a folder in a BPF file system.
    #[arg(long, value_name = "DIR", default_value = crate::agent::FOLDER)]
    pub pin: PathBuf,
}

const AFTER_SECTIONS_HELP: &str = "\
Without PID: what all processes have announced, as the agent knows it. With PID: also what is
discovered in the files that these processes map, whether anybody announced it or not. (For all
processes that would take minutes: tables are made from every mapped file.)

writable, changed: the section, when it was announced and since. frames, unreadable, malformed: what
it was good for. A `?` is for what nobody has looked at, a `-` for what has no meaning there.";

/// `framewalk sections`.
#[derive(Debug, Clone, Args)]
#[command(after_help = AFTER_SECTIONS_HELP)]
pub struct Sections {
    /// These processes, with what is discovered.
    #[arg(short = 'p', long = "pid", value_name = "PID", value_delimiter = ',')]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(1..=i32::MAX as u64))]
    pub pids: Vec<u32>,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the agent makes its maps known.
    #[arg(long, value_name = "DIR", default_value = crate::agent::FOLDER)]
    pub pin: PathBuf,
}

const AFTER_DOCTOR_HELP: &str = "\
The exit status is 0 if at least one engine can record.";

/// `framewalk doctor`.
#[derive(Debug, Clone, Args)]
#[command(after_help = AFTER_DOCTOR_HELP)]
pub struct Doctor {
    /// Where the agent makes its maps known.
    #[arg(long, value_name = "DIR", default_value = crate::agent::FOLDER)]
    pub pin: PathBuf,
}

/// `--engine`: one of them, or the best that is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engine(pub Option<Kind>);

fn engine(name: &str) -> Result<Engine, String> {
    if name == "auto" {
        return Ok(Engine(None));
    }
    let kind = Kind::ALL.iter().find(|kind| kind.name() == name);
    kind.map(|&kind| Engine(Some(kind)))
        .ok_or_else(|| one_of("auto", Kind::ALL.iter().map(|kind| kind.name())))
}

fn mode(name: &str) -> Result<Mode, String> {
    let mode = Mode::ALL.iter().find(|mode| mode.name() == name);
    mode.copied()
        .ok_or_else(|| one_of("", Mode::ALL.iter().map(|mode| mode.name())))
}

fn one_of<'a>(first: &'a str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = std::iter::once(first)
        .filter(|name| !name.is_empty())
        .chain(names)
        .collect();
    format!("choose one of {}", names.join(", "))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| "a number of seconds is needed".to_string())?;
    match Duration::try_from_secs_f64(number) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("a number of seconds above zero is needed".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(arguments: &[&str]) -> Result<Record, clap::Error> {
        let command = Command::try_parse_from([&["framewalk", "record"], arguments].concat())?;
        match command.verb {
            Verb::Record(record) => Ok(record),
            verb => panic!("{verb:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Command::command().debug_assert();
    }

    #[test]
    fn a_command_keeps_its_own_options() {
        for arguments in [
            &["-F", "99", "--", "ls", "-a", "-p", "1"][..],
            &["-F", "99", "ls", "-a", "-p", "1"],
        ] {
            let record = record(arguments).unwrap();
            assert_eq!(record.command, ["ls", "-a", "-p", "1"]);
            assert_eq!(
                (record.frequency, record.all, record.pids.len()),
                (99, false, 0)
            );
        }
    }

    #[test]
    fn exactly_one_target() {
        assert!(record(&[]).is_err());
        assert!(record(&["-a", "-p", "1"]).is_err());
        assert!(record(&["-a", "--", "ls"]).is_err());
        assert!(record(&["-p", "1", "--", "ls"]).is_err());
        assert_eq!(record(&["-p", "1,2", "-p", "3"]).unwrap().pids, [1, 2, 3]);
        assert!(record(&["-a"]).unwrap().all);
    }

    #[test]
    fn nonsense_is_refused() {
        for arguments in [
            ["-F", "0"],
            ["-F", "100001"],
            ["-d", "0"],
            ["-d", "-1"],
            ["-d", "nan"],
            ["-d", "1e300"],
            ["-d", "soon"],
            ["--engine", "steam"],
            ["--mode", "later"],
            ["--max-frames", "0"],
            ["--max-frames", "511"],
            ["-p", "0"],
            ["-p", "self"],
        ] {
            assert!(
                record(&[&arguments[..], &["-a"]].concat()).is_err(),
                "{arguments:?}"
            );
        }
        assert_eq!(
            record(&["-d", "0.5", "-a"]).unwrap().duration,
            Some(Duration::from_millis(500))
        );
        assert_eq!(
            record(&["--engine", "perf", "-a"]).unwrap().engine,
            Engine(Some(Kind::Perf))
        );
    }
}
