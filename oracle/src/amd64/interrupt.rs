//! A signal that is delivered at a boundary, so that its handler walks the interrupted thread from inside.

use super::{Stepped, sys};
use std::io;

/// SIGRTMAX - 1: programs use others.
const SIGNAL: i32 = 63;
/// Instructions from the end of a handler to where it interrupted, at most.
const MOST: usize = 1000;

/// What came of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// Where its answers are.
    Answered(u64),
    /// The walk inside followed something that is not there.
    Crashed,
}

impl Stepped {
    /// Has the handler of `programs/inside.c` run in a thread that stands at a boundary; it stands there again afterwards.
    /// What came of it, or nothing where the handler is not there or the signal is blocked.
    pub fn interrupt(&mut self, tid: u32) -> io::Result<Option<Interrupted>> {
        if !is_open(tid) {
            return Ok(None);
        }
        let tid = tid.cast_signed();
        let state = sys::save(tid)?;
        let before = state.registers;
        sys::step(tid, SIGNAL)?;
        if stopped(tid)? != libc::SIGTRAP {
            return Err(io::Error::other("the handler did not begin"));
        }
        sys::run(tid, 0)?;
        if stopped(tid)? != libc::SIGTRAP {
            // The signal that stopped it is not delivered.
            sys::restore(tid, &state)?;
            self.seen.2 = 0;
            return Ok(Some(Interrupted::Crashed));
        }
        let answers = sys::registers(tid)?.rax;
        for _ in 0..MOST {
            sys::step(tid, 0)?;
            let signal = stopped(tid)?;
            let now = sys::registers(tid)?;
            if now.rip == before.rip && now.rsp == before.rsp {
                // One that waited while the handler ran is delivered with the next step.
                if signal != libc::SIGTRAP
                    && let Some(thread) = self.threads.get_mut(&tid)
                {
                    thread.signal = signal;
                }
                self.seen.2 = 0;
                return Ok(Some(Interrupted::Answered(answers)));
            }
            if signal != libc::SIGTRAP {
                break;
            }
        }
        Err(io::Error::other("the handler did not return"))
    }
}

fn stopped(tid: i32) -> io::Result<i32> {
    match sys::wait_for(tid)? {
        Some((_, status)) if libc::WIFSTOPPED(status) => Ok(libc::WSTOPSIG(status)),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// The signal is caught, and not blocked.
fn is_open(tid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let has = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let mask = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
        mask.map(|mask| mask >> (SIGNAL - 1) & 1 == 1)
    };
    has("SigCgt:") == Some(true) && has("SigBlk:") == Some(false)
}
