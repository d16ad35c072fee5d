//! `header`: prints the C header of the announce ABI from the Rust tables.
//!
//! Printed here rather than by cbindgen, which reads source text: the refusals come from a macro that it does not
//! expand, and a header for C programmers wants their words. What could drift apart is held together by the types below
//! and by the C program that the announce crate's tests compile.

use crate::run;
use core::ffi::{c_uint, c_void};
use framewalk_announce::{Refusal, abi, c_api};
use std::fmt::Write;
use std::process::ExitCode;

// The prototypes in HEAD say this.
const _: unsafe extern "C" fn(u64, *const c_void, usize, c_uint) -> i64 = c_api::framewalk_register;
const _: extern "C" fn(u64) -> i64 = c_api::framewalk_unregister;

/// Where it is kept.
const PATH: &str = "crates/announce/include/framewalk.h";

const HEAD: &str = "\
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * framewalk: say which SFrame sections describe this process's code (docs/abi.md).
 *
 * No allocation, no locks, no libc, errno untouched: usable before main, in constructors, in signal handlers
 * and inside a dynamic loader.
 *
 * Printed by `./run header` from the Rust tables. Do not edit.
 */
#ifndef FRAMEWALK_H
#define FRAMEWALK_H

#include <stddef.h>
#include <stdint.h>

";

const PROTOTYPES: &str = "\
#ifdef __cplusplus
extern \"C\" {
#endif

/*
 * Both functions answer
 *   > 0   accepted: an id, or how many sections were removed
 *     0   nobody answered: nobody walks stacks here, or a filter of system calls is in the way. It may have been
 *         heard all the same, by one who can only listen: unregister as if it had been accepted.
 *   < 0   refused, and nothing has changed: the negative of a framewalk_refusal, which is an errno
 * A program is right whatever they answer; only its stacks in profiles are better for it.
 */

/*
 * Registers the SFrame section (version 2 or 3) of `length` bytes at `section`, under a key of the caller's choice.
 * Several sections may be registered under one key. `flags` are 0 or FRAMEWALK_REPLACE.
 *
 * Memory that cannot be read is refused like a section that is none. But during the call nobody may unmap the
 * section or write into its header.
 */
int64_t framewalk_register(uint64_t key, const void *section, size_t length, unsigned flags);

/* Unregisters everything that the key holds. To be called before the code or its section goes away. */
int64_t framewalk_unregister(uint64_t key);

#ifdef __cplusplus
}
#endif

#endif
";

/// The header.
fn print() -> String {
    let mut text = HEAD.to_owned();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    line("/* The system calls themselves, for those who would rather make them:".into());
    line(" * prctl(FRAMEWALK_PR_REGISTER, key, address, length, flags) and".into());
    line(" * prctl(FRAMEWALK_PR_UNREGISTER, key, 0, 0, 0). */".into());
    line(format!(
        "#define FRAMEWALK_PR_REGISTER {:#x}",
        abi::REGISTER
    ));
    line(format!(
        "#define FRAMEWALK_PR_UNREGISTER {:#x}",
        abi::UNREGISTER
    ));
    line(String::new());
    line(
        "/* Flag: the section takes the place of everything that the key holds, at once. */".into(),
    );
    line(format!("#define FRAMEWALK_REPLACE {:#x}u", abi::REPLACE));
    line(String::new());
    line("/* Sections that a process may have registered at one time. */".into());
    line(format!(
        "#define FRAMEWALK_MAX_SECTIONS {}",
        abi::MAX_SECTIONS
    ));
    line(String::new());
    line("enum framewalk_refusal {".into());
    for refusal in Refusal::ALL {
        let name = constant(&format!("{refusal:?}"));
        let (errno, symbol, text) = (refusal.errno(), refusal.name(), refusal.text());
        line(format!(
            "\tFRAMEWALK_{name} = {errno}, /* {symbol}: {text} */"
        ));
    }
    line("};".into());
    line(String::new());
    let _ = write!(text, "{PROTOTYPES}");
    text
}

/// `UnknownKey` as `UNKNOWN_KEY`.
fn constant(name: &str) -> String {
    let mut upper = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            upper.push('_');
        }
        upper.push(c.to_ascii_uppercase());
    }
    upper
}

/// Writes it.
pub(crate) fn run(_: &[&str]) -> ExitCode {
    let path = run::top().join(PATH);
    match std::fs::write(&path, print()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => run::fail(&format!("{}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_the_one_that_is_printed() {
        let kept = std::fs::read_to_string(run::top().join(PATH)).unwrap_or_default();
        assert!(kept == print(), "{PATH} is out of date: ./run header");
    }
}
