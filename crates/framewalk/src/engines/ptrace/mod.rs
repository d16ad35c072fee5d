//! `--engine ptrace`: for containers where perf events are denied. At the rate, every thread that
//! runs is stopped for an instant, its stack is walked, and it goes on.
//!
//! ```text
//! running --tick: interrupt--> stops --walk--> resumed
//!         --signal, clone, exec--> stops --passed on--> resumed
//!         --announcement--> stops --answered--> resumed
//!         --group-stop--> stays stopped (listening) until SIGCONT
//! ```
//!
//! A command that is started for it also has its announcements answered (`announcing.rs`): it runs under a
//! seccomp filter that stops it before those calls.
//!
//! A thread is only interrupted while it runs, so that hardly a system call is disturbed; those that
//! ptrace(2) names under "BUGS" may return EINTR where one is.

mod announcing;
mod memory;
mod sys;
mod tracees;

use super::{Counts, Engine, Settings, Target, Unavailable};
use crate::processes::{CurrentMappings, Objects, ProcessCode, Tables, walk_process};
use crate::sample::Sample;
use announcing::Announcing;
use framewalk_walk::{Start, Stop};
use memory::LiveMemory;
use rustix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tracees::{Told, Tracees};

/// How often to look which threads have ended: nobody waits for that.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The ptrace engine. All its calls must come from one thread: that one is the tracer.
#[derive(Debug)]
pub struct Ptrace {
    settings: Settings,
    tracees: Tracees,
    /// When the next samples are due; none before the start.
    next_tick: Option<Instant>,
    /// When to look next which threads have ended.
    next_look: Instant,
    mappings: HashMap<u32, CurrentMappings>,
    tables: Tables,
    announcing: Announcing,
    memory: LiveMemory,
    counts: Counts,
}

impl Ptrace {
    /// Begins to trace the target, which runs on meanwhile.
    pub fn open(target: &Target, settings: Settings) -> Result<Ptrace, Unavailable> {
        let (pids, from_exec) = match target {
            Target::Pids(pids) => (&pids[..], false),
            Target::Child(pid) => (std::slice::from_ref(pid), true),
            Target::System => {
                return Err(Unavailable {
                    what: "ptrace cannot record a whole machine".into(),
                    missing: "the kernel or perf engine".into(),
                });
            }
        };
        let tracees = Tracees::seize(pids, from_exec)?;
        Ok(Ptrace {
            settings,
            tracees,
            next_tick: None,
            next_look: Instant::now(),
            mappings: HashMap::new(),
            tables: Tables::default(),
            announcing: Announcing::default(),
            memory: LiveMemory::new(),
            counts: Counts::default(),
        })
    }

    /// Interrupts whatever runs, if it is time to.
    fn tick(&mut self) {
        let now = Instant::now();
        let period = Duration::from_secs(1) / self.settings.frequency.max(1);
        let Some(due) = self.next_tick.filter(|&due| due <= now) else {
            return;
        };
        let late =
            u32::try_from((now - due).as_nanos() / period.as_nanos().max(1)).unwrap_or(u32::MAX);
        self.next_tick = due.checked_add(period.saturating_mul(late.saturating_add(1)));
        let interrupted = self.tracees.interrupt_running();
        // What ran before now at these times nobody knows; as many as now is the best estimate.
        self.counts.lost += u64::from(late) * interrupted;
    }

    /// Handles what threads have to tell, until nothing is left (true) or it is time to sample: threads
    /// that announce all the time must not keep it from that.
    fn handle(&mut self, objects: &mut Objects, sink: &mut dyn FnMut(Sample)) -> bool {
        let due = self.next_tick;
        let mut drained = true;
        while let Some((tid, told)) = self.tracees.hear() {
            match told {
                Told::Stopped { pid, comm } => {
                    match self.sample(pid, tid, comm, objects) {
                        Some(sample) => sink(sample),
                        None => self.counts.lost += 1,
                    }
                    self.tracees.resume(tid);
                }
                Told::Exec { pid } => {
                    self.mappings.remove(&pid);
                    self.announcing.exec(pid);
                }
                Told::Created {
                    parent,
                    child,
                    shares,
                } => {
                    self.announcing.created(parent, child, shares);
                    self.tracees.let_begin(child);
                }
                Told::Filtered { pid } => {
                    self.announcing.answer(pid, tid);
                    self.tracees.resume(tid);
                }
                Told::Other => {}
            }
            if due.is_some_and(|due| due <= Instant::now()) {
                drained = false;
                break;
            }
        }
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + LOOK_EVERY;
            for pid in self.tracees.forget_ended() {
                self.mappings.remove(&pid);
                self.announcing.exit(pid);
            }
        }
        drained
    }

    /// Walks the stack of a stopped thread. None if it cannot be looked at: it was killed meanwhile.
    fn sample(
        &mut self,
        pid: u32,
        tid: u32,
        comm: String,
        objects: &mut Objects,
    ) -> Option<Sample> {
        let now = clock_gettime(ClockId::Monotonic);
        let time_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        let registers = sys::registers(tid).ok()?;
        let mut frames = Vec::new();
        let Some(registers) = registers else {
            return Some(Sample {
                pid,
                tid,
                time_ns,
                comm,
                frames,
                stop: Stop::ForeignCode,
            });
        };
        let current = self.mappings.entry(pid).or_default();
        let memory = self.memory.of(pid);
        let mut fresh = false;
        // It is walked by the mappings as they were read last. If one that was used is another by now,
        // they are read, and it is walked again.
        let stop = loop {
            let code = ProcessCode::new(current.mappings(), objects, &mut self.tables);
            let code = code.with_current(current);
            let mut code = code.with_announced(self.announcing.code(pid, tid));
            let start = Start::topmost(registers);
            let stop = walk_process(
                start,
                memory,
                &mut code,
                self.settings.max_frames,
                &mut frames,
            );
            let as_read = fresh || current.are_as_read(code.asked());
            drop(code);
            if as_read {
                break stop;
            }
            current.read(pid, objects).ok()?;
            frames.clear();
            fresh = true;
        };
        self.announcing.name(&mut frames, &mut objects.generated);
        Some(Sample {
            pid,
            tid,
            time_ns,
            comm,
            frames,
            stop,
        })
    }
}

impl Engine for Ptrace {
    fn name(&self) -> &'static str {
        "ptrace"
    }

    fn mode(&self) -> &'static str {
        "stopped"
    }

    fn answers_announcements(&self) -> bool {
        true
    }

    fn start(&mut self) -> anyhow::Result<()> {
        self.next_tick = Some(Instant::now());
        Ok(())
    }

    fn poll(
        &mut self,
        timeout: Duration,
        objects: &mut Objects,
        sink: &mut dyn FnMut(Sample),
    ) -> anyhow::Result<bool> {
        let end = Instant::now() + timeout;
        loop {
            let drained = self.handle(objects, sink);
            if self.tracees.is_empty() {
                return Ok(false);
            }
            self.tick();
            if Instant::now() >= end {
                return Ok(true);
            }
            if drained {
                self.tracees
                    .wait_until(self.next_tick.map_or(end, |tick| tick.min(end)))?;
            }
        }
    }

    fn finish(
        &mut self,
        objects: &mut Objects,
        _sink: &mut dyn FnMut(Sample),
    ) -> anyhow::Result<Counts> {
        self.next_tick = None;
        let left = self.tracees.detach();
        let mut counts = std::mem::take(&mut self.counts);
        if left > 0 {
            counts.notes.push(format!(
                "{left} threads did not stop to be let go; they are when this program ends"
            ));
        }
        counts.notes.extend(self.announcing.notes());
        counts.notes.extend(self.tables.notes(objects));
        Ok(counts)
    }
}
