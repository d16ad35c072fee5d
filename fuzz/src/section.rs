//! Sections and call frame information: some that are put together as the formats say and then changed, real ones, which
//! the fuzzer changes, and bytes that nobody made.

use crate::hostile;
use arbitrary::Unstructured;
use framewalk_sframe::Arch;

/// Where a section may lie: as linked, where nothing is below it, and where addresses end.
const ADDRESSES: [u64; 4] = [0x40_0000, 0, 1 << 63, u64::MAX - 0x800];
/// In the first byte: the others are what to make it of, and not the section itself.
const MADE: u8 = 0x80;

/// The first byte says what the others are, and where the section lies.
pub fn section(data: &[u8]) {
    match data.split_first() {
        Some((first, bytes)) if first & MADE != 0 => {
            let _ = hostile::made_section(&mut Unstructured::new(bytes));
        }
        Some((first, bytes)) => hostile::section(bytes, ADDRESSES[usize::from(first % 4)]),
        None => {}
    }
}

/// The first byte says what the others are, where the section lies and for which machine it is.
pub fn convert(data: &[u8]) {
    if let Some((first, bytes)) = data.split_first() {
        let address = ADDRESSES[usize::from(first % 4)];
        let arch = Arch::ALL[usize::from(first / 4 % 4)];
        if first & MADE != 0 {
            let _ = hostile::made_eh_frame(&mut Unstructured::new(bytes), arch, address);
        } else {
            hostile::eh_frame(bytes, address, arch);
        }
    }
}
