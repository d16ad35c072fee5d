//! Machine code that runs on a stack of its own, called from C and calling C: bytes by hand, and what describes them.
//!
//! ```text
//!   C's stack                          the code's own stack
//!   ...                                16-aligned top: j_sp of the thread
//!   caller of enter                    +-------------------+
//!   return address                     | C's rsp           |  <- enter switches to below here
//!   r15 of the caller    <-------------| outer c_sp        |
//!   +----------------+                 | return address    |  into enter
//!   |                |                 | frame of j_0      |
//!   | rsp of leave --|---------------->| return address    |  into j_0
//!   | frames of C    |                 +-------------------+
//! ```
//!
//! `enter(thread, code, argument)` saves C's stack pointer on the other stack and calls the code there; `leave` (argument
//! in rdi, a C function in rsi) saves the code's stack pointer on C's stack, below where `enter` left it, and calls
//! C there. Both may be nested as often as the stacks allow. r15 is the thread: `c_sp` at 0, `j_sp` at 8.

use std::ops::Range;

/// Turns of each busy loop.
const TURNS: u32 = 2000;

/// Busy loops of a level in each place: there are many levels, and each shall be met.
const LOOPS: u32 = 4;

/// How a stretch of code finds its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// CFA = rsp + so many bytes.
    Fixed(i32),
    /// The other stack's pointer S lies at rsp + `slot`; CFA = S + `above`.
    Switch {
        /// Where S lies.
        slot: i16,
        /// What is above S.
        above: i16,
    },
}

/// A stretch of code that one entry of an area describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The function's name.
    pub name: String,
    /// Its bytes.
    pub bytes: Range<usize>,
    /// Its rule.
    pub how: How,
    /// Bytes at its beginning for which the frame stands as at a function's entry.
    pub prologue: u16,
}

/// Code, and where its functions begin.
#[derive(Debug, Default)]
pub struct Code {
    /// The bytes; they run wherever they are put.
    pub bytes: Vec<u8>,
    /// What describes them, in order and without gaps.
    pub parts: Vec<Part>,
    /// Where `enter` begins.
    pub enter: usize,
    /// Where `j_0` and so on begin.
    pub levels: Vec<usize>,
    begun: usize,
    loops: Vec<usize>,
}

impl Code {
    /// Trampolines and `functions.len()` levels: `j_n` calls C's function `functions[n]`, but the last one, which calls
    /// `j_leaf`.
    pub fn new(functions: &[u64]) -> Code {
        let mut code = Code::default();
        code.enter();
        let leave = code.leave();
        let leaf = code.leaf();
        for (level, &function) in functions.iter().enumerate() {
            let last = level + 1 == functions.len();
            code.level(level, if last { leaf } else { leave }, function);
        }
        code
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Ends a part here.
    fn part(&mut self, name: &str, how: How, prologue: u16) {
        let bytes = self.begun..self.bytes.len();
        self.begun = bytes.end;
        self.parts.push(Part {
            name: name.to_string(),
            bytes,
            how,
            prologue,
        });
    }

    /// Gives all busy loops another number of turns.
    pub fn shorten(&mut self, turns: u32) {
        for &at in &self.loops {
            self.bytes[at..at + 4].copy_from_slice(&turns.to_le_bytes());
        }
    }

    /// A busy loop, so that samples fall here. Uses ecx.
    fn spin(&mut self) {
        self.loops.push(self.bytes.len() + 1);
        self.put(&[0xb9]); // mov ecx, TURNS
        self.put(&TURNS.to_le_bytes());
        self.put(&[0xff, 0xc9]); // again: dec ecx
        self.put(&[0x75, 0xfc]); // jnz again
    }

    fn enter(&mut self) {
        self.enter = self.bytes.len();
        self.put(&[0x41, 0x57]); // push r15
        self.put(&[0x49, 0x89, 0xff]); // mov r15, rdi
        self.spin();
        self.put(&[0x49, 0x8b, 0x47, 0x08]); // mov rax, [r15 + 8]
        self.put(&[0x49, 0x8b, 0x0f]); // mov rcx, [r15]
        self.put(&[0x48, 0x89, 0x48, 0xf0]); // mov [rax - 16], rcx
        self.put(&[0x48, 0x89, 0x60, 0xf8]); // mov [rax - 8], rsp
        self.put(&[0x48, 0x8d, 0x60, 0xf0]); // lea rsp, [rax - 16]
        self.part("enter", How::Fixed(16), 2);

        self.put(&[0x48, 0x8b, 0x4c, 0x24, 0x08]); // mov rcx, [rsp + 8]
        self.put(&[0x49, 0x89, 0x0f]); // mov [r15], rcx
        self.spin();
        self.put(&[0x48, 0x89, 0xd7]); // mov rdi, rdx
        self.put(&[0xff, 0xd6]); // call rsi
        self.spin();
        self.put(&[0x48, 0x8b, 0x0c, 0x24]); // mov rcx, [rsp]
        self.put(&[0x49, 0x89, 0x0f]); // mov [r15], rcx
        self.put(&[0x48, 0x8d, 0x4c, 0x24, 0x10]); // lea rcx, [rsp + 16]
        self.put(&[0x49, 0x89, 0x4f, 0x08]); // mov [r15 + 8], rcx
        self.put(&[0x48, 0x8b, 0x64, 0x24, 0x08]); // mov rsp, [rsp + 8]
        self.part("enter", How::Switch { slot: 8, above: 16 }, 0);

        self.spin();
        self.put(&[0x41, 0x5f]); // pop r15
        self.put(&[0xc3]); // ret
        self.part("enter", How::Fixed(16), 0);
    }

    fn leave(&mut self) -> usize {
        let start = self.bytes.len();
        self.spin();
        self.put(&[0x49, 0x8b, 0x07]); // mov rax, [r15]
        self.put(&[0x48, 0x8d, 0x4c, 0x24, 0xf8]); // lea rcx, [rsp - 8]
        self.put(&[0x49, 0x89, 0x4f, 0x08]); // mov [r15 + 8], rcx
        self.put(&[0x48, 0x89, 0x60, 0xf0]); // mov [rax - 16], rsp
        self.put(&[0x48, 0x8d, 0x60, 0xf0]); // lea rsp, [rax - 16]
        self.part("leave", How::Fixed(8), 0);

        self.spin();
        self.put(&[0xff, 0xd6]); // call rsi
        self.spin();
        self.put(&[0x48, 0x8b, 0x24, 0x24]); // mov rsp, [rsp]
        self.part("leave", How::Switch { slot: 0, above: 8 }, 0);

        self.spin();
        self.put(&[0xc3]); // ret
        self.part("leave", How::Fixed(8), 0);
        start
    }

    fn leaf(&mut self) -> usize {
        let start = self.bytes.len();
        self.spin();
        self.put(&[0xc3]); // ret
        self.part("j_leaf", How::Fixed(8), 0);
        start
    }

    /// A function with a frame of a size of its own.
    fn level(&mut self, level: usize, callee: usize, function: u64) {
        self.levels.push(self.bytes.len());
        let frame = 24 + 16 * level as i32;
        self.put(&[0x48, 0x81, 0xec]); // sub rsp, frame
        self.put(&frame.to_le_bytes());
        self.put(&[0x48, 0x89, 0x3c, 0x24]); // mov [rsp], rdi
        (0..LOOPS).for_each(|_| self.spin());
        self.put(&[0x48, 0x8b, 0x3c, 0x24]); // mov rdi, [rsp]
        self.put(&[0x48, 0xbe]); // mov rsi, function
        self.put(&function.to_le_bytes());
        let behind = self.bytes.len() + 5;
        self.put(&[0xe8]); // call callee
        self.put(&(callee as i32 - behind as i32).to_le_bytes());
        (0..LOOPS).for_each(|_| self.spin());
        self.put(&[0x48, 0x81, 0xc4]); // add rsp, frame
        self.put(&frame.to_le_bytes());
        self.put(&[0xc3]); // ret
        self.part(&format!("j_{level}"), How::Fixed(frame + 8), 7);
    }
}
