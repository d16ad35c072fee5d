//! The chain of frame pointers, as the kernel's bpf_get_stack and perf follow it.

use super::{LIMIT, Peer, Walked};
use crate::amd64::Stepped;
use crate::judge::Judge;
use crate::machine::{Boundary, Machine};
use std::io;

pub(super) struct FramePointer;

impl Peer for FramePointer {
    fn walk(
        &mut self,
        machine: &mut Stepped,
        boundary: &Boundary,
        _: &Judge,
    ) -> io::Result<Vec<Option<Walked>>> {
        let registers = boundary.registers;
        let mut frames = vec![registers.pc];
        let mut frame = registers.fp;
        let mut word = |address| machine.word(boundary.pid, address);
        while frames.len() < LIMIT {
            // It ends where the chain does; it knows of no other end.
            let (Some(next), Some(ret)) = (word(frame), word(frame.wrapping_add(8))) else {
                break;
            };
            frames.push(ret);
            if next <= frame {
                break;
            }
            frame = next;
        }
        let ended = true;
        Ok(vec![Some(Walked { frames, ended })])
    }
}
