//! Objects put together as the gABI draws them: x86-64 files with code, unwind data, its search table, and a build id.

use crate::files::eh_frame;
use crate::hostile::bytes::Out;
use crate::hostile::made;
use arbitrary::{Arbitrary, Result, Unstructured};
use framewalk_sframe::{Arch, Builder, CallerRule, Cfa, FunctionRows, Register, Row, Rule, Unwind};

/// What the file's pages are linked to.
const BASE: u64 = 0x40_0000;
/// Bytes of code; call frame information is made for addresses right behind its own section's, or before.
const HEADERS: usize = 0x200;
const NAMES: &[u8] = b"\0.text\0.sframe\0.eh_frame\0.plt.sec\0.shstrtab\0.eh_frame_hdr\0";

/// A section: name, type, flags, address, offset, size.
struct Section(u32, u32, u64, u64, usize, usize);

pub(crate) fn object(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut out = Out::new(false);
    out.fill(HEADERS);
    let mut sections = vec![Section(0, 0, 0, 0, 0, 0)];
    let mut segments: Vec<[u64; 5]> = Vec::new();
    let has = u8::arbitrary(u)?;

    // Type, flags, offset, address, size. Code is where call frame information says that it is, more or less.
    let at = out.bytes.len();
    let address = BASE + at as u64;
    if has & 1 != 0 {
        let bytes = eh_frame(u, address)?;
        out.bytes.extend(bytes);
        sections.push(Section(15, 1, 2, address, at, out.bytes.len() - at));
    }
    let sframe_at = out.bytes.len();
    if has & 2 != 0 {
        let address = BASE + sframe_at as u64;
        let bytes = match u8::arbitrary(u)? {
            0..0xc0 => sframe(u, address)?,
            _ => made::section(u)?.bytes,
        };
        out.bytes.extend(bytes);
        let len = out.bytes.len() - sframe_at;
        sections.push(Section(7, 1, 2, address, sframe_at, len));
        segments.push([0x6474_e554, 4, sframe_at as u64, address, len as u64]);
    }
    if has & 4 != 0 {
        let at = out.bytes.len();
        let count = u.int_in_range(0..=4u8)?;
        out.bytes.extend([1, 0x1b, 0x03, 0x3b]);
        out.u32(0);
        out.u32(count.into());
        for _ in 0..count {
            out.u32(u32::from(u8::arbitrary(u)?) << 4);
            out.u32(0);
        }
        let len = out.bytes.len() - at;
        segments.push([0x6474_e550, 4, at as u64, BASE + at as u64, len as u64]);
    }
    if has & 8 != 0 {
        let at = out.bytes.len();
        let id = u.int_in_range(0..=70u8)?;
        for word in [4, id.into(), 3] {
            out.u32(word);
        }
        out.bytes.extend(b"GNU\0");
        out.fill(usize::from(id).next_multiple_of(4));
        let len = out.bytes.len() - at;
        segments.push([4, 4, at as u64, BASE + at as u64, len as u64]);
    }
    let compressed = out.bytes.len();
    if has & 16 != 0 {
        for _ in 0..3 {
            out.u64(u64::arbitrary(u)? >> (u8::arbitrary(u)? % 64));
        }
        sections.push(Section(1, 1, 0x800, 0, compressed, 24));
    }

    // What is before and behind the file's own bytes is code, too: large holes need some.
    for _ in 0..u.int_in_range(1..=3u8)? {
        let (offset, address) = match u8::arbitrary(u)? {
            0..0xc0 => (0x1000, BASE + 0x1000),
            0xc0..0xe0 => (0, BASE - 0x10000),
            _ => (
                u16::arbitrary(u)?.into(),
                BASE + u64::from(u16::arbitrary(u)?),
            ),
        };
        let size = u64::from(u8::arbitrary(u)?) << (u8::arbitrary(u)? % 16);
        let flags = if u8::arbitrary(u)? < 0xe0 { 5 } else { 4 };
        segments.push([1, flags, offset, address, size]);
        sections.push(Section(1, 1, 6, address, offset as usize, size as usize));
    }
    segments.push([1, 4, 0, BASE, out.bytes.len() as u64]);
    segments.push([2, 6, 0x200, 0x200, 16]);
    let names = out.bytes.len();
    out.bytes.extend(NAMES);
    sections.push(Section(34, 3, 0, 0, names, NAMES.len()));

    let table = out.bytes.len();
    for &Section(name, kind, flags, address, offset, size) in &sections {
        out.u32(name);
        out.u32(kind);
        for word in [flags, address, offset as u64, size as u64, 0, 1, 0] {
            out.u64(word);
        }
    }
    let headers = out.bytes.len();
    for [kind, flags, offset, address, size] in &segments {
        out.u32(*kind as u32);
        out.u32(*flags as u32);
        for word in [offset, address, address, size, size, &1] {
            out.u64(*word);
        }
    }

    let mut head = Out::new(false);
    head.bytes.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    head.u16(3);
    head.u16(62);
    head.u32(1);
    head.u64(BASE + 0x1000 + u64::from(u8::arbitrary(u)?));
    head.u64(headers as u64);
    head.u64(table as u64);
    head.u32(0);
    for half in [
        64,
        56,
        segments.len(),
        64,
        sections.len(),
        sections.len() - 1,
    ] {
        head.u16(half as u16);
    }
    out.bytes[..head.bytes.len()].copy_from_slice(&head.bytes);
    Ok(out.bytes)
}

/// A section about code in the file, written by the writer.
fn sframe(u: &mut Unstructured<'_>, address: u64) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Arch::Amd64);
    let mut at = BASE + 0x1000;
    for _ in 0..u.int_in_range(0..=6u8)? {
        at += match u8::arbitrary(u)? {
            far @ 0xe0.. => u64::from(far & 31) << 13,
            _ => 0,
        };
        let size = u32::from(u8::arbitrary(u)?) + 1;
        let mut rows = Vec::new();
        for start in 0..size.min(u32::from(u8::arbitrary(u)? % 40)) {
            let cfa = Cfa::Value(Register(7), 8 * i32::from(u8::arbitrary(u)?));
            let (ra, fp, ra_signed) = (Rule::AtCfa(-8), Rule::Same, false);
            let unwind = Unwind::Caller(CallerRule {
                cfa,
                ra,
                fp,
                ra_signed,
            });
            rows.push(Row { start, unwind });
        }
        builder.push(FunctionRows {
            signal: u8::arbitrary(u)? >= 0xe0,
            ..FunctionRows::new(at, size, rows)
        });
        at += u64::from(size);
    }
    Ok(builder.finish(address).unwrap())
}
