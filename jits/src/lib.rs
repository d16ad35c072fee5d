//! Generators of code that describe it in frame areas, to be recorded by tests.
//!
//! `cranelift` compiles, runs and frees functions with Cranelift, on several threads; `own_stack` runs code of its
//! own on stacks of its own; `beam` reads what Erlang's JIT generated.

pub mod beam;
pub mod epilogues;
pub mod generate;
pub mod memory;
pub mod own_stack;
pub mod rows;
