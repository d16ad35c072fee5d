//! What conversion leaves out, by name.

use std::fmt;

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $text:literal;)*) => {
        /// Why a row, or a whole entry, of `.eh_frame` has no place in the converted section.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Refusal { $($(#[$doc])* $variant,)* }

        impl Refusal {
            /// Every reason.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$variant,)*];

            /// The short name used in statistics, kebab-case.
            pub const fn name(self) -> &'static str {
                match self { $(Refusal::$variant => $name,)* }
            }

            /// One clause for people.
            pub const fn text(self) -> &'static str {
                match self { $(Refusal::$variant => $text,)* }
            }
        }

        impl fmt::Display for Refusal {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.text())
            }
        }
    };
}

refusals! {
    /// An entry whose function has no bytes. It describes nothing, so no row is counted.
    ZeroLength = "zero-length", "a function of no bytes";
    /// An entry at address 0: its function was dropped by the linker. No row is counted.
    Tombstone = "tombstone", "a function at address 0, dropped by the linker";
    /// An entry whose function wraps around the address space.
    Wraps = "wraps", "a function that wraps around the address space";
    /// A function of 4 GiB or more.
    TooLong = "too-long", "a function of 4 GiB or more";
    /// A function at least 2^62 bytes away from `.eh_frame`, further than any file reaches.
    TooFar = "too-far", "a function implausibly far from its unwind data";
    /// A function that overlaps one of an earlier entry.
    Overlap = "overlap", "a function that overlaps one of an earlier entry";
    /// An entry that cannot be parsed.
    BadEntry = "bad-entry", "an entry that cannot be parsed";
    /// A common entry of more than [`super::MAX_COMMON_ENTRY`] bytes, which every entry would run again.
    LongCommonEntry = "long-common-entry", "a common entry too long to be run for every function";
    /// Instructions that cannot be run; the rows before them are kept.
    BadInstructions = "bad-instructions", "instructions that cannot be run";
    /// Return addresses in another column than the machine's.
    ReturnColumn = "return-column", "return addresses in another column than the machine's";
    /// No CFA rule was given.
    NoCfa = "no-cfa", "no CFA";
    /// The return address is said to be unchanged, on a machine without a register for it.
    RaUnchanged = "ra-unchanged", "an unchanged return address on a machine that has no register for it";
    /// A rule that only an augmentation could explain.
    Architectural = "architectural", "a rule of an unknown augmentation";
    /// `load + n`, as OpenSSL's assembly uses: `CFA = *(rsp + n) + 8`.
    LoadPlus = "load-plus", "an expression that adds to a loaded word";
    /// Two loads behind one another.
    TwoLoads = "two-loads", "an expression that loads twice";
    /// `CFA + n` as a value where the CFA itself is loaded.
    CfaValue = "cfa-value", "a value relative to a loaded CFA";
    /// A stack pointer of the caller that is not what the CFA says it is: glibc's longjmp and setcontext tell of where they
    /// lead.
    StackPointer = "stack-pointer", "a stack pointer of the caller that the CFA does not tell";
    /// An expression of another form.
    Expression = "expression", "an expression of another form";
    /// An offset outside of 32 bits.
    OffsetRange = "offset-range", "an offset outside of 32 bits";
    /// A register number that no row can hold.
    RegisterNumber = "register-number", "a register that the machine does not have, or no row can say";
    /// A rule that no words of the machine's rows can say.
    NoWords = "no-words", "a rule that the machine's rows cannot say";
}

/// How much one reason left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Entries of `.eh_frame` of which at least one row was left out for this reason.
    pub functions: u64,
    /// Rows; one for an entry whose rows could not be known.
    pub rows: u64,
}

/// What was left out, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    counts: [Count; Refusal::ALL.len()],
}

impl Refused {
    /// The count of one reason.
    pub fn get(&self, refusal: Refusal) -> Count {
        self.counts
            .get(refusal as usize)
            .copied()
            .unwrap_or_default()
    }

    /// The reasons that occurred.
    pub fn iter(&self) -> impl Iterator<Item = (Refusal, Count)> {
        Refusal::ALL
            .iter()
            .map(|&r| (r, self.get(r)))
            .filter(|(_, count)| *count != Count::default())
    }

    /// Rows left out, over all reasons.
    pub fn rows(&self) -> u64 {
        self.counts.iter().map(|count| count.rows).sum()
    }

    /// Adds what another conversion left out.
    pub fn merge(&mut self, other: &Refused) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            count.functions += more.functions;
            count.rows += more.rows;
        }
    }

    pub(super) fn add(&mut self, refusal: Refusal, functions: u64, rows: u64) {
        if let Some(count) = self.counts.get_mut(refusal as usize) {
            count.functions += functions;
            count.rows += rows;
        }
    }
}
