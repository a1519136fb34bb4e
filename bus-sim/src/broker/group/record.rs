//! The records of `__consumer_offsets`: every durable fact of a group, and how it is written as
//! bytes.
//!
//! A fact is a key and a value; without a value it is a tombstone. The bytes are our own compact
//! form, not Kafka's.

use std::time::Duration;

use bus_core::{Bytes, Headers, Offset, Timestamp, TopicPartition};

use crate::broker::encoding::{Reader, Writer};
use crate::node::Name;
use crate::protocol::batch::BatchRecord;

/// A durable fact of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) enum GroupRecord {
    /// The group as a whole.
    Group { group_id: Name, value: Option<GroupValue> },
    /// What the group committed in a partition.
    Offset { group_id: Name, topic_partition: TopicPartition, value: Option<OffsetValue> },
}

/// A group as of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct GroupValue {
    pub(in crate::broker) protocol_type: Option<Name>,
    pub(in crate::broker) generation: i32,
    pub(in crate::broker) protocol: Option<Name>,
    pub(in crate::broker) leader: Option<Name>,
    /// Since when it is in its state.
    pub(in crate::broker) since: Timestamp,
    pub(in crate::broker) members: Vec<MemberValue>,
}

/// A member as of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct MemberValue {
    pub(in crate::broker) member_id: Name,
    pub(in crate::broker) group_instance_id: Option<Name>,
    pub(in crate::broker) client_id: Name,
    pub(in crate::broker) rebalance_timeout: Duration,
    pub(in crate::broker) session_timeout: Duration,
    /// Its metadata for the protocol of the group.
    pub(in crate::broker) subscription: Bytes,
    pub(in crate::broker) assignment: Bytes,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct OffsetValue {
    pub(in crate::broker) offset: Offset,
    pub(in crate::broker) leader_epoch: Option<i32>,
    pub(in crate::broker) metadata: Name,
    /// When it was committed.
    pub(in crate::broker) committed: Timestamp,
}

impl GroupRecord {
    /// Writes it as a record of the log.
    pub(super) fn encode(&self, timestamp: Timestamp) -> BatchRecord {
        let mut key = Writer::default();
        let mut value = Writer::default();
        let has_value = match self {
            Self::Group { group_id, value: group } => {
                key.byte(GROUP);
                key.text(group_id);
                group.as_ref().inspect(|group| value.group(group)).is_some()
            }
            Self::Offset { group_id, topic_partition, value: offset } => {
                key.byte(OFFSET);
                key.text(group_id);
                key.text(topic_partition.topic.as_str());
                key.int(topic_partition.partition.into());
                offset.as_ref().inspect(|offset| value.offset(offset)).is_some()
            }
        };
        BatchRecord {
            timestamp,
            key: Some(key.0.into()),
            value: has_value.then(|| value.0.into()),
            headers: Headers::new(),
        }
    }

    /// Reads it back; `None` for a record that is not ours.
    pub(super) fn decode(record: &BatchRecord) -> Option<Self> {
        let mut key = Reader(record.key.as_deref()?);
        let mut value = record.value.as_deref().map(Reader);
        match key.byte()? {
            GROUP => {
                let group_id = key.text()?;
                let value = match &mut value {
                    Some(value) => Some(value.group()?),
                    None => None,
                };
                Some(Self::Group { group_id, value })
            }
            OFFSET => {
                let group_id = key.text()?;
                let topic = key.text()?;
                let partition = i32::try_from(key.int()?).ok()?;
                let topic_partition = TopicPartition::new(&*topic, partition);
                let value = match &mut value {
                    Some(value) => Some(value.offset()?),
                    None => None,
                };
                Some(Self::Offset { group_id, topic_partition, value })
            }
            _ => None,
        }
    }
}

impl Writer {
    fn group(&mut self, group: &GroupValue) {
        self.optional(group.protocol_type.as_ref());
        self.int(group.generation.into());
        self.optional(group.protocol.as_ref());
        self.optional(group.leader.as_ref());
        self.int(group.since.as_millis());
        for member in &group.members {
            self.text(&member.member_id);
            self.optional(member.group_instance_id.as_ref());
            self.text(&member.client_id);
            self.duration(member.rebalance_timeout);
            self.duration(member.session_timeout);
            self.bytes(&member.subscription);
            self.bytes(&member.assignment);
        }
    }

    fn offset(&mut self, value: &OffsetValue) {
        self.int(value.offset);
        self.int(value.leader_epoch.map_or(-1, i64::from));
        self.text(&value.metadata);
        self.int(value.committed.as_millis());
    }
}

impl Reader<'_> {
    fn group(&mut self) -> Option<GroupValue> {
        let mut group = GroupValue {
            protocol_type: self.optional()?,
            generation: i32::try_from(self.int()?).ok()?,
            protocol: self.optional()?,
            leader: self.optional()?,
            since: Timestamp::from_millis(self.int()?),
            members: Vec::new(),
        };
        while !self.is_at_end() {
            group.members.push(MemberValue {
                member_id: self.text()?,
                group_instance_id: self.optional()?,
                client_id: self.text()?,
                rebalance_timeout: self.duration()?,
                session_timeout: self.duration()?,
                subscription: Bytes::copy_from_slice(self.bytes()?),
                assignment: Bytes::copy_from_slice(self.bytes()?),
            });
        }
        Some(group)
    }

    fn offset(&mut self) -> Option<OffsetValue> {
        Some(OffsetValue {
            offset: self.int()?,
            leader_epoch: i32::try_from(self.int()?).ok().filter(|epoch| *epoch >= 0),
            metadata: self.text()?,
            committed: Timestamp::from_millis(self.int()?),
        })
    }
}

/// The first byte of the key of a group.
const GROUP: u8 = 2;
/// The first byte of the key of an offset.
const OFFSET: u8 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = Name> {
        ".{0,8}".prop_map(Name::from)
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..16).prop_map(Bytes::from)
    }

    fn member() -> impl Strategy<Value = MemberValue> {
        let ids = (name(), proptest::option::of(name()), name());
        (ids, 0_u64..1 << 60, 0_u64..1 << 60, bytes(), bytes()).prop_map(
            |((member_id, group_instance_id, client_id), rebalance, session, first, second)| {
                MemberValue {
                    member_id,
                    group_instance_id,
                    client_id,
                    rebalance_timeout: Duration::from_nanos(rebalance),
                    session_timeout: Duration::from_nanos(session),
                    subscription: first,
                    assignment: second,
                }
            },
        )
    }

    fn group() -> impl Strategy<Value = GroupValue> {
        let optional = || proptest::option::of(name());
        let members = proptest::collection::vec(member(), 0..4);
        (optional(), any::<i32>(), optional(), optional(), any::<i64>(), members).prop_map(
            |(protocol_type, generation, protocol, leader, since, members)| GroupValue {
                protocol_type,
                generation,
                protocol,
                leader,
                since: Timestamp::from_millis(since),
                members,
            },
        )
    }

    fn offset() -> impl Strategy<Value = OffsetValue> {
        (any::<i64>(), proptest::option::of(0..i32::MAX), name(), any::<i64>()).prop_map(
            |(offset, leader_epoch, metadata, committed)| OffsetValue {
                offset,
                leader_epoch,
                metadata,
                committed: Timestamp::from_millis(committed),
            },
        )
    }

    fn record() -> impl Strategy<Value = GroupRecord> {
        prop_oneof![
            (name(), proptest::option::of(group()))
                .prop_map(|(group_id, value)| GroupRecord::Group { group_id, value }),
            (name(), name(), any::<i32>(), proptest::option::of(offset())).prop_map(
                |(group_id, topic, partition, value)| GroupRecord::Offset {
                    group_id,
                    topic_partition: TopicPartition::new(&*topic, partition),
                    value,
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn records_are_read_as_they_were_written(record in record()) {
            let encoded = record.encode(Timestamp::EPOCH);
            prop_assert_eq!(GroupRecord::decode(&encoded), Some(record));
        }

        #[test]
        fn other_bytes_are_no_record_and_no_panic(key in bytes(), value in bytes()) {
            let headers = Headers::new();
            let (key, value) = (Some(key), Some(value));
            let record = BatchRecord { timestamp: Timestamp::EPOCH, key, value, headers };
            GroupRecord::decode(&record);
        }
    }
}
