//! The registry belongs to the address space: what threads, fork, vfork, exec and the end of processes do to it.

use crate::sections::section;
use crate::stage::{Actor, Call, PAGE, Stage};
use libc::{EEXIST, ENOENT};

const AT: u64 = 0x1000_0000_0000;
const TEXT: u64 = AT + 0x1000_0000;
/// Bytes of a section.
const STEP: u64 = 0x80;

/// Writes the section with this number and says how to register it under a key.
fn prepare(actor: &Actor, key: u64, n: u64) -> Call {
    let bytes = section(AT + n * STEP, TEXT + n * 0x100, 0x100);
    actor.write(AT + n * STEP, &bytes);
    Call::register(key, AT + n * STEP, bytes.len() as u64)
}

/// A process with memory for sections, and some registered.
fn puppet(stage: &mut Stage, sections: u64) -> Actor {
    let mut actor = stage.puppet();
    actor.map(AT, 128 * PAGE);
    register(stage, &mut actor, 0..sections);
    actor
}

fn register(stage: &mut Stage, actor: &mut Actor, numbers: std::ops::Range<u64>) {
    let calls: Vec<Call> = numbers.map(|n| prepare(actor, n, n)).collect();
    for heard in stage.ask_all(actor, &calls) {
        assert!(heard.answer > 0);
    }
    stage.check();
}

fn unregister(stage: &mut Stage, actor: &mut Actor, key: u64) -> i64 {
    let answer = stage.ask(actor, Call::unregister(key));
    stage.check();
    answer
}

fn count(stage: &Stage, actor: &Actor) -> usize {
    stage.state().get(&actor.pid).map_or(0, Vec::len)
}

#[test]
fn fork_copies() {
    let Some(mut stage) = Stage::open("fork_copies") else {
        return;
    };
    // More than a page of them.
    let mut parent = puppet(&mut stage, 120);
    let mut child = stage.fork(&mut parent);
    stage.check();
    assert_eq!(count(&stage, &child), 120);
    // From now on each has its own.
    assert_eq!(unregister(&mut stage, &mut child, 3), 1);
    assert_eq!(unregister(&mut stage, &mut parent, 4), 1);
    register(&mut stage, &mut child, 120..130);
    let mut grandchild = stage.fork(&mut child);
    stage.check();
    stage.exit(parent);
    stage.check();
    assert_eq!(count(&stage, &child), 129);
    assert_eq!(unregister(&mut stage, &mut grandchild, 3), (-ENOENT).into());
    assert_eq!(unregister(&mut stage, &mut grandchild, 4), 1);
    stage.exit(grandchild);
    stage.check();
    stage.exit(child);
    stage.finish();
}

#[test]
fn threads_share() {
    let Some(mut stage) = Stage::open("threads_share") else {
        return;
    };
    let mut leader = puppet(&mut stage, 2);
    let mut thread = stage.thread(&mut leader);
    assert_eq!(leader.pid, thread.pid);
    register(&mut stage, &mut thread, 2..4);
    assert_eq!(unregister(&mut stage, &mut leader, 2), 1);
    assert_eq!(unregister(&mut stage, &mut thread, 0), 1);
    // A child of a thread is a child of the process.
    let child = stage.fork(&mut thread);
    assert_eq!(count(&stage, &child), 2);
    // The leader's end is not that of the process.
    leader.end();
    stage.check();
    register(&mut stage, &mut thread, 4..6);
    assert_eq!(count(&stage, &thread), 4);
    stage.exit(thread);
    stage.check();
    stage.exit(child);
    stage.finish();
}

#[test]
fn exec_drops() {
    let Some(mut stage) = Stage::open("exec_drops") else {
        return;
    };
    let mut actor = puppet(&mut stage, 60);
    for round in 0..3 {
        // By another thread than the first, too: it takes over the pid.
        actor = match round {
            1 => stage.thread(&mut actor),
            _ => actor,
        };
        let pid = actor.pid;
        actor = stage.exec(actor);
        assert_eq!(actor.pid, pid);
        stage.check();
        assert_eq!(count(&stage, &actor), 0);
        assert_eq!(unregister(&mut stage, &mut actor, 1), (-ENOENT).into());
        actor.map(AT, 128 * PAGE);
        register(&mut stage, &mut actor, 0..60);
    }
    stage.exit(actor);
    stage.finish();
}

#[test]
fn vfork_shares_until_exec_or_exit() {
    let Some(mut stage) = Stage::open("vfork_shares_until_exec_or_exit") else {
        return;
    };
    let mut parent = puppet(&mut stage, 3);
    for ends_by_exec in [false, true] {
        let mut child = stage.vfork(&mut parent);
        assert_eq!(count(&stage, &child), 3);
        assert_eq!(unregister(&mut stage, &mut child, 1), 1);
        register(&mut stage, &mut child, 10..12);
        // Of a child that shares a copy is made, too.
        let grandchild = stage.fork(&mut child);
        assert_eq!(count(&stage, &grandchild), 4);
        stage.exit(grandchild);
        leave(&mut stage, child, ends_by_exec);
        stage.resume(&mut parent);
        // What the child did stays.
        stage.check();
        assert_eq!(count(&stage, &parent), 4);
        for key in 10..12 {
            assert_eq!(unregister(&mut stage, &mut parent, key), 1);
        }
        register(&mut stage, &mut parent, 1..2);
    }
    stage.exit(parent);
    stage.finish();
}

/// Ends a process, or has it execute another program that registers something of its own and ends.
fn leave(stage: &mut Stage, actor: Actor, by_exec: bool) {
    if !by_exec {
        return stage.exit(actor);
    }
    let mut actor = stage.exec(actor);
    stage.check();
    actor.map(AT, 128 * PAGE);
    register(stage, &mut actor, 0..2);
    stage.exit(actor);
}

/// What the child of a vfork(2) registers first belongs to its parent as well: nobody knew of the two before.
#[test]
fn a_vfork_child_registers_first() {
    let Some(mut stage) = Stage::open("a_vfork_child_registers_first") else {
        return;
    };
    for ends_by_exec in [false, true] {
        let mut parent = puppet(&mut stage, 0);
        let mut child = stage.vfork(&mut parent);
        let mut grandchild = stage.vfork(&mut child);
        register(&mut stage, &mut grandchild, 0..2);
        leave(&mut stage, grandchild, ends_by_exec);
        stage.check();
        stage.resume(&mut child);
        leave(&mut stage, child, ends_by_exec);
        stage.check();
        stage.resume(&mut parent);
        assert_eq!(count(&stage, &parent), 2);
        assert_eq!(unregister(&mut stage, &mut parent, 0), 1);
        stage.exit(parent);
        stage.check();
    }
    stage.finish();
}

/// The last process that has the address space has the registry; which one made it does not matter.
#[test]
fn a_sharer_outlives_the_others() {
    let Some(mut stage) = Stage::open("a_sharer_outlives_the_others") else {
        return;
    };
    for known_before in [true, false] {
        let mut parent = puppet(&mut stage, u64::from(known_before));
        let mut thread = stage.thread(&mut parent);
        // Only the thread stands still.
        let mut child = stage.vfork(&mut thread);
        register(&mut stage, &mut parent, 1..3);
        assert_eq!(count(&stage, &child), 2 + usize::from(known_before));
        stage.exit(parent);
        stage.check();
        assert_eq!(unregister(&mut stage, &mut child, 1), 1);
        let duplicate = prepare(&child, 7, 2);
        assert_eq!(stage.ask(&mut child, duplicate), (-EEXIST).into());
        stage.exit(child);
        stage.check();
    }
    stage.finish();
}

#[test]
fn a_killed_process_leaves_nothing() {
    let Some(mut stage) = Stage::open("a_killed_process_leaves_nothing") else {
        return;
    };
    let mut actor = puppet(&mut stage, 70);
    let thread = stage.thread(&mut actor);
    stage.kill(actor);
    drop(thread);
    stage.check();
    stage.finish();
}

/// Many children, several levels of them, all alive at once, which fork, register, unregister and end at once.
#[test]
fn a_crowd_of_children() {
    const LEVELS: u32 = 8;
    let Some(mut stage) = Stage::open("a_crowd_of_children") else {
        return;
    };
    let mut crowd = vec![puppet(&mut stage, 60)];
    for level in 0..LEVELS {
        let children = stage.forks(&mut crowd);
        crowd.extend(children);
        stage.check();
        let n = 100 + u64::from(level);
        let calls: Vec<[Call; 2]> = crowd
            .iter()
            .map(|actor| [Call::unregister(n % 7), prepare(actor, actor.pid.into(), n)])
            .collect();
        let orders = crowd.iter_mut().zip(&calls);
        let mut orders: Vec<_> = orders.map(|(actor, calls)| (actor, &calls[..])).collect();
        stage.ask_each(&mut orders);
        stage.check();
    }
    assert_eq!(crowd.len(), 1 << LEVELS);
    let counts = stage.registry.maps().counts();
    println!("{} processes: {counts:?}", crowd.len());
    // Every other one executes another program.
    let rest = crowd.split_off(crowd.len() / 2);
    for actor in crowd {
        stage.exit(actor);
    }
    stage.check();
    for actor in rest {
        let actor = stage.exec(actor);
        stage.exit(actor);
    }
    stage.check();
    stage.finish();
}

/// A thread registers while another one forks: each child has what was registered when it was made, all of it.
#[test]
fn fork_while_registering() {
    let Some(mut stage) = Stage::open("fork_while_registering") else {
        return;
    };
    let mut forker = puppet(&mut stage, 0);
    let mut writer = stage.thread(&mut forker);
    let calls: Vec<Call> = (0..1500).map(|n| prepare(&writer, n, n)).collect();
    let mut least = 0;
    for calls in calls.chunks(100) {
        let mut child = None;
        stage.ask_during(&mut [(&mut writer, calls)], |stage| {
            child = Some(stage.fork(&mut forker));
        });
        let child = child.expect("forked meanwhile");
        let sections = stage.state().remove(&child.pid).unwrap_or_default();
        let most = least + calls.len();
        assert!(
            (least..=most).contains(&sections.len()),
            "{}",
            sections.len()
        );
        // They were registered in the order of their texts.
        let texts = sections.iter().map(|section| section.text_start);
        assert!(texts.eq((0..sections.len() as u64).map(|n| TEXT + n * 0x100)));
        least = most;
        stage.exit(child);
    }
    stage.exit(forker);
    stage.finish();
}
