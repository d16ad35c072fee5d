//! Sections as text, in the words of GNU readelf (`readelf --sframe`, binutils 2.46 and later).

use crate::read::{Function, Pc, Section};
use crate::row::{CallerRule, Cfa, Register, Row, Rule, Unwind};
use crate::spec::{Flag, Version};
use std::fmt::{self, Display, Formatter};

/// A section as text, see [`Section::text`].
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    section: Section<'a>,
}

impl<'a> Section<'a> {
    /// The section as GNU readelf prints it, without its first line; what is wrong with a function
    /// or row stands in its place.
    pub fn text(&self) -> Text<'a> {
        Text { section: *self }
    }
}

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let header = self.section.header();
        writeln!(f, "  Header :\n")?;
        match header.version.name() {
            Some(name) => writeln!(f, "    Version: {name}")?,
            None => writeln!(f, "    Version: {}", header.version.0)?,
        }
        let mut label = "Flags: ";
        for flag in Flag::ALL.iter().filter(|flag| header.has(**flag)) {
            let end = if header.flags >> (flag.0.trailing_zeros() + 1) == 0 {
                ""
            } else {
                ","
            };
            writeln!(f, "    {label}{}{end}", flag.name().unwrap_or_default())?;
            label = "       ";
        }
        if header.flags == 0 {
            writeln!(f, "    Flags: NONE")?;
        }
        // The reader of V1 did not print it.
        if header.fixed_ra != 0 && header.version != Version::V1 {
            writeln!(f, "    CFA fixed RA offset: {}", header.fixed_ra)?;
        }
        writeln!(f, "    Num FDEs: {}", header.functions)?;
        writeln!(f, "    Num FREs: {}\n", header.rows)?;
        writeln!(f, "  Function Index :")?;
        for function in self.section.functions() {
            writeln!(f)?;
            match function {
                Ok(function) => self.function(f, &function)?,
                Err(error) => writeln!(f, "    {error}")?,
            }
        }
        Ok(())
    }
}

impl Text<'_> {
    fn function(&self, f: &mut Formatter<'_>, function: &Function<'_>) -> fmt::Result {
        let Function {
            index, start, size, ..
        } = function;
        write!(
            f,
            "    func idx [{index}]: pc = {start:#x}, size = {size} bytes"
        )?;
        let attributes = [(function.signal, "S"), (function.flex, "F")];
        if attributes.iter().any(|(set, _)| *set) {
            let letters = attributes
                .iter()
                .filter(|(set, _)| *set)
                .map(|(_, letter)| *letter);
            write!(f, ", attr = \"{}\"", letters.collect::<String>())?;
        }
        if function.key_b {
            write!(f, ", pauth = B key")?;
        }
        let mask = if function.pc == Pc::Inc { "   " } else { "[m]" };
        writeln!(
            f,
            "\n    STARTPC{mask}      {:<10}{:<10}{:<13}",
            "CFA", "FP", "RA"
        )?;
        // Rows as written: the one implied by their absence is not.
        for row in function.rows().skip(usize::from(function.row_count == 0)) {
            match row {
                Ok(row) => self.row(f, function, &row)?,
                Err(error) => writeln!(f, "    {error}")?,
            }
        }
        Ok(())
    }

    fn row(&self, f: &mut Formatter<'_>, function: &Function<'_>, row: &Row) -> fmt::Result {
        let base = if function.pc == Pc::Inc {
            function.start
        } else {
            0
        };
        write!(f, "    {:016x}  ", base.wrapping_add(u64::from(row.start)))?;
        let Unwind::Caller(CallerRule {
            cfa,
            ra,
            fp,
            ra_signed,
        }) = row.unwind
        else {
            return writeln!(f, "RA undefined");
        };
        let cfa = match cfa {
            Cfa::Value(register, offset) => self.sum(register, offset),
            Cfa::At(register, offset) => format!("({})", self.sum(register, offset)),
        };
        let signed = if ra_signed { "[s]" } else { "" };
        let ra = format!("{}{signed}", self.ra(function, ra, fp != Rule::Same));
        writeln!(f, "{cfa:<10}{:<10}{ra:<13}", self.rule(fp))
    }

    /// The return address, with the difference between "no word" and "a word that says nothing".
    fn ra(&self, function: &Function<'_>, ra: Rule, fp_follows: bool) -> String {
        let fixed = self.section.header().fixed_ra;
        let untracked = match ra {
            Rule::Same => true,
            Rule::AtCfa(offset) => fixed != 0 && offset == i32::from(fixed),
            _ => false,
        };
        let padded = fp_follows && (function.flex || fixed == 0);
        let word = if fixed != 0 && self.section.header().version != Version::V1 {
            "f"
        } else {
            "u"
        };
        match (untracked, padded) {
            (true, true) => "U".into(),
            (true, false) => word.into(),
            (false, _) => self.rule(ra),
        }
    }

    fn rule(&self, rule: Rule) -> String {
        match rule {
            Rule::Same => "u".into(),
            Rule::AtCfa(offset) => format!("c{offset:+}"),
            Rule::At(register, offset) => format!("({})", self.sum(register, offset)),
            Rule::Value(register, offset) => self.sum(register, offset),
        }
    }

    fn sum(&self, register: Register, offset: i32) -> String {
        let machine = self.section.header().arch.machine();
        match register {
            r if r == machine.sp => format!("sp{offset:+}"),
            r if r == machine.fp => format!("fp{offset:+}"),
            Register(number) => format!("r{number}{offset:+}"),
        }
    }
}
