//! DWARF expressions, run on symbols instead of numbers.
//!
//! SFrame can say `base + offset` and the word stored there, so the symbols are exactly that and
//! a little more, in order to name what cannot be said. Expressions of CFI have at most a few
//! operations; longer ones are refused, so the work is bounded.

use super::Refusal;
use crate::row::Register;
use gimli::{Encoding, Expression, Operation, Reader};

/// Most operations of an expression that is looked at.
const MAX_OPERATIONS: usize = 12;

/// Most values on its stack.
const MAX_STACK: usize = 4;

/// What an address counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    Register(Register),
    Cfa,
}

/// `base + offset`, or the word there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) base: Base,
    pub(super) offset: i64,
    pub(super) load: bool,
}

/// How the CFA of a PLT grows inside of each block of 16 bytes: by a word once `(pc & 15) >= from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plt {
    pub(super) register: Register,
    pub(super) offset: i64,
    pub(super) from: u8,
}

#[derive(Clone, Copy)]
enum Value {
    Number(i64),
    /// A term, and what was added to it after its load.
    Term(Term, i64),
}

struct Stack {
    values: [Value; MAX_STACK],
    len: usize,
}

impl Stack {
    fn push(&mut self, value: Value) -> Result<(), Refusal> {
        *self.values.get_mut(self.len).ok_or(Refusal::Expression)? = value;
        self.len += 1;
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, Refusal> {
        self.len = self.len.checked_sub(1).ok_or(Refusal::Expression)?;
        self.values
            .get(self.len)
            .copied()
            .ok_or(Refusal::Expression)
    }
}

/// The operations of an expression, if they are few.
pub(super) struct Operations<R: Reader> {
    operations: [Option<Operation<R>>; MAX_OPERATIONS],
    len: usize,
}

impl<R: Reader> Operations<R> {
    pub(super) fn parse(expression: Expression<R>, encoding: Encoding) -> Result<Self, Refusal> {
        let mut operations = [const { None }; MAX_OPERATIONS];
        let mut len = 0;
        let mut rest = expression.operations(encoding);
        while let Some(operation) = rest.next().map_err(|_| Refusal::Expression)? {
            *operations.get_mut(len).ok_or(Refusal::Expression)? = Some(operation);
            len += 1;
        }
        Ok(Operations { operations, len })
    }

    fn iter(&self) -> impl Iterator<Item = &Operation<R>> {
        self.operations.iter().take(self.len).flatten()
    }

    /// The sum or load that the expression computes; `initial` is on the stack before it.
    pub(super) fn term(&self, initial: Option<Base>) -> Result<Term, Refusal> {
        let mut stack = Stack {
            values: [Value::Number(0); MAX_STACK],
            len: 0,
        };
        if let Some(base) = initial {
            stack.push(Value::Term(
                Term {
                    base,
                    offset: 0,
                    load: false,
                },
                0,
            ))?;
        }
        for operation in self.iter() {
            match operation {
                Operation::RegisterOffset {
                    register: number,
                    offset,
                    base_type,
                } if base_type.0 == gimli::ReaderOffset::from_u8(0) => {
                    let base = Base::Register(register(*number)?);
                    stack.push(Value::Term(
                        Term {
                            base,
                            offset: *offset,
                            load: false,
                        },
                        0,
                    ))?;
                }
                // What the CFA is cannot be told by the CFA.
                Operation::CallFrameCFA if initial.is_some() => {
                    stack.push(Value::Term(
                        Term {
                            base: Base::Cfa,
                            offset: 0,
                            load: false,
                        },
                        0,
                    ))?;
                }
                Operation::UnsignedConstant { value } => {
                    stack.push(Value::Number(value.cast_signed()))?;
                }
                Operation::SignedConstant { value } => stack.push(Value::Number(*value))?,
                Operation::PlusConstant { value } => {
                    let sum = add(stack.pop()?, Value::Number(value.cast_signed()))?;
                    stack.push(sum)?;
                }
                Operation::Plus => {
                    let (right, left) = (stack.pop()?, stack.pop()?);
                    stack.push(add(left, right)?)?;
                }
                Operation::Minus => {
                    let (right, left) = (stack.pop()?, stack.pop()?);
                    let Value::Number(number) = right else {
                        return Err(Refusal::Expression);
                    };
                    let negative = number.checked_neg().ok_or(Refusal::OffsetRange)?;
                    stack.push(add(left, Value::Number(negative))?)?;
                }
                Operation::Deref {
                    size: 8,
                    space: false,
                    ..
                } => match stack.pop()? {
                    Value::Term(Term { load: true, .. }, _) => return Err(Refusal::TwoLoads),
                    Value::Term(term, _) => {
                        stack.push(Value::Term(Term { load: true, ..term }, 0))?
                    }
                    Value::Number(_) => return Err(Refusal::Expression),
                },
                _ => return Err(Refusal::Expression),
            }
        }
        match stack.pop()? {
            Value::Term(term, 0) => Ok(term),
            Value::Term(..) => Err(Refusal::LoadPlus),
            Value::Number(_) => Err(Refusal::Expression),
        }
    }

    /// The expression that linkers write for a PLT (`((pc & 15) >= from) << 3`, added to
    /// `register + offset`).
    pub(super) fn plt(&self, pc: Register) -> Option<Plt> {
        let mut rest = self.iter();
        let mut next = || rest.next();
        let Some(Operation::RegisterOffset {
            register: base,
            offset,
            ..
        }) = next()
        else {
            return None;
        };
        let Some(Operation::RegisterOffset {
            register: column,
            offset: 0,
            ..
        }) = next()
        else {
            return None;
        };
        let Some(Operation::UnsignedConstant { value: 15 }) = next() else {
            return None;
        };
        let Some(Operation::And) = next() else {
            return None;
        };
        let Some(Operation::UnsignedConstant {
            value: from @ 1..=15,
        }) = next()
        else {
            return None;
        };
        let Some(Operation::Ge) = next() else {
            return None;
        };
        let Some(Operation::UnsignedConstant { value: 3 }) = next() else {
            return None;
        };
        let (Some(Operation::Shl), Some(Operation::Plus), None) = (next(), next(), next()) else {
            return None;
        };
        let register = register(*base).ok()?;
        (column.0 == u16::from(pc.0)).then_some(Plt {
            register,
            offset: *offset,
            from: *from as u8,
        })
    }
}

fn add(left: Value, right: Value) -> Result<Value, Refusal> {
    let sum = |a: i64, b: i64| a.checked_add(b).ok_or(Refusal::OffsetRange);
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => Ok(Value::Number(sum(a, b)?)),
        (Value::Term(term, after), Value::Number(n))
        | (Value::Number(n), Value::Term(term, after)) => {
            if term.load {
                Ok(Value::Term(term, sum(after, n)?))
            } else {
                Ok(Value::Term(
                    Term {
                        offset: sum(term.offset, n)?,
                        ..term
                    },
                    0,
                ))
            }
        }
        (Value::Term(..), Value::Term(..)) => Err(Refusal::Expression),
    }
}

/// A register as rows hold it.
pub(super) fn register(register: gimli::Register) -> Result<Register, Refusal> {
    u8::try_from(register.0)
        .map(Register)
        .map_err(|_| Refusal::RegisterNumber)
}
