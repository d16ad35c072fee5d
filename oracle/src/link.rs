//! Calls of the machines with a link register, by their encodings, and where QEMU's stub has their registers.
//!
//! Only what puts a return address into the link register matters, and what may go there.

use crate::shadow::Did;
use framewalk_walk::arch::{AARCH64, Arch, FULL, S390X};

/// One machine.
#[derive(Debug)]
pub struct Link {
    /// What a walk needs to know of it.
    pub arch: &'static Arch,
    /// What SFrame calls it.
    pub sframe: framewalk_sframe::Arch,
    /// Its emulator.
    pub emulator: &'static str,
    /// Words are big endian.
    pub big_endian: bool,
    /// Where `g` has the pc, in words of 8 bytes.
    pub pc: usize,
    /// Where `g` has the register of DWARF number 0; those behind follow.
    pub first: usize,
    /// How many follow there.
    pub general: usize,
    /// The stub's numbers of the registers behind those, in the order of their DWARF numbers.
    pub others: &'static [u32],
    /// What the instruction whose first bytes these are does, at this address.
    pub decode: fn(bytes: [u8; 6], pc: u64) -> Did,
}

/// AArch64: x0 to x30, SP, PC.
pub static AARCH64_LINK: Link = Link {
    arch: &AARCH64,
    sframe: framewalk_sframe::Arch::Aarch64,
    emulator: "qemu-aarch64",
    big_endian: false,
    pc: 32,
    first: 0,
    general: FULL,
    others: &[],
    decode: aarch64,
};

/// AArch64 with big-endian data. Its instructions are little endian all the same.
pub static AARCH64_BE_LINK: Link = Link {
    sframe: framewalk_sframe::Arch::Aarch64Be,
    emulator: "qemu-aarch64_be",
    big_endian: true,
    ..AARCH64_LINK
};

/// s390x: PSW mask and address, r0 to r15. The psABI numbers floating point registers in pairs.
pub static S390X_LINK: Link = Link {
    arch: &S390X,
    sframe: framewalk_sframe::Arch::S390x,
    emulator: "qemu-s390x",
    big_endian: true,
    pc: 1,
    first: 2,
    general: 16,
    // f0 f2 f4 f6 f1 f3 f5 f7 f8 f10 f12 f14 f9 f11 f13 f15; the stub has f0 as 35.
    others: &[
        35, 37, 39, 41, 36, 38, 40, 42, 43, 45, 47, 49, 44, 46, 48, 50,
    ],
    decode: s390x,
};

/// Arm Architecture Reference Manual for A-profile, C6.2.
pub fn aarch64(bytes: [u8; 6], pc: u64) -> Did {
    let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let is = |mask: u32, value: u32| word & mask == value;
    // BL; BLR; BLRAA, BLRAB, BLRAAZ, BLRABZ.
    if is(0xfc00_0000, 0x9400_0000) || is(0xffff_fc1f, 0xd63f_0000) || is(0xfeff_f800, 0xd63f_0800)
    {
        Did::Call(pc.wrapping_add(4))
    } else if is(0xfe00_0000, 0xd600_0000) {
        // BR, RET and their authenticating forms.
        Did::Transfer
    } else {
        Did::Plain
    }
}

/// z/Architecture Principles of Operation, chapter 7.
pub fn s390x(bytes: [u8; 6], pc: u64) -> Did {
    let call = |length: u64| Did::Call(pc.wrapping_add(length));
    let (register, low) = (bytes[1] >> 4, bytes[1] & 15);
    match (bytes[0], low) {
        // BRASL, BRAS; the register 14 has the return address by the psABI, others are local uses.
        (0xc0, 5) if register == 14 => call(6),
        (0xa7, 5) if register == 14 => call(4),
        // BASR: with register 0 it does not branch.
        (0x0d, 1..) if register == 14 => call(2),
        // BCR: with mask or register 0 it does not branch.
        (0x07, 1..) if register != 0 => Did::Transfer,
        _ => Did::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_aarch64() {
        let did = |word: u32| {
            let [a, b, c, d] = word.to_le_bytes();
            aarch64([a, b, c, d, 0, 0], 0x1000)
        };
        // bl +0, bl -4; blr x1; blraa x0, sp; blrab x1, x2; blraaz x3; blrabz x4.
        for call in [
            0x9400_0000,
            0x97ff_ffff,
            0xd63f_0020,
            0xd73f_081f,
            0xd73f_0c22,
            0xd63f_087f,
            0xd63f_0c9f,
        ] {
            assert_eq!(did(call), Did::Call(0x1004), "{call:#x}");
        }
        // br x16; ret; retaa; retab; braa x0, x1; braaz x2.
        for jump in [
            0xd61f_0200,
            0xd65f_03c0,
            0xd65f_0bff,
            0xd65f_0fff,
            0xd71f_0801,
            0xd61f_085f,
        ] {
            assert_eq!(did(jump), Did::Transfer, "{jump:#x}");
        }
        // b +0; mov x29, sp; stp x29, x30, [sp, #-16]!; svc #0; paciasp.
        for plain in [
            0x1400_0000,
            0x9100_03fd,
            0xa9bf_7bfd,
            0xd400_0001,
            0xd503_233f,
        ] {
            assert_eq!(did(plain), Did::Plain, "{plain:#x}");
        }
    }

    #[test]
    fn calls_of_s390x() {
        let did = |a, b| s390x([a, b, 0, 0, 0, 0], 0x1000);
        assert_eq!(did(0xc0, 0xe5), Did::Call(0x1006), "brasl %r14");
        assert_eq!(did(0xa7, 0xe5), Did::Call(0x1004), "bras %r14");
        assert_eq!(did(0x0d, 0xe1), Did::Call(0x1002), "basr %r14,%r1");
        assert_eq!(did(0x07, 0xfe), Did::Transfer, "br %r14");
        assert_eq!(did(0x07, 0x8e), Did::Transfer, "ber %r14");
        assert_eq!(did(0x07, 0x07), Did::Plain, "nopr %r7");
        assert_eq!(did(0x07, 0xf0), Did::Plain, "bcr 15,0: serialization");
        assert_eq!(did(0x0d, 0xe0), Did::Plain, "basr %r14,0");
        assert_eq!(did(0xc0, 0xe0), Did::Plain, "larl %r14");
        assert_eq!(did(0xc0, 0xf4), Did::Plain, "jg");
        assert_eq!(did(0xa7, 0xf4), Did::Plain, "j");
    }
}
