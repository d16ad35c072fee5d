//! What an object's file says of its code, by other people's readers.

use crate::symbols::{Segments, Symbols, address, offset, segments};
use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameOffset, EndianSlice, LittleEndian, Register,
    RegisterRule, UnwindContext, UnwindSection, UnwindTableRow, X86_64,
};
use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind};
use object::{Object, ObjectSection};

/// The facts of one file.
#[derive(Debug)]
pub struct Facts<'a> {
    bytes: &'a [u8],
    segments: Segments,
    sections: Vec<(u64, u64, String)>,
    /// Its functions.
    pub symbols: Symbols,
    eh_frame: EhFrame<EndianSlice<'a, LittleEndian>>,
    bases: BaseAddresses,
    /// What has an FDE, by address, and where that is in the section; sorted.
    described: Vec<(u64, u64, EhFrameOffset)>,
    /// The first function of .init_array and of .fini_array.
    first_and_last: Vec<u64>,
}

/// A place in a file's code.
#[derive(Debug)]
pub(super) struct Place<'p, 'a> {
    facts: &'p Facts<'a>,
    address: u64,
}

impl<'a> Facts<'a> {
    /// Those of a file; none where it is no ELF file.
    pub fn of(bytes: &'a [u8]) -> Option<Facts<'a>> {
        let file = object::File::parse(bytes).ok()?;
        let sections = file.sections().filter_map(|section| {
            let name = section.name().ok()?.to_string();
            Some((section.address(), section.size(), name))
        });
        let data = file.section_by_name(".eh_frame");
        let start = data.as_ref().map_or(0, ObjectSection::address);
        let data = data.and_then(|data| data.data().ok()).unwrap_or(&[]);
        let mut facts = Facts {
            bytes,
            segments: segments(bytes),
            sections: sections.collect(),
            symbols: Symbols::of(bytes),
            eh_frame: EhFrame::new(data, LittleEndian),
            bases: BaseAddresses::default().set_eh_frame(start),
            described: Vec::new(),
            first_and_last: Vec::new(),
        };
        facts.described = facts.ranges();
        facts.first_and_last = [".init_array", ".fini_array"]
            .iter()
            .filter_map(|array| facts.first_of(&file, array))
            .collect();
        Some(facts)
    }

    /// The file offsets at which described functions begin.
    pub fn functions(&self) -> impl Iterator<Item = u64> {
        let starts = self.described.iter().map(|(start, ..)| *start);
        starts.filter_map(|start| offset(&self.segments, start))
    }

    pub(super) fn place(&self, offset: u64) -> Option<Place<'_, 'a>> {
        let address = address(&self.segments, offset)?;
        Some(Place {
            facts: self,
            address,
        })
    }

    fn ranges(&self) -> Vec<(u64, u64, EhFrameOffset)> {
        let mut ranges = Vec::new();
        let mut entries = self.eh_frame.entries(&self.bases);
        while let Ok(Some(entry)) = entries.next() {
            if let gimli::CieOrFde::Fde(partial) = entry
                && let Ok(fde) = partial.parse(EhFrame::cie_from_offset)
            {
                let at = EhFrameOffset(fde.offset());
                ranges.push((fde.initial_address(), fde.end_address(), at));
            }
        }
        ranges.sort_unstable_by_key(|(start, ..)| *start);
        ranges
    }

    /// The first function in an array of them: as the linker wrote it, or as it is relocated.
    fn first_of(&self, file: &object::File<'_>, array: &str) -> Option<u64> {
        let start = file.section_by_name(array)?.address();
        let relocated = file.dynamic_relocations().into_iter().flatten();
        let addend = relocated
            .filter(|(at, _)| *at == start)
            .find_map(|(_, relocation)| u64::try_from(relocation.addend()).ok());
        let written = self.code(start, 8).first_chunk();
        addend
            .or_else(|| written.map(|word| u64::from_le_bytes(*word)))
            .filter(|function| *function != 0)
    }

    /// At most so many bytes from an address on.
    fn code(&self, address: u64, most: u64) -> &'a [u8] {
        let at = offset(&self.segments, address).and_then(|at| usize::try_from(at).ok());
        let rest = at.and_then(|at| self.bytes.get(at..)).unwrap_or(&[]);
        &rest[..rest.len().min(most as usize)]
    }
}

impl Place<'_, '_> {
    pub(super) fn section(&self) -> Option<&str> {
        let mut sections = self.facts.sections.iter();
        let holds = |&&(start, size, _): &&(u64, u64, String)| {
            start != 0 && self.address.wrapping_sub(start) < size
        };
        sections.find(holds).map(|(_, _, name)| name.as_str())
    }

    /// The stretch around it that no FDE covers, if there is one.
    pub(super) fn hole(&self) -> Option<(u64, u64)> {
        let ranges = &self.facts.described;
        let next = ranges.partition_point(|(start, ..)| *start <= self.address);
        let below = ranges[..next]
            .iter()
            .map(|(_, end, _)| *end)
            .max()
            .unwrap_or(0);
        let above = ranges.get(next).map_or(u64::MAX, |(start, ..)| *start);
        (self.address >= below).then_some((below, above))
    }

    pub(super) fn hole_has(&self, bytes: &[u8]) -> bool {
        let code = self
            .hole()
            .map(|(start, end)| self.facts.code(start, end - start));
        code.is_some_and(|code| code.windows(bytes.len()).any(|window| window == bytes))
    }

    pub(super) fn is_near_first_and_last(&self) -> bool {
        self.hole().is_some_and(|(start, end)| {
            let mut functions = self.facts.first_and_last.iter();
            functions.any(|function| (start..end).contains(function))
        })
    }

    /// The address behind it is the first of a described function.
    pub(super) fn next_begins_function(&self) -> bool {
        let mut ranges = self.facts.described.iter();
        ranges.any(|(start, ..)| *start == self.address + 1)
    }

    fn function(&self) -> Option<(u64, u64, EhFrameOffset)> {
        let ranges = &self.facts.described;
        let next = ranges.partition_point(|(start, ..)| *start <= self.address);
        let last = ranges.get(next.checked_sub(1)?)?;
        (self.address < last.1).then_some(*last)
    }

    /// Its function, read in a row, ends with a call and `hlt`.
    pub(super) fn never_returns(&self) -> bool {
        let Some((start, end, _)) = self.function() else {
            return false;
        };
        let code = self.facts.code(start, end - start);
        let mut last = [Mnemonic::INVALID; 2];
        for instruction in &mut Decoder::with_ip(64, code, start, DecoderOptions::NONE) {
            last = [last[1], instruction.mnemonic()];
        }
        last == [Mnemonic::Call, Mnemonic::Hlt]
    }

    /// Whether the code of the function, up to there and read in a row, loads the stack pointer from memory.
    pub(super) fn sp_was_loaded(&self) -> bool {
        let Some((start, ..)) = self.function() else {
            return false;
        };
        let code = self.facts.code(start, self.address - start);
        let mut instructions = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
        instructions.iter().any(|i| {
            i.mnemonic() == Mnemonic::Mov
                && i.op0_register() == iced_x86::Register::RSP
                && i.op1_kind() == OpKind::Memory
        })
    }

    fn row<T>(&self, look: impl FnOnce(&UnwindTableRow<usize>) -> T) -> Option<T> {
        let mut context = UnwindContext::new();
        let (eh_frame, bases) = (&self.facts.eh_frame, &self.facts.bases);
        let cie = EhFrame::cie_from_offset;
        let fde = eh_frame
            .fde_from_offset(bases, self.function()?.2, cie)
            .ok()?;
        let row = fde.unwind_info_for_address(eh_frame, bases, &mut context, self.address);
        row.ok().map(look)
    }

    /// The register of the CFA, if it is one and an offset.
    pub(super) fn cfa_register(&self) -> Option<Register> {
        self.row(|row| match row.cfa() {
            CfaRule::RegisterAndOffset { register, .. } => Some(*register),
            CfaRule::Expression(_) => None,
        })?
    }

    pub(super) fn cfa_is_expression(&self) -> bool {
        self.row(|row| matches!(row.cfa(), CfaRule::Expression(_))) == Some(true)
    }

    /// The caller's stack pointer has a rule of its own.
    pub(super) fn says_sp(&self) -> bool {
        self.row(|row| row.register(X86_64::RSP).is_some()) == Some(true)
    }

    pub(super) fn is_outermost(&self) -> bool {
        let undefined = |rule| matches!(rule, Some(RegisterRule::Undefined));
        self.row(|row| undefined(row.register(X86_64::RA))) == Some(true)
    }

    /// It saves the registers that an exception's handler gets its arguments in: no other function has to.
    pub(super) fn returns_to_handler(&self) -> bool {
        let saved = |rule| matches!(rule, Some(RegisterRule::Offset(_)));
        let both = |row: &UnwindTableRow<usize>| {
            saved(row.register(X86_64::RAX)) && saved(row.register(X86_64::RDX))
        };
        self.row(both) == Some(true)
    }
}
