//! Planted bugs.
fn main() {}
