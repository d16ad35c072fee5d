//! Areas in memory of their own: mapped, registered, replaced, taken back, and copied by fork.
#![allow(unsafe_code)]

mod looker;
mod supervisor;

use framewalk_announce::abi::{KIND_AREA, REGISTER, REPLACE, UNREGISTER};
use framewalk_announce::area::layout::MAGIC;
use framewalk_announce::area::{CreateError, Function, Mapped, Options, Rule};
use framewalk_announce::{Answer, Refusal};
use looker::{Looker, bytes};
use std::num::NonZeroU64;
use supervisor::{Call, Filter, Reply, supervised};

const TEXT: u64 = 0x1234_5000;

fn options() -> Options {
    Options {
        capacity: 8,
        ..Options::new(TEXT, 1 << 20)
    }
}

fn function(start: u64) -> Function<'static> {
    Function::new(start, 64, Rule::fixed(16))
}

fn accepted(number: u64) -> Answer {
    Answer::Accepted(NonZeroU64::new(number).unwrap())
}

/// The line of a mapping.
fn line(address: u64) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let holds = |line: &&str| {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
        (start..end).contains(&address)
    };
    maps.lines().find(holds).map(str::to_owned)
}

#[test]
fn the_mapping_has_a_name_and_goes_with_the_area() {
    let area = Mapped::new(&options()).unwrap();
    let address = area.words().as_ptr() as u64;
    let line = line(address).unwrap();
    assert!(line.contains("sframe-area"), "{line}");
    assert!(line.contains(" rw-p "), "private: {line}");
    // The rest follows, and is no file that would keep a copy of each page.
    let rest = self::line(address + area.area_len() - 1).unwrap();
    assert!(rest.contains(" rw-p 00000000 00:00 0"), "{rest}");
    // Nothing was registered: nothing is taken back.
    assert_eq!(area.unregister(), None);
    let slot = area.publish(&function(TEXT + 64)).unwrap();
    // Only what is registered can be taken for an area by those who find the mapping.
    let magic = || bytes(area.words(), 0, MAGIC.len());
    assert_ne!(magic(), MAGIC);
    let refused = matches!(area.register(), Answer::Refused(_));
    assert!(!refused, "nobody has anything there");
    assert_eq!(magic(), MAGIC);
    let looker = Looker::new(area.words(), area.area_len());
    assert_eq!(looker.slot(TEXT + 127), Some(slot.number()));
    assert!(area.unregister().is_some());
    assert_ne!(magic(), MAGIC);
}

#[test]
fn what_cannot_be_mapped_is_an_error() {
    let long = Options {
        heap: 1 << 40,
        ..options()
    };
    assert_eq!(Mapped::new(&long).err(), Some(CreateError::TooLarge));
    // A large area costs only what is used of it.
    let large = Options {
        capacity: 1 << 24,
        heap: 1 << 28,
        ..options()
    };
    let area = Mapped::new(&large).unwrap();
    area.publish(&function(TEXT)).unwrap();
}

#[test]
fn registering_replacing_and_dropping_are_calls() {
    let mut replies = [
        Reply::Errno(libc::EEXIST),
        Reply::Value(7),
        Reply::Errno(libc::ENOSPC),
        Reply::Value(9),
        Reply::Value(1),
    ]
    .into_iter();
    let work = || {
        let first = Mapped::new(&options()).unwrap();
        let mut said = vec![first.register(), first.register()];
        let second = Mapped::new(&options()).unwrap();
        said.extend([second.take_over(&first), second.take_over(&first)]);
        let at = [&first, &second].map(|area| area.words().as_ptr() as u64);
        let shown = [&first, &second].map(|area| bytes(area.words(), 0, MAGIC.len()) == MAGIC);
        assert_eq!(shown, [false, true]);
        // The first one is not registered any longer, and must not take the second one's key back.
        drop(first);
        drop(second);
        (said, at)
    };
    let reply = |_: &Call| replies.next().unwrap_or(Reply::Errno(libc::EINVAL));
    let name = "registering_replacing_and_dropping_are_calls";
    let ((said, [first, second]), calls) = match supervised(Filter::default(), work, reply) {
        Ok(result) => result,
        Err(why) => {
            println!("SKIPPED {name}: {why}");
            return;
        }
    };
    let refused = Answer::Refused;
    assert_eq!(
        said,
        [
            refused(Refusal::Overlap),
            accepted(7),
            refused(Refusal::Quota),
            accepted(9)
        ]
    );
    let len = options().area_len().unwrap();
    let calls: Vec<_> = calls.iter().map(|c| (c.option, c.key, c.rest)).collect();
    let register = |at, flags| (REGISTER, TEXT, [at, len, KIND_AREA | flags]);
    assert_eq!(
        calls,
        [
            register(first, 0),
            register(first, 0),
            register(second, REPLACE),
            register(second, REPLACE),
            (UNREGISTER, TEXT, [0; 3]),
        ]
    );
}

#[test]
fn one_that_hears_only_the_second_area_gets_it_too() {
    let mut replies = [
        Reply::Errno(libc::EINVAL),
        Reply::Errno(libc::ENOENT),
        Reply::Value(2),
    ]
    .into_iter();
    let work = || {
        let [first, second] = [(); 2].map(|()| Mapped::new(&options()).unwrap());
        [first.register(), second.take_over(&first)]
    };
    let reply = |_: &Call| replies.next().unwrap_or(Reply::Errno(libc::EINVAL));
    match supervised(Filter::default(), work, reply) {
        Ok((said, calls)) => {
            assert_eq!(said, [Answer::Nobody, accepted(2)]);
            let flags = calls.iter().map(|call| call.rest[2]);
            let expected = [KIND_AREA, KIND_AREA | REPLACE, KIND_AREA, 0];
            assert_eq!(flags.collect::<Vec<_>>(), expected);
        }
        Err(why) => println!("SKIPPED one_that_hears_only_the_second_area_gets_it_too: {why}"),
    }
}

#[test]
fn a_forked_process_describes_its_own_code() {
    let area = Mapped::new(&options()).unwrap();
    area.register();
    let both = area.publish(&function(TEXT)).unwrap();
    let looker = Looker::new(area.words(), area.area_len());
    // SAFETY: the child does nothing but loads and stores, and ends by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let fine = area.tombstone(both)
            && area.publish(&function(TEXT + 0x1000)).is_ok()
            && area.publish(&function(TEXT + 0x2000)).is_ok()
            && area.claimed() == 3;
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!fine)) };
    }
    assert!(child > 0);
    let mut status = 0;
    // SAFETY: waits for the child, into a number of ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    // Here nothing of that has happened.
    assert_eq!(area.claimed(), 1);
    assert_eq!(looker.slot(TEXT), Some(both.number()));
    assert_eq!(looker.slot(TEXT + 0x1000), None);
}
