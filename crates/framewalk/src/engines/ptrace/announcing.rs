//! Answers what the command's processes announce (docs/abi.md): a seccomp filter stops them before the
//! call, the reference registry answers, and the kernel never sees it.

use super::sys;
use crate::launch::HANDED_OVER;
use crate::processes::{AnnouncedCode, Generated, SectionCopies};
use crate::sample::{Frame, Place};
use framewalk_walk::registry::Registry;

/// What the processes announced, and copies of it.
#[derive(Debug, Default)]
pub(super) struct Announcing {
    registry: Registry,
    copies: SectionCopies,
}

impl Announcing {
    /// Answers the system call that a filter stopped a thread before.
    pub(super) fn answer(&mut self, pid: u32, tid: u32) {
        // What a filter of the program's own hands to a tracer would find none, but for framewalk.
        let answer = self.call(pid, tid).unwrap_or(-libc::ENOSYS);
        // It fails for a thread that has just been killed.
        let _ = sys::answer(tid, answer.into());
    }

    fn call(&mut self, pid: u32, tid: u32) -> Option<i32> {
        if sys::event_message(tid).ok()? != u64::from(HANDED_OVER) {
            return None;
        }
        let call = sys::call(tid).ok()??;
        let [option, arguments @ ..] = call.arguments;
        if call.number != libc::SYS_prctl {
            return None;
        }
        let mut read = |address, into: &mut [u8]| sys::read_all(tid, address, into);
        let answer = self
            .registry
            .prctl(pid, option as u32, arguments, &mut read);
        self.copies.keep(pid, self.registry.sections(pid));
        answer
    }

    /// A process created another one.
    pub(super) fn created(&mut self, parent: u32, child: u32, shares: bool) {
        match shares {
            true => self.registry.share(parent, child),
            false => self.registry.fork(parent, child),
        }
    }

    /// A process runs another program now.
    pub(super) fn exec(&mut self, pid: u32) {
        self.registry.exec(pid);
        self.copies.keep(pid, &[]);
    }

    /// A process has ended.
    pub(super) fn exit(&mut self, pid: u32) {
        self.registry.exit(pid);
        self.copies.keep(pid, &[]);
    }

    /// What the process of a stopped thread has announced; none if that is nothing.
    pub(super) fn code(&mut self, pid: u32, tid: u32) -> Option<AnnouncedCode<'_>> {
        let sections = self.registry.sections(pid);
        (!sections.is_empty()).then(|| AnnouncedCode {
            pid,
            sections,
            copies: &mut self.copies,
            read: Some(Box::new(move |address, into: &mut [u8]| {
                sys::read_all(tid, address, into)
            })),
        })
    }

    /// Gives the frames of a walk the names that everybody knows them by.
    pub(super) fn name(&self, frames: &mut [Frame], known: &mut Generated) {
        for frame in frames {
            if let Place::Described { name, .. } = &mut frame.place {
                let own = name.and_then(|name| self.copies.names.get(name));
                *name = own.and_then(|own| known.add(own.as_bytes()));
            }
        }
    }

    /// What is worth a line to the user.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = self.copies.failures().notes();
        if self.registry.uncopied() > 0 {
            let count = self.registry.uncopied();
            notes.push(format!(
                "{count} forks found no room for what was announced"
            ));
        }
        notes
    }
}

/// Whether a thread that has stopped for the creation of a process shares its address space with that:
/// what its system call asked for. (kcmp(2) would know too, but is not allowed everywhere.)
pub(super) fn shares_memory(tid: u32, event: i32) -> bool {
    const VM: u64 = libc::CLONE_VM as u64;
    let vfork = event == libc::PTRACE_EVENT_VFORK;
    let Ok(Some(call)) = sys::call(tid) else {
        return vfork;
    };
    let [first, ..] = call.arguments;
    match call.number {
        libc::SYS_clone => first & VM != 0,
        libc::SYS_clone3 => {
            let mut flags = [0; 8];
            let read = sys::read_all(tid, first, &mut flags);
            (read && u64::from_le_bytes(flags) & VM != 0) || (!read && vfork)
        }
        libc::SYS_fork => false,
        _ => vfork,
    }
}
