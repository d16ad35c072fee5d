//! Frame areas: how generated code is described in shared memory, without a call for each function.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use framewalk_announce::area::{Function, Label, Mapped, Options, Rule};
//!
//! # let code = vec![0u8; 4096].leak();
//! // Once, for the memory that code will be generated in:
//! let area = Mapped::new(&Options::new(code.as_ptr() as u64, code.len() as u64))?;
//! area.register();
//!
//! // For each function, before its code is reachable:
//! let mut function = Function::new(code.as_ptr() as u64, 64, Rule::fixed(32));
//! function.label = Label::Name("fib");
//! let slot = area.publish(&function)?;
//!
//! // Before its code goes away:
//! area.tombstone(slot);
//! # Ok(())
//! # }
//! ```

pub mod c_api;
mod function;
pub mod layout;
mod mapping;
mod meaning;
pub mod observe;
mod produce;
pub mod protocol;
mod rule;
mod words;

pub use function::{CreateError, Function, Label, Options, PublishError, Slot};
pub use mapping::Mapped;
pub use produce::Area;
pub use rule::{Place, Rule, RuleError};
