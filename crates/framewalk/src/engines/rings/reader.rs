//! Empties the rings on a thread of its own, so that neither building a table nor a slow
//! consumer costs samples.

use super::record;
use super::sys::Ring;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// Bytes that may wait to be walked. Beyond it samples are dropped (and counted) when they are read.
const MAX_WAITING: usize = 256 << 20;
/// How long to wait for a ring to fill to its watermark, nanoseconds.
const WAIT_NS: i64 = 50_000_000;
/// Every so many rounds the reader looks whether the target has ended.
const LOOK_EVERY: u32 = 4;

/// What the reader tells.
#[derive(Debug)]
pub(in crate::engines) enum Round {
    /// What was in the rings.
    Read {
        /// Everything written before this time was in the rings, CLOCK_MONOTONIC nanoseconds.
        began: u64,
        /// The records of each ring that had some.
        rings: Vec<Bytes>,
        /// Samples that were dropped because too much waits already.
        dropped: u64,
    },
    /// Every event's threads have ended.
    Ended,
    /// The rings cannot be waited for.
    Failed(io::Error),
}

/// Bytes that count as waiting until they are dropped.
#[derive(Debug)]
pub(in crate::engines) struct Bytes {
    pub(in crate::engines) bytes: Vec<u8>,
    waiting: Arc<AtomicUsize>,
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// The reading thread.
#[derive(Debug)]
pub(in crate::engines) struct Reader {
    rounds: Receiver<Round>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Starts to read. It notices by itself when all `events` have ended.
    pub(in crate::engines) fn start(
        rings: Vec<Ring>,
        events: Arc<Vec<OwnedFd>>,
    ) -> io::Result<Reader> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let (sender, rounds) = channel();
        let reading = Reading {
            rings,
            events,
            stop: Arc::clone(&stop),
            sender,
            waiting: Arc::default(),
        };
        let thread = std::thread::Builder::new()
            .name("perf-rings".into())
            .spawn(move || reading.run())?;
        Ok(Reader {
            rounds,
            stop,
            thread: Some(thread),
        })
    }

    /// What was read; when the reader has stopped, what is left and then an error.
    pub(in crate::engines) fn rounds(&self) -> &Receiver<Round> {
        &self.rounds
    }

    /// Lets the thread read the rings once more and waits for its end. Its rounds can still be received.
    pub(in crate::engines) fn stop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Reading {
    rings: Vec<Ring>,
    events: Arc<Vec<OwnedFd>>,
    stop: Arc<OwnedFd>,
    sender: Sender<Round>,
    waiting: Arc<AtomicUsize>,
}

impl Reading {
    fn run(mut self) {
        let result = (1u32..).try_for_each(|round| {
            let stopped = self.wait()?;
            let ended = stopped || (round.is_multiple_of(LOOK_EVERY) && self.all_ended()?);
            // Whatever ended before this point has written all it ever will.
            let round = self.read();
            self.tell(round)?;
            if ended {
                self.tell(Round::Ended)?;
                return Err(None);
            }
            Ok(())
        });
        if let Err(Some(error)) = result {
            let _ = self.sender.send(Round::Failed(error));
        }
    }

    /// Waits until a ring is worth reading; true when it is time to stop.
    fn wait(&self) -> Result<bool, Option<io::Error>> {
        let mut fds = vec![PollFd::new(&*self.stop, PollFlags::IN)];
        fds.extend(
            self.rings
                .iter()
                .map(|ring| PollFd::from_borrowed_fd(ring.as_fd(), PollFlags::IN)),
        );
        poll_for(&mut fds, WAIT_NS)?;
        Ok(fds.first().is_some_and(|stop| !stop.revents().is_empty()))
    }

    /// Whether every event's thread, and all that inherited from it, has ended.
    fn all_ended(&self) -> Result<bool, Option<io::Error>> {
        let mut fds: Vec<_> = self
            .events
            .iter()
            .map(|event| PollFd::new(event, PollFlags::empty()))
            .collect();
        poll_for(&mut fds, 0)?;
        Ok(fds
            .iter()
            .all(|event| event.revents().contains(PollFlags::HUP)))
    }

    fn read(&mut self) -> Round {
        let began = now();
        let mut dropped = 0;
        let mut rings = Vec::new();
        for ring in &mut self.rings {
            let mut bytes = Vec::new();
            ring.drain(&mut bytes);
            if self.waiting.load(Ordering::Relaxed) > MAX_WAITING {
                (bytes, dropped) = without_samples(&bytes, dropped);
            }
            if !bytes.is_empty() {
                self.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
                rings.push(Bytes {
                    bytes,
                    waiting: Arc::clone(&self.waiting),
                });
            }
        }
        Round::Read {
            began,
            rings,
            dropped,
        }
    }

    /// Fails when nobody listens any more.
    fn tell(&self, round: Round) -> Result<(), Option<io::Error>> {
        self.sender.send(round).map_err(|_| None)
    }
}

fn poll_for(fds: &mut [PollFd<'_>], nanoseconds: i64) -> Result<(), Option<io::Error>> {
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: nanoseconds,
    };
    match poll(fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(Some(errno.into())),
    }
}

/// The records that say what runs where must never be dropped.
fn without_samples(bytes: &[u8], mut dropped: u64) -> (Vec<u8>, u64) {
    let mut kept = Vec::new();
    for (_, range) in record::split(bytes) {
        let record = bytes.get(range).unwrap_or_default();
        if record::is_sample(record) {
            dropped += 1;
        } else {
            kept.extend_from_slice(record);
        }
    }
    (kept, dropped)
}

/// CLOCK_MONOTONIC, nanoseconds.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
