//! The traced threads: what they are told and what they tell.

use super::announcing::shares_memory;
use super::sys::{self, Stopped};
use crate::engines::Unavailable;
use crate::processes::task;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::gettid;
use signal_hook::SigId;
use signal_hook::consts::SIGCHLD;
use signal_hook::low_level::{pipe, unregister};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long threads get to stop when they are let go.
const DETACH_TIME: Duration = Duration::from_secs(5);
/// How long a process is held at its first instruction until its creator tells of it: only one that is
/// killed at that moment never does.
const HOLD_TIME: Duration = Duration::from_secs(1);
/// Rounds of looking for threads that were created while others were seized.
const SEIZE_ROUNDS: usize = 100;

/// One traced thread.
#[derive(Debug, Clone)]
struct Tracee {
    pid: u32,
    /// It was asked to stop for a sample; its name then.
    interrupted: Option<String>,
    /// It is in a group-stop.
    listening: bool,
    /// It has not come to the exec with which sampling begins.
    before_exec: bool,
    /// It was created by a traced thread, and has not come to its first stop.
    starting: bool,
    /// No creator told of its process yet.
    unmet: bool,
    /// Since when it has been held for that.
    held: Option<Instant>,
}

/// What a thread told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// It stopped as it was asked to, and waits for [`Tracees::resume`].
    Stopped { pid: u32, comm: String },
    /// Its process runs another program now.
    Exec { pid: u32 },
    /// Its process created another one, which waits for [`Tracees::let_begin`] if it has come so far.
    Created {
        parent: u32,
        child: u32,
        /// Both have the same address space.
        shares: bool,
    },
    /// A seccomp filter stopped it before a system call. It waits for [`Tracees::resume`].
    Filtered { pid: u32 },
    /// Something that has been dealt with.
    Other,
}

/// All traced threads.
#[derive(Debug)]
pub(super) struct Tracees {
    tracees: HashMap<u32, Tracee>,
    /// A byte comes here when any child of this process or traced thread has something to tell.
    bell: OwnedFd,
    bell_signal: SigId,
    /// They run under a filter that hands announcements over: who is created by whom matters.
    filtered: bool,
    /// The thread that made this: only it can trace.
    tracer: u32,
}

impl Tracees {
    /// Begins to trace all threads of processes. Those that wait before an exec get a filter there, and
    /// stop where it says so.
    pub(super) fn seize(pids: &[u32], before_exec: bool) -> Result<Tracees, Unavailable> {
        let mut tracees = Tracees::nobody(before_exec).map_err(|error| Unavailable {
            what: format!("SIGCHLD: {error}"),
            missing: "file descriptors".into(),
        })?;
        for &pid in pids {
            // Until no thread is left that an untraced one created.
            for _ in 0..SEIZE_ROUNDS {
                let known = tracees.tracees.len();
                for tid in task::threads(pid) {
                    tracees.seize_thread(pid, tid, before_exec)?;
                }
                if tracees.tracees.len() == known {
                    break;
                }
            }
        }
        if tracees.is_empty() {
            return Err(Unavailable {
                what: "the process has ended".into(),
                missing: "a running process".into(),
            });
        }
        Ok(tracees)
    }

    fn nobody(filtered: bool) -> io::Result<Tracees> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (bell, ringer) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let bell_signal = pipe::register(SIGCHLD, ringer)?;
        let tracer = gettid().as_raw_nonzero().get().cast_unsigned();
        Ok(Tracees {
            tracees: HashMap::new(),
            bell,
            bell_signal,
            filtered,
            tracer,
        })
    }

    fn seize_thread(&mut self, pid: u32, tid: u32, before_exec: bool) -> Result<(), Unavailable> {
        if self.tracees.contains_key(&tid) {
            return Ok(());
        }
        match sys::seize(tid, self.filtered) {
            Ok(()) => {}
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => return Ok(()),
            // Created by a thread that is traced: so it is traced already.
            Err(_) if task::status(tid, "TracerPid") == Some(self.tracer) => {}
            // It ended meanwhile.
            Err(_) if task::stat(pid, tid).is_none() => return Ok(()),
            Err(error) => return Err(unavailable(&error, tid)),
        }
        self.add(pid, tid, before_exec, false);
        Ok(())
    }

    fn add(&mut self, pid: u32, tid: u32, before_exec: bool, starting: bool) {
        let tracee = Tracee {
            pid,
            interrupted: None,
            listening: false,
            before_exec,
            starting,
            unmet: false,
            held: None,
        };
        self.tracees.entry(tid).or_insert(tracee);
    }

    /// Whether all have ended.
    pub(super) fn is_empty(&self) -> bool {
        self.tracees.is_empty()
    }

    /// Asks all threads that run at this moment to stop; how many.
    pub(super) fn interrupt_running(&mut self) -> u64 {
        let mut interrupted = 0;
        for (&tid, tracee) in &mut self.tracees {
            let busy = tracee.interrupted.is_some() || tracee.listening;
            if busy || tracee.before_exec || tracee.starting {
                continue;
            }
            // Interrupting fails for a thread that has just been killed.
            let running = task::stat(tracee.pid, tid).filter(|stat| stat.running);
            let stat = running.filter(|_| sys::interrupt(tid).is_ok());
            interrupted += u64::from(stat.is_some());
            tracee.interrupted = stat.map(|stat| stat.comm);
        }
        interrupted
    }

    /// Hears what some thread has to tell and sends it on its way. A thread that stopped because it
    /// was asked to stays stopped.
    pub(super) fn hear(&mut self) -> Option<(u32, Told)> {
        let Stopped { tid, signal, event } = sys::stopped()?;
        let Some(tracee) = self.known(tid) else {
            return Some((tid, Told::Other));
        };
        let pid = tracee.pid;
        match event {
            libc::PTRACE_EVENT_STOP if is_group_stop(signal) => {
                (tracee.listening, tracee.interrupted) = (true, None);
                let _ = sys::listen(tid);
                return Some((tid, Told::Other));
            }
            libc::PTRACE_EVENT_STOP => {
                (tracee.listening, tracee.starting) = (false, false);
                if let Some(comm) = tracee.interrupted.take() {
                    return Some((tid, Told::Stopped { pid, comm }));
                }
                if tracee.unmet {
                    tracee.held = Some(Instant::now());
                    return Some((tid, Told::Other));
                }
            }
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                let before_exec = tracee.before_exec;
                let child = self.meet_child(tid, before_exec);
                if let Some(child) = child.filter(|&child| self.filtered && child != pid) {
                    let shares = shares_memory(tid, event);
                    self.resume(tid);
                    let created = Told::Created {
                        parent: pid,
                        child,
                        shares,
                    };
                    return Some((tid, created));
                }
            }
            libc::PTRACE_EVENT_SECCOMP => return Some((tid, Told::Filtered { pid })),
            libc::PTRACE_EVENT_EXEC => {
                (tracee.before_exec, tracee.interrupted) = (false, None);
                // The thread that called it has the leader's id now, and is the only one left.
                self.tracees
                    .retain(|&other, tracee| tracee.pid != pid || other == tid);
                self.resume(tid);
                return Some((tid, Told::Exec { pid }));
            }
            _ => {}
        }
        let signal = if event == 0 { signal } else { 0 };
        // It fails for a thread that has just been killed.
        let _ = sys::resume(tid, signal);
        Some((tid, Told::Other))
    }

    /// The thread that stopped. One that we never heard of was created by a thread that was killed
    /// before it could say so; none: it is not traced, but a child of this program.
    fn known(&mut self, tid: u32) -> Option<&mut Tracee> {
        if !self.tracees.contains_key(&tid) {
            if task::status(tid, "TracerPid") != Some(self.tracer) {
                return None;
            }
            let pid = task::status(tid, "Tgid").unwrap_or(tid);
            let unmet = self.filtered && self.tracees.values().all(|tracee| tracee.pid != pid);
            self.add(pid, tid, false, true);
            if let Some(tracee) = self.tracees.get_mut(&tid) {
                tracee.unmet = unmet;
            }
        }
        self.tracees.get_mut(&tid)
    }

    /// Forgets the threads that have ended; answers the processes of which none is left.
    pub(super) fn forget_ended(&mut self) -> Vec<u32> {
        let mut ended = Vec::new();
        self.tracees.retain(|&tid, tracee| {
            let has_ended = sys::has_ended(tid);
            if has_ended {
                collect(tracee.pid, tid);
                ended.push(tracee.pid);
            }
            let held_for = tracee.held.map(|since| since.elapsed());
            if !has_ended && held_for.is_some_and(|time| time >= HOLD_TIME) {
                tracee.begin(tid);
            }
            !has_ended
        });
        ended.retain(|&pid| self.tracees.values().all(|tracee| tracee.pid != pid));
        ended
    }

    /// Lets a thread go on that stopped because it was asked to.
    pub(super) fn resume(&self, tid: u32) {
        let _ = sys::resume(tid, 0);
    }

    /// Lets a process begin that was held until its creator told of it.
    pub(super) fn let_begin(&mut self, pid: u32) {
        if let Some(tracee) = self.tracees.get_mut(&pid) {
            tracee.begin(pid);
        }
    }

    /// A thread that a traced one has created, which stops by itself at its first instruction; its process.
    fn meet_child(&mut self, parent: u32, before_exec: bool) -> Option<u32> {
        let message = sys::event_message(parent).ok()?;
        let tid = u32::try_from(message).ok()?;
        let pid = task::status(tid, "Tgid").unwrap_or(tid);
        self.add(pid, tid, before_exec, true);
        Some(pid)
    }

    /// Waits until some thread may have something to tell, at most until then.
    pub(super) fn wait_until(&self, end: Instant) -> io::Result<()> {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(
            &mut [PollFd::new(&self.bell, PollFlags::IN)],
            Some(&timeout),
        ) {
            Ok(0) | Err(Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut bytes = [0; 256];
        match read(&self.bell, &mut bytes) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Lets all threads go as they are; how many could not be stopped for it.
    pub(super) fn detach(&mut self) -> usize {
        for (&tid, tracee) in &mut self.tracees {
            let _ = sys::interrupt(tid);
            tracee.begin(tid);
        }
        let end = Instant::now() + DETACH_TIME;
        loop {
            while let Some(stopped) = sys::stopped() {
                self.let_go(stopped);
            }
            self.forget_ended();
            if self.is_empty() || Instant::now() >= end || self.wait_until(end).is_err() {
                break;
            }
        }
        std::mem::take(&mut self.tracees).len()
    }

    fn let_go(&mut self, Stopped { tid, signal, event }: Stopped) {
        if self.known(tid).is_none() {
            return;
        }
        if let libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK = event
        {
            // Its child stops by itself.
            self.meet_child(tid, false);
        }
        let _ = sys::detach(tid, if event == 0 { signal } else { 0 });
        self.tracees.remove(&tid);
    }
}

impl Tracee {
    fn begin(&mut self, tid: u32) {
        self.unmet = false;
        if self.held.take().is_some() {
            let _ = sys::resume(tid, 0);
        }
    }
}

impl Drop for Tracees {
    fn drop(&mut self) {
        self.detach();
        unregister(self.bell_signal);
    }
}

fn is_group_stop(signal: i32) -> bool {
    matches!(
        signal,
        libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU
    )
}

/// Collects an ended thread, unless it is the leader of our own child: whoever started that wants
/// its exit status.
fn collect(pid: u32, tid: u32) {
    let own_child =
        pid == tid && task::stat(pid, tid).is_some_and(|stat| stat.parent == std::process::id());
    if !own_child {
        sys::collect(tid);
    }
}

/// Names what would make it work.
fn unavailable(error: &io::Error, tid: u32) -> Unavailable {
    let what = format!("ptrace: {error}");
    let missing = match task::status(tid, "TracerPid") {
        Some(tracer) if tracer != 0 => format!("a process that {tracer} does not trace already"),
        _ => match yama() {
            Some(scope @ 3..) => {
                format!("sysctl kernel.yama.ptrace_scope < 3 from boot on (now {scope})")
            }
            Some(scope @ 1..) => {
                format!("CAP_SYS_PTRACE, or sysctl kernel.yama.ptrace_scope = 0 (now {scope})")
            }
            _ => "CAP_SYS_PTRACE, or a process of the same user that allows it".into(),
        },
    };
    Unavailable { what, missing }
}

/// Documentation/admin-guide/LSM/Yama.rst; none where the kernel has no Yama.
fn yama() -> Option<u32> {
    fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope")
        .ok()?
        .trim()
        .parse()
        .ok()
}
