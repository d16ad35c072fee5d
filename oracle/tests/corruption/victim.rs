//! A process that stands still, and whose memory and registers a test changes between two stops.
#![allow(unsafe_code)]

use framewalk_oracle::programs::build;
use framewalk_walk::Registers;
use framewalk_walk::arch::FULL;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io::{IoSlice, IoSliceMut};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The program, compiled; or why there is none.
pub(crate) fn program() -> Result<PathBuf, String> {
    build(
        "victim.c",
        &Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs"),
    )
}

/// A traced process that stands in `stand_still`.
pub(crate) struct Victim {
    child: Child,
    pub(crate) tid: Pid,
    /// The registers with which it stands.
    pub(crate) still: libc::user_regs_struct,
    pub(crate) info: Info,
    /// Bytes of its stack from below the stack pointer on, as they were.
    pub(crate) stack: (u64, Vec<u8>),
}

/// What `victim.c` tells.
#[derive(Debug, Clone)]
pub(crate) struct Info {
    pub(crate) framed_body: u64,
    pub(crate) edge: std::ops::Range<u64>,
    pub(crate) handler_return: u64,
}

const BELOW: u64 = 256;
const STACK: usize = 3072;

impl Victim {
    /// Runs it to where it stands, or says why it does not get there: its file may be corrupted.
    pub(crate) fn start(program: &Path, library: Option<&Path>) -> Result<Victim, String> {
        let mut command = Command::new(program);
        command
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.envs(library.map(|library| ("LD_PRELOAD", library)));
        // SAFETY: the closure makes one system call; it neither allocates nor takes locks.
        unsafe {
            command.pre_exec(|| ptrace::traceme().map_err(Into::into));
        }
        let child = command.spawn().map_err(|error| error.to_string())?;
        let tid = Pid::from_raw(child.id().cast_signed());
        let mut victim = Victim {
            child,
            tid,
            still: ptrace_registers_none(),
            info: Info {
                framed_body: 0,
                edge: 0..0,
                handler_return: 0,
            },
            stack: (0, Vec::new()),
        };
        let begun = waitpid(tid, None);
        if begun != Ok(WaitStatus::Stopped(tid, Signal::SIGTRAP)) {
            return Err(format!("{begun:?}"));
        }
        ptrace::setoptions(tid, ptrace::Options::PTRACE_O_EXITKILL).unwrap();
        let mut signal = None;
        loop {
            ptrace::cont(tid, signal).unwrap();
            match waitpid(tid, None).unwrap() {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => break,
                WaitStatus::Stopped(_, Signal::SIGUSR1) => signal = Some(Signal::SIGUSR1),
                other => return Err(format!("{other:?}")),
            }
        }
        victim.still = ptrace::getregs(tid).unwrap();
        let mut words = [0; 5];
        for (word, at) in words.iter_mut().zip((victim.still.rdi..).step_by(8)) {
            *word = victim.word(at).ok_or("nothing told")?;
        }
        let [framed_body, stand_still, edge, edge_end, handler_return] = words;
        if victim.still.rip != stand_still {
            return Err(format!("at {:#x}", victim.still.rip));
        }
        victim.info = Info {
            framed_body,
            edge: edge..edge_end,
            handler_return,
        };
        let start = victim.still.rsp - BELOW;
        let mut stack = vec![0; STACK];
        if !victim.read(start, &mut stack) {
            return Err(format!("no stack at {start:#x}"));
        }
        victim.stack = (start, stack);
        Ok(victim)
    }

    pub(crate) fn read(&self, at: u64, into: &mut [u8]) -> bool {
        let (base, len) = (at as usize, into.len());
        let read = process_vm_readv(
            self.tid,
            &mut [IoSliceMut::new(into)],
            &[RemoteIoVec { base, len }],
        );
        read == Ok(len)
    }

    pub(crate) fn word(&self, at: u64) -> Option<u64> {
        let mut word = [0; 8];
        self.read(at, &mut word).then(|| u64::from_le_bytes(word))
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        let (base, len) = (at as usize, bytes.len());
        let written = process_vm_writev(
            self.tid,
            &[IoSlice::new(bytes)],
            &[RemoteIoVec { base, len }],
        );
        assert_eq!(written, Ok(len), "{at:#x}");
    }

    pub(crate) fn put(&self, at: u64, word: u64) {
        self.write(at, &word.to_le_bytes());
    }

    /// Lets it try one instruction with these registers; those that it has then. It may have faulted.
    pub(crate) fn step(&self, registers: libc::user_regs_struct) -> libc::user_regs_struct {
        ptrace::setregs(self.tid, registers).expect("plain registers");
        ptrace::step(self.tid, None).unwrap();
        let stopped = waitpid(self.tid, None).unwrap();
        assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
        ptrace::getregs(self.tid).unwrap()
    }

    /// As it was.
    pub(crate) fn restore(&self) {
        self.write(self.stack.0, &self.stack.1);
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ptrace_registers_none() -> libc::user_regs_struct {
    // SAFETY: plain integers.
    unsafe { std::mem::zeroed() }
}

/// By DWARF number (AMD64 psABI figure 3.36).
pub(crate) fn registers(r: &libc::user_regs_struct) -> Registers {
    let mut full = [0; FULL];
    full[..16].copy_from_slice(&[
        r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12,
        r.r13, r.r14, r.r15,
    ]);
    Registers {
        pc: r.rip,
        sp: r.rsp,
        fp: r.rbp,
        full: Some(full),
    }
}
