//! Headers of all kinds, in memory that is made up.

use super::*;

/// Memory that begins at an address.
struct Bytes {
    at: usize,
    bytes: Vec<u8>,
}

impl Memory for Bytes {
    fn read(&self, address: usize) -> Option<[u8; 8]> {
        let at = address.checked_sub(self.at)?;
        self.bytes.get(at..)?.first_chunk().copied()
    }
}

const BASE: usize = 0x7000_0000_0000;
const SFRAME: usize = 0x2130;
const OBJECT: Object = Object {
    bias: BASE,
    dynamic: BASE + 0x3f18,
};

/// Kind, flags, address, length.
type Segment = (u32, u32, u64, u64);

const LIBRARY: [Segment; 4] = [
    (PT_LOAD, PF_R | 1, 0x1000, 0x200),
    (PT_LOAD, PF_R, 0x2000, 0x23d),
    (PT_DYNAMIC, 6, 0x3f18, 0xd0),
    (PT_GNU_SFRAME, PF_R, SFRAME as u64, 0x10d),
];

fn library(segments: &[Segment]) -> Bytes {
    let mut bytes = vec![0; 64];
    bytes[..7].copy_from_slice(&IDENT);
    bytes[32..40].copy_from_slice(&64u64.to_ne_bytes());
    bytes[54..56].copy_from_slice(&(ENTRY as u16).to_ne_bytes());
    bytes[56..58].copy_from_slice(&(segments.len() as u16).to_ne_bytes());
    for (kind, flags, address, length) in segments {
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        for long in [0, *address, 0, *length, *length, 0] {
            bytes.extend(long.to_ne_bytes());
        }
    }
    Bytes { at: BASE, bytes }
}

fn found(memory: &Bytes) -> Option<Range> {
    Table::behind(memory, BASE)?.unwind_data(memory, OBJECT)
}

#[test]
fn a_library_s_unwind_data_is_found() {
    let expected = Range {
        address: BASE + SFRAME,
        length: 0x10d,
    };
    assert_eq!(found(&library(&LIBRARY)), Some(expected));
    // In any order.
    let mut segments = LIBRARY;
    segments.reverse();
    assert_eq!(found(&library(&segments)), Some(expected));
}

#[test]
fn a_bias_may_be_negative() {
    // Prelinked to 0x4000_0000_0000 higher.
    let moved = LIBRARY.map(|(kind, flags, at, length)| (kind, flags, at + (1 << 46), length));
    let object = Object {
        bias: BASE.wrapping_sub(1 << 46),
        ..OBJECT
    };
    let memory = library(&moved);
    let table = Table::behind(&memory, BASE).unwrap();
    let range = table.unwind_data(&memory, object).unwrap();
    assert_eq!(range.address, BASE + SFRAME);
}

#[test]
fn what_is_odd_is_left_out() {
    let changed = |index: usize, change: fn(&mut Segment)| {
        let mut segments = LIBRARY;
        change(&mut segments[index]);
        found(&library(&segments))
    };
    // Another object's headers.
    assert_eq!(changed(2, |dynamic| dynamic.2 += 16), None);
    // Not mapped, not all of it, not to be read.
    assert_eq!(changed(1, |load| load.0 = 0), None);
    assert_eq!(changed(1, |load| load.3 -= 1), None);
    assert_eq!(changed(1, |load| load.1 = 2), None);
    // Nothing, too much, and round the end of the address space.
    assert_eq!(changed(3, |sframe| sframe.3 = 0), None);
    assert_eq!(changed(3, |sframe| sframe.3 = u64::MAX), None);
    assert_eq!(changed(3, |sframe| sframe.2 = u64::MAX), None);
    // None at all.
    assert_eq!(changed(3, |sframe| sframe.0 = 0), None);
    assert_eq!(found(&library(&[])), None);
}

#[test]
fn a_header_that_is_none_is_left_out() {
    let good = library(&LIBRARY);
    // Each of these bytes matters: identity, offset, size of an entry.
    for at in (0..7).chain(33..40).chain(54..56) {
        let mut memory = library(&LIBRARY);
        memory.bytes[at] ^= 0xff;
        assert_eq!(found(&memory), None, "byte {at}");
    }
    // And memory may end anywhere; of the last entry its first 40 bytes are of interest.
    for length in 0..good.bytes.len() - 16 {
        let memory = Bytes {
            at: BASE,
            bytes: good.bytes[..length].to_vec(),
        };
        assert_eq!(found(&memory), None, "{length} bytes");
    }
    // More headers than there are, or than anybody has.
    for count in [5, 128, 129, u16::MAX] {
        let mut memory = library(&LIBRARY);
        memory.bytes[56..58].copy_from_slice(&count.to_ne_bytes());
        assert_eq!(found(&memory), None, "{count} headers");
    }
}

#[test]
fn random_headers_do_not_panic() {
    let mut state = 1u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut any = 0;
    for _ in 0..20_000 {
        let mut memory = library(&LIBRARY);
        for _ in 0..random() % 4 {
            let at = random() as usize % memory.bytes.len();
            memory.bytes[at] = random() as u8;
        }
        if let Some(range) = found(&memory) {
            any += 1;
            assert_ne!(range.length, 0);
        }
    }
    assert!(any > 100, "{any}");
}
