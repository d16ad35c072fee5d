//! The reference stack walker.
#![forbid(unsafe_code)]

pub mod origin;
pub mod stop;

pub use origin::Origin;
pub use stop::Stop;
