//! Conversion of `.eh_frame` into functions that [`crate::Builder`] writes.
//!
//! Everything is in link-time addresses, as `sh_addr` counts them. Nothing is left out silently:
//! each reason is a [`Refusal`] with its number of entries and rows. Where only some rows of a
//! function cannot be said, the others survive as functions of their own around the gap.
//!
//! The section may be hostile: each entry is found by its length alone and parsed for itself, work
//! per entry is bounded by its own bytes and those of its (short) common entry, and memory by the
//! number of instructions.

mod disjoint;
mod entries;
mod expression;
mod lower;
mod refusal;

pub use refusal::{Count, Refusal, Refused};

use crate::bytes::Bytes;
use crate::layout::{Arch, Machine};
use crate::read::Pc;
use crate::row::{CallerRule, Cfa, Row, Unwind};
use crate::write::{FunctionRows, sayable};
use entries::{Entries, Entry};
use expression::Plt;
use gimli::{
    BaseAddresses, Encoding, EndianSlice, Format, FrameDescriptionEntry, RegisterRule,
    RunTimeEndian, UnwindContext, UnwindContextStorage, UnwindTableRow, Vendor,
};
use lower::{Lowered, Lowering, Slice};
use std::ops::Range;

/// Most bytes of a common entry (CIE), whose instructions every entry runs again.
pub const MAX_COMMON_ENTRY: usize = 1024;

/// Bytes of a PLT's block, which the expression of its CFA is about (psABI "Procedure Linkage Table").
const PLT_BLOCK: u8 = 16;

/// Distance of functions that are still believed; it keeps every distance within the
/// format's 63 bits, wherever near `.eh_frame` the new section goes.
const FARTHEST: u64 = 1 << 62;

/// An `.eh_frame` section of a linked file.
#[derive(Debug, Clone, Copy)]
pub struct EhFrame<'a> {
    /// The section's bytes.
    pub bytes: &'a [u8],
    /// Its address (`sh_addr`).
    pub address: u64,
    /// The machine; its byte order is taken too.
    pub arch: Arch,
    /// Address of `.text`, for text-relative pointers, which compilers do not write today.
    pub text: Option<u64>,
    /// Address of `.got`, for data-relative pointers, likewise.
    pub got: Option<u64>,
}

impl<'a> EhFrame<'a> {
    /// A section without bases for text- and data-relative pointers.
    pub fn new(bytes: &'a [u8], address: u64, arch: Arch) -> EhFrame<'a> {
        EhFrame {
            bytes,
            address,
            arch,
            text: None,
            got: None,
        }
    }
}

/// What became of a section.
#[derive(Debug, Clone, Default)]
pub struct Conversion {
    /// Sorted by start, disjoint, ready for [`crate::Builder::push`].
    pub functions: Vec<FunctionRows>,
    /// Function entries (FDEs) in the section.
    pub entries: u64,
    /// Rows that the entries describe, including those left out.
    pub rows_read: u64,
    /// Rows of [`Conversion::functions`]: neighbours of the same meaning are one.
    pub rows: u64,
    /// What was left out.
    pub refused: Refused,
}

/// Room for the rules of one row: all registers of today's machines that calls preserve.
struct Storage;

impl UnwindContextStorage<usize> for Storage {
    type Rules = [(gimli::Register, RegisterRule<usize>); 32];
    type Stack = Box<[UnwindTableRow<usize, Self>; 16]>;
}

/// Converts a section.
pub fn eh_frame(input: EhFrame<'_>) -> Conversion {
    let machine = input.arch.machine();
    let endian = if machine.big_endian {
        RunTimeEndian::Big
    } else {
        RunTimeEndian::Little
    };
    let mut section = gimli::EhFrame::from(EndianSlice::new(input.bytes, endian));
    section.set_address_size(8);
    if machine.signs_ra {
        section.set_vendor(Vendor::AArch64);
    }
    let mut bases = BaseAddresses::default().set_eh_frame(input.address);
    if let Some(text) = input.text {
        bases = bases.set_text(text);
    }
    if let Some(got) = input.got {
        bases = bases.set_got(got);
    }
    let encoding = Encoding {
        address_size: 8,
        format: Format::Dwarf32,
        version: 4,
    };

    let mut converter = Converter {
        lowering: Lowering {
            section,
            encoding,
            machine,
        },
        bases: &bases,
        address: input.address,
        context: UnwindContext::new_in(),
        rows: Vec::new(),
        out: Conversion::default(),
    };
    for entry in Entries::new(section, &bases, Bytes::new(input.bytes, machine.big_endian)) {
        converter.out.entries += 1;
        match entry {
            Entry::Function(entry) => converter.entry(&entry),
            Entry::Refused(refusal) => converter.out.refuse_entry(refusal, 1),
        }
    }
    let mut out = converter.out;
    disjoint::first_wins(&mut out);
    out.rows = out.functions.iter().map(|f| f.rows.len() as u64).sum();
    out
}

impl Conversion {
    fn refuse_entry(&mut self, refusal: Refusal, rows: u64) {
        self.refused.add(refusal, 1, rows);
        self.rows_read += rows;
    }
}

struct Converter<'a> {
    lowering: Lowering<'a>,
    bases: &'a BaseAddresses,
    /// Address of `.eh_frame`.
    address: u64,
    context: UnwindContext<usize, Storage>,
    /// Rows of the function being put together; kept to save allocations.
    rows: Vec<Row>,
    out: Conversion,
}

/// The function being put together: a run of rows that can be said, without gap.
struct Run {
    start: u64,
    end: u64,
    signal: bool,
}

impl Converter<'_> {
    fn entry(&mut self, entry: &FrameDescriptionEntry<Slice<'_>>) {
        let (start, size) = (entry.initial_address(), entry.len());
        let machine = self.lowering.machine;
        let end = match (size, start.checked_add(size)) {
            (0, _) => return self.out.refuse_entry(Refusal::ZeroLength, 0),
            _ if start == 0 => return self.out.refuse_entry(Refusal::Tombstone, 0),
            (_, None) => return self.out.refuse_entry(Refusal::Wraps, 1),
            (_, Some(end)) => end,
        };
        let refusal = match size {
            _ if start.abs_diff(self.address) >= FARTHEST => Some(Refusal::TooFar),
            1..=0xffff_ffff if is_column(entry, machine) => None,
            1..=0xffff_ffff => Some(Refusal::ReturnColumn),
            _ => Some(Refusal::TooLong),
        };
        self.table(entry, start..end, refusal);
    }

    /// Converts the rows of an entry for these addresses, or counts them where the entry is refused as a whole.
    fn table(
        &mut self,
        entry: &FrameDescriptionEntry<Slice<'_>>,
        Range { start, end }: Range<u64>,
        refusal: Option<Refusal>,
    ) {
        let Converter {
            lowering,
            bases,
            context,
            rows,
            out,
            ..
        } = self;
        let machine = lowering.machine;
        let mut table = match entry.rows(&lowering.section, bases, context) {
            Ok(table) => table,
            Err(_) => return out.refuse_entry(Refusal::BadInstructions, 1),
        };
        let signal = entry.is_signal_trampoline();
        let mut run = Run {
            start,
            end: start,
            signal,
        };
        let mut refused: Vec<Refusal> = Vec::new();
        loop {
            let row = match table.next_row() {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(_) => {
                    out.rows_read += 1;
                    refuse(out, &mut refused, Refusal::BadInstructions);
                    break;
                }
            };
            // Instructions may say anything about addresses.
            let (from, to) = (row.start_address().max(run.end), row.end_address().min(end));
            if from >= to {
                continue;
            }
            out.rows_read += 1;
            let lowered = match refusal {
                Some(refusal) => Err(refusal),
                None => lowering.row(row),
            };
            let lowered = lowered.and_then(|lowered| match lowered {
                Lowered::Row(unwind) if sayable(&unwind, machine) => Ok(lowered),
                Lowered::Plt(_, rule) if sayable(&Unwind::Caller(rule), machine) => Ok(lowered),
                _ => Err(Refusal::NoWords),
            });
            if from != run.end || !matches!(lowered, Ok(Lowered::Row(_))) {
                run.finish(rows, out);
                run = Run {
                    start: from,
                    end: from,
                    signal,
                };
            }
            match lowered {
                Ok(Lowered::Row(unwind)) => {
                    if rows.last().is_none_or(|last| last.unwind != unwind) {
                        // The entry is shorter than 4 GiB.
                        rows.push(Row {
                            start: (from - run.start) as u32,
                            unwind,
                        });
                    }
                    run.end = to;
                }
                Ok(Lowered::Plt(plt, rule)) => {
                    match plt_rows(plt, rule, from..to) {
                        Some(blocks) => out.functions.push(FunctionRows {
                            start: from,
                            size: (to - from) as u32,
                            pc: match to - from < PLT_BLOCK.into() {
                                true => Pc::Inc,
                                false => Pc::Mask { block: PLT_BLOCK },
                            },
                            signal,
                            key_b: false,
                            rows: blocks,
                        }),
                        None => refuse(out, &mut refused, Refusal::OffsetRange),
                    }
                    run = Run {
                        start: to,
                        end: to,
                        signal,
                    };
                }
                Err(refusal) => {
                    refuse(out, &mut refused, refusal);
                    run = Run {
                        start: to,
                        end: to,
                        signal,
                    };
                }
            }
        }
        run.finish(rows, out);
    }
}

impl Run {
    /// Makes a function of the rows gathered, if there are any.
    fn finish(&self, rows: &mut Vec<Row>, out: &mut Conversion) {
        if !rows.is_empty() && self.end > self.start {
            out.functions.push(FunctionRows {
                start: self.start,
                size: (self.end - self.start) as u32,
                pc: Pc::Inc,
                signal: self.signal,
                key_b: false,
                rows: rows.as_slice().to_vec(),
            });
        }
        rows.clear();
    }
}

/// Counts a refused row, and its entry once per reason.
fn refuse(out: &mut Conversion, refused: &mut Vec<Refusal>, refusal: Refusal) {
    let first = !refused.contains(&refusal);
    if first {
        refused.push(refusal);
    }
    out.refused.add(refusal, u64::from(first), 1);
}

fn is_column(entry: &FrameDescriptionEntry<Slice<'_>>, machine: &Machine) -> bool {
    entry.cie().return_address_register().0 == u16::from(machine.ra.0)
}

/// The rows of one block of a PLT that starts where `range` does, which need not be the block's first byte.
fn plt_rows(plt: Plt, rule: CallerRule, range: Range<u64>) -> Option<Vec<Row>> {
    let Cfa::Value(register, short) = rule.cfa else {
        return None;
    };
    let long = short.checked_add(8)?;
    let mut rows: Vec<Row> = Vec::new();
    let len = (range.end - range.start).min(PLT_BLOCK.into()) as u32;
    for offset in 0..len {
        let place = range.start.wrapping_add(u64::from(offset)) % u64::from(PLT_BLOCK);
        let cfa = Cfa::Value(
            register,
            if place >= u64::from(plt.from) {
                long
            } else {
                short
            },
        );
        let unwind = Unwind::Caller(CallerRule { cfa, ..rule });
        if rows.last().is_none_or(|last| last.unwind != unwind) {
            rows.push(Row {
                start: offset,
                unwind,
            });
        }
    }
    Some(rows)
}
