//! Placeholder: filled by the next commits.

pub mod kafka;
