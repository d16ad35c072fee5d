//! Announces the unwind data of what the dynamic loader loads: an LD_AUDIT library (rtld-audit(7)).
//!
//! ```sh
//! cargo build -p framewalk-audit --profile audit
//! LD_AUDIT=$PWD/target/audit/libframewalk_audit.so program
//! ```
//!
//! Each object that has a `.sframe` segment is registered under the address of its link map when the loader has mapped
//! it, and unregistered when the loader is about to unmap it; in every namespace. At the end of the process
//! nothing is unregistered, because the registry ends with it.
//!
//! It is loaded into programs of all kinds, and is nothing that they could notice: no libc (the loader would have to load
//! one more), no allocation, no lock, no output, no signal handler, nothing that calls the loader. What the ELF headers
//! in memory say is checked like everything else that others wrote; what is odd about them leaves the object
//! unregistered. Nor does it matter whether anybody answers: a walker that starts later hears of later objects.
//!
//! The profile `audit` builds it so. Other profiles build it with std, which is good for its tests only.
#![cfg_attr(panic = "abort", no_std)]

mod auxiliary;
mod headers;
mod hooks;
mod memory;

/// Nothing here panics, and a library without std has to say what it does then.
#[cfg(panic = "abort")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
