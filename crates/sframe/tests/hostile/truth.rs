//! What gimli says about a file's frames, by its own iteration and its own expression evaluator.

use super::machine::{Outcome, State};
use framewalk_sframe::Arch;
use gimli::{
    AArch64, BaseAddresses, CfaRule, CieOrFde, EhFrame, Encoding, EndianSlice, EvaluationResult,
    Format, Location, Register, RegisterRule, RunTimeEndian, UnwindContext, UnwindExpression,
    UnwindSection, UnwindTableRow, Value, Vendor,
};

type Slice<'a> = EndianSlice<'a, RunTimeEndian>;

const ENCODING: Encoding = Encoding {
    address_size: 8,
    format: Format::Dwarf32,
    version: 4,
};

/// A row with the addresses of its entry, all of them end-exclusive.
pub(crate) struct TrueRow<'r, 'a> {
    pub(crate) start: u64,
    pub(crate) end: u64,
    section: EhFrame<Slice<'a>>,
    row: &'r UnwindTableRow<usize>,
}

/// The range of an entry, in the order of the section.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// What gimli could not read.
#[derive(Clone, Copy, Default)]
pub(crate) struct Unread {
    /// Entries; of the one after which no more could be found, all that follow are one.
    pub(crate) entries: u64,
    /// Entries of which rows could not be read.
    pub(crate) tables: u64,
}

/// Calls back for every row of every entry; answers the entries' ranges, and what gimli could not read.
pub(crate) fn each_row<'a>(
    arch: Arch,
    bytes: &'a [u8],
    address: u64,
    mut each: impl FnMut(TrueRow<'_, 'a>),
) -> (Vec<Range>, Unread) {
    let endian = match arch.machine().big_endian {
        true => RunTimeEndian::Big,
        false => RunTimeEndian::Little,
    };
    let mut section = EhFrame::new(bytes, endian);
    section.set_address_size(8);
    if matches!(arch, Arch::Aarch64 | Arch::Aarch64Be) {
        section.set_vendor(Vendor::AArch64);
    }
    let bases = BaseAddresses::default().set_eh_frame(address);
    let mut context = UnwindContext::new();
    let mut ranges = Vec::new();
    let mut unread = Unread::default();
    let mut entries = section.entries(&bases);
    loop {
        let partial = match entries.next() {
            Ok(Some(CieOrFde::Fde(partial))) => partial,
            Ok(Some(CieOrFde::Cie(_))) => continue,
            Ok(None) => break,
            Err(_) => {
                unread.entries += 1;
                break;
            }
        };
        let Ok(fde) = partial.parse(EhFrame::cie_from_offset) else {
            unread.entries += 1;
            continue;
        };
        let (start, end) = (
            fde.initial_address(),
            fde.initial_address().wrapping_add(fde.len()),
        );
        if start == 0 || end <= start {
            continue;
        }
        ranges.push(Range { start, end });
        let Ok(mut table) = fde.rows(&section, &bases, &mut context) else {
            unread.tables += 1;
            continue;
        };
        loop {
            match table.next_row() {
                Ok(Some(row)) => {
                    let (start, end) = (row.start_address().max(start), row.end_address().min(end));
                    if start < end {
                        each(TrueRow {
                            start,
                            end,
                            section,
                            row,
                        });
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    unread.tables += 1;
                    break;
                }
            }
        }
    }
    (ranges, unread)
}

impl TrueRow<'_, '_> {
    /// What the row makes of a state; `None` where gimli cannot tell.
    pub(crate) fn apply(&self, state: &State) -> Option<Outcome> {
        let rule = |number: u8| self.row.register(Register(u16::from(number)));
        let (ra, fp) = (state.machine.ra.0, state.machine.fp.0);
        let ra_signed = state.machine.sp.0 == AArch64::SP.0 as u8
            && matches!(
                self.row.register(AArch64::RA_SIGN_STATE),
                Some(RegisterRule::Constant(1))
            );
        if matches!(rule(ra), Some(RegisterRule::Undefined)) {
            return Some(Outcome::Outermost);
        }
        let cfa = match self.row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                state.register(register.0).wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => self.evaluate(expression, state, None)?,
        };
        let value = |number: u8| {
            Some(match rule(number) {
                None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => {
                    state.register(u16::from(number))
                }
                Some(RegisterRule::Offset(offset)) => state.memory(cfa.wrapping_add_signed(offset)),
                Some(RegisterRule::ValOffset(offset)) => cfa.wrapping_add_signed(offset),
                Some(RegisterRule::Register(other)) => state.register(other.0),
                Some(RegisterRule::Expression(e)) => {
                    state.memory(self.evaluate(&e, state, Some(cfa))?)
                }
                Some(RegisterRule::ValExpression(e)) => self.evaluate(&e, state, Some(cfa))?,
                Some(RegisterRule::Constant(value)) => value,
                Some(RegisterRule::Architectural) => return None,
            })
        };
        Some(Outcome::Caller {
            cfa,
            ra: value(ra)?,
            fp: value(fp)?,
            ra_signed,
        })
    }

    fn evaluate(
        &self,
        expression: &UnwindExpression<usize>,
        state: &State,
        cfa: Option<u64>,
    ) -> Option<u64> {
        let mut evaluation = expression.get(&self.section).ok()?.evaluation(ENCODING);
        evaluation.set_max_iterations(1000);
        if let Some(cfa) = cfa {
            evaluation.set_initial_value(cfa);
        }
        let mut result = evaluation.evaluate().ok()?;
        loop {
            result = match result {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => evaluation
                    .resume_with_register(Value::Generic(state.register(register.0)))
                    .ok()?,
                EvaluationResult::RequiresMemory {
                    address, size: 8, ..
                } => evaluation
                    .resume_with_memory(Value::Generic(state.memory(address)))
                    .ok()?,
                EvaluationResult::RequiresCallFrameCfa => {
                    evaluation.resume_with_call_frame_cfa(cfa?).ok()?
                }
                _ => return None,
            };
        }
        match evaluation.result().as_slice() {
            [piece] => match piece.location {
                Location::Address { address } => Some(address),
                Location::Value { value } => value.to_u64(u64::MAX).ok(),
                _ => None,
            },
            _ => None,
        }
    }
}
