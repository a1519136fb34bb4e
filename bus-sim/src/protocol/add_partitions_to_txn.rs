//! AddPartitionsToTxn: tells the transaction coordinator which partitions a transaction writes to.
//!
//! A producer sends it before the first record for a partition (version 1 of transactions); a
//! partition leader sends it to verify that a transaction is open, and with version 2 of
//! transactions (KIP-890) to add the partition by itself.

use bus_core::{ErrorKind, TopicPartition};

use super::batch::{ProducerEpoch, ProducerId};
use crate::node::Name;

/// Adds partitions to a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The transactional id.
    pub transactional_id: Name,
    /// Its producer id.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// Only say whether the partitions are in the open transaction (KIP-890).
    pub verify_only: bool,
    /// The partitions.
    pub partitions: Vec<TopicPartition>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// Per partition of the request, in its order: why it was refused, if it was.
    pub partitions: Vec<(TopicPartition, Option<ErrorKind>)>,
}
