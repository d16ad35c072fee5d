//! What unwind data of code generators leaves out: how a function takes its frame down.
//!
//! Cranelift describes prologues only. In its epilogues (`mov rsp, rbp; pop rbp; ret`) that is still right up to the
//! return, where rbp is the caller's again.

use framewalk_sframe::{CallerRule, Cfa, Register, Row, Rule, Unwind};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register as Named};

const RSP: Register = Register(7);
const ENTRY: Frame = Frame {
    height: 8,
    saved: false,
};

/// How a frame stands at an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    /// Bytes from rsp to the CFA.
    height: i32,
    /// Whether the caller's rbp lies below the return address.
    saved: bool,
}

impl Frame {
    fn unwind(self) -> Unwind {
        Unwind::Caller(CallerRule {
            cfa: Cfa::Value(RSP, self.height),
            ra: Rule::AtCfa(-8),
            fp: if self.saved {
                Rule::AtCfa(-16)
            } else {
                Rule::Same
            },
            ra_signed: false,
        })
    }
}

/// The instructions of a function, each with its offset.
fn instructions(code: &[u8], start: u64) -> impl Iterator<Item = (u32, Instruction)> {
    let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
    std::iter::from_fn(move || {
        decoder.can_decode().then(|| {
            let instruction = decoder.decode();
            ((instruction.ip() - start) as u32, instruction)
        })
    })
}

fn is_return(instruction: &Instruction) -> bool {
    matches!(instruction.code(), Code::Retnq | Code::Retnq_imm16)
}

/// Adds a row, unless it says what holds anyway.
fn push(rows: &mut Vec<Row>, start: u32, unwind: Unwind) {
    if rows.last().is_none_or(|last| last.unwind != unwind) {
        rows.push(Row { start, unwind });
    }
}

/// The rows of prologue and body, and at each return that of a function's entry.
pub fn with_returns(code: &[u8], start: u64, described: Vec<Row>) -> Vec<Row> {
    let mut rows = Vec::with_capacity(described.len() + 2);
    let mut described = described.into_iter().peekable();
    let mut holds = ENTRY.unwind();
    for (offset, instruction) in instructions(code, start) {
        while let Some(row) = described.next_if(|row| row.start <= offset) {
            holds = row.unwind;
        }
        let here = if is_return(&instruction) {
            ENTRY.unwind()
        } else {
            holds
        };
        push(&mut rows, offset, here);
    }
    rows
}

/// Rows that follow rsp through the code. None where it is changed in a way that is not known.
pub fn by_stack_pointer(code: &[u8], start: u64) -> Option<Vec<Row>> {
    let mut rows = Vec::new();
    let (mut frame, mut body) = (ENTRY, ENTRY);
    for (offset, instruction) in instructions(code, start) {
        push(&mut rows, offset, frame.unwind());
        frame = after(&instruction, frame, body)?;
        if frame.height > body.height {
            body = frame;
        }
    }
    Some(rows)
}

/// The frame behind an instruction. Behind a return that is the function's body, where the frame is highest.
fn after(instruction: &Instruction, frame: Frame, body: Frame) -> Option<Frame> {
    let (first, second) = (instruction.op0_register(), instruction.op1_register());
    let higher = |by| Frame {
        height: frame.height + by,
        ..frame
    };
    match instruction.mnemonic() {
        Mnemonic::Ret => Some(body),
        Mnemonic::Push if first == Named::RBP => Some(Frame {
            saved: true,
            ..higher(8)
        }),
        Mnemonic::Pop if first == Named::RBP => Some(Frame {
            saved: false,
            ..higher(-8)
        }),
        Mnemonic::Mov if (first, second) == (Named::RSP, Named::RBP) => Some(Frame {
            height: 16,
            ..frame
        }),
        Mnemonic::Sub | Mnemonic::Add if first == Named::RSP => {
            if instruction.op1_kind() == OpKind::Register {
                return None;
            }
            let by = i32::try_from(instruction.immediate(1).cast_signed()).ok()?;
            let down = instruction.mnemonic() == Mnemonic::Sub;
            Some(higher(if down { by } else { -by }))
        }
        Mnemonic::Call => Some(frame),
        Mnemonic::Push | Mnemonic::Pop | Mnemonic::Leave | Mnemonic::Enter => None,
        _ if first == Named::RSP && instruction.op0_kind() == OpKind::Register => {
            // Comparing is harmless; everything else is not known.
            matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test).then_some(frame)
        }
        _ => Some(frame),
    }
}
