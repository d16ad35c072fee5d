//! The announced sections of all processes: the programs that hear prctl(2), and the maps that they keep.
//!
//! Everything happens inside the kernel (`bpf/announce.h`, docs/abi.md); this side loads, lists, and is told.
//! Addresses are those of the process; ids of processes are the initial pid namespace's.

mod hashes;
mod late;
mod maps;

use crate::error::Error;
use crate::features::features;
use crate::said;
use crate::skeleton::announce::{AnnounceSkel, AnnounceSkelBuilder, types};
pub use hashes::Hashes;
pub use late::Late;
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{Link, MapCore, ProgramInput, RingBuffer, RingBufferBuilder};
pub use maps::{RegistryCounts, RegistryMaps, Section, Space};
use std::cell::RefCell;
use std::mem::{MaybeUninit, offset_of};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;

macro_rules! hooks {
    ($($(#[$doc:meta])* $variant:ident = $program:ident, $name:literal, $answers:literal;)*) => {
        /// Where the programs hear a call.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Hook { $($(#[$doc])* $variant,)* }

        impl Hook {
            /// All of them, best first.
            pub const ALL: &'static [Hook] = &[$(Hook::$variant,)*];

            /// As libbpf names it.
            pub const fn name(self) -> &'static str {
                match self { $(Hook::$variant => $name,)* }
            }

            /// Whether the caller gets the answer. Where not, it sees EINVAL, and is heard all the same.
            pub const fn answers(self) -> bool {
                match self { $(Hook::$variant => $answers,)* }
            }
        }

        fn load_only(open: &mut crate::skeleton::announce::OpenAnnounceSkel<'_>, hooks: &[Hook]) {
            $(open.progs.$program.set_autoload(hooks.contains(&Hook::$variant));)*
        }

        fn attach(skel: &AnnounceSkel<'_>, hook: Hook) -> libbpf_rs::Result<Link> {
            match hook { $(Hook::$variant => skel.progs.$program.attach(),)* }
        }
    };
}

hooks! {
    /// The system call itself; pages may be faulted in (7.x).
    SystemCall = call_sleepable, "fmod_ret.s/__x64_sys_prctl", true;
    /// The security hook of prctl.
    Security = call_answer, "fmod_ret/security_task_prctl", true;
    /// The tracepoint of options that the kernel does not know (6.13 and later).
    Unknown = call_unknown, "raw_tp/task_prctl_unknown", false;
    /// The tracepoint of all system calls.
    Entry = call_entry, "tp_btf/sys_enter", false;
}

impl Hook {
    /// It, and those that hear what it misses (`bpf/announce.bpf.c`).
    fn with_spares(self) -> Vec<Hook> {
        let spares: &[Hook] = match self {
            Hook::SystemCall => &[Hook::Security, Hook::Unknown],
            Hook::Security => &[Hook::Unknown],
            Hook::Unknown | Hook::Entry => &[],
        };
        let allowed = spares
            .iter()
            .filter(|spare| features().hook(**spare).is_ok());
        std::iter::once(&self).chain(allowed).copied().collect()
    }
}

/// A call that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The prctl option.
    pub option: u32,
    /// Its arguments: key, address, length, kind and flags.
    pub arguments: [u64; 4],
    /// What it was answered, or would have been: an id or count above 0, or an errno below.
    pub answer: i64,
    /// The address space ([`Space::id`]).
    pub space: u64,
    /// The registration ([`Section::number`]); 0 where none was made.
    pub number: u64,
    /// The caller got the answer, rather than EINVAL.
    pub answered: bool,
}

/// How much there is room for, in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Processes that have announced something or were forked by one that has.
    pub processes: u32,
    /// Their address spaces.
    pub spaces: u32,
    /// Pages of 45 sections.
    pub pages: u32,
}

/// What is in the maps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entries {
    /// Processes whose address space is known.
    pub processes: usize,
    /// Address spaces.
    pub spaces: usize,
    /// Pages of sections.
    pub pages: usize,
    /// Threads that once had to wait for an absent page.
    pub later: usize,
}

/// The loaded programs. Dropping it ends the listening, and the maps with it unless they are pinned.
pub struct Registry {
    hook: Hook,
    refusals: Vec<(Hook, String)>,
    ring: RingBuffer<'static>,
    inbox: Rc<RefCell<Vec<Heard>>>,
    maps: RegistryMaps,
    /// Dropped before `skel`.
    links: Vec<Link>,
    skel: AnnounceSkel<'static>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("hook", &self.hook)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// Loads the programs with the first of these hooks that the kernel allows. Needs CAP_BPF and CAP_PERFMON (or
    /// root).
    pub fn load(hooks: &[Hook]) -> Result<Registry, Error> {
        Registry::load_with(hooks, None)
    }

    /// The same, with more or less room than usual.
    pub fn with_room(hooks: &[Hook], room: Room) -> Result<Registry, Error> {
        Registry::load_with(hooks, Some(room))
    }

    fn load_with(hooks: &[Hook], room: Option<Room>) -> Result<Registry, Error> {
        said::listen();
        let mut refusals = Vec::new();
        let mut last = Error::NoHook;
        for &hook in hooks {
            if let Err(why) = features().hook(hook) {
                refusals.push((hook, why.to_owned()));
                last = Error::Hook(hook.name(), why.to_owned());
                continue;
            }
            match Registry::load_one(hook, room) {
                Ok(mut registry) => {
                    registry.refusals = refusals;
                    return Ok(registry);
                }
                Err(error) => {
                    refusals.push((hook, error.to_string()));
                    last = error;
                }
            }
        }
        Err(last)
    }

    fn load_one(hook: Hook, room: Option<Room>) -> Result<Registry, Error> {
        // One small leak per load: the object refers to itself and lives as long as its skeleton.
        let storage = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut open = AnnounceSkelBuilder::default()
            .open(storage)
            .map_err(said::refused)?;
        let hooks = hook.with_spares();
        load_only(&mut open, &hooks);
        if !preempts_tracepoints() {
            let progs = &mut open.progs;
            for program in [
                &mut progs.forked_2,
                &mut progs.executed_2,
                &mut progs.ended_2,
                &mut progs.forked_3,
                &mut progs.executed_3,
                &mut progs.ended_3,
            ] {
                program.set_autoload(false);
            }
        }
        if let Some(room) = room {
            let maps = &mut open.maps;
            for (map, entries) in [
                (&mut maps.processes, room.processes),
                (&mut maps.spaces, room.spaces),
                (&mut maps.pages, room.pages),
            ] {
                map.set_max_entries(entries).map_err(Error::Map)?;
            }
        }
        let skel = open.load().map_err(said::refused)?;
        let maps = RegistryMaps::of(&skel)?;
        maps.begin()?;
        // Life first: what is registered must not outlive its process.
        let progs = &skel.progs;
        let mut life = vec![&progs.forked_1, &progs.executed_1, &progs.ended_1];
        if preempts_tracepoints() {
            life.extend([&progs.forked_2, &progs.executed_2, &progs.ended_2]);
            life.extend([&progs.forked_3, &progs.executed_3, &progs.ended_3]);
        }
        let life = life.into_iter().map(|program| program.attach());
        let calls = hooks.iter().map(|&hook| attach(&skel, hook));
        let links = life
            .chain(calls)
            .collect::<Result<_, _>>()
            .map_err(Error::Attach)?;
        let inbox = Rc::new(RefCell::new(Vec::new()));
        let mut builder = RingBufferBuilder::new();
        let into = Rc::clone(&inbox);
        builder
            .add(&skel.maps.heard, move |bytes| {
                into.borrow_mut().extend(heard(bytes));
                0
            })
            .map_err(Error::Map)?;
        let ring = builder.build().map_err(Error::Map)?;
        Ok(Registry {
            hook,
            refusals: Vec::new(),
            ring,
            inbox,
            maps,
            links,
            skel,
        })
    }

    /// The hook in use.
    pub fn hook(&self) -> Hook {
        self.hook
    }

    /// The better hooks, and why they are not in use.
    pub fn refusals(&self) -> &[(Hook, String)] {
        &self.refusals
    }

    /// What is registered.
    pub fn maps(&self) -> &RegistryMaps {
        &self.maps
    }

    /// The same, to be pinned.
    pub fn maps_mut(&mut self) -> &mut RegistryMaps {
        &mut self.maps
    }

    /// How often the kernel did not run one of the programs because the same one was on that CPU already, preempted or
    /// asleep. What one missed another one heard, unless all were there.
    pub fn missed(&self) -> u64 {
        let missed = |fd: i32| {
            let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let line = |line: &str| Some(line.strip_prefix("recursion_misses:")?.trim().to_owned());
            text.lines().find_map(line)?.parse().ok()
        };
        let programs = self.skel.object().progs();
        let fds = programs.map(|program| program.as_fd().as_raw_fd());
        fds.map(|fd| missed(fd).unwrap_or(0)).sum::<u64>()
    }

    /// How much is in the maps. When no process announces anything any more, nothing is.
    pub fn entries(&self) -> Entries {
        let maps = &self.skel.maps;
        Entries {
            processes: maps.processes.keys().count(),
            spaces: maps.spaces.keys().count(),
            pages: maps.pages.keys().count(),
            later: maps.later.keys().count(),
        }
    }

    /// The calls that were heard since.
    pub fn heard(&mut self) -> Result<Vec<Heard>, Error> {
        self.ring.consume().map_err(Error::Map)?;
        Ok(std::mem::take(&mut *self.inbox.borrow_mut()))
    }

    /// A section is not to be used any more; false where it is gone already.
    pub fn quarantine(&self, space: u64, number: u64) -> Result<bool, Error> {
        let mut which = [space.to_ne_bytes(), number.to_ne_bytes()].concat();
        let input = ProgramInput {
            context_in: Some(&mut which),
            ..ProgramInput::default()
        };
        let output = self.skel.progs.quarantine.test_run(input);
        Ok(output.map_err(Error::Map)?.return_value == 1)
    }

    /// What a walk finds at a pc, in the way that it does: a section's text and its number, or 0 and the gap between
    /// texts. None where the space is gone, or being changed.
    pub fn find(&self, space: u64, pc: u64) -> Result<Option<(Range<u64>, u64)>, Error> {
        let mut find = [space, pc, 0, 0, 0].map(u64::to_ne_bytes).concat();
        let input = ProgramInput {
            context_in: Some(&mut find),
            ..ProgramInput::default()
        };
        let output = self.skel.progs.find.test_run(input);
        let found = output.map_err(Error::Map)?.return_value == 1;
        let word = |n: usize| find.get(n * 8..n * 8 + 8)?.try_into().ok();
        let word = |n| word(n).map_or(0, u64::from_ne_bytes);
        Ok(found.then(|| (word(2)..word(3), word(4))))
    }

    /// Ends the listening; what is registered can still be read.
    pub fn detach(&mut self) {
        self.links.clear();
    }
}

/// Whether a program on a tracepoint can be preempted: Linux 7.0 and later.
fn preempts_tracepoints() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let major = release.split('.').next().and_then(|word| word.parse().ok());
    // A kernel that does not say so may be any.
    major.is_none_or(|major: u32| major >= 7)
}

fn heard(bytes: &[u8]) -> Option<Heard> {
    macro_rules! field {
        ($type:ty, $field:ident) => {{
            let at = offset_of!(types::fw_heard, $field);
            <$type>::from_ne_bytes(bytes.get(at..at + size_of::<$type>())?.try_into().ok()?)
        }};
    }
    Some(Heard {
        pid: field!(u32, pid),
        tid: field!(u32, tid),
        option: field!(u32, option),
        arguments: [
            field!(u64, key),
            field!(u64, address),
            field!(u64, length),
            field!(u64, how),
        ],
        answer: field!(i64, answer),
        space: field!(u64, space),
        number: field!(u64, number),
        answered: field!(u64, answered) != 0,
    })
}
