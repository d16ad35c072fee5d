//! `framewalk sections`.

mod list;
mod text;

use crate::agent::{Changes, Found, Holder, Place};
use crate::args;
use crate::processes::{Objects, Tables, task};
use crate::symbols::clean;
use anyhow::{Context, bail};
use framewalk_kernel::RegistryMaps;
use list::{Listed, Process};
use serde_json::{Value, json};
use std::io::{self, Write};

/// Lists, and prints.
pub fn run(args: &args::Sections) -> anyhow::Result<()> {
    // Where its parent does not exist there is no agent either.
    let found = Place::new(&args.pin).map(|place| (place.find(), place));
    let (agent, place) = match found {
        Ok((found, place)) => (found, Some(place)),
        Err(_) => (Found::Nobody, None),
    };
    let (agent, lack) = match agent {
        Found::Maps(holder, maps) => (Some((holder, maps)), None),
        Found::Unusable(holder, why) => (None, Some(format!("{holder} cannot be asked: {why}"))),
        Found::Nobody => (None, Some("no agent is running".into())),
    };
    if let Some(lack) = &lack {
        if args.pids.is_empty() {
            bail!("{lack}; with -p PID, what is found without it is listed");
        }
        eprintln!("framewalk: {lack}: announced sections are not listed");
    }
    let maps = agent.as_ref().map(|(_, maps)| &**maps);
    let mut lister = list::Lister {
        announced: maps.map(|maps| {
            let folder = place.as_ref().map(Place::folder).unwrap_or(&args.pin);
            list::Known::new(maps, Changes::open(folder))
        }),
        objects: Objects::default(),
        tables: Tables::default(),
    };
    super::record::raise_file_limit();
    let processes = if args.pids.is_empty() {
        lister.everybody()
    } else {
        let mut processes = Vec::new();
        for &pid in &args.pids {
            match task::status(pid, "Tgid") {
                None => bail!("there is no process {pid}"),
                Some(process) if process != pid => bail!("{pid} is a thread of process {process}"),
                Some(_) => {}
            }
            let process = lister.of_process(pid);
            processes.push(process.with_context(|| {
                format!("process {pid}: its memory map cannot be read (missing: its user's rights, or root)")
            })?);
        }
        processes
    };
    let out = io::stdout().lock();
    let printed = match args.json {
        true => print_json(out, agent.as_ref(), &processes),
        false => text::print(out, agent.as_ref().map(|(holder, _)| holder), &processes),
    };
    match printed {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output"),
    }
}

/// Addresses and keys are strings: as numbers of JSON they would lose digits.
fn print_json(
    mut out: impl Write,
    agent: Option<&(Holder, Box<RegistryMaps>)>,
    processes: &[Process],
) -> io::Result<()> {
    let agent = agent.map(|(holder, maps)| {
        let counts = maps.counts();
        json!({
            "pid": holder.pid,
            "says": holder.said,
            "address_spaces": counts.spaces,
            "sections": counts.sections,
            "heard": counts.heard,
            "refused": counts.refused,
            "later": counts.later,
            "full": counts.full,
            "unheard": counts.unheard,
        })
    });
    let processes: Vec<Value> = processes.iter().map(process_json).collect();
    serde_json::to_writer_pretty(&mut out, &json!({ "agent": agent, "processes": processes }))?;
    writeln!(out)
}

fn process_json(process: &Process) -> Value {
    let undescribed = process.undescribed.iter().map(|undescribed| {
        json!({
            "text": [hex(undescribed.text.start), hex(undescribed.text.end)],
            "object": undescribed.object.as_deref().map(clean),
            "why": undescribed.why,
        })
    });
    json!({
        "pid": process.pid,
        "comm": clean(&process.comm),
        "shares_memory_with": process.sharers,
        "sections": process.sections.iter().map(section_json).collect::<Vec<_>>(),
        "undescribed": undescribed.collect::<Vec<_>>(),
    })
}

fn section_json(listed: &Listed) -> Value {
    json!({
        "text": [hex(listed.text.start), hex(listed.text.end)],
        "source": listed.source.name(),
        "object": listed.object.as_deref().map(clean),
        "version": listed.version,
        "functions": listed.functions,
        "rows": listed.rows,
        "announced": listed.announced.as_ref().map(|announced| {
            let section = &announced.section;
            json!({
                "key": hex(section.key),
                "number": section.number,
                "section": [hex(section.address), hex(section.address.saturating_add(section.length.into()))],
                "writable": section.writable,
                "changed": announced.changed,
                "quarantined": section.quarantined,
                "frames": section.frames,
                "unreadable": section.unreadable,
                "malformed": section.malformed,
            })
        }),
    })
}

fn hex(number: u64) -> String {
    format!("{number:#x}")
}
