//! Why walks end early, or go wrong where unwind data is false: a table of what is known. Each entry has a test that other
//! people's readers answer (gimli, object, iced), never our own.

mod facts;

use crate::judge::{Verdict, Wrong};
pub use facts::Facts;
use facts::Place;
use framewalk_walk::Stop;
use gimli::X86_64;

/// A known reason.
#[derive(Debug)]
pub struct Gap {
    /// Its name in the table.
    pub name: &'static str,
    /// What a reader should know.
    pub because: &'static str,
    explains: fn(&Found<'_, '_>) -> bool,
}

/// A walk that was not right.
#[derive(Debug)]
struct Found<'p, 'a> {
    verdict: Verdict,
    /// The frame that was not left rightly.
    at: Place<'p, 'a>,
    /// The frame inside of it.
    inner: Option<Place<'p, 'a>>,
}

impl Found<'_, '_> {
    /// The walk ended because there was no row.
    fn has_no_row(&self) -> bool {
        self.verdict == Verdict::Early(Stop::NoRow)
    }

    /// No file describes the code.
    fn is_undescribed(&self) -> bool {
        self.has_no_row() && self.at.hole().is_some()
    }
}

/// All of them.
pub const GAPS: &[Gap] = &[
    Gap {
        name: "_init, _fini",
        because: "the sections .init and .fini are put together of pieces that nothing describes",
        explains: |found| {
            found.is_undescribed() && matches!(found.at.section(), Some(".init" | ".fini"))
        },
    },
    Gap {
        name: "crtstuff",
        because: "gcc builds what runs first and last in every object (frame_dummy, __do_global_dtors_aux and what these \
                  call) without unwind data",
        explains: |found| found.is_undescribed() && found.at.is_near_first_and_last(),
    },
    Gap {
        name: "PLT of lld",
        because: "lld writes linkage tables without unwind data",
        explains: |found| {
            let plt = |name: &str| name.starts_with(".plt");
            found.is_undescribed() && found.at.section().is_some_and(plt)
        },
    },
    Gap {
        name: "clone, vfork",
        because: "glibc ends its description at the system call that creates a thread, and begins it anew behind it, as the \
                  new thread has no caller",
        explains: |found| {
            let small = |(start, end)| end - start <= 32;
            found.is_undescribed()
                && found.at.hole().is_some_and(small)
                && found.at.hole_has(&[0x0f, 0x05])
        },
    },
    Gap {
        name: "resolver",
        because: "while a call is bound lazily, the dynamic loader's trampoline has its CFA in rbx, which only the innermost \
                  frame still has: SFrame does not say where callees keep it. Each call is bound once",
        explains: |found| {
            found.verdict == Verdict::Early(Stop::RegisterUnknown)
                && found.at.cfa_register() == Some(X86_64::RBX)
        },
    },
    Gap {
        name: "other registers",
        because: "assembly that calls its own parts keeps its CFA in a register that is neither stack nor frame pointer; of a \
                  caller these are not known",
        explains: |found| {
            let other = |register| register != X86_64::RSP && register != X86_64::RBP;
            found.verdict == Verdict::Early(Stop::RegisterUnknown)
                && found.at.cfa_register().is_some_and(other)
        },
    },
    Gap {
        name: "longjmp, setcontext",
        because: "their rows tell of where they lead, with a stack pointer of its own beside the CFA, which SFrame has no \
                  words for",
        explains: |found| found.has_no_row() && found.at.says_sp(),
    },
    Gap {
        name: "load and add",
        because: "the CFA is a word of the stack and 8 more (libcrypto's assembly), which SFrame has no words for",
        explains: |found| found.has_no_row() && found.at.cfa_is_expression(),
    },
    Gap {
        name: "made context",
        because: "makecontext pushes the address of a function's beginning, where a return address would point behind a call; \
                  what is before it is not described. No frame is missing, but nothing says so",
        explains: |found| found.is_undescribed() && found.at.next_begins_function(),
    },
    Gap {
        name: "end of a context",
        because: "the data of __start_context claims a caller, which the outermost function of a context does not have (it \
                  ends in hlt, as what never returns)",
        explains: |found| found.at.never_returns() && !found.at.is_outermost(),
    },
    Gap {
        name: "swapcontext",
        because: "its data is that of the old stack until it ends, but it has loaded the new stack pointer before; nobody can \
                  walk by it there",
        explains: |found| found.at.cfa_register() == Some(X86_64::RSP) && found.at.sp_was_loaded(),
    },
    Gap {
        name: "exceptions arrive",
        because: "before libgcc leaves for a handler it writes the handler's registers over those that it had saved for its \
                  own callers, so that the stack of these is no more (a function that saves rax and rdx)",
        explains: |found| {
            found.at.returns_to_handler()
                || found.inner.as_ref().is_some_and(Place::returns_to_handler)
        },
    },
];

impl Gap {
    /// Whether what it explains can be wrong frames: data that is false where it is.
    pub fn is_false_data(&self) -> bool {
        matches!(
            self.name,
            "end of a context" | "swapcontext" | "exceptions arrive"
        )
    }
}

/// The entry that explains a walk that was not right in the frame at a file's offset; and inside of it, if any.
pub fn explain(
    verdict: Verdict,
    at: (&Facts<'_>, u64),
    inner: Option<(&Facts<'_>, u64)>,
) -> Option<&'static Gap> {
    let found = Found {
        verdict,
        at: at.0.place(at.1)?,
        inner: inner.and_then(|(facts, offset)| facts.place(offset)),
    };
    let wrong = matches!(
        verdict,
        Verdict::Wrong(Wrong::Pc | Wrong::Sp | Wrong::TooMany)
    );
    GAPS.iter()
        .find(|gap| (verdict.is_early() || wrong && gap.is_false_data()) && (gap.explains)(&found))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This program's own file, and libc's: they are built by the same tools as what is stepped.
    #[test]
    fn each_entry_explains_no_more_than_it_says() {
        let path = std::env::current_exe().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let facts = Facts::of(&bytes).unwrap();
        let place = |name: &str| facts.symbols.places(name).next();
        let explained = |verdict, offset| explain(verdict, (&facts, offset), None).map(|g| g.name);
        let early = Verdict::Early;
        let init = place("_init").expect("gcc links it");
        let known = explained(early(Stop::NoRow), init);
        assert_eq!(known, Some("_init, _fini"));
        assert_eq!(explained(early(Stop::ReadFault), init), None);
        assert_eq!(explained(Verdict::Wrong(Wrong::Pc), init), None);
        let aux = place("__do_global_dtors_aux").expect("gcc links it");
        assert_eq!(explained(early(Stop::NoRow), aux), Some("crtstuff"));
        let mut asked = 0;
        for offset in facts.functions().step_by(7) {
            for verdict in [
                early(Stop::NoRow),
                early(Stop::RegisterUnknown),
                Verdict::Wrong(Wrong::Pc),
                Verdict::Wrong(Wrong::TooSoon),
            ] {
                let Some(known) = explained(verdict, offset) else {
                    asked += 1;
                    continue;
                };
                // The linkage tables, whose CFA depends on the pc.
                assert_eq!(known, "load and add", "{offset:#x} {verdict:?}");
            }
        }
        assert!(asked > 1000, "{asked}");
    }
}
