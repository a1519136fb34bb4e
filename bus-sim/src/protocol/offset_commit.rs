//! OffsetCommit: stores offsets for a group.

use bus_core::{ErrorKind, Offset, TopicPartition};

use crate::node::Name;

/// Commits offsets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The group.
    pub group_id: Name,
    /// The generation of the member, or -1 outside of group management.
    pub generation: i32,
    /// The member, or empty outside of group management.
    pub member_id: Name,
    /// Its static id, if there is one.
    pub group_instance_id: Option<Name>,
    /// The offsets.
    pub partitions: Vec<PartitionRequest>,
}

/// The offset of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionRequest {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The offset of the next record to process.
    pub offset: Offset,
    /// The leader epoch of the record before it, if known.
    pub leader_epoch: Option<i32>,
    /// The note beside it.
    pub metadata: Name,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// Per partition of the request, in its order: why it was refused, if it was.
    pub partitions: Vec<(TopicPartition, Option<ErrorKind>)>,
}
