//! Machine states of AArch64 and s390x, told one by one: calls leave the return address in a register there.

use framewalk_sframe::{CallerRule, Cfa, Register, Rule, Unwind};
use framewalk_walk::arch::{AARCH64, Arch, FULL, S390X};
use framewalk_walk::{Code, Found, Origin, Registers, Says, Start, Stop, walk};
use std::collections::BTreeMap;

/// A process that is told: functions of 256 bytes, and words of its stack.
struct Process {
    arch: &'static Arch,
    code: BTreeMap<u64, (Unwind, bool)>,
    memory: BTreeMap<u64, u64>,
}

impl Code for &Process {
    type Place = ();

    fn arch(&self) -> &'static Arch {
        self.arch
    }

    fn find(&mut self, pc: u64) -> Found<()> {
        let says = match self.code.get(&(pc & !0xff)) {
            Some(&(unwind, signal)) => Says::Row {
                unwind,
                signal,
                origin: Origin::File,
            },
            None if pc < 0x6000 => Says::Undescribed,
            None => Says::Stop(Stop::NotCode),
        };
        Found { place: (), says }
    }
}

/// Offsets from the stack pointer (or the base given) to the CFA, and from the CFA to what is saved.
fn rule(base: Register, cfa: i32, ra: Rule, fp: Rule) -> CallerRule {
    CallerRule {
        cfa: Cfa::Value(base, cfa),
        ra,
        fp,
        ra_signed: false,
    }
}

fn signed(rule: CallerRule) -> CallerRule {
    CallerRule {
        ra_signed: true,
        ..rule
    }
}

impl Process {
    /// Code at 0x5000 has no caller.
    fn of(arch: &'static Arch) -> Process {
        Process {
            arch,
            code: BTreeMap::from([(0x5000, (Unwind::Outermost, false))]),
            memory: BTreeMap::new(),
        }
    }

    fn row(mut self, start: u64, rule: CallerRule) -> Process {
        self.code.insert(start, (Unwind::Caller(rule), false));
        self
    }

    fn signal_row(mut self, start: u64, rule: CallerRule) -> Process {
        self.code.insert(start, (Unwind::Caller(rule), true));
        self
    }

    fn word(mut self, address: u64, value: u64) -> Process {
        self.memory.insert(address, value);
        self
    }

    /// The callers' pc and sp of a thread at 0x1000 with these registers, and why there are no more.
    fn callers(&self, sp: u64, set: &[(Register, u64)]) -> (Vec<(u64, u64)>, Stop) {
        let mut full = [0; FULL];
        for &(register, value) in set {
            full[usize::from(register.0)] = value;
        }
        let fp = full[usize::from(self.arch.fp.0)];
        self.callers_from(Registers {
            pc: 0x1000,
            sp,
            fp,
            full: Some(full),
        })
    }

    fn callers_from(&self, registers: Registers) -> (Vec<(u64, u64)>, Stop) {
        let mut frames = Vec::new();
        let mut memory = |address: u64| self.memory.get(&address).copied();
        let (start, mut code) = (Start::topmost(registers), self);
        let stop = walk(start, 510, &mut memory, &mut code, |frame| {
            frames.push((frame.pc, frame.sp));
        });
        frames.remove(0);
        (frames, stop)
    }
}

const OUT: (u64, Stop) = (0x5010, Stop::Outermost);

mod aarch64 {
    use super::*;

    const SP: Register = AARCH64.sp;
    const X29: Register = AARCH64.fp;
    const X30: Register = Register(30);

    fn process() -> Process {
        // Its caller at 0x2000: stp x29, x30, [sp, #-32]!; mov x29, sp.
        let body = rule(X29, 32, Rule::AtCfa(-24), Rule::AtCfa(-32));
        Process::of(&AARCH64)
            .row(0x2000, body)
            .word(0x7100, 0x7200)
            .word(0x7108, OUT.0)
    }

    #[test]
    fn before_the_prologue_nothing_is_on_the_stack() {
        // The first instruction, or any of a leaf that needs no stack: CFA = SP, RA in LR, FP the caller's.
        let process = process().row(0x1000, rule(SP, 0, Rule::Same, Rule::Same));
        let callers = process.callers(0x7100, &[(X30, 0x2010), (X29, 0x7100)]);
        assert_eq!(callers, (vec![(0x2010, 0x7100), (OUT.0, 0x7120)], OUT.1));
        // A copy of the stack without registers does not have LR: SP must move then.
        let unknown = Registers {
            pc: 0x1000,
            sp: 0x7100,
            fp: 0x7100,
            full: None,
        };
        assert_eq!(process.callers_from(unknown).1, Stop::CfaNotAbove);
        let process = process.row(0x1000, rule(SP, 16, Rule::Same, Rule::Same));
        assert_eq!(process.callers_from(unknown).1, Stop::RegisterUnknown);
        // An unaligned stack pointer is nobody's.
        let process = process.row(0x1000, rule(SP, 0, Rule::Same, Rule::Same));
        assert_eq!(process.callers(0x7104, &[(X30, 0x2010)]).1, Stop::CfaBad);
    }

    #[test]
    fn a_leaf_with_locals() {
        // sub sp, sp, #48: the return address stays in LR.
        let process = process().row(0x1000, rule(SP, 48, Rule::Same, Rule::Same));
        let callers = process.callers(0x70d0, &[(X30, 0x2010), (X29, 0x7100)]);
        assert_eq!(callers, (vec![(0x2010, 0x7100), (OUT.0, 0x7120)], OUT.1));
    }

    #[test]
    fn between_stp_and_mov_both_are_saved_and_x29_is_the_callers() {
        // stp x29, x30, [sp, #-16]!, and mov x29, sp is next: the CFA is still counted from SP.
        let process = process()
            .row(0x1000, rule(SP, 16, Rule::AtCfa(-8), Rule::AtCfa(-16)))
            .word(0x70f0, 0x7100)
            .word(0x70f8, 0x2010);
        // What LR holds by now does not matter.
        let callers = process.callers(0x70f0, &[(X30, 0x1008), (X29, 0x7100)]);
        assert_eq!(callers, (vec![(0x2010, 0x7100), (OUT.0, 0x7120)], OUT.1));
    }

    #[test]
    fn after_ldp_all_is_as_at_the_beginning() {
        // ldp x29, x30, [sp], #16 is done, ret is next; below SP lies what was popped, or worse.
        let process = process()
            .row(0x1000, rule(SP, 0, Rule::Same, Rule::Same))
            .word(0x70f0, 0x6666)
            .word(0x70f8, 0x6666);
        let callers = process.callers(0x7100, &[(X30, 0x2010), (X29, 0x7100)]);
        assert_eq!(callers, (vec![(0x2010, 0x7100), (OUT.0, 0x7120)], OUT.1));
    }

    #[test]
    fn a_return_address_is_not_read_from_the_stack_of_an_empty_frame() {
        // A row that finds it at the CFA, though nothing was pushed.
        let process = process()
            .row(0x1000, rule(SP, 0, Rule::AtCfa(8), Rule::Same))
            .word(0x7108, 0x2010);
        assert_eq!(process.callers(0x7100, &[]).1, Stop::CfaNotAbove);
    }

    #[test]
    fn only_the_topmost_frame_can_have_it_in_the_link_register() {
        // The caller's row says that it never saved LR: a call destroyed it.
        let process = process()
            .row(0x1000, rule(SP, 16, Rule::AtCfa(-8), Rule::Same))
            .row(0x3000, rule(SP, 16, Rule::Same, Rule::Same))
            .word(0x70f8, 0x3010);
        let callers = process.callers(0x70f0, &[(X30, 0x2010)]);
        assert_eq!(callers, (vec![(0x3010, 0x7100)], Stop::RegisterUnknown));
    }

    #[test]
    fn signatures_are_stripped_from_memory_and_register() {
        let signature = 0xff2a << 48;
        // paciasp is done, stp is next: signed in LR.
        let process = process().row(0x1000, signed(rule(SP, 0, Rule::Same, Rule::Same)));
        let set = [(X30, signature | 0x2010), (X29, 0x7100)];
        let signed_caller = signed(rule(X29, 32, Rule::AtCfa(-24), Rule::AtCfa(-32)));
        let process = process
            .row(0x2000, signed_caller)
            .word(0x7108, signature | OUT.0);
        let callers = process.callers(0x7100, &set);
        assert_eq!(callers, (vec![(0x2010, 0x7100), (OUT.0, 0x7120)], OUT.1));
        // Nothing but a signature is no address.
        let process = process.word(0x7108, signature);
        assert_eq!(process.callers(0x7100, &set).1, Stop::ZeroReturn);
    }

    #[test]
    fn a_signal_frame_goes_on_anywhere() {
        // The trampoline's rule is what a table says of the kernel's frame: sp, pc and x29 saved in it. The code that
        // was interrupted has pushed its frame.
        let trampoline = CallerRule {
            cfa: Cfa::At(SP, 0x248),
            ra: Rule::At(SP, 0x250),
            fp: Rule::At(SP, 0x238),
            ra_signed: false,
        };
        let interrupted = |ra, fp| {
            process()
                .signal_row(0x1000, trampoline)
                .row(0x3000, rule(SP, 16, ra, fp))
                .word(0x8248, 0x70f0)
                .word(0x8250, 0x3000)
                .word(0x8238, 0x7100)
                .word(0x70f0, 0x7100)
                .word(0x70f8, 0x2010)
        };
        let callers = interrupted(Rule::AtCfa(-8), Rule::AtCfa(-16)).callers(0x8000, &[]);
        let expected = [(0x3000, 0x70f0), (0x2010, 0x7100), (OUT.0, 0x7120)];
        assert_eq!(callers, (expected.to_vec(), OUT.1));
        // LR of interrupted code is in the signal frame, but no row says where.
        let callers = interrupted(Rule::Same, Rule::Same).callers(0x8000, &[(X30, 0x2010)]);
        assert_eq!(callers, (vec![(0x3000, 0x70f0)], Stop::RegisterUnknown));
    }

    #[test]
    fn undescribed_code_ends_a_walk() {
        let process = process().row(0x1000, rule(SP, 0, Rule::Same, Rule::Same));
        let callers = process.callers(0x7100, &[(X30, 0x4010), (X29, 0x7100)]);
        assert_eq!(callers, (vec![(0x4010, 0x7100)], Stop::FramePointer));
    }
}

mod s390x {
    use super::*;

    const R11: Register = S390X.fp;
    const R14: Register = Register(14);
    const R15: Register = S390X.sp;
    /// The floating point registers f0 and f2.
    const F0: Register = Register(16);
    const F2: Register = Register(17);

    fn process() -> Process {
        // Its caller at 0x2000, a frame of 168 bytes: stmg %r11,%r15,88(%r15); aghi %r15,-168.
        let body = rule(R15, 328, Rule::AtCfa(-48), Rule::AtCfa(-72));
        Process::of(&S390X)
            .row(0x2000, body)
            .word(0x7100 + 328 - 48, OUT.0)
            .word(0x7100 + 328 - 72, 0x7300)
    }

    #[test]
    fn the_callers_stack_pointer_is_160_bytes_below_the_cfa() {
        let process = process().row(0x1000, rule(R15, 160, Rule::Same, Rule::Same));
        let callers = process.callers(0x7100, &[(R14, 0x2010)]);
        let expected = vec![(0x2010, 0x7100), (OUT.0, 0x71a8)];
        assert_eq!(callers, (expected, OUT.1));
        // Nothing lies below address 0.
        let process = process.row(0x1000, rule(R11, 0, Rule::Same, Rule::Same));
        assert_eq!(process.callers(0x7100, &[(R11, 152)]).1, Stop::CfaBad);
    }

    #[test]
    fn between_stmg_and_aghi_the_save_area_of_the_caller_is_used_already() {
        // stmg %r11,%r15,88(%r15) is done, the stack pointer has not moved.
        let row = rule(R15, 160, Rule::AtCfa(-48), Rule::AtCfa(-72));
        let process = process()
            .row(0x1000, row)
            .word(0x7100 + 112, 0x2010)
            .word(0x7100 + 88, 0x7400);
        let callers = process.callers(0x7100, &[]);
        let expected = vec![(0x2010, 0x7100), (OUT.0, 0x71a8)];
        assert_eq!(callers, (expected, OUT.1));
        // A caller has called: its frame is made.
        let process = process.word(0x7100 + 112, 0x1010);
        let callers = process.callers(0x7100, &[]);
        assert_eq!(callers, (vec![(0x1010, 0x7100)], Stop::CfaNotAbove));
    }

    #[test]
    fn a_leaf_keeps_return_address_and_frame_pointer_in_floating_point_registers() {
        // ldgr %f0,%r11; ldgr %f2,%r14: and both were used for something else since.
        let row = rule(R15, 160, Rule::Value(F2, 0), Rule::Value(F0, 0));
        let by_fp = rule(R11, 160 + 8, Rule::AtCfa(-48), Rule::Same);
        let process = process()
            .row(0x1000, row)
            .row(0x3000, by_fp)
            .word(0x7110 + 168 - 48, OUT.0);
        let set = [(F2, 0x3010), (F0, 0x7110), (R11, 1), (R14, 2)];
        let callers = process.callers(0x7100, &set);
        let expected = vec![(0x3010, 0x7100), (OUT.0, 0x7118)];
        assert_eq!(callers, (expected, OUT.1));
    }

    #[test]
    fn no_caller_has_known_floating_point_registers() {
        let row = rule(R15, 320, Rule::Value(F2, 0), Rule::Same);
        let process = process()
            .row(0x1000, rule(R15, 160, Rule::Same, Rule::Same))
            .row(0x3000, row);
        let callers = process.callers(0x7100, &[(R14, 0x3010), (F2, OUT.0)]);
        assert_eq!(callers, (vec![(0x3010, 0x7100)], Stop::RegisterUnknown));
    }

    #[test]
    fn nothing_is_signed() {
        let row = signed(rule(R15, 160, Rule::Same, Rule::Same));
        let process = process().row(0x1000, row);
        assert_eq!(process.callers(0x7100, &[]).1, Stop::BadRow);
    }
}
