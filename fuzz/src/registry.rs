//! The registry: what processes say of their code, and what becomes of them, in any order.

use crate::announced::memory::{Area, Process, SORTED, Section};
use crate::announced::oracle::{Both, Step};
use crate::hostile::bytes::corrupt;
use arbitrary::{Arbitrary, Result, Unstructured};
use framewalk_announce::abi::{KIND_AREA, KIND_SECTION, REGISTER, REPLACE, UNREGISTER};
use framewalk_announce::area::layout::MAX_AREA;

/// Where what is registered lies.
const AT: u64 = 0x100_0000;
const MOST_STEPS: usize = 200;
/// More areas than one process may have.
const MOST_ROOM: usize = 80;

/// The bytes are a sequence of calls, forks, execs and ends.
pub fn registry(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let room = bytes.int_in_range(0..=MOST_ROOM).unwrap_or(0);
    let mut both = Both::with_room(room);
    for _ in 0..MOST_STEPS {
        let Ok(step) = step(&mut bytes) else { return };
        both.step(step);
        both.compare();
        if bytes.is_empty() {
            return;
        }
    }
}

fn step(u: &mut Unstructured<'_>) -> Result<Step> {
    let kind = u8::arbitrary(u)?;
    let (pid, other) = (u32::from(kind & 3), u32::from(kind >> 2 & 3));
    Ok(match kind >> 4 {
        0..6 => Step::Register {
            pid,
            key: u64::from(u8::arbitrary(u)? % 4),
            slot: u64::from(u8::arbitrary(u)?),
            slots: u32::from(u8::arbitrary(u)? % 8) + 1,
            area: *u.choose(&[0, 0, 256, MAX_AREA / 2, MAX_AREA / 4 + 1])?,
            replace: u8::arbitrary(u)? % 4 == 0,
        },
        6..11 => call(u, pid)?,
        11 => Step::Unregister {
            pid,
            key: u64::from(other),
        },
        12 => Step::Fork(pid, other),
        13 => Step::Share(pid, other),
        14 => Step::Exec(pid),
        _ => Step::Exit(pid),
    })
}

/// A call about something that is nearly in order.
fn call(u: &mut Unstructured<'_>, pid: u32) -> Result<Step> {
    let key = u64::from(u8::arbitrary(u)? % 4);
    let option = match u8::arbitrary(u)? {
        0..0xe0 => REGISTER,
        0xe0..0xf8 => UNREGISTER,
        _ => u32::arbitrary(u)?,
    };
    let start = match u8::arbitrary(u)? {
        0xff => u64::arbitrary(u)?,
        high @ 0xf8.. => (1 << 47) - u64::from(high & 7),
        slot => 0x1000 + 16 * u64::from(slot),
    };
    let (kind, mut bytes) = match bool::arbitrary(u)? {
        true => (KIND_AREA, area(u, key, start)?),
        false => (KIND_SECTION, section(u, start)?),
    };
    let length = match kind {
        KIND_AREA => 256,
        _ => bytes.len() as u64,
    };
    corrupt(u, &mut bytes)?;
    let mut arguments = [key, AT, length, kind];
    if u8::arbitrary(u)? % 4 == 0 {
        arguments[3] |= REPLACE;
    }
    if u8::arbitrary(u)? >= 0xe0 {
        let which = u.choose_index(arguments.len())?;
        arguments[which] = match bool::arbitrary(u)? {
            true => u64::arbitrary(u)?,
            false => arguments[which].wrapping_add_signed(i8::arbitrary(u)?.into()),
        };
    }
    if option == UNREGISTER && bool::arbitrary(u)? {
        arguments[1..].fill(0);
    }
    // A page may be missing.
    let mut memory = Process::default();
    let cut = match u8::arbitrary(u)? {
        at @ 0xe0.. => usize::from(at & 31) * 4,
        _ => bytes.len(),
    };
    let behind = bytes.split_off(cut.min(bytes.len()));
    memory.map(AT, bytes);
    if !behind.is_empty() && bool::arbitrary(u)? {
        memory.map(AT + cut as u64, behind);
    }
    Ok(Step::Call {
        pid,
        option,
        arguments,
        memory,
    })
}

fn section(u: &mut Unstructured<'_>, start: u64) -> Result<Vec<u8>> {
    let version = *u.choose(&[3, 3, 2, 1, 4])?;
    let flags = match u8::arbitrary(u)? {
        flags @ 0xf0.. => flags & 7,
        flags => SORTED | (flags & 4),
    };
    let mut at = start;
    let mut functions = Vec::new();
    for _ in 0..u.int_in_range(0..=3u8)? {
        let size = u32::from(u8::arbitrary(u)?);
        functions.push((at, size));
        at = at.wrapping_add(u64::from(size));
    }
    Ok(Section::new(version, flags, AT, &functions).bytes())
}

fn area(u: &mut Unstructured<'_>, key: u64, start: u64) -> Result<Vec<u8>> {
    let size = match u8::arbitrary(u)? {
        0xff => u64::arbitrary(u)? >> 16,
        size => 16 * u64::from(size % 8) + 16,
    };
    let mut area = Area::new(key, start..start.saturating_add(size));
    if u8::arbitrary(u)? >= 0xf0 {
        area.capacity = u32::from(u8::arbitrary(u)?);
        area.shift = u16::from(u8::arbitrary(u)? % 20);
    }
    Ok(area.bytes())
}
