//! The wan-run command.

fn main() {}
