//! A process of which nothing has to be true, and what holds for a walk of it. Property tests and fuzz targets ask the
//! same.

mod model;

use framewalk_sframe::{CallerRule, Rule, Unwind};
use framewalk_walk::arch::{Arch, FULL};
use framewalk_walk::{
    Code, Found, Frame, MAX_FRAME_SIZE, MAX_SWITCHES, Origin, READS_PER_FRAME, READS_PER_GUESS,
    Registers, Says, Start, Stop, walk,
};
use model::{Known, Step};
use std::cell::Cell;
use std::collections::HashSet;

/// Lowest address of the stack; whatever is below it is code.
pub(crate) const STACK: u64 = 0x7fff_0000;

/// A stopped thread: its registers, its stack, and what is said of its code.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its machine.
    pub(crate) arch: &'static Arch,
    /// What is said of an address: that at the address modulo the length. Never empty.
    pub(crate) code: Vec<Says>,
    pub(crate) stack: Vec<u64>,
    pub(crate) pc: u64,
    pub(crate) sp: u64,
    pub(crate) fp: u64,
    pub(crate) full: Option<[u64; FULL]>,
    /// The walk begins at a caller: its pc is a return address.
    pub(crate) is_return_address: bool,
    /// Most frames of the walk.
    pub(crate) limit: usize,
}

impl Code for &Process {
    type Place = u64;

    fn arch(&self) -> &'static Arch {
        self.arch
    }

    fn find(&mut self, pc: u64) -> Found<u64> {
        Found {
            place: pc,
            says: self.says(pc),
        }
    }
}

/// What lies between a frame and its caller: the origin of the caller's pc, whether that is a return address, and the
/// rule, if it is one that holds whatever the instruction is.
struct Between {
    origin: Origin,
    returns: bool,
    /// The caller may be on another stack.
    switches: bool,
    rule: Option<(CallerRule, i32)>,
    /// The return address may still be in a register.
    in_register: bool,
}

impl Between {
    /// Only the topmost frame, all of whose registers are known, may have nothing on the stack: not even a return
    /// address, unless it stands in the save area of the caller.
    fn may_be_empty(&self, arch: &Arch, known: &Known) -> bool {
        known.full.is_some() && (arch.save_area > 0 || self.in_register)
    }
}

impl Process {
    fn says(&self, pc: u64) -> Says {
        self.code[pc as usize % self.code.len()]
    }

    fn word(&self, address: u64) -> Option<u64> {
        let Some(index) = address.checked_sub(STACK) else {
            // Code, as far as its bytes matter.
            return Some(if address.is_multiple_of(3) {
                0xe8 << 24
            } else {
                address << 8
            });
        };
        (index % 8 == 0).then(|| self.stack.get(index as usize / 8).copied())?
    }

    /// What there is to go on by from a frame; why there is nothing, if that is known already.
    fn between(&self, frame: &Frame<u64>) -> Result<Between, Stop> {
        // The rule, what is added to its CFA, and whether it holds whatever the instruction is.
        let (origin, signal, switches, rule) = match self.says(frame.place) {
            Says::Row {
                unwind: Unwind::Outermost,
                ..
            } => return Err(Stop::Outermost),
            Says::Row {
                unwind: Unwind::Caller(rule),
                signal,
                origin,
            } => (origin, signal, false, Some((rule, 0, true))),
            Says::Body {
                rule,
                signal,
                origin,
                ..
            } => {
                let settled = frame.is_return_address || !self.arch.guesses;
                (origin, signal, false, Some((rule, 0, settled)))
            }
            Says::Switch { rule, add, origin } => (origin, false, true, Some((rule, add, true))),
            Says::Undescribed if self.arch.guesses => (Origin::FramePointer, false, false, None),
            Says::Undescribed => return Err(Stop::FramePointer),
            Says::Stop(stop) => return Err(stop),
        };
        Ok(Between {
            origin,
            returns: !signal,
            switches: signal || switches,
            rule: rule.and_then(|(rule, add, settled)| settled.then_some((rule, add))),
            in_register: rule
                .is_some_and(|(rule, ..)| matches!(rule.ra, Rule::Same | Rule::Value(..))),
        })
    }

    /// Walks it.
    pub(crate) fn ends_and_climbs(self) {
        let (arch, limit) = (self.arch, self.limit);
        let reads = Cell::new(0);
        let mut memory = |address: u64| {
            reads.set(reads.get() + 1);
            self.word(address)
        };
        let Process {
            pc,
            sp,
            fp,
            full,
            is_return_address,
            ..
        } = self;
        let start = Start {
            is_return_address,
            ..Start::topmost(Registers { pc, sp, fp, full })
        };
        let mut frames = Vec::new();
        let stop = walk(start, limit, &mut memory, &mut &self, |frame| {
            frames.push(frame);
        });

        assert!(frames.len() <= limit);
        assert!(reads.get() <= READS_PER_FRAME.max(READS_PER_GUESS) * frames.len());
        assert_eq!(limit == 0, frames.is_empty());
        let Some(first) = frames.first() else {
            assert_eq!(stop, Stop::Limit);
            return;
        };
        assert_eq!(
            (first.pc, first.sp, first.origin, first.is_return_address),
            (pc, sp, Origin::Registers, is_return_address)
        );
        for frame in &frames {
            // A caller is looked up by its call.
            let back = u64::from(frame.is_return_address);
            assert_eq!(frame.place, frame.pc.wrapping_sub(back));
        }

        let mut known = Some(Known { sp, fp, full });
        let mut switches = HashSet::new();
        for pair in frames.windows(2) {
            let [frame, caller] = pair else {
                unreachable!()
            };
            let between = self.between(frame).unwrap();
            assert_eq!(
                (caller.origin, caller.is_return_address),
                (between.origin, between.returns)
            );
            assert_ne!(caller.pc, 0);
            assert_eq!(caller.pc & arch.address_bits, caller.pc);
            assert_eq!(caller.sp % arch.word, 0);
            let cfa = caller.sp.checked_add(arch.save_area).unwrap();

            let empty = known.is_some_and(|known| between.may_be_empty(arch, &known))
                && caller.sp == frame.sp;
            let climbs = caller.sp > frame.sp && caller.sp - frame.sp <= MAX_FRAME_SIZE;
            if !climbs && !empty {
                assert!(between.switches && cfa < arch.user_end);
                assert!(switches.insert((caller.pc, caller.sp)), "the same twice");
            }
            known = known.zip(between.rule).map(|(known, rule)| {
                let read = |address| self.word(address);
                let Step::Caller { pc, sp, fp } = model::step(arch, &known, rule, &read) else {
                    panic!("{:?} has no caller by {:?}", frame, rule);
                };
                assert_eq!((pc, sp), (caller.pc, caller.sp));
                Known { sp, fp, full: None }
            });
        }
        assert!(switches.len() <= MAX_SWITCHES);
        let last = frames.last().unwrap();
        match (stop, self.between(last)) {
            (Stop::Limit, _) => assert_eq!(frames.len(), limit),
            (stop, Err(expected)) => assert_eq!(stop, expected),
            (stop, Ok(between)) => {
                assert_ne!(stop, Stop::Outermost);
                let Some((known, rule)) = known.zip(between.rule) else {
                    return;
                };
                self.ends(stop, last, &known, rule, &between, &switches);
            }
        }
    }

    /// What the last frame's rule computes is none, is no code, or lies where it must not.
    fn ends(
        &self,
        stop: Stop,
        last: &Frame<u64>,
        known: &Known,
        rule: (CallerRule, i32),
        between: &Between,
        switches: &HashSet<(u64, u64)>,
    ) {
        let arch = self.arch;
        let read = |address| self.word(address);
        let (pc, sp) = match model::step(arch, known, rule, &read) {
            Step::Caller { pc, sp, .. } => (pc, sp),
            Step::Zero => return assert!(!matches!(stop, Stop::NotCode | Stop::Loop)),
            Step::None => return assert!(!matches!(stop, Stop::NotCode | Stop::Loop)),
        };
        let climbs = sp > last.sp && sp - last.sp <= MAX_FRAME_SIZE && sp % arch.word == 0;
        let empty = between.may_be_empty(arch, known) && sp == last.sp && sp % arch.word == 0;
        let below = sp.wrapping_add(arch.save_area) < arch.user_end && sp % arch.word == 0;
        let anywhere = between.switches && below;
        match stop {
            Stop::NotCode => {
                let back = u64::from(between.returns);
                assert_eq!(self.says(pc.wrapping_sub(back)), Says::Stop(Stop::NotCode));
                assert!(climbs || empty || anywhere);
            }
            Stop::CfaBad => {
                assert!(!climbs && !anywhere);
                assert!(sp % arch.word != 0 || sp > last.sp);
            }
            Stop::CfaNotAbove => {
                assert!(!climbs && sp % arch.word == 0);
                assert!(if anywhere {
                    switches.len() == MAX_SWITCHES
                } else {
                    sp <= last.sp
                });
            }
            Stop::Loop => assert!(anywhere && switches.contains(&(pc, sp))),
            other => panic!("{other:?}, but the caller is at {pc:#x}, {sp:#x}"),
        }
    }
}
