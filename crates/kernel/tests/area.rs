//! Frame areas of this very process, read inside the kernel and by the observer outside: sound ones, and ones that
//! somebody scribbled on. Both have to say the same of every pc. Needs root (or CAP_BPF and CAP_PERFMON).
//!
//! `FRAMEWALK_AREA_ROUNDS` and `FRAMEWALK_AREA_SEED` make it longer, and begin it where it failed.

#[path = "area/both.rs"]
mod both;
#[path = "area/pages.rs"]
mod pages;
#[path = "announce/random.rs"]
#[expect(dead_code, reason = "the other test program uses more of it")]
mod random;
#[path = "area/table.rs"]
mod table;

use both::{RBP, RSP, geometry, inside, outside, read};
use framewalk_announce::area::layout::*;
use framewalk_announce::area::{Function, Label, Mapped, Options, Place, Rule, Slot};
use framewalk_kernel::look::Look;
use framewalk_sframe::{
    Arch, Builder, CallerRule, Cfa, FunctionRows, Register, Row, Rule as Saved, Unwind,
};
use random::Random;
use std::sync::atomic::Ordering::Relaxed;

const TEXT: u64 = 0x10_0000;
const TEXT_LEN: u64 = 0x4000;

fn load(test: &str) -> Option<Look> {
    match Look::load() {
        Ok(look) => Some(look),
        Err(error) if !rustix_is_root() => {
            println!("SKIPPED {test}: {error}");
            None
        }
        Err(error) => panic!("root, and yet refused: {error}"),
    }
}

fn rustix_is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// A function's attribute and rows, as they stand in a section.
fn rows(random: &mut Random, size: u32) -> Vec<u8> {
    let mut rows: Vec<Row> = Vec::new();
    let mut start = random.below(3) as u32;
    while start < size && rows.len() < 12 {
        let cfa = match random.below(4) {
            0 => Cfa::Value(Register(RBP), 16),
            1 => Cfa::At(Register(RBP), -8),
            _ => Cfa::Value(Register(RSP), 8 + 8 * random.below(40) as i32),
        };
        let fp = match random.below(3) {
            0 => Saved::AtCfa(-16),
            1 => Saved::At(Register(RBP), 0),
            _ => Saved::Same,
        };
        let unwind = match random.below(12) {
            0 => Unwind::Outermost,
            _ => Unwind::Caller(CallerRule {
                cfa,
                ra: Saved::AtCfa(-8),
                fp,
                ra_signed: false,
            }),
        };
        rows.push(Row { start, unwind });
        start += 1 + random.below(u64::from(size) / 3 + 1) as u32;
    }
    if rows.is_empty() {
        rows.push(Row {
            start: 0,
            unwind: Unwind::Outermost,
        });
    }
    let mut builder = Builder::new(Arch::Amd64);
    builder.push(FunctionRows::new(TEXT, size, rows));
    let section = builder.finish(TEXT + 0x10_0000).unwrap();
    framewalk_sframe::Section::parse(&section, TEXT + 0x10_0000).unwrap();
    // Behind the header and one index entry.
    section[28 + 16..].to_vec()
}

struct World {
    random: Random,
    area: Mapped,
    slots: Vec<Slot>,
}

impl World {
    fn new(mut random: Random) -> World {
        let mut options = Options::new(TEXT, TEXT_LEN - random.below(100));
        options.capacity = [1, 7, 200][random.below(3) as usize];
        options.granule_shift = [6, 7, 10, 16][random.below(4) as usize];
        options.heap = 8 * random.below(1000);
        options.default_rule = match random.below(5) {
            0 => Rule::FramePointer,
            1 => Rule::fixed(24),
            2 => Rule::Outermost,
            _ => Rule::None,
        };
        let area = Mapped::new(&options).unwrap();
        World {
            random,
            area,
            slots: Vec::new(),
        }
    }

    fn publish(&mut self) {
        let random = &mut self.random;
        let most = [40, 300, 5000][random.below(3) as usize];
        let size = 1 + random.below(most) as u32;
        let start = TEXT + random.below(TEXT_LEN - 200);
        let rows = rows(random, size);
        let word = |random: &mut Random| 8 * (random.below(200) as i16 - 100);
        let rule = match random.below(9) {
            0 => Rule::FramePointer,
            1 => Rule::Outermost,
            2 => Rule::Opaque,
            3 => Rule::StackSwitch {
                stack: match random.below(2) {
                    0 => Place::At(word(random)),
                    _ => Place::Register(random.below(16) as u8),
                },
                cfa: word(random),
                ra: word(random),
                fp: word(random),
            },
            4 => Rule::Fixed {
                cfa: 8 * random.below(20) as i32,
                ra: Place::Register(random.below(16) as u8),
                fp: word(random),
            },
            5 => Rule::Fixed {
                cfa: 8 + 8 * random.below(2000) as i32,
                ra: Place::At(word(random)),
                fp: word(random),
            },
            _ => Rule::Rows(&rows),
        };
        let mut function = Function::new(start, size, rule);
        let name = format!("function {}", random.below(1000));
        if random.below(3) > 0 {
            function.label = Label::Name(&name);
        }
        function.prologue_len = random.below(3) as u16 * 4;
        function.signal = random.below(10) == 0 && !matches!(rule, Rule::StackSwitch { .. });
        function.runtime = random.below(10) == 0;
        // It may be full.
        if let Ok(slot) = self.area.publish(&function) {
            self.slots.push(slot);
        }
    }

    /// Any word but those that never change gets any value, often one that is nearly right.
    fn scribble(&mut self) {
        let random = &mut self.random;
        let words = self.area.words();
        let first = GEOMETRY_SIZE / 4;
        let used = match random.below(3) {
            0 => (HEADER_SIZE / 4) + 8 * u64::from(self.area.claimed()).min(50),
            _ => words.len() as u64,
        };
        let at = (first + random.below(used.max(first + 1) - first)) as usize;
        let Some(word) = words.get(at) else { return };
        let old = word.load(Relaxed);
        let value = match random.below(8) {
            0 => 0,
            1 => u32::MAX,
            2 => 1 << 31,
            3 => old ^ 1 << random.below(32),
            4 => old.wrapping_add(1),
            5 => old.wrapping_sub(1),
            6 => random.below(300) as u32,
            _ => words[first as usize + random.below(words.len() as u64 - first) as usize]
                .load(Relaxed),
        };
        word.store(value, Relaxed);
    }
}

#[test]
fn the_kernel_and_the_observer_agree() {
    const TEST: &str = "the_kernel_and_the_observer_agree";
    let Some(look) = load(TEST) else { return };
    let set = |name| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse().ok())
    };
    let seed = set("FRAMEWALK_AREA_SEED").unwrap_or_else(Random::any_seed);
    let rounds = set("FRAMEWALK_AREA_ROUNDS").unwrap_or(60);
    println!("FRAMEWALK_AREA_SEED={seed} FRAMEWALK_AREA_ROUNDS={rounds}");
    let mut seeds = Random::new(seed);
    let mut tally = std::collections::BTreeMap::new();
    for round in 0..rounds {
        let mut world = World::new(Random::new(seeds.below(u64::MAX)));
        let geometry = geometry(&world.area);
        for step in 0..60 {
            match world.random.below(10) {
                0..5 => world.publish(),
                5 if !world.slots.is_empty() => {
                    let slot = world.random.below(world.slots.len() as u64) as usize;
                    world.area.tombstone(world.slots.swap_remove(slot));
                }
                // Every second round stays sound.
                6.. if round % 2 == 1 => world.scribble(),
                _ => {}
            }
            for _ in 0..4 {
                let pc = geometry.text.start
                    + world.random.below(geometry.text.end - geometry.text.start);
                let address = world.area.words().as_ptr() as u64;
                let answers = [
                    inside(&look, address, &geometry, pc),
                    outside(&geometry, pc, &mut |at, into| read(&world.area, at, into)),
                ];
                let [inside, outside] = &answers;
                assert_eq!(
                    inside, outside,
                    "round {round} step {step} pc {pc:#x}: {geometry:?}"
                );
                *tally.entry(format!("{:?}", inside.outcome)).or_insert(0u32) += 1;
            }
        }
    }
    println!("{tally:?}");
    for outcome in ["Found", "Nothing", "Malformed", "Opaque"] {
        assert!(
            tally.contains_key(outcome),
            "{outcome} was never the answer: {tally:?}"
        );
    }
}
