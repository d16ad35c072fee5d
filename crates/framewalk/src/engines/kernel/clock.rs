//! The events that tick, and whether whom they tick for still lives.

use super::super::rings::events;
use super::super::{Target, Unavailable, perf_event};
use crate::processes::task;
use framewalk_kernel::Sampler;
use perf_event_open_sys::bindings::{
    PERF_COUNT_SW_CONTEXT_SWITCHES, PERF_COUNT_SW_CPU_CLOCK, PERF_TYPE_SOFTWARE, perf_event_attr,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// When to sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engines) enum Tick {
    /// So often per second and CPU of running threads.
    Clock(u32),
    /// Whenever a thread leaves its CPU: a thread that is stepped does at each instruction.
    Switch,
}

/// The sampling clock of a recording.
#[derive(Default)]
pub(super) struct Clock {
    /// Duplicates of the events that the sampler holds.
    events: Vec<OwnedFd>,
    /// The processes; none when recording everybody.
    processes: Vec<OwnedFd>,
    /// An exec starts the events.
    on_exec: bool,
    everybody: bool,
}

impl Clock {
    /// Opens the events, stopped, with the sampler on each.
    pub(super) fn open(
        target: &Target,
        tick: Tick,
        sampler: &mut Sampler,
    ) -> Result<Clock, Unavailable> {
        let mut attr = perf_event_attr {
            type_: PERF_TYPE_SOFTWARE,
            ..Default::default()
        };
        match tick {
            Tick::Clock(frequency) => {
                attr.config = PERF_COUNT_SW_CPU_CLOCK.into();
                attr.__bindgen_anon_1.sample_freq = frequency.into();
                attr.set_freq(1);
            }
            Tick::Switch => {
                attr.config = PERF_COUNT_SW_CONTEXT_SWITCHES.into();
                attr.__bindgen_anon_1.sample_period = 1;
            }
        }
        attr.set_disabled(1);
        let mut clock = Clock::default();
        let mut where_to = Vec::new();
        match target {
            Target::System => {
                clock.everybody = true;
                attr.set_exclude_idle(1);
                where_to.extend(
                    events::online_cpus()
                        .map_err(|e| unavailable("/sys/devices/system/cpu/online", &e))?
                        .into_iter()
                        .map(|cpu| (-1, cpu)),
                );
            }
            Target::Child(pid) => {
                clock.on_exec = true;
                attr.set_inherit(1);
                attr.set_enable_on_exec(1);
                where_to.push((*pid as i32, -1));
                clock.watch(*pid)?;
            }
            Target::Pids(pids) => {
                attr.set_inherit(1);
                for pid in pids {
                    clock.watch(*pid)?;
                    where_to.extend(
                        task::threads(*pid)
                            .into_iter()
                            .map(|tid| (tid.cast_signed(), -1)),
                    );
                }
            }
        }
        for (pid, cpu) in where_to {
            let event = match perf_event::open(&attr, pid, cpu) {
                Ok(event) => event,
                // A thread that ended meanwhile.
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) =>
                {
                    continue;
                }
                Err(error) => return Err(unavailable("perf_event_open", &error)),
            };
            let ours = event.try_clone().map_err(|e| unavailable("dup", &e))?;
            sampler.attach(event).map_err(|error| Unavailable {
                what: error.to_string(),
                missing: super::missing(),
            })?;
            // Attaching starts the event; it is not yet time.
            perf_event::disable(&ours).map_err(|e| unavailable("PERF_EVENT_IOC_DISABLE", &e))?;
            clock.events.push(ours);
        }
        Ok(clock)
    }

    fn watch(&mut self, pid: u32) -> Result<(), Unavailable> {
        let process = Pid::from_raw(pid as i32).ok_or_else(|| Unavailable {
            what: format!("{pid} is no process id"),
            missing: "a process with this id".into(),
        })?;
        let fd = pidfd_open(process, PidfdFlags::empty()).map_err(|error| Unavailable {
            what: format!("process {pid}: {error}"),
            missing: format!("a running process {pid}"),
        })?;
        self.processes.push(fd);
        Ok(())
    }

    pub(super) fn start(&self) -> io::Result<()> {
        match self.on_exec {
            true => Ok(()),
            false => self.events.iter().try_for_each(perf_event::enable),
        }
    }

    /// Stops ticking. An event that cannot be stopped goes when the sampler lets go of it.
    pub(super) fn stop(&mut self) {
        for event in self.events.drain(..) {
            let _ = perf_event::disable(&event);
        }
    }

    /// Whether any of the processes still runs.
    pub(super) fn target_lives(&self) -> bool {
        self.everybody
            || self.processes.iter().any(|process| {
                let mut fds = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
                // A pidfd becomes readable when its process ends (pidfd_open(2)).
                !matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1))
            })
    }
}

fn unavailable(what: &str, error: &io::Error) -> Unavailable {
    Unavailable {
        what: format!("{what}: {error}"),
        missing: super::missing(),
    }
}
