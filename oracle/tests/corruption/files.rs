//! Programs whose files somebody corrupted, before they were mapped or after.

use crate::victim::{Victim, program};
use crate::{TURN, Walked, Walks, set};
use fastrand::Rng;
use object::{Object, ObjectSection};
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

/// Files, unless FRAMEWALK_CORRUPTIONS asks for more: a hundredth of them.
const FILES: u64 = 60;
const WALKS: u64 = 3;

/// Where unwind data, and what leads to it, stands in a file. The program runs without.
fn targets(bytes: &[u8]) -> Vec<Range<u64>> {
    let file = object::File::parse(bytes).unwrap();
    let mut targets: Vec<Range<u64>> = [
        ".eh_frame",
        ".eh_frame_hdr",
        ".symtab",
        ".strtab",
        ".shstrtab",
    ]
    .iter()
    .filter_map(|name| file.section_by_name(name)?.file_range())
    .map(|(at, len)| at..at + len)
    .collect();
    // e_shoff and e_shentsize to e_shstrndx (gABI, "ELF Header"), and the section headers.
    let headers = u64::from_le_bytes(bytes[40..48].try_into().unwrap());
    targets.extend([40..48, 58..64, headers..bytes.len() as u64]);
    targets
}

fn corrupt(random: &mut Rng, bytes: &mut [u8], targets: &[Range<u64>]) {
    for _ in 0..random.usize(1..12) {
        let target = targets[random.usize(..targets.len())].clone();
        let at = random.u64(target) as usize;
        bytes[at] = match random.u8(..4) {
            0 => 0,
            1 => 0xff,
            2 => bytes[at] ^ 1 << random.u8(..8),
            _ => random.u8(..),
        };
    }
}

/// A copy that may be executed.
fn copy(bytes: &[u8], number: u64) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("corrupted-{}-{number}", std::process::id()));
    fs::write(&path, bytes).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&path, mode).unwrap();
    path
}

#[test]
fn corrupted_files() {
    const TEST: &str = "corrupted_files";
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let program = match program() {
        Ok(program) => program,
        Err(why) => return println!("SKIPPED {TEST}: {why}"),
    };
    let seed = set("FRAMEWALK_SEED").unwrap_or_else(|| fastrand::u64(..));
    let files = set("FRAMEWALK_CORRUPTIONS").map_or(FILES, |all| all / 100);
    println!("FRAMEWALK_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let sound = fs::read(program).unwrap();
    let library = library();
    let targets = targets(&sound);
    let mut corrupted = Vec::new();
    for number in 0..files {
        let mut bytes = sound.clone();
        if number % 2 == 0 {
            corrupt(&mut random, &mut bytes, &targets);
        }
        let path = copy(&bytes, number);
        let library = copy(&library, files + number);
        // Some headers are such that nobody can execute it.
        let victim = Victim::start(&path, Some(&library)).ok();
        if number % 2 == 1 && victim.is_some() {
            // They are mapped, and nobody has read them yet.
            replace(&mut random, &path, &sound, &targets);
            let cut = File::options().write(true).open(&library).unwrap();
            cut.set_len(random.u64(..0x8000)).unwrap();
        }
        corrupted.push((victim, path, library));
    }
    let victims: Vec<_> = corrupted.iter().filter_map(|of| of.0.as_ref()).collect();
    let mut walks = match Walks::open(&victims) {
        Ok(walks) => walks,
        Err(why) => return println!("SKIPPED {TEST}: {why}"),
    };
    let mut walked = 0;
    for (victim, path, library) in &corrupted {
        if let Some(victim) = victim {
            walked += walk(&mut random, &mut walks, victim, library);
        }
        // They may have been removed.
        let _ = fs::remove_file(path);
        let _ = fs::remove_file(library);
    }
    let stops = walks.finish();
    println!("{walked} walks by {files} corrupted files: {stops:?}");
    // Headers can be such that a program does not run.
    assert!(10 * walked >= 7 * WALKS * files, "most of them run");
}

/// Walks from where it stands, and through a caller in the library.
fn walk(random: &mut Rng, walks: &mut Walks, victim: &Victim, library: &Path) -> u64 {
    let mappings = walks.mappings(victim);
    let maps = fs::read_to_string(format!("/proc/{}/maps", victim.tid)).unwrap();
    let name = library.to_str().unwrap();
    let line = maps
        .lines()
        .find(|line| line.contains("r-xp") && line.contains(name));
    let start = line.and_then(|line| u64::from_str_radix(line.split('-').next()?, 16).ok());
    let start = start.expect("it is loaded");
    for number in 0..WALKS {
        if number > 0 {
            victim.put(victim.still.rsp, start + random.u64(1..0x4000));
        }
        // What was absent is there after the walk outside.
        let mut walked = walks.both(victim, victim.still, &mappings);
        if walked == Ok(Walked::Absent) {
            walked = walks.both(victim, victim.still, &mappings);
        }
        let name = library.display();
        assert_eq!(walked, Ok(Walked::Alike), "{name}, walk {number}");
    }
    WALKS
}

/// What may happen to a program that runs. (Nobody can write to it then: ETXTBSY. To a library everybody can who may.)
fn replace(random: &mut Rng, path: &Path, sound: &[u8], targets: &[Range<u64>]) {
    let mut bytes = sound.to_vec();
    corrupt(random, &mut bytes, targets);
    if random.bool() {
        // Its pages stay.
        fs::remove_file(path).unwrap();
    } else {
        // Another file with its name.
        let other = path.with_extension("other");
        fs::write(&other, &bytes).unwrap();
        fs::rename(&other, path).unwrap();
    }
}

/// Some library, as this program has it loaded.
fn library() -> Vec<u8> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps
        .lines()
        .find(|line| line.contains("libgcc_s") || line.contains("libm.so"));
    let path = line
        .and_then(|line| line.split_whitespace().nth(5))
        .expect("one of them");
    fs::read(path).unwrap()
}
