//! What recorders read of processes beside their memory: objects, mappings, perf maps, states of threads, and the
//! records of a ring, in which names and addresses are the process's own.

use crate::audit::headers::{ENTRY, Memory, Object, Table};
use crate::hostile::bytes::{Out, corrupt};
use crate::{elf, engines, hostile, processes, symbols};
use arbitrary::{Arbitrary, Result, Unstructured};
use framewalk_sframe::Arch;

/// Where program headers lie that the audit library looks at.
const LOADED: usize = 0x7000_0000;

/// The first byte says what the others are.
pub fn files(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let _ = match mode % 8 {
        0 => {
            object(rest);
            Ok(())
        }
        1..5 => made(&mut Unstructured::new(rest)),
        5 => {
            loaded(rest);
            Ok(())
        }
        _ => Ok(()),
    };
}

/// The first byte says what the others are.
pub fn texts(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    match mode % 8 {
        0 | 1 => processes::hostile::mappings(rest, usize::from(mode >> 3)),
        2 => processes::hostile::stat(rest),
        3 => symbols::hostile::perf_map(rest),
        4 => engines::rings::hostile::ring(rest),
        5 => {
            let _ = ring(&mut Unstructured::new(rest));
        }
        6 => {
            let _ = mappings(&mut Unstructured::new(rest));
        }
        _ => {
            let _ = perf_map(&mut Unstructured::new(rest));
        }
    }
}

/// An object that is put together and perhaps changed.
fn made(u: &mut Unstructured<'_>) -> Result<()> {
    let mut bytes = elf::object(u)?;
    corrupt(u, &mut bytes)?;
    object(&bytes);
    loaded(&bytes);
    Ok(())
}

fn object(bytes: &[u8]) {
    processes::hostile::object(bytes);
    let len = bytes.len() as u64;
    let places = [0, 0x40, 0x1000, 0x1001, 0x1100, 0x2000, len, u64::MAX];
    symbols::hostile::layout(bytes, &places);
}

/// Bytes in memory, read in whole words as the audit library does.
struct Loaded<'a>(&'a [u8], std::cell::Cell<usize>);

impl Memory for Loaded<'_> {
    fn read(&self, address: usize) -> Option<[u8; 8]> {
        self.1.set(self.1.get() + 1);
        let at = address.checked_sub(LOADED)?;
        self.0.get(at..)?.first_chunk().copied()
    }
}

/// The bytes are an object in memory: where its unwind data is, a header maps.
fn loaded(bytes: &[u8]) {
    let memory = Loaded(bytes, Default::default());
    let Some(table) = Table::behind(&memory, LOADED) else {
        return;
    };
    assert!(table.address >= LOADED && memory.1.get() <= 3);
    for dynamic in [0, LOADED + 0x200] {
        let object = Object {
            bias: LOADED,
            dynamic,
        };
        let before = memory.1.get();
        let found = table.unwind_data(&memory, object);
        // Two passes over at most 128 headers, three words of each.
        assert!(memory.1.get() - before <= 2 * 128 * 3);
        let Some(found) = found else { continue };
        let start = found.address.wrapping_sub(LOADED) as u128;
        let at = table.address - LOADED;
        let mut headers = bytes[at..].chunks_exact(ENTRY).take(table.count);
        let word = |header: &[u8], at| {
            u128::from(u64::from_ne_bytes(*header[at..].first_chunk().unwrap()))
        };
        assert!(headers.any(|header| {
            let first = word(header, 16);
            header[0] == 1
                && first <= start
                && start + found.length as u128 <= first + word(header, 32)
        }));
    }
}

/// Lines as the kernel writes them.
fn mappings(u: &mut Unstructured<'_>) -> Result<()> {
    let mut text = Vec::new();
    let mut at = u64::from(u32::arbitrary(u)?) << 12;
    for _ in 0..u.int_in_range(0..=20u8)? {
        let end = at.saturating_add((u64::from(u8::arbitrary(u)?) + 1) << 12);
        let executable = if bool::arbitrary(u)? { 'x' } else { '-' };
        let (major, minor, inode) = (u8::arbitrary(u)?, u8::arbitrary(u)?, u16::arbitrary(u)?);
        let offset = u16::arbitrary(u)?;
        let line = format!(
            "{at:08x}-{end:08x} r-{executable}p {offset:08x} {major:02x}:{minor:02x} {inode} "
        );
        text.extend(line.bytes());
        let path = *u.choose(&[
            &b""[..],
            b"                   [vdso]",
            b"                   /usr/lib/libc.so.6",
            b"                   /tmp/a\\012b (deleted)",
            b"/memfd:x (deleted)",
        ])?;
        text.extend(path);
        text.push(b'\n');
        at = end;
    }
    let piece = u8::arbitrary(u)?.into();
    corrupt(u, &mut text)?;
    processes::hostile::mappings(&text, piece);
    Ok(())
}

fn perf_map(u: &mut Unstructured<'_>) -> Result<()> {
    let mut text = Vec::new();
    for _ in 0..u.int_in_range(0..=20u8)? {
        let (start, size) = (u8::arbitrary(u)?, u8::arbitrary(u)? % 32);
        let prefix = *u.choose(&["", "", "0x", "fffffffffffffff", "+", "-"])?;
        let name = *u.choose(&["f", "a b ", "", " ", "\u{e9}", "\u{85}"])?;
        let end = *u.choose(&["\n", "\n", "\r\n", " "])?;
        text.extend(format!("{prefix}{start:x} {size:x} {name}{end}").bytes());
    }
    corrupt(u, &mut text)?;
    symbols::hostile::perf_map(&text);
    Ok(())
}

/// Records of the kinds that the kernel writes, of the sizes that they say.
fn ring(u: &mut Unstructured<'_>) -> Result<()> {
    let mut bytes = Vec::new();
    for _ in 0..u.int_in_range(1..=6u8)? {
        let kind = *u.choose(&[9, 9, 10, 3, 7, 4, 2, 13, 5, 1])?;
        let mut out = Out::new(cfg!(target_endian = "big"));
        out.u32(kind);
        out.u16(u16::arbitrary(u)?);
        out.u16(0);
        match kind {
            9 => sample(u, &mut out)?,
            _ => {
                let words = match kind {
                    10 => 8,
                    3 => 1,
                    _ => 2,
                };
                for _ in 0..words {
                    out.u64(u64::arbitrary(u)?);
                }
                let name = *u.choose(&[&b""[..], b"/usr/bin/python3", b"a\0b"])?;
                out.bytes.extend(name);
                out.fill(8 - name.len() % 8);
                // The trailer.
                out.fill(16);
            }
        }
        let size = out.bytes.len() as u16;
        out.bytes[6..8].copy_from_slice(&size.to_ne_bytes());
        bytes.extend(out.bytes);
    }
    corrupt(u, &mut bytes)?;
    engines::rings::hostile::ring(&bytes);
    Ok(())
}

fn sample(u: &mut Unstructured<'_>, out: &mut Out) -> Result<()> {
    for _ in 0..3 {
        out.u64(u64::arbitrary(u)?);
    }
    let entries = u.int_in_range(0..=5u8)?;
    out.u64(entries.into());
    for _ in 0..entries {
        let entry = *u.choose(&[0xffff_ffff_8100_0000, 0u64.wrapping_sub(128), 0])?;
        out.u64(entry);
    }
    let abi = u.int_in_range(0..=2u8)?;
    out.u64(abi.into());
    if abi > 0 {
        for _ in 0..17 {
            out.u64(u8::arbitrary(u)?.into());
        }
    }
    let room = 8 * u64::from(u8::arbitrary(u)? % 8);
    out.u64(room);
    if room > 0 {
        out.fill(room as usize);
        out.u64(room.saturating_sub(u64::from(u8::arbitrary(u)? % 9)));
    }
    Ok(())
}

/// What an object's section of unwind data may be.
pub(crate) fn eh_frame(u: &mut Unstructured<'_>, address: u64) -> Result<Vec<u8>> {
    hostile::cfi::eh_frame(u, Arch::Amd64, address)
}
