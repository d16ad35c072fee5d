//! Code on a stack of its own.
#![allow(unsafe_code)]

use super::stepper::{self, Caller, Described};
use framewalk_jits::memory::map;
use framewalk_jits::own_stack::{Code, How};
use iced_x86::{Decoder, DecoderOptions};
use std::sync::atomic::{AtomicU64, Ordering};

const LEVELS: usize = 4;
const STACK: usize = 1 << 16;

type Enter = extern "C" fn(thread: *mut Thread, code: u64, argument: *mut Thread);

#[repr(C)]
struct Thread {
    c_sp: u64,
    j_sp: u64,
    level: usize,
}

/// `enter`, and the levels.
static AT: [AtomicU64; 1 + LEVELS] = [const { AtomicU64::new(0) }; 1 + LEVELS];

/// Enters the next level.
extern "C" fn climb(thread: *mut Thread) {
    let at = |n: usize| AT[n].load(Ordering::Relaxed);
    // SAFETY: the address of a function of this type.
    let enter = unsafe { std::mem::transmute::<usize, Enter>(at(0) as usize) };
    // SAFETY: the test's only one.
    let level = unsafe {
        (*thread).level += 1;
        (*thread).level
    };
    enter(thread, at(level), thread);
}

#[test]
fn the_caller_is_where_the_parts_say() {
    let mut code = Code::new(&[climb as *const () as u64; LEVELS]);
    // Thousands of turns would be as many steps.
    code.shorten(2);
    let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let base = map(code.bytes.len(), protection).unwrap();
    // SAFETY: a mapping of this length that nobody else knows.
    unsafe {
        std::ptr::copy_nonoverlapping(code.bytes.as_ptr(), base as *mut u8, code.bytes.len());
    }
    let entries = std::iter::once(&code.enter).chain(&code.levels);
    for (at, offset) in AT.iter().zip(entries) {
        at.store((base + offset) as u64, Ordering::Relaxed);
    }
    let stack = map(STACK, libc::PROT_READ | libc::PROT_WRITE).unwrap();
    let mut thread = Thread {
        c_sp: 0,
        j_sp: (stack + STACK) as u64,
        level: 0,
    };

    let mut last = String::new();
    let described: Vec<Described> = (code.parts.iter())
        .map(|part| {
            let range = (base + part.bytes.start) as u64..(base + part.bytes.end) as u64;
            let (start, how, prologue) = (range.start, part.how, u64::from(part.prologue));
            let entry = std::mem::replace(&mut last, part.name.clone()) != part.name;
            Described {
                range,
                entry,
                find: Box::new(move |child, registers| {
                    let at_return = child.word(registers.rip) as u8 == 0xc3;
                    let cfa = match how {
                        _ if registers.rip - start < prologue => registers.rsp + 8,
                        How::Fixed(_) if at_return => registers.rsp + 8,
                        How::Fixed(height) => registers.rsp + height as u64,
                        How::Switch { slot, above } => {
                            child.word(registers.rsp + slot as u64) + above as u64
                        }
                    };
                    Caller {
                        cfa,
                        ra: child.word(cfa - 8),
                        fp: registers.rbp,
                    }
                }),
            }
        })
        .collect();
    let seen = stepper::run(&described, || climb(&raw mut thread));
    // enter and a level each, leave between them, and the leaf.
    assert_eq!(seen.deepest, 2 * LEVELS + (LEVELS - 1) + 1);
    let whole = base as u64..(base + code.bytes.len()) as u64;
    let bytes = stepper::code(&whole);
    for instruction in Decoder::with_ip(64, bytes, whole.start, DecoderOptions::NONE) {
        let ip = instruction.ip();
        assert!(seen.instructions.contains(&ip), "+{:#x}", ip - whole.start);
    }
}
