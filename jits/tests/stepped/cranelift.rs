//! The rows of functions that Cranelift compiled.
#![allow(unsafe_code)]

use super::stepper::{self, Caller, Child, Described, Registers};
use framewalk_jits::generate::{Compiled, Generator, Host, Shape};
use framewalk_jits::memory::CodeMemory;
use framewalk_jits::rows::By;
use framewalk_sframe::{Cfa, Row, Rule, Unwind};
use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use std::sync::atomic::{AtomicU64, Ordering};

/// The functions, outermost first; all shapes.
static CHAIN: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

type Function = extern "C" fn(i64, i64) -> i64;

fn function(at: usize) -> Function {
    let start = CHAIN[at].load(Ordering::Relaxed);
    // SAFETY: it is the address of a function of this type, which is never freed.
    unsafe { std::mem::transmute::<usize, Function>(start as usize) }
}

extern "C" fn descend(task: i64, level: i64) -> i64 {
    function(level as usize + 1)(task, 2) | 1
}

#[allow(clippy::too_many_arguments)]
extern "C" fn descend_wide(
    task: i64,
    level: i64,
    a: i64,
    b: i64,
    c: i64,
    d: i64,
    e: i64,
    f: i64,
    g: i64,
    h: i64,
) -> i64 {
    // What lies on the stack arrives.
    assert_eq!([b, c, d, e, f, g, h].map(|n| n - a), [1, 2, 3, 4, 5, 6, 7]);
    descend(task, level)
}

/// The caller by the row for an offset.
fn caller(child: &Child, registers: &Registers, rows: &[Row], offset: u32) -> Caller {
    let row = rows.iter().rev().find(|row| row.start <= offset);
    let Some(Unwind::Caller(rule)) = row.map(|row| row.unwind) else {
        panic!("{row:?}");
    };
    let base = |register: u8| match register {
        6 => registers.rbp,
        7 => registers.rsp,
        _ => panic!("{row:?}"),
    };
    let Cfa::Value(register, distance) = rule.cfa else {
        panic!("{row:?}");
    };
    let cfa = base(register.0).wrapping_add_signed(distance.into());
    let stored = |rule| match rule {
        Rule::AtCfa(distance) => Some(child.word(cfa.wrapping_add_signed(distance.into()))),
        Rule::Same => None,
        _ => panic!("{row:?}"),
    };
    Caller {
        cfa,
        ra: stored(rule.ra).expect("a return address in memory"),
        fp: stored(rule.fp).unwrap_or(registers.rbp),
    }
}

fn described(function: &Compiled) -> Described {
    let (start, rows) = (function.start, function.rows.clone());
    Described {
        range: start..start + u64::from(function.size),
        entry: true,
        find: Box::new(move |child, registers| {
            caller(child, registers, &rows, (registers.rip - start) as u32)
        }),
    }
}

/// At each instruction of each shape, in prologues, bodies and epilogues.
#[test]
fn the_caller_is_where_the_rows_say() {
    let memory = CodeMemory::new(16).unwrap();
    let host = Host {
        descend: descend as *const u8,
        descend_wide: descend_wide as *const u8,
    };
    let mut generator = Generator::new(memory, host);
    for by in [By::FramePointer, By::StackPointer] {
        let mut functions = Vec::new();
        let shapes: Vec<Shape> = Shape::CALLING.into_iter().chain([Shape::Leaf]).collect();
        for (level, &shape) in shapes.iter().enumerate() {
            let name = format!("f{level}");
            let compiled = generator.function(&name, shape, level as i64, by).unwrap();
            CHAIN[level].store(compiled.start, Ordering::Relaxed);
            functions.push(compiled);
        }
        let described: Vec<Described> = functions.iter().map(described).collect();
        let seen = stepper::run(&described, || {
            for task in 0..4 {
                std::hint::black_box(function(0)(task, 2));
            }
        });
        assert_eq!(seen.deepest, CHAIN.len());
        for ((part, function), shape) in described.iter().zip(&functions).zip(shapes) {
            let start = part.range.start;
            let bytes = stepper::code(&part.range);
            let instructions: Vec<_> = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE)
                .into_iter()
                .collect();
            let missed: Vec<_> = instructions
                .iter()
                .filter(|instruction| !seen.instructions.contains(&instruction.ip()))
                .map(|instruction| instruction.ip() - start)
                .collect();
            assert!(missed.is_empty(), "{shape:?}: {missed:x?}");
            let is_return = |i: &&iced_x86::Instruction| i.mnemonic() == Mnemonic::Ret;
            println!(
                "{shape:?} {by:?}: {} instructions, {} returns, {} rows",
                instructions.len(),
                instructions.iter().filter(is_return).count(),
                function.rows.len()
            );
        }
    }
}
