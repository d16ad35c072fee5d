//! Checks stacks against the calls that `torture` itself prints: every function of it has one caller,
//! so the innermost function tells the whole stack.

use super::recorded::Stack;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;

/// Who calls whom.
pub(crate) struct Calls(HashMap<String, Call>);

struct Call {
    caller: String,
    how: How,
}

#[derive(PartialEq)]
enum How {
    /// Nothing is between it and its caller, nothing of a library above it.
    Directly,
    /// A library calls it back.
    Via,
    /// Directly, and library functions may be above it.
    Calls,
}

const START: &str = "-start-";
const SIGNAL: &str = "-signal-";
const ANYBODY: &str = "-anybody-";

/// Library frames in a row, at most: qsort, printf and the dynamic linker need about ten.
const LIBRARY: usize = 40;

/// A name without what compilers add when they split a function.
fn plain(name: &str) -> &str {
    name.split(".cold").next().unwrap_or(name)
}

impl Calls {
    /// Asks the program.
    pub(crate) fn of(torture: &Path) -> Calls {
        let output = Command::new(torture).arg("calls").output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let call = |line: &str| {
            let mut words = line.split(' ');
            let (callee, caller) = (words.next().unwrap(), words.next().unwrap());
            let how = match words.next() {
                Some("via") => How::Via,
                Some("calls") => How::Calls,
                _ => How::Directly,
            };
            (
                callee.to_string(),
                Call {
                    caller: caller.to_string(),
                    how,
                },
            )
        };
        Calls(text.lines().map(call).collect())
    }

    fn get(&self, name: &str) -> Option<&Call> {
        self.0.get(plain(name))
    }

    /// The names of the frame below signal handlers, which the C library made: one where its names
    /// are known, else one for its first instruction, where handlers return to, and one for the others.
    pub(crate) fn trampolines(&self, stacks: &[(Stack, u64)]) -> BTreeSet<String> {
        let pairs = stacks.iter().flat_map(|(stack, _)| stack.user.windows(2));
        let below =
            pairs.filter(|pair| self.get(&pair[1]).is_some_and(|call| call.caller == SIGNAL));
        let mut names: BTreeSet<String> = below.map(|pair| pair[0].clone()).collect();
        assert!(names.len() < 2, "signal frames of several names: {names:?}");
        names.insert("__restore_rt".into());
        names
    }

    /// Checks a stack: Err says what is wrong with it.
    pub(crate) fn check(
        &self,
        stack: &Stack,
        trampolines: &BTreeSet<String>,
    ) -> Result<(), String> {
        let is_library = |name: &&String| self.get(name).is_none();
        let mut left = &stack.user[..];
        loop {
            // The top of a stack, or of what a signal interrupted: maybe in a library.
            let library = left.iter().rev().take_while(is_library).count();
            let (below, above) = left.split_at(left.len() - library);
            let Some(top) = below.last() else {
                return outermost(left, stack, "_start");
            };
            let at_trampoline = above.len() == 1 && trampolines.contains(&above[0]);
            let calls_libraries = self.get(top).is_some_and(|call| call.how == How::Calls);
            if library > LIBRARY || library > 0 && !calls_libraries && !at_trampoline {
                return Err(format!("{top} does not call {above:?}"));
            }
            left = below;
            // Down to the start of the thread, or to a signal frame.
            loop {
                let Some((function, below)) = left.split_last() else {
                    return outermost(left, stack, "a caller");
                };
                let Some(call) = self.get(function) else {
                    return Err(format!("{function} is between known functions"));
                };
                left = below;
                if call.caller == SIGNAL {
                    match left.split_last() {
                        Some((name, below)) if trampolines.contains(name) => left = below,
                        Some((name, _)) => return Err(format!("{name} delivers no signals")),
                        None => return outermost(left, stack, "a signal frame"),
                    }
                    break;
                }
                if call.caller == START {
                    return start(function, left, stack);
                }
                if call.how == How::Via {
                    let library = left.iter().rev().take_while(is_library).count();
                    left = &left[..left.len() - library];
                    if library == 0 && stack.cut.is_none() || library > LIBRARY {
                        return Err(format!("{library} library frames below {function}"));
                    }
                }
                match left.last() {
                    Some(name) if call.caller == ANYBODY && self.get(name).is_some() => {}
                    Some(name) if plain(name) == call.caller => {}
                    Some(name) => {
                        return Err(format!(
                            "{function} has the caller {name}, not {}",
                            call.caller
                        ));
                    }
                    None => return outermost(left, stack, &call.caller),
                }
            }
        }
    }
}

/// What is below the first function of a thread.
fn start(function: &str, left: &[String], stack: &Stack) -> Result<(), String> {
    let right = match (function, left.first().map(String::as_str)) {
        (_, None) => stack.cut.is_some(),
        ("main", Some(first)) => (first == "_start" || stack.cut.is_some()) && left.len() <= 3,
        (_, Some(first)) => first != "_start" && left.len() <= 2,
    };
    match right {
        true => Ok(()),
        false => Err(format!("{function} is started by {left:?}")),
    }
}

/// Nothing is left, or library functions alone, where `expected` should be.
fn outermost(left: &[String], stack: &Stack, expected: &str) -> Result<(), String> {
    let in_library = !left.is_empty() && left.len() <= LIBRARY;
    match stack.cut.is_some() || in_library || stack.user.is_empty() {
        true => Ok(()),
        false => Err(format!("the stack ends where {expected} should be")),
    }
}
