//! Compiles the BPF programs that the walker is measured against.

fn main() {
    #[cfg(feature = "bench")]
    bpf::build();
}

#[cfg(feature = "bench")]
mod bpf {
    use libbpf_cargo::SkeletonBuilder;
    use std::env;
    use std::path::PathBuf;
    use std::process::Command;

    pub(super) fn build() {
        println!("cargo::rerun-if-changed=bpf");
        println!("cargo::rerun-if-env-changed=CLANG");
        let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        // Any clang that knows BPF; the walker's own build says what it needs.
        let numbered = (19..29).map(|version| format!("clang-{version}"));
        let clang = env::var("CLANG")
            .ok()
            .into_iter()
            .chain(["clang".to_owned()])
            .chain(numbered);
        let works = |clang: &String| Command::new(clang).arg("--version").output().is_ok();
        let clang = clang
            .into_iter()
            .find(works)
            .expect("clang is needed: ./run setup");
        SkeletonBuilder::new()
            .source("bpf/reference.bpf.c")
            .clang(clang)
            .clang_args(["-mcpu=v3", "-Wall", "-I", "../crates/kernel/bpf"])
            .build_and_generate(out.join("reference.skel.rs"))
            .expect("bpf/reference.bpf.c compiles");
    }
}
