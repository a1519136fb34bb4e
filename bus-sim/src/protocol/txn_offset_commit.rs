//! TxnOffsetCommit: stores offsets for a group that count once the transaction commits.

use bus_core::{ErrorKind, TopicPartition};

use super::batch::{ProducerEpoch, ProducerId};
use super::offset_commit::PartitionRequest;
use crate::node::Name;

/// Stores pending offsets at the coordinator of the group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The transactional id.
    pub transactional_id: Name,
    /// Its producer id.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// The producer speaks version 2 of transactions (KIP-890): the coordinator of the group adds
    /// its partition to the transaction.
    pub is_version_2: bool,
    /// The group.
    pub group_id: Name,
    /// The generation of the member (KIP-447), or -1 if none is named.
    pub generation: i32,
    /// The member, or empty if none is named.
    pub member_id: Name,
    /// Its static id, if there is one.
    pub group_instance_id: Option<Name>,
    /// The offsets.
    pub partitions: Vec<PartitionRequest>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// Per partition of the request, in its order: why it was refused, if it was.
    pub partitions: Vec<(TopicPartition, Option<ErrorKind>)>,
}
