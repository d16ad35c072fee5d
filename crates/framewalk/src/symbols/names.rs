//! Where names come from: symbol tables and debug information through blazesym, kallsyms, perf maps.
//!
//! Each function here answers for every address that it is asked, with what is known in place of a
//! name where there is none.

use super::PerfMap;
use super::layout::Layout;
use crate::processes::{Object, ObjectSource};
use blazesym::MaybeDefault;
use blazesym::symbolize::source::{Elf, Kernel, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolizer};
use std::fs::File;
use std::io::{self, Write};
use std::iter::repeat_with;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bytes of a name or path, at most; C++ can make longer ones than anybody reads.
pub(super) const MAX_NAME: usize = 1024;

/// One function at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) source: Option<String>,
    pub(super) line: u32,
}

impl Named {
    pub(super) fn new(name: &str) -> Named {
        Named {
            name: clean(name),
            source: None,
            line: 0,
        }
    }

    fn with(name: &str, code: Option<&CodeInfo>) -> Named {
        let source = code.map(|code| clean(&code.to_path().to_string_lossy()));
        let line = code.and_then(|code| code.line).unwrap_or(0);
        Named {
            source,
            line,
            ..Named::new(name)
        }
    }
}

/// A name without control characters (a file may say what it likes, a terminal must not obey) and
/// not longer than [`MAX_NAME`].
pub(crate) fn clean(name: &str) -> String {
    let mut characters = name.char_indices();
    let mut clean = String::with_capacity(name.len().min(MAX_NAME));
    for (_, character) in characters.by_ref().take_while(|&(at, _)| at < MAX_NAME) {
        clean.push(if character.is_control() {
            '\u{fffd}'
        } else {
            character
        });
    }
    if clean.len() < name.len() && name.len() > MAX_NAME {
        clean.push('…');
    }
    clean
}

/// The functions at these offsets from the start of the object's file.
pub(super) fn of_object(object: &Object, offsets: &[u64]) -> Vec<Vec<Named>> {
    let layout = Layout::read(&object.source);
    let file_name = object.path.file_name().unwrap_or(object.path.as_os_str());
    let file_name = file_name.to_string_lossy();
    let found = match layout.is_sound() {
        true => symbolize_object(&object.source, offsets).unwrap_or_default(),
        false => Vec::new(),
    };
    let found = found.into_iter().chain(repeat_with(|| None));
    offsets
        .iter()
        .zip(found)
        .map(|(&offset, found)| {
            // Debug information of functions that the linker dropped claims the addresses at zero,
            // and a symbol without a size claims everything up to the next one: neither can mean
            // what is no code, nor another section (`_init` is no linkage table).
            let plausible = |found: &Found, address| {
                let start = if found.sized { address } else { found.start };
                layout.share_section(start, address)
            };
            match (found, layout.address(offset)) {
                (Some(found), Some(address)) if plausible(&found, address) => found.named,
                (Some(found), None) => found.named,
                (_, Some(address)) if layout.is_linkage(address) => vec![Named::new("[plt]")],
                (_, Some(address)) => {
                    let start = layout.start(address).unwrap_or(address);
                    vec![Named::new(&format!("{file_name}+{start:#x}"))]
                }
                (None, None) => vec![Named::new(&format!("{file_name}+{offset:#x}"))],
            }
        })
        .collect()
}

fn symbolize_object(source: &ObjectSource, offsets: &[u64]) -> io::Result<Vec<Option<Found>>> {
    let vdso;
    let file = match source {
        ObjectSource::File(file) => file.as_fd(),
        ObjectSource::Vdso(image) => {
            vdso = memory_file(image)?;
            vdso.as_fd()
        }
    };
    // By descriptor, so that a file that was deleted or replaced is still the one that ran.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let elf = |debug_syms| {
        let mut elf = Elf::new(&path);
        elf.debug_syms = debug_syms;
        Source::Elf(elf)
    };
    // A symboliser for this file alone: what it has read is freed after it.
    let symbolizer = symbolizer();
    let input = Input::FileOffset(offsets);
    let mut debug = symbolize(&symbolizer, &elf(true), input);
    let table = symbolize(&symbolizer, &elf(false), input);
    debug.resize_with(offsets.len(), || None);
    Ok(debug
        .into_iter()
        .zip(table.into_iter().chain(repeat_with(|| None)))
        .map(best)
        .collect())
}

/// The better one of what debug information and the symbol tables say.
fn best((debug, table): (Option<Found>, Option<Found>)) -> Option<Found> {
    // Bad debug information must not cost the names that the symbol tables know.
    let Some(mut debug) = debug else { return table };
    let Some(table) = table else {
        return Some(debug);
    };
    // Debug information that has only lines calls `a::b::c` just `c`.
    if let (Some(short), Some(long)) = (debug.named.first_mut(), table.named.first())
        && debug.start == table.start
        && !short.name.contains("::")
        && long.name.contains("::")
    {
        short.name.clone_from(&long.name);
    }
    Some(debug)
}

fn memory_file(image: &[u8]) -> io::Result<File> {
    let file = rustix::fs::memfd_create("vdso", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(file);
    file.write_all(image)?;
    Ok(file)
}

/// The kernel functions at these addresses; `[kernel]` where the kernel hides them
/// (`kernel.kptr_restrict`).
pub(super) fn of_kernel(addresses: &[u64]) -> Vec<Vec<Named>> {
    // kallsyms alone: it knows modules and the randomised base, and a vmlinux takes seconds to read.
    let kernel = Kernel {
        vmlinux: MaybeDefault::None,
        debug_syms: false,
        ..Kernel::default()
    };
    let found = symbolize(
        &symbolizer(),
        &Source::Kernel(kernel),
        Input::AbsAddr(addresses),
    );
    let unknown = || vec![Named::new("[kernel]")];
    let found = found
        .into_iter()
        .map(|found| found.map_or_else(unknown, |found| found.named));
    found
        .chain(repeat_with(unknown))
        .take(addresses.len())
        .collect()
}

/// The functions at these addresses of a process that generates code.
pub(super) fn of_generated(map: &PerfMap, addresses: &[u64]) -> Vec<Vec<Named>> {
    // An address that nobody names would only spread one unknown over many entries.
    let name = |&address| map.find(address).unwrap_or("[anonymous code]");
    addresses
        .iter()
        .map(|address| vec![Named::new(name(address))])
        .collect()
}

/// What blazesym found at an address.
struct Found {
    /// The function there, then what was inlined into it.
    named: Vec<Named>,
    /// Where the symbol starts (ELF virtual address space).
    start: u64,
    /// Whether the symbol says where it ends.
    sized: bool,
}

impl Found {
    fn new(sym: &Sym) -> Option<Found> {
        if sym.name.is_empty() {
            return None;
        }
        let outer = Named::with(&sym.name, sym.code_info.as_deref());
        let inlined = sym.inlined.iter().map(|inlined| {
            let name = if inlined.name.is_empty() {
                "[inlined]"
            } else {
                &inlined.name
            };
            Named::with(name, inlined.code_info.as_ref())
        });
        let named = std::iter::once(outer).chain(inlined).collect();
        Some(Found {
            named,
            start: sym.addr,
            sized: sym.size.is_some(),
        })
    }
}

fn symbolizer() -> Symbolizer {
    Symbolizer::builder().enable_auto_reload(false).build()
}

fn symbolize(symbolizer: &Symbolizer, source: &Source, input: Input<&[u64]>) -> Vec<Option<Found>> {
    let look_up = || {
        let found = symbolizer.symbolize(source, input).unwrap_or_default();
        let found = found
            .iter()
            .map(|found| found.as_sym().and_then(Found::new));
        found.collect()
    };
    // The file is hostile until proven otherwise, and its reader is not ours.
    catch_unwind(AssertUnwindSafe(look_up)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, start: u64) -> Option<Found> {
        let named = vec![Named::new(name), Named::new("inlined")];
        Some(Found {
            named,
            start,
            sized: true,
        })
    }

    fn best_name(debug: Option<Found>, table: Option<Found>) -> Option<String> {
        best((debug, table)).map(|found| found.named[0].name.clone())
    }

    #[test]
    fn the_better_name_is_taken() {
        let take = |debug, table| best_name(debug, table).unwrap();
        assert_eq!(take(found("c", 8), found("a::b::c", 8)), "a::b::c");
        assert_eq!(
            take(found("c", 8), found("a::d", 4)),
            "c",
            "another function"
        );
        assert_eq!(take(found("c", 8), found("c.isra.0", 8)), "c");
        assert_eq!(take(found("a::c", 8), found("b::c", 8)), "a::c");
        assert_eq!(take(None, found("c", 8)), "c");
        assert_eq!(take(found("c", 8), None), "c");
        assert_eq!(best_name(None, None), None);
    }
}
