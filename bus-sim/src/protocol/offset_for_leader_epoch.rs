//! OffsetForLeaderEpoch: where the log of a leader epoch ends, to find out what was truncated
//! (KIP-101, KIP-279 for followers; KIP-320 for consumers).

use bus_core::{ErrorKind, Offset, TopicPartition};

use crate::node::BrokerId;

/// Asks for ends of epochs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The follower that asks, or `None` for a consumer.
    pub replica: Option<BrokerId>,
    /// The partitions.
    pub partitions: Vec<PartitionRequest>,
}

/// An epoch of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionRequest {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The leader epoch that the asker knows of; another one is refused.
    pub current_leader_epoch: Option<i32>,
    /// The epoch asked for.
    pub leader_epoch: i32,
}

/// The ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// Per partition of the request, in its order.
    pub partitions: Vec<PartitionResponse>,
}

/// The end of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionResponse {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The largest epoch of the leader's log that is not above the one asked for, and the offset
    /// behind its last record; `None` if the leader has no such epoch.
    pub result: Result<Option<EpochEnd>, ErrorKind>,
}

/// Where an epoch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EpochEnd {
    /// The epoch.
    pub leader_epoch: i32,
    /// The offset behind its last record.
    pub end_offset: Offset,
}
