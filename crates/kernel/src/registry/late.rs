//! Frame areas that were registered before anybody listened (`bpf/late.h`).

use super::Registry;
use crate::error::Error;
use libbpf_rs::{ProgramInput, ProgramMut};

/// What comes of looking at a process that was there before anybody listened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late<T> {
    /// This.
    Is(T),
    /// There is no such process, or it has another address space now.
    Gone,
    /// It has not run yet: it can be looked at again in a moment.
    Early,
}

impl<T> Late<T> {
    fn of(answer: i64, is: impl FnOnce() -> T) -> Late<T> {
        match answer {
            LATE_GONE => Late::Gone,
            LATE_EARLY => Late::Early,
            _ => Late::Is(is()),
        }
    }
}

/// `FW_LATE_GONE` and `FW_LATE_EARLY` of `bpf/shared.h`.
const LATE_GONE: i64 = 0;
const LATE_EARLY: i64 = -11;

impl Registry {
    /// The address space of a process, in which to look for what it registered before anybody listened.
    pub fn look_at(&self, pid: u32) -> Result<Late<u64>, Error> {
        let (space, answer) = late(&self.skel.progs.whose, pid, [0; 4])?;
        Ok(Late::of(answer, || space))
    }

    /// Takes in the frame area of `length` bytes that lies at `address` in the memory of a process, as if it had
    /// registered it now: the number that is the answer to a call, or the errno below 0. `space` is what
    /// [`Registry::look_at`] said before the area was found.
    pub fn adopt(
        &self,
        pid: u32,
        space: u64,
        key: u64,
        [address, length]: [u64; 2],
    ) -> Result<Late<i64>, Error> {
        let words = [space, key, address, length];
        let (_, answer) = late(&self.skel.progs.adopt, pid, words)?;
        Ok(Late::of(answer, || answer))
    }
}

/// Runs a program on a `fw_late` with these first words: the first one afterwards, and the answer.
fn late(program: &ProgramMut<'_>, pid: u32, words: [u64; 4]) -> Result<(u64, i64), Error> {
    let [space, key, address, length] = words;
    let mut late = [space, key, address, length, 0, pid.into()]
        .map(u64::to_ne_bytes)
        .concat();
    let input = ProgramInput {
        context_in: Some(&mut late),
        ..ProgramInput::default()
    };
    program.test_run(input).map_err(Error::Map)?;
    let word = |n: usize| late.get(n * 8..n * 8 + 8)?.try_into().ok();
    let word = |n| word(n).map_or(0, u64::from_ne_bytes);
    Ok((word(0), word(4).cast_signed()))
}
