//! FindCoordinator: the leader of the partition of an internal topic that a key hashes to.

use bus_core::ErrorKind;

use crate::node::{BrokerId, Name};

/// Which coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CoordinatorType {
    /// Of a group; its records are in `__consumer_offsets`.
    Group,
    /// Of a transactional id; its records are in `__transaction_state`.
    Transaction,
}

/// Asks for a coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Which kind.
    pub coordinator_type: CoordinatorType,
    /// The group or transactional id.
    pub key: Name,
}

/// The coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// The broker, or why there is none.
    pub result: Result<BrokerId, ErrorKind>,
}
