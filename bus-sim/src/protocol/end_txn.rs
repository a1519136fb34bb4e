//! EndTxn: commits or aborts a transaction.

use bus_core::ErrorKind;

use super::batch::{ProducerEpoch, ProducerId};
use crate::node::Name;

/// Ends a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The transactional id.
    pub transactional_id: Name,
    /// Its producer id.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// Commit; otherwise abort.
    pub is_commit: bool,
    /// The producer speaks version 2 of transactions (KIP-890): each end raises the epoch.
    pub is_version_2: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// Id and epoch from now on (others than before only with version 2), or why it was refused.
    pub result: Result<(ProducerId, ProducerEpoch), ErrorKind>,
}
