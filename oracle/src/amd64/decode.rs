//! What an instruction will do to control and to the stack pointer.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic, Register};

/// One instruction, before it is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoded {
    Plain,
    /// The address after it.
    Call(u64),
    Transfer,
    Load,
    System,
}

impl Decoded {
    /// The instruction at `pc`, of which these are the bytes, and perhaps more; and its name, in small letters.
    pub(super) fn of(pc: u64, bytes: &[u8]) -> (Decoded, String) {
        let instruction = Decoder::with_ip(64, bytes, pc, DecoderOptions::NONE).decode();
        let to_sp = instruction.op_count() > 0 && instruction.op0_register() == Register::RSP;
        let decoded = match (instruction.flow_control(), instruction.mnemonic()) {
            (_, Mnemonic::Syscall) => Decoded::System,
            (FlowControl::Call | FlowControl::IndirectCall, _) => {
                Decoded::Call(instruction.next_ip())
            }
            (FlowControl::Return | FlowControl::IndirectBranch, _) => Decoded::Transfer,
            (_, Mnemonic::Leave) => Decoded::Load,
            (_, Mnemonic::Lea) if to_sp && instruction.memory_base() == Register::RSP => {
                Decoded::Plain
            }
            (_, Mnemonic::Mov | Mnemonic::Pop | Mnemonic::Xchg | Mnemonic::Lea) if to_sp => {
                Decoded::Load
            }
            (_, Mnemonic::Xchg) if instruction.op1_register() == Register::RSP => Decoded::Load,
            _ => Decoded::Plain,
        };
        let name = format!("{:?}", instruction.mnemonic()).to_lowercase();
        (decoded, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_that_matter() {
        let cases: [(&[u8], Decoded); 11] = [
            (&[0xe8, 0, 0, 0, 0], Decoded::Call(0x1005)),
            (&[0xff, 0xd0], Decoded::Call(0x1002)),
            (&[0xc3], Decoded::Transfer),
            (&[0xff, 0xe2], Decoded::Transfer),
            (&[0xeb, 0], Decoded::Plain),
            (&[0x48, 0x89, 0xc4], Decoded::Load), // mov %rax,%rsp
            (&[0x48, 0x87, 0xe0], Decoded::Load), // xchg %rsp,%rax
            (&[0xc9], Decoded::Load),             // leave
            (&[0x48, 0x8d, 0x65, 0xd8], Decoded::Load), // lea -0x28(%rbp),%rsp
            (&[0x48, 0x8d, 0x64, 0x24, 8], Decoded::Plain), // lea 8(%rsp),%rsp
            (&[0x0f, 0x05], Decoded::System),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Decoded::of(0x1000, bytes).0, expected, "{bytes:x?}");
        }
        assert_eq!(Decoded::of(0, &[]).0, Decoded::Plain);
        assert_eq!(Decoded::of(0, &[0xc9]).1, "leave");
    }
}
