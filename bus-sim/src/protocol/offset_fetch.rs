//! OffsetFetch: reads the offsets that a group has committed.

use bus_core::{ErrorKind, Offset, TopicPartition};

use crate::node::Name;

/// Asks for committed offsets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The group.
    pub group_id: Name,
    /// Which partitions; `None` for all that have one.
    pub partitions: Option<Vec<TopicPartition>>,
    /// Refuse offsets that an open transaction is about to change (KIP-447).
    pub require_stable: bool,
}

/// The offsets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// Per partition asked for, in that order; all sorted by partition. Or why there are none.
    pub result: Result<Vec<PartitionResponse>, ErrorKind>,
}

/// The offset of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionResponse {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The offset, `None` if none is committed, or an error.
    pub result: Result<Option<CommittedOffset>, ErrorKind>,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CommittedOffset {
    /// The offset of the next record to process.
    pub offset: Offset,
    /// The leader epoch that was committed with it.
    pub leader_epoch: Option<i32>,
    /// The note beside it.
    pub metadata: Name,
}
