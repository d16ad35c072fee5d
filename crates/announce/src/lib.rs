//! What a process says about its own code: the announce ABI (docs/abi.md), the process's side.
//!
//! No allocation, no locks, no dependencies: usable before main, in constructors, in signal handlers and
//! inside a dynamic loader.
//!
//! For C there is `include/framewalk.h` and a library without dependencies, not even libc:
//!
//! ```sh
//! cargo rustc -p framewalk-announce --profile audit --features capi --crate-type staticlib   # or cdylib
//! ```
#![no_std]

pub mod abi;
pub mod area;
pub mod c_api;
mod register;
mod registration;
pub mod system;

pub use abi::Refusal;
pub use register::{Answer, register, register_at, replace, unregister};
pub use registration::Registration;

/// A library for C brings this itself. Nothing here panics; it is never linked into a Rust program, which has its own.
#[cfg(all(feature = "capi", panic = "abort", not(test)))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
