//! Code that nobody describes, and what its frame pointer is believed.

use framewalk_sframe::Unwind;
use framewalk_walk::{
    Code, EntryState, Found, Memory, Origin, Registers, Says, Start, Stop, entry_state, is_call,
    is_resumed, walk,
};
use std::collections::BTreeMap;
use std::ops::Range;

const NOP: u8 = 0x90;
/// The page of generated code; every byte is a nop unless told otherwise.
const JIT: u64 = 0x1000;
/// Where the outermost function is, which is described.
const START: u64 = 0x9000;

/// One thread: bytes of generated code, words of its stack, and the bounds of that.
struct Thread {
    code: BTreeMap<u64, u8>,
    stack: BTreeMap<u64, u64>,
    bounds: Range<u64>,
    unreadable: Range<u64>,
}

struct Bytes<'a>(&'a Thread);
struct Known<'a>(&'a Thread);

impl Memory for Bytes<'_> {
    fn word(&mut self, address: u64) -> Option<u64> {
        self.0.stack.get(&address).copied()
    }

    fn code(&mut self, address: u64) -> Option<u64> {
        let all = address..address + 8;
        let is_code =
            |at: &u64| (JIT..JIT + 0x1000).contains(at) || (START..START + 0x100).contains(at);
        if !all
            .clone()
            .all(|at| is_code(&at) && !self.0.unreadable.contains(&at))
        {
            return None;
        }
        let bytes: Vec<u8> = all
            .map(|at| *self.0.code.get(&at).unwrap_or(&NOP))
            .collect();
        Some(u64::from_le_bytes(bytes.try_into().unwrap()))
    }
}

impl Code for Known<'_> {
    type Place = ();

    fn find(&mut self, pc: u64) -> Found<()> {
        let says = match pc {
            JIT..=0x1fff => Says::Undescribed,
            START..=0x90ff => Says::Row {
                unwind: Unwind::Outermost,
                signal: false,
                origin: Origin::File,
            },
            _ => Says::Stop(Stop::NotCode),
        };
        Found { place: (), says }
    }

    fn is_same_stack(&mut self, sp: u64, bytes: Range<u64>) -> bool {
        let bounds = &self.0.bounds;
        bounds.contains(&sp) && bounds.start <= bytes.start && bytes.end <= bounds.end
    }
}

impl Thread {
    /// Two frames of generated code with frame pointers at 0x7100 and 0x7200, called at JIT + 0x200 and
    /// from the outermost function.
    fn new() -> Thread {
        Thread {
            code: BTreeMap::new(),
            stack: BTreeMap::new(),
            bounds: 0x6000..0x8000,
            unreadable: 0..0,
        }
        .call(JIT + 0x200)
        .call(START + 0x10)
        .words(0x7100, &[0x7200, JIT + 0x200])
        .words(0x7200, &[0x1234, START + 0x10])
    }

    /// A call that returns to this place.
    fn call(self, returns: u64) -> Thread {
        self.bytes(returns - 5, &[0xe8, 1, 2, 3, 4])
    }

    fn bytes(mut self, address: u64, bytes: &[u8]) -> Thread {
        self.code.extend((address..).zip(bytes.iter().copied()));
        self
    }

    fn words(mut self, address: u64, words: &[u64]) -> Thread {
        self.stack
            .extend((address..).step_by(8).zip(words.iter().copied()));
        self
    }

    fn walk(&self, pc: u64, sp: u64, fp: u64) -> (Vec<u64>, Stop) {
        let registers = Registers {
            pc,
            sp,
            fp,
            full: None,
        };
        let mut frames = Vec::new();
        let start = Start::topmost(registers);
        let stop = walk(start, 510, &mut Bytes(self), &mut Known(self), |frame| {
            frames.push(frame.pc);
        });
        (frames, stop)
    }
}

/// From the topmost frame of [`Thread::new`] in the body of its function.
fn body(thread: &Thread) -> (Vec<u64>, Stop) {
    thread.walk(JIT + 0x100, 0x7000, 0x7100)
}

const WHOLE: [u64; 3] = [JIT + 0x100, JIT + 0x200, START + 0x10];

#[test]
fn code_with_frame_pointers_is_walked_to_what_is_described() {
    assert_eq!(body(&Thread::new()), (WHOLE.to_vec(), Stop::Outermost));
}

#[test]
fn at_the_first_instruction_nothing_is_pushed_yet() {
    // The caller's frame pointer is in its register, the return address on top of the stack. By the
    // register alone the caller would be left out.
    let prologues: [&[u8]; 4] = [
        &[0x55, 0x48, 0x89, 0xe5],
        &[0x55, 0x48, 0x8b, 0xec],
        &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5],
        &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x8b, 0xec],
    ];
    for (prologue, pc) in prologues
        .into_iter()
        .flat_map(|p| [(p, JIT), (p, JIT + 0x100)])
    {
        let thread = Thread::new()
            .bytes(pc, prologue)
            .words(0x7000, &[JIT + 0x200]);
        let whole = vec![pc, JIT + 0x200, START + 0x10];
        assert_eq!(
            thread.walk(pc, 0x7000, 0x7200),
            (whole, Stop::Outermost),
            "{pc:#x}"
        );
    }
}

#[test]
fn between_push_and_mov_the_frame_pointer_is_saved_but_not_made() {
    for mov in [[0x48, 0x89, 0xe5], [0x48, 0x8b, 0xec]] {
        let thread = Thread::new()
            .bytes(JIT + 0xff, &[0x55])
            .bytes(JIT + 0x100, &mov)
            .words(0x7000, &[0x7200, JIT + 0x200]);
        assert_eq!(
            thread.walk(JIT + 0x100, 0x7000, 0x7200),
            (WHOLE.to_vec(), Stop::Outermost)
        );
    }
}

#[test]
fn at_a_return_all_is_popped() {
    let returns: [&[u8]; 5] = [
        &[0xc3],
        &[0xf3, 0xc3],
        &[0xc2, 0x10, 0],
        &[0x49, 0x3b, 0xa7, 0x48, 3, 0, 0],
        &[0x0f, 0x87, 1, 2, 3, 4, 0xc3],
    ];
    for code in returns {
        let thread = Thread::new()
            .bytes(JIT + 0x100, code)
            .words(0x7000, &[JIT + 0x200]);
        assert_eq!(
            thread.walk(JIT + 0x100, 0x7000, 0x7200),
            (WHOLE.to_vec(), Stop::Outermost)
        );
    }
}

#[test]
fn a_prologue_ahead_counts_where_the_stack_agrees() {
    // V8 looks at a flag of its code first, HotSpot touches the stack far below.
    let flag = [
        0x48, 0x8b, 0x59, 0xe0, 0xf6, 0x43, 0x0f, 1, 0x0f, 0x85, 1, 2, 3, 4, 0x55, 0x48, 0x89, 0xe5,
    ];
    let bang = [
        0x89, 0x84, 0x24, 0, 0xc0, 0xfe, 0xff, 0x55, 0x48, 0x8b, 0xec,
    ];
    for code in [&flag[..], &bang[..]] {
        let thread = Thread::new().bytes(JIT + 0x100, code);
        let entered = thread.words(0x7000, &[JIT + 0x200]);
        assert_eq!(
            entered.walk(JIT + 0x100, 0x7000, 0x7200),
            (WHOLE.to_vec(), Stop::Outermost)
        );
        // The end of other code, whose frame pointer is its own.
        let body_of_other = entered.words(0x7000, &[JIT + 0x300]);
        assert_eq!(body(&body_of_other), (WHOLE.to_vec(), Stop::Outermost));
    }
    // Behind a return begins other code.
    let mut other = flag;
    other[8] = 0xc3;
    let thread = Thread::new()
        .bytes(JIT + 0x100, &other)
        .words(0x7000, &[JIT + 0x200]);
    assert_eq!(body(&thread), (WHOLE.to_vec(), Stop::Outermost));
}

#[test]
fn callers_called_from_their_bodies() {
    // Behind the call stands a return: that says nothing of a caller.
    let thread = Thread::new().bytes(JIT + 0x200, &[0xc3]);
    assert_eq!(body(&thread), (WHOLE.to_vec(), Stop::Outermost));
}

#[test]
fn a_return_address_stands_behind_a_call() {
    // An address of code on the stack, but nobody returns there: a function pointer.
    let mut thread = Thread::new().bytes(JIT + 0x200 - 5, &[NOP; 5]);
    assert_eq!(body(&thread), (vec![JIT + 0x100], Stop::FramePointer));
    // Interpreters push such addresses themselves, and this is where they go on.
    thread = thread.bytes(JIT + 0x200, &[0x48, 0x8b, 0x65, 0xf0]);
    assert_eq!(body(&thread), (WHOLE.to_vec(), Stop::Outermost));
    // Code that cannot be read proves nothing.
    let mut thread = Thread::new();
    thread.unreadable = JIT + 0x1f0..JIT + 0x210;
    assert_eq!(body(&thread), (vec![JIT + 0x100], Stop::FramePointer));
    thread.unreadable = JIT + 0xf0..JIT + 0x110;
    assert_eq!(
        body(&thread),
        (WHOLE.to_vec(), Stop::Outermost),
        "the state may stay unknown"
    );
}

#[test]
fn the_frame_pointer_is_on_the_stack_of_the_stack_pointer() {
    // A new thread: its frame pointer is its parent's, and all of that is sound.
    let mut thread = Thread::new();
    thread.bounds = 0x6000..0x7080;
    assert_eq!(body(&thread), (vec![JIT + 0x100], Stop::FramePointer));
    thread.bounds = 0x6000..0x7108;
    assert_eq!(
        body(&thread),
        (vec![JIT + 0x100], Stop::FramePointer),
        "only half of it"
    );
    thread.bounds = 0x6000..0x7110;
    assert_eq!(body(&thread).0.len(), 2);
    thread.bounds = 0x7080..0x8000;
    assert_eq!(body(&thread), (vec![JIT + 0x100], Stop::FramePointer));
}

#[test]
fn a_register_that_is_used_otherwise() {
    let thread = Thread::new();
    for fp in [
        0,
        1,
        0x6ff8,
        0x7001,
        0x7104,
        u64::MAX,
        u64::MAX - 7,
        1 << 47,
        JIT,
    ] {
        let walked = thread.walk(JIT + 0x100, 0x7000, fp);
        assert_eq!(walked, (vec![JIT + 0x100], Stop::FramePointer), "{fp:#x}");
    }
    // A frame pointer that is saved below its own frame.
    for saved in [0x7000, 0x7080, 0x7100] {
        let thread = Thread::new().words(0x7100, &[saved]);
        assert_eq!(
            body(&thread),
            (vec![JIT + 0x100], Stop::FramePointer),
            "{saved:#x}"
        );
    }
    // The caller is right, and cannot be walked on from.
    for saved in [0, 7, 0x6ff8, 0x7108] {
        let thread = Thread::new().words(0x7100, &[saved]);
        let walked = body(&thread);
        assert_eq!(
            walked,
            (WHOLE[..2].to_vec(), Stop::FramePointer),
            "{saved:#x}"
        );
    }
}

#[test]
fn every_call_through_register_or_memory() {
    let ends_with = |call: &[u8]| {
        let mut bytes = [NOP; 8];
        bytes[8 - call.len()..].copy_from_slice(call);
        is_call(u64::from_le_bytes(bytes))
    };
    // By the assembler: call rax; r12; [rax]; [r12]; [rsp+8]; [rax+8]; [rax+0x800]; [rax+rcx*8]; [rax+rcx*8+8];
    // [rsp+0x800]; [rip+0x10]; [0x10]; [rcx*8+0x10].
    let calls: [&[u8]; 14] = [
        &[0xff, 0xd0],
        &[0x41, 0xff, 0xd4],
        &[0xff, 0x10],
        &[0x41, 0xff, 0x14, 0x24],
        &[0xff, 0x54, 0x24, 8],
        &[0xff, 0x50, 8],
        &[0xff, 0x90, 0, 8, 0, 0],
        &[0xff, 0x14, 0xc8],
        &[0xff, 0x54, 0xc8, 8],
        &[0xff, 0x94, 0x24, 0, 8, 0, 0],
        &[0xff, 0x15, 0x10, 0, 0, 0],
        &[0xff, 0x14, 0x25, 0x10, 0, 0, 0],
        &[0xff, 0x14, 0xcd, 0x10, 0, 0, 0],
        &[0xe8, 0, 0, 0, 0],
    ];
    for call in calls {
        assert!(ends_with(call), "{call:x?}");
        // A byte more, and the return address is another.
        let longer: Vec<u8> = call.iter().copied().chain([NOP]).collect();
        assert!(!ends_with(&longer), "{call:x?}");
    }
    // jmp rax; push [rax+8]; inc [rip+0x10]; jmp rel32; nothing.
    let others: [&[u8]; 5] = [
        &[0xff, 0xe0],
        &[0xff, 0x70, 8],
        &[0xff, 0x05, 0x10, 0, 0, 0],
        &[0xe9, 0, 0, 0, 0],
        &[],
    ];
    for other in others {
        assert!(!ends_with(other), "{other:x?}");
    }
}

#[test]
fn states_of_other_code() {
    let state = |bytes: [u8; 8]| entry_state(u64::from_le_bytes(bytes));
    // push rbp alone, mov rbp, rsp without it, and a return that is not at the pc.
    assert_eq!(
        state([NOP, 0x55, 0x41, 0x57, NOP, NOP, NOP, NOP]),
        EntryState::Body
    );
    assert_eq!(
        state([NOP, 0x48, 0x89, 0xe5, NOP, NOP, NOP, NOP]),
        EntryState::Body
    );
    assert_eq!(
        state([0xc3, NOP, 0xc3, NOP, NOP, NOP, NOP, NOP]),
        EntryState::Body
    );
    assert_eq!(state([0; 8]), EntryState::Body);
    assert!(is_resumed(u64::from_le_bytes([
        0x48, 0x8b, 0x4d, 0xf0, 0x48, 0x8d, 0x64, 0xcd
    ])));
    assert!(!is_resumed(u64::from_le_bytes([
        0x48, 0x8b, 0x4d, 0xf0, NOP, NOP, NOP, NOP
    ])));
    assert!(!is_resumed(0));
}
