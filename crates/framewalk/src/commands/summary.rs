//! What a recording came to: one line for people, JSON for programs.

use crate::engines::Counts;
use crate::profile::Profile;
use framewalk_walk::{Origin, Stop};
use serde_json::{Map, Value, json};
use std::fmt;
use std::time::Duration;

/// Counts of one recording.
#[derive(Debug)]
pub(super) struct Summary<'a> {
    profile: &'a Profile,
    counts: &'a Counts,
    engine: &'static str,
    mode: &'static str,
    duration: Duration,
    /// CPU time of the recorder itself.
    pub(super) cpu: Duration,
}

/// The share of complete stacks among the samples that have a user stack.
pub(super) fn share(profile: &Profile) -> String {
    let complete = profile.stopped(Stop::Outermost);
    let all = profile.samples().len() as u64 - without_user_stack(profile);
    if all == 0 {
        return "no user stacks".to_string();
    }
    // Rounded down: 100 % means all of them.
    let tenths = complete * 1000 / all;
    format!("{}.{} % complete", tenths / 10, tenths % 10)
}

fn without_user_stack(profile: &Profile) -> u64 {
    let without = Stop::ALL.iter().filter(|stop| stop.without_user_stack());
    without.map(|&stop| profile.stopped(stop)).sum()
}

impl<'a> Summary<'a> {
    pub(super) fn new(
        profile: &'a Profile,
        counts: &'a Counts,
        engine: &'static str,
        mode: &'static str,
        duration: Duration,
    ) -> Self {
        Summary {
            profile,
            counts,
            engine,
            mode,
            duration,
            cpu: Duration::ZERO,
        }
    }

    fn samples(&self) -> u64 {
        self.profile.samples().len() as u64
    }

    /// What a title line has room for.
    pub(super) fn short(&self, frequency: u32) -> String {
        let seconds = self.duration.as_secs_f64();
        format!(
            "{} samples at {frequency} Hz in {seconds:.1} s, {}",
            self.samples(),
            share(self.profile)
        )
    }

    /// The counts as JSON. `complete` and all of `stopped` add up to `samples`.
    pub(super) fn stats(&self) -> Value {
        let ended = |stop: &&Stop| **stop != Stop::Outermost && self.profile.stopped(**stop) > 0;
        let stopped = Stop::ALL.iter().filter(ended);
        let stopped: Map<_, _> = stopped
            .map(|&stop| (stop.name().to_string(), self.profile.stopped(stop).into()))
            .collect();
        let origins = Origin::ALL
            .iter()
            .filter(|&&origin| self.profile.origins(origin) > 0);
        let origins: Map<_, _> = origins
            .map(|&origin| {
                (
                    origin.name().to_string(),
                    self.profile.origins(origin).into(),
                )
            })
            .collect();
        let described = self.profile.described();
        json!({
            "samples": self.samples(),
            "complete": self.profile.stopped(Stop::Outermost),
            "lost": self.counts.lost,
            "frames": self.profile.frame_count(),
            "stopped": stopped,
            "origins": origins,
            "described": {
                "frames": described.frames,
                "runtime_frames": described.runtime_frames,
                "names": self.profile.described_names(),
            },
            "unique_stacks": self.profile.unique_stacks(),
            "kernel": { "run_ns": self.counts.kernel_run_ns, "run_cnt": self.counts.kernel_run_cnt },
            "bytes": self.counts.bytes,
            "seconds": self.duration.as_secs_f64(),
            "cpu_seconds": self.cpu.as_secs_f64(),
            "engine": self.engine,
            "mode": self.mode,
            "notes": self.counts.notes,
        })
    }
}

/// `4985 samples, 99.8 % complete (5 no unwind data for this pc), 0 lost, 4.9 us each in the kernel`
impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let samples = self.samples();
        if samples == 0 {
            write!(f, "no samples: nothing ran on a CPU while recording")?;
        } else {
            write!(f, "{samples} samples, {}", share(self.profile))?;
        }
        let mut reasons: Vec<_> = Stop::ALL
            .iter()
            .filter(|&&stop| stop != Stop::Outermost && !stop.without_user_stack())
            .map(|&stop| (self.profile.stopped(stop), stop.text()))
            .filter(|&(count, _)| count > 0)
            .collect();
        reasons.sort_by_key(|&(count, _)| std::cmp::Reverse(count));
        if !reasons.is_empty() {
            let reasons: Vec<_> = reasons
                .iter()
                .map(|(count, text)| format!("{count}: {text}"))
                .collect();
            write!(f, " ({})", reasons.join("; "))?;
        }
        let without = without_user_stack(self.profile);
        if without > 0 {
            write!(f, ", {without} of them without a user stack")?;
        }
        write!(f, ", {} lost", self.counts.lost)?;
        if self.counts.kernel_run_ns > 0 && samples > 0 {
            write!(
                f,
                ", {:.1} us each in the kernel",
                self.counts.kernel_run_ns as f64 / 1000.0 / samples as f64
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    fn profile(stops: &[Stop]) -> Profile {
        let mut profile = Profile::default();
        for &stop in stops {
            profile.add(Sample {
                pid: 1,
                tid: 1,
                time_ns: 0,
                comm: "a".into(),
                frames: vec![],
                stop,
            });
        }
        profile
    }

    #[test]
    fn kernel_threads_are_told_apart() {
        let profile = profile(&[
            Stop::Outermost,
            Stop::Outermost,
            Stop::KernelThread,
            Stop::NoRow,
        ]);
        let counts = Counts {
            lost: 2,
            kernel_run_ns: 10_000,
            ..Counts::default()
        };
        let summary = Summary::new(
            &profile,
            &counts,
            "kernel",
            "deferred",
            Duration::from_secs(1),
        );
        assert_eq!(
            summary.to_string(),
            "4 samples, 66.6 % complete (1: no unwind data for this pc), 1 of them without a user stack, 2 lost, \
             2.5 us each in the kernel"
        );
        let stats = summary.stats();
        let stopped: u64 = stats["stopped"]
            .as_object()
            .unwrap()
            .values()
            .map(|n| n.as_u64().unwrap())
            .sum();
        assert_eq!(stats["complete"].as_u64().unwrap() + stopped, 4);
        assert_eq!(stats["stopped"]["kernel-thread"], 1);
        assert_eq!(
            (&stats["engine"], &stats["mode"]),
            (&json!("kernel"), &json!("deferred"))
        );
    }

    #[test]
    fn nothing_recorded_is_said() {
        let (profile, counts) = (profile(&[]), Counts::default());
        let summary = Summary::new(&profile, &counts, "perf", "copy", Duration::ZERO);
        assert!(summary.to_string().starts_with("no samples"));
    }

    #[test]
    fn a_share_is_never_rounded_up_to_all() {
        let mut stops = vec![Stop::Outermost; 9_999];
        stops.push(Stop::Loop);
        let (profile, counts) = (profile(&stops), Counts::default());
        let summary = Summary::new(&profile, &counts, "perf", "copy", Duration::ZERO);
        assert!(summary.to_string().contains("99.9 % complete"), "{summary}");
    }
}
