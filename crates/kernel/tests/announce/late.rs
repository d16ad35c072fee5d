//! Frame areas that nobody heard of: found in the memory of their process, and taken in as if it had registered them now.

use crate::areas::{self, Shape};
use crate::puppet;
use crate::sections::{put, section};
use crate::stage::{Actor, Call, PAGE, Stage};
use framewalk_announce::abi::MAX_AREAS;
use framewalk_announce::area::layout::{HEADER_SIZE, KEY_AT, MACHINE_AT, MAGIC};
use framewalk_kernel::{Heard, Late};
use libc::{EBADMSG, EEXIST, EFAULT, EINVAL, ENOENT, ENOSPC, EPROTONOSUPPORT};
use std::sync::atomic::{AtomicBool, Ordering};

const AT: u64 = 0x1000_0000_0000;
const LEN: u64 = 16 * PAGE;
const TEXT: u64 = AT + 0x1000_0000;
const SIZE: u64 = 0x1000;
const STEP: u64 = 0x100;
const KEY: u64 = 0x77;

/// A process with so many areas in its memory, none of which is registered.
fn puppet(stage: &mut Stage, areas: u64) -> Actor {
    let mut actor = stage.puppet();
    actor.map_file(AT, LEN);
    for n in 0..areas {
        actor.write(at(n), &shape(n).bytes());
    }
    actor
}

fn at(n: u64) -> u64 {
    AT + n * STEP
}

fn shape(n: u64) -> Shape {
    Shape::new(KEY + n, TEXT + n * SIZE, SIZE)
}

fn register(n: u64) -> Call {
    areas::register(KEY + n, at(n), HEADER_SIZE)
}

fn space(stage: &Stage, pid: u32) -> u64 {
    match stage.registry.look_at(pid).expect("it can be asked") {
        Late::Is(space) => space,
        other => panic!("{other:?}"),
    }
}

fn adopt(stage: &Stage, actor: &Actor, n: u64) -> i64 {
    let space = space(stage, actor.pid);
    let adopted = stage
        .registry
        .adopt(actor.pid, space, KEY + n, [at(n), HEADER_SIZE]);
    match adopted.expect("it can be asked") {
        Late::Is(answer) => answer,
        other => panic!("{other:?}"),
    }
}

/// Asks the kernel alone: the other registry has heard of no area that was adopted.
fn ask(stage: &mut Stage, actor: &mut Actor, call: Call) -> Heard {
    stage.ask_only(&mut [(actor, &[call])])[0][0]
}

fn keys(stage: &Stage, actor: &Actor) -> Vec<u64> {
    let held = stage.state().remove(&actor.pid).unwrap_or_default();
    held.iter().map(|held| held.key - KEY).collect()
}

#[test]
fn an_adopted_area_is_like_any_other() {
    let Some(mut stage) = Stage::open("an_adopted_area_is_like_any_other") else {
        return;
    };
    let mut actor = puppet(&mut stage, 4);
    for n in [2, 0] {
        assert!(adopt(&stage, &actor, n) > 0);
        assert_eq!(adopt(&stage, &actor, n), (-EEXIST).into(), "once");
    }
    assert_eq!(keys(&stage, &actor), [0, 2]);
    assert!(ask(&mut stage, &mut actor, register(1)).answer > 0);
    assert_eq!(adopt(&stage, &actor, 1), (-EEXIST).into());
    let space = space(&stage, actor.pid);
    let found = stage.registry.find(space, TEXT + 2 * SIZE + 5);
    let (text, number) = found.expect("it can be asked").expect("nobody changes it");
    assert_eq!(text, TEXT + 2 * SIZE..TEXT + 3 * SIZE);
    assert!(number != 0);
    // What shares the address space has it, a fork a copy, and exec drops it.
    let mut child = stage.fork(&mut actor);
    assert_eq!(keys(&stage, &child), [0, 1, 2]);
    assert_eq!(ask(&mut stage, &mut child, Call::unregister(KEY)).answer, 1);
    assert_eq!(
        ask(&mut stage, &mut child, Call::unregister(KEY)).answer,
        (-ENOENT).into()
    );
    assert_eq!(keys(&stage, &child), [1, 2]);
    assert_eq!(keys(&stage, &actor), [0, 1, 2]);
    let child = stage.exec(child);
    assert!(keys(&stage, &child).is_empty());
    stage.exit(child);
    let borrower = stage.vfork(&mut actor);
    assert_eq!(keys(&stage, &borrower), [0, 1, 2]);
    assert!(adopt(&stage, &borrower, 3) > 0);
    stage.exit(borrower);
    stage.resume(&mut actor);
    assert_eq!(keys(&stage, &actor), [0, 1, 2, 3]);
    stage.exit(actor);
    stage.finish();
}

/// Its process says the same later, and gets what it would have got without anybody who was late.
#[test]
fn the_process_registers_what_was_adopted() {
    let Some(mut stage) = Stage::open("the_process_registers_what_was_adopted") else {
        return;
    };
    let mut actor = puppet(&mut stage, 3);
    assert!(adopt(&stage, &actor, 1) > 0);
    let first = ask(&mut stage, &mut actor, register(1));
    assert!(first.answer > 0, "{first:?}");
    assert_eq!(keys(&stage, &actor), [1]);
    let second = ask(&mut stage, &mut actor, register(1));
    assert_eq!(second.answer, (-EEXIST).into(), "only once");

    // What is not the same is in the way: another key, another place, or another text.
    assert!(adopt(&stage, &actor, 0) > 0);
    let copy = Shape { key: 9, ..shape(0) };
    actor.write(at(8), &copy.bytes());
    actor.write(at(9), &shape(0).bytes());
    let larger = Shape {
        text_len: SIZE / 2,
        ..shape(0)
    };
    for (bytes, call) in [
        (None, areas::register(9, at(8), HEADER_SIZE)),
        (None, areas::register(KEY, at(9), HEADER_SIZE)),
        (Some(larger.bytes()), register(0)),
    ] {
        if let Some(bytes) = bytes {
            actor.write(at(0), &bytes);
        }
        let heard = ask(&mut stage, &mut actor, call);
        assert_eq!(heard.answer, (-EEXIST).into(), "{call:x?}");
    }
    assert_eq!(keys(&stage, &actor), [0, 1]);
    // Replacing needs no twin.
    let heard = ask(&mut stage, &mut actor, areas::replace(register(0)));
    assert!(heard.answer > 0);
    assert_eq!(ask(&mut stage, &mut actor, Call::unregister(KEY)).answer, 1);
    let heard = ask(&mut stage, &mut actor, Call::unregister(KEY + 1));
    assert_eq!(heard.answer, 1);
    assert!(keys(&stage, &actor).is_empty());

    // A child has a copy of its own to take over.
    assert!(adopt(&stage, &actor, 2) > 0);
    let mut child = stage.fork(&mut actor);
    for actor in [&mut child, &mut actor] {
        // A child does not have the pages of files yet, and some hooks cannot wait for them.
        actor.write(at(2), &shape(2).bytes());
        assert!(ask(&mut stage, actor, register(2)).answer > 0);
        assert_eq!(keys(&stage, actor), [2]);
    }
    stage.exit(child);
    stage.exit(actor);
    stage.finish();
}

#[test]
fn what_is_not_adopted() {
    let Some(mut stage) = Stage::open("what_is_not_adopted") else {
        return;
    };
    let mut actor = puppet(&mut stage, 2);
    let old = space(&stage, actor.pid);
    let asked = |stage: &Stage, pid, space, address, length| {
        let adopted = stage.registry.adopt(pid, space, KEY, [address, length]);
        adopted.expect("it can be asked")
    };
    let refused = |errno: i32| Late::Is(i64::from(-errno));
    for (address, length, errno) in [
        (0, HEADER_SIZE, EINVAL),
        (at(0), 0, EINVAL),
        (at(0), 1 << 32, EINVAL),
        (u64::MAX, HEADER_SIZE, EINVAL),
        (1 << 47, HEADER_SIZE, EINVAL),
        (at(0), 127, EBADMSG),
        (at(0), HEADER_SIZE + 1, EBADMSG),
        (at(1), HEADER_SIZE, EBADMSG), // another key
        (at(2), HEADER_SIZE, EBADMSG), // zeros
        (AT + LEN, HEADER_SIZE, EFAULT),
        (AT + LEN - 127, HEADER_SIZE, EFAULT),
        (0xffff_8880_0000_0000, HEADER_SIZE, EINVAL),
    ] {
        let answer = asked(&stage, actor.pid, old, address, length);
        assert_eq!(answer, refused(errno), "{length:#x} at {address:#x}");
    }
    for (field, value, errno) in [(KEY_AT, 0, EBADMSG), (MACHINE_AT, 0, EPROTONOSUPPORT)] {
        let mut bytes = shape(0).bytes();
        put(&mut bytes, field as usize, 2, value);
        actor.write(at(0), &bytes);
        let answer = asked(&stage, actor.pid, old, at(0), HEADER_SIZE);
        assert_eq!(answer, refused(errno));
    }
    actor.write(at(0), &shape(0).bytes());
    // Pages that are absent come: there is time for it.
    actor.drop_pages(AT, PAGE);
    assert!(matches!(
        asked(&stage, actor.pid, old, at(0), HEADER_SIZE),
        Late::Is(1..)
    ));
    assert_eq!(ask(&mut stage, &mut actor, Call::unregister(KEY)).answer, 1);
    // What overlaps what is registered.
    let bytes = section(at(9), TEXT + SIZE - 1, 1);
    actor.write(at(9), &bytes);
    let in_the_way = Call::register(1, at(9), bytes.len() as u64);
    assert!(ask(&mut stage, &mut actor, in_the_way).answer > 0);
    assert_eq!(adopt(&stage, &actor, 0), (-EEXIST).into());
    assert_eq!(ask(&mut stage, &mut actor, Call::unregister(1)).answer, 1);

    // Another address space, none, and nobody.
    for (pid, space) in [(actor.pid, old + 1), (actor.pid, 0), (1, old), (2, old)] {
        let answer = asked(&stage, pid, space, at(0), HEADER_SIZE);
        assert_eq!(answer, Late::Gone, "{pid}");
    }
    for pid in [2, 0, u32::MAX, i32::MAX as u32] {
        assert_eq!(stage.registry.look_at(pid).expect("asked"), Late::Gone);
    }
    let mut actor = stage.exec(actor);
    assert_ne!(space(&stage, actor.pid), old);
    actor.map(AT, LEN);
    actor.write(at(0), &shape(0).bytes());
    let answer = asked(&stage, actor.pid, old, at(0), HEADER_SIZE);
    assert_eq!(answer, Late::Gone);
    let pid = actor.pid;
    stage.exit(actor);
    assert_ne!(asked(&stage, pid, old, at(0), HEADER_SIZE), Late::Is(1));
    assert!(stage.state().is_empty());
    stage.finish();
}

#[test]
fn quotas_hold_for_what_is_adopted() {
    let Some(mut stage) = Stage::open("quotas_hold_for_what_is_adopted") else {
        return;
    };
    let most = MAX_AREAS as u64;
    let mut actor = puppet(&mut stage, most + 1);
    for n in 0..most {
        assert!(adopt(&stage, &actor, n) > 0, "{n}");
    }
    assert_eq!(adopt(&stage, &actor, most), (-ENOSPC).into());
    // What is taken over takes no more room.
    for n in 0..most {
        assert!(ask(&mut stage, &mut actor, register(n)).answer > 0, "{n}");
    }
    let heard = ask(&mut stage, &mut actor, register(most));
    assert_eq!(heard.answer, (-ENOSPC).into());
    assert_eq!(keys(&stage, &actor).len() as u64, most);
    stage.exit(actor);
    stage.finish();
}

/// A process registers and unregisters while somebody adopts: there is never more than one.
#[test]
fn both_at_once() {
    let Some(mut stage) = Stage::open("both_at_once") else {
        return;
    };
    let mut actor = puppet(&mut stage, 1);
    let pid = actor.pid;
    let space = space(&stage, pid);
    let calls = [register(0), Call::unregister(KEY)].repeat(1000);
    let mut adopted = 0;
    for _ in 0..5 {
        let heard = |stage: &Stage| stage.registry.maps().counts().heard;
        let end = heard(&stage) + calls.len() as u64;
        let all = stage.ask_during(&mut [(&mut actor, &calls)], |stage| {
            while heard(stage) < end {
                let answer = stage.registry.adopt(pid, space, KEY, [at(0), HEADER_SIZE]);
                match answer.expect("it can be asked") {
                    Late::Is(1..) => adopted += 1,
                    other => assert_eq!(other, Late::Is((-EEXIST).into())),
                }
                let listed = stage.registry.maps().of_process(pid);
                assert!(listed.is_none_or(|space| space.sections.len() < 2));
            }
        });
        for pair in all[0].chunks(2) {
            assert!(pair[0].answer > 0, "it is adopted, or it is new: {pair:?}");
            assert_eq!(pair[1].answer, 1, "{pair:?}");
        }
        // Adopted after the last one.
        if adopt(&stage, &actor, 0) == (-EEXIST).into() {
            println!("the last one was adopted");
        }
        assert_eq!(ask(&mut stage, &mut actor, Call::unregister(KEY)).answer, 1);
    }
    println!("{adopted} times adopted");
    stage.exit(actor);
    stage.finish();
}

/// A process ends, or executes another program, while somebody adopts: nothing is left of it.
#[test]
fn ends_meanwhile() {
    let Some(mut stage) = Stage::open("ends_meanwhile") else {
        return;
    };
    let mut adopted = 0;
    for round in 0..40 {
        let actor = puppet(&mut stage, 1);
        let (pid, space) = (actor.pid, space(&stage, actor.pid));
        let mut until_gone = |stage: &mut Stage| loop {
            let answer = stage.registry.adopt(pid, space, KEY, [at(0), HEADER_SIZE]);
            match answer.expect("it can be asked") {
                Late::Gone => break,
                Late::Is(1..) => adopted += 1,
                // Its memory goes before it does.
                Late::Is(errno) => assert!([-EEXIST, -EFAULT].map(i64::from).contains(&errno)),
                Late::Early => panic!("it has run"),
            }
        };
        match round % 2 {
            0 => stage.exit_during(actor, &mut until_gone),
            _ => {
                let actor = stage.exec_during(actor, &mut until_gone);
                assert!(keys(&stage, &actor).is_empty());
                stage.exit(actor);
            }
        }
        assert!(stage.state().is_empty());
    }
    println!("{adopted} times adopted");
    stage.finish();
}

/// The magic comes and goes while somebody adopts: what is refused for that was not kept.
#[test]
fn the_magic_flickers() {
    let Some(mut stage) = Stage::open("the_magic_flickers") else {
        return;
    };
    let mut actor = puppet(&mut stage, 1);
    let (tid, stop) = (actor.tid, AtomicBool::new(false));
    let mut tally = [0; 2];
    std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                puppet::write(tid, at(0), &[0; 4]);
                puppet::write(tid, at(0), &MAGIC[..4]);
            }
        });
        for _ in 0..20_000 {
            let answer = adopt(&stage, &actor, 0);
            if answer > 0 {
                assert_eq!(ask(&mut stage, &mut actor, Call::unregister(KEY)).answer, 1);
            } else {
                assert_eq!(answer, (-EBADMSG).into());
            }
            let space = stage.registry.maps().of_process(actor.pid);
            assert!(space.is_none_or(|space| space.sections.is_empty()));
            tally[usize::from(answer > 0)] += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    let numbers = stage.registry.maps().counts().numbers;
    println!("{tally:?}, {numbers} numbers");
    stage.exit(actor);
    stage.finish();
}
