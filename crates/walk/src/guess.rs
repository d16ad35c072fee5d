//! Where nobody describes the code: the frame pointer, if what it says checks out.
//!
//! What is found is a guess, and marked as one. The rules are the BPF walker's too
//! (`crates/kernel/bpf/guess.h`). Everything here is x86-64 only; encodings are those of Intel's manual, volume 2.

use crate::arch::AMD64;
use crate::step::MAX_FRAME_SIZE;
use crate::{Code, Memory, Registers, Stop};
use framewalk_sframe::{CallerRule, Cfa, Rule};

/// Reads per guessed frame, at most: three of code at the pc, the word at the stack pointer, frame pointer and
/// return address, and code before and at two return addresses.
pub const READS_PER_GUESS: usize = 10;
/// The smallest hole between two functions of a table in which the frame pointer is tried, bytes. Smaller ones
/// are linkage stubs and assembly, which keep none.
pub const MIN_HOLE: u64 = 64 << 10;

const PAGE: u64 = 4096;

/// What the frame of some code looks like, if that code keeps a frame pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryState {
    /// Nothing is pushed, or all is popped: the return address is at the stack pointer.
    Entry,
    /// The caller's frame pointer is at the stack pointer, the return address above it.
    Pushed,
    /// The frame pointer register is this frame's.
    Body,
}

/// By the byte before the pc of an interrupted frame (the first, lowest one) and seven from the pc on.
pub fn entry_state(code: u64) -> EntryState {
    const MOVES: [[u8; 3]; 2] = [[0x48, 0x89, 0xe5], [0x48, 0x8b, 0xec]];
    let [before, at @ ..] = code.to_le_bytes();
    match at {
        [0xc2 | 0xc3, ..] | [0xf3, 0xc3, ..] => EntryState::Entry,
        [0x55, a, b, c, ..] if MOVES.contains(&[a, b, c]) => EntryState::Entry,
        [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89 | 0x8b] => EntryState::Entry,
        // HotSpot asks between `pop rbp` and `ret` whether to stop: cmp rsp, [r15 + disp32]; ja rel32.
        [0x49, 0x3b, 0xa7, ..] | [0x0f, 0x87, .., 0xc3] => EntryState::Entry,
        [a, b, c, ..] if before == 0x55 && MOVES.contains(&[a, b, c]) => EntryState::Pushed,
        _ => EntryState::Body,
    }
}

/// Whether `push rbp; mov rbp, rsp` follows in the same piece of code. `ret` and `int3` end it.
fn is_prologue_ahead(at: &[u8]) -> bool {
    for four in at.windows(4) {
        match *four {
            [0x55, 0x48, 0x89, 0xe5] | [0x55, 0x48, 0x8b, 0xec] => return true,
            [0xc3 | 0xcc, ..] => return false,
            _ => {}
        }
    }
    false
}

/// The state of a frame that was interrupted.
pub fn interrupted_state<M: Memory + ?Sized, C: Code + ?Sized>(
    frame: &Registers,
    code: &mut C,
    memory: &mut M,
) -> EntryState {
    let around = code_around(frame.pc, memory);
    let state = entry_state(around);
    if state != EntryState::Body {
        return state;
    }
    let mut read = |distance| {
        let address = frame.pc.checked_add(distance);
        address
            .and_then(|address| memory.code(address))
            .unwrap_or(0)
    };
    let words = [around, read(7), read(15)].map(u64::to_le_bytes);
    if !is_prologue_ahead(&words.as_flattened()[1..]) {
        return EntryState::Body;
    }
    // What some put before the prologue touches no stack. But it may be the end of other code: the stack decides.
    let pc = memory
        .word(frame.sp)
        .filter(|&pc| pc > 0 && code.is_code(pc - 1));
    match pc {
        Some(pc) if is_return(pc, memory) => EntryState::Entry,
        _ => EntryState::Body,
    }
}

/// The rule for a frame that was interrupted, in a function in whose body `rule` holds: the instruction tells whether
/// that is where it is.
pub fn settled<M: Memory + ?Sized, C: Code + ?Sized>(
    frame: &Registers,
    rule: CallerRule,
    frame_pointer: bool,
    code: &mut C,
    memory: &mut M,
) -> CallerRule {
    let state = match frame_pointer {
        true => interrupted_state(frame, code, memory),
        false if memory.code(frame.pc).is_some_and(is_ret) => EntryState::Entry,
        false => EntryState::Body,
    };
    let word = AMD64.word as i32;
    let (cfa, fp) = match state {
        EntryState::Body => return rule,
        EntryState::Entry => (word, Rule::Same),
        EntryState::Pushed => (2 * word, Rule::AtCfa(-2 * word)),
    };
    CallerRule {
        cfa: Cfa::Value(AMD64.sp, cfa),
        ra: Rule::AtCfa(-word),
        fp,
        ra_signed: false,
    }
}

/// Whether code begins with a return.
fn is_ret(code: u64) -> bool {
    matches!(code.to_le_bytes(), [0xc2 | 0xc3, ..] | [0xf3, 0xc3, ..])
}

/// Whether a return address looks like one.
fn is_return<M: Memory + ?Sized>(pc: u64, memory: &mut M) -> bool {
    let before = pc.checked_sub(8).and_then(|start| memory.code(start));
    before.is_some_and(is_call) || memory.code(pc).is_some_and(is_resumed)
}

/// Whether eight bytes of code end with a call.
pub fn is_call(code: u64) -> bool {
    let bytes = code.to_le_bytes();
    bytes[3] == 0xe8
        || (2..=7).any(|length| match bytes[8 - length..] {
            [0xff, modrm, ref rest @ ..] => {
                call_length(modrm, rest.first().copied().unwrap_or(0)) == Some(length)
            }
            _ => false,
        })
}

/// Whether eight bytes of code begin by making the stack pointer from the frame pointer: such code keeps one, and
/// is returned to by what moved the stack pointer. HotSpot's interpreter pushes such return addresses and
/// jumps, where others call.
pub fn is_resumed(code: u64) -> bool {
    match code.to_le_bytes() {
        // mov rsp, [rbp + disp8]
        [0x48, 0x8b, 0x65, ..] => true,
        // mov rcx, [rbp + disp8]; lea rsp, [rbp + rcx * 8 + disp8]
        [0x48, 0x8b, 0x4d, _, lea @ ..] => lea == [0x48, 0x8d, 0x64, 0xcd],
        _ => false,
    }
}

/// How long a call through register or memory (`ff /2`) is.
fn call_length(modrm: u8, sib: u8) -> Option<usize> {
    let (mode, operation, rm) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
    let length = match (mode, rm) {
        (3, _) => 2,
        (0, 5) => 6,
        (0, 4) if sib & 7 == 5 => 7,
        (_, 4) => 3,
        _ => 2,
    };
    let displacement = match mode {
        1 => 1,
        2 => 4,
        _ => 0,
    };
    (operation == 2).then_some(length + displacement)
}

/// The caller's registers as the frame pointer alleges them, where nobody describes the code. It takes only
/// what looks right in every respect.
pub fn guess<M: Memory + ?Sized, C: Code + ?Sized>(
    frame: &Registers,
    is_return_address: bool,
    code: &mut C,
    memory: &mut M,
) -> Result<Registers, Stop> {
    let state = match is_return_address {
        // Callers called from their bodies.
        true => EntryState::Body,
        false => interrupted_state(frame, code, memory),
    };
    // Where the frame pointer is saved, or would be: the return address is above it.
    let at = match state {
        EntryState::Entry => frame.sp.checked_sub(AMD64.word),
        EntryState::Pushed => Some(frame.sp),
        EntryState::Body => Some(frame.fp).filter(|&at| at >= frame.sp),
    };
    let at = at
        .filter(|&at| at.is_multiple_of(AMD64.word))
        .ok_or(Stop::FramePointer)?;
    let cfa = at.checked_add(2 * AMD64.word).ok_or(Stop::FramePointer)?;
    if cfa - frame.sp > MAX_FRAME_SIZE
        || (state == EntryState::Body && !code.is_same_stack(frame.sp, at..cfa))
    {
        return Err(Stop::FramePointer);
    }
    let fp = match state {
        EntryState::Entry => frame.fp,
        _ => memory.word(at).ok_or(Stop::FramePointer)?,
    };
    let pc = memory.word(cfa - AMD64.word).ok_or(Stop::FramePointer)?;
    if pc == 0 {
        return Err(Stop::ZeroReturn);
    }
    // A caller that is described may use the register for anything, but not for what was below its frame.
    let points_down = state != EntryState::Entry && (frame.sp..=at).contains(&fp);
    if points_down || !code.is_code(pc - 1) {
        return Err(Stop::FramePointer);
    }
    if !is_return(pc, memory) {
        return Err(Stop::FramePointer);
    }
    Ok(Registers {
        pc,
        sp: cfa,
        fp,
        full: None,
    })
}

/// What [`entry_state`] wants, with noughts where it cannot be read. The page before may not be there.
fn code_around<M: Memory + ?Sized>(pc: u64, memory: &mut M) -> u64 {
    if pc.is_multiple_of(PAGE) {
        memory.code(pc).map_or(0, |code| code << 8)
    } else {
        memory.code(pc - 1).unwrap_or(0)
    }
}
