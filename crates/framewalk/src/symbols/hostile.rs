//! What has to hold for whatever bytes symbols are looked for in. Tests and fuzz targets ask the same.

use super::layout::Layout;
use super::perf_map::PerfMap;
use crate::processes::ObjectSource;

/// An object's bytes: a function starts at or below the address, in the same section.
pub(crate) fn layout(bytes: &[u8], places: &[u64]) {
    let layout = Layout::read(&ObjectSource::Vdso(bytes.into()));
    for &offset in places {
        let address = layout.address(offset).unwrap_or(offset);
        if let Some(start) = layout.start(address) {
            assert!(start <= address && layout.share_section(start, address));
        }
        let _ = (layout.is_linkage(address), layout.is_sound());
    }
}

/// The text of a perf map: the name at an address is that of the line that starts last at or below it, of the last such
/// line, if it reaches so far.
pub(crate) fn perf_map(text: &[u8]) {
    let map = PerfMap::parse(text);
    let text = String::from_utf8_lossy(text);
    let hex = |word: &str| u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok();
    let function = |line: &'_ str| {
        let (start, rest) = line.split_once(' ')?;
        let (size, name) = rest.split_once(' ')?;
        let name = name.trim().to_string();
        Some((hex(start)?, hex(size)?, name)).filter(|(.., name)| !name.is_empty())
    };
    let functions: Vec<_> = text.lines().filter_map(function).collect();
    let edges = functions.iter().take(64).flat_map(|&(start, size, _)| {
        let end = start.wrapping_add(size);
        [start.wrapping_sub(1), start, end.wrapping_sub(1), end]
    });
    for address in edges.chain([0, u64::MAX]) {
        let below = functions.iter().filter(|(start, ..)| *start <= address);
        let last = below.max_by_key(|(start, ..)| *start);
        let holds = last.filter(|(start, size, _)| address - start < *size);
        assert_eq!(
            map.find(address),
            holds.map(|(.., name)| name.as_str()),
            "at {address:#x}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_cut_anywhere() {
        let text = b"10 8 one\n0x18 0x10 two three\n8 ffffffffffffffff \xff\n10 4 younger\n";
        for end in 0..=text.len() {
            perf_map(&text[..end]);
        }
    }

    #[test]
    fn this_program_cut_anywhere() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        for end in (0..4096).step_by(61).chain([whole.len()]) {
            layout(&whole[..end], &[0, 0x1000, end as u64, u64::MAX]);
        }
    }
}
