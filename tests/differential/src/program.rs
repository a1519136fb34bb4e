//! Programs: what is run on both backends.
//!
//! A program names topics and clients by their [slots](crate::slot), says how they are configured,
//! and lists steps. Clients are opened by the first step that uses them. Every step means something
//! in every state, even if that is an error, so that any part of a program is a program too; that
//! is what shrinking lives on.

use std::collections::BTreeMap;

use bus_core::StartAt;
use bus_core::{Acks, Assignor, CompressionType, IsolationLevel, Offset, OffsetReset, Partition};
use serde::{Deserialize, Serialize};

use crate::data::Data;
use crate::slot::{
    ConsumerSlot, GroupSlot, IdSlot, Place, ProducerSlot, TopicSlot, TransactorSlot,
};

/// A sequential program: each step is over before the next begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Topics that are there before the first step.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub topics: BTreeMap<TopicSlot, TopicSpec>,
    /// Producers that are not configured by default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub producers: BTreeMap<ProducerSlot, ProducerSpec>,
    /// Transactional producers that are not configured by default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub transactors: BTreeMap<TransactorSlot, TransactorSpec>,
    /// Consumers that are not configured by default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub consumers: BTreeMap<ConsumerSlot, ConsumerSpec>,
    /// What is done.
    pub steps: Vec<Step>,
}

/// How a topic is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSpec {
    /// How many partitions.
    pub partitions: Partition,
    /// How many replicas; the cluster's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i16>,
    /// Properties of the topic.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
}

impl Default for TopicSpec {
    fn default() -> Self {
        Self { partitions: 1, replicas: None, config: BTreeMap::new() }
    }
}

/// How a producer is configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProducerSpec {
    /// `acks`.
    pub acks: Acks,
    /// `enable.idempotence`.
    pub idempotence: bool,
    /// `linger.ms`.
    #[serde(skip_serializing_if = "is_default")]
    pub linger_ms: u32,
    /// `batch.num.messages`; the contract's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_records: Option<u32>,
    /// `message.max.bytes`; the contract's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_request_size: Option<u32>,
    /// `compression.type`.
    #[serde(skip_serializing_if = "is_default")]
    pub compression: CompressionType,
    /// Any property, by its name; set last.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

impl Default for ProducerSpec {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotence: true,
            linger_ms: 0,
            batch_records: None,
            max_request_size: None,
            compression: CompressionType::None,
            properties: BTreeMap::new(),
        }
    }
}

/// How a transactional producer is configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransactorSpec {
    /// The transactional id.
    pub id: IdSlot,
    /// `transaction.timeout.ms`; by default longer than a program.
    pub timeout_ms: u32,
    /// Any property of the producer, by its name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

impl Default for TransactorSpec {
    fn default() -> Self {
        Self { id: IdSlot::I0, timeout_ms: 600_000, properties: BTreeMap::new() }
    }
}

/// How a consumer is configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsumerSpec {
    /// `group.id`, if there is one.
    pub group: Option<GroupSlot>,
    /// `group.instance.id` is the name of the slot.
    #[serde(skip_serializing_if = "is_default")]
    pub is_static: bool,
    /// `partition.assignment.strategy`.
    pub assignor: Assignor,
    /// `auto.offset.reset`.
    pub reset: OffsetReset,
    /// `isolation.level`.
    pub isolation: IsolationLevel,
    /// `enable.auto.commit`; the interval is longer than a program, so that it happens only when
    /// partitions are given up.
    #[serde(skip_serializing_if = "is_default")]
    pub auto_commit: bool,
    /// `enable.auto.offset.store` is off.
    #[serde(skip_serializing_if = "is_default")]
    pub store_by_hand: bool,
    /// `max.poll.records` is 1, so that a read can end after any record.
    #[serde(skip_serializing_if = "is_default")]
    pub one_record_per_poll: bool,
    /// Any property, by its name; set last.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

impl Default for ConsumerSpec {
    fn default() -> Self {
        Self {
            group: None,
            is_static: false,
            assignor: Assignor::Range,
            reset: OffsetReset::Earliest,
            isolation: IsolationLevel::ReadCommitted,
            auto_commit: false,
            store_by_hand: false,
            one_record_per_poll: false,
            properties: BTreeMap::new(),
        }
    }
}

/// One step: a client and what it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// A producer.
    Producer(ProducerSlot, ProducerStep),
    /// A transactional producer.
    Transactor(TransactorSlot, TransactorStep),
    /// A consumer.
    Consumer(ConsumerSlot, ConsumerStep),
    /// Administration.
    Admin(AdminStep),
}

/// What a producer does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProducerStep {
    /// Sends records and awaits their deliveries.
    Send(Sending),
    /// `flush`.
    Flush,
    /// `partitions_for`.
    PartitionsFor(TopicSlot),
    /// `close`; later steps use the closed producer.
    Close,
    /// Closes the producer if it is open, and opens it anew.
    Reopen,
}

/// Records that are sent by one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sending {
    /// Await each delivery before the next send; else all are sent at once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub one_by_one: bool,
    /// The records.
    pub records: Vec<RecordSpec>,
}

/// A record to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordSpec {
    /// The topic.
    pub to: TopicSlot,
    /// The partition; chosen by the partitioner if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<Partition>,
    /// The key.
    #[serde(default, skip_serializing_if = "is_default")]
    pub key: Data,
    /// The value.
    #[serde(default, skip_serializing_if = "is_default")]
    pub value: Data,
    /// The headers, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, Data)>,
    /// The timestamp in milliseconds; the time of the send if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
}

/// What a transactional producer does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransactorStep {
    /// `init_transactions`.
    Init,
    /// `begin`.
    Begin,
    /// Sends records and awaits their deliveries.
    Send(Sending),
    /// `send_offsets`.
    SendOffsets {
        /// The offsets.
        offsets: Vec<(Place, Offset)>,
        /// On whose behalf.
        group: Behalf,
    },
    /// `commit`.
    Commit,
    /// `abort`.
    Abort,
    /// `close`; later steps use the closed producer.
    Close,
    /// Closes the producer if it is open, and opens it anew.
    Reopen,
}

/// Whose group metadata goes with the offsets of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Behalf {
    /// That of a consumer as it is.
    Of(ConsumerSlot),
    /// That of a group without naming a member.
    Group(GroupSlot),
    /// That of a member which the group does not know.
    Stranger(GroupSlot),
}

/// What a consumer does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConsumerStep {
    /// `assign`.
    Assign(Vec<(Place, StartAt)>),
    /// `subscribe`; then the members of the group poll until it is at rest.
    Subscribe {
        /// Topics by name.
        topics: Vec<TopicSlot>,
        /// Topics by one pattern.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pattern: Vec<TopicSlot>,
        /// Whoever has to revoke partitions for it commits its positions first.
        #[serde(default, skip_serializing_if = "is_default")]
        commit_on_revoke: bool,
    },
    /// `unsubscribe`; then the members of the group poll until it is at rest.
    Unsubscribe,
    /// Polls up to the last record that can be read.
    Read,
    /// Polls until so many records are read, where that is exact; else as `Read`.
    Take(usize),
    /// `seek`.
    Seek(Place, StartAt),
    /// `pause`.
    Pause(Vec<Place>),
    /// `resume`.
    Resume(Vec<Place>),
    /// `commit`: place, offset, metadata.
    Commit(Vec<(Place, Offset, String)>),
    /// Commits the positions of the assignment.
    CommitPositions,
    /// `store_offsets`.
    Store(Vec<(Place, Offset)>),
    /// `committed`.
    Committed(Vec<Place>),
    /// `assignment`, `paused`, and `position` of each.
    Positions,
    /// `position` of a partition, assigned or not.
    Position(Place),
    /// `watermarks`.
    Watermarks(Place),
    /// `offsets_for_times`.
    OffsetsForTimes(Vec<(Place, i64)>),
    /// `group_metadata`.
    Membership,
    /// `close`; then the other members of the group poll until it is at rest. Later steps use the
    /// closed consumer.
    Close,
    /// Closes the consumer if it is open, and opens it anew.
    Reopen,
}

/// What an administrator does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminStep {
    /// `create_topic`.
    CreateTopic(TopicSlot, TopicSpec),
    /// `delete_topic`.
    DeleteTopic(TopicSlot),
    /// `create_partitions`.
    CreatePartitions(TopicSlot, Partition),
    /// `describe_topic`.
    DescribeTopic(TopicSlot),
    /// `list_topics`: those of the program.
    ListTopics,
    /// `describe_cluster`.
    DescribeCluster,
    /// `list_groups`: those of the program.
    ListGroups,
    /// `describe_group`.
    DescribeGroup(GroupSlot),
    /// `group_offsets`.
    GroupOffsets(GroupSlot),
    /// `delete_group`.
    DeleteGroup(GroupSlot),
    /// `alter_group_offsets`.
    AlterGroupOffsets(GroupSlot, Vec<(Place, Offset)>),
    /// `topic_config`: the properties of these names.
    TopicConfig(TopicSlot, Vec<String>),
    /// `alter_topic_config`; an empty value restores the default.
    AlterTopicConfig(TopicSlot, BTreeMap<String, String>),
    /// `delete_records` before the offset.
    DeleteRecords(Place, Offset),
}

impl Program {
    /// How a producer is configured.
    pub fn producer(&self, slot: ProducerSlot) -> ProducerSpec {
        self.producers.get(&slot).cloned().unwrap_or_default()
    }

    /// How a transactional producer is configured.
    pub fn transactor(&self, slot: TransactorSlot) -> TransactorSpec {
        self.transactors.get(&slot).cloned().unwrap_or_default()
    }

    /// How a consumer is configured.
    pub fn consumer(&self, slot: ConsumerSlot) -> ConsumerSpec {
        self.consumers.get(&slot).cloned().unwrap_or_default()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
