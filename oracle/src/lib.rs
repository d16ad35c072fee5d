//! Programs run instruction by instruction, and walks compared with the calls that were seen.

pub mod gdb;
pub mod link;
pub mod machine;
pub mod shadow;
