//! Building what is stepped.

use std::path::{Path, PathBuf};
use std::process::Command;

/// As recording tests build theirs: bound lazily, without frame pointers.
const C: &[&str] = &[
    "-O2",
    "-fomit-frame-pointer",
    "-fno-optimize-sibling-calls",
    "-pthread",
    "-Wl,-z,lazy",
];
/// Work and waits of the torture program, divided: an instruction takes a hundred thousand times as long.
const SHORTER: &str = "-DSHORTER=1000";

/// Builds a program of `oracle/programs` or, if the source begins with `dev/`, of the workspace.
pub fn build(source: &str, directory: &Path) -> Result<PathBuf, String> {
    std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let from = match source.strip_prefix("dev/") {
        Some(_) => super::workspace().join(source),
        None => own.join(source),
    };
    if source.ends_with("torture.c") {
        let plugin = from.with_file_name("plugin.c");
        let flags = [C, &[SHORTER, "-shared", "-fPIC"]].concat();
        compile("gcc", &flags, &plugin, &directory.join("plugin.so"))?;
        let flags = [C, &[SHORTER]].concat();
        let program = directory.join("torture");
        return compile("gcc", &flags, &from, &program).map(|()| program);
    }
    let program = directory.join(source.replace('.', "-"));
    let extension = from.extension().and_then(|e| e.to_str());
    match extension {
        Some("cc") => compile("g++", C, &from, &program),
        Some("rs") => compile("rustc", &["--edition=2024", "-O"], &from, &program),
        Some("S") => compile("gcc", &["-nostdlib", "-static"], &from, &program),
        _ => compile("gcc", C, &from, &program),
    }?;
    Ok(program)
}

pub(crate) fn compile(
    compiler: &str,
    flags: &[&str],
    from: &Path,
    to: &Path,
) -> Result<(), String> {
    // Tests that run at the same time build the same one.
    let thread = std::thread::current().id();
    let name = to.file_name().unwrap_or(to.as_os_str()).to_string_lossy();
    let unfinished = to.with_file_name(format!("{name}-{}-{thread:?}", std::process::id()));
    let mut command = Command::new(compiler);
    command.args(flags).arg("-o").arg(&unfinished).arg(from);
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("{} was not compiled: {status}", from.display())),
        Err(error) => return Err(format!("{compiler}: {error}")),
    }
    std::fs::rename(&unfinished, to).map_err(|error| error.to_string())
}
