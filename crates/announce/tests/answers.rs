//! What the Rust API calls, and what it makes of the answers.
#![allow(unsafe_code)]

mod supervisor;

use framewalk_announce::abi::{REGISTER, REPLACE, UNREGISTER};
use framewalk_announce::{
    Answer, Refusal, Registration, register, register_at, replace, unregister,
};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use supervisor::{Call, Filter, Reply, supervised};

static SECTION: [u8; 44] = [1; 44];

fn accepted(number: u64) -> Answer {
    Answer::Accepted(NonZeroU64::new(number).unwrap())
}

/// The work's result and the calls, or a skip.
fn heard<T: Send>(
    test: &str,
    work: impl FnOnce() -> T + Send,
    answer: impl FnMut(&Call) -> Reply,
) -> Option<(T, Vec<Call>)> {
    match supervised(Filter::default(), work, answer) {
        Ok(result) => Some(result),
        Err(why) => {
            println!("SKIPPED {test}: {why}");
            None
        }
    }
}

/// Option, key and flags.
fn short(calls: &[Call]) -> Vec<(u32, u64, u64)> {
    let short = |call: &Call| (call.option, call.key, call.rest[2]);
    calls.iter().map(short).collect()
}

#[test]
fn each_answer_is_told_apart() {
    let mut cases = vec![
        (Reply::Value(1), accepted(1)),
        (Reply::Value(0x7fff_ffff), accepted(0x7fff_ffff)),
        (Reply::Value(0), Answer::Nobody),
        (Reply::Errno(libc::EINVAL), Answer::Nobody),
        (Reply::Errno(libc::ENOSYS), Answer::Nobody),
        (Reply::Errno(libc::EPERM), Answer::Nobody),
        (Reply::Errno(libc::EACCES), Answer::Nobody),
    ];
    for &refusal in Refusal::ALL {
        if refusal != Refusal::Arguments {
            cases.push((Reply::Errno(refusal.errno()), Answer::Refused(refusal)));
        }
    }
    let work = || {
        let mut answers = Vec::new();
        for _ in 0..cases.len() {
            answers.push([
                register(u64::MAX, &SECTION),
                replace(u64::MAX, &SECTION),
                unregister(u64::MAX),
            ]);
        }
        answers
    };
    let mut next = 0;
    let answer = |_: &Call| {
        next += 1;
        cases[(next - 1) / 3].0
    };
    let Some((answers, calls)) = heard("each_answer_is_told_apart", work, answer) else {
        return;
    };
    for ((reply, expected), answers) in cases.iter().zip(answers) {
        assert_eq!(answers, [*expected; 3], "{reply:?}");
    }
    let (address, length) = (SECTION.as_ptr() as u64, SECTION.len() as u64);
    for calls in calls.chunks(3) {
        let said = calls.iter().map(|call| (call.option, call.key, call.rest));
        let expected = [
            (REGISTER, u64::MAX, [address, length, 0]),
            (REGISTER, u64::MAX, [address, length, REPLACE]),
            (UNREGISTER, u64::MAX, [0; 3]),
        ];
        assert_eq!(said.collect::<Vec<_>>(), expected);
    }
    assert_eq!(calls.len(), 3 * cases.len());
}

#[test]
fn bad_arguments_are_refused_without_a_call() {
    let work = || {
        // SAFETY: none of these ranges gets as far as being read.
        let at = |address, length, flags| unsafe { register_at(1, address, length, flags) };
        [
            at(0, 28, 0),
            at(4096, 0, 0),
            at(usize::MAX, 28, 0),
            at(usize::MAX - 27, 28, 0),
            at(1 << 63, 28, 0),
            at(4096, 1 << 32, 0),
            at(SECTION.as_ptr() as usize, 44, 1),
            at(SECTION.as_ptr() as usize, 44, REPLACE | 0x200),
            register(1, &[]),
        ]
    };
    let reply = |_: &Call| Reply::Value(1);
    let name = "bad_arguments_are_refused_without_a_call";
    let Some((answers, calls)) = heard(name, work, reply) else {
        return;
    };
    assert_eq!(answers, [Answer::Refused(Refusal::Arguments); 9]);
    assert_eq!(calls, []);
}

/// Memory of its own, by mmap.
struct Mapping(usize, usize);

impl Mapping {
    fn new(length: usize, protection: i32, file: Option<i32>) -> Mapping {
        let (flags, file) = match file {
            Some(file) => (libc::MAP_SHARED, file),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        // SAFETY: a new mapping.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, file, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        Mapping(at as usize, length)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more.
        unsafe { libc::munmap(self.0 as *mut libc::c_void, self.1) };
    }
}

/// A file in memory.
fn memory_file(length: i64) -> std::fs::File {
    use std::os::fd::FromRawFd;
    // SAFETY: the name is a string.
    let fd = unsafe { libc::memfd_create(c"section".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: a new descriptor, which is ours.
    let file = unsafe { std::fs::File::from_raw_fd(fd) };
    file.set_len(length as u64).unwrap();
    file
}

#[test]
fn memory_that_cannot_be_read_harms_nobody() {
    use std::os::fd::AsRawFd;
    let none = Mapping::new(8192, libc::PROT_NONE, None);
    let short = memory_file(4096);
    let cut = Mapping::new(8192, libc::PROT_READ, Some(short.as_raw_fd()));
    let gone = Mapping::new(4096, libc::PROT_READ, None).0;
    // The header begins before the end of the file, and ends behind it; a section of which no more is there.
    let addresses = [none.0, cut.0 + 4096, cut.0 + 4090, gone];
    let work = || {
        // SAFETY: nothing changes meanwhile: that it cannot be read is the point.
        addresses.map(|address| unsafe { register_at(1, address, 44, 0) })
    };
    let reply = |_: &Call| Reply::Errno(libc::EFAULT);
    let name = "memory_that_cannot_be_read_harms_nobody";
    let Some((answers, calls)) = heard(name, work, reply) else {
        return;
    };
    assert_eq!(answers, [Answer::Refused(Refusal::Unreadable); 4]);
    assert_eq!(calls.len(), 4, "who answers judges");
}

/// Whether this process has the page of an address (bit 63 of its pagemap).
fn resident(address: u64) -> bool {
    use std::os::unix::fs::FileExt;
    let map = std::fs::File::open("/proc/self/pagemap").unwrap();
    let mut entry = [0; 8];
    map.read_exact_at(&mut entry, address / 4096 * 8).unwrap();
    u64::from_ne_bytes(entry) >> 63 == 1
}

#[test]
fn the_pages_that_are_read_at_once_are_resident() {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;
    // 100,000 functions: the index begins 1 MB behind the header, by way of an offset that says so.
    const FUNCTIONS: u64 = 100_000;
    const INDEX: u64 = 28 + (1 << 20);
    let length = INDEX + FUNCTIONS * 16;
    let file = memory_file(length as i64);
    let mut header = [0u8; 28];
    header[..5].copy_from_slice(&[0xe2, 0xde, 3, 5, 3]);
    header[8..12].copy_from_slice(&(FUNCTIONS as u32).to_ne_bytes());
    header[20..24].copy_from_slice(&(1u32 << 20).to_ne_bytes());
    file.write_all_at(&header, 0).unwrap();
    let mapping = Mapping::new(length as usize, libc::PROT_READ, Some(file.as_raw_fd()));
    let base = mapping.0 as u64;
    let places = [0, INDEX, length - 16, length - 1];
    let before = places.map(|at| resident(base + at));
    let work = || {
        // SAFETY: the mapping stays as it is.
        unsafe { register_at(1, mapping.0, length as usize, 0) }
    };
    let mut then = [false; 4];
    let reply = |_: &Call| {
        then = places.map(|at| resident(base + at));
        Reply::Value(1)
    };
    let name = "the_pages_that_are_read_at_once_are_resident";
    let Some((answer, _)) = heard(name, work, reply) else {
        return;
    };
    assert_eq!(answer, accepted(1));
    assert_eq!(before, [false; 4], "the test shows nothing");
    assert_eq!(then, [true; 4]);
    let between = INDEX + FUNCTIONS * 8;
    assert!(!resident(base + between), "more was touched than is read");
}

#[test]
fn a_registration_takes_back_what_it_registered() {
    use Reply::{Errno, Value};
    let section = vec![2u8; 44];
    let other = vec![3u8; 44];
    let work = || {
        // Accepted, replaced, refused to be replaced.
        let mut one = Registration::new(1, &section);
        let told = [one.answer(), one.replace(&other), one.replace(&section)];
        let kept = one.answer();
        drop(one);
        // Refused: then there is nothing to take back, and nothing to replace.
        let mut two = Registration::new(2, &section);
        two.replace(&other);
        drop(two);
        // Nobody answers, but may have heard.
        drop(Registration::new(3, &section));
        // Who answers now has not heard of the first.
        let mut four = Registration::new(4, &section);
        four.replace(&other);
        drop(four);
        (told, kept)
    };
    let mut replies = [
        (REGISTER, 1, 0, Value(7)),
        (REGISTER, 1, REPLACE, Value(8)),
        (REGISTER, 1, REPLACE, Errno(libc::EBADMSG)),
        (UNREGISTER, 1, 0, Value(1)),
        (REGISTER, 2, 0, Errno(libc::EEXIST)),
        (REGISTER, 2, 0, Errno(libc::EEXIST)),
        (REGISTER, 3, 0, Errno(libc::EINVAL)),
        (UNREGISTER, 3, 0, Errno(libc::EINVAL)),
        (REGISTER, 4, 0, Errno(libc::EINVAL)),
        (REGISTER, 4, REPLACE, Errno(libc::ENOENT)),
        (REGISTER, 4, 0, Value(9)),
        (UNREGISTER, 4, 0, Value(1)),
    ]
    .into_iter();
    let expected: Vec<_> = replies.clone().map(|(o, k, f, _)| (o, k, f)).collect();
    let reply = |_: &Call| replies.next().map_or(Errno(libc::EINVAL), |reply| reply.3);
    let name = "a_registration_takes_back_what_it_registered";
    let Some(((told, kept), calls)) = heard(name, work, reply) else {
        return;
    };
    assert_eq!(short(&calls), expected);
    let malformed = Answer::Refused(Refusal::Malformed);
    assert_eq!(told, [accepted(7), accepted(8), malformed]);
    assert_eq!(kept, accepted(8));
}

#[test]
fn errno_stays_as_it_is() {
    const MINE: i32 = 77;
    let work = || {
        // SAFETY: this thread's errno.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        unsafe { *errno = MINE };
        let refused = register(1, &SECTION);
        // SAFETY: as above.
        (refused, unsafe { *errno })
    };
    let reply = |_: &Call| Reply::Errno(libc::EEXIST);
    if let Some((result, _)) = heard("errno_stays_as_it_is", work, reply) {
        assert_eq!(result, (Answer::Refused(Refusal::Overlap), MINE));
    }
}

#[test]
fn it_can_be_called_inside_a_signal_handler() {
    static ANSWERED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn handler(_: i32) {
        let id = register(5, &SECTION).accepted();
        ANSWERED.store(id.map_or(0, |id| id.get() as usize), Ordering::Relaxed);
    }
    let work = || {
        let handler = handler as extern "C" fn(i32) as usize;
        // SAFETY: the handler makes system calls and stores a number.
        unsafe {
            libc::signal(libc::SIGUSR1, handler);
            libc::raise(libc::SIGUSR1);
        }
    };
    let name = "it_can_be_called_inside_a_signal_handler";
    if heard(name, work, |_| Reply::Value(41)).is_some() {
        assert_eq!(ANSWERED.load(Ordering::Relaxed), 41);
    }
}

#[test]
fn this_kernel_answers_or_does_not() {
    // No section, so there is nothing to take back whoever may be listening.
    match register(6, &SECTION) {
        Answer::Nobody | Answer::Refused(Refusal::Malformed) => {}
        answer => panic!("{answer:?}"),
    }
    match unregister(6) {
        Answer::Nobody | Answer::Refused(Refusal::UnknownKey) => {}
        answer => panic!("{answer:?}"),
    }
}
