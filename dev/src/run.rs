//! Starts other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

/// The top of the checkout.
pub(crate) fn top() -> PathBuf {
    let dev = Path::new(env!("CARGO_MANIFEST_DIR"));
    dev.parent().unwrap_or(dev).to_path_buf()
}

/// A cargo command, at the top of the checkout.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(top());
    command
}

/// Builds the program with optimisation, and says where it is.
pub(crate) fn framewalk() -> Result<PathBuf, String> {
    let build = ["build", "--release", "--package", "framewalk"];
    let status = status(cargo(&build))?;
    if !status.success() {
        return Err(format!("cargo {}: {status}", build.join(" ")));
    }
    Ok(target().join("release/framewalk"))
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    // cargo takes a relative one from where it runs: the top.
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    top().join(target)
}

/// Runs a command to its end.
pub(crate) fn status(mut command: Command) -> Result<ExitStatus, String> {
    let status = command.status();
    status.map_err(|error| format!("{}: {error}", command.get_program().display()))
}

/// Runs a command in place of this program.
pub(crate) fn exit(command: Command) -> ExitCode {
    match status(command) {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => ExitCode::from(
            status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(1),
        ),
        Err(error) => fail(&error),
    }
}

/// Says why, and fails.
pub(crate) fn fail(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}
