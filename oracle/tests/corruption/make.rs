//! Ways to corrupt what a walk reads.

use crate::victim::Victim;
use fastrand::Rng;
use framewalk::processes::Mappings;

/// What was done, and the registers to go on with.
pub(crate) struct Corruption {
    pub(crate) kind: &'static str,
    pub(crate) with: libc::user_regs_struct,
}

/// Where user space ends (Documentation/arch/x86/x86_64/mm.rst).
const END: u64 = 1 << 47;

/// A word that somebody hostile might write.
fn word(random: &mut Rng, victim: &Victim, mappings: &Mappings) -> u64 {
    let (stack, len) = (victim.stack.0, victim.stack.1.len() as u64);
    match random.u8(..12) {
        0 => random.u64(..),
        1 => 0,
        2 => END.wrapping_add_signed(random.i64(-0x3000..0x3000)),
        3 => 0xffff_8000_0000_0000 | random.u64(..1 << 40),
        4 => random.u64(..0x2_0000),
        5 => random.u64(stack..stack + len),
        6 => random.u64(victim.info.edge.start..victim.info.edge.end + 0x1800) & !7,
        7 | 8 => code(random, mappings),
        9 => victim.info.framed_body,
        10 => victim.info.handler_return,
        _ => random.u64(stack..stack + len) & !7,
    }
}

fn code(random: &mut Rng, mappings: &Mappings) -> u64 {
    let count = mappings.iter().count();
    let mapping = mappings
        .iter()
        .nth(random.usize(..count))
        .expect("one of them");
    random.u64(mapping.start..mapping.end)
}

/// Whether it does nothing but what any stack allows: no store but a push, no system call.
fn is_harmless(bytes: [u8; 8]) -> bool {
    matches!(
        bytes,
        [0x90 | 0xc3 | 0xc9 | 0x55 | 0x5d, ..]
            | [0xf3, 0x0f, 0x1e, 0xfa, ..]
            | [0x48, 0x89, 0xe5, ..]
            | [0x48, 0x83, 0xec | 0xc4, ..]
            | [0x41, 0x54..=0x5f, ..]
    )
}

/// An instruction that may be tried.
fn instruction(random: &mut Rng, victim: &Victim, mappings: &Mappings) -> u64 {
    for _ in 0..2000 {
        let at = code(random, mappings);
        if victim
            .word(at)
            .is_some_and(|word| is_harmless(word.to_le_bytes()))
        {
            return at;
        }
    }
    victim.still.rip
}

/// A stack pointer at which a push does no harm.
fn stack_pointer(random: &mut Rng, victim: &Victim) -> u64 {
    let (stack, len) = (victim.stack.0, victim.stack.1.len() as u64);
    let edge = &victim.info.edge;
    match random.u8(..8) {
        0 => END - 8 * random.u64(..0x300),
        1 => random.u64(..4) * 8,
        2 => 0xffff_8000_0000_0000 | random.u64(..1 << 40),
        3 => u64::MAX - random.u64(..64),
        4 => random.u64(edge.start + 64..edge.end),
        5 => edge.end - 8 * random.u64(..512),
        6 => random.u64(stack + 64..stack + len),
        _ => random.u64(stack + 64..stack + len) & !7,
    }
}

/// Corrupts the victim's memory, and its registers.
pub(crate) fn corrupt(random: &mut Rng, victim: &Victim, mappings: &Mappings) -> Corruption {
    let mut with = victim.still;
    let (stack, len) = (victim.stack.0, victim.stack.1.len() as u64);
    let kind = match random.u8(..10) {
        0..3 => {
            for _ in 0..random.usize(1..8) {
                let at = random.u64(with.rsp..stack + len - 8);
                let word = word(random, victim, mappings);
                victim.put(if random.u8(..8) > 0 { at & !7 } else { at }, word);
            }
            "words of the stack"
        }
        3 => {
            let at = random.u64(with.rsp..stack + len - 64);
            let bytes: Vec<u8> = (0..64).map(|_| random.u8(..)).collect();
            victim.write(at, &bytes);
            "bytes of the stack"
        }
        4 | 5 => {
            with.rsp = stack_pointer(random, victim);
            with.rbp = word(random, victim, mappings);
            for register in [&mut with.rax, &mut with.rbx, &mut with.r10, &mut with.r13] {
                *register = word(random, victim, mappings);
            }
            if random.bool() {
                with.rip = instruction(random, victim, mappings);
            }
            "registers"
        }
        6 => {
            // Wherever that is: a place without code, or an instruction that may be tried.
            with.rip = match random.bool() {
                true => instruction(random, victim, mappings),
                false => match random.u8(..4) {
                    0 => random.u64(..0x1000),
                    1 => END - random.u64(..0x2000),
                    2 => random.u64(stack..stack + len),
                    _ => victim.info.edge.start + random.u64(..0x5000),
                },
            };
            "instruction pointers"
        }
        7 => {
            cycle_of_frame_pointers(random, victim, &mut with);
            "cycles of frame pointers"
        }
        8 => {
            cycle_of_signals(random, victim, &mut with);
            "cycles of signal frames"
        }
        _ => {
            edge(random, victim, mappings, &mut with);
            "stacks that end in unmapped memory"
        }
    };
    Corruption { kind, with }
}

/// Frames whose frame pointers lead to each other, in any period.
fn cycle_of_frame_pointers(random: &mut Rng, victim: &Victim, with: &mut libc::user_regs_struct) {
    let room = &victim.info.edge;
    let period = random.u64(1..60);
    let mut places: Vec<u64> = (0..period).map(|i| room.start + 0x800 + 0x20 * i).collect();
    // Upwards until it closes, or in any order.
    if random.bool() {
        random.shuffle(&mut places);
    }
    for (i, &place) in places.iter().enumerate() {
        victim.put(place, places[(i + 1) % places.len()]);
        victim.put(place + 8, victim.info.framed_body);
    }
    with.rsp = places[0] - 0x20;
    with.rbp = places[0];
    // The first one's caller keeps a frame pointer.
    victim.put(with.rsp, victim.info.framed_body);
}

/// Signal frames that interrupted each other, in any period: where the C library's trampoline finds registers
/// (arch/x86/include/uapi/asm/sigcontext.h), its stack pointer points to the next.
fn cycle_of_signals(random: &mut Rng, victim: &Victim, with: &mut libc::user_regs_struct) {
    /// From the stack pointer of the trampoline: uc_mcontext is at 40; rbp, rsp and rip are its words 10, 15 and 16.
    const RBP: u64 = 40 + 8 * 10;
    const RSP: u64 = 40 + 8 * 15;
    const RIP: u64 = 40 + 8 * 16;
    let room = &victim.info.edge;
    let period = random.u64(1..12);
    let places: Vec<u64> = (0..period)
        .map(|i| room.start + 0x100 + 0x200 * i)
        .collect();
    let beyond = random.u8(..4) == 0;
    for (i, &place) in places.iter().enumerate() {
        let next = places[(i + 1) % places.len()];
        victim.put(
            place + RSP,
            if beyond {
                next + 8 * random.u64(..16)
            } else {
                next
            },
        );
        victim.put(place + RBP, random.u64(..));
        victim.put(place + RIP, victim.info.handler_return);
    }
    // Its handler returns to the trampoline, with the frame above.
    with.rsp = places[0] - 8;
    victim.put(with.rsp, victim.info.handler_return);
}

/// A stack that ends where its memory does, with return addresses up to the last word.
fn edge(random: &mut Rng, victim: &Victim, mappings: &Mappings, with: &mut libc::user_regs_struct) {
    let end = victim.info.edge.end;
    let words = random.u64(1..512);
    for i in 0..words {
        let word = match random.u8(..4) {
            0 => victim.info.framed_body,
            1 => word(random, victim, mappings),
            _ => victim.still.rip,
        };
        victim.put(end - 8 * (i + 1), word);
    }
    with.rsp = end - 8 * words;
    with.rbp = end - 8 * random.u64(..words + 2);
}
