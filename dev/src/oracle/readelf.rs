//! `oracle readelf`.

use std::process::ExitCode;

/// Compares.
pub(crate) fn run(_files: &[&str]) -> ExitCode {
    ExitCode::FAILURE
}
