//! Unwind data of a compiled function as an area holds it: an SFrame V3 function attribute and its rows.

use crate::epilogues;
use cranelift_codegen::CompiledCode;
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::isa::unwind::UnwindInfo;
use framewalk_sframe::convert::{EhFrame, eh_frame};
use framewalk_sframe::{Arch, Builder, FunctionRows, Row};
use gimli::write::{Address, EndianVec, FrameTable};

/// Bytes before a function's attribute in a section with one function: header and index entry.
const BEFORE: usize = 28 + 16;

/// By which register the rows of a function find its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// As Cranelift's own unwind data does: by rbp, as soon as that is set up.
    FramePointer,
    /// By rsp alone, as generators do that have other uses for rbp.
    StackPointer,
}

/// The rows of a function at an address; they hold for each of its instructions.
pub fn of(compiled: &CompiledCode, isa: &dyn TargetIsa, start: u64, by: By) -> Option<Vec<Row>> {
    let code = compiled.code_buffer();
    match by {
        By::FramePointer => {
            let described = described(compiled, isa, start)?;
            Some(epilogues::with_returns(code, start, described))
        }
        By::StackPointer => epilogues::by_stack_pointer(code, start),
    }
}

/// What Cranelift says: rows for prologue and body, but none for epilogues.
fn described(compiled: &CompiledCode, isa: &dyn TargetIsa, start: u64) -> Option<Vec<Row>> {
    let Some(UnwindInfo::SystemV(unwind)) = compiled.create_unwind_info(isa).ok()? else {
        return None;
    };
    let mut table = FrameTable::default();
    let common = table.add_cie(isa.create_systemv_cie()?);
    table.add_fde(common, unwind.to_fde(Address::Constant(start)));
    let mut section = gimli::write::EhFrame(EndianVec::new(gimli::LittleEndian));
    table.write_eh_frame(&mut section).ok()?;
    let converted = eh_frame(EhFrame::new(section.slice(), start, Arch::Amd64));
    match <[FunctionRows; 1]>::try_from(converted.functions) {
        Ok([function]) if function.start == start => Some(function.rows),
        _ => None,
    }
}

/// The bytes of a function's attribute and rows.
pub fn bytes(start: u64, size: u32, rows: Vec<Row>) -> Option<Vec<u8>> {
    let mut builder = Builder::new(Arch::Amd64);
    builder.push(FunctionRows::new(start, size, rows));
    let mut section = builder.finish(start).ok()?;
    Some(section.split_off(BEFORE))
}
