//! Libraries that are loaded into other people's programs: builds them as people do, and looks at what came out.
#![allow(dead_code)]

use object::read::NameOrOrdinal;
use object::{Object, ObjectSymbol};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs cargo with the profile for such libraries, into a target directory of its own; says where they are then.
pub(crate) fn build(arguments: &[&str]) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("without-std");
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--quiet", "--profile", "audit", "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.unwrap().success(), "cargo {}", arguments.join(" "));
    target.join("audit")
}

/// How many libraries an ELF file needs.
pub(crate) fn needs(path: &Path) -> usize {
    let data = std::fs::read(path).unwrap();
    let file = object::File::parse(&*data).unwrap();
    file.import_libraries().unwrap().map(Result::unwrap).count()
}

/// A library that needs no other, has no code that panics, and exports just these functions.
pub(crate) fn assert_alone(path: &Path, exports: &[&str]) {
    let data = std::fs::read(path).unwrap();
    let file = object::File::parse(&*data).unwrap();
    assert_eq!(needs(path), 0, "libraries that {} needs", path.display());
    // Compilers call memcpy and the like by themselves. What is weak may be absent.
    let wanted = |symbol: &object::Symbol<'_, '_>| symbol.is_undefined() && !symbol.is_weak();
    let wanted = file.dynamic_symbols().filter(wanted);
    let wanted: Vec<_> = wanted.filter_map(|symbol| symbol.name().ok()).collect();
    assert!(wanted.iter().all(|name| name.is_empty()), "{wanted:?}");
    let mut exported = Vec::new();
    for export in file.exports().unwrap() {
        if let NameOrOrdinal::Name(name) = export.unwrap().name() {
            exported.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    exported.sort();
    assert_eq!(exported, exports);
    // Symbols are there to be found, if there are any of these.
    let symbols: Vec<_> = file
        .symbols()
        .filter_map(|symbol| symbol.name().ok())
        .collect();
    assert!(
        exports.iter().all(|name| symbols.contains(name)),
        "no symbols"
    );
    let panics: Vec<_> = symbols
        .iter()
        .filter(|name| name.contains("panic"))
        .collect();
    assert!(panics.is_empty(), "{panics:?}");
}
