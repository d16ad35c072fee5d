//! Sections and call frame information: real ones, which the fuzzer then changes, and bytes that nobody made.

use crate::hostile;
use framewalk_sframe::Arch;

/// Where a section may lie: as linked, where nothing is below it, and where addresses end.
const ADDRESSES: [u64; 4] = [0x40_0000, 0, 1 << 63, u64::MAX - 0x800];

/// The first byte says where the others lie.
pub fn section(data: &[u8]) {
    if let Some((place, bytes)) = data.split_first() {
        hostile::section(bytes, ADDRESSES[usize::from(place % 4)]);
    }
}

/// The first byte says where the others lie and for which machine they are.
pub fn convert(data: &[u8]) {
    if let Some((first, bytes)) = data.split_first() {
        let arch = match first / 4 % 4 {
            0 => Arch::Amd64,
            1 => Arch::Aarch64,
            2 => Arch::Aarch64Be,
            _ => Arch::S390x,
        };
        hostile::eh_frame(bytes, ADDRESSES[usize::from(first % 4)], arch);
    }
}
