//! `framewalk doctor`.

mod machine;

use crate::agent::{Found, Place};
use crate::args;
use crate::engines::{self, Kind, Mode, Settings, Target, Unavailable};
use crate::launch;
use crate::symbols::clean;
use anyhow::Context;
use framewalk_kernel::{Hook, Registry};
use machine::Capabilities;
use std::io::{self, Write};
use std::process::ExitCode;

/// What is opened, as for a short recording. Nothing is started.
const SETTINGS: Settings = Settings {
    frequency: 997,
    max_frames: 510,
};
/// Columns of the names.
const NAME: usize = 14;

/// One line: what is asked, whether it is so (none where that cannot be known), and why or what to do.
#[derive(Debug)]
struct Line {
    name: String,
    good: Option<bool>,
    text: String,
}

impl Line {
    fn new(name: &str, good: impl Into<Option<bool>>, text: impl Into<String>) -> Line {
        Line {
            name: name.into(),
            good: good.into(),
            text: text.into(),
        }
    }
}

/// Looks, and says. The status is 0 if something can be recorded.
pub fn run(args: &args::Doctor) -> anyhow::Result<ExitCode> {
    let capabilities = Capabilities::own();
    let mut lines = machine::lines(capabilities);
    let found = Place::new(&args.pin).map_or(Found::Nobody, |place| place.find());
    lines.push(hook(&found, capabilities));
    lines.push(agent(&found, &args.pin.to_string_lossy()));
    let engines = engines()?;
    let some = engines.iter().any(|line| line.good == Some(true));
    lines.extend(engines);
    match print(io::stdout().lock(), &lines) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(error).context("standard output");
        }
        _ => {}
    }
    Ok(match some {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn print(mut out: impl Write, lines: &[Line]) -> io::Result<()> {
    for Line { name, good, text } in lines {
        let good = match good {
            Some(true) => "yes",
            Some(false) => "no",
            None => "?",
        };
        let text = clean(text.lines().next().unwrap_or_default());
        writeln!(out, "{name:<NAME$} {good:<3}  {text}")?;
    }
    Ok(())
}

/// Where announcements are heard.
fn hook(found: &Found, capabilities: Capabilities) -> Line {
    let name = "announcements";
    let said = match found {
        Found::Maps(holder, _) | Found::Unusable(holder, _) => holder.said.clone(),
        Found::Nobody => None,
    };
    if let Some(said) = said {
        return Line::new(name, true, said);
    }
    if !capabilities.bpf() {
        let text = "which hooks the kernel allows can only be tried with CAP_BPF and CAP_PERFMON (or as root); \
                    `record --engine ptrace` answers its own command's";
        return Line::new(name, None, text);
    }
    match Registry::load(Hook::ALL) {
        Ok(registry) => Line::new(name, true, crate::agent::describe(&registry)),
        Err(error) => Line::new(
            name,
            false,
            format!("{error}; `record --engine ptrace` answers its own command's"),
        ),
    }
}

fn agent(found: &Found, folder: &str) -> Line {
    let name = "agent";
    match found {
        Found::Maps(holder, _) => Line::new(
            name,
            true,
            format!("{holder} listens for the whole machine; its maps are in {folder}"),
        ),
        Found::Unusable(holder, why) => Line::new(
            name,
            true,
            format!("{holder} listens; it cannot be asked from here: {why}"),
        ),
        Found::Nobody => Line::new(
            name,
            false,
            "none: recordings hear only what is announced while they run; `framewalk agent`, as root, starts one",
        ),
    }
}

/// Opens each on a child that is never let go.
fn engines() -> anyhow::Result<Vec<Line>> {
    let child = launch::hold(&["true".into()]).context("a child cannot be started")?;
    let target = Target::Child(child.pid());
    let lines = Kind::ALL.iter().map(|&kind| {
        let name = format!("engine {}", kind.name());
        match engines::open(kind, Mode::Auto, &target, SETTINGS) {
            Ok(engine) => Line::new(&name, true, format!("can record ({})", engine.mode())),
            Err(Unavailable { what, missing }) => {
                let what = what.lines().next().unwrap_or_default().to_string();
                Line::new(&name, false, format!("{what} (missing: {missing})"))
            }
        }
    });
    Ok(lines.collect())
}
