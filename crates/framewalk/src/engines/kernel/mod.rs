//! The kernel engine: stacks walked by a BPF program at the event or in task work.
//!
//! A sample that meets an object without a table comes with a copy of its stack; the table is built
//! meanwhile, by a thread of its own, and the Rust walker finishes the sample.

mod builds;
mod clock;
mod unfinished;

use super::{Counts, Engine, Settings, Target, Unavailable};
use crate::processes::{Backing, Lack, Mappings, Objects, Table, Tables};
use crate::sample::{Frame, ObjectId, Place, Sample};
use builds::Builds;
use clock::Clock;
use framewalk_kernel::{
    self as kernel, FramePlace, Key, Mode, Options, Record, SampleRecord, Sampler, WantRecord,
};
use framewalk_walk::{Origin, Stop};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use unfinished::Unfinished;

/// How long the end of a recording waits for threads that are on their way back to user mode, and for
/// tables that are still being built.
const GRACE: Duration = Duration::from_millis(200);
const BUILD_GRACE: Duration = Duration::from_secs(60);

/// The engine.
struct KernelEngine {
    sampler: Sampler,
    clock: Clock,
    settings: Settings,
    builds: Builds,
    tables: Tables,
    /// What the kernel calls each object, where it asked.
    keys: HashMap<ObjectId, Vec<Key>>,
    handles: HashMap<ObjectId, kernel::Table>,
    /// Sections in the arena by the table they came from.
    sections: HashMap<*const Table, kernel::Table>,
    unfinished: Unfinished,
    /// Kernel parts of samples whose user part is to come.
    linked: HashMap<u64, Vec<SampleRecord>>,
    /// By process, with the number of the poll that read them.
    mappings: HashMap<u32, (u64, Rc<Mappings>)>,
    polls: u64,
    gone: u64,
}

/// Opens the engine on a target.
pub(super) fn open(
    mode: super::Mode,
    target: &Target,
    settings: Settings,
) -> Result<Box<dyn Engine>, Unavailable> {
    let mode = match mode {
        super::Mode::Auto => None,
        super::Mode::Deferred => Some(Mode::DeferredAlways),
        super::Mode::Immediate => Some(Mode::Immediate),
    };
    let max_frames = u32::try_from(settings.max_frames).unwrap_or(Options::MAX_FRAMES);
    let sampler = Sampler::load(Options { mode, max_frames }).map_err(|error| Unavailable {
        what: error.to_string(),
        missing: match error {
            kernel::Error::NoTaskWork => "Linux 6.18 or later".into(),
            _ => missing(),
        },
    })?;
    let mut engine = KernelEngine {
        sampler,
        clock: Clock::default(),
        settings,
        builds: Builds::start(),
        tables: Tables::default(),
        keys: HashMap::new(),
        handles: HashMap::new(),
        sections: HashMap::new(),
        unfinished: Unfinished::default(),
        linked: HashMap::new(),
        mappings: HashMap::new(),
        polls: 0,
        gone: 0,
    };
    engine.clock = Clock::open(target, settings.frequency, &mut engine.sampler)?;
    Ok(Box::new(engine))
}

/// What the BPF programs need and this process lacks.
fn missing() -> String {
    // capabilities(7); numbers from include/uapi/linux/capability.h
    const NEEDED: [(&str, u32); 2] = [("CAP_PERFMON", 38), ("CAP_BPF", 39)];
    const ADMIN: u32 = 21;
    let effective = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(0);
    let has = |number: u32| effective >> number & 1 == 1 || effective >> ADMIN & 1 == 1;
    let lacking: Vec<&str> = NEEDED
        .iter()
        .filter(|(_, n)| !has(*n))
        .map(|(name, _)| *name)
        .collect();
    if lacking.is_empty() {
        "Linux 6.9 or later with BTF (/sys/kernel/btf/vmlinux) and BPF arenas".into()
    } else {
        format!("{} (or root)", lacking.join(" and "))
    }
}

impl KernelEngine {
    fn receive(&mut self, record: Record, objects: &mut Objects, sink: &mut dyn FnMut(Sample)) {
        match record {
            Record::Want(want) => self.want(&want, objects),
            Record::Stack(stack) => self.unfinished.stack(stack),
            Record::Registers(id, values) => self.unfinished.registers(id, values),
            Record::Sample(sample) if sample.linked => {
                self.linked.entry(sample.id).or_default().push(sample)
            }
            Record::Sample(sample) => {
                let tids = self.linked.remove(&sample.id).unwrap_or_default();
                if matches!(sample.stop, Stop::TablePending | Stop::MapsBusy) {
                    let mappings = self.mappings_of(sample.pid, objects);
                    if let Some(sample) = self.unfinished.sample(sample, tids, mappings) {
                        sink(convert(&sample));
                    }
                } else {
                    deliver(convert(&sample), &tids, sink);
                }
            }
        }
    }

    /// The mappings of a process as they are now (once a poll is often enough), or as they were when
    /// it could last be asked. All that it maps will have tables.
    fn mappings_of(&mut self, pid: u32, objects: &mut Objects) -> Option<Rc<Mappings>> {
        if let Some((poll, mappings)) = self.mappings.get(&pid) {
            if *poll == self.polls {
                return Some(Rc::clone(mappings));
            }
        }
        if let Ok(now) = Mappings::of_process(pid, objects) {
            if now.iter().next().is_some() {
                for mapping in now.iter() {
                    if let Backing::Object(id) = mapping.backing {
                        self.builds.request(id, objects);
                    }
                }
                self.mappings.insert(pid, (self.polls, Rc::new(now)));
            }
        }
        self.mappings
            .get(&pid)
            .map(|(_, mappings)| Rc::clone(mappings))
    }

    /// Finds the object that the kernel asks for, and sees to its table.
    fn want(&mut self, want: &WantRecord, objects: &mut Objects) {
        let id = if want.key == Key::VDSO {
            objects.add_vdso().ok()
        } else {
            match self
                .mappings_of(want.pid, objects)
                .and_then(|mappings| mappings.find(want.start).map(|mapping| mapping.backing))
            {
                Some(Backing::Object(id)) => Some(id),
                // A device or memory: nobody describes it. Any object number will do.
                Some(Backing::Anonymous) => {
                    if let Ok(bare) = Sampler::bare(0) {
                        let _ = self.sampler.register(want.key, &bare);
                    }
                    return;
                }
                Some(Backing::Gone) | None => None,
            }
        };
        let Some(id) = id else {
            // Another process may map it again, and be asked then.
            self.gone += 1;
            self.sampler.forget(want.key);
            return;
        };
        self.keys.entry(id).or_default().push(want.key);
        match self.handles.get(&id) {
            Some(handle) => self.register(want.key, &handle.clone()),
            None => self.builds.request(id, objects),
        }
    }

    fn register(&mut self, key: Key, handle: &kernel::Table) {
        // A full map of objects: the kernel counts it, walks end with table-pending.
        let _ = self.sampler.register(key, handle);
    }

    /// Puts a table that is ready where the kernel finds it.
    fn install(&mut self, id: ObjectId, table: &Arc<Table>) {
        self.tables.insert(id, Arc::clone(table));
        let known = self.sections.get(&Arc::as_ptr(table)).copied();
        let handle = match (known, table.lack) {
            (Some(section), _) => section.renumbered(id.0),
            (None, Some(Lack::Foreign(..))) => Sampler::foreign(id.0),
            (None, _) if table.section.is_empty() => Sampler::bare(id.0),
            (None, _) => self.sampler.add_table(id.0, &table.section, table.origin),
        };
        // Without room the object stays pending, and samples are finished here.
        let Ok(handle) = handle else { return };
        self.sections.insert(Arc::as_ptr(table), handle);
        self.handles.insert(id, handle);
        for key in self.keys.get(&id).cloned().unwrap_or_default() {
            self.register(key, &handle);
        }
    }

    /// Takes what was built; finishes samples when nothing is being built any more.
    fn advance(&mut self, wait: Duration, objects: &Objects, sink: &mut dyn FnMut(Sample)) {
        for (id, table) in self.builds.ready(wait) {
            self.install(id, &table);
        }
        if self.builds.idle() {
            self.unfinished
                .finish(objects, &mut self.tables, self.settings.max_frames, sink);
        }
    }
}

impl Engine for KernelEngine {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn mode(&self) -> &'static str {
        match self.sampler.mode() {
            Mode::Deferred | Mode::DeferredAlways => "deferred",
            Mode::Immediate => "immediate",
        }
    }

    fn start(&mut self) -> anyhow::Result<()> {
        self.clock.start()?;
        Ok(())
    }

    fn poll(
        &mut self,
        timeout: Duration,
        objects: &mut Objects,
        sink: &mut dyn FnMut(Sample),
    ) -> anyhow::Result<bool> {
        // While tables are built, samples come with copies of stacks: be quick about both.
        let timeout = if self.builds.idle() {
            timeout
        } else {
            timeout.min(Duration::from_millis(5))
        };
        self.polls += 1;
        let alive = self.clock.target_lives();
        let mut records = Vec::new();
        self.sampler
            .poll(timeout, &mut |record| records.push(record))?;
        for record in records {
            self.receive(record, objects, sink);
        }
        self.advance(Duration::ZERO, objects, sink);
        Ok(alive)
    }

    fn finish(
        &mut self,
        objects: &mut Objects,
        sink: &mut dyn FnMut(Sample),
    ) -> anyhow::Result<Counts> {
        self.clock.stop();
        let begin = Instant::now();
        loop {
            self.poll(Duration::from_millis(1), objects, sink)?;
            let counts = self.sampler.counts()?;
            if counts.resumed >= counts.deferred || begin.elapsed() > GRACE {
                break;
            }
        }
        self.sampler.detach();
        self.poll(Duration::ZERO, objects, sink)?;
        while !self.builds.idle() && begin.elapsed() < BUILD_GRACE {
            self.advance(Duration::from_millis(50), objects, sink);
        }
        self.unfinished
            .finish(objects, &mut self.tables, self.settings.max_frames, sink);
        for sample in self.linked.drain().flat_map(|(_, samples)| samples) {
            sink(convert(&sample));
        }
        let counts = self.sampler.counts()?;
        let mut notes = self.tables.notes(objects);
        if self.gone > 0 {
            notes.push(format!(
                "{} mapped files were gone before they could be opened",
                self.gone
            ));
        }
        Ok(Counts {
            lost: counts.full_ring
                + counts.malformed
                + counts.deferred.saturating_sub(counts.resumed),
            kernel_run_ns: counts.run_ns,
            kernel_run_cnt: counts.run_cnt,
            bytes: self.sampler.bytes(),
            notes,
        })
    }
}

/// Hands a sample over, and once more for each tick that shares its user stack.
fn deliver(sample: Sample, ticks: &[SampleRecord], sink: &mut dyn FnMut(Sample)) {
    for tick in ticks {
        let user = sample
            .frames
            .iter()
            .filter(|frame| frame.origin != Origin::Kernel);
        let mut twin = convert(tick);
        twin.frames.extend(user);
        twin.stop = sample.stop;
        sink(twin);
    }
    sink(sample);
}

fn convert(record: &SampleRecord) -> Sample {
    let frame = |frame: &kernel::Frame| Frame {
        place: match frame.place {
            FramePlace::Kernel(address) => Place::Kernel(address),
            FramePlace::Object(number, offset) => Place::Object(ObjectId(number), offset),
            FramePlace::Address(address) => Place::Anonymous(address),
        },
        origin: frame.origin,
        is_return_address: frame.is_return_address,
    };
    Sample {
        pid: record.pid,
        tid: record.tid,
        time_ns: record.time_ns,
        comm: record.comm.clone(),
        frames: record.frames.iter().map(frame).collect(),
        stop: record.stop,
    }
}
