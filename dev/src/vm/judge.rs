//! What a payload's run was worth, test by test. Emulation is slow and uneven: how many samples there are
//! says little, so few suffice; a wrong stack or none is a failure. Nothing depends on time.

use super::kernels::Kernel;
use super::payloads::{FOLDED, STATS};
use super::report::{Ended, Ran};
use crate::test::{Outcome, Report, Test, Tests};
use serde_json::Value;

/// Frames from `look` to `main` in dev/targets/depth.c, as an argument.
pub(super) const FRAMES: &str = "40";
/// `deep` in dev/targets/absent.c.
const DEEP: usize = 200;

/// Samples in the innermost function that a recording needs to mean something.
const ENOUGH: u64 = 30;
/// Percent of them that reach the outermost frame, at least.
const COMPLETE: u64 = 90;

/// A test program's own results, and that it came to its end.
pub(super) fn libtest(ran: &Ran, _: &Kernel) -> Vec<Test> {
    let (mut tests, mut report) = (Tests::default(), Report::default());
    let mut running = None;
    for line in &ran.out {
        report.line(line, &mut tests);
        // `test NAME ... ` is printed when it begins; the rest of the line when it ends.
        running = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... "))
            .or(running);
    }
    let during = running
        .map(|name| format!(", during {name}"))
        .unwrap_or_default();
    let wrong = match &ran.ended {
        Some(Ended::Exit(0)) if tests.list.is_empty() => Some("ran no test".to_string()),
        Some(Ended::Exit(0)) => None,
        // Status 101 says what its tests said.
        Some(Ended::Exit(101)) if tests.failed() > 0 => None,
        Some(ended) => Some(format!("{ended}{during}")),
        None => Some(format!("the machine ended first{during}")),
    };
    if let Some(why) = wrong {
        tests
            .list
            .push(Test::new("all of it", Outcome::Failed(why)));
    }
    tests.list
}

/// A table for people: it is shown, and has only to come to its end.
pub(super) fn table(ran: &Ran, kernel: &Kernel) -> Vec<Test> {
    for line in &ran.out {
        println!("vm {}: {line}", kernel.name);
    }
    let came = match &ran.ended {
        Some(Ended::Exit(0)) => Ok(()),
        other => Err(end(other)),
    };
    vec![Test::of("comes to its end", came)]
}

/// Walks at the sample.
pub(super) fn immediate(ran: &Ran, _: &Kernel) -> Vec<Test> {
    vec![stacks_of_known_depth(ran, "immediate")]
}

/// Walks before the return to user mode, or says that this kernel has none.
pub(super) fn deferred(ran: &Ran, kernel: &Kernel) -> Vec<Test> {
    if kernel.task_work {
        return vec![stacks_of_known_depth(ran, "deferred")];
    }
    let refused = || {
        let said = said(ran);
        match &ran.ended {
            Some(Ended::Exit(code)) if *code != 0 => {}
            other => return Err(format!("{}: {said}", end(other))),
        }
        if !said.contains("no BPF task work") {
            return Err(format!("does not say what is missing: {said}"));
        }
        match ran.file(FOLDED) {
            None => Ok(()),
            Some(_) => Err("wrote a profile all the same".to_string()),
        }
    };
    vec![Test::of("is refused, with the reason", refused())]
}

fn stacks_of_known_depth(ran: &Ran, mode: &str) -> Test {
    let checked = Recorded::of(ran, mode).and_then(|recorded| {
        let frames: usize = FRAMES.parse().map_err(|_| "FRAMES is no number")?;
        let mut known = vec!["main"];
        known.extend(std::iter::repeat_n("descend", frames - 2));
        known.push("look");
        let (all, whole) = recorded.stacks_of(&known)?;
        match all >= ENOUGH && whole * 100 >= all * COMPLETE {
            true => Ok(()),
            false => Err(format!(
                "{whole} of {all} stacks are whole: {}",
                recorded.stats
            )),
        }
    });
    Test::of("every stack is the known one", checked)
}

/// Pages of the stack are absent at the sample: deferred walks fault them in, others say so.
pub(super) fn absent(ran: &Ran, kernel: &Kernel) -> Vec<Test> {
    let mode = if kernel.task_work {
        "deferred"
    } else {
        "immediate"
    };
    let checked = Recorded::of(ran, mode).and_then(|recorded| {
        let mut known = vec!["begin"];
        known.extend(std::iter::repeat_n("deep", DEEP));
        known.push("spin");
        let (all, whole) = recorded.stacks_of(&known)?;
        let faults = recorded.stats["stopped"]["read-fault"]
            .as_u64()
            .unwrap_or(0);
        let good = match kernel.task_work {
            true => whole * 100 >= all * COMPLETE,
            false => faults > 0,
        };
        match good && all >= ENOUGH {
            true => Ok(()),
            false => Err(format!(
                "{whole} of {all} stacks are whole: {}",
                recorded.stats
            )),
        }
    });
    let name = match kernel.task_work {
        true => "absent pages are faulted in",
        false => "absent pages are named",
    };
    vec![Test::of(name, checked)]
}

/// What `framewalk record` left.
struct Recorded {
    stats: Value,
    /// Functions of the program, outermost first; whether the callers of the first are missing; how often.
    stacks: Vec<(Vec<String>, bool, u64)>,
}

impl Recorded {
    fn of(ran: &Ran, mode: &str) -> Result<Recorded, String> {
        if ran.ended != Some(Ended::Exit(0)) {
            return Err(format!("{}: {}", end(&ran.ended), said(ran)));
        }
        let file = |name| ran.file(name).ok_or_else(|| format!("no {name}"));
        let stats: Value = serde_json::from_str(&file(STATS)?.join("\n"))
            .map_err(|error| format!("{STATS}: {error}"))?;
        let (engine, used) = (&stats["engine"], &stats["mode"]);
        if engine != "kernel" || used != mode {
            return Err(format!(
                "recorded by {engine} in mode {used}, not kernel in mode {mode}"
            ));
        }
        let stacks = file(FOLDED)?
            .iter()
            .map(|line| stack(line).ok_or_else(|| format!("{FOLDED}: not a stack: {line}")));
        let stacks = stacks.collect::<Result<Vec<_>, _>>()?;
        Ok(Recorded { stats, stacks })
    }

    /// How many samples are in the last of these functions, and how many of them have all of them. Any
    /// that has others is wrong.
    fn stacks_of(&self, known: &[&str]) -> Result<(u64, u64), String> {
        let (mut all, mut whole) = (0, 0);
        for (functions, cut, count) in &self.stacks {
            if functions.last().map(String::as_str) != known.last().copied() {
                continue;
            }
            all += count;
            let from_innermost = functions.iter().rev().zip(known.iter().rev());
            let same = from_innermost
                .take_while(|(function, known)| function == known)
                .count();
            match same == known.len() {
                true => whole += count,
                // Cut off earlier, and right up to there.
                false if *cut && same == functions.len() => {}
                false => {
                    return Err(format!(
                        "a wrong stack, {count} times: {}",
                        functions.join(";")
                    ));
                }
            }
        }
        Ok((all, whole))
    }
}

/// A line of a folded file, without the kernel's functions.
fn stack(line: &str) -> Option<(Vec<String>, bool, u64)> {
    let (stack, count) = line.rsplit_once(' ')?;
    let mut names = stack.split(';').skip(1).peekable();
    let cut = names
        .next_if(|name| name.starts_with("[cut off: "))
        .is_some();
    let user = names.filter(|name| !name.ends_with("_[k]"));
    Some((user.map(str::to_string).collect(), cut, count.parse().ok()?))
}

/// Its last complaints.
fn said(ran: &Ran) -> String {
    let lines = &ran.err[ran.err.len().saturating_sub(3)..];
    let short = lines
        .iter()
        .map(|line| line.trim().chars().take(200).collect::<String>());
    short.collect::<Vec<_>>().join("; ")
}

fn end(ended: &Option<Ended>) -> String {
    match ended {
        Some(ended) => ended.to_string(),
        None => "the machine ended first".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::kernels::KERNELS;

    const OLD: &Kernel = &KERNELS[0];
    const NEW: &Kernel = &KERNELS[1];
    const WELL: Option<Ended> = Some(Ended::Exit(0));

    fn only(tests: Vec<Test>) -> Outcome {
        let [test] = <[Test; 1]>::try_from(tests).unwrap();
        test.outcome
    }

    fn failure(tests: Vec<Test>) -> String {
        match only(tests) {
            Outcome::Failed(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_test_program_speaks_for_itself() {
        let out = "running 2 tests\ntest one ... ok\ntest two ... ok\n\nsuccesses:\n\n\
                   ---- two stdout ----\nSKIPPED two: too old\n";
        let tests = libtest(&Ran::test(out, "", &[], WELL), OLD);
        assert_eq!(tests[0], Test::new("one", Outcome::Passed));
        assert_eq!(
            tests[1],
            Test::new("two", Outcome::Skipped("too old".into()))
        );
        assert_eq!(tests.len(), 2);
    }

    #[test]
    fn a_test_program_that_dies_fails() {
        let ended = |out, ended| libtest(&Ran::test(out, "", &[], ended), OLD);
        let late = ended("test one ... ok\ntest two ... \n", Some(Ended::Late(9)));
        assert_eq!(late[0].outcome, Outcome::Passed);
        let why = Outcome::Failed("not over after 9 s: killed, during two".into());
        assert_eq!(late[1].outcome, why);
        assert_eq!(failure(ended("", WELL)), "ran no test");
        assert_eq!(
            failure(ended("", Some(Ended::Exit(101)))),
            "exit status 101"
        );
        assert_eq!(failure(ended("", None)), "the machine ended first");
        // Nothing to add.
        let failed = ended("test one ... FAILED\n", Some(Ended::Exit(101)));
        assert!(matches!(only(failed), Outcome::Failed(_)));
    }

    fn stats(mode: &str) -> String {
        format!(r#"{{"engine": "kernel", "mode": "{mode}", "stopped": {{"read-fault": 3}}}}"#)
    }

    /// A recording of stacks: how many `inner` below `outer`, and how often.
    fn recorded(mode: &str, stacks: &str) -> Ran {
        Ran::test("", "", &[(FOLDED, stacks), (STATS, &stats(mode))], WELL)
    }

    fn depth(frames: usize, count: u64) -> String {
        let descend = "descend;".repeat(frames - 2);
        format!("depth;_start;libc.so.6+0x271d0;main;{descend}look;timer_[k] {count}\n")
    }

    #[test]
    fn stacks_are_counted_and_compared() {
        let run = |stacks: &str| immediate(&recorded("immediate", stacks), OLD);
        assert_eq!(only(run(&depth(40, 30))), Outcome::Passed);
        assert!(failure(run(&depth(40, 29))).starts_with("29 of 29 stacks are whole"));
        // Cut off: not whole, but not wrong.
        let cut = "depth;[cut off: page absent];descend;look 10\n";
        assert!(failure(run(&(depth(40, 30) + cut))).starts_with("30 of 40 stacks are whole"));
        // One wrong stack is one too many: too short, too long, guessed.
        for wrong in [
            depth(39, 1),
            depth(41, 1),
            depth(40, 1).replacen("descend", "main_[?]", 1),
        ] {
            let why = failure(run(&(depth(40, 1000) + &wrong)));
            assert!(why.starts_with("a wrong stack, 1 times"), "{why}");
        }
        assert!(failure(run("nonsense\n")).contains("not a stack"));
        assert!(failure(immediate(&recorded("deferred", ""), OLD)).contains("mode"));
    }

    #[test]
    fn what_cannot_be_deferred_is_refused() {
        let refused =
            |said: &str, ended| only(deferred(&Ran::test("", said, &[], Some(ended)), OLD));
        let clear = "framewalk: this kernel has no BPF task work (Linux 6.18 and later)";
        assert_eq!(refused(clear, Ended::Exit(1)), Outcome::Passed);
        assert!(matches!(
            refused("error", Ended::Exit(1)),
            Outcome::Failed(_)
        ));
        assert!(matches!(refused(clear, Ended::Exit(0)), Outcome::Failed(_)));
        assert!(matches!(
            refused(clear, Ended::Signal(6)),
            Outcome::Failed(_)
        ));
        // Where it can be, it has to be.
        let ran = recorded("deferred", &depth(40, 100));
        assert_eq!(only(deferred(&ran, NEW)), Outcome::Passed);
        assert!(matches!(only(deferred(&ran, OLD)), Outcome::Failed(_)));
        let refused = Ran::test("", clear, &[], Some(Ended::Exit(1)));
        assert!(failure(deferred(&refused, NEW)).contains(clear));
    }

    #[test]
    fn absent_pages_are_another_matter_for_each_kernel() {
        let whole = format!(
            "absent;start_thread;begin;{}spin 50\n",
            "deep;".repeat(DEEP)
        );
        let cut = "absent;[cut off: page absent];deep;deep;spin 50\n";
        assert_eq!(
            only(absent(&recorded("deferred", &whole), NEW)),
            Outcome::Passed
        );
        let why = failure(absent(&recorded("deferred", &(whole.clone() + cut)), NEW));
        assert!(why.starts_with("50 of 100"), "{why}");
        assert_eq!(
            only(absent(&recorded("immediate", cut), OLD)),
            Outcome::Passed
        );
    }
}
