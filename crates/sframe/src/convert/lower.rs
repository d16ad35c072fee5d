//! One row of CFI, lowered to the hub's row.
//!
//! Only the CFA, the return address and the frame pointer matter, and that the caller's stack pointer is where the CFA says;
//! rules for other registers are left alone. For the frame pointer "no rule", "undefined" and "same value" all mean
//! unchanged: the psABI makes it callee-saved, and a wrong guess stops nobody from walking on the
//! stack pointer.

use super::Refusal;
use super::expression::{Base, Operations, Plt, Term, register};
use crate::layout::Machine;
use crate::row::{CallerRule, Cfa, Rule, Unwind};
use gimli::{
    CfaRule, EhFrame, Encoding, EndianSlice, RegisterRule, RunTimeEndian, UnwindExpression,
    UnwindTableRow,
};

pub(super) type Slice<'a> = EndianSlice<'a, RunTimeEndian>;

/// The frame that CFI describes for a range of code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lowered {
    Row(Unwind),
    /// A PLT: the CFA depends on the pc. Return address and frame pointer are those of the rule.
    Plt(Plt, CallerRule),
}

pub(super) struct Lowering<'a> {
    pub(super) section: EhFrame<Slice<'a>>,
    pub(super) encoding: Encoding,
    pub(super) machine: &'static Machine,
}

/// What the CFA is, as far as other rules can build on it.
#[derive(Clone, Copy)]
enum Frame {
    Cfa(Cfa),
    Plt(Plt),
}

impl<'a> Lowering<'a> {
    pub(super) fn row<S>(&self, row: &UnwindTableRow<usize, S>) -> Result<Lowered, Refusal>
    where
        S: gimli::UnwindContextStorage<usize>,
    {
        let column = |r: crate::row::Register| row.register(gimli::Register(u16::from(r.0)));
        let ra = column(self.machine.ra);
        if matches!(ra, Some(RegisterRule::Undefined)) {
            return Ok(Lowered::Row(Unwind::Outermost));
        }
        let frame = self.cfa(row.cfa())?;
        self.agrees(column(self.machine.sp), frame)?;
        let ra = match ra {
            None | Some(RegisterRule::SameValue) if self.machine.fixed_ra != 0 => {
                return Err(Refusal::RaUnchanged);
            }
            None | Some(RegisterRule::SameValue) => Rule::Same,
            Some(rule) => self.rule(rule, frame)?,
        };
        let fp = match column(self.machine.fp) {
            None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => Rule::Same,
            Some(rule) => self.rule(rule, frame)?,
        };
        let ra_signed = self.machine.signs_ra
            && matches!(
                row.register(gimli::AArch64::RA_SIGN_STATE),
                Some(RegisterRule::Constant(1))
            );
        match frame {
            Frame::Cfa(cfa) => Ok(Lowered::Row(Unwind::Caller(CallerRule {
                cfa,
                ra,
                fp,
                ra_signed,
            }))),
            Frame::Plt(plt) => {
                let cfa = Cfa::Value(plt.register, offset(plt.offset)?);
                Ok(Lowered::Plt(
                    plt,
                    CallerRule {
                        cfa,
                        ra,
                        fp,
                        ra_signed,
                    },
                ))
            }
        }
    }

    fn cfa(&self, rule: &CfaRule<usize>) -> Result<Frame, Refusal> {
        let cfa = match *rule {
            // What the reader of CFI starts with, before any instruction defined a CFA.
            CfaRule::RegisterAndOffset {
                register: gimli::Register(0),
                offset: 0,
            } => return Err(Refusal::NoCfa),
            CfaRule::RegisterAndOffset {
                register: base,
                offset: distance,
            } => Cfa::Value(register(base)?, offset(distance)?),
            CfaRule::Expression(expression) => {
                let operations = self.operations(&expression)?;
                if let Some(plt) = operations.plt(self.machine.ra) {
                    self.nameable(plt.register)?;
                    return Ok(Frame::Plt(plt));
                }
                match operations.term(None)? {
                    Term {
                        base: Base::Register(base),
                        offset: distance,
                        load: false,
                    } => Cfa::Value(base, offset(distance)?),
                    Term {
                        base: Base::Register(base),
                        offset: distance,
                        load: true,
                    } => Cfa::At(base, offset(distance)?),
                    Term {
                        base: Base::Cfa, ..
                    } => return Err(Refusal::Expression),
                }
            }
        };
        let (Cfa::Value(base, _) | Cfa::At(base, _)) = cfa;
        self.nameable(base)?;
        Ok(Frame::Cfa(cfa))
    }

    /// Whether the caller's stack pointer is what follows from the CFA: rows have no other words for it.
    fn agrees(&self, sp: Option<RegisterRule<usize>>, frame: Frame) -> Result<(), Refusal> {
        let rule = match sp {
            None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => return Ok(()),
            // A machine whose functions save it like any other register.
            Some(_) if self.machine.sp_from_cfa != 0 => return Ok(()),
            Some(RegisterRule::ValOffset(0)) => return Ok(()),
            Some(rule) => self.rule(rule, frame)?,
        };
        match (rule, frame) {
            (Rule::At(base, at), Frame::Cfa(cfa)) if cfa == Cfa::At(base, at) => Ok(()),
            (Rule::Value(base, from), Frame::Cfa(cfa)) if cfa == Cfa::Value(base, from) => Ok(()),
            _ => Err(Refusal::StackPointer),
        }
    }

    /// Rows could name more registers than the machine has that matter: the check would find them impossible.
    fn nameable(&self, register: crate::row::Register) -> Result<(), Refusal> {
        match register.0 <= self.machine.last_register {
            true => Ok(()),
            false => Err(Refusal::RegisterNumber),
        }
    }

    fn rule(&self, rule: RegisterRule<usize>, frame: Frame) -> Result<Rule, Refusal> {
        let cfa = |distance, load| Term {
            base: Base::Cfa,
            offset: distance,
            load,
        };
        let term = match rule {
            RegisterRule::Offset(distance) => cfa(distance, true),
            RegisterRule::ValOffset(distance) => cfa(distance, false),
            RegisterRule::Register(from) => Term {
                base: Base::Register(register(from)?),
                offset: 0,
                load: false,
            },
            RegisterRule::Expression(expression) => {
                let term = self.operations(&expression)?.term(Some(Base::Cfa))?;
                if term.load {
                    return Err(Refusal::TwoLoads);
                }
                Term { load: true, ..term }
            }
            RegisterRule::ValExpression(expression) => {
                self.operations(&expression)?.term(Some(Base::Cfa))?
            }
            RegisterRule::Constant(_) => return Err(Refusal::Expression),
            RegisterRule::Undefined | RegisterRule::SameValue | RegisterRule::Architectural => {
                return Err(Refusal::Architectural);
            }
        };
        if let Base::Register(base) = term.base {
            self.nameable(base)?;
        }
        let distance = offset(term.offset)?;
        match (term.base, term.load) {
            (Base::Register(base), true) => Ok(Rule::At(base, distance)),
            (Base::Register(base), false) => Ok(Rule::Value(base, distance)),
            (Base::Cfa, true) => Ok(Rule::AtCfa(distance)),
            // `CFA + n` has no words, but what the CFA is made of has.
            (Base::Cfa, false) => match frame {
                Frame::Cfa(Cfa::Value(base, from)) => Ok(Rule::Value(
                    base,
                    from.checked_add(distance).ok_or(Refusal::OffsetRange)?,
                )),
                _ => Err(Refusal::CfaValue),
            },
        }
    }

    fn operations(
        &self,
        expression: &UnwindExpression<usize>,
    ) -> Result<Operations<Slice<'a>>, Refusal> {
        let expression = expression
            .get(&self.section)
            .map_err(|_| Refusal::Expression)?;
        Operations::parse(expression, self.encoding)
    }
}

fn offset(offset: i64) -> Result<i32, Refusal> {
    i32::try_from(offset).map_err(|_| Refusal::OffsetRange)
}
