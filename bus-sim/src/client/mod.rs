//! Clients (placeholder; the lead writes this folder).

/// A timer of a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientTimer {
    /// Placeholder.
    Tick,
}

/// An outcome for the application.
#[derive(Debug)]
pub struct Completion;
