//! WriteTxnMarkers: the transaction coordinator has the ends of transactions written to their
//! partitions.

use bus_core::{ErrorKind, TopicPartition};

use super::batch::{ControlRecord, ProducerEpoch, ProducerId};

/// Writes markers, at the leader of their partitions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// One per transaction.
    pub markers: Vec<Marker>,
}

/// The end of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Marker {
    /// The producer.
    pub producer_id: ProducerId,
    /// Its epoch: a marker of a higher one fences the producers before it.
    pub producer_epoch: ProducerEpoch,
    /// Commit or abort.
    pub control: ControlRecord,
    /// The leader epoch of the coordinator's partition: a marker of an older one is refused.
    pub coordinator_epoch: i32,
    /// The transaction ended by version 2 (KIP-890): the epoch is above that of its records.
    pub is_version_2: bool,
    /// The partitions.
    pub partitions: Vec<TopicPartition>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// Per marker of the request: its producer, and per partition why it was refused, if it was.
    pub markers: Vec<MarkerResponse>,
}

/// What came of a marker: per partition why it was refused, if it was.
pub type MarkerResponse = (ProducerId, Vec<(TopicPartition, Option<ErrorKind>)>);
