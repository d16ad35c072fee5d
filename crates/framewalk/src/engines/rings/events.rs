//! Which events are opened, and what is missing where they cannot be.

use super::record::USER_REGISTERS;
use super::sys::{self, Ring};
use crate::engines::{Settings, Target, Unavailable, perf_event};
use crate::processes::task;
use perf_event_open_sys::bindings::{self, perf_event_attr};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// What is tried: bytes of a ring, and bytes of stack to be copied with every sample
/// (perf_event_open(2): a multiple of 8 below 65,535). Without privileges all rings of a user
/// together may have kernel.perf_event_mlock_kb (516 KiB by default) for every CPU, and
/// RLIMIT_MEMLOCK more. A ring has to hold some samples, or they are lost.
const RINGS: [(usize, u32); 8] = [
    (8 << 20, 65_528),
    (4 << 20, 65_528),
    (2 << 20, 32 << 10),
    (1 << 20, 32 << 10),
    (512 << 10, 32 << 10),
    (256 << 10, 16 << 10),
    (128 << 10, 8 << 10),
    (64 << 10, 8 << 10),
];
const CLOCK_MONOTONIC: i32 = 1;
/// Whom an event counts (perf_event_open(2)); other numbers are threads.
const ME: i32 = 0;
const EVERYBODY: i32 = -1;

/// Everything that samples.
#[derive(Debug)]
pub(in crate::engines) struct Events {
    /// One per thread and CPU, or one per CPU.
    pub(in crate::engines) events: Vec<OwnedFd>,
    /// One per CPU.
    pub(in crate::engines) rings: Vec<Ring>,
    /// Time inside the kernel is sampled too.
    pub(in crate::engines) kernel: bool,
}

/// Opens disabled events on the target, which [`perf_event::enable`] starts; those on a child start by
/// themselves at its exec.
pub(in crate::engines) fn open(target: &Target, settings: Settings) -> Result<Events, Unavailable> {
    let cpus = online_cpus().map_err(|error| no_cpus(&error))?;
    let (rings, stack_bytes) = rings(&cpus, settings)?;
    let targets = targets(target);
    // With the kernel's side, and on the clock that counts it, as far as that is allowed.
    let clocks = [
        bindings::PERF_COUNT_SW_CPU_CLOCK,
        bindings::PERF_COUNT_SW_TASK_CLOCK,
    ];
    let mut refused = None;
    for (kernel, clock) in [true, false]
        .into_iter()
        .flat_map(|kernel| clocks.map(|clock| (kernel, clock)))
    {
        let mut attr = sampling(settings, stack_bytes, kernel, u64::from(clock));
        attr.set_inherit(u64::from(!matches!(target, Target::System)));
        attr.set_enable_on_exec(u64::from(matches!(target, Target::Child(_))));
        match open_all(&attr, &targets, &cpus, &rings) {
            Ok(events) if events.is_empty() => {
                refused = None;
                break;
            }
            Ok(events) => {
                return Ok(Events {
                    events,
                    rings,
                    kernel,
                });
            }
            Err(error) => refused = Some(error),
        }
    }
    Err(match refused {
        Some(error) => unavailable(&error, target, settings),
        None => Unavailable {
            what: "the process has ended".into(),
            missing: "a running process".into(),
        },
    })
}

/// Opens the side band alone: events that never sample and tell of mappings, threads and programs.
pub(in crate::engines) fn follow(
    target: &Target,
    settings: Settings,
) -> Result<Events, Unavailable> {
    let cpus = online_cpus().map_err(|error| no_cpus(&error))?;
    let (rings, _) = rings(&cpus, settings)?;
    let mut attr = common();
    attr.config = u64::from(bindings::PERF_COUNT_SW_DUMMY);
    attr.sample_type = u64::from(bindings::PERF_SAMPLE_TID | bindings::PERF_SAMPLE_TIME);
    attr.set_inherit(u64::from(!matches!(target, Target::System)));
    attr.set_enable_on_exec(u64::from(matches!(target, Target::Child(_))));
    tell(&mut attr);
    let events = open_all(&attr, &targets(target), &cpus, &rings)
        .map_err(|error| unavailable(&error, target, settings))?;
    Ok(Events {
        events,
        rings,
        kernel: true,
    })
}

fn no_cpus(error: &io::Error) -> Unavailable {
    Unavailable {
        what: format!("/sys/devices/system/cpu/online: {error}"),
        missing: "a mounted /sys".into(),
    }
}

/// Asks an event for the side band.
fn tell(attr: &mut perf_event_attr) {
    attr.set_sample_id_all(1);
    attr.set_mmap(1);
    attr.set_mmap2(1);
    attr.set_comm(1);
    attr.set_comm_exec(1);
    attr.set_task(1);
}

/// What every event has in common.
fn common() -> perf_event_attr {
    let mut attr = perf_event_attr {
        type_: bindings::PERF_TYPE_SOFTWARE,
        ..Default::default()
    };
    attr.set_disabled(1);
    attr.set_exclude_hv(1);
    attr.set_use_clockid(1);
    attr.clockid = CLOCK_MONOTONIC;
    attr.set_watermark(1);
    attr
}

/// The event that samples.
fn sampling(settings: Settings, stack_bytes: u32, kernel: bool, clock: u64) -> perf_event_attr {
    let mut attr = common();
    attr.config = clock;
    attr.set_freq(1);
    attr.__bindgen_anon_1.sample_freq = settings.frequency.into();
    attr.sample_type = u64::from(
        bindings::PERF_SAMPLE_IP
            | bindings::PERF_SAMPLE_TID
            | bindings::PERF_SAMPLE_TIME
            | bindings::PERF_SAMPLE_CALLCHAIN
            | bindings::PERF_SAMPLE_REGS_USER
            | bindings::PERF_SAMPLE_STACK_USER,
    );
    attr.sample_regs_user = USER_REGISTERS;
    attr.sample_stack_user = stack_bytes;
    attr.set_exclude_callchain_user(1);
    attr.set_exclude_callchain_kernel(u64::from(!kernel));
    attr.set_exclude_kernel(u64::from(!kernel));
    attr.set_exclude_idle(1);
    tell(&mut attr);
    attr
}

/// One ring for each CPU. An event of their own that never counts anything holds them, so that
/// they outlive every thread of the target. Answers too how much stack may be copied.
fn rings(cpus: &[i32], settings: Settings) -> Result<(Vec<Ring>, u32), Unavailable> {
    let mut error = io::Error::from(Errno::NOMEM);
    for (size, stack_bytes) in RINGS {
        let map = |&cpu: &i32| {
            let mut attr = common();
            attr.config = u64::from(bindings::PERF_COUNT_SW_DUMMY);
            attr.set_exclude_kernel(1);
            attr.__bindgen_anon_2.wakeup_watermark = (size / 4) as u32;
            Ring::map(perf_event::open(&attr, ME, cpu)?, size)
        };
        match cpus.iter().map(map).collect::<io::Result<Vec<_>>>() {
            Ok(rings) => return Ok((rings, stack_bytes)),
            Err(e) if !matches!(Errno::from_io_error(&e), Some(Errno::PERM | Errno::NOMEM)) => {
                return Err(unavailable(&e, &Target::Pids(Vec::new()), settings));
            }
            Err(e) => error = e,
        }
    }
    Err(Unavailable {
        what: format!("perf_event_open: no ring buffer: {error}"),
        missing: "CAP_IPC_LOCK, or a larger sysctl kernel.perf_event_mlock_kb or RLIMIT_MEMLOCK"
            .into(),
    })
}

/// Whom to open events on: every thread that exists now; later ones inherit.
fn targets(target: &Target) -> Vec<i32> {
    match target {
        Target::System => vec![EVERYBODY],
        Target::Child(pid) => vec![pid.cast_signed()],
        Target::Pids(pids) => pids
            .iter()
            .flat_map(|pid| task::threads(*pid))
            .map(u32::cast_signed)
            .collect(),
    }
}

fn open_all(
    attr: &perf_event_attr,
    targets: &[i32],
    cpus: &[i32],
    rings: &[Ring],
) -> io::Result<Vec<OwnedFd>> {
    let mut events = Vec::new();
    for &who in targets {
        for (&cpu, ring) in cpus.iter().zip(rings) {
            let event = match perf_event::open(attr, who, cpu) {
                Err(error)
                    if Errno::from_io_error(&error) == Some(Errno::MFILE) && raise_file_limit() =>
                {
                    perf_event::open(attr, who, cpu)
                }
                event => event,
            };
            match event {
                Ok(event) => {
                    sys::set_output(&event, ring)?;
                    events.push(event);
                }
                // The thread ended, or the CPU went offline.
                Err(error)
                    if matches!(
                        Errno::from_io_error(&error),
                        Some(Errno::SRCH | Errno::NODEV)
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(events)
}

/// Lifts the soft limit of open files to the hard one; false where it is there already.
fn raise_file_limit() -> bool {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    current != maximum
        && setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        )
        .is_ok()
}

/// Names what would make it work.
fn unavailable(error: &io::Error, target: &Target, settings: Settings) -> Unavailable {
    let sysctl = |name: &str| {
        let text = fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).ok()?;
        text.trim().parse::<i64>().ok()
    };
    // From kernel/events/core.c: 1 and above forbid events on whole CPUs, some distributions' 3 and
    // above forbid everything.
    let allowed = if matches!(target, Target::System) {
        0
    } else {
        2
    };
    let paranoid = sysctl("perf_event_paranoid");
    let missing = match (Errno::from_io_error(error), paranoid) {
        (Some(Errno::ACCESS | Errno::PERM), Some(now)) if now > allowed => {
            format!("CAP_PERFMON, or sysctl kernel.perf_event_paranoid <= {allowed} (now {now})")
        }
        (Some(Errno::ACCESS), _) => "CAP_PERFMON, or a process of the same user".into(),
        (Some(Errno::PERM), _) => "a sandbox (seccomp) that permits perf_event_open".into(),
        (Some(Errno::INVAL), _) => match sysctl("perf_event_max_sample_rate") {
            Some(now) if now < settings.frequency.into() => {
                format!(
                    "sysctl kernel.perf_event_max_sample_rate >= {} (now {now})",
                    settings.frequency
                )
            }
            _ => "a kernel that copies user stacks with samples".into(),
        },
        (Some(Errno::MFILE), _) => "a higher limit of open files (RLIMIT_NOFILE)".into(),
        _ => "a kernel with perf events (CONFIG_PERF_EVENTS)".into(),
    };
    Unavailable {
        what: format!("perf_event_open: {error}"),
        missing,
    }
}

/// The numbers of the CPUs that are online: `0-3,8`.
pub(in crate::engines) fn online_cpus() -> io::Result<Vec<i32>> {
    parse_cpus(fs::read_to_string("/sys/devices/system/cpu/online")?.trim())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_cpus(list: &str) -> Option<Vec<i32>> {
    let mut cpus = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        cpus.extend((first..=last).map(i32::from));
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpus("0"), Some(vec![0]));
        assert_eq!(parse_cpus("0-2,5,8-9"), Some(vec![0, 1, 2, 5, 8, 9]));
        assert_eq!(parse_cpus("0-x"), None);
        assert_eq!(parse_cpus(""), None);
        assert_eq!(parse_cpus("0-4294967295"), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let settings = Settings {
            frequency: u32::MAX,
            max_frames: 510,
        };
        let name = |errno: Errno| unavailable(&errno.into(), &Target::System, settings).missing;
        assert!(name(Errno::INVAL).contains("perf_event_max_sample_rate >= 4294967295 (now "));
        assert!(name(Errno::MFILE).contains("RLIMIT_NOFILE"));
        assert!(name(Errno::NOSYS).contains("CONFIG_PERF_EVENTS"));
        assert!(name(Errno::ACCESS).contains("CAP_PERFMON"));
    }
}
