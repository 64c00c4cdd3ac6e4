//! The `narthex` program.

fn main() {}
