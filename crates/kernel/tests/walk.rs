//! The real programs in the real kernel, sampling this very process. Needs root (or CAP_BPF and
//! CAP_PERFMON); says so and passes over where they are missing.

#![allow(unsafe_code)]

use framewalk_kernel::{Error, FramePlace, Key, Mode, Options, Record, SampleRecord, Sampler};
use framewalk_sframe::{Arch, Builder, CallerRule, Cfa, FunctionRows, Register, Row, Rule, Unwind};
use framewalk_walk::{Origin, Stop};
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A software clock on the calling thread, as perf_event_open(2) wants it.
fn clock() -> std::io::Result<OwnedFd> {
    let mut attr = [0u64; 17];
    attr[0] = 1 | (136 << 32); // PERF_TYPE_SOFTWARE, size
    attr[1] = 0; // PERF_COUNT_SW_CPU_CLOCK
    attr[2] = 2000; // sample_freq
    attr[5] = 1 << 10; // freq
    // SAFETY: attr is 136 bytes as it says, and outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), 0, -1, -1, 8) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: a new descriptor of nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A loaded sampler, or a printed reason why not.
fn load(test: &str, mode: Mode) -> Option<Sampler> {
    match Sampler::load(
        Options {
            mode: Some(mode),
            max_frames: Options::MAX_FRAMES,
            ring_bytes: 16 << 20,
        },
        None,
    ) {
        Ok(sampler) => Some(sampler),
        Err(error @ (Error::NoTaskWork | Error::Load(..))) => {
            // Only what a kernel or missing privileges explain may be passed over.
            // SAFETY: no arguments, no memory.
            let root = unsafe { libc::geteuid() } == 0;
            assert!(
                !root || matches!(error, Error::NoTaskWork),
                "root, and yet refused: {error}"
            );
            println!("SKIPPED {test}: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Samples this thread until `enough` says so; fails after a bound that no machine should need.
fn sample_until(sampler: &mut Sampler, enough: impl Fn(&[Record]) -> bool) -> Vec<Record> {
    sampler.attach(clock().unwrap()).unwrap();
    let mut records = Vec::new();
    let begin = Instant::now();
    while !enough(&records) {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "no such records: {records:?}"
        );
        for n in 0..200_000u64 {
            std::hint::black_box(n.wrapping_mul(n));
        }
        sampler
            .poll(Duration::ZERO, &mut |record| records.push(record))
            .unwrap();
    }
    sampler.detach();
    records
}

fn samples(records: &[Record]) -> impl Iterator<Item = &SampleRecord> {
    records.iter().filter_map(|record| match record {
        Record::Sample(sample) => Some(sample),
        _ => None,
    })
}

/// A section in which every pc of an object has this row.
fn everywhere(unwind: Unwind) -> Vec<u8> {
    let mut builder = Builder::new(Arch::Amd64);
    builder.push(FunctionRows::new(
        0,
        u32::MAX,
        vec![Row { start: 0, unwind }],
    ));
    builder.finish(0).unwrap()
}

const RSP: Register = Register(7);

fn caller(cfa: Cfa, ra: Rule) -> Unwind {
    Unwind::Caller(CallerRule {
        cfa,
        ra,
        fp: Rule::Same,
        ra_signed: false,
    })
}

/// Registers one table for whatever object is asked for, and returns the samples walked by it.
fn walked_by(sampler: &mut Sampler, section: &[u8]) -> Vec<SampleRecord> {
    sampler.attach(clock().unwrap()).unwrap();
    let table = sampler.add_table(7, section, Origin::Converted).unwrap();
    let mut found = Vec::new();
    let begin = Instant::now();
    while found.len() < 20 {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "no samples by the table"
        );
        for n in 0..200_000u64 {
            std::hint::black_box(n.wrapping_mul(n));
        }
        let mut wanted: Vec<Key> = Vec::new();
        sampler
            .poll(Duration::ZERO, &mut |record| match record {
                Record::Want(want) => wanted.push(want.key),
                Record::Sample(sample) if sample.stop != Stop::TablePending && !sample.linked => {
                    found.push(sample);
                }
                _ => {}
            })
            .unwrap();
        for key in wanted {
            sampler.register(key, &table).unwrap();
        }
    }
    sampler.detach();
    found
}

#[test]
fn without_tables_samples_bring_what_finishes_them() {
    for mode in [Mode::Deferred, Mode::DeferredAlways, Mode::Immediate] {
        let Some(mut sampler) = load("without_tables_samples_bring_what_finishes_them", mode)
        else {
            continue;
        };
        let pending = |record: &Record| matches!(record, Record::Sample(sample) if sample.stop == Stop::TablePending && sample.resume.top);
        let records = sample_until(&mut sampler, |records| records.iter().any(pending));
        let asked = records.iter().find_map(|record| match record {
            Record::Want(want) => Some(want),
            _ => None,
        });
        let asked = asked.expect("a request for the object");
        assert_eq!(asked.pid, std::process::id());
        // The clock is read in the vdso.
        assert!(asked.start < asked.end && (asked.key.inode != 0 || asked.key == Key::VDSO));

        let sample = samples(&records)
            .find(|s| s.stop == Stop::TablePending && s.resume.top)
            .unwrap();
        let resume = sample.resume;
        let copied: usize = records
            .iter()
            .filter_map(|record| match record {
                Record::Stack(stack) if stack.id == sample.id => Some(stack.bytes.len()),
                _ => None,
            })
            .sum();
        assert!(copied >= 2048, "{copied} bytes of stack");
        let registers = records.iter().find_map(|record| match record {
            Record::Registers(id, values) if *id == sample.id => Some(*values),
            _ => None,
        });
        // DWARF numbers 6 and 7 are rbp and rsp.
        let registers = registers.expect("registers");
        assert_eq!((registers[7], registers[6]), (resume.sp, resume.fp));
        assert_eq!(sampler.counts().unwrap().full_ring, 0);
    }
}

/// An offset from this thread's stack to memory that nobody can read, and nobody else will map.
fn to_unreadable_memory() -> i32 {
    const AROUND: usize = 4 << 20;
    let on_stack = 0u8;
    let stack = &raw const on_stack as usize;
    let offsets = (8..32).map(|n| -(n << 26));
    let mut reserved = offsets.filter(|offset: &i32| {
        let start = (stack.wrapping_add_signed(*offset as isize) & !4095) - AROUND / 2;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let at = start as *mut libc::c_void;
        // SAFETY: a new mapping where there is none, or nothing.
        let mapped = unsafe { libc::mmap(at, AROUND, libc::PROT_NONE, flags, -1, 0) };
        mapped == at
    });
    reserved.next().expect("a hole in the address space")
}

#[test]
fn hostile_rows_end_walks_with_their_reason() {
    let away = to_unreadable_memory();
    let cases = [
        ("no caller", Unwind::Outermost, Stop::Outermost),
        (
            "CFA below SP",
            caller(Cfa::Value(RSP, -8), Rule::AtCfa(-8)),
            Stop::CfaNotAbove,
        ),
        (
            "CFA misaligned",
            caller(Cfa::Value(RSP, 12), Rule::AtCfa(-8)),
            Stop::CfaBad,
        ),
        (
            "CFA far away",
            caller(Cfa::Value(RSP, 1 << 30), Rule::AtCfa(-8)),
            Stop::CfaBad,
        ),
        (
            "CFA in unmapped memory",
            caller(Cfa::At(RSP, away), Rule::AtCfa(-8)),
            Stop::ReadFault,
        ),
        (
            "RA in unmapped memory",
            caller(Cfa::Value(RSP, 16), Rule::AtCfa(away)),
            Stop::ReadFault,
        ),
    ];
    for mode in [Mode::Deferred, Mode::DeferredAlways, Mode::Immediate] {
        for (what, unwind, stop) in cases {
            let Some(mut sampler) = load("hostile_rows_end_walks_with_their_reason", mode) else {
                continue;
            };
            let found = walked_by(&mut sampler, &everywhere(unwind));
            // Kernel-mode samples of this thread may be in libc's or the kernel's hands; user-mode ones tell.
            for sample in found
                .iter()
                .filter(|s| s.frames.iter().all(|f| f.origin != Origin::Kernel))
            {
                assert_eq!(sample.stop, stop, "{what}, {mode:?}: {sample:?}");
                assert!(matches!(
                    sample.frames.first().unwrap().place,
                    FramePlace::Object(7, _)
                ));
                assert_eq!(
                    sample.frames.len(),
                    1,
                    "{what}: a frame too many: {sample:?}"
                );
            }
        }
    }
}

#[test]
fn a_stack_of_return_addresses_ends_at_the_limit_or_earlier() {
    for mode in [Mode::Deferred, Mode::DeferredAlways, Mode::Immediate] {
        let Some(mut sampler) = load(
            "a_stack_of_return_addresses_ends_at_the_limit_or_earlier",
            mode,
        ) else {
            continue;
        };
        // RA is the interrupted pc itself, forever; CFA creeps upwards word by word: the worst that a
        // row can do. It ends at the limit of frames, or where the stack does.
        let row = caller(Cfa::Value(RSP, 8), Rule::Value(RSP, 0));
        let found = walked_by(&mut sampler, &everywhere(row));
        assert!(found.iter().all(|sample| sample.frames.len() <= 510 + 127));
        assert!(
            found.iter().all(|sample| sample.stop != Stop::Outermost),
            "a stack without an outermost row is complete: {found:?}"
        );
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let Some(mut sampler) = load("what_does_not_fit_is_refused", Mode::Immediate) else {
        return;
    };
    let section = everywhere(Unwind::Outermost);
    assert!(matches!(
        sampler.add_table(1 << 20, &section, Origin::File),
        Err(Error::ObjectNumber(_))
    ));
    assert!(matches!(
        sampler.add_table(1, &section[..20], Origin::File),
        Err(Error::Section(_))
    ));
    let mut unsorted = section.clone();
    unsorted[3] &= !1;
    assert!(matches!(
        sampler.add_table(1, &unsorted, Origin::File),
        Err(Error::SectionKind)
    ));
    let used = sampler.arena_used();
    sampler.add_table(1, &section, Origin::File).unwrap();
    assert!(sampler.arena_used() >= used + section.len());
}
