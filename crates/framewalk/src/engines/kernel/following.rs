//! What the target does meanwhile: the side band of perf rings, in the order of time.

use super::super::rings::events::{self, Events};
use super::super::rings::queue::Queue;
use super::super::rings::reader::{Reader, Round};
use super::super::rings::record::{self, Record};
use super::super::rings::sys::Ring;
use super::super::rings::tracked::Tracked;
use super::super::{Settings, Target, Unavailable, perf_event};
use crate::processes::Objects;
use anyhow::Context;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The side band of a target.
pub(super) struct Following {
    events: Arc<Vec<OwnedFd>>,
    /// Rings before the start, then whoever reads them.
    rings: Vec<Ring>,
    reader: Option<Reader>,
    queue: Queue,
    tracked: Tracked,
    on_exec: bool,
    /// Processes that ran before: their mappings are read once changes are recorded.
    existing: Vec<u32>,
    ended: bool,
    /// Records that are known to be lost: mappings may be incomplete.
    pub(super) lost: u64,
}

impl Following {
    pub(super) fn open(target: &Target, settings: Settings) -> Result<Following, Unavailable> {
        let Events { events, rings, .. } = events::follow(target, settings)?;
        Ok(Following {
            events: Arc::new(events),
            rings,
            reader: None,
            queue: Queue::default(),
            tracked: Tracked::default(),
            on_exec: matches!(target, Target::Child(_)),
            existing: match target {
                Target::Pids(pids) => pids.clone(),
                Target::Child(_) | Target::System => Vec::new(),
            },
            ended: false,
            lost: 0,
        })
    }

    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        let rings = std::mem::take(&mut self.rings);
        self.reader =
            Some(Reader::start(rings, Arc::clone(&self.events)).context("the reading thread")?);
        if !self.on_exec {
            for event in self.events.iter() {
                perf_event::enable(event).context("perf events cannot be started")?;
            }
        }
        Ok(())
    }

    /// Takes in what has happened. `due` is told each time up to which everything before is known, in
    /// ascending order, and may ask for mappings as they were then. True when all is known.
    pub(super) fn advance(
        &mut self,
        objects: &mut Objects,
        mut due: impl FnMut(u64, &mut Tracked, &mut Objects),
    ) -> anyhow::Result<bool> {
        for pid in self.existing.drain(..) {
            self.tracked.mappings(pid, pid, objects);
        }
        while let Some(Ok(round)) = self
            .reader
            .as_ref()
            .map(|reader| reader.rounds().try_recv())
        {
            self.take(round)?;
        }
        while let Some(record) = self.queue.pop(self.ended) {
            due(record.time, &mut self.tracked, objects);
            match record::read(record.bytes()) {
                Some(Record::Lost(lost)) => self.lost += lost,
                Some(record) => self.tracked.apply(&record, objects),
                None => self.lost += 1,
            }
        }
        let known = if self.ended {
            u64::MAX
        } else {
            self.queue.settled()
        };
        due(known, &mut self.tracked, objects);
        Ok(self.ended)
    }

    fn take(&mut self, round: Round) -> anyhow::Result<()> {
        match round {
            Round::Read { began, rings, .. } => self.queue.push(began, rings),
            Round::Ended => self.ended = true,
            Round::Failed(error) => return Err(error).context("the perf ring cannot be read"),
        }
        Ok(())
    }

    /// Reads the rings a last time.
    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
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
        Ok(())
    }
}
