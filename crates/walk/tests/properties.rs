//! Properties that no process, however hostile, can break.

use framewalk_sframe::{CallerRule, Cfa, Register, Rule, Unwind};
use framewalk_walk::arch::{AARCH64, AMD64, Arch, FULL, S390X};
use framewalk_walk::{
    Code, Found, MAX_SWITCHES, Origin, READS_PER_FRAME, READS_PER_GUESS, Registers, Says, Start,
    Stop, walk,
};
use proptest::prelude::*;

/// Registers that rules need: as often as not those of some machine.
fn register() -> impl Strategy<Value = Register> {
    let known = [AMD64, AARCH64, S390X].map(|arch| [arch.sp, arch.sp, arch.fp]);
    prop_oneof![
        7 => prop::sample::select(known.as_flattened().to_vec()),
        1 => any::<u8>().prop_map(Register),
    ]
}

fn offset() -> impl Strategy<Value = i32> {
    prop_oneof![6 => (-8..64i32).prop_map(|n| n * 8), 1 => -64..64i32, 1 => any::<i32>()]
}

fn rule() -> impl Strategy<Value = Rule> {
    prop_oneof![
        1 => Just(Rule::Same),
        4 => offset().prop_map(Rule::AtCfa),
        2 => (register(), offset()).prop_map(|(r, o)| Rule::At(r, o)),
        1 => (register(), offset()).prop_map(|(r, o)| Rule::Value(r, o)),
    ]
}

fn cfa() -> impl Strategy<Value = Cfa> {
    prop_oneof![
        3 => (register(), offset()).prop_map(|(r, o)| Cfa::Value(r, o)),
        1 => (register(), offset()).prop_map(|(r, o)| Cfa::At(r, o)),
    ]
}

fn says() -> impl Strategy<Value = Says> {
    let caller =
        (cfa(), rule(), rule(), prop::bool::weighted(0.05)).prop_map(|(cfa, ra, fp, ra_signed)| {
            Unwind::Caller(CallerRule {
                cfa,
                ra,
                fp,
                ra_signed,
            })
        });
    prop_oneof![
        12 => (caller, prop::bool::weighted(0.2)).prop_map(|(unwind, signal)| {
            Says::Row { unwind, signal, origin: if signal { Origin::Announced } else { Origin::File } }
        }),
        3 => Just(Says::Undescribed),
        1 => Just(Says::Row { unwind: Unwind::Outermost, signal: false, origin: Origin::File }),
        1 => Just(Says::Stop(Stop::NotCode)),
    ]
}

/// Words that look like stack addresses, code addresses, or like nothing.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0u64..256).prop_map(|n| STACK + n * 8),
        4 => 0x1000u64..0x1040,
        1 => Just(0),
        1 => any::<u64>(),
    ]
}

const STACK: u64 = 0x7fff_0000;

/// The code of a process of some machine.
struct Program<'a>(&'static Arch, &'a [Says]);

impl Code for Program<'_> {
    type Place = u64;

    fn arch(&self) -> &'static Arch {
        self.0
    }

    fn find(&mut self, pc: u64) -> Found<u64> {
        let says = self.1[pc as usize % self.1.len()];
        Found { place: pc, says }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_walk_ends_and_climbs(
        arch in prop::sample::select(vec![&AMD64, &AARCH64, &S390X]),
        code in prop::collection::vec(says(), 1..8),
        stack in prop::collection::vec(word(), 256),
        (pc, sp, fp) in (word(), word(), word()),
        full in prop::option::of(prop::collection::vec(word(), FULL)),
        limit in 0usize..600,
    ) {
        let full: Option<[u64; FULL]> = full.map(|all| all.try_into().unwrap());
        let mut reads = 0;
        let mut memory = |address: u64| {
            reads += 1;
            let Some(index) = address.checked_sub(STACK) else {
                // Code, as far as its bytes matter.
                return Some(if address.is_multiple_of(3) { 0xe8 << 24 } else { address << 8 });
            };
            (index % 8 == 0).then(|| stack.get(index as usize / 8).copied())?
        };
        let mut program = Program(arch, &code);
        let mut frames = Vec::new();
        let start = Start::topmost(Registers { pc, sp, fp, full });
        let stop = walk(start, limit, &mut memory, &mut program, |frame| frames.push(frame));

        prop_assert!(frames.len() <= limit);
        prop_assert!(reads <= READS_PER_FRAME.max(READS_PER_GUESS) * frames.len());
        prop_assert_eq!(limit == 0, frames.is_empty());
        if let Some(first) = frames.first() {
            prop_assert_eq!((first.pc, first.sp, first.origin), (pc, sp, Origin::Registers));
        }
        let mut switches = 0;
        for (depth, pair) in frames.windows(2).enumerate() {
            prop_assert!(pair[1].pc != 0);
            prop_assert_eq!(pair[1].pc & arch.address_bits, pair[1].pc);
            prop_assert!(pair[1].origin != Origin::FramePointer || arch.guesses);
            // Only signal rows have this origin here.
            let signal = pair[1].origin == Origin::Announced;
            prop_assert_eq!(signal, !pair[1].is_return_address);
            // Only the topmost frame may have nothing on the stack, where all its registers are known.
            let empty = depth == 0 && full.is_some() && pair[1].sp == pair[0].sp;
            if pair[1].sp <= pair[0].sp && !empty {
                prop_assert!(signal);
                switches += 1;
            }
            prop_assert_eq!(pair[1].sp % arch.word, 0);
            prop_assert!(pair[1].sp.checked_add(arch.save_area).is_some());
        }
        prop_assert!(switches <= MAX_SWITCHES);
        match stop {
            Stop::Limit => prop_assert_eq!(frames.len(), limit),
            Stop::Outermost => {
                let last = frames.last().map(|frame| code[frame.place as usize % code.len()]);
                let outermost = matches!(last, Some(Says::Row { unwind: Unwind::Outermost, .. }));
                prop_assert!(outermost);
            }
            _ => {}
        }
    }
}
