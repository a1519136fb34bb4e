//! Policies: what Kafka's clients have done in more than one way, as the failure stories need it.
//!
//! Each has the default of today; the other value is the mechanism that clients had before.

/// What clients do in one way or another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPolicy {
    /// `offset.fetch.require.stable`: a consumer of committed records that asks for a committed
    /// offset waits while a transaction is about to change it (KIP-447). True. False as in clients
    /// before KIP-447: a new owner starts at the old offset, and does again what is being
    /// committed.
    pub offset_fetch_requires_stable: bool,
}

impl Default for ClientPolicy {
    fn default() -> Self {
        Self { offset_fetch_requires_stable: true }
    }
}
