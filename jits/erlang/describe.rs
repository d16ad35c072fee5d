//! A NIF that describes the code of BEAM's JIT from outside: `climb:describe/0`, for an Erlang that runs with
//! `+JPperf map`.
//!
//! Where code is, and what the functions are called, is in `/proc/self/maps` and the perf map; how each stands on its stack
//! is read from the code (`framewalk_jits::beam`). Code that is loaded later is described by the default rule alone.
//! It knows the layout of one version of the run time (Debian's 25.2) and is an example, no library.
#![allow(unsafe_code)]

use framewalk_announce::area::{Function, Label, Mapped, Options, Place, Rule};
use framewalk_jits::beam::{self, State, Symbol};
use iced_x86::{Decoder, DecoderOptions, Mnemonic, Register};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ops::Range;
use std::ptr;

/// The DWARF number of rbp.
const RBP: u8 = 6;

/// Bytes from the scheduler's stack to what rbx points to.
const REGISTERS: u64 = 128;

/// `ErlNifFunc`.
#[repr(C)]
pub struct NifFunction {
    name: *const c_char,
    arity: c_uint,
    function: unsafe extern "C" fn(),
    flags: c_uint,
}

/// `ErlNifEntry`.
#[repr(C)]
pub struct NifEntry {
    major: c_int,
    minor: c_int,
    name: *const c_char,
    functions: c_int,
    function: *const NifFunction,
    load: Option<extern "C" fn(*mut c_void, *mut *mut c_void, u64) -> c_int>,
    reload: *const c_void,
    upgrade: *const c_void,
    unload: *const c_void,
    variant: *const c_char,
    options: c_uint,
    resource_size: usize,
    least: *const c_char,
}

// SAFETY: constants.
unsafe impl Sync for NifFunction {}
// SAFETY: constants.
unsafe impl Sync for NifEntry {}

unsafe extern "C" {
    fn enif_make_long(environment: *mut c_void, number: i64) -> u64;
}

static FUNCTION: NifFunction = NifFunction {
    name: c"describe".as_ptr(),
    arity: 0,
    function: describe,
    flags: 0,
};

static ENTRY: NifEntry = NifEntry {
    major: 2,
    minor: 16,
    name: c"climb".as_ptr(),
    functions: 1,
    function: &raw const FUNCTION,
    load: None,
    reload: ptr::null(),
    upgrade: ptr::null(),
    unload: ptr::null(),
    variant: c"beam.vanilla".as_ptr(),
    options: 1,
    resource_size: 0,
    least: c"erts-12.0".as_ptr(),
};

/// What the run time asks a NIF library for.
#[unsafe(no_mangle)]
pub extern "C" fn nif_init() -> *const NifEntry {
    &raw const ENTRY
}

/// `describe() -> Functions`. The registers of the scheduler are in rbx, which no other function gets to see for sure.
#[unsafe(naked)]
unsafe extern "C" fn describe() {
    std::arch::naked_asm!("mov rcx, rbx", "jmp {}", sym describe_with)
}

extern "C" fn describe_with(
    environment: *mut c_void,
    _: c_int,
    _: *const u64,
    registers: u64,
) -> u64 {
    let described = std::panic::catch_unwind(|| describe_all(registers)).unwrap_or(-1);
    // SAFETY: the environment is the one of this call.
    unsafe { enif_make_long(environment, described) }
}

/// A line of `/proc/self/maps`.
struct Mapping {
    range: Range<u64>,
    protection: String,
    name: String,
}

fn mappings() -> Vec<Mapping> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("mappings");
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        let number = |hex| u64::from_str_radix(hex, 16).ok();
        Some(Mapping {
            range: number(from)?..number(to)?,
            protection: words.next()?.to_string(),
            name: words.nth(3).unwrap_or_default().to_string(),
        })
    };
    maps.lines().filter_map(parse).collect()
}

/// Bytes of this process.
fn bytes(range: &Range<u64>) -> &'static [u8] {
    let len = (range.end - range.start) as usize;
    // SAFETY: mapped memory of the run time, which keeps what it has loaded while this example runs.
    unsafe { std::slice::from_raw_parts(range.start as *const u8, len) }
}

/// Describes all code; how many stretches of it.
fn describe_all(registers: u64) -> i64 {
    let map = format!("/tmp/perf-{}.map", std::process::id());
    let text = std::fs::read(map).expect("a perf map: +JPperf map");
    let symbols = beam::perf_map(&String::from_utf8_lossy(&text));
    let mappings = mappings();
    let mut published = 0;
    for mapping in &mappings {
        if mapping.protection != "rwxp" || !mapping.name.is_empty() {
            continue;
        }
        let inside = |symbol: &&Symbol| {
            mapping.range.start <= symbol.range.start && symbol.range.end <= mapping.range.end
        };
        let stretches: Vec<_> = symbols
            .iter()
            .filter(inside)
            .flat_map(|symbol| stretches(symbol, registers, &mappings))
            .collect();
        let names: usize = stretches.iter().map(|(.., name)| name.len() + 1).sum();
        let area = Mapped::new(&Options {
            capacity: stretches.len() as u32,
            granule_shift: 6,
            heap: names as u64,
            default_rule: Rule::FramePointer,
            ..Options::new(mapping.range.start, mapping.range.end - mapping.range.start)
        })
        .expect("an area");
        for (range, rule, name) in &stretches {
            let function = Function {
                label: Label::Name(name),
                ..Function::new(range.start, (range.end - range.start) as u32, *rule)
            };
            if area.publish(&function).is_ok() {
                published += 1;
            }
        }
        area.register();
        // The code stays until the process ends.
        std::mem::forget(area);
    }
    published
}

type Stretch = (Range<u64>, Rule<'static>, String);

/// How a function's caller is found, for each stretch of it.
fn stretches(symbol: &Symbol, registers: u64, mappings: &[Mapping]) -> Vec<Stretch> {
    // What stands before a function's name in its code ends with instructions through which it is called.
    let name = symbol.name.trim_end_matches("-CodeInfoPrologue");
    let whole = |rule| vec![(symbol.range.clone(), rule, name.to_string())];
    if name.ends_with("::codeHeader") || name.ends_with("::codeFooter") {
        return Vec::new();
    }
    // Where processes return to when they end: the return address is the first byte.
    if name == "erts_beamasm:normal_exit/0" {
        return whole(Rule::Outermost);
    }
    if name != symbol.name {
        return whole(Rule::fixed(8));
    }
    let code = bytes(&symbol.range);
    let main = match name {
        "global::process_main" => Some(main_rule(code, symbol.range.start, registers, mappings)),
        _ => None,
    };
    let stretches = beam::stretches(code, symbol.range.start);
    let mut first = true;
    let described = stretches.into_iter().map(|(range, state)| {
        // All of its first stretch is on the scheduler's stack, but for the instructions that make its frame.
        let own_frame = std::mem::replace(&mut first, false) && main.is_some();
        let rule = match (state, main) {
            (State::Runtime | State::Stale, Some(main)) => main,
            _ if own_frame => main.unwrap_or(Rule::Opaque),
            (State::Entry, _) => Rule::fixed(8),
            (State::Pushed, _) => Rule::Fixed {
                cfa: 16,
                ra: Place::At(-8),
                fp: -16,
            },
            (State::Framed, _) => Rule::FramePointer,
            (State::Runtime, None) => Rule::StackSwitch {
                stack: Place::Register(RBP),
                cfa: 16,
                ra: -8,
                fp: -16,
            },
            (State::Stale, None) => Rule::Opaque,
        };
        (range, rule, name.to_string())
    });
    described.collect()
}

/// The frame of `process_main`, which every scheduler thread enters once and never leaves: `sub rsp, n; and rsp, -64`.
/// How much the alignment took is not written down anywhere. But the return address is above it, and the scheduler's
/// registers, which lie in that frame, tell where.
fn main_rule(code: &[u8], start: u64, registers: u64, mappings: &[Mapping]) -> Rule<'static> {
    let decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
    let mut first = decoder.into_iter();
    let size = first
        .find(|i| i.mnemonic() == Mnemonic::Sub && i.op0_register() == Register::RSP)
        .map(|i| i.immediate(1));
    let Some(size) = size else {
        return Rule::Opaque;
    };
    let sp = registers - REGISTERS;
    let called = |at: u64| {
        let address = u64::from_le_bytes(bytes(&(at..at + 8)).try_into().expect("8 bytes"));
        let holds = |m: &&Mapping| m.protection == "r-xp" && m.range.contains(&(address - 5));
        // A call with a relative target, or through a register.
        let calls = |_: &Mapping| {
            bytes(&(address - 5..address))[0] == 0xe8 || bytes(&(address - 2..address))[0] == 0xff
        };
        address > 5 && mappings.iter().find(holds).is_some_and(calls)
    };
    let heights = (0..64).step_by(8).map(|pad| size + pad);
    let mut found = heights.filter(|height| called(sp + height));
    match (found.next(), found.next()) {
        (Some(height), None) => Rule::fixed(height as i32 + 8),
        _ => Rule::Opaque,
    }
}
