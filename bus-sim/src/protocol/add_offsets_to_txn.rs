//! AddOffsetsToTxn: tells the transaction coordinator that a transaction commits offsets of a
//! group.

use bus_core::ErrorKind;

use super::batch::{ProducerEpoch, ProducerId};
use crate::node::Name;

/// Adds the partition of `__consumer_offsets` that a group belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The transactional id.
    pub transactional_id: Name,
    /// Its producer id.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// The group.
    pub group_id: Name,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// Why it was refused, if it was.
    pub error: Option<ErrorKind>,
}
