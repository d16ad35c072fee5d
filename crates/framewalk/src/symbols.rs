//! Names for frames.
//!
//! All frames of one file are looked up together, after the recording, so that every file is read
//! once. What a file says is an allegation: a lookup that fails, or a reader that panics, leaves
//! frames without a name (`libfoo.so+0x1234`) and nothing else.

#[cfg(test)]
mod hostile;
mod layout;
mod names;
mod perf_map;

pub(crate) use names::clean;
pub use perf_map::{PerfMap, PerfMaps};

use crate::processes::Objects;
use crate::profile::{FrameId, Profile};
use crate::sample::{ObjectId, Place};
use indexmap::IndexSet;
use names::Named;
use std::collections::BTreeMap;

/// A function, under one name, in one place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Function {
    /// Its name, demangled; or what is known in place of one. Free of control characters.
    pub name: String,
    /// The file of its code; none for the kernel and for generated code.
    pub object: Option<ObjectId>,
    /// The path of its source, where debug information tells.
    pub source: Option<String>,
}

/// What is known of a frame: one entry per function, as inlining can make several of one frame.
#[derive(Debug, Clone, Copy)]
struct Entry {
    function: u32,
    line: u32,
}

/// The names of all frames of a profile.
#[derive(Debug, Default)]
pub struct Symbols {
    functions: IndexSet<Function>,
    entries: Vec<Entry>,
    /// For each frame its part of the entries: (first, count).
    frames: Vec<(u32, u32)>,
}

/// Addresses (or file offsets) to look up, and the frames that ask.
type Addresses = Vec<(u64, FrameId)>;

impl Symbols {
    /// The functions of a frame and the line in each (0: unknown): first the one that was called,
    /// then what was inlined into it, innermost last. Never empty for a frame of the profile.
    pub fn of(&self, frame: FrameId) -> impl DoubleEndedIterator<Item = (&Function, u32)> {
        self.numbered(frame)
            .map(|(number, line)| (&self.functions[number as usize], line))
    }

    /// The same by number: see [`Symbols::function`].
    pub fn numbered(&self, frame: FrameId) -> impl DoubleEndedIterator<Item = (u32, u32)> {
        let (first, count) = self.frames[frame.0 as usize];
        let entries = &self.entries[first as usize..][..count as usize];
        entries.iter().map(|entry| (entry.function, entry.line))
    }

    /// The function of this number.
    pub fn function(&self, number: u32) -> &Function {
        &self.functions[number as usize]
    }

    /// Looks all frames of a profile up. `progress` hears what is being read.
    pub fn look_up(
        profile: &Profile,
        objects: &Objects,
        perf_maps: &PerfMaps,
        progress: &mut dyn FnMut(&str),
    ) -> Symbols {
        let mut by_object: BTreeMap<ObjectId, Addresses> = BTreeMap::new();
        let mut by_process: BTreeMap<u32, Addresses> = BTreeMap::new();
        let mut kernel = Addresses::new();
        let mut described: Vec<(FrameId, &str)> = Vec::new();
        for (id, located) in profile.frames() {
            let (address, group) = match located.frame.place {
                Place::Object(object, offset) => (offset, by_object.entry(object).or_default()),
                Place::Anonymous(address) => (address, by_process.entry(located.pid).or_default()),
                Place::Described { address, name, .. } => {
                    if let Some(name) = name.and_then(|name| objects.generated.get(name)) {
                        described.push((id, name));
                        continue;
                    }
                    (address, by_process.entry(located.pid).or_default())
                }
                Place::Kernel(address) => (address, &mut kernel),
            };
            // The instruction before a return address is the call; any byte of it will do.
            let back = u64::from(located.frame.is_return_address);
            group.push((address.saturating_sub(back), id));
        }

        let mut symbols = Symbols {
            frames: vec![(0, 0); profile.frames().len()],
            ..Symbols::default()
        };
        for (id, name) in described {
            symbols.frames[id.0 as usize] = symbols.push(vec![Named::new(name)], None);
        }
        for (id, addresses) in by_object {
            let object = objects.get(id);
            progress(&clean(&object.path.to_string_lossy()));
            symbols.add(addresses, Some(id), |offsets| {
                names::of_object(object, offsets)
            });
        }
        if !kernel.is_empty() {
            progress("/proc/kallsyms");
            symbols.add(kernel, None, names::of_kernel);
        }
        for (pid, addresses) in by_process {
            progress(&format!("the perf map of process {pid}"));
            let map = perf_maps.read(pid).unwrap_or_default();
            symbols.add(addresses, None, |addresses| {
                names::of_generated(&map, addresses)
            });
        }
        symbols
    }

    /// Looks frames up that share a source of names, each address once.
    fn add(
        &mut self,
        mut addresses: Addresses,
        object: Option<ObjectId>,
        look_up: impl FnOnce(&[u64]) -> Vec<Vec<Named>>,
    ) {
        addresses.sort_unstable();
        let mut unique: Vec<u64> = addresses.iter().map(|&(address, _)| address).collect();
        unique.dedup();
        let entries: Vec<_> = look_up(&unique)
            .into_iter()
            .map(|named| self.push(named, object))
            .collect();
        for (address, frame) in addresses {
            if let Ok(index) = unique.binary_search(&address) {
                self.frames[frame.0 as usize] = entries[index];
            }
        }
    }

    fn push(&mut self, named: Vec<Named>, object: Option<ObjectId>) -> (u32, u32) {
        let first = self.entries.len() as u32;
        let count = named.len() as u32;
        for Named { name, source, line } in named {
            let function = Function {
                name,
                object,
                source,
            };
            let function = self.functions.insert_full(function).0 as u32;
            self.entries.push(Entry { function, line });
        }
        (first, count)
    }
}

#[cfg(test)]
mod tests;
