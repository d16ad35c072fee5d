//! The `framewalk` command.

fn main() {}
