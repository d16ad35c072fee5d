//! The programs that are recorded, built once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the sources are.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dev/targets")
}

/// A directory of its own, removed at the end.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Directory {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("recording-{}-{next}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path.canonicalize().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Compiles without frame pointers.
pub(crate) fn compile(source: &Path, output: &Path, more: &[&str]) {
    let gcc = Command::new("gcc")
        .args(["-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls"])
        .args(["-pthread", "-Wl,-z,lazy", "-o"])
        .arg(output)
        .args(more)
        .arg(source)
        .status();
    assert!(gcc.expect("gcc is needed").success());
}

/// `torture.c`, with its shared object beside it. Left behind for the next run to replace.
pub(crate) fn torture() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("torture");
        std::fs::create_dir_all(&directory).unwrap();
        let directory = directory.canonicalize().unwrap();
        let program = directory.join("torture");
        compile(&sources().join("torture.c"), &program, &[]);
        let plugin = directory.join("plugin.so");
        compile(&sources().join("plugin.c"), &plugin, &["-shared", "-fPIC"]);
        program
    })
}
