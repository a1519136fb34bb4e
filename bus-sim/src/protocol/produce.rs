//! Produce: appends a batch to each of some partitions.

use std::sync::Arc;
use std::time::Duration;

use bus_core::{Acks, ErrorKind, Offset, Timestamp, TopicPartition};

use super::batch::RecordBatch;
use crate::node::Name;

/// Appends a batch to each of some partitions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The transactional id of a transactional producer.
    pub transactional_id: Option<Name>,
    /// The producer speaks version 2 of transactions (KIP-890): the leader adds the partition to
    /// the transaction.
    pub is_version_2: bool,
    /// How many replicas must have the batches. With none there is no response.
    pub acks: Acks,
    /// How long the leader waits for them.
    pub timeout: Duration,
    /// The batches, one per partition.
    pub partitions: Vec<PartitionRequest>,
}

/// A batch for a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionRequest {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The batch.
    pub batch: Arc<RecordBatch>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// Per partition of the request.
    pub partitions: Vec<PartitionResponse>,
}

/// What came of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionResponse {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// Where the batch is, or why it is not.
    pub result: Result<Appended, ErrorKind>,
}

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The time of the append, where the topic stamps records with it.
    pub log_append_time: Option<Timestamp>,
    /// The log start of the partition.
    pub log_start: Offset,
}
