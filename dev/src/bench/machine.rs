//! The machine that is measured on.

use std::fs;

/// Says what it is.
pub(super) fn describe() {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find(|line| line.starts_with("model name"));
    let model = model
        .and_then(|line| line.split_once(": "))
        .map_or("?", |(_, name)| name);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{model}, {cpus} CPUs, Linux {}",
        read("/proc/sys/kernel/osrelease").trim()
    );
    println!("load before: {}", read("/proc/loadavg").trim());
}

/// A sysctl that is something else for a while; set back when dropped.
pub(super) struct Sysctl {
    path: &'static str,
    before: String,
}

/// Allows this sampling rate, and no throttling of it.
pub(super) fn allow_rate(frequency: u32) -> Result<Vec<Sysctl>, String> {
    const RATE: &str = "/proc/sys/kernel/perf_event_max_sample_rate";
    const SHARE: &str = "/proc/sys/kernel/perf_cpu_time_max_percent";
    let mut changed = Vec::new();
    let rate = fs::read_to_string(RATE).map_err(|error| format!("{RATE}: {error}"))?;
    if rate.trim().parse().is_ok_and(|rate: u32| rate < frequency) {
        changed.push(Sysctl::set(RATE, &frequency.to_string())?);
    }
    // In this order: without throttling the rate cannot be set. They are set back the other way round.
    changed.insert(0, Sysctl::set(SHARE, "0")?);
    Ok(changed)
}

/// Whether somebody wants the bench to end (SIGINT, SIGTERM): there are things to set back before.
pub(super) fn stopped() -> Result<(), String> {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, LazyLock};
    static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&stop)) {
                eprintln!("signal {signal} will not be heard: {error}");
            }
        }
        stop
    });
    match STOP.load(Ordering::Relaxed) {
        true => Err("stopped by a signal".into()),
        false => Ok(()),
    }
}

impl Sysctl {
    fn set(path: &'static str, value: &str) -> Result<Sysctl, String> {
        let fail = |error| format!("{path}: {error}");
        let before = fs::read_to_string(path).map_err(fail)?;
        fs::write(path, value).map_err(fail)?;
        Ok(Sysctl { path, before })
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        if let Err(error) = fs::write(self.path, &self.before) {
            eprintln!(
                "{} could not be set back to {}: {error}",
                self.path,
                self.before.trim()
            );
        }
    }
}

/// The CPU for what is measured: the last one. Everything else, from now on, runs on the others.
pub(super) fn reserve_cpu() -> Result<usize, String> {
    use rustix::thread::{sched_getaffinity, sched_setaffinity};
    let all = sched_getaffinity(None).map_err(|error| format!("sched_getaffinity: {error}"))?;
    let cpus: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|&cpu| all.is_set(cpu))
        .collect();
    let Some((&reserved, others)) = cpus.split_last() else {
        return Err("no CPU".into());
    };
    if !others.is_empty() {
        let mut rest = all;
        rest.unset(reserved);
        sched_setaffinity(None, &rest).map_err(|error| format!("sched_setaffinity: {error}"))?;
    }
    Ok(reserved)
}
