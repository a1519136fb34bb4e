//! How fast histories are judged.

fn main() {}
