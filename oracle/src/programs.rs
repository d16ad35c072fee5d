//! What is stepped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program: its name, its command, and its part of the boundaries.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// The name in the table.
    pub name: &'static str,
    /// `@SOURCE` is what is built of `oracle/programs/SOURCE`.
    pub command: &'static [&'static str],
    /// Its share, in parts of all programs' shares together.
    pub share: u64,
}

const fn program(name: &'static str, share: u64, command: &'static [&'static str]) -> Program {
    Program {
        name,
        command,
        share,
    }
}

/// Hashes by libcrypto's assembly.
const DIGESTS: &str = "import hashlib\nfor name in ('md5', 'sha1', 'sha256', 'sha512', 'sha3_256'):\n    hashlib.new(name, b'x' * 5000).hexdigest()";

/// All of them.
pub const PROGRAMS: &[Program] = &[
    program("jumps", 2, &["@stacks.c", "jumps"]),
    program("signals", 2, &["@stacks.c", "signals"]),
    program("alternate", 2, &["@stacks.c", "alternate"]),
    program("contexts", 2, &["@stacks.c", "contexts"]),
    program("children", 3, &["@stacks.c", "children"]),
    program("threads", 2, &["@stacks.c", "threads"]),
    program("strings", 3, &["@stacks.c", "strings"]),
    program("throws", 6, &["@throws.cc"]),
    program("ls", 4, &["/bin/ls", "-l", "/"]),
    program("sort", 4, &["/usr/bin/sort", "/etc/passwd"]),
    program("sha256sum", 4, &["/usr/bin/sha256sum", "/etc/passwd"]),
    program(
        "python",
        10,
        &[
            "/usr/bin/python3",
            "-c",
            "print(sorted(str(i) for i in range(999))[5])",
        ],
    ),
    program("digests", 10, &["/usr/bin/python3", "-c", DIGESTS]),
];

impl Program {
    /// Its command, ready to start; built into a directory where it has to be. Why not, otherwise.
    pub fn prepare(&self, directory: &Path) -> Result<Command, String> {
        let [first, rest @ ..] = self.command else {
            return Err("no command".into());
        };
        let path = match first.strip_prefix('@') {
            Some(source) => build(source, directory)?,
            None => PathBuf::from(first),
        };
        if !path.exists() {
            return Err(format!("there is no {}", path.display()));
        }
        let mut command = Command::new(path);
        command.args(rest).env_clear().env("LC_ALL", "C");
        command.env("PYTHONHASHSEED", "0");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(command)
    }
}

/// Builds a program of `oracle/programs`. Bound lazily, without frame pointers.
pub fn build(source: &str, directory: &Path) -> Result<PathBuf, String> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("programs")
        .join(source);
    std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    // Tests that run at the same time build the same one.
    let thread = std::thread::current().id();
    let name = format!("{source}-{}-{thread:?}", std::process::id());
    let program = directory.join(source.replace('.', "-"));
    let unfinished = directory.join(name);
    let mut compiler = match from.extension().and_then(|e| e.to_str()) {
        Some("cc") => Command::new("g++"),
        _ => Command::new("gcc"),
    };
    if source.ends_with(".S") {
        compiler.args(["-nostdlib", "-static"]);
    }
    let flags = [
        "-O2",
        "-fomit-frame-pointer",
        "-pthread",
        "-Wl,-z,lazy",
        "-o",
    ];
    let status = compiler.args(flags).arg(&unfinished).arg(&from).status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("{source} was not compiled: {status}")),
        Err(error) => return Err(format!("{}: {error}", compiler.get_program().display())),
    }
    std::fs::rename(&unfinished, &program).map_err(|error| error.to_string())?;
    Ok(program)
}
