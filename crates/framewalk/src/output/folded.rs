//! Folded stacks: `outermost;...;innermost count`, one line per stack, sorted.
//!
//! The outermost entry is the thread's name. A stack that was cut gets the entry `[cut off: why]`
//! in place of the callers that are missing. `_[k]` marks the kernel's functions, `_[?]` callers
//! that are a guess.

use super::View;
use crate::profile::{StackId, ThreadId};
use framewalk_walk::{Origin, Stop};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The mark after the name of a kernel function.
pub const KERNEL: &str = "_[k]";
/// The mark after the name of a function whose frame is a guess.
pub const GUESS: &str = "_[?]";
/// How the entry begins that stands for missing callers.
pub const CUT: &str = "[cut off: ";

/// The mark that a frame of this origin gets behind its name.
pub fn mark(origin: Origin) -> &'static str {
    match origin {
        Origin::Kernel => KERNEL,
        Origin::FramePointer => GUESS,
        _ => "",
    }
}

/// The entry that stands for the callers that could not be walked to, if there are any.
pub fn cut(stop: Stop) -> Option<String> {
    match stop {
        Stop::Outermost => None,
        stop if stop.without_user_stack() => None,
        stop => Some(format!("{CUT}{}]", stop.text())),
    }
}

/// Every stack with its count.
pub fn stacks(view: &View) -> BTreeMap<String, u64> {
    let mut lines = BTreeMap::new();
    for ((thread, stack), count) in view.profile.counted() {
        *lines.entry(line(view, thread, stack)).or_default() += count;
    }
    lines
}

fn line(view: &View, thread: ThreadId, stack: StackId) -> String {
    let mut line = String::new();
    push(&mut line, &view.profile.thread(thread).comm, "");
    if let Some(cut) = cut(view.profile.stop(stack)) {
        push(&mut line, &cut, "");
    }
    let frames: Vec<_> = view.profile.walk(stack).collect();
    for &frame in frames.iter().rev() {
        let mark = mark(view.profile.frame(frame).frame.origin);
        for (function, _) in view.symbols.of(frame) {
            push(&mut line, &function.name, mark);
        }
    }
    line
}

/// Adds an entry, without what means something in this format: `;` between entries, `#` at the
/// begin of a comment, a number at the end of a line.
fn push(line: &mut String, name: &str, mark: &str) {
    match line.is_empty() {
        true if name.is_empty() || name.starts_with('#') => line.push('_'),
        true => {}
        false => line.push(';'),
    }
    let number = name
        .rsplit_once(' ')
        .filter(|(_, last)| last.parse::<f64>().is_ok());
    let parts = number.map_or([name, ""], |(first, last)| [first, last]);
    line.extend(parts[0].chars().map(|c| if c == ';' { ':' } else { c }));
    if number.is_some() {
        line.push('_');
        line.push_str(parts[1]);
    }
    if !name.starts_with('[') {
        line.push_str(mark);
    }
}

/// Writes the file.
pub fn write(view: &View, writer: &mut dyn Write) -> io::Result<()> {
    for (stack, count) in stacks(view) {
        writeln!(writer, "{stack} {count}")?;
    }
    Ok(())
}
