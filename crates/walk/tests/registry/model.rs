//! Random sequences against a model that does everything the slow way.

use super::memory::{Area, Process, SORTED, Section};
use super::oracle::{Both, Step};
use framewalk_announce::abi::{KIND_AREA, KIND_SECTION, REGISTER, REPLACE, UNREGISTER};
use framewalk_announce::area::layout::MAX_AREA;
use proptest::prelude::*;

const ROOM: usize = 14;
const SLOTS: u64 = 24;

fn step() -> impl Strategy<Value = Step> {
    let (pid, key) = (1..5u32, 1..5u64);
    prop_oneof![
        10 => (pid.clone(), key.clone(), 0..SLOTS, 1..4u32, area(), prop::bool::weighted(0.3)).prop_map(
            |(pid, key, slot, slots, area, replace)| Step::Register { pid, key, slot, slots, area, replace }
        ),
        4 => call(),
        4 => (pid.clone(), key).prop_map(|(pid, key)| Step::Unregister { pid, key }),
        2 => (pid.clone(), pid.clone()).prop_map(|(a, b)| Step::Fork(a, b)),
        2 => (pid.clone(), pid.clone()).prop_map(|(a, b)| Step::Share(a, b)),
        1 => pid.clone().prop_map(Step::Exec),
        1 => pid.prop_map(Step::Exit),
    ]
}

fn area() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(256),
        Just(MAX_AREA / 2),
        Just(MAX_AREA / 4 + 1)
    ]
}

/// A call with a section or an area behind it, of which some bytes are anything.
fn call() -> impl Strategy<Value = Step> {
    const AT: u64 = 0x100_0000;
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let changes = prop::collection::vec(change, 0..3);
    let option = prop_oneof![8 => Just(REGISTER), 1 => Just(UNREGISTER), 1 => any::<u32>()];
    let flags = prop_oneof![4 => Just(0), 1 => Just(REPLACE), 1 => any::<u64>()];
    let more = prop_oneof![8 => Just(0u64), 1 => Just(1), 1 => any::<u64>()];
    let text = (0..SLOTS, 1..64u32, any::<bool>());
    (1..5u32, 1..5u64, option, flags, more, text, changes).prop_map(
        |(pid, key, option, flags, more, (slot, slots, area), changes)| {
            let (start, size) = (0x1000 + slot * 16, slots * 16);
            let (kind, mut bytes) = match area {
                true => (
                    KIND_AREA,
                    Area::new(key, start..start + u64::from(size)).bytes(),
                ),
                false => (
                    KIND_SECTION,
                    Section::new(3, SORTED, AT, &[(start, size)]).bytes(),
                ),
            };
            let length = if area { 256 } else { bytes.len() as u64 };
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let arguments = [key, AT, length.wrapping_add(more), kind | flags];
            let memory = Process::new(AT, bytes);
            Step::Call {
                pid,
                option,
                arguments,
                memory,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_registry_is_the_model(steps in prop::collection::vec(step(), 0..80)) {
        let mut both = Both::with_room(ROOM);
        for step in steps {
            both.step(step);
            both.compare();
        }
    }
}
