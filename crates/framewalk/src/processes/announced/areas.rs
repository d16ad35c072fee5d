//! Frame areas: asked where they are, at the moment of the walk.

use super::{Failures, MemoryRead};
use crate::processes::Generated;
use crate::sample;
use framewalk_announce::abi::MAX_ROW_BYTES;
use framewalk_announce::area::Place;
use framewalk_announce::area::layout::MAX_NAME;
use framewalk_announce::area::observe::{Fault, Found, Geometry, Rule};
use framewalk_sframe::{Arch, CallerRule, Cfa, Function, Register, Rule as Saved, Unwind};
use framewalk_walk::arch::AMD64;
use framewalk_walk::{Origin, Says, Stop};

/// One area.
pub(super) struct Area<'a> {
    pub(super) address: u64,
    pub(super) geometry: &'a Geometry,
}

impl Area<'_> {
    /// What it says of the code at `pc`; nothing where that is nothing, or nonsense, which is counted.
    pub(super) fn find(
        &self,
        pc: u64,
        names: &mut Generated,
        failures: &mut Failures,
        read: &mut MemoryRead,
    ) -> Option<framewalk_walk::Found<Option<sample::Place>>> {
        // SANITY: the observer asks for what lies inside, and the area ends below USER_END.
        let mut read = |at: u64, into: &mut [u8]| read(self.address + at, into);
        match self.look(pc, names, &mut read) {
            Ok(found) => found,
            Err(Fault::Unreadable) => {
                failures.unreadable += 1;
                None
            }
            Err(Fault::Busy) => {
                failures.busy += 1;
                None
            }
            Err(Fault::Malformed | Fault::Conflict) => {
                failures.malformed += 1;
                None
            }
        }
    }

    fn look(
        &self,
        pc: u64,
        names: &mut Generated,
        read: &mut MemoryRead,
    ) -> Result<Option<framewalk_walk::Found<Option<sample::Place>>>, Fault> {
        let Some(found) = self.geometry.look_up(pc, read)? else {
            return Ok(None);
        };
        let Some(says) = self.says(&found, read)? else {
            return Ok(None);
        };
        let mut bytes = [0; MAX_NAME as usize];
        let name = found.name(self.geometry, &mut bytes, read)?.to_vec();
        // Rows and the name were read by what it says: only now they are known to be its own.
        found.confirm(read)?;
        let name = names.add(&name);
        let runtime = found.is_runtime();
        let place = sample::Place::Described {
            address: pc,
            name,
            runtime,
        };
        let described = name.is_some() || runtime;
        Ok(Some(framewalk_walk::Found {
            place: described.then_some(place),
            says,
        }))
    }

    fn says(&self, found: &Found, read: &mut MemoryRead) -> Result<Option<Says>, Fault> {
        let signal = found.is_signal();
        let origin = Origin::FrameArea;
        let word = AMD64.word as i32;
        let saved = |at: i16| match at {
            0 => Saved::Same,
            at => Saved::AtCfa(at.into()),
        };
        let caller = |cfa, ra, fp| CallerRule {
            cfa,
            ra,
            fp,
            ra_signed: false,
        };
        let body = |rule, frame_pointer| Says::Body {
            rule,
            frame_pointer,
            signal,
            origin,
        };
        let row = |unwind, signal| Says::Row {
            unwind,
            signal,
            origin,
        };
        let (sp, fp, ra) = (AMD64.sp, AMD64.fp, Saved::AtCfa(-word));
        Ok(Some(match found.rule(self.geometry)? {
            Rule::Entry => {
                let rule = caller(Cfa::Value(sp, word), ra, Saved::Same);
                row(Unwind::Caller(rule), signal)
            }
            Rule::FramePointer => {
                let saved = Saved::AtCfa(-2 * word);
                body(caller(Cfa::Value(fp, 2 * word), ra, saved), true)
            }
            Rule::Fixed { cfa, ra, fp } => {
                let ra = match ra {
                    Place::At(at) => Saved::AtCfa(at.into()),
                    Place::Register(register) => Saved::Value(Register(register), 0),
                };
                body(caller(Cfa::Value(sp, cfa), ra, saved(fp)), false)
            }
            Rule::StackSwitch { stack, cfa, ra, fp } => {
                let stack = match stack {
                    Place::At(at) => Cfa::At(sp, at.into()),
                    Place::Register(register) => Cfa::Value(Register(register), 0),
                };
                Says::Switch {
                    rule: caller(stack, Saved::AtCfa(ra.into()), saved(fp)),
                    add: cfa.into(),
                    origin,
                }
            }
            Rule::Rows { at, len } => {
                let mut bytes = vec![0; len as usize];
                if !read(at, &mut bytes) {
                    return Err(Fault::Unreadable);
                }
                let nonsense = |_| Fault::Malformed;
                let function = Function::alone(Arch::Amd64, found.size(), &bytes)
                    .map_err(nonsense)?
                    .within(MAX_ROW_BYTES);
                let offset = found.offset().unwrap_or(0);
                let Some(here) = function.row_at(offset.into()).map_err(nonsense)? else {
                    return Ok(None);
                };
                row(here.unwind, signal || function.signal)
            }
            Rule::Outermost => row(Unwind::Outermost, signal),
            Rule::Opaque => Says::Stop(Stop::Opaque),
        }))
    }
}
