//! Frame areas: how generated code is described in shared memory, without a call for each function.

pub mod layout;
pub mod observe;
