//! Flame graphs: the folded stacks, drawn by inferno.
//!
//! Colour says what kind of code it is: warm for programs, blue for the kernel, grey for callers
//! that are a guess, dark grey where a stack was cut.

use super::View;
use super::folded::{CUT, GUESS, KERNEL};
use super::tree::Tree;
use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{self, Options, TextTruncateDirection};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};

/// A box that is narrower than this part of the picture is not drawn: it cannot be seen.
const LEAST: f64 = 0.0001;

/// Writes the file.
pub fn write(view: &View, writer: &mut dyn Write) -> io::Result<()> {
    let samples = view.profile.samples().len() as u64;
    if samples == 0 {
        return write_empty(view, writer);
    }
    let tree = Tree::new(view);
    let mut lines = Vec::new();
    tree.each_line((samples as f64 * LEAST) as u64, |stack, count| {
        lines.push(format!("{stack} {count}"));
        io::Result::Ok(())
    })?;

    let mut colors = PaletteMap::default();
    // The whole picture's own bar has no name.
    colors.insert("", rgb(225, 228, 232));
    for (entry, is_root) in tree.boxes() {
        if colors.get(entry).is_none() {
            colors.insert(entry, color(entry, is_root));
        }
    }
    let mut options = Options::default();
    options.title = view.title.to_string();
    options.subtitle = Some(view.subtitle.to_string());
    options.bgcolors = Some(BackgroundColor::Flat(rgb(250, 250, 248)));
    options.min_width = LEAST * 100.0;
    options.palette_map = Some(&mut colors);
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.notes =
        "_[k]: kernel; _[?]: a guess, by frame pointer; [cut off: why]: callers are missing"
            .to_string();
    // Stacks with the same callers follow each other already, which is not the order of their bytes
    // (`a;b` comes after `a<T>;b` there). This option takes any order, from the last to the first.
    options.flame_chart = true;
    flamegraph::from_lines(&mut options, lines.iter().rev().map(String::as_str), writer)
}

/// The colour of an entry, the same in every graph.
fn color(entry: &str, is_root: bool) -> Color {
    let mut hasher = DefaultHasher::new();
    entry.hash(&mut hasher);
    // Three independent shades, 0 to 1.
    let shade = |byte: usize| f32::from(hasher.finish().to_le_bytes()[byte]) / 255.0;
    let between = |low: u8, high: u8, shade: f32| low + (f32::from(high - low) * shade) as u8;
    if entry.starts_with(CUT) {
        rgb(160, 160, 168)
    } else if entry.ends_with(KERNEL) || entry == "[kernel]" {
        rgb(
            between(90, 130, shade(0)),
            between(150, 190, shade(1)),
            between(210, 240, shade(2)),
        )
    } else if entry.ends_with(GUESS) {
        let grey = between(185, 215, shade(0));
        rgb(grey, grey, grey)
    } else if is_root {
        rgb(
            between(215, 235, shade(0)),
            225,
            between(205, 220, shade(1)),
        )
    } else {
        rgb(
            between(215, 255, shade(0)),
            between(110, 210, shade(1)),
            between(30, 80, shade(2)),
        )
    }
}

fn rgb(r: u8, g: u8, b: u8) -> Color {
    Color { r, g, b }
}

/// inferno refuses to draw nothing.
fn write_empty(view: &View, writer: &mut dyn Write) -> io::Result<()> {
    let escape = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    };
    let (title, subtitle) = (escape(view.title), escape(view.subtitle));
    writeln!(
        writer,
        r##"<?xml version="1.0" encoding="utf-8"?>
<svg version="1.1" width="1200" height="90" viewBox="0 0 1200 90" xmlns="http://www.w3.org/2000/svg">
<rect width="100%" height="100%" fill="#eeeeee"/>
<g font-family="monospace" text-anchor="middle"><text x="600" y="30" font-size="17">{title}</text>
<text x="600" y="60" font-size="12">{subtitle}: nothing ran on a CPU</text></g>
</svg>"##
    )
}
