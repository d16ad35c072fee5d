//! Properties that no process, however hostile, can break.

mod hostile;

use framewalk_sframe::{CallerRule, Cfa, Register, Rule, Unwind};
use framewalk_walk::arch::{AARCH64, AMD64, FULL, S390X};
use framewalk_walk::{Origin, Says, Stop};
use hostile::{Process, STACK};
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
    let caller = (cfa(), rule(), rule(), prop::bool::weighted(0.05));
    let caller = caller.prop_map(|(cfa, ra, fp, ra_signed)| CallerRule {
        cfa,
        ra,
        fp,
        ra_signed,
    });
    let caller = caller.boxed();
    let origin = prop::sample::select(vec![Origin::File, Origin::Announced, Origin::FrameArea]);
    let of = (caller, prop::bool::weighted(0.2), origin);
    prop_oneof![
        12 => of.clone().prop_map(|(rule, signal, origin)| {
            Says::Row { unwind: Unwind::Caller(rule), signal, origin }
        }),
        4 => (of.clone(), any::<bool>()).prop_map(|((rule, signal, origin), frame_pointer)| {
            Says::Body { rule, frame_pointer, signal, origin }
        }),
        4 => (of, offset()).prop_map(|((rule, _, origin), add)| Says::Switch { rule, add, origin }),
        3 => Just(Says::Undescribed),
        1 => Just(Says::Row { unwind: Unwind::Outermost, signal: false, origin: Origin::File }),
        1 => prop::sample::select(vec![Stop::NotCode, Stop::NoRow]).prop_map(Says::Stop),
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_walk_ends_and_climbs(
        arch in prop::sample::select(vec![&AMD64, &AARCH64, &S390X]),
        code in prop::collection::vec(says(), 1..8),
        stack in prop::collection::vec(word(), 256),
        (pc, sp, fp) in (word(), word(), word()),
        full in prop::option::of(prop::collection::vec(word(), FULL)),
        is_return_address in prop::bool::weighted(0.1),
        limit in 0usize..600,
    ) {
        let full = full.map(|all| all.try_into().unwrap());
        Process { arch, code, stack, pc, sp, fp, full, is_return_address, limit }.ends_and_climbs();
    }
}
