//! Tables built beside the recording, by one thread.

use crate::processes::{ObjectSource, Table, TableBuilder};
use crate::sample::ObjectId;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// The thread's two ends.
pub(super) struct Builds {
    requests: Sender<(ObjectId, ObjectSource)>,
    results: Receiver<(ObjectId, Arc<Table>)>,
    under_way: usize,
}

impl Builds {
    pub(super) fn start() -> Builds {
        let (requests, todo) = channel::<(ObjectId, ObjectSource)>();
        let (done, results) = channel();
        // It ends when `requests` is dropped.
        thread::spawn(move || {
            let mut builder = TableBuilder::default();
            for (id, source) in todo {
                if done.send((id, builder.build(&source))).is_err() {
                    break;
                }
            }
        });
        Builds {
            requests,
            results,
            under_way: 0,
        }
    }

    /// Asks for the table of an object.
    pub(super) fn request(&mut self, id: ObjectId, source: ObjectSource) {
        if self.requests.send((id, source)).is_ok() {
            self.under_way += 1;
        }
    }

    /// What is ready; waits for the first one at most so long.
    pub(super) fn ready(&mut self, wait: Duration) -> Vec<(ObjectId, Arc<Table>)> {
        let mut ready: Vec<_> = self.results.try_iter().collect();
        if ready.is_empty() && !wait.is_zero() {
            ready.extend(self.results.recv_timeout(wait));
        }
        self.under_way -= ready.len();
        ready
    }

    /// Nothing is being built.
    pub(super) fn idle(&self) -> bool {
        self.under_way == 0
    }
}
