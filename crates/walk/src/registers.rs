//! What is known of a frame's registers.

use crate::Stop;
use crate::arch::{Arch, FULL};
use framewalk_sframe::Register;

/// The registers of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registers {
    /// The instruction pointer (user address space); for a caller the return address.
    pub pc: u64,
    /// The stack pointer.
    pub sp: u64,
    /// The frame pointer register, whatever it is used for.
    pub fp: u64,
    /// Every register by its DWARF number, as many as the machine has. Only the topmost frame has them: no row says
    /// where a caller's are.
    pub full: Option<[u64; FULL]>,
}

impl Registers {
    /// The value of `register` in this frame of a machine.
    pub fn get(&self, arch: &Arch, register: Register) -> Result<u64, Stop> {
        match register {
            r if r == arch.sp => Ok(self.sp),
            r if r == arch.fp => Ok(self.fp),
            Register(n) => self
                .full
                .as_ref()
                .and_then(|all| all.get(..arch.full)?.get(usize::from(n)).copied())
                .ok_or(Stop::RegisterUnknown),
        }
    }
}
