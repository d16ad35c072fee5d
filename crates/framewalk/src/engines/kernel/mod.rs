//! The kernel engine: stacks walked by a BPF program at the event or in task work.
//!
//! A sample that meets an object without a table comes with a copy of its stack; the table is built
//! meanwhile, by a thread of its own, and the Rust walker finishes the sample.

mod announced;
mod builds;
mod clock;
mod following;
mod names;
mod registry;
mod unfinished;

use super::{Counts, Engine, Settings, Target, Unavailable};
use crate::processes::{Backing, Device, NewMapping, Objects};
use crate::sample::{Frame, ObjectId, Place, Sample};
use announced::Announcements;
use clock::Clock;
pub(super) use clock::Tick;
use following::Following;
use framewalk_kernel::{
    self as kernel, FramePlace, Key, Mode, Options, Record, SampleRecord, Sampler, WantRecord,
};
use framewalk_walk::{Origin, Stop};
use names::Names;
use registry::Registry;
use rustix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
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
    following: Following,
    settings: Settings,
    registry: Registry,
    unfinished: Unfinished,
    announcements: Announcements,
    /// Kernel parts of samples whose user part is to come.
    linked: HashMap<u64, Vec<SampleRecord>>,
    /// Objects that the kernel asked for when their process was gone already, and when.
    unanswered: Vec<(u64, Key)>,
    /// Names of generated code, by the numbers that samples have.
    names: Names,
    gone: u64,
}

/// Opens the engine on a target.
pub(super) fn open(
    mode: super::Mode,
    target: &Target,
    tick: Tick,
    settings: Settings,
) -> Result<Box<dyn Engine>, Unavailable> {
    let mode = match mode {
        super::Mode::Auto => None,
        super::Mode::Deferred => Some(Mode::DeferredAlways),
        super::Mode::Immediate => Some(Mode::Immediate),
    };
    let max_frames = u32::try_from(settings.max_frames).unwrap_or(Options::MAX_FRAMES);
    let announcements = Announcements::open(target);
    let mut sampler = Sampler::load(
        Options {
            mode,
            max_frames,
            ring_bytes: RING_BYTES,
        },
        announcements.maps(),
    )
    .map_err(|error| Unavailable {
        what: error.to_string(),
        missing: match error {
            kernel::Error::NoTaskWork => "Linux 6.18 or later".into(),
            _ => missing(),
        },
    })?;
    let following = Following::open(target, settings)?;
    let clock = Clock::open(target, tick, &mut sampler)?;
    Ok(Box::new(KernelEngine {
        sampler,
        clock,
        following,
        settings,
        registry: Registry::new(),
        unfinished: Unfinished::default(),
        announcements,
        linked: HashMap::new(),
        unanswered: Vec::new(),
        names: Names::default(),
        gone: 0,
    }))
}

/// While tables are built each sample brings up to 64 kB of stack, and who is to take them in competes with what is
/// sampled for the same CPUs.
const RING_BYTES: u32 = 32 << 20;

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
            Record::Name(number, name) => {
                if let Some(name) = objects.generated.add(&name) {
                    self.names.insert(number, name);
                }
            }
            Record::Sample(sample) if sample.linked => {
                self.linked.entry(sample.id).or_default().push(sample);
            }
            Record::Sample(sample) => {
                let ticks = self.linked.remove(&sample.id).unwrap_or_default();
                if matches!(sample.stop, Stop::TablePending | Stop::MapsBusy) {
                    if let Some(sample) = self.unfinished.sample(sample, ticks) {
                        sink(convert(&sample, &mut self.names));
                    }
                } else {
                    deliver(
                        convert(&sample, &mut self.names),
                        &ticks,
                        &mut self.names,
                        sink,
                    );
                }
            }
        }
    }

    /// Finds the object that the kernel asks for.
    fn want(&mut self, want: &WantRecord, objects: &mut Objects) {
        let backing = match want.key {
            Key::VDSO => objects.add_vdso().map_or(Backing::Gone, Backing::Object),
            key => {
                let link = format!(
                    "/proc/{}/map_files/{:x}-{:x}",
                    want.pid, want.start, want.end
                );
                let path = fs::read_link(link).unwrap_or_default();
                let mapping = NewMapping {
                    pid: want.pid,
                    start: want.start,
                    end: want.end,
                    offset: 0,
                    // include/linux/kdev_t.h: MAJOR and MINOR
                    device: Device {
                        major: key.device >> 20,
                        minor: key.device & 0xf_ffff,
                    },
                    inode: key.inode,
                    path: path.as_os_str().as_bytes(),
                };
                mapping.open(objects).backing
            }
        };
        self.registry.meet(objects);
        match backing {
            Backing::Object(id) => self.registry.name(want.key, id, &mut self.sampler),
            Backing::Anonymous => self.registry.bare(want.key, &mut self.sampler),
            Backing::Gone => self.unanswered.push((now(), want.key)),
        }
    }

    /// Takes in what happened around the samples, and finishes what can be finished. True when all
    /// is known that ever will be.
    fn advance(
        &mut self,
        wait: Duration,
        objects: &mut Objects,
        sink: &mut dyn FnMut(Sample),
    ) -> anyhow::Result<bool> {
        let mut known = 0;
        let unfinished = &mut self.unfinished;
        let announcements = &mut self.announcements;
        let ended = self.following.advance(objects, |until, tracked, objects| {
            known = until;
            unfinished.place(until, tracked, objects, announcements);
        })?;
        self.registry.meet(objects);
        // What nobody could open by then is forgotten, so that the next process that maps it is asked.
        let (registry, sampler, gone) = (&self.registry, &mut self.sampler, &mut self.gone);
        self.unanswered.retain(|(asked, key)| {
            let wait = *asked >= known;
            if !wait && !registry.knows(key) {
                *gone += 1;
                sampler.forget(*key);
            }
            wait
        });
        self.registry.install(wait, &mut self.sampler);
        if self.registry.idle() {
            let tables = &mut self.registry.tables;
            let announcements = &mut self.announcements;
            self.unfinished.finish(
                objects,
                tables,
                announcements,
                self.settings.max_frames,
                &mut self.names,
                sink,
            );
        }
        Ok(ended)
    }
}

/// CLOCK_MONOTONIC, nanoseconds.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
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
        self.following.start()?;
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
        let timeout = if self.registry.idle() {
            timeout
        } else {
            timeout.min(Duration::from_millis(5))
        };
        let alive = self.clock.target_lives();
        let mut records = Vec::new();
        self.sampler
            .poll(timeout, &mut |record| records.push(record))?;
        for record in records {
            self.receive(record, objects, sink);
        }
        self.advance(Duration::ZERO, objects, sink)?;
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
        self.following.stop()?;
        self.advance(Duration::ZERO, objects, sink)?;
        while !self.registry.idle() && begin.elapsed() < BUILD_GRACE {
            self.advance(Duration::from_millis(50), objects, sink)?;
        }
        let tables = &mut self.registry.tables;
        self.unfinished.finish(
            objects,
            tables,
            &mut self.announcements,
            self.settings.max_frames,
            &mut self.names,
            sink,
        );
        for sample in self.linked.drain().flat_map(|(_, samples)| samples) {
            sink(convert(&sample, &mut self.names));
        }
        let counts = self.sampler.counts()?;
        let mut notes = self.registry.tables.notes(objects);
        notes.extend(self.announcements.notes());
        if self.gone > 0 {
            let gone = self.gone;
            notes.push(format!(
                "{gone} mapped files were gone before they could be opened"
            ));
        }
        for (count, what) in [
            (counts.unreadable, "could not be read"),
            (counts.malformed_sections, "met nonsense"),
        ] {
            if count > 0 {
                notes.push(format!("{count} lookups in announced sections {what}"));
            }
        }
        if counts.busy_areas > 0 {
            let busy = counts.busy_areas;
            notes.push(format!(
                "{busy} lookups in frame areas were overtaken by changes"
            ));
        }
        if counts.unsent_names > 0 {
            let unsent = counts.unsent_names;
            notes.push(format!(
                "{unsent} times a name of generated code was not sent: there were too many at once"
            ));
        }
        if objects.generated.lost > 0 {
            let lost = objects.generated.lost;
            notes.push(format!("{lost} names of generated code found no room"));
        }
        if counts.undeferred > 0 {
            let undeferred = counts.undeferred;
            notes.push(format!("{undeferred} walks could not be deferred"));
        }
        if self.following.lost > 0 {
            let lost = self.following.lost;
            notes.push(format!(
                "{lost} records of mappings and processes were lost"
            ));
        }
        let late = counts.deferred.saturating_sub(counts.resumed);
        for (count, what) in [
            (counts.full_ring, "records found no room in the ring"),
            (counts.malformed, "records made no sense"),
            (late, "walks were deferred and never came"),
            (
                counts.uncopied,
                "pieces of stack were not sent: samples came faster than they were taken in",
            ),
        ] {
            if count > 0 {
                notes.push(format!("{count} {what}"));
            }
        }
        Ok(Counts {
            lost: counts.full_ring + counts.malformed + late,
            kernel_run_ns: counts.run_ns,
            kernel_run_cnt: counts.run_cnt,
            bytes: self.sampler.bytes(),
            notes,
        })
    }
}

/// Hands a sample over, and once more for each tick that shares its user stack.
fn deliver(
    sample: Sample,
    ticks: &[SampleRecord],
    names: &mut Names,
    sink: &mut dyn FnMut(Sample),
) {
    for tick in ticks {
        let user = sample
            .frames
            .iter()
            .filter(|frame| frame.origin != Origin::Kernel);
        let mut twin = convert(tick, names);
        twin.frames.extend(user);
        twin.stop = sample.stop;
        sink(twin);
    }
    sink(sample);
}

fn convert(record: &SampleRecord, names: &mut Names) -> Sample {
    let frame = |frame: &kernel::Frame| Frame {
        place: match frame.place {
            FramePlace::Kernel(address) => Place::Kernel(address),
            FramePlace::Object(number, offset) => Place::Object(ObjectId(number), offset),
            FramePlace::Address(address) => Place::Anonymous(address),
            FramePlace::Described(address, name, runtime) => Place::Described {
                address,
                name: names.get(name),
                runtime,
            },
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
