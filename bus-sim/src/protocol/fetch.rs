//! Fetch: reads batches, waiting for some to come (a long poll).
//!
//! Simplified: no fetch sessions (KIP-227): each request names all its partitions.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use bus_core::{ErrorKind, IsolationLevel, Offset, TopicPartition};

use super::batch::{ProducerId, StoredBatch};
use super::cluster::BrokerEpoch;
use super::hash_batches;
use super::offset_for_leader_epoch::EpochEnd;
use crate::node::BrokerId;

/// Reads batches of some partitions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The follower that fetches, with its registration (KIP-903), or `None` for a consumer.
    pub replica: Option<(BrokerId, BrokerEpoch)>,
    /// How long to wait for `min_bytes`.
    pub max_wait: Duration,
    /// Answer as soon as there is this much.
    pub min_bytes: u32,
    /// The most to answer with; the first batch always fits.
    pub max_bytes: u32,
    /// How far to read.
    pub isolation_level: IsolationLevel,
    /// What to read.
    pub partitions: Vec<PartitionRequest>,
}

/// Where to read a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionRequest {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The first offset wanted.
    pub offset: Offset,
    /// The leader epoch that the client knows of, if any; another one is refused (KIP-320).
    pub current_leader_epoch: Option<i32>,
    /// Of a follower: the epoch of the last record of its log, for the leader to find out where the
    /// logs diverge (KIP-595). `None` if its log is empty.
    pub last_fetched_epoch: Option<i32>,
    /// The most to read of this partition; the first batch always fits.
    pub max_bytes: u32,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// Per partition of the request, in its order.
    pub partitions: Vec<PartitionResponse>,
}

/// What was read of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionResponse {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The batches, or why there are none.
    pub result: Result<Fetched, ErrorKind>,
}

/// What was read of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The high watermark.
    pub high_watermark: Offset,
    /// The last stable offset.
    pub last_stable_offset: Offset,
    /// The log start.
    pub log_start: Offset,
    /// With `read_committed`: aborted transactions that overlap, as producer and first offset,
    /// sorted by offset.
    pub aborted: Vec<(ProducerId, Offset)>,
    /// Of a follower whose log diverges: the largest epoch of the leader that is not above the one
    /// named, and where it ends. There are no batches then.
    pub diverging_epoch: Option<EpochEnd>,
    /// The batches, in order. The first may begin before the offset that was asked for.
    pub batches: Vec<StoredBatch>,
}

impl Hash for Fetched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.high_watermark, self.last_stable_offset, self.log_start).hash(state);
        (&self.aborted, self.diverging_epoch).hash(state);
        hash_batches(&self.batches, state);
    }
}
