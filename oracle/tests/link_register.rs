//! Every instruction of the programs of `fixtures` for AArch64 and s390x, each by all unwind data that it has.
//! `./run oracle machines` steps more of them.

use framewalk_oracle::emulated::{Data, Image, UNMARKED, run};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Boundaries of one program, at most; they have some thousands.
const LIMIT: u64 = 100_000;

fn fixtures(machine: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    let of = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    paths.retain(|path| of(path).starts_with(machine));
    paths.sort();
    paths
}

/// Steps all programs of a machine; `versions` are those of the `.sframe` sections that there have to be.
fn step_all(test: &str, machine: &str, versions: &[u8]) {
    let (mut found, mut empty) = (BTreeSet::new(), 0);
    let programs = fixtures(machine);
    assert!(!programs.is_empty());
    for path in programs {
        for data in [Data::Converted, Data::File] {
            let Some(image) = Image::read(&path, data).unwrap() else {
                assert_eq!(data, Data::File, "{}", path.display());
                continue;
            };
            let emulator = image.link().emulator;
            if Command::new(emulator).arg("--version").output().is_err() {
                println!("SKIPPED {test}: no {emulator} (package qemu-user)");
                return;
            }
            if data == Data::File {
                found.insert(image.section().unwrap().header().version.0);
            }
            let verdicts = run(&image, &path, 0, LIMIT).unwrap();
            println!("{} {data:?}: {verdicts:?}", path.display());
            assert!(
                verdicts.boundaries < LIMIT,
                "{} does not end",
                path.display()
            );
            // gimli refuses the augmentation `B`, so that code signed with the key B is not converted.
            if path.to_string_lossy().contains("-pac-b-") && data == Data::Converted {
                assert!(verdicts.early["no-unwind-data"] > 0, "{verdicts:?}");
                assert_eq!(verdicts.wrong, 0, "{verdicts:?}");
                continue;
            }
            let unmarked = verdicts.early.get(UNMARKED).copied().unwrap_or(0);
            // There `_start` is not described (fixtures/shapes.c says why).
            let undescribed = path.to_string_lossy().ends_with("-v2");
            assert_eq!(unmarked > 0, undescribed, "{verdicts:?}");
            assert_eq!(
                verdicts.right + unmarked,
                verdicts.boundaries,
                "{verdicts:?}"
            );
            empty += verdicts.empty;
        }
    }
    assert_eq!(found, versions.iter().copied().collect());
    assert!(empty > 0, "no function began before its frame was made");
}

#[test]
fn aarch64_at_every_instruction() {
    step_all("aarch64_at_every_instruction", "aarch64-", &[2, 3]);
}

#[test]
fn big_endian_aarch64_at_every_instruction() {
    step_all(
        "big_endian_aarch64_at_every_instruction",
        "aarch64be-",
        &[2, 3],
    );
}

#[test]
fn s390x_at_every_instruction() {
    step_all("s390x_at_every_instruction", "s390x-", &[3]);
}
