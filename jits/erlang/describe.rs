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

/// Words of its own stack that the NIF looks through.
const OWN_WORDS: u64 = 4096;

/// `ErlNifFunc`.
#[repr(C)]
pub struct NifFunction {
    name: *const c_char,
    arity: c_uint,
    function: unsafe extern "C" fn(*mut c_void, c_int, *const u64) -> u64,
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

/// `describe() -> Functions`.
unsafe extern "C" fn describe(environment: *mut c_void, _: c_int, _: *const u64) -> u64 {
    let described = std::panic::catch_unwind(describe_all).unwrap_or(-1);
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
fn describe_all() -> i64 {
    let map = format!("/tmp/perf-{}.map", std::process::id());
    let text = std::fs::read(map).expect("a perf map: +JPperf map");
    let symbols = beam::perf_map(&String::from_utf8_lossy(&text));
    let mappings = mappings();
    let main = symbols
        .iter()
        .find(|symbol| symbol.name == "global::process_main");
    let main = main.map_or(Rule::Opaque, |main| main_rule(main, &symbols, &mappings));
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
            .flat_map(|symbol| stretches(symbol, main))
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
fn stretches(symbol: &Symbol, main: Rule<'static>) -> Vec<Stretch> {
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
    let main = (name == "global::process_main").then_some(main);
    // It begins on the scheduler's stack; what it needs to make its frame is not worth an entry.
    let entry = if main.is_some() {
        State::Runtime
    } else {
        beam::entry(code)
    };
    let stretches = beam::stretches(code, symbol.range.start, entry);
    let described = stretches.into_iter().map(|(range, state)| {
        let rule = match (state, main) {
            (State::Runtime | State::Stale, Some(main)) => main,
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
/// How much the alignment took is not written down anywhere. But this NIF was called from there, so its own stack leads to
/// where that frame is, and the return address is above it. Other threads begin alike.
fn main_rule(main: &Symbol, symbols: &[Symbol], mappings: &[Mapping]) -> Rule<'static> {
    let code = bytes(&main.range);
    let mut first = Decoder::with_ip(64, code, main.range.start, DecoderOptions::NONE).into_iter();
    let size = first
        .find(|i| i.mnemonic() == Mnemonic::Sub && i.op0_register() == Register::RSP)
        .map(|i| i.immediate(1));
    let nif = symbols
        .iter()
        .find(|symbol| symbol.name == "global::call_nif_shared");
    let (Some(size), Some(nif)) = (size, nif) else {
        return Rule::Opaque;
    };
    let word = |at: u64| u64::from_le_bytes(bytes(&(at..at + 8)).try_into().expect("8 bytes"));
    let own = (&raw const size) as u64;
    let mut words = (0..OWN_WORDS).map(|n| own + 8 * n);
    // Behind the return address of what is called on the scheduler's stack.
    let Some(sp) = words.find(|&at| nif.range.contains(&word(at))) else {
        return Rule::Opaque;
    };
    let sp = sp + 8;
    // C's function of that name jumps to the generated one.
    // SAFETY: asks for a symbol of the program.
    let target = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"process_main".as_ptr()) } as u64;
    let called = |at: u64| {
        let address = word(at);
        let holds = |m: &&Mapping| {
            m.protection == "r-xp" && m.range.start + 5 <= address && m.range.contains(&address)
        };
        let calls = |_: &Mapping| {
            let call: [u8; 5] = bytes(&(address - 5..address)).try_into().expect("5 bytes");
            let [0xe8, distance @ ..] = call else {
                return false;
            };
            address.wrapping_add_signed(i32::from_le_bytes(distance).into()) == target
        };
        mappings.iter().find(holds).is_some_and(calls)
    };
    let heights = (0..64).step_by(8).map(|pad| size + pad);
    let mut found = heights.filter(|height| called(sp + height));
    match (found.next(), found.next()) {
        (Some(height), None) => Rule::fixed(height as i32 + 8),
        _ => Rule::Opaque,
    }
}
