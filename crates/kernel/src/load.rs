//! Loads the programs, fills their tables, and reads their rings.

use crate::arena::{Arena, Plain};
use crate::error::Error;
use crate::features::features;
use crate::record::{Key, Record};
use crate::registry::RegistryMaps;
use crate::said;
use crate::skeleton::sampler::{SamplerSkel, SamplerSkelBuilder};
use crate::skeleton::types;
use framewalk_sframe::spec::{Flag, Version};
use framewalk_sframe::{Arch, Section};
use framewalk_walk::Origin;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, RingBuffer, RingBufferBuilder};
use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// When a stack is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// At the event; what meets a page that is not there is walked again in task work, before the
    /// thread returns to user mode, where reads may fault pages in (Linux 6.18 and later).
    Deferred,
    /// As [`Mode::Deferred`], but every walk in task work, none at the event.
    DeferredAlways,
    /// At the event only: a page that is not there ends the walk with that reason.
    Immediate,
}

/// How to load.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// None: deferred where this kernel can, else immediate.
    pub mode: Option<Mode>,
    /// Frames per user stack, at most [`Options::MAX_FRAMES`].
    pub max_frames: u32,
    /// Bytes of the ring that brings samples: a power of two, at least a page.
    pub ring_bytes: u32,
}

impl Options {
    /// Frames that fit a record (`FW_USER_FRAMES` of `bpf/shared.h`).
    pub const MAX_FRAMES: u32 = 510;
}

/// What the programs counted, over all CPUs. The fields are those of `struct fw_counts`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events seen.
    pub samples: u64,
    /// Nanoseconds in the event program and in task work.
    pub run_ns: u64,
    /// How often either ran.
    pub run_cnt: u64,
    /// User frames found.
    pub frames: u64,
    /// Task works scheduled.
    pub deferred: u64,
    /// Task works that ran.
    pub resumed: u64,
    /// Rules that were not in the cache.
    pub searches: u64,
    /// Lookups in VMA trees.
    pub maps: u64,
    /// Records that did not fit a ring.
    pub full_ring: u64,
    /// Walks that task work did not take.
    pub undeferred: u64,
    /// Objects beyond the table of objects.
    pub full_objects: u64,
    /// Lookups that the memory of an announced section did not allow.
    pub unreadable: u64,
    /// Lookups that met nonsense in an announced section.
    pub malformed_sections: u64,
    /// Lookups in frame areas that changed again and again.
    pub busy_areas: u64,
    /// Pieces of stack that were not sent, to keep room in the ring for samples.
    pub uncopied: u64,
    /// Names of generated code for which the ring had no room.
    pub unsent_names: u64,
    /// Records that this side could not read.
    pub malformed: u64,
}

/// What is known of an object; made once, registered under any number of keys.
#[derive(Debug, Clone, Copy)]
pub struct Table(types::fw_object);

impl Table {
    /// The same section for another object.
    pub fn renumbered(self, number: u32) -> Result<Table, Error> {
        let id = bare(number, self.0.state)?.id;
        Ok(Table(types::fw_object { id, ..self.0 }))
    }
}

/// The loaded programs.
pub struct Sampler {
    mode: Mode,
    /// Dropped before `skel`: links hold programs.
    links: Vec<Link>,
    exit_link: Option<Link>,
    ring: RingBuffer<'static>,
    inbox: Rc<RefCell<Inbox>>,
    arena: Arena,
    skel: SamplerSkel<'static>,
}

#[derive(Default)]
struct Inbox {
    records: Vec<Record>,
    bytes: u64,
    malformed: u64,
}

impl Inbox {
    fn receive(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        match Record::parse(bytes) {
            Some(record) => self.records.push(record),
            None => self.malformed += 1,
        }
    }
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampler")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// Where the first arena of a process is mapped: far from heap, libraries and stacks.
const FIRST_ARENA: u64 = 1 << 44;
static ARENAS: AtomicU64 = AtomicU64::new(0);

/// Arenas are mapped at fixed addresses, 4 GiB apart: what the programs keep of an address is its low 32 bits, the
/// offset.
pub(crate) fn next_arena() -> u64 {
    FIRST_ARENA + (ARENAS.fetch_add(1, Ordering::Relaxed) << 32)
}

/// Device and inode of this process's pid namespace, unless it is the initial one.
fn own_pid_namespace() -> Option<(u64, u64)> {
    /// PROC_PID_INIT_INO, include/linux/proc_ns.h.
    const INITIAL: u64 = 0xeffffffc;
    let meta = std::fs::metadata("/proc/self/ns/pid").ok()?;
    (meta.ino() != INITIAL).then_some((meta.dev(), meta.ino()))
}

impl Sampler {
    /// Loads the programs. Needs CAP_BPF and CAP_PERFMON (or root). Walks know what was announced if they get
    /// the maps of a registry.
    pub fn load(options: Options, registry: Option<&RegistryMaps>) -> Result<Sampler, Error> {
        said::listen();
        let possible = features().task_work;
        let mode = match options.mode {
            Some(Mode::Deferred | Mode::DeferredAlways) if !possible => {
                return Err(Error::NoTaskWork);
            }
            Some(mode) => mode,
            None if possible => Mode::Deferred,
            None => Mode::Immediate,
        };
        let deferred = mode != Mode::Immediate;

        // One small leak per load: the object refers to itself and lives as long as its skeleton.
        let storage = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut open = SamplerSkelBuilder::default()
            .open(storage)
            .map_err(said::refused)?;
        if let Some(constants) = open.maps.rodata_data.as_mut() {
            constants.frame_limit = options.max_frames.clamp(1, Options::MAX_FRAMES);
            if let Some((device, inode)) = own_pid_namespace() {
                constants.namespace_device = device;
                constants.namespace_inode = inode;
            }
            constants.cache_secret = RandomState::new().hash_one(0) | 1;
            constants.defer_always = mode == Mode::DeferredAlways;
        }
        open.progs.sample_deferred.set_autoload(deferred);
        open.progs.thread_exit.set_autoload(deferred);
        open.progs.sample_immediate.set_autoload(!deferred);
        open.maps
            .samples
            .set_max_entries(options.ring_bytes)
            .map_err(said::refused)?;
        open.maps
            .threads
            .set_autocreate(deferred)
            .map_err(said::refused)?;
        if let Some(registry) = registry {
            let own = [
                (&mut open.maps.registry, &registry.registry),
                (&mut open.maps.spaces, &registry.spaces),
                (&mut open.maps.pages, &registry.pages),
                (&mut open.maps.uses, &registry.uses),
            ];
            for (own, shared) in own {
                own.reuse_fd(shared.as_fd()).map_err(said::refused)?;
            }
        }
        let at = next_arena();
        open.maps.arena.set_map_extra(at).map_err(said::refused)?;
        let skel = open.load().map_err(said::refused)?;

        let arena = Arena::new(&skel.maps.arena).ok_or(Error::ArenaFull(0))?;
        let inbox = Rc::new(RefCell::new(Inbox::default()));
        let mut builder = RingBufferBuilder::new();
        for map in [&skel.maps.samples, &skel.maps.wants] {
            let inbox = Rc::clone(&inbox);
            builder
                .add(map, move |bytes| {
                    inbox.borrow_mut().receive(bytes);
                    0
                })
                .map_err(Error::Map)?;
        }
        let ring = builder.build().map_err(Error::Map)?;
        let exit_link = match deferred {
            true => Some(skel.progs.thread_exit.attach().map_err(Error::Attach)?),
            false => None,
        };
        Ok(Sampler {
            mode,
            links: Vec::new(),
            exit_link,
            ring,
            inbox,
            arena,
            skel,
        })
    }

    /// The mode in use.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Lets the sampling program run at each overflow of this perf event, which is kept.
    pub fn attach(&mut self, event: OwnedFd) -> Result<(), Error> {
        let program = match self.mode {
            Mode::Immediate => &self.skel.progs.sample_immediate,
            Mode::Deferred | Mode::DeferredAlways => &self.skel.progs.sample_deferred,
        };
        let link = program
            .attach_perf_event(event.as_raw_fd())
            .map_err(Error::Attach)?;
        // From here on the descriptor is libbpf's, which closes it with the link.
        let _ = event.into_raw_fd();
        self.links.push(link);
        Ok(())
    }

    /// Ends all sampling; rings and counts can still be read.
    pub fn detach(&mut self) {
        self.links.clear();
        self.exit_link = None;
    }

    /// Puts a checked SFrame V3 section into the arena, as if it were mapped at address 0 of the space
    /// of the file offsets of object `number`.
    pub fn add_table(
        &mut self,
        number: u32,
        section: &[u8],
        origin: Origin,
    ) -> Result<Table, Error> {
        let parsed = Section::parse(section, 0).map_err(Error::Section)?;
        let header = parsed.header();
        if header.version != Version::V3
            || header.arch != Arch::Amd64
            || !header.has(Flag::SORTED)
            || !header.has(Flag::PCREL)
        {
            return Err(Error::SectionKind);
        }
        let mut object = bare(number, types::fw_object_state::FW_OBJECT_READY)?;
        object.section = self.arena.add(section)?;
        object.fdes = header.index_at as u32;
        object.num_fdes = header.functions;
        object.fres = header.rows_at as u32;
        object.fres_len = header.rows_len as u32;
        object.origin = origin as u32;
        Ok(Table(object))
    }

    /// An object that nobody describes: walked by frame pointer, each frame marked as a guess.
    pub fn bare(number: u32) -> Result<Table, Error> {
        bare(number, types::fw_object_state::FW_OBJECT_BARE).map(Table)
    }

    /// An object with code of another machine: walks end there.
    pub fn foreign(number: u32) -> Result<Table, Error> {
        bare(number, types::fw_object_state::FW_OBJECT_FOREIGN).map(Table)
    }

    /// From now on, mappings of this file are walked by this table.
    pub fn register(&mut self, key: Key, table: &Table) -> Result<(), Error> {
        self.skel
            .maps
            .objects
            .update(key.raw().bytes(), table.0.bytes(), MapFlags::ANY)
            .map_err(Error::Map)?;
        // Walks keep what they know of mappings until this changes.
        if let Some(bss) = self.skel.maps.bss_data.as_mut() {
            bss.tables_version = bss.tables_version.wrapping_add(1);
        }
        Ok(())
    }

    /// Forgets a file that was asked for and not found: the next walk that meets it asks again.
    pub fn forget(&mut self, key: Key) {
        // Not there is fine.
        let _ = self.skel.maps.objects.delete(key.raw().bytes());
    }

    /// Waits at most `timeout` and hands over what arrived.
    pub fn poll(&mut self, timeout: Duration, sink: &mut dyn FnMut(Record)) -> Result<(), Error> {
        // Samples do not wake anybody, so the ring of samples is read on every call.
        match self.ring.poll(timeout) {
            Err(error) if error.kind() != libbpf_rs::ErrorKind::Interrupted => {
                return Err(Error::Map(error));
            }
            _ => {}
        }
        self.ring.consume().map_err(Error::Map)?;
        let records = std::mem::take(&mut self.inbox.borrow_mut().records);
        records.into_iter().for_each(sink);
        Ok(())
    }

    /// Bytes that the rings brought.
    pub fn bytes(&self) -> u64 {
        self.inbox.borrow().bytes
    }

    /// Bytes of the arena in use: rule cache and tables.
    pub fn arena_used(&self) -> usize {
        self.arena.used()
    }

    /// What the programs counted until now.
    pub fn counts(&self) -> Result<Counts, Error> {
        let key = 0u32.to_ne_bytes();
        let per_cpu = self
            .skel
            .maps
            .counts
            .lookup_percpu(&key, MapFlags::ANY)
            .map_err(Error::Map)?;
        let sum = |offset: usize| -> u64 {
            let field = |value: &Vec<u8>| {
                value
                    .get(offset..offset + 8)?
                    .try_into()
                    .ok()
                    .map(u64::from_ne_bytes)
            };
            per_cpu.iter().flatten().filter_map(field).sum()
        };
        macro_rules! counts {
            ($($field:ident),*) => { Counts {
                $($field: sum(offset_of!(types::fw_counts, $field)),)*
                malformed: self.inbox.borrow().malformed,
            } };
        }
        Ok(counts!(
            samples,
            run_ns,
            run_cnt,
            frames,
            deferred,
            resumed,
            searches,
            maps,
            full_ring,
            undeferred,
            full_objects,
            unreadable,
            malformed_sections,
            busy_areas,
            uncopied,
            unsent_names
        ))
    }
}

fn bare(number: u32, state: types::fw_object_state) -> Result<types::fw_object, Error> {
    // A frame has 20 bits for it.
    if number >= 1 << 20 {
        return Err(Error::ObjectNumber(number));
    }
    Ok(types::fw_object {
        id: number,
        state,
        ..types::fw_object::default()
    })
}
