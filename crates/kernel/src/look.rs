//! The kernel's reader of frame areas and its walk, asked about this process's own memory: for tests, which compare them with
//! the observer of the announce crate and the walk in Rust, and for measuring. Nothing is registered.

use crate::Walked;
use crate::error::Error;
use crate::load::next_arena;
use crate::said;
use crate::skeleton::look::{LookSkel, LookSkelBuilder, types};
use framewalk_announce::area::observe::Geometry;
use framewalk_sframe::spec::Flag;
use framewalk_walk::Start;
use framewalk_walk::registry::{Announced, What};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, ProgramInput};
use std::fmt;
use std::mem::{MaybeUninit, offset_of};

/// The loaded program.
pub struct Look {
    skel: LookSkel<'static>,
}

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Look").finish_non_exhaustive()
    }
}

/// What became of a lookup, as `enum fw_lookup` (`bpf/rule.h`) says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// By [`Looked::rule`].
    Found,
    /// Nothing is said.
    Nothing,
    /// Nonsense.
    Malformed,
    /// Memory of the area cannot be read.
    Unreadable,
    /// It changed again and again.
    Busy,
    /// It says that there is no telling.
    Opaque,
}

/// The rule that was found: `struct fw_rule`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LookedRule {
    pub outermost: bool,
    pub signal: bool,
    pub cfa_reg: u8,
    pub cfa_deref: bool,
    pub cfa_off: i32,
    pub ra_kind: u8,
    pub ra_reg: u8,
    pub fp_kind: u8,
    pub fp_reg: u8,
    pub ra_off: i32,
    pub fp_off: i32,
    pub cfa_add: i32,
    pub switches: bool,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// What became of it.
    pub outcome: Outcome,
    /// The entry, where one was found.
    pub slot: Option<u32>,
    /// In this generation.
    pub generation: u32,
    /// Kind, flags and length of the prologue.
    pub how: u32,
    /// Where [`Outcome::Found`].
    pub rule: LookedRule,
    /// The entry's name.
    pub name: Vec<u8>,
    /// Nanoseconds of all lookups of the call.
    pub nanoseconds: u64,
}

impl Look {
    /// Sections that a walk can go by (`FW_SECTIONS` of `bpf/state.h`).
    pub const MAX_SECTIONS: usize = 8;

    /// Loads it.
    pub fn load() -> Result<Look, Error> {
        said::listen();
        let storage = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut open = LookSkelBuilder::default()
            .open(storage)
            .map_err(said::refused)?;
        open.maps
            .arena
            .set_map_extra(next_arena())
            .map_err(said::refused)?;
        let skel = open.load().map_err(said::refused)?;
        Ok(Look { skel })
    }

    /// Asks `times` times in a row about `pc`, in an area at an address of this process.
    pub fn ask(&self, address: u64, area: &Geometry, pc: u64, times: u32) -> Result<Looked, Error> {
        let mut bytes = vec![0u8; size_of::<types::fw_question>()];
        let section = offset_of!(types::fw_question, area);
        macro_rules! put {
            ($at:expr, $value:expr) => {{
                let (at, value) = ($at, $value.to_ne_bytes());
                bytes[at..at + value.len()].copy_from_slice(&value);
            }};
        }
        macro_rules! area {
            ($field:ident, $value:expr) => {
                put!(section + offset_of!(types::fw_section, $field), $value)
            };
        }
        area!(start, area.text.start);
        area!(end, area.text.end);
        area!(address, address);
        area!(length, area.area_len as u32);
        area!(area, 1u8);
        area!(granule_shift, area.granule_shift as u8);
        area!(capacity, area.capacity);
        area!(how, area.default.how);
        area!(rule, area.default.rule[0]);
        put!(
            section + offset_of!(types::fw_section, rule) + 4,
            area.default.rule[1]
        );
        put!(offset_of!(types::fw_question, pc), pc);
        put!(offset_of!(types::fw_question, times), times);
        let input = ProgramInput {
            context_in: Some(&mut bytes),
            ..ProgramInput::default()
        };
        self.skel.progs.look.test_run(input).map_err(Error::Map)?;
        Ok(looked(&bytes))
    }

    /// Walks this process's memory from a frame of which only pc, stack pointer and frame pointer are known, by these
    /// sections and else by guesses.
    ///
    /// # Panics
    /// Where there are more than [`Look::MAX_SECTIONS`], or one is an area.
    pub fn walk(&self, start: &Start, limit: u32, sections: &[Announced]) -> Result<Walked, Error> {
        assert!(sections.len() <= Look::MAX_SECTIONS);
        let mut bytes = vec![0u8; size_of::<types::fw_from>()];
        macro_rules! put {
            ($at:expr, $value:expr) => {{
                let (at, value) = ($at, $value.to_ne_bytes());
                bytes[at..at + value.len()].copy_from_slice(&value);
            }};
        }
        macro_rules! from {
            ($field:ident, $value:expr) => {
                put!(offset_of!(types::fw_from, $field), $value)
            };
        }
        from!(pc, start.registers.pc);
        from!(sp, start.registers.sp);
        from!(fp, start.registers.fp);
        from!(limit, limit);
        from!(origin, start.origin as u32);
        from!(is_return, u32::from(start.is_return_address));
        from!(num_sections, sections.len() as u32);
        for (i, announced) in sections.iter().enumerate() {
            let What::Section { header, .. } = &announced.claim.what else {
                panic!("an area")
            };
            let at = offset_of!(types::fw_from, sections) + i * size_of::<types::fw_section>();
            macro_rules! section {
                ($field:ident, $value:expr) => {
                    put!(at + offset_of!(types::fw_section, $field), $value)
                };
            }
            section!(start, announced.claim.text.start);
            section!(end, announced.claim.text.end);
            section!(address, announced.claim.address);
            section!(number, announced.number);
            section!(length, announced.claim.len);
            section!(index, header.index_at as u32);
            section!(functions, header.functions);
            section!(rows_at, header.rows_at as u32);
            section!(rows_len, header.rows_len as u32);
            section!(version, header.version.0);
            section!(pcrel, u8::from(header.has(Flag::PCREL)));
        }
        let input = ProgramInput {
            context_in: Some(&mut bytes),
            ..ProgramInput::default()
        };
        let program = &self.skel.progs.walk_from;
        program.test_run(input).map_err(Error::Map)?;
        let state = &self.skel.maps.scratch;
        let state = state.lookup(&0u32.to_ne_bytes(), MapFlags::ANY);
        let state = state.map_err(Error::Map)?.unwrap_or_default();
        let word = |at: usize| {
            let bytes = state.get(at..).and_then(|rest| rest.first_chunk());
            bytes.copied().map_or(0, u64::from_ne_bytes)
        };
        macro_rules! state {
            ($field:ident) => {
                word(offset_of!(types::fw_walk, $field))
            };
        }
        let words = state!(num_words) as u32 as usize;
        let words: Vec<u64> = (0..words)
            .map(|i| word(offset_of!(types::fw_walk, frames) + 8 * i))
            .collect();
        let stop = offset_of!(types::fw_from, stop);
        let stop = bytes[stop..]
            .first_chunk()
            .copied()
            .map_or(0, u32::from_ne_bytes);
        let frames = state!(num_user) as u32;
        Ok(Walked::new(&words, frames, stop, state!(pc), state!(sp)))
    }
}

fn looked(bytes: &[u8]) -> Looked {
    macro_rules! get {
        ($type:ty, $at:expr) => {{
            let at = $at;
            let value = bytes.get(at..at + size_of::<$type>());
            value
                .and_then(|value| value.try_into().ok())
                .map_or(0, <$type>::from_ne_bytes)
        }};
    }
    macro_rules! answer {
        ($type:ty, $field:ident) => {
            get!($type, offset_of!(types::fw_question, $field))
        };
    }
    macro_rules! rule {
        ($type:ty, $field:ident) => {
            get!(
                $type,
                offset_of!(types::fw_question, rule) + offset_of!(types::fw_rule, $field)
            )
        };
    }
    let outcome = match types::fw_lookup(answer!(u32, answer)) {
        types::fw_lookup::FW_LOOKUP_FOUND => Outcome::Found,
        types::fw_lookup::FW_LOOKUP_NONE => Outcome::Nothing,
        types::fw_lookup::FW_LOOKUP_MISS => Outcome::Unreadable,
        types::fw_lookup::FW_LOOKUP_BUSY => Outcome::Busy,
        types::fw_lookup::FW_LOOKUP_OPAQUE => Outcome::Opaque,
        _ => Outcome::Malformed,
    };
    let name = offset_of!(types::fw_question, name);
    let len = answer!(u32, name_len) as usize;
    Looked {
        outcome,
        slot: answer!(u32, slot).checked_sub(1),
        generation: answer!(u32, generation),
        how: answer!(u32, how),
        rule: LookedRule {
            outermost: rule!(u8, outermost) != 0,
            signal: rule!(u8, signal) != 0,
            cfa_reg: rule!(u8, cfa_reg),
            cfa_deref: rule!(u8, cfa_deref) != 0,
            cfa_off: rule!(i32, cfa_off),
            ra_kind: rule!(u8, ra_kind),
            ra_reg: rule!(u8, ra_reg),
            fp_kind: rule!(u8, fp_kind),
            fp_reg: rule!(u8, fp_reg),
            ra_off: rule!(i32, ra_off),
            fp_off: rule!(i32, fp_off),
            cfa_add: rule!(i32, cfa_add),
            switches: rule!(u8, switches) != 0,
        },
        name: bytes.get(name..name + len).unwrap_or_default().to_vec(),
        nanoseconds: answer!(u64, nanoseconds),
    }
}
