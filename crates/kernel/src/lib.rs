//! The stack walk inside the kernel.
