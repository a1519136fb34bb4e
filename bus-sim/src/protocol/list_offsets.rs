//! ListOffsets: finds an offset by time, or at one of the ends.

use bus_core::{ErrorKind, IsolationLevel, Offset, Timestamp, TopicPartition};

use crate::node::BrokerId;

/// Finds offsets in some partitions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The follower that asks, for whom the end is that of the log, or `None` for a client.
    pub replica: Option<BrokerId>,
    /// Whether the end is the high watermark or the last stable offset.
    pub isolation_level: IsolationLevel,
    /// What to find.
    pub partitions: Vec<PartitionRequest>,
}

/// What to find in a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionRequest {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The leader epoch that the client knows of, if any.
    pub current_leader_epoch: Option<i32>,
    /// What to find.
    pub spec: OffsetSpec,
}

/// What to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OffsetSpec {
    /// The log start.
    Earliest,
    /// The end for the isolation level.
    Latest,
    /// The first record that is not older than this.
    Timestamp(Timestamp),
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// Per partition of the request, in its order.
    pub partitions: Vec<PartitionResponse>,
}

/// What was found in a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionResponse {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The offset, `None` if no record is as young as the timestamp asked for, or an error.
    pub result: Result<Option<Offset>, ErrorKind>,
}
