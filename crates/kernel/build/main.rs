//! Compiles the BPF programs and generates their skeleton into OUT_DIR. With the feature `host`, the walk as ordinary C,
//! too.

mod clang;
mod reasons;

use libbpf_cargo::SkeletonBuilder;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let bpf = Path::new("bpf");
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-changed=host");
    println!("cargo::rerun-if-env-changed=CLANG");

    fs::write(out.join("reasons.h"), reasons::reasons()).expect("OUT_DIR is writable");

    let clang = clang::find();
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
    #[cfg(feature = "host")]
    host(&clang, &out);
}

/// What is undefined in C, and yet happens, traps: BPF defines most of it, but not as C's readers expect.
#[cfg(feature = "host")]
fn host(clang: &str, out: &Path) {
    cc::Build::new()
        .compiler(clang)
        .file("host/host.c")
        .include(out)
        .include("bpf")
        .flags([
            "-std=gnu17",
            "-O2",
            "-ffreestanding",
            "-fno-strict-aliasing",
            "-fsanitize=undefined",
            // Words of stacks and sections lie anywhere.
            "-fno-sanitize=alignment,function",
            "-fsanitize-trap=undefined",
            "-Wall",
            "-Werror",
        ])
        .compile("framewalk_host");
}
