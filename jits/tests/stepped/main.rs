//! What describes generated code, against the truth: a process runs it instruction by instruction, and at each the
//! caller has to be where the description says.

mod cranelift;
mod own_stack;
mod stepper;
