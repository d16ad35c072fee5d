//! Compiles the BPF programs and generates their skeleton into OUT_DIR.

use framewalk_announce::area::layout;
use framewalk_announce::{Refusal, abi};
use framewalk_walk::{MIN_HOLE, Origin, Stop};
use libbpf_cargo::SkeletonBuilder;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Arenas and may_goto need the compiler that learned them.
const CLANG_FLOOR: u32 = 19;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let bpf = Path::new("bpf");
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=CLANG");

    fs::write(out.join("reasons.h"), reasons()).expect("OUT_DIR is writable");

    let clang = find_clang();
    for object in ["sampler", "announce", "look"] {
        let source = bpf.join(format!("{object}.bpf.c"));
        SkeletonBuilder::new()
            .source(&source)
            .clang(&clang)
            .clang_args([
                "-mcpu=v4".into(),
                "-Wall".into(),
                "-Werror".into(),
                "-I".into(),
                out.clone().into_os_string(),
                "-I".into(),
                bpf.as_os_str().to_owned(),
            ])
            .build_and_generate(out.join(format!("{object}.skel.rs")))
            .unwrap_or_else(|error| {
                panic!("{clang} could not build {}: {error:#}", source.display())
            });
    }
}

/// The numbers that the tables of other crates have: one source for both languages.
fn reasons() -> String {
    let constant = |kind: &str, name: String, number: u8| {
        let mut upper = String::new();
        for (i, c) in name.chars().enumerate() {
            if c.is_ascii_uppercase() && i > 0 {
                upper.push('_');
            }
            upper.push(c.to_ascii_uppercase());
        }
        format!("#define FW_{kind}_{upper} {number}\n")
    };
    let stops = Stop::ALL
        .iter()
        .map(|s| constant("STOP", format!("{s:?}"), *s as u8));
    let origins = Origin::ALL
        .iter()
        .map(|o| constant("ORIGIN", format!("{o:?}"), *o as u8));
    let refusals = Refusal::ALL
        .iter()
        .map(|refusal| format!("#define FW_{} {}\n", refusal.name(), refusal.errno()));
    let numbers = [
        ("REGISTER", u64::from(abi::REGISTER)),
        ("UNREGISTER", u64::from(abi::UNREGISTER)),
        ("KIND_SECTION", abi::KIND_SECTION),
        ("KIND_AREA", abi::KIND_AREA),
        ("REPLACE", abi::REPLACE),
        ("MAX_SECTIONS", u64::from(abi::MAX_SECTIONS)),
        ("MAX_AREAS", u64::from(abi::MAX_AREAS)),
        ("AREA_MAGIC", u64::from_le_bytes(layout::MAGIC)),
        ("USER_END", abi::USER_END),
        ("MIN_HOLE", MIN_HOLE),
    ]
    .map(|(name, number)| format!("#define FW_{name} {number}ull\n"));
    let area = layout::CONSTANTS
        .iter()
        .map(|(name, number, _)| format!("#define FW_AREA_{name} {number}ull\n"));
    stops
        .chain(origins)
        .chain(refusals)
        .chain(numbers)
        .chain(area)
        .collect()
}

/// `$CLANG`, or the first of clang, clang-19, clang-20... that is new enough.
fn find_clang() -> String {
    let candidates: Vec<String> = match env::var("CLANG") {
        Ok(clang) => vec![clang],
        Err(_) => std::iter::once("clang".to_owned())
            .chain((CLANG_FLOOR..CLANG_FLOOR + 10).map(|version| format!("clang-{version}")))
            .collect(),
    };
    candidates
        .iter()
        .find(|clang| version(clang).is_some_and(|version| version >= CLANG_FLOOR))
        .cloned()
        .unwrap_or_else(|| {
            panic!(
                "no clang {CLANG_FLOOR} or later found (tried {}): install it (Debian, Ubuntu: apt-get install \
                 clang-{CLANG_FLOOR}) or name one in the environment variable CLANG",
                candidates.join(", ")
            )
        })
}

/// The major version that `clang` says it is.
fn version(clang: &str) -> Option<u32> {
    let output = Command::new(clang).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text.split("version ").nth(1)?;
    number.split('.').next()?.parse().ok()
}
