//! The calls that are under way in a thread, as they were seen to happen: what a walk has to find.
//!
//! Nothing here reads unwind data. A call pushes an entry; an entry is gone when the stack pointer
//! rises above its place, by whatever way (return, longjmp, exception).

use std::collections::BTreeMap;

/// Entries of one stack, and stacks of one thread, at most.
const MAX_ENTRIES: usize = 1 << 16;
const MAX_STACKS: usize = 1 << 10;
/// A stack pointer loaded so little below everything seen of a stack is still on it, bytes.
const NEAR: u64 = 1 << 16;

/// What a stepped instruction did to control or to the stack pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    /// Neither.
    Plain,
    /// Called; where it returns to.
    Call(u64),
    /// Returned, or jumped to an address from a register or memory.
    Transfer,
    /// Set the stack pointer to a value that was not computed from it.
    Load {
        /// The word at the new stack pointer, should a stack begin there.
        word: Option<u64>,
    },
    /// Left a signal handler by the system call for it.
    SignalReturn,
}

/// One frame outside of the innermost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where it goes on (user address space).
    pub pc: u64,
    /// Its stack pointer then.
    pub sp: u64,
    /// A signal interrupted it: `pc` is no return address.
    pub interrupted: bool,
}

#[derive(Debug, Clone, Default)]
struct Stack {
    entries: Vec<Entry>,
    low: u64,
    high: u64,
    /// The stack that a signal interrupted in favour of this one.
    under: Option<u32>,
}

impl Stack {
    fn at(sp: u64) -> Stack {
        Stack {
            low: sp,
            high: sp,
            ..Stack::default()
        }
    }
}

/// The stacks of one thread. A copy is what a forked child has.
#[derive(Debug, Clone)]
pub struct Shadow {
    stacks: BTreeMap<u32, Stack>,
    current: u32,
    next: u32,
    slot: u64,
}

impl Shadow {
    /// A thread that begins at `sp`. `slot`: bytes that a call pushes (x86-64: 8; machines with a
    /// link register: 0).
    pub fn new(sp: u64, slot: u64) -> Shadow {
        Shadow {
            stacks: BTreeMap::from([(0, Stack::at(sp))]),
            current: 0,
            next: 1,
            slot,
        }
    }

    /// Notes an instruction after which the thread is at `pc` and `sp`.
    pub fn step(&mut self, did: Did, pc: u64, sp: u64) {
        match did {
            Did::SignalReturn => return self.resume(),
            Did::Load { word } => self.switch(sp, word),
            _ => {}
        }
        let slot = self.slot;
        let stack = self.stack();
        stack.low = stack.low.min(sp);
        stack.high = stack.high.max(sp);
        if let Did::Call(ret) = did {
            // What ended in the same step is below: the callee's stack pointer is.
            while stack
                .entries
                .last()
                .is_some_and(|e| sp + slot > e.sp && !e.interrupted)
            {
                stack.entries.pop();
            }
            if stack.entries.len() < MAX_ENTRIES {
                let (pc, sp) = (ret, sp + slot);
                stack.entries.push(Entry {
                    pc,
                    sp,
                    interrupted: false,
                });
            }
            return;
        }
        let landed = |e: &Entry| {
            // Without a slot the callee itself has the caller's stack pointer.
            sp == e.sp && (pc == e.pc || (slot > 0 && did == Did::Transfer))
        };
        while let Some(last) = stack.entries.last() {
            // A handler's stack may be another one: its frame, not the interrupted one, has a place on it.
            if last.interrupted || !(sp > last.sp || landed(last)) {
                break;
            }
            stack.entries.pop();
            // The frame of a signal went with its trampoline when the stack pointer is above both.
            if let Some(signal) = stack.entries.last().copied()
                && signal.interrupted
                && sp > signal.sp
                && stack.under.is_none()
            {
                stack.entries.pop();
            }
        }
    }

    /// Notes that a signal was delivered at `from` (pc, sp). The handler begins at `sp`; it will return to
    /// `trampoline`, which then has `frame` as its stack pointer.
    pub fn signal(&mut self, from: (u64, u64), sp: u64, trampoline: u64, frame: u64) {
        let interrupted = Entry {
            pc: from.0,
            sp: from.1,
            interrupted: true,
        };
        let (pc, interrupted_by) = (trampoline, false);
        let trampoline = Entry {
            pc,
            sp: frame,
            interrupted: interrupted_by,
        };
        let near = sp < from.1 && from.1 - sp < NEAR;
        if !near {
            let under = self.current;
            self.begin(sp);
            self.stack().under = Some(under);
        }
        let stack = self.stack();
        stack.low = stack.low.min(sp);
        stack.high = stack.high.max(frame);
        stack.entries.extend([interrupted, trampoline]);
    }

    /// The frames from the innermost, which is at `pc` and `sp`, to the one in which the stack began.
    pub fn truth(&self, pc: u64, sp: u64) -> impl Iterator<Item = Entry> {
        let first = Entry {
            pc,
            sp,
            interrupted: true,
        };
        let stacks = std::iter::successors(Some(self.current), |id| self.stacks[id].under);
        let outer = stacks.take(MAX_STACKS);
        std::iter::once(first)
            .chain(outer.flat_map(|id| self.stacks[&id].entries.iter().rev().copied()))
    }

    fn stack(&mut self) -> &mut Stack {
        self.stacks.entry(self.current).or_default()
    }

    fn begin(&mut self, sp: u64) {
        if self.stacks.len() >= MAX_STACKS {
            // The one that was begun first and is in nobody's way.
            let in_use: Vec<u32> = self.stacks.values().filter_map(|s| s.under).collect();
            let idle = |id: &&u32| **id != self.current && !in_use.contains(id);
            if let Some(&oldest) = self.stacks.keys().find(idle) {
                self.stacks.remove(&oldest);
            }
        }
        self.current = self.next;
        self.next += 1;
        self.stacks.insert(self.current, Stack::at(sp));
    }

    /// The kernel restores what a signal interrupted.
    fn resume(&mut self) {
        let stack = self.stack();
        let Some(at) = stack.entries.iter().rposition(|e| e.interrupted) else {
            return;
        };
        stack.entries.truncate(at);
        if at == 0
            && let Some(under) = stack.under
        {
            self.stacks.remove(&self.current);
            self.current = under;
        }
    }

    fn switch(&mut self, sp: u64, word: Option<u64>) {
        let holds = |s: &Stack| (s.low.saturating_sub(NEAR)..=s.high).contains(&sp);
        if holds(&self.stacks[&self.current]) {
            return;
        }
        let left = self.current;
        match self
            .stacks
            .iter()
            .find(|(_, s)| holds(s))
            .map(|(&id, _)| id)
        {
            Some(id) => {
                self.current = id;
                let slot = self.slot;
                let stack = self.stack();
                let under_way = stack.entries.iter().rfind(|e| e.interrupted || e.sp >= sp);
                let goes_on = match under_way {
                    None => stack.under.is_some(),
                    // A call that is under way has its return address in its place; else the stack was used anew.
                    Some(e) if slot > 0 && !e.interrupted && e.sp == sp + slot => {
                        word.is_none_or(|word| word == e.pc)
                    }
                    Some(_) => true,
                };
                if slot > 0 && !goes_on {
                    stack.entries.clear();
                    stack.entries.extend(word.map(|pc| Entry {
                        pc,
                        sp: sp + slot,
                        interrupted: false,
                    }));
                }
                // A handler that was left for what it interrupted does not come back.
                if self.stacks[&left].under == Some(id) {
                    self.stacks.remove(&left);
                }
            }
            None => {
                self.begin(sp);
                let slot = self.slot;
                let caller = word.filter(|_| slot > 0);
                let entry = caller.map(|pc| Entry {
                    pc,
                    sp: sp + slot,
                    interrupted: false,
                });
                self.stack().entries.extend(entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames outside of the innermost.
    fn callers(shadow: &Shadow) -> Vec<(u64, u64)> {
        shadow.truth(0, 0).skip(1).map(|e| (e.pc, e.sp)).collect()
    }

    /// main (at 0x8000) called f, which called g.
    fn two_calls() -> Shadow {
        let mut shadow = Shadow::new(0x8000, 8);
        shadow.step(Did::Call(0x11), 0x20, 0x7ff8);
        shadow.step(Did::Plain, 0x21, 0x7fe0);
        shadow.step(Did::Call(0x22), 0x30, 0x7fd8);
        shadow
    }

    #[test]
    fn calls_are_under_way_until_they_return() {
        let mut shadow = two_calls();
        assert_eq!(callers(&shadow), [(0x22, 0x7fe0), (0x11, 0x8000)]);
        shadow.step(Did::Transfer, 0x22, 0x7fe0);
        assert_eq!(callers(&shadow), [(0x11, 0x8000)]);
        shadow.step(Did::Plain, 0x23, 0x7ff8);
        shadow.step(Did::Transfer, 0x11, 0x8000);
        assert_eq!(callers(&shadow), []);
    }

    #[test]
    fn a_jump_to_another_function_changes_nothing() {
        let mut shadow = two_calls();
        shadow.step(Did::Transfer, 0x99, 0x7fd8);
        assert_eq!(callers(&shadow), [(0x22, 0x7fe0), (0x11, 0x8000)]);
    }

    #[test]
    fn a_return_address_that_was_popped_is_still_the_callers() {
        let mut shadow = two_calls();
        shadow.step(Did::Plain, 0x31, 0x7fe0);
        assert_eq!(callers(&shadow)[0], (0x22, 0x7fe0));
        shadow.step(Did::Plain, 0x32, 0x7fd8);
        shadow.step(Did::Transfer, 0x22, 0x7fe0);
        assert_eq!(callers(&shadow), [(0x11, 0x8000)]);
    }

    #[test]
    fn longjmp_lands_behind_setjmp_and_not_behind_the_call() {
        let mut shadow = two_calls();
        shadow.step(Did::Load { word: None }, 0x31, 0x7fe0);
        shadow.step(Did::Transfer, 0x2a, 0x7fe0);
        assert_eq!(callers(&shadow), [(0x11, 0x8000)]);
    }

    #[test]
    fn an_exception_ends_many_calls_at_once() {
        let mut shadow = two_calls();
        shadow.step(Did::Load { word: None }, 0x31, 0x7ff0);
        shadow.step(Did::Transfer, 0x1a, 0x8000);
        assert_eq!(callers(&shadow), []);
    }

    #[test]
    fn a_signal_interrupts_and_is_taken_back() {
        let mut shadow = two_calls();
        let before = callers(&shadow);
        shadow.signal((0x33, 0x7fc0), 0x7a00, 0x500, 0x7a08);
        let during: Vec<_> = shadow.truth(0x40, 0x7a00).collect();
        let (pc, sp) = (0x33, 0x7fc0);
        assert_eq!(during[1].pc, 0x500);
        assert_eq!(
            during[2],
            Entry {
                pc,
                sp,
                interrupted: true
            }
        );
        assert_eq!(callers(&shadow)[2..], before);
        shadow.step(Did::Transfer, 0x500, 0x7a08);
        assert_eq!(callers(&shadow)[0], (0x33, 0x7fc0), "in the trampoline");
        shadow.step(Did::SignalReturn, 0x33, 0x7fc0);
        assert_eq!(callers(&shadow), before);
    }

    #[test]
    fn a_handler_left_by_longjmp_takes_its_signal_with_it() {
        let mut shadow = two_calls();
        shadow.signal((0x33, 0x7fc0), 0x7a00, 0x500, 0x7a08);
        shadow.step(Did::Load { word: None }, 0x41, 0x7fe0);
        shadow.step(Did::Transfer, 0x2a, 0x7fe0);
        assert_eq!(callers(&shadow), [(0x11, 0x8000)]);
    }

    #[test]
    fn an_alternate_stack_continues_on_the_interrupted_one() {
        for alternate in [0x100_0000, 0x900] {
            let mut shadow = two_calls();
            // Far from everything the thread used.
            let from = (0x33, 0x7fc0);
            shadow.signal(from, alternate, 0x500, alternate + 8);
            let during = callers(&shadow);
            let sp = alternate + 8;
            if alternate > 0x8000 {
                assert_eq!(during, [(0x500, sp), from, (0x22, 0x7fe0), (0x11, 0x8000)]);
            }
            shadow.step(Did::Call(0x44), 0x60, alternate - 0x20);
            shadow.step(Did::Transfer, 0x44, alternate - 0x18);
            assert_eq!(callers(&shadow), during);
            let mut left = shadow.clone();
            shadow.step(Did::Transfer, 0x500, sp);
            shadow.step(Did::SignalReturn, 0x33, 0x7fc0);
            assert_eq!(callers(&shadow), [(0x22, 0x7fe0), (0x11, 0x8000)]);
            left.step(Did::Load { word: None }, 0x45, 0x7fe0);
            left.step(Did::Transfer, 0x2a, 0x7fe0);
            assert_eq!(callers(&left), [(0x11, 0x8000)], "left by longjmp");
        }
    }

    #[test]
    fn a_made_context_begins_and_both_stacks_are_found_again() {
        let mut shadow = two_calls();
        let main = callers(&shadow);
        let word = Some(0x700);
        shadow.step(Did::Load { word }, 0x31, 0x100_0000);
        assert_eq!(callers(&shadow), [(0x700, 0x100_0008)]);
        shadow.step(Did::Call(0x55), 0x30, 0xff_ffd8);
        shadow.step(Did::Load { word: None }, 0x31, 0x7fd8);
        assert_eq!(callers(&shadow), main);
        shadow.step(Did::Load { word: None }, 0x31, 0xff_ffd8);
        assert_eq!(callers(&shadow), [(0x55, 0xff_ffe0), (0x700, 0x100_0008)]);
    }

    #[test]
    fn a_made_context_begins_again_on_the_same_stack() {
        let mut shadow = two_calls();
        let word = Some(0x700);
        for _ in 0..2 {
            shadow.step(Did::Load { word }, 0x31, 0x100_0000);
            assert_eq!(callers(&shadow), [(0x700, 0x100_0008)]);
            shadow.step(Did::Call(0x55), 0x30, 0xff_ffd8);
            shadow.step(Did::Transfer, 0x55, 0xff_ffe0);
            shadow.step(Did::Transfer, 0x700, 0x100_0008);
            assert_eq!(callers(&shadow), []);
            // A call that does not return.
            shadow.step(Did::Call(0x704), 0x40, 0x100_0000);
            shadow.step(Did::Load { word: None }, 0x31, 0x7fd8);
        }
        // Left in the middle of a call, it goes on there.
        shadow.step(Did::Load { word }, 0x31, 0x100_0000);
        shadow.step(Did::Call(0x55), 0x30, 0xff_ffd8);
        shadow.step(Did::Load { word: None }, 0x31, 0x7fd8);
        shadow.step(Did::Load { word: Some(0x99) }, 0x31, 0xff_ffe0);
        shadow.step(Did::Transfer, 0x55, 0xff_ffe0);
        assert_eq!(callers(&shadow), [(0x700, 0x100_0008)]);
    }

    #[test]
    fn a_child_has_a_copy() {
        let parent = two_calls();
        let mut child = parent.clone();
        child.step(Did::Transfer, 0x22, 0x7fe0);
        assert_eq!(callers(&parent).len(), 2);
        assert_eq!(callers(&child).len(), 1);
    }

    #[test]
    fn a_link_register_leaves_the_stack_pointer_alone() {
        let mut shadow = Shadow::new(0x8000, 0);
        shadow.step(Did::Call(0x11), 0x20, 0x8000);
        shadow.step(Did::Transfer, 0x90, 0x8000);
        assert_eq!(callers(&shadow), [(0x11, 0x8000)], "through the PLT");
        shadow.step(Did::Transfer, 0x11, 0x8000);
        assert_eq!(callers(&shadow), []);
    }

    #[test]
    fn stacks_and_entries_are_bounded() {
        let mut shadow = Shadow::new(0x8000, 8);
        for n in 1..3 * MAX_STACKS as u64 {
            shadow.step(Did::Load { word: Some(1) }, 0, n << 24);
        }
        assert!(shadow.stacks.len() <= MAX_STACKS);
        let mut deep = Shadow::new(1 << 40, 8);
        for n in 1..2 * MAX_ENTRIES as u64 {
            deep.step(Did::Call(1), 0, (1 << 40) - n * 8);
        }
        assert_eq!(callers(&deep).len(), MAX_ENTRIES);
    }
}
