//! The records of `__transaction_state`: a transactional id, and what is durable of it (Kafka's
//! `TransactionLog`).
//!
//! Without a value a record is a tombstone: the id has expired. The bytes are our own compact form,
//! not Kafka's.

use bus_core::{Headers, Timestamp, TopicPartition};

use super::state::{Metadata, State};
use crate::broker::encoding::{Reader, Writer};
use crate::node::Name;
use crate::protocol::batch::BatchRecord;

/// A durable fact of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct TransactionRecord {
    pub(in crate::broker) transactional_id: Name,
    pub(in crate::broker) value: Option<Metadata>,
}

impl TransactionRecord {
    /// Writes it as a record of the log.
    pub(super) fn encode(&self, timestamp: Timestamp) -> BatchRecord {
        let mut key = Writer::default();
        key.text(&self.transactional_id);
        let value = self.value.as_ref().map(|value| {
            let mut writer = Writer::default();
            writer.metadata(value);
            writer.0.into()
        });
        BatchRecord { timestamp, key: Some(key.0.into()), value, headers: Headers::new() }
    }

    /// Reads it back; `None` for a record that is not ours.
    pub(in crate::broker) fn decode(record: &BatchRecord) -> Option<Self> {
        let transactional_id = Reader(record.key.as_deref()?).text()?;
        let value = match record.value.as_deref() {
            Some(value) => Some(Reader(value).metadata()?),
            None => None,
        };
        Some(Self { transactional_id, value })
    }
}

impl Writer {
    fn metadata(&mut self, value: &Metadata) {
        self.int(value.producer_id);
        self.int(value.previous_producer_id.unwrap_or(-1));
        self.int(value.next_producer_id.unwrap_or(-1));
        self.int(value.producer_epoch.into());
        self.int(value.last_producer_epoch.map_or(-1, i64::from));
        self.duration(value.timeout);
        self.byte(state_id(value.state));
        self.int(value.started.map_or(-1, |time| time.as_millis()));
        self.int(value.updated.as_millis());
        self.byte(u8::from(value.is_version_2));
        for partition in &value.partitions {
            self.text(partition.topic.as_str());
            self.int(partition.partition.into());
        }
    }
}

impl Reader<'_> {
    fn metadata(&mut self) -> Option<Metadata> {
        let present = |number: i64| Some(number).filter(|number| *number >= 0);
        let mut value = Metadata {
            producer_id: self.int()?,
            previous_producer_id: present(self.int()?),
            next_producer_id: present(self.int()?),
            producer_epoch: self.int()?.try_into().ok()?,
            last_producer_epoch: present(self.int()?).and_then(|epoch| epoch.try_into().ok()),
            timeout: self.duration()?,
            state: state_of(self.byte()?)?,
            started: present(self.int()?).map(Timestamp::from_millis),
            updated: Timestamp::from_millis(self.int()?),
            is_version_2: self.byte()? != 0,
            partitions: std::collections::BTreeSet::new(),
        };
        while !self.is_at_end() {
            let topic = self.text()?;
            let partition = self.int()?.try_into().ok()?;
            value.partitions.insert(TopicPartition::new(&*topic, partition));
        }
        Some(value)
    }
}

/// Kafka's number of a state.
const fn state_id(state: State) -> u8 {
    match state {
        State::Empty => 0,
        State::Ongoing => 1,
        State::PrepareCommit => 2,
        State::PrepareAbort => 3,
        State::CompleteCommit => 4,
        State::CompleteAbort => 5,
        State::Dead => 6,
        State::PrepareEpochFence => 7,
    }
}

const fn state_of(id: u8) -> Option<State> {
    Some(match id {
        0 => State::Empty,
        1 => State::Ongoing,
        2 => State::PrepareCommit,
        3 => State::PrepareAbort,
        4 => State::CompleteCommit,
        5 => State::CompleteAbort,
        6 => State::Dead,
        7 => State::PrepareEpochFence,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bus_core::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn metadata() -> impl Strategy<Value = Metadata> {
        let id = || proptest::option::of(0..i64::MAX);
        let ids = (0..i64::MAX, id(), id());
        let epochs = (-1..i16::MAX, proptest::option::of(0..i16::MAX));
        let times = (0_u64..1 << 60, proptest::option::of(0..i64::MAX), 0..i64::MAX);
        let partitions = proptest::collection::btree_set((".{0,8}", any::<i32>()), 0..4);
        (ids, epochs, times, 0_u8..8, partitions, any::<bool>()).prop_map(
            |(ids, epochs, times, state, partitions, is_version_2)| Metadata {
                producer_id: ids.0,
                previous_producer_id: ids.1,
                next_producer_id: ids.2,
                producer_epoch: epochs.0,
                last_producer_epoch: epochs.1,
                timeout: Duration::from_nanos(times.0),
                state: state_of(state).unwrap(),
                partitions: partitions
                    .into_iter()
                    .map(|(topic, partition)| TopicPartition::new(&*topic, partition))
                    .collect(),
                started: times.1.map(Timestamp::from_millis),
                updated: Timestamp::from_millis(times.2),
                is_version_2,
            },
        )
    }

    proptest! {
        #[test]
        fn records_are_read_as_they_were_written(
            id in ".{0,8}",
            value in proptest::option::of(metadata()),
        ) {
            let record = TransactionRecord { transactional_id: id.into(), value };
            let encoded = record.encode(Timestamp::EPOCH);
            prop_assert_eq!(TransactionRecord::decode(&encoded), Some(record));
        }

        #[test]
        fn other_bytes_are_no_record_and_no_panic(
            key in proptest::collection::vec(any::<u8>(), 0..32),
            value in proptest::collection::vec(any::<u8>(), 0..128),
        ) {
            let (key, value) = (Some(Bytes::from(key)), Some(Bytes::from(value)));
            let headers = Headers::new();
            let record = BatchRecord { timestamp: Timestamp::EPOCH, key, value, headers };
            TransactionRecord::decode(&record);
        }
    }
}
