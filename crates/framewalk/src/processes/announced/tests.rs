use super::*;
use crate::processes::{Backing, Mapping, Mappings, Objects, ProcessCode, Tables};
use framewalk_sframe::{Arch, Builder, CallerRule, Cfa, FunctionRows, Register, Row, Rule, Unwind};
use framewalk_walk::registry::Registry;
use framewalk_walk::{Code, Stop};

const PID: u32 = 5;
const AT: u64 = 0x10_0000;

/// Functions of 0x10 bytes at 0x1000 and 0x1020.
fn section() -> Vec<u8> {
    let rule = CallerRule {
        cfa: Cfa::Value(Register(7), 8),
        ra: Rule::AtCfa(-8),
        fp: Rule::Same,
        ra_signed: false,
    };
    let row = Row {
        start: 0,
        unwind: Unwind::Caller(rule),
    };
    let mut builder = Builder::new(Arch::Amd64);
    for start in [0x1000, 0x1020] {
        builder.push(FunctionRows::new(start, 0x10, vec![row]));
    }
    builder.finish(AT).unwrap()
}

/// A registry that holds it, and what is in memory now.
struct World {
    registry: Registry,
    copies: SectionCopies,
    memory: Vec<u8>,
    reads: usize,
}

impl World {
    fn new() -> World {
        let memory = section();
        let mut registry = Registry::default();
        let mut read = |address: u64, into: &mut [u8]| {
            into.copy_from_slice(&memory[(address - AT) as usize..][..into.len()]);
            true
        };
        let len = memory.len() as u64;
        registry.register(PID, 1, AT, len, 0, &mut read).unwrap();
        World {
            registry,
            copies: SectionCopies::default(),
            memory,
            reads: 0,
        }
    }

    fn code<T>(&mut self, ask: impl FnOnce(AnnouncedCode<'_>) -> T) -> T {
        let World {
            registry,
            copies,
            memory,
            reads,
        } = self;
        ask(AnnouncedCode {
            pid: PID,
            sections: registry.sections(PID),
            copies,
            read: Some(Box::new(|_, into: &mut [u8]| {
                *reads += 1;
                into.len() == memory.len() && {
                    into.copy_from_slice(memory);
                    true
                }
            })),
        })
    }

    fn find(&mut self, pc: u64) -> Option<Says> {
        self.code(|mut code| code.find(pc).map(|found| found.says))
    }

    fn changed(&mut self) -> Option<bool> {
        self.code(|mut code| {
            code.copies
                .changed(&code.sections[0], &mut **code.read.as_mut().unwrap())
        })
    }
}

#[test]
fn a_section_is_read_once_and_asked_for_its_text() {
    let mut world = World::new();
    for _ in 0..3 {
        for pc in [0x1000, 0x100f, 0x1020, 0x102f] {
            let says = world.find(pc);
            assert!(
                matches!(
                    says,
                    Some(Says::Row {
                        origin: Origin::Announced,
                        ..
                    })
                ),
                "{says:?}"
            );
        }
        for pc in [0, 0xfff, 0x1010, 0x101f, 0x1030, u64::MAX] {
            assert_eq!(world.find(pc), None, "{pc:#x}");
        }
    }
    assert_eq!(
        (world.reads, world.copies.failures()),
        (1, Failures::default())
    );
    assert_eq!(world.copies.bytes, world.memory.len());
}

#[test]
fn what_changes_later_is_told_and_a_changed_header_is_not_believed() {
    let mut world = World::new();
    assert_eq!(world.changed(), None, "not copied yet");
    // Another number of functions, between registration and copy.
    world.memory[8] = 1;
    assert!(world.find(0x1020).is_some());
    assert_eq!(world.changed(), Some(false));
    world.memory[40] ^= 1;
    assert_eq!(world.changed(), Some(true));
    world.memory.clear();
    assert_eq!(world.changed(), None);
    assert!(world.find(0x1000).is_some(), "the copy stays");
}

#[test]
fn what_cannot_be_read_or_is_nonsense_says_nothing() {
    let mut world = World::new();
    let sound = std::mem::take(&mut world.memory);
    assert_eq!((world.find(0x1000), world.find(0x1020)), (None, None));
    assert_eq!((world.reads, world.copies.failures().unreadable), (1, 1));

    // Rows outside of the row area.
    let mut world = World::new();
    world.memory[28 + 12] = 0xff;
    assert_eq!(world.find(0x1000), None);
    assert!(world.find(0x1020).is_some());
    assert_eq!(world.copies.failures().malformed, 1);

    let mut world = World::new();
    world.copies.room = sound.len() - 1;
    assert_eq!(world.find(0x1000), None);
    assert_eq!((world.reads, world.copies.failures().too_large), (0, 1));
    assert_eq!(world.copies.failures().notes().len(), 1);
}

#[test]
fn every_section_of_changed_bytes_gives_an_answer_or_none() {
    let sound = section();
    for at in 0..sound.len() {
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            let mut world = World::new();
            world.memory[at] = byte;
            for pc in [0x1000, 0x100f, 0x1010, 0x1020] {
                world.find(pc);
            }
        }
    }
}

#[test]
fn copies_go_with_their_registration() {
    let mut world = World::new();
    world.find(0x1000);
    world.registry.fork(PID, PID + 1);
    world.copies.keep(PID + 1, &[]);
    world.copies.keep(PID, world.registry.sections(PID));
    assert_ne!(world.copies.bytes, 0);
    world.registry.unregister(PID, 1).unwrap();
    world.copies.keep(PID, world.registry.sections(PID));
    assert_eq!((world.copies.bytes, world.copies.copies.len()), (0, 0));
    assert_eq!(world.find(0x1000), None);
}

#[test]
fn announced_code_comes_first_and_only_where_there_is_code() {
    let mut mappings = Mappings::default();
    let mapping = Mapping {
        start: 0x1000,
        end: 0x1020,
        offset: 0,
        backing: Backing::Anonymous,
    };
    mappings.insert(mapping).unwrap();
    let (objects, mut tables) = (Objects::default(), Tables::default());
    World::new().code(|announced| {
        let code = ProcessCode::new(&mappings, &objects, &mut tables);
        let mut code = code.with_announced(Some(announced));
        let announced = Origin::Announced;
        let says = code.find(0x1008).says;
        assert!(
            matches!(says, Says::Row { origin, .. } if origin == announced),
            "{says:?}"
        );
        assert_eq!(
            code.find(0x1018).says,
            Says::Undescribed,
            "between the functions"
        );
        assert_eq!(
            code.find(0x1028).says,
            Says::Stop(Stop::NotCode),
            "not executable"
        );
    });
}
