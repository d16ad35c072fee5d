use super::names::MAX_NAME;
use super::*;
use crate::processes::ObjectSource;
use crate::sample::{Frame, Sample};
use framewalk_walk::{Origin, Stop};
use std::fs::File;
use std::path::{Path, PathBuf};

/// The names of one frame each, for places in this test's own process.
fn names(places: &[Place], objects: &Objects) -> Vec<Vec<(String, Option<String>, u32)>> {
    let mut profile = Profile::default();
    for &place in places {
        let frame = Frame {
            place,
            origin: Origin::Registers,
            is_return_address: false,
        };
        let comm = "test".to_string();
        let sample = Sample {
            pid: 1,
            tid: 1,
            time_ns: 0,
            comm,
            frames: vec![frame],
            stop: Stop::Outermost,
        };
        profile.add(sample);
    }
    let symbols = Symbols::look_up(&profile, objects, &PerfMaps::default(), &mut |_| {});
    let of = |frame| {
        let entries = symbols.of(frame);
        entries
            .map(|(function, line)| (function.name.clone(), function.source.clone(), line))
            .collect()
    };
    profile.frames().map(|(frame, _)| of(frame)).collect()
}

/// The file offset of an address in this process, and the file.
fn own(address: usize) -> (PathBuf, u64) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let found = maps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        let offset = u64::from_str_radix(words.nth(1)?, 16).ok()?;
        let path = words.nth(2)?;
        (start..end)
            .contains(&address)
            .then(|| (PathBuf::from(path), offset + (address - start) as u64))
    });
    found.unwrap()
}

fn add(objects: &mut Objects, path: &Path) -> ObjectId {
    objects.add_file(File::open(path).unwrap(), path).unwrap()
}

#[inline(never)]
fn a_function_of_this_file() -> u32 {
    std::hint::black_box(line!())
}

#[test]
fn a_function_with_debug_information_has_name_source_and_line() {
    let (path, offset) = own(a_function_of_this_file as *const () as usize);
    let mut objects = Objects::default();
    let object = add(&mut objects, &path);
    let found = names(&[Place::Object(object, offset)], &objects);
    let (name, source, line) = &found[0][0];
    assert!(name.ends_with("a_function_of_this_file"), "{name}");
    assert!(
        source
            .as_deref()
            .is_some_and(|source| source.ends_with("symbols/tests.rs")),
        "{source:?}"
    );
    assert!(a_function_of_this_file().abs_diff(*line) <= 1, "{line}");
}

#[inline(always)]
fn always_inlined() -> u32 {
    std::hint::black_box(line!())
}

#[inline(never)]
fn a_function_with_another_inside() -> u32 {
    always_inlined() + std::hint::black_box(1)
}

#[test]
fn inlined_functions_follow_the_function_around_them() {
    let (path, offset) = own(a_function_with_another_inside as *const () as usize);
    let mut objects = Objects::default();
    let object = add(&mut objects, &path);
    let places: Vec<_> = (offset..offset + 32)
        .map(|offset| Place::Object(object, offset))
        .collect();
    let found = names(&places, &objects);
    let both = found.iter().find(|entries| {
        entries
            .get(1)
            .is_some_and(|(name, ..)| name.ends_with("always_inlined"))
    });
    let both = both.unwrap_or_else(|| panic!("{found:#?}"));
    assert!(
        both[0].0.ends_with("a_function_with_another_inside"),
        "{both:?}"
    );
    let called_from = a_function_with_another_inside() - 1;
    assert_eq!(
        both[1].2, called_from,
        "the line inside the inlined function"
    );
    assert!(both[0].2 > called_from, "the line of the call");
}

#[test]
fn a_function_of_the_vdso() {
    use object::{Object as _, ObjectSymbol as _};
    let mut objects = Objects::default();
    let Ok(vdso) = objects.add_vdso() else {
        println!("skipped: this process has no vdso");
        return;
    };
    let ObjectSource::Vdso(image) = &objects.get(vdso).source else {
        panic!("no image")
    };
    let elf = object::File::parse(&**image).unwrap();
    let symbol = elf
        .dynamic_symbols()
        .find(|symbol| symbol.name() == Ok("__vdso_clock_gettime"))
        .unwrap();
    // The image is mapped as one piece from its first byte: offsets are addresses.
    let found = names(&[Place::Object(vdso, symbol.address())], &objects);
    assert!(found[0][0].0.ends_with("clock_gettime"), "{found:?}");
}

#[test]
fn a_function_of_the_kernel() {
    let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let line = symbols
        .lines()
        .find(|line| line.ends_with(" T vfs_read"))
        .unwrap_or_default();
    let address = u64::from_str_radix(line.split(' ').next().unwrap_or(""), 16).unwrap_or(0);
    if address == 0 {
        println!("skipped: the kernel hides its addresses (kernel.kptr_restrict)");
        return;
    }
    let found = names(&[Place::Kernel(address + 4)], &Objects::default());
    assert_eq!(found[0], [("vfs_read".to_string(), None, 0)]);
}

#[test]
fn a_library_function_has_its_dynamic_name() {
    let (path, offset) = getenv();
    let mut objects = Objects::default();
    let object = add(&mut objects, &path);
    let found = names(
        &[Place::Object(object, offset), Place::Object(object, 2)],
        &objects,
    );
    assert!(found[0][0].0.contains("getenv"), "{found:?}");
    let file = path.file_name().unwrap().to_str().unwrap();
    assert_eq!(found[1], [(format!("{file}+0x2"), None, 0)]);
}

/// The C library of this process and the file offset of its `getenv`.
fn getenv() -> (PathBuf, u64) {
    use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps.lines().find_map(|line| {
        line.split_whitespace()
            .nth(5)
            .filter(|path| path.contains("libc.so"))
    });
    let path = PathBuf::from(path.expect("this test needs a shared C library"));
    let bytes = std::fs::read(&path).unwrap();
    let elf = object::File::parse(&*bytes).unwrap();
    let address = elf
        .dynamic_symbols()
        .find(|symbol| symbol.name() == Ok("getenv"))
        .unwrap()
        .address();
    let segment = elf
        .segments()
        .find(|segment| (segment.address()..segment.address() + segment.size()).contains(&address));
    let segment = segment.unwrap();
    (path, address - segment.address() + segment.file_range().0)
}

#[test]
fn what_cannot_be_read_leaves_frames_without_names() {
    let directory = std::env::temp_dir().join(format!("framewalk-symbols-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let whole = std::fs::read(getenv().0).unwrap();
    for (name, bytes) in [
        ("empty", &[][..]),
        ("text", b"#!/bin/sh\n"),
        ("cut", &whole[..whole.len() / 3]),
        ("head", &whole[..64]),
    ] {
        let path = directory.join(name);
        std::fs::write(&path, bytes).unwrap();
        let mut objects = Objects::default();
        let object = add(&mut objects, &path);
        // Deleting it changes nothing.
        std::fs::remove_file(&path).unwrap();
        let found = names(
            &[
                Place::Object(object, 0x1234),
                Place::Object(object, u64::MAX),
            ],
            &objects,
        );
        assert_eq!(found[0][0].0, format!("{name}+0x1234"));
        assert_eq!(found[1].len(), 1);
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Allocating what a file claims would end the recorder, with all that it recorded.
#[test]
fn a_decompression_bomb_is_left_alone() {
    let mut bytes = std::fs::read("/proc/self/exe").unwrap();
    let at = |offset: usize, length| offset..offset + length;
    let number = |bytes: &[u8], range: std::ops::Range<usize>| {
        bytes[range]
            .iter()
            .rev()
            .fold(0, |n, &b| n << 8 | usize::from(b))
    };
    let (table, count) = (number(&bytes, at(0x28, 8)), number(&bytes, at(0x3c, 2)));
    let bomb = (0..count).map(|n| table + 64 * n).find(|&header| {
        // The first section that is no part of the program (no SHF_ALLOC) and has bytes.
        number(&bytes, at(header + 8, 8)) & 2 == 0 && number(&bytes, at(header + 0x20, 8)) > 24
    });
    let header = bomb.unwrap();
    // SHF_COMPRESSED, and a compression header that promises 2^50 bytes (ELFCOMPRESS_ZLIB).
    bytes[header + 8..][..8].copy_from_slice(&0x800u64.to_le_bytes());
    let section = number(&bytes, at(header + 0x18, 8));
    bytes[section..][..24]
        .copy_from_slice(&[[1, 1 << 50, 1].map(u64::to_le_bytes)].concat().concat());
    let path = std::env::temp_dir().join(format!("framewalk-bomb-{}", std::process::id()));
    std::fs::write(&path, &bytes).unwrap();
    let mut objects = Objects::default();
    let object = add(&mut objects, &path);
    std::fs::remove_file(&path).unwrap();
    let (_, offset) = own(a_function_of_this_file as *const () as usize);
    let found = names(&[Place::Object(object, offset)], &objects);
    assert!(found[0][0].0.starts_with("framewalk-bomb-"), "{found:?}");
}

#[test]
fn places_without_a_file() {
    let found = names(
        &[Place::Anonymous(64), Place::Kernel(1)],
        &Objects::default(),
    );
    assert_eq!(found[0], [("[anonymous code]".to_string(), None, 0)]);
    assert_eq!(found[1], [("[kernel]".to_string(), None, 0)]);
}

#[test]
fn names_are_clean_and_bounded() {
    assert_eq!(clean("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    let long = clean(&"é".repeat(MAX_NAME));
    assert!(
        long.len() <= MAX_NAME + 4 && long.ends_with('…'),
        "{}",
        long.len()
    );
}
