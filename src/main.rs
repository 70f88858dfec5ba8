//! The `rusuban` program.

fn main() {}
