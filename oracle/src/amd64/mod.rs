//! x86-64 by ptrace(2): every thread of a command, each stepped whenever it has stopped.

mod begin;
mod decode;
mod interrupt;
mod sys;

pub use begin::Begin;
pub use interrupt::Interrupted;

use crate::machine::{Boundary, Event, Machine};
use crate::shadow::Did;
use decode::Decoded;
use framewalk_walk::Registers;
use framewalk_walk::arch::FULL;
use libc::user_regs_struct;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::process::{Child, Command};

/// Bytes that one read of a stack brings.
const WINDOW: usize = 4 * 4096;
/// Bytes of the longest instruction.
const LONGEST: usize = 15;

#[derive(Debug)]
struct Thread {
    pid: u32,
    /// Where it stood, and what it is about to execute; none where that is not known.
    before: Option<(user_regs_struct, Decoded)>,
    /// The signal that is delivered with the next step.
    signal: i32,
    executed: bool,
    began: Option<(u32, bool)>,
    /// It runs at full speed, because nobody knows what calls are under way in it.
    free: bool,
}

/// A command and all that it starts.
#[derive(Debug)]
pub struct Stepped {
    child: Child,
    threads: HashMap<i32, Thread>,
    /// Who created the threads that have not stopped yet, or the other way round.
    created: HashMap<i32, (u32, bool)>,
    /// Those who wait until what they created (the key) was seen: it begins with a copy of the calls that are under way.
    held: HashMap<i32, i32>,
    early: VecDeque<i32>,
    begin: Begin,
    decoded: HashMap<u32, HashMap<u64, Decoded>>,
    /// The names of all instructions that threads were about to execute.
    met: BTreeSet<String>,
    /// To be stepped before the next one is heard.
    last: Option<i32>,
    window: Box<[u8; WINDOW]>,
    seen: (u32, u64, usize),
    status: Option<i32>,
}

impl Stepped {
    /// Starts a command; it stands before the first instruction that is stepped.
    pub fn start(command: &mut Command, begin: Begin) -> io::Result<Stepped> {
        sys::pin()?;
        let child = sys::spawn(command)?;
        let tid = child.id().cast_signed();
        let Some((first, status)) = sys::wait()? else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if first != tid || !libc::WIFSTOPPED(status) {
            return Err(io::Error::other("it did not stop"));
        }
        sys::follow(tid)?;
        let mut thread = Thread::new(child.id(), None);
        thread.executed = true;
        let mut early = VecDeque::new();
        match begin {
            Begin::Exec => early.push_back(tid),
            Begin::Entry => {
                begin::to_entry(tid)?;
                early.push_back(tid);
            }
            Begin::Thread => {
                thread.free = true;
                sys::run(tid, 0)?;
            }
        }
        Ok(Stepped {
            child,
            threads: HashMap::from([(tid, thread)]),
            created: HashMap::new(),
            held: HashMap::new(),
            early,
            begin,
            decoded: HashMap::new(),
            met: BTreeSet::new(),
            last: None,
            window: Box::new([0; WINDOW]),
            seen: (0, 0, 0),
            status: None,
        })
    }

    /// The wait status with which the command ended, if it did.
    pub fn status(&self) -> Option<i32> {
        self.status
    }

    fn decode(&mut self, pid: u32, pc: u64) -> Decoded {
        if let Some(known) = self.decoded.get(&pid).and_then(|known| known.get(&pc)) {
            return *known;
        }
        let mut bytes = [0; LONGEST];
        let length = sys::read(pid, pc, &mut bytes);
        let (decoded, name) = Decoded::of(pc, &bytes[..length]);
        self.met.insert(name);
        self.decoded.entry(pid).or_default().insert(pc, decoded);
        decoded
    }

    /// Handles a stop that is a boundary: what led to it.
    fn boundary(&mut self, tid: i32) -> io::Result<Option<Boundary>> {
        let now = sys::registers(tid)?;
        self.seen.2 = 0;
        let Some(thread) = self.threads.get_mut(&tid) else {
            return Ok(None);
        };
        let pid = thread.pid;
        let (before, executed, began) = (
            thread.before.take(),
            std::mem::take(&mut thread.executed),
            thread.began.take(),
        );
        let signal = std::mem::take(&mut thread.signal);
        let (mut event, mut remapped) = (Event::Stepped(Did::Plain), false);
        if executed {
            (event, remapped) = (Event::Exec, true);
        } else if let Some((parent, own_stack)) = began {
            (event, remapped) = (Event::Began { parent, own_stack }, true);
        } else if let Some(delivered) = (signal != 0)
            .then(|| self.delivered(pid, signal, &now))
            .flatten()
        {
            event = delivered;
        } else if let Some((before, decoded)) = before {
            let (did, maps) = match decoded {
                Decoded::Plain => (Did::Plain, false),
                Decoded::Call(after) => (Did::Call(after), false),
                Decoded::Transfer => (Did::Transfer, false),
                Decoded::Load => {
                    let word = self.word(pid, now.rsp);
                    (Did::Load { word }, false)
                }
                Decoded::System => match before.rax.cast_signed() {
                    libc::SYS_rt_sigreturn => (Did::SignalReturn, false),
                    libc::SYS_mmap | libc::SYS_munmap | libc::SYS_mprotect | libc::SYS_mremap => {
                        (Did::Plain, true)
                    }
                    _ => (Did::Plain, false),
                },
            };
            (event, remapped) = (Event::Stepped(did), maps);
        }
        if remapped {
            self.decoded.remove(&pid);
        }
        let decoded = self.decode(pid, now.rip);
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.before = Some((now, decoded));
        }
        Ok(Some(Boundary {
            tid: tid.cast_unsigned(),
            pid,
            registers: registers(&now),
            event,
            remapped,
        }))
    }

    /// Whether a handler begins here: the arguments are the signal and its frame, just above the return
    /// address (arch/x86/include/asm/sigframe.h struct rt_sigframe).
    fn delivered(&mut self, pid: u32, signal: i32, now: &user_regs_struct) -> Option<Event> {
        const SP: u64 = 8 + 40 + 15 * 8;
        const PC: u64 = 8 + 40 + 16 * 8;
        if now.rdi != signal as u64 || now.rdx != now.rsp.wrapping_add(8) {
            return None;
        }
        let from = (self.word(pid, now.rsp + PC)?, self.word(pid, now.rsp + SP)?);
        let trampoline = self.word(pid, now.rsp)?;
        let frame = now.rsp + 8;
        Some(Event::Signal {
            from,
            trampoline,
            frame,
        })
    }

    fn ended(&mut self, tid: i32, status: i32) {
        if tid == self.child.id().cast_signed() {
            self.status = Some(status);
        }
        self.threads.remove(&tid);
    }

    /// What a stop means; true where it is a boundary.
    fn told(&mut self, tid: i32, status: i32) -> io::Result<bool> {
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        match event {
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                let child = sys::event_message(tid)? as i32;
                let own_stack = self.own_stack(tid)?;
                self.created.insert(child, (tid.cast_unsigned(), own_stack));
                self.held.insert(child, tid);
                if let Some(at) = self.early.iter().position(|&early| early == child) {
                    self.early.remove(at);
                    self.adopt(child)?;
                    // It is stepped once, so that it has a first boundary of its own.
                    self.resume(child, 0)?;
                }
                return Ok(false);
            }
            libc::PTRACE_EVENT_EXEC => {
                if let Some(thread) = self.threads.get_mut(&tid) {
                    thread.executed = true;
                }
                if self.begin == Begin::Entry && !self.is_free(tid) {
                    return begin::to_entry(tid);
                }
                self.resume(tid, 0)?;
                return Ok(false);
            }
            _ => {}
        }
        if !self.threads.contains_key(&tid) {
            if self.created.contains_key(&tid) {
                self.adopt(tid)?;
                self.resume(tid, 0)?;
            } else {
                self.early.push_back(tid);
            }
            return Ok(false);
        }
        if signal != libc::SIGTRAP {
            if let Some(thread) = self.threads.get_mut(&tid) {
                thread.signal = signal;
            }
            self.resume(tid, signal)?;
            return Ok(false);
        }
        if self.is_free(tid) {
            self.resume(tid, 0)?;
            return Ok(false);
        }
        Ok(true)
    }

    fn is_free(&self, tid: i32) -> bool {
        self.threads.get(&tid).is_some_and(|thread| thread.free)
    }

    /// Lets a thread go on, after a signal (or 0) is delivered: one instruction, unless it is free.
    fn resume(&mut self, tid: i32, signal: i32) -> io::Result<()> {
        match self.is_free(tid) {
            true => sys::run(tid, signal),
            false => sys::step(tid, signal),
        }
    }

    fn adopt(&mut self, tid: i32) -> io::Result<()> {
        let began = self.created.remove(&tid);
        let pid = group(tid).unwrap_or(tid.cast_unsigned());
        let mut thread = Thread::new(pid, began);
        // What it copies of the stack of a free thread is as unknown.
        thread.free = began
            .is_some_and(|(parent, own_stack)| !own_stack && self.is_free(parent.cast_signed()));
        let free = thread.free;
        self.threads.insert(tid, thread);
        if free { self.release(tid) } else { Ok(()) }
    }

    /// Lets the creator of a thread go on.
    fn release(&mut self, created: i32) -> io::Result<()> {
        match self.held.remove(&created) {
            Some(creator) => gone(self.resume(creator, 0)),
            None => Ok(()),
        }
    }

    /// Whether what a thread has just created begins on another stack: clone(2) says where.
    fn own_stack(&mut self, tid: i32) -> io::Result<bool> {
        let at = sys::registers(tid)?;
        Ok(match at.orig_rax.cast_signed() {
            libc::SYS_clone => at.rsi != 0,
            // struct clone_args: the stack is the sixth of its words.
            libc::SYS_clone3 => {
                let pid = self.threads.get(&tid).map_or(0, |thread| thread.pid);
                self.seen.2 = 0;
                self.word(pid, at.rdi.wrapping_add(40))
                    .is_some_and(|stack| stack != 0)
            }
            _ => false,
        })
    }
}

impl Thread {
    fn new(pid: u32, began: Option<(u32, bool)>) -> Thread {
        Thread {
            pid,
            before: None,
            signal: 0,
            executed: false,
            began,
            free: false,
        }
    }
}

impl Machine for Stepped {
    const SLOT: u64 = 8;

    fn step(&mut self) -> io::Result<Option<Boundary>> {
        if let Some(last) = self.last.take() {
            let signal = self.threads.get(&last).map_or(0, |thread| thread.signal);
            gone(sys::step(last, signal))?;
        } else if let Some(first) = self.early.pop_front() {
            self.last = Some(first);
            return self.boundary(first);
        }
        while let Some((tid, status)) = sys::wait()? {
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                self.ended(tid, status);
                self.release(tid)?;
                continue;
            }
            if gone(self.told(tid, status))?
                && let Some(boundary) = gone(self.boundary(tid))?
            {
                // It is looked at before its creator can do anything: stops are heard one by one.
                self.release(tid)?;
                self.last = Some(tid);
                return Ok(Some(boundary));
            }
        }
        Ok(None)
    }

    fn word(&mut self, pid: u32, address: u64) -> Option<u64> {
        for _ in 0..2 {
            let (of, start, length) = self.seen;
            let offset = usize::try_from(address.wrapping_sub(start)).ok()?;
            if of == pid
                && let Some(word) = self.window[..length].get(offset..)
                && let Some(word) = word.first_chunk()
            {
                return Some(u64::from_le_bytes(*word));
            }
            self.seen = (pid, address, sys::read(pid, address, &mut self.window[..]));
        }
        None
    }

    fn met(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.met.contains(*name))
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        // What is left of it has ended already, or is ended here with all that it created.
        let tids: Vec<_> = self.threads.values().map(|thread| thread.pid).collect();
        for pid in tids {
            sys::kill(pid);
        }
        while let Ok(Some(_)) = sys::wait() {}
    }
}

/// A thread that was killed meanwhile is no error: it is told to have ended.
fn gone<T: Default>(result: io::Result<T>) -> io::Result<T> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(T::default()),
        result => result,
    }
}

/// The process of a thread.
fn group(tid: i32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}

/// By DWARF number (AMD64 psABI figure 3.36).
fn registers(r: &user_regs_struct) -> Registers {
    let mut full = [0; FULL];
    full[..17].copy_from_slice(&[
        r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12,
        r.r13, r.r14, r.r15, r.rip,
    ]);
    Registers {
        pc: r.rip,
        sp: r.rsp,
        fp: r.rbp,
        full: Some(full),
    }
}
