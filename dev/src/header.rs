//! `header`: prints the C header of the announce ABI from the Rust tables.
//!
//! Printed here rather than by cbindgen, which reads source text: the refusals come from a macro that it does not
//! expand, and a header for C programmers wants their words. What could drift apart is held together by the types below
//! and by the C program that the announce crate's tests compile.

use crate::run;
use core::ffi::{c_int, c_uint, c_void};
use framewalk_announce::area::c_api as area;
use framewalk_announce::area::layout;
use framewalk_announce::{Refusal, abi, c_api};
use std::fmt::Write;
use std::process::ExitCode;

// The prototypes in PROTOTYPES say this.
const _: unsafe extern "C" fn(u64, *const c_void, usize, c_uint) -> i64 = c_api::framewalk_register;
const _: extern "C" fn(u64) -> i64 = c_api::framewalk_unregister;

// Those in AREA say this, and so do its structs.
const _: unsafe extern "C" fn(*const area::AreaOptions) -> *mut area::CArea =
    area::framewalk_area_create;
const _: unsafe extern "C" fn(*const area::AreaOptions) -> *mut area::CArea =
    area::framewalk_area_map;
const _: unsafe extern "C" fn(*mut area::CArea, *mut area::CArea) -> i64 =
    area::framewalk_area_replace;
const _: unsafe extern "C" fn(*const area::CArea) -> i64 = area::framewalk_area_answer;
const _: unsafe extern "C" fn(*mut area::CArea) = area::framewalk_area_destroy;
const _: unsafe extern "C" fn(*const area::CArea, *const area::CFunction) -> i64 =
    area::framewalk_area_publish;
const _: unsafe extern "C" fn(*const area::CArea, i64) -> c_int = area::framewalk_area_tombstone;
const _: unsafe extern "C" fn(*const area::CArea, i64, u64) -> i64 = area::framewalk_area_move;
const _: unsafe extern "C" fn(*mut area::CArea) = area::framewalk_area_reset;
const _: () = {
    use core::mem::offset_of;
    use framewalk_announce::area::c_api::{AreaOptions, CFunction};
    assert!(size_of::<AreaOptions>() == 56 && offset_of!(AreaOptions, rule) == 44);
    assert!(size_of::<CFunction>() == 64 && offset_of!(CFunction, name_len) == 56);
};

/// What C programs need of the layout: these words make `how` and `rule`, and these bounds are worth knowing.
const FOR_C: &[&str] = &[
    "MAX_CAPACITY",
    "MAX_TEXT",
    "MAX_AREA",
    "MIN_SHIFT",
    "MAX_SHIFT",
    "MAX_HOPS",
    "MAX_ROWS",
    "MAX_NAME",
    "NONE",
    "FRAME_POINTER",
    "FIXED",
    "ROWS",
    "STACK_SWITCH",
    "OUTERMOST",
    "OPAQUE",
    "RUNTIME",
    "SIGNAL",
    "IN_REGISTER",
];

/// Where it is kept.
const PATH: &str = "crates/announce/include/framewalk.h";

const HEAD: &str = "\
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * framewalk: say what describes this process's code (docs/abi.md): SFrame sections, and frame areas for generated code.
 *
 * No allocator, no locks, no libc, errno untouched: usable before main, in constructors, in signal handlers
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

";

const AREA: &str = "\
/*
 * Frame areas: generated code, described function by function, without a system call for each.
 *
 * Publishing, tombstoning and moving may be done by any number of threads at the same time; nothing is locked. An area
 * is private memory: after fork(2) each process describes its own code in its own copy.
 */
struct framewalk_area;

/* `how` of a function: its kind, its flags, and the bytes at its beginning in which the machine's entry rule holds. */
#define FRAMEWALK_HOW(kind, flags, prologue_len) \\
	((uint32_t)(kind) | (uint32_t)(flags) << 8 | (uint32_t)(prologue_len) << 16)
/* Two signed halves of a word of `rule`. */
#define FRAMEWALK_HALVES(low, high) ((uint32_t)(uint16_t)(low) | (uint32_t)(uint16_t)(high) << 16)

struct framewalk_area_options {
	uint64_t text_start;    /* the range in which code is, or will be, generated */
	uint64_t text_len;
	uint32_t capacity;      /* functions until it is full or reset, dead ones included; 0: only the default rule */
	uint32_t granule_shift; /* at most FRAMEWALK_MAX_HOPS live functions may start in 2^granule_shift bytes of text */
	uint64_t heap;          /* bytes for rows and names */
	uint64_t key;           /* under which it is registered */
	uint32_t how;           /* the rule for text that no function describes; FRAMEWALK_NONE: there is none */
	uint32_t rule[2];
};

struct framewalk_function {
	uint64_t start;
	uint32_t size;
	uint32_t how;
	uint32_t rule[2];
	uint32_t cookie;        /* any number of the program's own, where there is no name */
	const void *rows;       /* for FRAMEWALK_ROWS: an SFrame V3 function attribute and its rows; copied */
	uint32_t rows_len;
	const char *name;       /* UTF-8, or NULL; cut at FRAMEWALK_MAX_NAME bytes, and copied */
	uint32_t name_len;
};

/* Maps an area and registers it. NULL: bad options, or no memory. The area works whatever registering was answered. */
struct framewalk_area *framewalk_area_create(const struct framewalk_area_options *options);

/* What registering it was answered: see framewalk_register. */
int64_t framewalk_area_answer(const struct framewalk_area *area);

/* Unregisters and unmaps it. */
void framewalk_area_destroy(struct framewalk_area *area);

/*
 * A larger area, or one without the dead: map it (it is not registered yet), publish in it what still exists, let it take the
 * place of the old one (same key; NULL: of none) at once, destroy the old one. Answers like framewalk_register.
 */
struct framewalk_area *framewalk_area_map(const struct framewalk_area_options *options);
int64_t framewalk_area_replace(struct framewalk_area *area, struct framewalk_area *old);

/*
 * Describes a function; only then may its code be made reachable. Answers a slot, 0 or above; -ENOSPC: no slot left, no heap
 * left, or too many functions in its granule; -EINVAL: not in the text, not a rule, or inside of a live function.
 */
int64_t framewalk_area_publish(const struct framewalk_area *area, const struct framewalk_function *function);

/* Says that a function is gone: BEFORE its code is freed or overwritten. 0, or -EINVAL: that slot is not alive. */
int framewalk_area_tombstone(const struct framewalk_area *area, int64_t slot);

/*
 * Says that a function goes to another address: before its old code is overwritten and its new one made reachable. Answers
 * its new slot like framewalk_area_publish; whatever the answer, the old slot is dead.
 */
int64_t framewalk_area_move(const struct framewalk_area *area, int64_t slot, uint64_t new_start);

/* Begins anew with all slots. No code that the area describes may exist, and no other thread may use the area meanwhile. */
void framewalk_area_reset(struct framewalk_area *area);
";

const TAIL: &str = "
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
    for name in FOR_C {
        let found = layout::CONSTANTS.iter().find(|(known, ..)| known == name);
        let Some((_, value, doc)) = found else {
            continue;
        };
        let _ = writeln!(text, "\n/*{doc} */");
        let _ = writeln!(text, "#define FRAMEWALK_{name} {value}u");
    }
    let _ = write!(text, "\n{AREA}{TAIL}");
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
