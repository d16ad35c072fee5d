//! Which clang compiles.

use std::env;
use std::process::Command;

/// Arenas and may_goto need the compiler that learned them.
const CLANG_FLOOR: u32 = 19;

/// `$CLANG`, or the first of clang, clang-19, clang-20... that is new enough.
pub(crate) fn find() -> String {
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
