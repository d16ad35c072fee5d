//! Calls that want to do harm, by bytes, by number, or by speed.

use crate::random::Random;
use crate::sections::{PCREL, SORTED, Shape, put, section};
use crate::stage::{Actor, Call, PAGE, Stage};
use framewalk_announce::abi::{MAX_SECTIONS, USER_END};
use framewalk_kernel::{Heard, Hook, Registry, Room};
use libc::{EBADMSG, EEXIST, ENOENT, ENOSPC, EPROTONOSUPPORT};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const AT: u64 = 0x1000_0000_0000;
/// The text that nobody ever asks for.
const TEXT: u64 = AT + 0x10_0000_0000;
/// Bytes of memory for a section, and of its text.
const STEP: u64 = 0x40;
const SIZE: u64 = 0x100;
const QUOTA: u64 = MAX_SECTIONS as u64;
/// An emulated machine does in this time what it can.
const LONG_ENOUGH: Duration = Duration::from_secs(10);

/// A process with so many sections in its memory, none registered yet.
fn puppet(stage: &mut Stage, sections: u64) -> Actor {
    let mut actor = stage.puppet();
    let mut bytes = Vec::new();
    for n in 0..sections {
        bytes.extend(section(AT + n * STEP, TEXT + n * SIZE, SIZE as u32));
        bytes.resize(bytes.len().next_multiple_of(STEP as usize), 0);
    }
    actor.map(AT, (bytes.len() as u64 + 1).next_multiple_of(PAGE));
    actor.write(AT, &bytes);
    actor
}

/// The section with this number.
fn register(key: u64, n: u64) -> Call {
    Call::register(key, AT + n * STEP, STEP)
}

fn replace(key: u64, n: u64) -> Call {
    Call::replace(key, AT + n * STEP, STEP)
}

fn count(heard: &[Heard], answer: impl Fn(i64) -> bool) -> usize {
    heard.iter().filter(|heard| answer(heard.answer)).count()
}

#[test]
fn full_in_any_order() {
    let Some(mut stage) = Stage::open("full_in_any_order") else {
        return;
    };
    let mut actor = puppet(&mut stage, QUOTA + 1);
    let mut random = Random::new(1);
    let up: Vec<u64> = (0..QUOTA).collect();
    let down: Vec<u64> = up.iter().rev().copied().collect();
    let mut mixed = up.clone();
    random.shuffle(&mut mixed);
    for order in [up, down, mixed] {
        // 64 sections under each key.
        let calls: Vec<Call> = order.iter().map(|&n| register(n % 64, n)).collect();
        let heard = stage.ask_all(&mut actor, &calls);
        assert_eq!(count(&heard, |answer| answer > 0), QUOTA as usize);
        stage.check();
        // What is wrong first is said; what makes no more of them is done.
        for (call, errno) in [
            (register(1, QUOTA), ENOSPC),
            (register(1, 0), EEXIST),
            (replace(64, QUOTA), ENOENT),
            (replace(1, 0), EEXIST),
        ] {
            assert_eq!(stage.ask(&mut actor, call), (-errno).into(), "{call:x?}");
        }
        stage.check();
        assert!(stage.ask(&mut actor, replace(1, QUOTA)) > 0);
        stage.check();
        assert_eq!(stage.ask(&mut actor, Call::unregister(1)), 1);
        assert!(stage.ask(&mut actor, register(1, 1)) > 0);
        stage.check();
        let child = stage.fork(&mut actor);
        stage.check();
        stage.exit(child);
        let mut keys: Vec<u64> = (0..64).collect();
        random.shuffle(&mut keys);
        for &key in &keys {
            let removed = stage.ask(&mut actor, Call::unregister(key));
            assert_eq!(removed, if key == 1 { 1 } else { 64 });
            if key % 8 == 0 {
                stage.check();
            }
        }
        stage.check();
    }
    stage.exit(actor);
    stage.finish();
}

/// As many sections as there can be, with gaps: a walk finds what the reference finds, and the bounds of the gaps.
#[test]
fn lookups_among_many() {
    let Some(mut stage) = Stage::open("lookups_among_many") else {
        return;
    };
    let mut random = Random::new(2);
    let mut actor = stage.puppet();
    let (mut bytes, mut text) = (Vec::new(), TEXT);
    for n in 0..QUOTA {
        let size = 1 + random.below(SIZE);
        text += [0, 0, 1, random.below(SIZE)][random.below(4) as usize];
        bytes.extend(section(AT + n * STEP, text, size as u32));
        bytes.resize(bytes.len().next_multiple_of(STEP as usize), 0);
        text += size;
    }
    actor.map(AT, bytes.len() as u64);
    actor.write(AT, &bytes);
    let mut calls: Vec<Call> = (0..QUOTA).map(|n| register(n % 16, n)).collect();
    random.shuffle(&mut calls);
    let mut removed: Vec<Call> = (0..16).map(Call::unregister).collect();
    random.shuffle(&mut removed);
    // While it grows and while it shrinks.
    let counts = [1, 44, 1, 45, 1, 300, 3704];
    let mut rounds: Vec<Vec<Call>> = Vec::new();
    for count in counts {
        rounds.push(calls.drain(..count).collect());
    }
    assert!(calls.is_empty());
    rounds.extend(removed.chunks(5).map(<[Call]>::to_vec));
    for round in rounds {
        let space = stage.ask_all(&mut actor, &round)[0].space;
        let mut sections = stage.state().remove(&actor.pid).unwrap_or_default();
        sections.sort_unstable();
        let edges = sections
            .iter()
            .flat_map(|section| [section.text_start, section.text_end]);
        let mut pcs: Vec<u64> = edges.flat_map(|edge| [edge - 1, edge, edge + 1]).collect();
        random.shuffle(&mut pcs);
        pcs.truncate(4000);
        pcs.extend([0, 1, TEXT - 1, text + SIZE, USER_END - 1]);
        for pc in pcs {
            let next = sections.partition_point(|section| section.text_end <= pc);
            let before = next.checked_sub(1).and_then(|before| sections.get(before));
            let after = sections.get(next);
            let here = after.filter(|section| section.text_start <= pc);
            let text = match here {
                Some(section) => section.text_start..section.text_end,
                None => {
                    let start = before.map_or(0, |section| section.text_end);
                    start..after.map_or(USER_END, |section| section.text_start)
                }
            };
            let found = stage.registry.find(space, pc).expect("it can be asked");
            let (found, number) = found.expect("nobody changes it");
            assert_eq!(found, text, "{pc:#x} among {}", sections.len());
            assert_eq!(number != 0, here.is_some());
            let reference = stage.reference.find(actor.pid, pc);
            assert_eq!(number != 0, reference.is_some());
        }
    }
    stage.check();
    stage.exit(actor);
    stage.finish();
}

#[test]
fn a_hundred_thousand_registrations() {
    const MANY: usize = 100_000;
    let Some(mut stage) = Stage::open("a_hundred_thousand_registrations") else {
        return;
    };
    let mut actor = puppet(&mut stage, QUOTA + 1);
    let all: Vec<Call> = (0..QUOTA).map(|n| register(n, n)).collect();
    let heard = stage.ask_all(&mut actor, &all);
    assert_eq!(count(&heard, |answer| answer > 0), all.len());
    let state = stage.state();
    // Nothing takes more room, however often it is tried; and the machine goes on.
    let more = vec![register(7, QUOTA); 4000];
    let (begin, mut tried) = (Instant::now(), all.len());
    while tried < MANY && begin.elapsed() < LONG_ENOUGH {
        let heard = stage.ask_only(&mut [(&mut actor, &more)]).remove(0);
        assert_eq!(
            count(&heard, |answer| answer == -i64::from(ENOSPC)),
            more.len()
        );
        tried += more.len();
    }
    println!("{tried} registrations");
    assert_eq!(stage.state(), state);
    let removed: Vec<Call> = (0..QUOTA).map(Call::unregister).collect();
    let heard = stage.ask_all(&mut actor, &removed);
    assert_eq!(count(&heard, |answer| answer == 1), removed.len());
    // One key again and again, beside another one.
    assert!(stage.ask(&mut actor, register(8, 1)) > 0);
    let pairs = [register(7, 0), Call::unregister(7)].repeat(2000);
    let (begin, mut done) = (Instant::now(), 0);
    let mut ids = BTreeSet::new();
    while done < MANY && begin.elapsed() < LONG_ENOUGH {
        let heard = stage.ask_only(&mut [(&mut actor, &pairs)]).remove(0);
        for pair in heard.chunks(2) {
            assert!(ids.insert(pair[0].answer), "an id twice");
            assert_eq!(pair[1].answer, 1);
        }
        done += pairs.len() / 2;
    }
    println!("{done} times registered and unregistered");
    stage.check();
    let entries = stage.registry.entries();
    println!("{entries:?}, {:?}", stage.registry.maps().counts());
    stage.exit(actor);
    stage.finish();
}

/// Headers of sound form with the largest numbers, and entries that lie about the text.
#[test]
fn the_largest_lies() {
    let Some(mut stage) = Stage::open("the_largest_lies") else {
        return;
    };
    let mut actor = stage.puppet();
    let length = u64::from(u32::MAX);
    // Only the first and the last pages are there.
    actor.map(AT, PAGE);
    let shape = Shape::new(3, SORTED, &[(TEXT, 1)]);
    let functions = (length - 28) / 16;
    let last = AT + 28 + (functions - 1) * 16;
    let end = (AT + length).next_multiple_of(PAGE);
    actor.map(end - PAGE, PAGE);
    let mut bytes = shape.bytes(AT);
    put(&mut bytes, 8, 4, functions);
    put(&mut bytes, 12, 4, length); // rows
    put(&mut bytes, 16, 4, 0);
    put(&mut bytes, 24, 4, functions * 16);
    let entry = |start: u64, size: u32| {
        let mut bytes = start.wrapping_sub(AT).to_le_bytes().to_vec();
        bytes.extend(size.to_le_bytes());
        bytes
    };
    actor.write(AT, &bytes);
    actor.write(last, &entry(TEXT + 0x100, 0xffff_ffff));
    let lie = Call::register(1, AT, length);
    assert!(stage.ask(&mut actor, lie) > 0);
    stage.check();
    assert_eq!(stage.ask(&mut actor, Call::unregister(1)), 1);
    put(&mut bytes, 8, 4, length);
    actor.write(AT, &bytes);
    assert_eq!(stage.ask(&mut actor, lie), (-EBADMSG).into());
    put(&mut bytes, 8, 4, functions);

    // All text that there can be: nobody else's is harmed, and nothing else fits.
    put(&mut bytes, 28, 8, 1u64.wrapping_sub(AT));
    actor.write(AT, &bytes);
    actor.write(last, &entry(USER_END - 0xffff, 0xffff));
    assert!(stage.ask(&mut actor, lie) > 0);
    stage.check();
    let mut other = puppet(&mut stage, 1);
    assert!(stage.ask(&mut other, register(1, 0)) > 0);
    actor.write(AT, &section(AT, TEXT, 1));
    assert_eq!(
        stage.ask(&mut actor, Call::register(2, AT, 0x40)),
        (-EEXIST).into()
    );
    assert!(stage.ask(&mut actor, Call::replace(1, AT, 0x40)) > 0);
    stage.check();
    stage.exit(actor);
    stage.exit(other);
    stage.finish();
}

#[test]
fn keys_of_others() {
    let Some(mut stage) = Stage::open("keys_of_others") else {
        return;
    };
    let mut first = puppet(&mut stage, 4);
    let mut child = stage.fork(&mut first);
    let mut other = puppet(&mut stage, 4);
    for n in 0..3 {
        assert!(stage.ask(&mut first, register(n, n)) > 0);
    }
    for thief in [&mut child, &mut other] {
        for key in 0..3 {
            assert_eq!(stage.ask(thief, Call::unregister(key)), (-ENOENT).into());
            assert_eq!(stage.ask(thief, replace(key, 3)), (-ENOENT).into());
        }
        // The same key and the same text are something else there.
        assert!(stage.ask(thief, register(1, 1)) > 0);
        assert_eq!(stage.ask(thief, Call::unregister(1)), 1);
    }
    stage.check();
    assert_eq!(stage.state()[&first.pid].len(), 3);
    for actor in [first, child, other] {
        stage.exit(actor);
    }
    stage.finish();
}

#[test]
fn threads_at_the_same_time() {
    let Some(mut stage) = Stage::open("threads_at_the_same_time") else {
        return;
    };
    if stage.calls_at_once < 2 {
        println!(
            "SKIPPED threads_at_the_same_time: this kernel passes over a program that was preempted"
        );
        return;
    }
    let mut one = puppet(&mut stage, QUOTA + 1000);
    let mut two = stage.thread(&mut one);
    let listed = |stage: &Stage, actor: &Actor| -> Vec<u64> {
        let sections = stage.state().remove(&actor.pid).unwrap_or_default();
        let texts = sections
            .iter()
            .map(|section| (section.text_start - TEXT) / SIZE);
        texts.collect()
    };

    // All arrive, in order. One thread goes up, the other one down.
    let odd: Vec<Call> = (0..QUOTA / 2).map(|n| register(1, 2 * n + 1)).collect();
    let even: Vec<Call> = (0..QUOTA / 2).rev().map(|n| register(0, 2 * n)).collect();
    let heard = stage.ask_only(&mut [(&mut one, &odd), (&mut two, &even)]);
    for heard in heard.concat() {
        let counts = stage.registry.maps().counts();
        assert!(heard.answer > 0, "{heard:?}, {counts:?}");
    }
    assert!(listed(&stage, &one).into_iter().eq(0..QUOTA));
    let more = register(2, QUOTA);
    for thread in [&mut one, &mut two] {
        let heard = stage.ask_only(&mut [(thread, &[more])]);
        assert_eq!(heard[0][0].answer, (-ENOSPC).into());
    }

    // Both remove the same: each key is removed once.
    let keys = [Call::unregister(0), Call::unregister(1)];
    let heard = stage.ask_only(&mut [(&mut one, &keys), (&mut two, &keys)]);
    for (one, two) in heard[0].iter().zip(&heard[1]) {
        let mut answers = [one.answer, two.answer];
        answers.sort_unstable();
        assert_eq!(answers, [(-ENOENT).into(), QUOTA as i64 / 2]);
    }

    // Both want the same: one gets it.
    let calls: Vec<Call> = (0..3000).map(|n| register(n, n)).collect();
    let heard = stage.ask_only(&mut [(&mut one, &calls), (&mut two, &calls)]);
    for (one, two) in heard[0].iter().zip(&heard[1]) {
        let refused = one.answer.min(two.answer);
        assert_eq!(refused, (-EEXIST).into());
        assert!(one.answer.max(two.answer) > 0);
    }
    assert!(listed(&stage, &one).into_iter().eq(0..3000));

    // Both want more than there is: the quota holds.
    let left: Vec<Call> = (3000..QUOTA + 1000).map(|n| register(n, n)).collect();
    let (low, high) = left.split_at(left.len() / 2);
    let heard = stage
        .ask_only(&mut [(&mut one, low), (&mut two, high)])
        .concat();
    assert_eq!(count(&heard, |answer| answer > 0) as u64, QUOTA - 3000);
    assert_eq!(count(&heard, |answer| answer == -i64::from(ENOSPC)), 1000);
    assert_eq!(listed(&stage, &one).len() as u64, QUOTA);
    stage.exit(one);
    stage.finish();
}

/// One thread replaces, outsiders list: neither the moment between nor half of anything is ever seen.
#[test]
fn replacing_is_seen_at_once() {
    let Some(mut stage) = Stage::open("replacing_is_seen_at_once") else {
        return;
    };
    let mut actor = puppet(&mut stage, 200);
    // The key 1 holds one section or 60, beside 60 of others: the replaced ones are in two pages.
    let others: Vec<Call> = (0..60).map(|n| register(0, n * 2)).collect();
    stage.ask_only(&mut [(&mut actor, &others)]);
    let many: Vec<Call> = (0..60).map(|n| register(1, n * 2 + 1)).collect();
    let last = 2 * 59 + 1;
    let calls: Vec<Call> = (0..2000)
        .flat_map(|n| [replace(1, last), replace(1, n % 50 * 2 + 1)])
        .collect();
    let mut seen = [0; 2];
    for _ in 0..3 {
        stage.ask_only(&mut [(&mut actor, &many)]);
        let (pid, begin) = (actor.pid, Instant::now());
        let heard = |stage: &Stage| stage.registry.maps().counts().heard;
        let end = heard(&stage) + calls.len() as u64;
        stage.ask_during(&mut [(&mut actor, &calls)], |stage| {
            while heard(stage) < end && begin.elapsed() < LONG_ENOUGH {
                let Some(space) = stage.registry.maps().of_process(pid) else {
                    seen[1] += 1;
                    continue;
                };
                seen[0] += 1;
                let texts: Vec<u64> = space
                    .sections
                    .iter()
                    .map(|section| section.text.start)
                    .collect();
                assert!(texts.is_sorted());
                let replaced = space
                    .sections
                    .iter()
                    .filter(|section| section.key == 1)
                    .count();
                assert!([1, 60].contains(&replaced), "{replaced} of the key");
                assert_eq!(texts.len(), replaced + 60);
            }
        });
        let one = stage.ask_only(&mut [(&mut actor, &[Call::unregister(1)])]);
        assert_eq!(one[0][0].answer, 1);
    }
    println!("listed {} times, in vain {} times", seen[0], seen[1]);
    stage.exit(actor);
    stage.finish();
}

/// An outsider lists while a process forks: a child has everything, or is not known yet.
#[test]
fn a_copy_is_seen_at_once() {
    let Some(mut stage) = Stage::open("a_copy_is_seen_at_once") else {
        return;
    };
    let mut actor = puppet(&mut stage, 2000);
    let all: Vec<Call> = (0..2000).map(|n| register(n, n)).collect();
    stage.ask_only(&mut [(&mut actor, &all)]);
    let mut seen = 0;
    for _ in 0..20 {
        let parent = actor.pid;
        let child = stage.fork_during(&mut actor, |stage| {
            let maps = stage.registry.maps();
            let pids = maps.sharers().into_values().flatten();
            let children = pids.filter(|&pid| pid != parent && stage.is_ours(pid));
            for space in children.filter_map(|pid| maps.of_process(pid)) {
                assert_eq!(space.sections.len(), 2000);
                seen += 1;
            }
        });
        stage.exit(child);
    }
    println!("seen {seen} times");
    stage.exit(actor);
    stage.finish();
}

/// A section is rewritten while it is registered: what is taken is in order all the same.
#[test]
fn sections_that_change() {
    let Some(mut stage) = Stage::open("sections_that_change") else {
        return;
    };
    let mut actor = stage.puppet();
    actor.map(AT, PAGE);
    let shape = |text: u64| Shape::new(3, SORTED | PCREL, &[(text, 0x10), (text + 0x100, 0x10)]);
    let (low, high) = (TEXT, TEXT + 0x1000_0000);
    let mut versions = vec![shape(low).bytes(AT), shape(high).bytes(AT)];
    for (at, len, value) in [
        (0, 2, 0),
        (2, 1, 9),
        (8, 4, u64::MAX),
        (24, 4, 0),
        (36, 4, 0),
    ] {
        let mut bytes = versions[0].clone();
        put(&mut bytes, at, len, value);
        versions.push(bytes);
    }
    let length = versions[0].len() as u64;
    actor.write(AT, &versions[0]);
    let calls = [Call::register(1, AT, length), Call::unregister(1)].repeat(2000);
    let stop = AtomicBool::new(false);
    let tid = actor.tid;
    let mut tally = [0; 3];
    std::thread::scope(|scope| {
        let (stop, versions) = (&stop, &versions);
        scope.spawn(move || {
            let mut turn = versions.iter().cycle();
            while !stop.load(Ordering::Relaxed) {
                crate::puppet::write(tid, AT, turn.next().expect("a cycle"));
            }
        });
        for _ in 0..5 {
            let heard = stage.ask_only(&mut [(&mut actor, &calls)]).remove(0);
            for pair in heard.chunks(2) {
                let [first, second] = [pair[0].answer, pair[1].answer];
                let refusals = [EBADMSG, EPROTONOSUPPORT].map(|errno| -i64::from(errno));
                assert!(first > 0 || refusals.contains(&first), "{first}");
                assert_eq!(second, if first > 0 { 1 } else { (-ENOENT).into() });
                tally[usize::from(first > 0)] += 1;
            }
            // One that stays, to look at.
            let heard = stage.ask_only(&mut [(&mut actor, &[calls[0]])]).remove(0);
            for section in stage.state().remove(&actor.pid).unwrap_or_default() {
                tally[2] += 1;
                // Of each version the one or the other end.
                assert!([low, high].contains(&section.text_start), "{section:x?}");
                let ends = [low, high].map(|text| text + 0x110);
                assert!(ends.contains(&section.text_end), "{section:x?}");
                assert!(section.text_start < section.text_end);
                assert_eq!(u64::from(section.len), length);
            }
            if heard[0].answer > 0 {
                stage.ask_only(&mut [(&mut actor, &[calls[1]])]);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!(
        "{} refused, {} taken, {} looked at",
        tally[0], tally[1], tally[2]
    );
    assert!(tally[0] > 0 && tally[1] > 0);
    stage.exit(actor);
    stage.finish();
}

/// Where there is no room it is said so and counted; what was there stays, and what leaves makes room.
#[test]
fn no_room() {
    const TEST: &str = "no_room";
    const ROOM: Room = Room {
        processes: 3,
        spaces: 3,
        pages: 3,
    };
    for room in [ROOM, Room { spaces: 10, ..ROOM }] {
        let mut stage = match Stage::load(TEST, || Registry::with_room(Hook::ALL, room)) {
            Ok(stage) => stage,
            Err(why) => return println!("SKIPPED {TEST}: {why}"),
        };
        let body = if room == ROOM {
            nothing_fits
        } else {
            nobody_joins
        };
        let result = catch_unwind(AssertUnwindSafe(|| body(&mut stage)));
        if let Err(panic) = result {
            if stage.others_announced() {
                return println!("SKIPPED {TEST}: other processes announce, and take the room");
            }
            resume_unwind(panic);
        }
    }
}

/// Sections of a page.
const PAGEFUL: u64 = 45;

/// Makes a call, and asks nobody else.
fn ask(stage: &mut Stage, actor: &mut Actor, call: Call) -> i64 {
    stage.ask_only(&mut [(actor, &[call])])[0][0].answer
}

fn nothing_fits(stage: &mut Stage) {
    let mut full = 0;
    // At least once: programs that are loaded several times try several times.
    let mut counted = |stage: &Stage| {
        let before = std::mem::replace(&mut full, stage.registry.maps().counts().full);
        full > before
    };
    let no_room: i64 = (-ENOSPC).into();

    // Pages.
    let mut first = puppet(stage, 4 * PAGEFUL);
    for n in 0..3 * PAGEFUL {
        assert!(ask(stage, &mut first, register(n, n)) > 0, "{n}");
    }
    assert!(!counted(stage));
    assert_eq!(ask(stage, &mut first, register(1, 3 * PAGEFUL)), no_room);
    assert_eq!(ask(stage, &mut first, register(1, 0)), (-EEXIST).into());
    assert!(ask(stage, &mut first, replace(1, 3 * PAGEFUL)) > 0);
    assert!(counted(stage));
    let mut second = puppet(stage, 1);
    assert_eq!(ask(stage, &mut second, register(1, 0)), no_room);
    assert!(counted(stage));
    // A copy that does not fit: the child begins with none.
    let mut child = stage.fork(&mut first);
    assert!(counted(stage));
    assert!(!stage.state().contains_key(&child.pid));
    assert_eq!(
        ask(stage, &mut child, Call::unregister(2)),
        (-ENOENT).into()
    );
    stage.exit(child);
    assert_eq!(stage.state()[&first.pid].len() as u64, 3 * PAGEFUL);
    stage.exit(first);
    assert!(ask(stage, &mut second, register(1, 0)) > 0);

    // Address spaces and processes.
    let mut third = puppet(stage, 1);
    let mut fourth = puppet(stage, 1);
    let mut fifth = puppet(stage, 1);
    assert!(ask(stage, &mut third, register(1, 0)) > 0);
    assert!(ask(stage, &mut fourth, register(1, 0)) > 0);
    assert_eq!(ask(stage, &mut fifth, register(1, 0)), no_room);
    assert!(counted(stage));
    let child = stage.fork(&mut third);
    assert!(counted(stage));
    stage.exit(child);
    stage.exit(second);
    assert!(ask(stage, &mut fifth, register(1, 0)) > 0);
    // A process more that shares.
    let mut child = stage.vfork(&mut third);
    assert!(counted(stage));
    assert_eq!(ask(stage, &mut child, Call::unregister(1)), 1);
    stage.exit(child);
    stage.resume(&mut third);
    for actor in [third, fourth, fifth] {
        stage.exit(actor);
    }
    stage.finish();
}

/// Processes alone do not fit: no address space is left behind by those that could not join.
fn nobody_joins(stage: &mut Stage) {
    let mut actors: Vec<Actor> = (0..4).map(|_| puppet(stage, 1)).collect();
    for (n, actor) in actors.iter_mut().enumerate() {
        let answer = ask(stage, actor, register(1, 0));
        assert_eq!(answer > 0, n < 3, "{answer}");
    }
    let child = stage.fork(&mut actors[0]);
    assert_eq!(stage.registry.entries().spaces, 3);
    stage.exit(child);
    for actor in actors {
        stage.exit(actor);
    }
    stage.finish();
}
