//! Frame areas: asked where they are, at the moment of the walk.

use super::{Failures, MemoryRead};
use crate::processes::Generated;
use crate::sample::Place;
use framewalk_announce::area::layout::MAX_NAME;
use framewalk_announce::area::observe::{Fault, Found, Geometry, Kept, Rule};
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
    ) -> Option<framewalk_walk::Found<Option<Place>>> {
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
    ) -> Result<Option<framewalk_walk::Found<Option<Place>>>, Fault> {
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
        let place = Place::Described {
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
        let mut signal = found.is_signal();
        let kept = |at: i16| match at {
            0 => Saved::Same,
            at => Saved::AtCfa(at.into()),
        };
        let word = AMD64.word as i32;
        let (cfa, ra, fp) = match found.rule(self.geometry)? {
            Rule::Entry => (Cfa::Value(AMD64.sp, word), Saved::AtCfa(-word), Saved::Same),
            Rule::FramePointer => (
                Cfa::Value(AMD64.fp, 2 * word),
                Saved::AtCfa(-word),
                Saved::AtCfa(-2 * word),
            ),
            Rule::Fixed { cfa, ra, fp } => {
                let ra = match ra {
                    Kept::At(at) => Saved::AtCfa(at.into()),
                    Kept::In(register) => Saved::Value(Register(register), 0),
                };
                (Cfa::Value(AMD64.sp, cfa), ra, kept(fp))
            }
            Rule::StackSwitch { from, add, ra, fp } => {
                let cfa = match from {
                    Kept::At(at) => Cfa::At(AMD64.sp, at.into()),
                    Kept::In(register) => Cfa::Value(Register(register), 0),
                };
                return Ok(Some(Says::Switch {
                    rule: CallerRule {
                        cfa,
                        ra: Saved::AtCfa(ra.into()),
                        fp: kept(fp),
                        ra_signed: false,
                    },
                    add: add.into(),
                    origin: Origin::FrameArea,
                }));
            }
            Rule::Rows { at, len } => {
                let mut bytes = vec![0; len as usize];
                if !read(at, &mut bytes) {
                    return Err(Fault::Unreadable);
                }
                let function = Function::alone(Arch::Amd64, found.size(), &bytes)
                    .map_err(|_| Fault::Malformed)?;
                let offset = u64::from(found.offset().unwrap_or(0));
                let row_there = function.row_at(offset).map_err(|_| Fault::Malformed)?;
                signal |= function.signal;
                return Ok(row_there.map(|found| row(found.unwind, signal)));
            }
            Rule::Outermost => return Ok(Some(row(Unwind::Outermost, signal))),
            Rule::Opaque => return Ok(Some(Says::Stop(Stop::Opaque))),
        };
        let rule = CallerRule {
            cfa,
            ra,
            fp,
            ra_signed: false,
        };
        Ok(Some(row(Unwind::Caller(rule), signal)))
    }
}

fn row(unwind: Unwind, signal: bool) -> Says {
    Says::Row {
        unwind,
        signal,
        origin: Origin::FrameArea,
    }
}
