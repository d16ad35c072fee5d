//! The table that people read.

use super::list::{Listed, Process, Source};
use crate::agent::Holder;
use crate::symbols::clean;
use std::io::{self, Write};

/// Headings, and whether what stands below is a number.
const COLUMNS: [(&str, bool); 12] = [
    ("text", false),
    ("source", false),
    ("key", false),
    ("v", true),
    ("funcs", true),
    ("rows", true),
    ("writable", false),
    ("changed", false),
    ("frames", true),
    ("unread", true),
    ("malf", true),
    ("object", false),
];

type Cells = [String; COLUMNS.len()];

pub(super) fn print(
    mut out: impl Write,
    agent: Option<&Holder>,
    processes: &[Process],
) -> io::Result<()> {
    if processes.is_empty()
        && let Some(agent) = agent
    {
        return writeln!(out, "{agent} knows of no announced section");
    }
    let mut widths = COLUMNS.map(|(heading, _)| heading.len());
    let tables: Vec<Vec<Cells>> = processes.iter().map(rows).collect();
    for row in tables.iter().flatten() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for (number, (process, table)) in processes.iter().zip(tables).enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        write!(out, "{} ({})", clean(&process.comm), process.pid)?;
        if !process.sharers.is_empty() {
            let sharers: Vec<String> = process.sharers.iter().map(u32::to_string).collect();
            write!(out, ", same memory: {}", sharers.join(", "))?;
        }
        writeln!(out)?;
        line(
            &mut out,
            &widths,
            &COLUMNS.map(|(heading, _)| heading.to_string()),
        )?;
        for row in table {
            line(&mut out, &widths, &row)?;
        }
    }
    Ok(())
}

fn line(out: &mut impl Write, widths: &[usize], cells: &Cells) -> io::Result<()> {
    let mut text = String::new();
    for ((cell, &width), (_, number)) in cells.iter().zip(widths).zip(COLUMNS) {
        text.push_str(&match number {
            true => format!(" {cell:>width$}"),
            false => format!(" {cell:<width$}"),
        });
    }
    writeln!(out, "{}", text.trim_end())
}

/// In the order of addresses: the ranges, and where nothing is known, why.
fn rows(process: &Process) -> Vec<Cells> {
    let mut rows: Vec<(u64, Cells)> = process
        .sections
        .iter()
        .map(|listed| (listed.text.start, row(listed)))
        .collect();
    rows.extend(process.undescribed.iter().map(|undescribed| {
        let text = &undescribed.text;
        let mut cells = Cells::default();
        cells[0] = format!("{:x}-{:x}", text.start, text.end);
        cells[1] = "none".into();
        let name = undescribed.object.as_deref().map(file_name);
        cells[COLUMNS.len() - 1] = match name {
            Some(name) => format!("{name}: {}", undescribed.why),
            None => undescribed.why.clone(),
        };
        (text.start, cells)
    }));
    rows.sort_by_key(|(start, _)| *start);
    rows.into_iter().map(|(_, cells)| cells).collect()
}

fn row(listed: &Listed) -> Cells {
    let yes_no = |is: bool| if is { "yes" } else { "no" }.to_string();
    let none = || "-".to_string();
    let announced = listed.announced.as_ref();
    let section = announced.map(|announced| &announced.section);
    let changed = announced.map(|announced| match announced.changed {
        None => "?".to_string(),
        Some(is) => yes_no(is),
    });
    // What an area holds changes while one looks.
    let of_section = |number: u64| match listed.source {
        Source::Area => none(),
        _ => number.to_string(),
    };
    let number = |number: Option<u64>| number.map_or_else(none, |number| number.to_string());
    [
        format!("{:x}-{:x}", listed.text.start, listed.text.end),
        listed.source.name().to_string(),
        section.map_or_else(none, |section| format!("{:#x}", section.key)),
        of_section(listed.version.into()),
        of_section(listed.functions.into()),
        of_section(listed.rows),
        section.map_or_else(none, |section| yes_no(section.writable)),
        changed.unwrap_or_else(none),
        number(section.map(|section| section.frames)),
        number(section.map(|section| section.unreadable)),
        number(section.map(|section| section.malformed)),
        listed.object.as_deref().map(file_name).unwrap_or_default(),
    ]
}

fn file_name(path: &str) -> String {
    clean(path.rsplit('/').next().unwrap_or(path))
}
