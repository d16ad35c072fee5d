//! Puts the records of all rings into the order of their time.

use super::reader::Bytes;
use super::record;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

/// A record has its time before it is in the ring: a thread may be preempted in between. Records
/// that are older than this when a round begins are taken to be there, nanoseconds.
const SETTLED_NS: u64 = 20_000_000;

/// One record.
#[derive(Debug)]
pub(in crate::engines) struct Due {
    /// When it was written, CLOCK_MONOTONIC nanoseconds.
    pub(in crate::engines) time: u64,
    ring: Rc<Bytes>,
    range: Range<usize>,
}

impl Due {
    pub(in crate::engines) fn bytes(&self) -> &[u8] {
        self.ring.bytes.get(self.range.clone()).unwrap_or_default()
    }
}

/// Records that wait for others that may be older.
#[derive(Debug, Default)]
pub(in crate::engines) struct Queue {
    records: VecDeque<Due>,
    /// Everything before this time has come.
    settled: u64,
}

impl Queue {
    /// Adds the records of a round that began at `began`.
    pub(in crate::engines) fn push(&mut self, began: u64, rings: Vec<Bytes>) {
        for ring in rings {
            let ring = Rc::new(ring);
            for (time, range) in record::split(&ring.bytes) {
                self.records.push_back(Due {
                    time,
                    ring: Rc::clone(&ring),
                    range,
                });
            }
        }
        // Stable: what one ring wrote at one time stays in order.
        self.records.make_contiguous().sort_by_key(|due| due.time);
        self.settled = began.saturating_sub(SETTLED_NS);
    }

    /// The time before which every record has come.
    pub(in crate::engines) fn settled(&self) -> u64 {
        self.settled
    }

    /// The oldest record, if nothing older can come any more (`all`: nothing at all will come).
    pub(in crate::engines) fn pop(&mut self, all: bool) -> Option<Due> {
        let is_due = all || self.records.front()?.time < self.settled;
        if is_due {
            self.records.pop_front()
        } else {
            None
        }
    }
}
