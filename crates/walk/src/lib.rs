//! The reference stack walker.
//!
//! It executes rows and touches the world through two traits: [`Memory`] reads one word of the
//! walked process, [`Code`] says what is known about a pc. Everything both of them answer is an
//! allegation: a walk takes at most [`READS_PER_GUESS`] reads per frame, delivers at most the
//! caller's limit of frames, never panics, and ends with one [`Stop`].
//!
//! ```
//! use framewalk_sframe::{Cfa, CallerRule, Register, Rule, Unwind};
//! use framewalk_walk::{Found, Origin, Registers, Says, Start, Stop, walk};
//!
//! // One function at 0x1000 whose caller at 0x2000 is outermost.
//! let mut code = |pc: u64| Found {
//!     place: pc,
//!     says: Says::Row {
//!         signal: false,
//!         origin: Origin::File,
//!         unwind: if pc < 0x2000 {
//!             let cfa = Cfa::Value(Register(7), 8);
//!             Unwind::Caller(CallerRule { cfa, ra: Rule::AtCfa(-8), fp: Rule::Same, ra_signed: false })
//!         } else {
//!             Unwind::Outermost
//!         },
//!     },
//! };
//! let mut memory = |address: u64| (address == 0x7000).then_some(0x2005);
//! let mut pcs = Vec::new();
//! let start = Start::topmost(Registers { pc: 0x1000, sp: 0x7000, fp: 0, full: None });
//! let stop = walk(start, 510, &mut memory, &mut code, |frame| pcs.push(frame.pc));
//! assert_eq!((pcs, stop), (vec![0x1000, 0x2005], Stop::Outermost));
//! ```
#![forbid(unsafe_code)]

pub mod arch;
mod code;
mod guess;
mod memory;
pub mod origin;
mod registers;
pub mod registry;
mod step;
pub mod stop;
mod walk;

pub use code::{Code, Found, Says};
pub use guess::{
    EntryState, MIN_HOLE, READS_PER_GUESS, entry_state, guess, interrupted_state, is_call,
    is_resumed, settled,
};
pub use memory::Memory;
pub use origin::Origin;
pub use registers::Registers;
pub use step::{Between, MAX_FRAME_SIZE, MAX_SWITCHES, READS_PER_FRAME, Switches, step};
pub use stop::Stop;
pub use walk::{Frame, Start, walk};
