//! Record batches, format version 2: what producers make, logs hold, and consumers read.
//!
//! A batch is never changed once it is made; logs and messages share it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bus_core::{Bytes, Headers, Offset, Timestamp, TimestampType};

use crate::digest::Digest;

/// The id of a producer, given out by a coordinator.
pub type ProducerId = i64;
/// The epoch of a producer id.
pub type ProducerEpoch = i16;
/// The number of a record in its producer session and partition; wraps after `i32::MAX`.
pub type Sequence = i32;

/// The sequence of batches that have none: those of coordinators.
pub const NO_SEQUENCE: Sequence = -1;

/// The bytes that a batch takes beside its records.
pub const BATCH_OVERHEAD: u32 = 61;

/// One record of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchRecord {
    /// Its time, as the producer set it.
    pub timestamp: Timestamp,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
}

impl BatchRecord {
    /// The bytes that the record takes in a batch: its fields and the lengths before them, at their
    /// usual width.
    pub fn size(&self) -> u32 {
        let field = |bytes: Option<usize>| bytes.map_or(1, |len| len + varint_width(len));
        let headers = self.headers.iter().map(|header| {
            field(Some(header.name.len())) + field(header.value.as_ref().map(Bytes::len))
        });
        let body = 4
            + field(self.key.as_ref().map(Bytes::len))
            + field(self.value.as_ref().map(Bytes::len))
            + headers.sum::<usize>();
        u32::try_from(body + varint_width(body)).unwrap_or(u32::MAX)
    }
}

/// Who produced a batch, for idempotence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProducerStamp {
    /// The producer id.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// The sequence of the first record.
    pub base_sequence: Sequence,
}

impl ProducerStamp {
    /// The sequence of the last of `count` records, wrapping after `i32::MAX`.
    pub fn last_sequence(&self, count: usize) -> Sequence {
        sequence_after(self.base_sequence, count.saturating_sub(1))
    }
}

/// The sequence `count` records after `sequence`, wrapping after `i32::MAX` to 0.
pub fn sequence_after(sequence: Sequence, count: usize) -> Sequence {
    let wide = (i64::from(sequence) + i64::try_from(count).unwrap_or(0)) % (1 << 31);
    i32::try_from(wide).unwrap_or(0)
}

/// The sequence `count` records before `sequence`, wrapping below 0 to `i32::MAX`.
pub fn sequence_before(sequence: Sequence, count: usize) -> Sequence {
    let wide = i64::from(sequence) - i64::try_from(count).unwrap_or(0);
    i32::try_from(wide.rem_euclid(1 << 31)).unwrap_or(0)
}

/// The end of a transaction in a partition, as a record that takes an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlRecord {
    /// The records of the producer before this are committed.
    Commit,
    /// The records of the producer before this are aborted.
    Abort,
}

/// Records that are sent, appended, and read as one.
#[derive(Clone, Debug)]
pub struct RecordBatch {
    /// Who produced it, if idempotence is on.
    pub producer: Option<ProducerStamp>,
    /// Whether it belongs to a transaction.
    pub is_transactional: bool,
    /// Set for a transaction's end; such a batch has one record, which no application sees.
    pub control: Option<ControlRecord>,
    /// The records, at consecutive offsets.
    pub records: Arc<[BatchRecord]>,
    /// The bytes that it takes, on the wire and in the log.
    pub size: u32,
    /// The digest of the records.
    pub digest: u64,
}

impl RecordBatch {
    /// Makes a batch of at least one record.
    pub fn new(producer: Option<ProducerStamp>, records: Vec<BatchRecord>) -> Self {
        let size = records.iter().map(BatchRecord::size).sum::<u32>() + BATCH_OVERHEAD;
        let digest = Digest::of(&records);
        Self {
            producer,
            is_transactional: false,
            control: None,
            records: records.into(),
            size,
            digest,
        }
    }

    /// The end of a transaction, with the epoch of the coordinator that decided it.
    pub fn marker(
        (producer_id, producer_epoch): (ProducerId, ProducerEpoch),
        control: ControlRecord,
        coordinator_epoch: i32,
        timestamp: Timestamp,
    ) -> Self {
        let kind = match control {
            ControlRecord::Abort => 0,
            ControlRecord::Commit => 1,
        };
        // Kafka's form: a version and the kind; a version and the epoch.
        let value = [&[0, 0], coordinator_epoch.to_be_bytes().as_slice()].concat();
        let record = BatchRecord {
            timestamp,
            key: Some(Bytes::copy_from_slice(&[0, 0, 0, kind])),
            value: Some(value.into()),
            headers: Headers::new(),
        };
        let stamp = ProducerStamp { producer_id, producer_epoch, base_sequence: NO_SEQUENCE };
        let batch = Self::new(Some(stamp), vec![record]);
        Self { is_transactional: true, control: Some(control), ..batch }
    }

    /// The epoch of the coordinator that decided the end of a transaction; `None` for records.
    pub fn coordinator_epoch(&self) -> Option<i32> {
        self.control?;
        let value = self.records.first()?.value.as_deref()?;
        Some(i32::from_be_bytes(*value.get(2..)?.first_chunk()?))
    }

    /// The same batch as a part of a transaction.
    #[must_use]
    pub fn transactional(self) -> Self {
        Self { is_transactional: true, ..self }
    }

    /// The same records from another producer session (a retry after a new epoch).
    #[must_use]
    pub fn with_producer(&self, producer: Option<ProducerStamp>) -> Self {
        Self { producer, ..self.clone() }
    }

    /// The latest timestamp of its records.
    pub fn max_timestamp(&self) -> Timestamp {
        self.records.iter().map(|record| record.timestamp).max().unwrap_or(Timestamp::EPOCH)
    }
}

impl PartialEq for RecordBatch {
    fn eq(&self, other: &Self) -> bool {
        self.producer == other.producer
            && self.is_transactional == other.is_transactional
            && self.control == other.control
            && self.digest == other.digest
    }
}

impl Eq for RecordBatch {}

impl Hash for RecordBatch {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.producer, self.is_transactional, self.control).hash(state);
        (self.records.len(), self.digest).hash(state);
    }
}

/// A batch at its place in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// The offset of the first record.
    pub base_offset: Offset,
    /// The epoch of the leader that appended it.
    pub leader_epoch: i32,
    /// Who set the timestamps, and with `LogAppendTime` which one it set for all.
    pub timestamp: StoredTimestamp,
    /// The batch.
    pub batch: Arc<RecordBatch>,
}

/// The timestamps of a batch in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoredTimestamp {
    /// Each record has its own.
    CreateTime,
    /// All records have the leader's.
    LogAppendTime(Timestamp),
}

impl StoredBatch {
    /// The offset behind its last record.
    pub fn next_offset(&self) -> Offset {
        self.base_offset + i64::try_from(self.batch.records.len()).unwrap_or(0)
    }

    /// The timestamp of one of its records, and who set it.
    pub const fn timestamp_of(&self, record: &BatchRecord) -> (Timestamp, TimestampType) {
        match self.timestamp {
            StoredTimestamp::CreateTime => (record.timestamp, TimestampType::CreateTime),
            StoredTimestamp::LogAppendTime(time) => (time, TimestampType::LogAppendTime),
        }
    }

    /// The latest timestamp of its records.
    pub fn max_timestamp(&self) -> Timestamp {
        match self.timestamp {
            StoredTimestamp::CreateTime => self.batch.max_timestamp(),
            StoredTimestamp::LogAppendTime(time) => time,
        }
    }
}

/// The bytes that a length takes as a zigzag varint.
const fn varint_width(len: usize) -> usize {
    match len {
        0..64 => 1,
        64..8_192 => 2,
        8_192..1_048_576 => 3,
        1_048_576..134_217_728 => 4,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 3), 1);
        assert_eq!(sequence_before(1, 3), i32::MAX - 1);
        let stamp =
            ProducerStamp { producer_id: 1, producer_epoch: 0, base_sequence: i32::MAX - 1 };
        assert_eq!(stamp.last_sequence(4), 1);
    }
}
