//! glibc's backtrace() and libgcc's _Unwind_Backtrace(), which only walk the thread that calls them: a signal is delivered
//! at the boundary, and its handler (`programs/inside.c`) calls both. A crash of these counts as a wrong walk.

use super::{LIMIT, Peer, Walked};
use crate::amd64::{Interrupted, Stepped};
use crate::judge::Judge;
use crate::machine::{Boundary, Machine};
use std::io;

/// The handler, its trampoline, and what backtrace() may have of its own.
const OWN: usize = 4;

pub(super) struct Inside;

impl Peer for Inside {
    fn walk(
        &mut self,
        machine: &mut Stepped,
        boundary: &Boundary,
        _: &Judge,
    ) -> io::Result<Vec<Option<Walked>>> {
        let answers = match machine.interrupt(boundary.tid)? {
            Some(Interrupted::Answered(answers)) => answers,
            // No frame at all is right of a program that has ended.
            Some(Interrupted::Crashed) => {
                return Ok(vec![
                    Some(Walked {
                        frames: vec![0],
                        ended: false
                    });
                    2
                ]);
            }
            None => return Ok(vec![None, None]),
        };
        // Two times a count and room for so many frames.
        let mut both = Vec::new();
        for n in 0..2 {
            let list = answers + n * 8 * (1 + LIMIT as u64);
            let mut word = |at| machine.word(boundary.pid, list + 8 * at).unwrap_or(0);
            let count = word(0).min(LIMIT as u64);
            let frames: Vec<u64> = (1..=count).map(word).collect();
            let pc = boundary.registers.pc;
            let first = frames.iter().take(OWN).position(|frame| *frame == pc);
            // Not even the interrupted one: that it is there is known.
            let mut frames = first.map_or(vec![pc], |first| frames[first..].to_vec());
            while frames.last() == Some(&0) {
                frames.pop();
            }
            // Neither tells of errors.
            both.push(Some(Walked {
                frames,
                ended: true,
            }));
        }
        Ok(both)
    }
}
