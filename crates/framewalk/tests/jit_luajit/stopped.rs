//! A process that is stopped and run instruction by instruction, and what its frame areas say of where it stands.
#![allow(unsafe_code)]

use framewalk_announce::area::layout::{GEOMETRY_SIZE, MAX_NAME};
use framewalk_announce::area::observe::{Fault, Geometry, Rule};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// A program under ptrace; killed at the end.
pub(crate) struct Stopped {
    child: Child,
    memory: File,
}

/// Where a thread stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) pc: u64,
    pub(crate) sp: u64,
}

impl Stopped {
    /// Starts a program, and stops it before its first instruction.
    pub(crate) fn start(mut command: Command) -> Stopped {
        // SAFETY: one system call between fork and exec.
        let command = unsafe {
            command.pre_exec(|| {
                libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                Ok(())
            })
        };
        let child = command.spawn().unwrap();
        let memory = format!("/proc/{}/mem", child.id());
        let stopped = Stopped {
            memory: File::open(memory).unwrap(),
            child,
        };
        stopped.wait();
        stopped
    }

    fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    fn wait(&self) {
        let mut status = 0;
        // SAFETY: waits for our own child; the status has the right type.
        let waited = unsafe { libc::waitpid(self.pid(), &raw mut status, 0) };
        assert_eq!(waited, self.pid());
        assert!(libc::WIFSTOPPED(status), "ended with status {status:#x}");
    }

    /// Lets it run until it has used some more CPU time, and stops it.
    pub(crate) fn run(&self) {
        let before = self.cpu_ticks();
        // SAFETY: our own child, which is stopped.
        let went = unsafe { libc::ptrace(libc::PTRACE_CONT, self.pid(), 0, 0) };
        assert_eq!(went, 0);
        while self.cpu_ticks() <= before {
            std::thread::yield_now();
        }
        // SAFETY: our own child, which was not waited for.
        assert_eq!(unsafe { libc::kill(self.pid(), libc::SIGSTOP) }, 0);
        self.wait();
    }

    fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        fields
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum()
    }

    /// Executes one instruction.
    pub(crate) fn step(&self) {
        // SAFETY: our own child, which is stopped.
        let went = unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, self.pid(), 0, 0) };
        assert_eq!(went, 0);
        self.wait();
    }

    pub(crate) fn place(&self) -> Place {
        // SAFETY: plain numbers.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let at = &raw mut registers;
        // SAFETY: our own child, which is stopped; writes to a struct of that type.
        let got = unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.pid(), 0, at) };
        assert_eq!(got, 0);
        Place {
            pc: registers.rip,
            sp: registers.rsp,
        }
    }

    pub(crate) fn word(&self, address: u64) -> u64 {
        let mut bytes = [0; 8];
        self.memory.read_exact_at(&mut bytes, address).unwrap();
        u64::from_le_bytes(bytes)
    }

    /// The frame areas that are mapped: where, and what they say of themselves.
    pub(crate) fn areas(&self) -> Vec<(u64, Geometry)> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid())).unwrap();
        let areas = maps
            .lines()
            .filter(|line| line.contains("memfd:sframe-area"));
        areas
            .map(|line| {
                let (start, _) = line.split_once('-').unwrap();
                let start = u64::from_str_radix(start, 16).unwrap();
                let mut header = [0; GEOMETRY_SIZE as usize];
                self.memory.read_exact_at(&mut header, start).unwrap();
                let length = u64::from_le_bytes(header[40..48].try_into().unwrap());
                (start, Geometry::parse(&header, length).unwrap())
            })
            .collect()
    }

    /// The name and the rule of the code at pc, by the area at `start`.
    pub(crate) fn look_up(
        &self,
        start: u64,
        geometry: &Geometry,
        pc: u64,
    ) -> Result<Option<(String, Rule)>, Fault> {
        let mut read = |at, into: &mut [u8]| self.memory.read_exact_at(into, start + at).is_ok();
        let Some(found) = geometry.look_up(pc, &mut read)? else {
            return Ok(None);
        };
        let mut name = [0; MAX_NAME as usize];
        let name = found.name(geometry, &mut name, &mut read)?;
        let name = String::from_utf8_lossy(name).into_owned();
        Ok(Some((name, found.rule(geometry)?)))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
