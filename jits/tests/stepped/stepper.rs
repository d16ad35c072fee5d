//! A process that is run step by step, and the calls that are under way in it.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::ops::Range;

pub(crate) use libc::user_regs_struct as Registers;

/// Where the caller of a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) cfa: u64,
    pub(crate) ra: u64,
    pub(crate) fp: u64,
}

/// Finds the caller by what describes the code at `registers.rip`.
type Find = Box<dyn Fn(&Child, &Registers) -> Caller>;

/// A stretch of generated code.
pub(crate) struct Described {
    pub(crate) range: Range<u64>,
    /// Whether a function begins here.
    pub(crate) entry: bool,
    pub(crate) find: Find,
}

pub(crate) struct Child(i32);

impl Child {
    /// A word of its memory.
    pub(crate) fn word(&self, address: u64) -> u64 {
        // SAFETY: errno is this thread's.
        unsafe { *libc::__errno_location() = 0 };
        // SAFETY: reads the child's memory, not ours.
        let word = unsafe { libc::ptrace(libc::PTRACE_PEEKDATA, self.0, address, 0) };
        // SAFETY: as above.
        assert_eq!(unsafe { *libc::__errno_location() }, 0, "{address:#x}");
        word as u64
    }
}

/// What was seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Addresses of instructions.
    pub(crate) instructions: BTreeSet<u64>,
    /// Most calls under way.
    pub(crate) deepest: usize,
    calls: Vec<Caller>,
}

impl Seen {
    /// Looks at the child where it stands.
    fn look(&mut self, child: &Child, described: &[Described], registers: &Registers) {
        let returned = |call: &Caller| (registers.rip, registers.rsp) == (call.ra, call.cfa);
        if self.calls.last().is_some_and(returned) {
            let call = self.calls.pop().expect("a call");
            assert_eq!(registers.rbp, call.fp);
        }
        let mut holding = described.iter();
        let Some(here) = holding.find(|part| part.range.contains(&registers.rip)) else {
            return;
        };
        self.instructions.insert(registers.rip);
        if here.entry && registers.rip == here.range.start {
            self.calls.push(Caller {
                cfa: registers.rsp + 8,
                ra: child.word(registers.rsp),
                fp: registers.rbp,
            });
            self.deepest = self.deepest.max(self.calls.len());
        }
        let found = (here.find)(child, registers);
        let offset = registers.rip - here.range.start;
        assert_eq!(
            Some(&found),
            self.calls.last(),
            "+{offset:#x} of {:#x?}",
            here.range
        );
    }
}

/// Runs something in a process of its own, and looks at it at each instruction.
pub(crate) fn run(described: &[Described], what: impl FnOnce()) -> Seen {
    // SAFETY: the child runs generated code and ends; it takes no locks and allocates nothing.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: system calls about this process.
        unsafe {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::raise(libc::SIGSTOP);
        }
        what();
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) };
    }
    assert!(pid > 0);
    let (child, mut seen) = (Child(pid), Seen::default());
    loop {
        let mut status = 0;
        // SAFETY: waits for our own child.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!(waited, pid);
        if libc::WIFEXITED(status) {
            assert_eq!(libc::WEXITSTATUS(status), 0);
            assert!(seen.calls.is_empty());
            return seen;
        }
        assert!(libc::WIFSTOPPED(status), "{status:#x}");
        // SAFETY: plain numbers.
        let mut registers: Registers = unsafe { std::mem::zeroed() };
        let at = &raw mut registers;
        // SAFETY: writes the registers to a struct of their type.
        let got = unsafe { libc::ptrace(libc::PTRACE_GETREGS, pid, 0, at) };
        assert_eq!(got, 0);
        seen.look(&child, described, &registers);
        // SAFETY: the child is stopped.
        let stepped = unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, pid, 0, 0) };
        assert_eq!(stepped, 0);
    }
}

/// Generated code in this process.
pub(crate) fn code(range: &Range<u64>) -> &'static [u8] {
    let len = (range.end - range.start) as usize;
    // SAFETY: the tests never free or change what they generated.
    unsafe { std::slice::from_raw_parts(range.start as *const u8, len) }
}
