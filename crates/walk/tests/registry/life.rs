//! Address spaces: who has which, and how long what they hold lives.

use super::memory::{Process, SORTED, Section};
use framewalk_announce::abi::{MAX_SECTIONS, REPLACE, Refusal};
use framewalk_walk::registry::{Registry, What};

/// Registers a section whose text is at `start`.
fn register(registry: &mut Registry, pid: u32, key: u64, start: u64) -> Result<u64, Refusal> {
    register_with(registry, pid, key, start, 0)
}

fn register_with(
    registry: &mut Registry,
    pid: u32,
    key: u64,
    start: u64,
    flags: u64,
) -> Result<u64, Refusal> {
    const AT: u64 = 0x100_0000;
    let bytes = Section::new(3, SORTED, AT, &[(start, 0x10)]).bytes();
    let length = bytes.len() as u64;
    let process = Process::new(AT, bytes);
    let mut read = |address, into: &mut [u8]| process.read(address, into);
    let announced = registry.register(pid, key, AT, length, flags, &mut read)?;
    assert!(announced.id() > 0);
    Ok(announced.number)
}

fn starts(registry: &Registry, pid: u32) -> Vec<u64> {
    let sections = registry.sections(pid).iter();
    sections.map(|held| held.claim.text.start).collect()
}

#[test]
fn a_key_holds_several_sections() {
    let mut registry = Registry::default();
    for (key, start) in [(1, 0x3000), (2, 0x2000), (1, 0x1000)] {
        register(&mut registry, 1, key, start).unwrap();
    }
    assert_eq!(starts(&registry, 1), [0x1000, 0x2000, 0x3000]);
    assert_eq!(registry.find(1, 0x2008).unwrap().key, 2);
    assert!(registry.find(1, 0x2010).is_none() && registry.find(1, 0xfff).is_none());
    assert!(registry.find(2, 0x2008).is_none());
    assert_eq!(
        register_with(&mut registry, 1, 1, 0x2008, REPLACE),
        Err(Refusal::Overlap)
    );
    assert_eq!(starts(&registry, 1).len(), 3, "still all that the key held");
    assert_eq!(register_with(&mut registry, 1, 1, 0x1008, REPLACE), Ok(4));
    assert_eq!(starts(&registry, 1), [0x1008, 0x2000]);
    assert_eq!(registry.unregister(1, 1), Ok(1));
    assert_eq!(registry.unregister(1, 1), Err(Refusal::UnknownKey));
    assert_eq!(
        registry.unregister(2, 2),
        Err(Refusal::UnknownKey),
        "another process's key"
    );
    assert_eq!(
        (registry.unregister(1, 2), registry.is_empty()),
        (Ok(1), true)
    );
}

#[test]
fn fork_copies_and_exec_and_exit_drop() {
    let mut registry = Registry::default();
    register(&mut registry, 1, 1, 0x1000).unwrap();
    register(&mut registry, 1, 2, 0x2000).unwrap();
    registry.fork(1, 2);
    let numbers: Vec<u64> = registry
        .sections(2)
        .iter()
        .map(|held| held.number)
        .collect();
    assert_eq!(numbers, [3, 4], "copies have numbers of their own");
    assert_eq!(registry.unregister(2, 1), Ok(1));
    register(&mut registry, 2, 3, 0x3000).unwrap();
    assert_eq!(starts(&registry, 1), [0x1000, 0x2000]);
    assert_eq!(starts(&registry, 2), [0x2000, 0x3000]);
    registry.exec(1);
    assert_eq!((starts(&registry, 1), registry.len()), (vec![], 2));
    // A process id that is used again begins with what its new parent has.
    registry.fork(2, 1);
    assert_eq!(starts(&registry, 1), starts(&registry, 2));
    registry.fork(3, 1);
    assert_eq!(starts(&registry, 1), []);
    registry.fork(2, 2);
    registry.exit(2);
    assert!(registry.is_empty() && registry.list().is_empty());
}

#[test]
fn vfork_shares_until_exec_or_exit() {
    let mut registry = Registry::default();
    // Nothing is registered yet: what the child announces is the parent's all the same.
    registry.share(1, 2);
    register(&mut registry, 2, 1, 0x1000).unwrap();
    assert_eq!(registry.list()[&1], registry.list()[&2]);
    registry.share(2, 3);
    registry.exec(2);
    assert!(registry.sections(2).is_empty());
    register(&mut registry, 2, 1, 0x7000).unwrap();
    registry.exit(1);
    assert_eq!(starts(&registry, 3), [0x1000], "one sharer is left");
    registry.exit(3);
    assert_eq!(registry.len(), 1);
    registry.share(2, 2);
    registry.share(2, 4);
    registry.exit(2);
    registry.exit(4);
    assert!(registry.is_empty());
}

#[test]
fn quotas() {
    let mut registry = Registry::default();
    let most = u64::from(MAX_SECTIONS);
    for n in 1..=most {
        register(&mut registry, 1, n, n * 0x100).unwrap();
    }
    assert_eq!(
        register(&mut registry, 1, 1, 0x1_0000_0000),
        Err(Refusal::Quota)
    );
    assert_eq!(
        register(&mut registry, 1, 1, 0x100),
        Err(Refusal::Overlap),
        "comes first"
    );
    assert!(
        register_with(&mut registry, 1, 1, 0x1_0000_0000, REPLACE).is_ok(),
        "no more than before"
    );
    assert_eq!(registry.sections(1).len() as u64, most);
    assert!(
        register(&mut registry, 2, 1, 0x100).is_ok(),
        "another process's affair"
    );

    let mut registry = Registry::with_room(3);
    for start in [0x1000, 0x2000] {
        register(&mut registry, 1, 1, start).unwrap();
    }
    registry.fork(1, 2);
    assert_eq!((registry.sections(2).len(), registry.uncopied()), (0, 1));
    register(&mut registry, 2, 1, 0x1000).unwrap();
    assert_eq!(register(&mut registry, 2, 1, 0x2000), Err(Refusal::Quota));
    registry.exit(1);
    assert!(register(&mut registry, 2, 1, 0x2000).is_ok());
}

#[test]
fn a_copy_of_the_header_is_kept() {
    let mut registry = Registry::default();
    let bytes = Section::new(2, SORTED, 0x100_0000, &[(0x1000, 0x10), (0x2000, 0x10)]).bytes();
    let process = Process::new(0x100_0000, bytes.clone());
    let mut reads = Vec::new();
    let mut read = |address, into: &mut [u8]| {
        reads.push((address, into.len()));
        process.read(address, into)
    };
    let held = registry
        .register(1, 1, 0x100_0000, bytes.len() as u64, 0, &mut read)
        .unwrap();
    let What::Section {
        header,
        first_bytes,
    } = &held.claim.what
    else {
        panic!("{held:?}");
    };
    assert_eq!(first_bytes[..], bytes[..28]);
    assert_eq!(
        (header.functions, held.claim.text.clone()),
        (2, 0x1000..0x2010)
    );
    assert_eq!(
        reads,
        [(0x100_0000, 28), (0x100_001c, 20), (0x100_0030, 20)],
        "each once"
    );
}
