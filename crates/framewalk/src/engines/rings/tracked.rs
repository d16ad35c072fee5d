//! What the recorded processes map and what their threads are called, as the records tell it.

use super::record::{RawMap, Record};
use crate::processes::{Mappings, NewMapping, Objects, task};
use std::collections::{HashMap, HashSet};

#[derive(Debug, Clone, Default)]
struct Process {
    mappings: Mappings,
    threads: HashSet<u32>,
}

/// The processes met so far that have not ended.
#[derive(Debug, Default)]
pub(in crate::engines) struct Tracked {
    processes: HashMap<u32, Process>,
    comms: HashMap<u32, String>,
}

impl Tracked {
    /// The executable mappings of a process. One that is new to us is read from /proc.
    pub(in crate::engines) fn mappings(
        &mut self,
        pid: u32,
        tid: u32,
        objects: &mut Objects,
    ) -> &Mappings {
        let process = self.processes.entry(pid).or_insert_with(|| Process {
            mappings: Mappings::of_process(pid, objects).unwrap_or_default(),
            threads: task::threads(pid).into_iter().collect(),
        });
        process.threads.insert(tid);
        &process.mappings
    }

    /// The name of a thread.
    pub(in crate::engines) fn comm(&mut self, pid: u32, tid: u32) -> String {
        let read = || {
            task::stat(pid, tid)
                .map(|stat| stat.comm)
                .unwrap_or_default()
        };
        self.comms.entry(tid).or_insert_with(read).clone()
    }

    /// Takes in what a record says. Records come in the order of their time.
    pub(in crate::engines) fn apply(&mut self, record: &Record<'_>, objects: &mut Objects) {
        match *record {
            Record::Map { pid, ref map } => self.map(pid, map, objects),
            Record::Comm {
                pid,
                tid,
                exec,
                comm,
            } => {
                self.comms
                    .insert(tid, String::from_utf8_lossy(comm).into_owned());
                if exec {
                    // The new program starts with nothing, in one thread.
                    let threads = [tid].into();
                    self.processes.insert(
                        pid,
                        Process {
                            mappings: Mappings::default(),
                            threads,
                        },
                    );
                }
            }
            Record::Fork {
                pid,
                parent,
                tid,
                parent_tid,
            } => {
                if let Some(comm) = self.comms.get(&parent_tid).cloned() {
                    self.comms.insert(tid, comm);
                }
                if pid == parent {
                    if let Some(process) = self.processes.get_mut(&pid) {
                        process.threads.insert(tid);
                    }
                } else if let Some(parent) = self.processes.get(&parent) {
                    let process = Process {
                        mappings: parent.mappings.clone(),
                        threads: [tid].into(),
                    };
                    self.processes.insert(pid, process);
                }
            }
            Record::Exit { pid, tid } => {
                self.comms.remove(&tid);
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.threads.remove(&tid);
                    if process.threads.is_empty() {
                        self.processes.remove(&pid);
                    }
                }
            }
            Record::Sample(_) | Record::Lost(_) | Record::Throttled | Record::Other => {}
        }
    }

    fn map(&mut self, pid: u32, map: &RawMap<'_>, objects: &mut Objects) {
        // A process that is new to us is read as a whole, when its first sample comes.
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        let &RawMap {
            start,
            end,
            offset,
            device,
            inode,
            path,
        } = map;
        let new = NewMapping {
            pid,
            start,
            end,
            offset,
            device,
            inode,
            path,
        };
        // It fails for an impossible range or one mapping too many: then its pcs are no code.
        let _ = process.mappings.insert(new.open(objects));
    }
}
