//! Where stepping begins: at places where it is known what calls are under way.

use super::sys;
use std::io;

/// What is stepped of a program; the rest runs at full speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Everything: the dynamic loader comes first.
    Exec,
    /// From the program's entry point on, to which the loader jumps: nothing is under way there.
    Entry,
    /// The threads that the program creates, from their first instruction on. What creates them maps no more code
    /// meanwhile.
    Thread,
}

/// An `int3`.
const BREAKPOINT: u64 = 0xcc;
/// The entry point's tag in the auxiliary vector.
const AT_ENTRY: u64 = 9;

/// Runs a program that stands at the first instruction of its loader to its entry point; false if it ended before.
pub(super) fn to_entry(tid: i32) -> io::Result<bool> {
    let entry = entry(tid)?;
    if sys::registers(tid)?.rip == entry {
        return Ok(true);
    }
    let was = sys::exchange(tid, entry, |word| word & !0xff | BREAKPOINT)?;
    let mut signal = 0;
    loop {
        sys::run(tid, signal)?;
        let Some((_, status)) = sys::wait_for(tid)? else {
            return Ok(false);
        };
        if !libc::WIFSTOPPED(status) {
            return Ok(false);
        }
        let mut registers = sys::registers(tid)?;
        let stopped = libc::WSTOPSIG(status);
        if stopped == libc::SIGTRAP && registers.rip == entry + 1 {
            sys::exchange(tid, entry, |_| was)?;
            registers.rip = entry;
            sys::set_registers(tid, &registers)?;
            return Ok(true);
        }
        // The stop of the exec itself is nobody's signal.
        signal = if stopped == libc::SIGTRAP { 0 } else { stopped };
    }
}

fn entry(tid: i32) -> io::Result<u64> {
    let auxv = std::fs::read(format!("/proc/{tid}/auxv"))?;
    let words = auxv
        .as_chunks()
        .0
        .iter()
        .map(|word| u64::from_le_bytes(*word));
    let words: Vec<u64> = words.collect();
    let found = words.as_chunks().0.iter().find(|[tag, _]| *tag == AT_ENTRY);
    found
        .map(|[_, entry]| *entry)
        .ok_or(io::ErrorKind::NotFound.into())
}
