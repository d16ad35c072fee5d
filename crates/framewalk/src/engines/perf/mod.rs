//! `--engine perf`: an ordinary perf_event ring whose samples bring registers and a copy of the
//! stack; the Rust walker walks the copy. It needs no privileges for a user's own processes.

use super::rings::events::{self, Events};
use super::rings::queue::Queue;
use super::rings::reader::{Reader, Round};
use super::rings::record::{self, RawSample, Record, User};
use super::rings::sys;
use super::rings::tracked::Tracked;
use super::{Counts, Engine, Settings, Target, Unavailable, perf_event};
use crate::processes::{Objects, ProcessCode, StackCopy, Tables, finish};
use crate::sample::{Frame, Place, Sample};
use anyhow::Context;
use framewalk_walk::{Origin, Start, Stop};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// The perf engine.
#[derive(Debug)]
pub struct Perf {
    target: Target,
    settings: Settings,
    events: Arc<Vec<OwnedFd>>,
    /// Rings before the start, then whoever reads them.
    rings: Vec<sys::Ring>,
    reader: Option<Reader>,
    ended: bool,
    queue: Queue,
    tracked: Tracked,
    tables: Tables,
    counts: Counts,
    throttled: u64,
    unreadable: u64,
}

impl Perf {
    /// Opens the events; nothing is sampled yet.
    pub fn open(target: &Target, settings: Settings) -> Result<Perf, Unavailable> {
        let Events {
            events,
            rings,
            kernel,
        } = events::open(target, settings)?;
        let mut counts = Counts::default();
        if !kernel {
            let note = "kernel time is not sampled (missing: CAP_PERFMON, or sysctl kernel.perf_event_paranoid <= 1)";
            counts.notes.push(note.into());
        }
        Ok(Perf {
            target: target.clone(),
            settings,
            events: Arc::new(events),
            rings,
            reader: None,
            ended: false,
            queue: Queue::default(),
            tracked: Tracked::default(),
            tables: Tables::default(),
            counts,
            throttled: 0,
            unreadable: 0,
        })
    }

    /// Queues what the reader tells.
    fn take(&mut self, round: Round) -> anyhow::Result<()> {
        match round {
            Round::Read {
                began,
                rings,
                dropped,
            } => {
                self.counts.lost += dropped;
                self.counts.bytes += rings
                    .iter()
                    .map(|ring| ring.bytes.len() as u64)
                    .sum::<u64>();
                self.queue.push(began, rings);
            }
            Round::Ended => self.ended = true,
            Round::Failed(error) => return Err(error).context("the perf ring cannot be read"),
        }
        Ok(())
    }

    /// Handles the records that are due, in the order of their time.
    fn deliver(&mut self, objects: &mut Objects, sink: &mut dyn FnMut(Sample)) {
        while let Some(due) = self.queue.pop(self.ended) {
            match record::read(due.bytes()) {
                Some(Record::Sample(sample)) => sink(self.walk(due.time, &sample, objects)),
                Some(Record::Lost(lost)) => self.counts.lost += lost,
                Some(Record::Throttled) => self.throttled += 1,
                Some(record) => self.tracked.apply(&record, objects),
                None => self.unreadable += 1,
            }
        }
    }

    fn walk(&mut self, time_ns: u64, raw: &RawSample<'_>, objects: &mut Objects) -> Sample {
        let &RawSample { pid, tid, .. } = raw;
        let comm = self.tracked.comm(pid, tid);
        let mut frames: Vec<Frame> = Vec::new();
        for (depth, &address) in raw.kernel.iter().enumerate() {
            let place = Place::Kernel(address);
            frames.push(Frame {
                place,
                origin: Origin::Kernel,
                is_return_address: depth > 0,
            });
        }
        let mappings = self.tracked.mappings(pid, tid, objects);
        let stop = match &raw.user {
            User::Registers(registers) => {
                let code = ProcessCode::new(mappings, objects, &mut self.tables);
                let stack = StackCopy::new(registers.sp, raw.stack).with_code_of(pid);
                finish(
                    Start::topmost(**registers),
                    stack,
                    code,
                    self.settings.max_frames,
                    &mut frames,
                )
            }
            User::Foreign => Stop::ForeignCode,
            // Kernel threads map nothing; others have given it up when they end.
            User::None if mappings.iter().next().is_none() => Stop::KernelThread,
            User::None => Stop::Exited,
        };
        let kernel = raw.kernel.len();
        let stop = match stop {
            // Inside execve(2) the registers are those of a program that is not there any more.
            Stop::NotCode | Stop::CopyEnded
                if kernel > 0
                    && frames.len() == kernel + 1
                    && (stop == Stop::NotCode || raw.stack.is_empty()) =>
            {
                frames.truncate(kernel);
                Stop::Exec
            }
            stop => stop,
        };
        Sample {
            pid,
            tid,
            time_ns,
            comm,
            frames,
            stop,
        }
    }
}

impl Engine for Perf {
    fn name(&self) -> &'static str {
        "perf"
    }

    fn mode(&self) -> &'static str {
        "copy"
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let rings = std::mem::take(&mut self.rings);
        self.reader =
            Some(Reader::start(rings, Arc::clone(&self.events)).context("the reading thread")?);
        if !matches!(self.target, Target::Child(_)) {
            for event in self.events.iter() {
                perf_event::enable(event).context("perf events cannot be started")?;
            }
        }
        Ok(())
    }

    fn poll(
        &mut self,
        timeout: Duration,
        objects: &mut Objects,
        sink: &mut dyn FnMut(Sample),
    ) -> anyhow::Result<bool> {
        if let Target::Pids(pids) = std::mem::replace(&mut self.target, Target::System) {
            // Now that changes are recorded, what was there before.
            for pid in pids {
                self.tracked.mappings(pid, pid, objects);
            }
        }
        let reader = self.reader.take().context("not started")?;
        let mut round = reader.rounds().recv_timeout(timeout);
        while let Ok(told) = round {
            self.take(told)?;
            round = reader
                .rounds()
                .try_recv()
                .map_err(|_| RecvTimeoutError::Timeout);
        }
        self.reader = Some(reader);
        self.deliver(objects, sink);
        Ok(!self.ended)
    }

    fn finish(
        &mut self,
        objects: &mut Objects,
        sink: &mut dyn FnMut(Sample),
    ) -> anyhow::Result<Counts> {
        for event in self.events.iter() {
            // It can only fail for a thread that has ended.
            let _ = perf_event::disable(event);
        }
        if let Some(mut reader) = self.reader.take() {
            reader.stop();
            while let Ok(round) = reader.rounds().recv() {
                self.take(round)?;
            }
        }
        self.ended = true;
        self.deliver(objects, sink);
        let mut counts = std::mem::take(&mut self.counts);
        if self.throttled > 0 {
            let sysctl =
                "sysctl kernel.perf_cpu_time_max_percent, kernel.perf_event_max_sample_rate";
            counts.notes.push(format!(
                "the kernel throttled sampling {} times ({sysctl})",
                self.throttled
            ));
        }
        if self.unreadable > 0 {
            counts.notes.push(format!(
                "{} records of the perf ring could not be read",
                self.unreadable
            ));
        }
        counts.notes.extend(self.tables.notes(objects));
        Ok(counts)
    }
}
