//! Mends what GCC says about the epilogues of functions that realign their stack.
//!
//! Such a function keeps its frame address in a register of its own ("DRAP", r10 or r13) and saves
//! rbp where rbp then points. Its epilogue is described by
//!
//! ```text
//! body       CFA = *(rbp - 8)    rbp = *(rbp)
//! pop %r10   CFA = r10 + 0       rbp = *(rbp)      right for the next instruction alone,
//! pop %rbp                                         `pop %rbp` or `leave`, of one byte
//! lea -8(%r10),%rsp
//! ret        CFA = rsp + 8       rbp = *(rbp)      wrong: rbp is the caller's already
//! ```
//!
//! and so two instructions would lose the caller of a caller that has a frame pointer.

use framewalk_sframe::{Arch, CallerRule, Cfa, FunctionRows, Row, Rule, Unwind};

/// Bytes of `pop %rbp` and of `leave`.
const POP: u32 = 1;

#[derive(PartialEq)]
enum At {
    Elsewhere,
    Body,
    Epilogue,
}

/// Mends the rows of a converted function.
pub(super) fn mend(function: &mut FunctionRows) {
    let fp = Arch::Amd64.machine().fp;
    let saved_where_it_points = |row: &Row| match row.unwind {
        Unwind::Caller(rule) if rule.fp == Rule::At(fp, 0) => Some(rule),
        _ => None,
    };
    let is_body = |rule: &CallerRule| matches!(rule.cfa, Cfa::At(register, _) if register == fp);
    if !(function.rows.iter().filter_map(saved_where_it_points)).any(|rule| is_body(&rule)) {
        return;
    }

    let ends = function.rows.iter().skip(1).map(|next| next.start);
    let ends: Vec<u32> = ends.chain([function.size]).collect();
    let mut mended = Vec::with_capacity(function.rows.len() + 1);
    let mut at = At::Elsewhere;
    for (row, end) in function.rows.iter().zip(ends) {
        match saved_where_it_points(row) {
            Some(rule) if at != At::Elsewhere && !is_body(&rule) => {
                let mut start = row.start;
                if at == At::Body {
                    mended.push(*row);
                    start = start.saturating_add(POP);
                }
                if start < end {
                    let fp = Rule::Same;
                    let unwind = Unwind::Caller(CallerRule { fp, ..rule });
                    mended.push(Row { start, unwind });
                }
                at = At::Epilogue;
            }
            rule => {
                mended.push(*row);
                at = match rule {
                    Some(rule) if is_body(&rule) => At::Body,
                    _ => At::Elsewhere,
                };
            }
        }
    }
    function.rows = mended;
}

#[cfg(test)]
mod tests {
    use super::*;
    use framewalk_sframe::Register;

    const RSP: Register = Register(7);
    const RBP: Register = Register(6);
    const R10: Register = Register(10);

    fn row(start: u32, cfa: Cfa, fp: Rule) -> Row {
        let ra = Rule::AtCfa(-8);
        let unwind = Unwind::Caller(CallerRule {
            cfa,
            ra,
            fp,
            ra_signed: false,
        });
        Row { start, unwind }
    }

    /// As GCC 12 describes a function with an aligned local and alloca, and another epilogue in it.
    #[test]
    fn rbp_is_the_callers_once_it_was_popped() {
        let (entry, drap, body) = (Cfa::Value(RSP, 8), Cfa::Value(R10, 0), Cfa::At(RBP, -8));
        let (saved, same) = (Rule::At(RBP, 0), Rule::Same);
        let first = [
            row(0x00, entry, same),
            row(0x05, drap, same),
            row(0x11, drap, saved),
            row(0x13, body, saved),
            row(0x64, drap, saved),
        ];
        let second = [row(0x70, body, saved), row(0x80, drap, saved)];
        let gcc = [&first[..], &[row(0x69, entry, saved)], &second].concat();
        let right = [
            &first[..],
            &[row(0x65, drap, same), row(0x69, entry, same)],
            &second,
            &[row(0x81, drap, same)],
        ];
        let mut function = FunctionRows::new(0x1000, 0x90, gcc);
        mend(&mut function);
        assert_eq!(function.rows, right.concat());
        let again = function.rows.clone();
        function.size = 0x81;
        function.rows.truncate(again.len() - 1);
        mend(&mut function);
        assert_eq!(
            function.rows.last(),
            again.get(again.len() - 2),
            "no row behind the end"
        );
    }

    #[test]
    fn other_functions_stay_as_they_are() {
        let rows = vec![
            row(0, Cfa::Value(RSP, 8), Rule::Same),
            row(1, Cfa::Value(RSP, 16), Rule::AtCfa(-16)),
            row(4, Cfa::Value(RBP, 16), Rule::AtCfa(-16)),
            row(9, Cfa::Value(RSP, 8), Rule::At(RBP, 0)),
        ];
        let mut function = FunctionRows::new(0x1000, 10, rows.clone());
        mend(&mut function);
        assert_eq!(function.rows, rows);
    }
}
