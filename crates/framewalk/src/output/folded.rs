//! Folded stacks: `outermost;...;innermost count`, one line per stack.
//!
//! The outermost entry is the thread's name. A stack that was cut gets the entry `[cut off: why]`
//! in place of the callers that are missing. `_[k]` marks the kernel's functions, `_[?]` callers
//! that are a guess.

use super::View;
use super::tree::Tree;
use framewalk_walk::{Origin, Stop};
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

/// Writes the file.
pub fn write(view: &View, writer: &mut dyn Write) -> io::Result<()> {
    Tree::new(view).each_line(0, |stack, count| writeln!(writer, "{stack} {count}"))
}
