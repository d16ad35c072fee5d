//! What BEAM's JIT (Erlang/OTP on x86-64, with `+JPperf`) does to its stacks, read from its code.
//!
//! Erlang code runs on its process's stack with rsp, and with `+JPperf` it keeps frame pointers in rbp. To call C it sets
//! rsp to a fixed place on the scheduler thread's stack (`lea rsp, [rbx - 128]`; rbx are the scheduler's
//! registers, which lie there) and afterwards back (`mov rsp, [r13 + stop]`; r13 is the process); rbp stays what it was. So
//! the caller of such a stretch is on another stack, and rbp leads there. C may have moved the process's stack meanwhile:
//! then rbp is loaded anew as well, and up to there it leads nowhere.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use std::collections::BTreeSet;
use std::ops::Range;

/// How the stack stands at an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As at a function's first instruction.
    Entry,
    /// The caller's rbp was pushed.
    Pushed,
    /// rbp is the frame pointer.
    Framed,
    /// rsp is on the scheduler's stack; rbp is the frame pointer.
    Runtime,
    /// So it is, but the process's stack may have moved, and rbp not yet.
    Stale,
}

/// Which way a stretch of code was entered.
#[derive(Debug, Clone, Copy)]
struct Stand {
    state: State,
    /// Where a switch to the scheduler's stack leads back to.
    before: State,
}

impl Stand {
    fn before(state: State, before: State) -> Stand {
        Stand { state, before }
    }
}

/// Stretches of a function's code and how the stack stands in each, in order and without gaps. `entry` is how it does at
/// the first instruction.
pub fn stretches(code: &[u8], start: u64, entry: State) -> Vec<(Range<u64>, State)> {
    let decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
    let instructions: Vec<Instruction> = decoder.into_iter().collect();
    let mut states = flow(&instructions, entry);
    mark_stale(&instructions, &mut states);
    let mut stretches: Vec<(Range<u64>, State)> = Vec::new();
    for (instruction, state) in instructions.iter().zip(states) {
        match stretches.last_mut() {
            Some((range, last)) if *last == state => range.end = instruction.next_ip(),
            _ => stretches.push((instruction.ip()..instruction.next_ip(), state)),
        }
    }
    stretches
}

/// How the stack stands at the first instruction of a function. Fragments that take a frame down that they did not make
/// are jumped to by those that did.
pub fn entry(code: &[u8]) -> State {
    let instructions = Decoder::new(64, code, DecoderOptions::NONE).into_iter();
    let frame = |i: &Instruction| i.mnemonic() == Mnemonic::Push || i.mnemonic() == Mnemonic::Leave;
    match instructions.into_iter().find(frame) {
        Some(first) if first.mnemonic() == Mnemonic::Leave => State::Framed,
        _ => State::Entry,
    }
}

/// The state at each instruction: follows branches from the first one on. What nothing here leads to is reached from other
/// functions, and those come with their frame.
fn flow(instructions: &[Instruction], entry: State) -> Vec<State> {
    let place = |target: u64| instructions.binary_search_by_key(&target, |i| i.ip()).ok();
    let branches = |i: &Instruction| {
        use FlowControl::{ConditionalBranch, UnconditionalBranch};
        matches!(i.flow_control(), ConditionalBranch | UnconditionalBranch)
    };
    let targets = instructions.iter().filter(|i| branches(i));
    let targets: BTreeSet<usize> = targets
        .filter_map(|i| place(i.near_branch_target()))
        .collect();
    let mut stands: Vec<Option<Stand>> = vec![None; instructions.len()];
    let mut work = vec![(0, Stand::before(entry, State::Framed))];
    loop {
        while let Some((mut at, mut stand)) = work.pop() {
            while at < instructions.len() && stands[at].is_none() {
                let instruction = &instructions[at];
                stands[at] = Some(stand);
                stand = after(instruction, stand);
                if branches(instruction)
                    && let Some(target) = place(instruction.near_branch_target())
                {
                    work.push((target, stand));
                }
                if leaves(instruction) {
                    break;
                }
                at += 1;
            }
        }
        let open = |at: &usize| stands[*at].is_none();
        let all = 0..instructions.len();
        let begins = |at: &usize| *at > 0 && leaves(&instructions[at - 1]);
        // What is a target may yet be reached from what is not.
        let first = all
            .clone()
            .find(|at| open(at) && begins(at) && !targets.contains(at));
        let Some(first) = first.or_else(|| all.clone().find(open)) else {
            break;
        };
        work.push((first, Stand::before(State::Framed, State::Framed)));
    }
    let states = stands.into_iter().flatten();
    states.map(|stand| stand.state).collect()
}

/// Whether what follows an instruction in memory does not follow it when it runs.
fn leaves(instruction: &Instruction) -> bool {
    use FlowControl::{Exception, IndirectBranch, Return, UnconditionalBranch};
    matches!(
        instruction.flow_control(),
        Return | UnconditionalBranch | IndirectBranch | Exception
    )
}

/// How the stack stands behind an instruction.
fn after(instruction: &Instruction, stand: Stand) -> Stand {
    let (first, second) = (instruction.op0_register(), instruction.op1_register());
    let to = |state| Stand { state, ..stand };
    match instruction.mnemonic() {
        Mnemonic::Push if first == Register::RBP => to(State::Pushed),
        Mnemonic::Mov if (first, second) == (Register::RBP, Register::RSP) => to(State::Framed),
        Mnemonic::Leave => to(State::Entry),
        Mnemonic::Lea if first == Register::RSP && instruction.memory_base() == Register::RBX => {
            Stand {
                state: State::Runtime,
                before: stand.state,
            }
        }
        Mnemonic::Mov if loads(instruction, Register::RSP) && stand.state == State::Runtime => {
            to(stand.before)
        }
        _ => stand,
    }
}

/// Whether a register is loaded from the process.
fn loads(instruction: &Instruction, register: Register) -> bool {
    instruction.mnemonic() == Mnemonic::Mov
        && instruction.op0_register() == register
        && instruction.op1_kind() == OpKind::Memory
        && instruction.memory_base() == Register::R13
}

/// Where rbp is loaded from the process it was of no use since the last call.
fn mark_stale(instructions: &[Instruction], states: &mut [State]) {
    for (at, instruction) in instructions.iter().enumerate() {
        if loads(instruction, Register::RBP) {
            let calls = |i: &Instruction| {
                matches!(
                    i.flow_control(),
                    FlowControl::Call | FlowControl::IndirectCall
                )
            };
            let call = instructions[..at].iter().rposition(calls);
            let first = call.map_or(0, |call| call + 1);
            states[first..=at].fill(State::Stale);
        }
    }
}

/// A function of a perf map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// Its code.
    pub range: Range<u64>,
    /// Its name, without the `$`.
    pub name: String,
}

/// The functions of a perf map, in order; of those that overlap, the later in the file.
pub fn perf_map(text: &str) -> Vec<Symbol> {
    let mut symbols = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        let mut number = || {
            let word = words.next()?.trim_start_matches("0x");
            u64::from_str_radix(word, 16).ok()
        };
        let (Some(start), Some(size)) = (number(), number()) else {
            continue;
        };
        let Some(name) = words.next() else { continue };
        symbols.push(Symbol {
            range: start..start + size,
            name: name.trim_start_matches('$').to_string(),
        });
    }
    symbols.sort_by_key(|symbol| symbol.range.start);
    let mut disjoint: Vec<Symbol> = Vec::new();
    for symbol in symbols {
        if let Some(last) = disjoint.last_mut() {
            if last.range.start == symbol.range.start {
                disjoint.pop();
            } else if last.range.end > symbol.range.start {
                last.range.end = symbol.range.start;
            }
        }
        if !symbol.range.is_empty() {
            disjoint.push(symbol);
        }
    }
    disjoint
}
