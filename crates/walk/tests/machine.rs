//! Machine states, told one by one: what is in the registers and on the stack, and what follows.

use framewalk_sframe::{CallerRule, Cfa, Register, Rule, Unwind};
use framewalk_walk::arch::FULL;
use framewalk_walk::{
    Found, MAX_FRAME_SIZE, MAX_SWITCHES, Origin, Registers, Says, Start, Stop, walk,
};
use std::collections::BTreeMap;

const RAX: Register = Register(0);
const RBP: Register = Register(6);
const RSP: Register = Register(7);
const R10: Register = Register(10);

/// A process that is told: functions by the range of their code, and words of its stack.
#[derive(Default)]
struct Process {
    code: Vec<(std::ops::Range<u64>, Says)>,
    memory: BTreeMap<u64, u64>,
    reads: usize,
}

fn caller(cfa: Cfa, fp: Rule) -> Unwind {
    Unwind::Caller(CallerRule {
        cfa,
        ra: Rule::AtCfa(-8),
        fp,
        ra_signed: false,
    })
}

impl Process {
    fn says(mut self, start: u64, says: Says) -> Self {
        self.code.push((start..start + 0x100, says));
        self
    }

    /// 256 bytes of code described by the file.
    fn row(self, start: u64, unwind: Unwind) -> Self {
        self.says(
            start,
            Says::Row {
                unwind,
                signal: false,
                origin: Origin::File,
            },
        )
    }

    fn signal_row(self, start: u64, unwind: Unwind) -> Self {
        self.says(
            start,
            Says::Row {
                unwind,
                signal: true,
                origin: Origin::Converted,
            },
        )
    }

    fn word(mut self, address: u64, value: u64) -> Self {
        self.memory.insert(address, value);
        self
    }

    fn walk_from(&mut self, start: Start, limit: usize) -> (Vec<(u64, Origin, bool)>, Stop) {
        let mut frames = Vec::new();
        let (code, memory, reads) = (&self.code, &self.memory, &mut self.reads);
        let mut find = |pc: u64| Found {
            place: pc,
            says: code
                .iter()
                .find(|(range, _)| range.contains(&pc))
                .map_or(Says::Stop(Stop::NotCode), |(_, says)| *says),
        };
        let mut word = |address: u64| {
            *reads += 1;
            // Calls everywhere, as far as the bytes of code tell.
            let is_code = code.iter().any(|(range, _)| range.contains(&address));
            let call = is_code.then_some(0xe8 << 24);
            memory.get(&address).copied().or(call)
        };
        let stop = walk(start, limit, &mut word, &mut find, |frame| {
            assert_eq!(frame.place, frame.pc - u64::from(frame.is_return_address));
            frames.push((frame.pc, frame.origin, frame.is_return_address));
        });
        (frames, stop)
    }

    fn walk(&mut self, pc: u64, sp: u64, fp: u64) -> (Vec<(u64, Origin, bool)>, Stop) {
        self.walk_from(
            Start::topmost(Registers {
                pc,
                sp,
                fp,
                full: None,
            }),
            510,
        )
    }

    /// Just the reason why the walk from 0x1000 with sp 0x7000 and fp 0x7100 ends.
    fn stop(&mut self) -> Stop {
        self.walk(0x1000, 0x7000, 0x7100).1
    }
}

#[test]
fn a_leaf_two_callers_and_start() {
    // leaf at its first instruction: the return address is on top of the stack.
    // middle has pushed rbp and 16 bytes more; start is outermost.
    let mut process = Process::default()
        .row(0x1000, caller(Cfa::Value(RSP, 8), Rule::Same))
        .row(0x2000, caller(Cfa::Value(RSP, 32), Rule::AtCfa(-16)))
        .row(0x3000, Unwind::Outermost)
        .word(0x7000, 0x2010)
        .word(0x7008 + 16, 0xbeef)
        .word(0x7008 + 24, 0x3010);
    let (frames, stop) = process.walk(0x1000, 0x7000, 1);
    assert_eq!(
        frames,
        [
            (0x1000, Origin::Registers, false),
            (0x2010, Origin::File, true),
            (0x3010, Origin::File, true),
        ]
    );
    assert_eq!(stop, Stop::Outermost);
    assert_eq!(process.reads, 3);
}

#[test]
fn a_caller_is_looked_up_by_its_call_not_by_what_follows_it() {
    // The call is the last instruction of a function that never returns: the return address
    // 0x2100 belongs to the next function, whose row would be wrong.
    let mut process = Process::default()
        .row(0x1000, caller(Cfa::Value(RSP, 8), Rule::Same))
        .row(0x2000, Unwind::Outermost)
        .row(0x2100, caller(Cfa::Value(RSP, 8), Rule::Same))
        .word(0x7000, 0x2100);
    assert_eq!(process.stop(), Stop::Outermost);
}

#[test]
fn an_interrupted_frame_is_looked_up_as_it_is() {
    // A handler returned into the trampoline at 0x2001 (0x2000 is its nop); the kernel's signal
    // frame holds rsp, rip and rbp of the code that was interrupted at its very first byte.
    let trampoline = Unwind::Caller(CallerRule {
        cfa: Cfa::At(RSP, 160),
        ra: Rule::At(RSP, 168),
        fp: Rule::At(RSP, 120),
        ra_signed: false,
    });
    let mut process = Process::default()
        .row(0x1000, caller(Cfa::Value(RSP, 8), Rule::Same))
        .signal_row(0x2000, trampoline)
        .row(0x3000, caller(Cfa::Value(RBP, 16), Rule::AtCfa(-16)))
        .row(0x4000, Unwind::Outermost)
        .word(0x7000, 0x2001)
        .word(0x7008 + 160, 0x9000)
        .word(0x7008 + 168, 0x3000)
        .word(0x7008 + 120, 0x9100)
        .word(0x9100, 0)
        .word(0x9108, 0x4010);
    let (frames, stop) = process.walk(0x1000, 0x7000, 0);
    assert_eq!(
        frames,
        [
            (0x1000, Origin::Registers, false),
            (0x2001, Origin::File, true),
            (0x3000, Origin::Converted, false),
            (0x4010, Origin::File, true),
        ]
    );
    assert_eq!(stop, Stop::Outermost);
}

#[test]
fn a_handler_on_its_own_stack_lies_anywhere() {
    // sigaltstack: the interrupted stack lies below the handler's.
    let trampoline = Unwind::Caller(CallerRule {
        cfa: Cfa::At(RSP, 160),
        ra: Rule::At(RSP, 168),
        fp: Rule::Same,
        ra_signed: false,
    });
    let mut process = Process::default()
        .signal_row(0x1000, trampoline)
        .row(0x3000, Unwind::Outermost)
        .word(0x7_0000 + 160, 0x1000)
        .word(0x7_0000 + 168, 0x3000);
    assert_eq!(process.walk(0x1000, 0x7_0000, 0).1, Stop::Outermost);
    // No stack that is walked lies from 2^47 on, and nothing is aligned like the last.
    for (cfa, stop) in [
        (1 << 60, Stop::CfaBad),
        (1 << 47, Stop::CfaBad),
        ((1 << 47) - 8, Stop::Outermost),
    ] {
        process = process.word(0x7_0000 + 160, cfa);
        assert_eq!(process.walk(0x1000, 0x7_0000, 0).1, stop);
    }
    let mut process = Process::default()
        .signal_row(0x1000, trampoline)
        .word(0x7000 + 160, 0x9001);
    assert_eq!(process.walk(0x1000, 0x7000, 0).1, Stop::CfaBad);
}

#[test]
fn signal_frames_that_point_at_each_other_end() {
    // Two trampoline frames, each the other's interrupted code.
    let trampoline = Unwind::Caller(CallerRule {
        cfa: Cfa::At(RSP, 0),
        ra: Rule::At(RSP, 8),
        fp: Rule::Same,
        ra_signed: false,
    });
    let mut process = Process::default()
        .signal_row(0x1000, trampoline)
        .word(0x7000, 0x8000)
        .word(0x7008, 0x1001)
        .word(0x8000, 0x7000)
        .word(0x8008, 0x1002);
    let (frames, stop) = process.walk(0x1000, 0x7000, 0);
    assert_eq!((frames.len(), stop), (4, Stop::Loop));

    // Downwards for ever: never the same pair, but only so many changes of stack.
    let mut process = Process::default().signal_row(0x1000, trampoline);
    for i in 0..100 {
        let sp = 0x7_0000 - i * 0x100;
        process = process.word(sp, sp - 0x100).word(sp + 8, 0x1001);
    }
    let (frames, stop) = process.walk(0x1000, 0x7_0000, 0);
    assert_eq!((frames.len(), stop), (MAX_SWITCHES + 1, Stop::CfaNotAbove));
}

#[test]
fn a_realigned_frame_needs_r10_and_has_it_on_top_only() {
    // DRAP: CFA = r10 while the prologue runs.
    let drap = || {
        Process::default()
            .row(0x1000, caller(Cfa::Value(R10, 0), Rule::Same))
            .row(0x3000, Unwind::Outermost)
    };
    let mut full = [0; FULL];
    full[10] = 0x7040;
    let start = Start::topmost(Registers {
        pc: 0x1000,
        sp: 0x7000,
        fp: 0,
        full: Some(full),
    });
    assert_eq!(
        drap().word(0x7038, 0x3010).walk_from(start, 510).1,
        Stop::Outermost
    );
    assert_eq!(drap().word(0x7038, 0x3010).stop(), Stop::RegisterUnknown);
    // Its caller has the same rule, but nobody knows its r10 any more.
    let (frames, stop) = drap().word(0x7038, 0x1010).walk_from(start, 510);
    assert_eq!((frames.len(), stop), (2, Stop::RegisterUnknown));
    // A register that does not exist.
    let mut process =
        Process::default().row(0x1000, caller(Cfa::Value(Register(200), 0), Rule::Same));
    assert_eq!(process.walk_from(start, 510).1, Stop::RegisterUnknown);
}

#[test]
fn rules_for_return_address_and_frame_pointer_elsewhere() {
    // PLT-like: the return address in a register, the frame pointer by value.
    let mut full = [0; FULL];
    full[0] = 0x2010;
    let rule = |ra, fp| {
        Unwind::Caller(CallerRule {
            cfa: Cfa::Value(RSP, 64),
            ra,
            fp,
            ra_signed: false,
        })
    };
    let start = Start::topmost(Registers {
        pc: 0x1000,
        sp: 0x7000,
        fp: 0x7100,
        full: Some(full),
    });
    let mut process = Process::default()
        .row(0x1000, rule(Rule::Value(RAX, 0), Rule::Value(RSP, 16)))
        .row(0x2000, caller(Cfa::Value(RBP, 0x40), Rule::Same))
        .row(0x3000, Unwind::Outermost)
        .word(0x7048, 0x3010);
    assert_eq!(process.walk_from(start, 510).1, Stop::Outermost);
    // An unaligned stack pointer is nobody's, whatever else the row says.
    let unaligned = Start::topmost(Registers {
        sp: 0x7004,
        ..start.registers
    });
    let at_sp = CallerRule {
        cfa: Cfa::Value(RSP, 0),
        ra: Rule::Value(RAX, 0),
        fp: Rule::Same,
        ra_signed: false,
    };
    let mut process = Process::default()
        .row(0x1000, Unwind::Caller(at_sp))
        .row(0x2000, Unwind::Outermost);
    assert_eq!(process.walk_from(start, 510).1, Stop::Outermost);
    assert_eq!(process.walk_from(unaligned, 510).1, Stop::CfaBad);
    // There is no link register here, nor are return addresses signed.
    assert_eq!(
        Process::default()
            .row(0x1000, rule(Rule::Same, Rule::Same))
            .stop(),
        Stop::BadRow
    );
    let signed = CallerRule {
        cfa: Cfa::Value(RSP, 8),
        ra: Rule::AtCfa(-8),
        fp: Rule::Same,
        ra_signed: true,
    };
    assert_eq!(
        Process::default()
            .row(0x1000, Unwind::Caller(signed))
            .stop(),
        Stop::BadRow
    );
}

#[test]
fn a_copy_does_not_reach_below_the_stack_pointer() {
    // `pop %rbp` was the last instruction, `ret` is the next. The row still says that rbp is saved,
    // at the place that the copy of the stack does not have any more; its register holds 0x7100.
    let process = || {
        Process::default()
            .row(0x1000, caller(Cfa::Value(RSP, 8), Rule::AtCfa(-16)))
            .row(0x2000, caller(Cfa::Value(RBP, 16), Rule::AtCfa(-16)))
            .row(0x3000, Unwind::Outermost)
            .word(0x7000, 0x2010)
            .word(0x7100, 0)
            .word(0x7108, 0x3010)
    };
    let registers = Registers {
        pc: 0x1000,
        sp: 0x7000,
        fp: 0x7100,
        full: Some([0; FULL]),
    };
    let start = Start::topmost(registers);
    assert_eq!(process().walk_from(start, 510).1, Stop::Outermost);
    // What can be read is believed.
    assert_eq!(
        process().word(0x6ff8, 0x7200).walk_from(start, 510).1,
        Stop::ReadFault
    );
    // In a caller, and beyond the red zone of 128 bytes, nothing may be assumed.
    assert_eq!(process().walk(0x1000, 0x7000, 0x7100).1, Stop::ReadFault);
    for (offset, stop) in [(-136, Stop::Outermost), (-137, Stop::ReadFault)] {
        let mut far = process().row(0x5000, caller(Cfa::Value(RSP, 8), Rule::AtCfa(offset)));
        let start = Start::topmost(Registers {
            pc: 0x5000,
            ..registers
        });
        assert_eq!(far.walk_from(start, 510).1, stop);
    }
}

#[test]
fn a_cfa_that_cannot_be() {
    let stop = |cfa| {
        Process::default()
            .row(0x1000, caller(cfa, Rule::Same))
            .word(0x6000, 1)
            .stop()
    };
    assert_eq!(stop(Cfa::Value(RSP, 0)), Stop::CfaNotAbove);
    assert_eq!(stop(Cfa::Value(RSP, -8)), Stop::CfaNotAbove);
    assert_eq!(stop(Cfa::Value(RSP, 12)), Stop::CfaBad);
    assert_eq!(
        stop(Cfa::Value(RSP, MAX_FRAME_SIZE as i32 + 8)),
        Stop::CfaBad
    );
    assert_eq!(
        stop(Cfa::Value(RSP, MAX_FRAME_SIZE as i32)),
        Stop::ReadFault
    );
    assert_eq!(stop(Cfa::Value(RSP, i32::MIN)), Stop::CfaBad);
    assert_eq!(stop(Cfa::At(RSP, 8)), Stop::ReadFault);
    assert_eq!(stop(Cfa::At(RSP, -0x1000)), Stop::CfaBad);
}

#[test]
fn a_frame_with_nothing_on_the_stack_has_its_return_address_in_a_register() {
    let stop = |ra| {
        let rule = CallerRule {
            cfa: Cfa::Value(RSP, 0),
            ra,
            fp: Rule::Same,
            ra_signed: false,
        };
        let mut full = [0; FULL];
        full[11] = 0x3001;
        let registers = Registers {
            pc: 0x1000,
            sp: 0x7000,
            fp: 0x7100,
            full: Some(full),
        };
        let mut process = Process::default()
            .row(0x1000, Unwind::Caller(rule))
            .row(0x3000, Unwind::Outermost)
            .word(0x6ff8, 0x3001);
        process.walk_from(Start::topmost(registers), 510).1
    };
    assert_eq!(stop(Rule::Value(Register(11), 0)), Stop::Outermost);
    assert_eq!(stop(Rule::AtCfa(-8)), Stop::CfaNotAbove);
    assert_eq!(stop(Rule::At(RSP, -8)), Stop::CfaNotAbove);
}

#[test]
fn a_row_that_says_what_cannot_be_is_bad() {
    let stop = |ra, fp| {
        let rule = CallerRule {
            cfa: Cfa::Value(RSP, 8),
            ra,
            fp,
            ra_signed: false,
        };
        let mut process = Process::default()
            .row(0x1000, Unwind::Caller(rule))
            .word(0x7000, 0x3000);
        process.stop()
    };
    // Below nothing.
    let below = Rule::Value(RSP, i32::MIN);
    assert_eq!(stop(below, Rule::Same), Stop::BadRow);
    assert_eq!(stop(Rule::AtCfa(-8), below), Stop::BadRow);
    // No register holds it.
    assert_eq!(stop(Rule::Same, Rule::Same), Stop::BadRow);
}

#[test]
fn zero_is_no_proof_of_an_end() {
    let mut process = Process::default()
        .row(0x1000, caller(Cfa::Value(RSP, 8), Rule::Same))
        .word(0x7000, 0);
    let (frames, stop) = process.walk(0x1000, 0x7000, 0);
    assert_eq!((frames.len(), stop), (1, Stop::ZeroReturn));
}

#[test]
fn a_caller_that_is_no_code_is_no_frame() {
    let mut process = Process::default()
        .row(0x1000, caller(Cfa::Value(RSP, 8), Rule::Same))
        .word(0x7000, 0x5555);
    let (frames, stop) = process.walk(0x1000, 0x7000, 0);
    assert_eq!((frames.len(), stop), (1, Stop::NotCode));
    // But a thread that jumped to nowhere is there.
    let (frames, stop) = process.walk(0, 0x7000, 0);
    assert_eq!(
        (frames, stop),
        (vec![(0, Origin::Registers, false)], Stop::NotCode)
    );
}

#[test]
fn the_limit_counts_frames() {
    let process = || {
        Process::default()
            .row(0x1000, caller(Cfa::Value(RSP, 8), Rule::Same))
            .row(0x2000, Unwind::Outermost)
            .word(0x7000, 0x2010)
    };
    let start = Start::topmost(Registers {
        pc: 0x1000,
        sp: 0x7000,
        fp: 0,
        full: None,
    });
    assert_eq!(process().walk_from(start, 2).1, Stop::Outermost);
    let (frames, stop) = process().walk_from(start, 1);
    assert_eq!((frames.len(), stop), (1, Stop::Limit));
    assert_eq!(process().walk_from(start, 0), (vec![], Stop::Limit));
}

#[test]
fn generated_code_is_guessed_through_and_tables_take_over_again() {
    // Generated code at 0x1000 and 0x2000 keeps frame pointers; 0x3000 is described.
    let mut process = Process::default()
        .says(0x1000, Says::Undescribed)
        .says(0x2000, Says::Undescribed)
        .row(0x3000, caller(Cfa::Value(RSP, 24), Rule::AtCfa(-16)))
        .row(0x4000, Unwind::Outermost)
        .word(0x7100, 0x7200)
        .word(0x7108, 0x2010)
        .word(0x7200, 0)
        .word(0x7208, 0x3010)
        .word(0x7218, 0x1234)
        .word(0x7220, 0x4010);
    let (frames, stop) = process.walk(0x1000, 0x7000, 0x7100);
    assert_eq!(
        frames,
        [
            (0x1000, Origin::Registers, false),
            (0x2010, Origin::FramePointer, true),
            (0x3010, Origin::FramePointer, true),
            (0x4010, Origin::File, true),
        ]
    );
    assert_eq!(stop, Stop::Outermost);
}

#[test]
fn a_frame_pointer_that_does_not_check_out() {
    let generated = || {
        Process::default()
            .says(0x1000, Says::Undescribed)
            .row(0x3000, Unwind::Outermost)
    };
    let good = || generated().word(0x7100, 0x7200).word(0x7108, 0x3010);
    assert_eq!(good().stop(), Stop::Outermost);
    assert_eq!(good().walk(0x1000, 0x7100, 0x7100).1, Stop::Outermost);
    assert_eq!(
        good().walk(0x1000, 0x7108, 0x7100).1,
        Stop::FramePointer,
        "below the stack pointer"
    );
    assert_eq!(
        good().walk(0x1000, 0x7000, 0x7101).1,
        Stop::FramePointer,
        "misaligned"
    );
    assert_eq!(
        good().walk(0x1000, 0x7000, u64::MAX).1,
        Stop::FramePointer,
        "wraps"
    );
    assert_eq!(
        good().walk(0x1000, 8, 0x7100 + MAX_FRAME_SIZE).1,
        Stop::FramePointer,
        "too far"
    );
    assert_eq!(generated().stop(), Stop::FramePointer, "unreadable");
    assert_eq!(
        generated().word(0x7100, 0x7200).stop(),
        Stop::FramePointer,
        "unreadable"
    );
    assert_eq!(
        good().word(0x7100, 0x7100).stop(),
        Stop::FramePointer,
        "points at itself"
    );
    assert_eq!(
        good().word(0x7100, 0x7000).stop(),
        Stop::FramePointer,
        "points down"
    );
    assert_eq!(
        good().word(0x7100, 0x6ff8).stop(),
        Stop::Outermost,
        "used for something else by a caller that is described"
    );
    assert_eq!(
        good().word(0x7100, 0).stop(),
        Stop::Outermost,
        "the last of a chain"
    );
    assert_eq!(
        good().word(0x7108, 0x9999).stop(),
        Stop::FramePointer,
        "returns to no code"
    );
    assert_eq!(good().word(0x7108, 0).stop(), Stop::ZeroReturn);
}

#[test]
fn a_walk_can_be_taken_up_at_a_caller() {
    let mut process = Process::default()
        .row(0x1f00, caller(Cfa::Value(RSP, 16), Rule::Same))
        .row(0x3000, Unwind::Outermost)
        .word(0x7008, 0x3010);
    let registers = Registers {
        pc: 0x2000,
        sp: 0x7000,
        fp: 0,
        full: None,
    };
    let start = Start {
        registers,
        origin: Origin::Converted,
        is_return_address: true,
    };
    let (frames, stop) = process.walk_from(start, 510);
    assert_eq!(
        frames,
        [
            (0x2000, Origin::Converted, true),
            (0x3010, Origin::File, true)
        ]
    );
    assert_eq!(stop, Stop::Outermost);
}
