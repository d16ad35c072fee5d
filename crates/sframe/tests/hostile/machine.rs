//! A made-up machine state, on which two descriptions of the same frame must agree.
//!
//! Registers and memory hold numbers that depend on a seed and on nothing else, so two rules that
//! give the same numbers for several seeds say the same.

use framewalk_sframe::{Arch, CallerRule, Cfa, Machine, Register, Rule, Unwind};

/// A state at a pc.
#[derive(Clone, Copy)]
pub(crate) struct State {
    seed: u64,
    pub(crate) machine: &'static Machine,
    pub(crate) pc: u64,
}

/// What unwinding makes of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Outermost,
    Caller {
        cfa: u64,
        ra: u64,
        fp: u64,
        ra_signed: bool,
    },
}

impl State {
    pub(crate) fn new(arch: Arch, seed: u64, pc: u64) -> State {
        State {
            seed,
            machine: arch.machine(),
            pc,
        }
    }

    fn mix(&self, kind: u64, value: u64) -> u64 {
        // The finaliser of SplitMix64.
        let mut z = value ^ (self.seed.wrapping_add(kind)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn register(&self, number: u16) -> u64 {
        // Where calls push it, the return address column is no register but the pc.
        if self.machine.fixed_ra != 0 && number == u16::from(self.machine.ra.0) {
            self.pc
        } else {
            self.mix(1, u64::from(number))
        }
    }

    pub(crate) fn memory(&self, address: u64) -> u64 {
        self.mix(2, address)
    }

    /// What a row of ours says.
    pub(crate) fn apply(&self, unwind: &Unwind) -> Outcome {
        let Unwind::Caller(CallerRule {
            cfa,
            ra,
            fp,
            ra_signed,
        }) = *unwind
        else {
            return Outcome::Outermost;
        };
        let at = |register: Register, offset: i32| {
            self.register(u16::from(register.0))
                .wrapping_add_signed(i64::from(offset))
        };
        let cfa = match cfa {
            Cfa::Value(register, offset) => at(register, offset),
            Cfa::At(register, offset) => self.memory(at(register, offset)),
        };
        let rule = |rule: Rule, own: Register| match rule {
            Rule::Same => self.register(u16::from(own.0)),
            Rule::AtCfa(offset) => self.memory(cfa.wrapping_add_signed(i64::from(offset))),
            Rule::At(register, offset) => self.memory(at(register, offset)),
            Rule::Value(register, offset) => at(register, offset),
        };
        Outcome::Caller {
            cfa,
            ra: rule(ra, self.machine.ra),
            fp: rule(fp, self.machine.fp),
            ra_signed,
        }
    }
}
