//! Programs run instruction by instruction, and walks compared with the calls that were seen.

#[cfg(target_arch = "x86_64")]
pub mod amd64;
pub mod emulated;
pub mod ends;
pub mod gaps;
pub mod gdb;
pub mod judge;
pub mod link;
pub mod machine;
#[cfg(target_arch = "x86_64")]
pub mod peers;
pub mod phases;
#[cfg(target_arch = "x86_64")]
pub mod programs;
pub mod shadow;
#[cfg(target_arch = "x86_64")]
pub mod states;
pub mod symbols;
