//! The unwind data of an object, in the form that every walker reads.
//!
//! A table is one SFrame V3 section in the space of *file offsets*: the key of a lookup is
//! `pc - start of the mapping + its file offset`, whatever the load address. Nothing of the file is
//! needed afterwards.

mod epilogue;
pub(super) mod hole;

use super::ObjectSource;
use super::image::{Bytes, Image, Lack};
use framewalk_sframe::convert::{self, EhFrame, Refused};
use framewalk_sframe::spec::Version;
use framewalk_sframe::{Arch, Builder, Function, FunctionRows, Row, Section, Unwind};
use framewalk_walk::{Origin, Says, Stop};
use hole::Scan;
use std::ops::Range;

/// Rows that a lookup scans at most: longer functions are written as several.
pub const ROWS_PER_FUNCTION: usize = 32;
/// File offsets that tables are about: frames hold as many bits of them. It bounds what a sparse file can ask for.
const MAX_OFFSET: u64 = 1 << 38;
/// The longest entry code that is taken for outermost when nobody describes it, bytes.
const MAX_ENTRY_CODE: u64 = 256;

/// The unwind data of one object.
#[derive(Debug, Clone)]
pub struct Table {
    /// An SFrame V3 section for address 0 in the space of file offsets; it has passed the reader's
    /// check. Empty where there is no data.
    pub section: Vec<u8>,
    /// [`Origin::File`] or [`Origin::Converted`].
    pub origin: Origin,
    /// Functions in the section.
    pub functions: u32,
    /// Rows in the section.
    pub rows: u64,
    /// Large stretches of code without unwind data between two functions, closed ones too (file offsets).
    pub(super) holes: Vec<Range<u64>>,
    /// What conversion left out.
    pub refused: Refused,
    /// Why there is no data.
    pub lack: Option<Lack>,
    /// What is worth a line to the user.
    pub notes: Vec<String>,
}

impl Default for Table {
    fn default() -> Table {
        Table {
            section: Vec::new(),
            origin: Origin::Converted,
            functions: 0,
            rows: 0,
            refused: Refused::default(),
            holes: Vec::new(),
            lack: None,
            notes: Vec::new(),
        }
    }
}

impl Table {
    /// Builds the table of an object. It takes milliseconds to seconds; any thread may do it.
    pub fn build(source: &ObjectSource) -> Table {
        let image = Image::read(source);
        let segments = image.as_ref().map_or(&[][..], |image| &image.segments);
        let mut scan = Scan::new(source, segments);
        Table::from_image(&image, &mut |hole| scan.keeps_frame_pointers(hole))
    }

    /// A table that was written elsewhere: a V3 section for address 0 in the space of file offsets. Only its header is
    /// checked here.
    pub fn of_section(section: Vec<u8>, origin: Origin) -> Result<Table, framewalk_sframe::Error> {
        let header = *Section::parse(&section, 0)?.header();
        Ok(Table {
            section,
            origin,
            functions: header.functions,
            rows: header.rows.into(),
            ..Table::default()
        })
    }

    /// The table of an object that has no unwind data.
    pub fn lacking(lack: Lack) -> Table {
        Table {
            lack: Some(lack),
            ..Table::default()
        }
    }

    /// `keeps`: whether the code in a large hole keeps frame pointers. It is asked for each once, in their order.
    pub(super) fn from_image(
        image: &Result<Image, Lack>,
        keeps: &mut dyn FnMut(&Range<u64>) -> bool,
    ) -> Table {
        let mut table = Table::default();
        match image {
            Err(lack) => table.lack = Some(*lack),
            Ok(image) => {
                let functions = table.functions_of(image);
                table.write(functions, image, keeps);
            }
        }
        table
    }

    /// How to go on from a file offset.
    pub fn find(&self, offset: u64) -> Says {
        match self.lack {
            None => {}
            Some(Lack::Foreign(..)) => return Says::Stop(Stop::ForeignCode),
            Some(Lack::Unreadable(_)) => return Says::Stop(Stop::ObjectGone),
            Some(Lack::NotElf | Lack::Malformed(_) | Lack::NoData) => return Says::Undescribed,
        }
        // Parsing checks a header of 28 bytes.
        match Section::parse(&self.section, 0).and_then(|section| section.lookup(offset)) {
            Ok(Some(found)) => Says::Row {
                unwind: found.row.unwind,
                signal: found.function.signal,
                origin: self.origin,
            },
            Ok(None) if hole::is_in_large(&self.section, offset) => Says::Undescribed,
            Ok(None) => Says::Stop(Stop::NoRow),
            Err(_) => Says::Stop(Stop::BadRow),
        }
    }

    /// From the first function's start to the end of the last one, in file offsets.
    pub fn text(&self) -> Option<Range<u64>> {
        let section = Section::parse(&self.section, 0).ok()?;
        let first = section.function(0).ok()?;
        let last = section.header().functions.checked_sub(1)?;
        let last = section.function(last).ok()?;
        Some(first.start..last.start.checked_add(last.size.into())?)
    }

    /// Every function, in link-time addresses: of the file's own `.sframe` where it is sound and
    /// complete, else converted from `.eh_frame`.
    fn functions_of(&mut self, image: &Image) -> Vec<FunctionRows> {
        let mut converted = Vec::new();
        if let Some(Bytes { address, bytes }) = &image.eh_frame {
            let conversion = convert::eh_frame(EhFrame::new(bytes, *address, Arch::Amd64));
            self.refused = conversion.refused;
            converted = conversion.functions;
            converted.iter_mut().for_each(epilogue::mend);
        }
        if let Some(sframe) = &image.sframe {
            match functions_of_section(sframe) {
                Ok(functions) if covers(&functions, &converted) => {
                    self.origin = Origin::File;
                    self.refused = Refused::default();
                    return functions;
                }
                Ok(_) => self
                    .notes
                    .push(".sframe passed over: it covers less than .eh_frame".into()),
                Err(fault) => self.notes.push(format!(".sframe passed over: {fault}")),
            }
        }
        converted
    }

    /// Moves the functions to file offsets and writes the section.
    fn write(
        &mut self,
        mut functions: Vec<FunctionRows>,
        image: &Image,
        keeps: &mut dyn FnMut(&Range<u64>) -> bool,
    ) {
        functions.extend(undescribed_entry(&functions, image));
        let all = functions.len();
        functions.retain_mut(|function| match file_offset(function, image) {
            Some(offset) => {
                function.start = offset;
                true
            }
            None => false,
        });
        functions.sort_by_key(|function| function.start);
        let mut end = 0;
        functions.retain(|function| {
            let disjoint = function.start >= end;
            if disjoint {
                end = function.end().unwrap_or(u64::MAX);
            }
            disjoint
        });
        stretch_trampolines(&mut functions);
        if functions.len() != all {
            self.notes.push(format!(
                "{} functions outside of executable segments",
                all - functions.len()
            ));
        }
        self.holes = hole::large(&functions);
        let closed = self.holes.iter().filter(|hole| !keeps(hole));
        functions.extend(closed.flat_map(hole::closed));
        let mut builder = Builder::new(Arch::Amd64).rows_per_function(ROWS_PER_FUNCTION);
        builder.extend(functions);
        let written = builder.finish(0);
        let parsed = written
            .as_ref()
            .map(|bytes| Section::parse(bytes, 0).map(|section| *section.header()));
        match parsed {
            Ok(Ok(header)) if header.functions > 0 => {
                self.functions = header.functions;
                self.rows = header.rows.into();
                self.section = written.unwrap_or_default();
            }
            Ok(Ok(_)) => self.lack = Some(Lack::NoData),
            Ok(Err(error)) => self.refuse(error.to_string()),
            Err(error) => self.refuse(error.to_string()),
        }
    }

    fn refuse(&mut self, why: String) {
        self.notes.push(why);
        self.lack = Some(Lack::Malformed("unwind data that cannot be written down"));
    }
}

/// The functions of a file's own section, or what is wrong with it. Only V3 says which functions
/// are signal frames and which are outermost.
fn functions_of_section(sframe: &Bytes) -> Result<Vec<FunctionRows>, String> {
    let report = framewalk_sframe::check(&sframe.bytes, sframe.address);
    if let Some(fault) = report.findings().first() {
        return Err(fault.to_string());
    }
    let section =
        Section::parse(&sframe.bytes, sframe.address).map_err(|error| error.to_string())?;
    let header = section.header();
    if header.version != Version::V3 || header.arch != Arch::Amd64 {
        return Err(format!(
            "version {} for another machine or of an older format",
            header.version.0
        ));
    }
    let functions = section.functions().map(|function| {
        let function: Function<'_> = function?;
        let rows = function.rows().collect::<Result<Vec<Row>, _>>()?;
        let Function {
            start,
            size,
            pc,
            signal,
            key_b,
            ..
        } = function;
        Ok(FunctionRows {
            start,
            size,
            pc,
            signal,
            key_b,
            rows,
        })
    });
    let mut functions: Vec<_> = functions
        .collect::<Result<_, framewalk_sframe::Error>>()
        .map_err(|error| error.to_string())?;
    functions.sort_by_key(|function| function.start);
    Ok(functions)
}

/// Whether every byte of `needed` lies in a function of `functions`; both are sorted by start.
fn covers(functions: &[FunctionRows], needed: &[FunctionRows]) -> bool {
    needed.iter().all(|needed| {
        let mut at = needed.start;
        let next = functions.partition_point(|function| function.start <= at);
        for function in &functions[next.saturating_sub(1)..] {
            if function.start > at || at >= needed.end().unwrap_or(u64::MAX) {
                break;
            }
            at = at.max(function.end().unwrap_or(u64::MAX));
        }
        at >= needed.end().unwrap_or(u64::MAX)
    })
}

/// An outermost function for the code at the ELF entry point where nobody describes it: a process
/// starts there and has no caller (AMD64 psABI 3.4.1 "Initial Stack and Register State"). It ends
/// where the next function starts.
fn undescribed_entry(functions: &[FunctionRows], image: &Image) -> Option<FunctionRows> {
    let entry = image.entry;
    let segment = image
        .segments
        .iter()
        .find(|segment| segment.addresses.contains(&entry))?;
    let next = functions.partition_point(|function| function.start <= entry);
    let before = functions[..next].last();
    if before.is_some_and(|function| function.end().is_none_or(|end| end > entry)) {
        return None;
    }
    let next = functions
        .get(next)
        .map_or(u64::MAX, |function| function.start);
    let size = next
        .min(segment.addresses.end)
        .min(entry.saturating_add(MAX_ENTRY_CODE))
        - entry;
    let row = Row {
        start: 0,
        unwind: Unwind::Outermost,
    };
    Some(FunctionRows::new(entry, size as u32, vec![row]))
}

/// A thread inside rt_sigreturn(2) stands behind the last instruction of the signal trampoline: one
/// byte more belongs to it, where that is nobody's. The functions are sorted and disjoint.
fn stretch_trampolines(functions: &mut [FunctionRows]) {
    let next_starts: Vec<u64> = functions
        .iter()
        .skip(1)
        .map(|next| next.start)
        .chain([u64::MAX])
        .collect();
    for (function, next) in functions.iter_mut().zip(next_starts) {
        if function.signal && function.end().is_some_and(|end| end < next) {
            function.size = function.size.saturating_add(1);
        }
    }
}

/// The file offset of a function's first byte, if one executable segment holds all of it.
fn file_offset(function: &FunctionRows, image: &Image) -> Option<u64> {
    let end = function.end()?;
    let segment = image.segments.iter().find(|segment| {
        segment.addresses.contains(&function.start) && end <= segment.addresses.end
    })?;
    let offset = (segment.offset).checked_add(function.start - segment.addresses.start)?;
    let end = offset.checked_add(function.size.into())?;
    (end <= MAX_OFFSET).then_some(offset)
}
