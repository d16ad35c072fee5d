//! Stacks that the kernel walks by what their program announced: code and section are in memory alone.

#[allow(dead_code)]
#[path = "recording/memory_only.rs"]
mod memory_only;
#[allow(dead_code)]
#[path = "recording/recorded.rs"]
mod recorded;
#[allow(dead_code)]
#[path = "recording/targets.rs"]
mod targets;

use framewalk::engines::{self, Kind, Mode, Settings, Target};
use framewalk::launch;
use framewalk::processes::Objects;
use framewalk::sample::{Place, Sample};
use framewalk_walk::{Origin, Stop};
use memory_only::MemoryOnly;
use recorded::{skip, words};
use std::time::{Duration, Instant};

const DEPTH: usize = 40;

/// Records `memory_only` with the kernel engine until it ends.
fn samples(
    test: &str,
    built: &MemoryOnly,
    mode: Mode,
    what: &str,
) -> Option<(Vec<Sample>, Vec<String>)> {
    let depth = DEPTH.to_string();
    let command = words(&[
        built.program.as_os_str(),
        built.blob.as_os_str(),
        "1000".as_ref(),
        depth.as_ref(),
        what.as_ref(),
    ]);
    let waiting = launch::hold(&command).unwrap();
    let settings = Settings {
        frequency: 997,
        max_frames: 510,
    };
    let target = Target::Child(waiting.pid());
    let mut engine = match engines::open(Kind::Kernel, mode, &target, settings) {
        Ok(engine) => engine,
        Err(unavailable) => {
            skip(
                test,
                &format!("{} (missing: {})", unavailable.what, unavailable.missing),
            );
            return None;
        }
    };
    engine.start().unwrap();
    let _running = waiting.release().unwrap();
    let (mut objects, mut samples) = (Objects::default(), Vec::new());
    let give_up = Instant::now() + Duration::from_secs(60);
    let wait = Duration::from_millis(50);
    while engine
        .poll(wait, &mut objects, &mut |sample| samples.push(sample))
        .unwrap()
    {
        assert!(Instant::now() < give_up);
    }
    let counts = engine
        .finish(&mut objects, &mut |sample| samples.push(sample))
        .unwrap();
    println!("{counts:?}");
    assert_eq!(counts.lost, 0);
    Some((samples, counts.notes))
}

/// The functions in memory of a stack, innermost first.
fn in_memory<'a>(built: &'a MemoryOnly, sample: &Sample) -> Vec<&'a str> {
    let frames = sample.frames.iter().filter_map(|frame| match frame.place {
        Place::Anonymous(pc) => Some(pc - u64::from(frame.is_return_address)),
        _ => None,
    });
    frames
        .map(|pc| built.function(pc).expect("a function in memory"))
        .collect()
}

/// Samples that were taken in the innermost function in memory.
fn burning<'a>(built: &MemoryOnly, samples: &'a [Sample]) -> Vec<&'a Sample> {
    let burns = |sample: &&Sample| in_memory(built, sample).first() == Some(&"burn");
    let burning: Vec<_> = samples.iter().filter(burns).collect();
    assert!(
        burning.len() >= 30,
        "{} of {}",
        burning.len(),
        samples.len()
    );
    burning
}

/// Every mode that this kernel has.
const MODES: [Mode; 3] = [Mode::Auto, Mode::Deferred, Mode::Immediate];

#[test]
fn code_and_section_in_memory_alone() {
    let test = "code_and_section_in_memory_alone";
    let built = MemoryOnly::build();
    for mode in MODES {
        let Some((samples, notes)) = samples(test, &built, mode, "announce") else {
            continue;
        };
        assert!(notes.is_empty(), "{notes:?}");
        for sample in burning(&built, &samples) {
            assert_eq!(in_memory(&built, sample), MemoryOnly::stack(DEPTH));
            assert_eq!(sample.stop, Stop::Outermost, "{sample:?}");
            let user = sample
                .frames
                .iter()
                .filter(|frame| frame.origin != Origin::Kernel);
            // The rows of the functions in memory led to their callers, the last one to `run`.
            let by_announced = user
                .clone()
                .take_while(|frame| matches!(frame.origin, Origin::Registers | Origin::Announced));
            assert_eq!(by_announced.count(), 1 + DEPTH + 2, "{sample:?}");
            assert!(
                !user
                    .clone()
                    .any(|frame| frame.origin == Origin::FramePointer)
            );
        }
        let with_stack = samples.iter().filter(|s| !s.stop.without_user_stack());
        let complete = samples.iter().filter(|s| s.stop == Stop::Outermost).count();
        let all = with_stack.count();
        assert!(complete * 100 >= all * 99, "{complete} of {all}");
    }
}

#[test]
fn without_an_announcement_there_is_no_way_out() {
    let test = "without_an_announcement_there_is_no_way_out";
    let built = MemoryOnly::build();
    let Some((samples, _)) = samples(test, &built, Mode::Auto, "silent") else {
        return;
    };
    for sample in burning(&built, &samples) {
        assert_ne!(sample.stop, Stop::Outermost, "{sample:?}");
        assert_ne!(in_memory(&built, sample), MemoryOnly::stack(DEPTH));
    }
    let mut frames = samples.iter().flat_map(|sample| &sample.frames);
    assert!(frames.all(|frame| frame.origin != Origin::Announced));
}

#[test]
fn a_section_that_has_vanished_is_passed_over() {
    let test = "a_section_that_has_vanished_is_passed_over";
    let built = MemoryOnly::build();
    for mode in MODES {
        let Some((samples, notes)) = samples(test, &built, mode, "vanish") else {
            continue;
        };
        let told =
            |note: &String| note.ends_with("lookups in announced sections could not be read");
        assert!(notes.iter().any(told), "{notes:?}");
        for sample in burning(&built, &samples) {
            assert_ne!(sample.stop, Stop::Outermost, "{sample:?}");
        }
    }
}
