//! How the walker reads the walked process.

/// The memory of the walked process, or a copy of some of it.
pub trait Memory {
    /// The 8 bytes at `address` (user address space of the walked process) as a number, or none
    /// where they cannot be read. The walker asks for aligned addresses only where it checked
    /// them, so that any address has to be expected here.
    fn word(&mut self, address: u64) -> Option<u64>;

    /// The same for 8 bytes of code. What copied only the stack may have another way to them.
    fn code(&mut self, address: u64) -> Option<u64> {
        self.word(address)
    }
}

impl<F: FnMut(u64) -> Option<u64>> Memory for F {
    fn word(&mut self, address: u64) -> Option<u64> {
        self(address)
    }
}
