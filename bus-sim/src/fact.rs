//! Ground truth: what really happened inside of the brokers. In the trace, never seen by a checker
//! of client histories.

use std::fmt;

use bus_core::{ErrorKind, Offset, TopicPartition};

use crate::node::{BrokerId, Name, NodeId};
use crate::protocol::batch::{ControlRecord, ProducerEpoch, ProducerId};
use crate::time::SimTime;

/// A fact with its place in a run; kept if
/// [`SimConfig::record_facts`](crate::SimConfig::record_facts) asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldFact {
    /// The number of its event in the trace, from 1 on.
    pub event: u64,
    /// Since when it is true.
    pub at: SimTime,
    /// The node that told it.
    pub node: NodeId,
    /// What is true.
    pub fact: Fact,
}

/// Something that is true since now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    /// A batch was appended to the log of a replica.
    Appended {
        /// The broker.
        broker: BrokerId,
        /// The partition.
        topic_partition: TopicPartition,
        /// The offset of its first record.
        base_offset: Offset,
        /// How many offsets it takes.
        count: u32,
        /// The digest of its records.
        digest: u64,
    },
    /// A batch was appended to the log of a follower.
    Replicated {
        /// The broker.
        broker: BrokerId,
        /// The partition.
        topic_partition: TopicPartition,
        /// The offset of its first record.
        base_offset: Offset,
        /// How many offsets it takes.
        count: u32,
        /// The epoch of the leader that appended it.
        leader_epoch: i32,
    },
    /// A follower took back the end of its log: its leader does not have it.
    Truncated {
        /// The broker.
        broker: BrokerId,
        /// The partition.
        topic_partition: TopicPartition,
        /// Where the log ended.
        from: Offset,
        /// Where it ends now.
        to: Offset,
    },
    /// A loss of power took the end of a log: it was in the page cache only.
    PageCacheLost {
        /// The broker.
        broker: BrokerId,
        /// The partition.
        topic_partition: TopicPartition,
        /// Where the log ended.
        from: Offset,
        /// Where it ends now.
        to: Offset,
    },
    /// A broker leads a partition from here on.
    EpochStart {
        /// The broker.
        broker: BrokerId,
        /// The partition.
        topic_partition: TopicPartition,
        /// The epoch.
        leader_epoch: i32,
        /// The end of its log.
        offset: Offset,
    },
    /// More of a partition is committed: its leader's high watermark rose. Told of partitions with
    /// several replicas.
    HighWatermark {
        /// The leader.
        broker: BrokerId,
        /// The partition.
        topic_partition: TopicPartition,
        /// The high watermark.
        offset: Offset,
    },
    /// The controller changed who is in sync. Told of partitions with several replicas.
    InSync {
        /// The partition.
        topic_partition: TopicPartition,
        /// Those in sync.
        in_sync_replicas: Vec<BrokerId>,
    },
    /// The controller changed who may lead when nobody is in sync (ELR, KIP-966). Told of
    /// partitions with several replicas.
    Eligible {
        /// The partition.
        topic_partition: TopicPartition,
        /// Those eligible.
        eligible_leaders: Vec<BrokerId>,
    },
    /// A batch was recognized as one that is in the log already.
    DuplicateBatch {
        /// The partition.
        topic_partition: TopicPartition,
        /// Where it is.
        base_offset: Offset,
    },
    /// A produce request was refused for a partition.
    ProduceRefused {
        /// The partition.
        topic_partition: TopicPartition,
        /// Why.
        error: ErrorKind,
    },
    /// A group changed its state.
    GroupState {
        /// The group.
        group_id: Name,
        /// Its generation.
        generation: i32,
        /// Its state now.
        state: &'static str,
        /// How many members it has.
        members: usize,
    },
    /// A member left a group.
    MemberLeft {
        /// The group.
        group_id: Name,
        /// The member.
        member_id: Name,
        /// `left`, `session expired`, `rebalance expired`, or `fenced`.
        reason: &'static str,
    },
    /// A commit was stored or refused.
    OffsetCommit {
        /// The group.
        group_id: Name,
        /// The partition.
        topic_partition: TopicPartition,
        /// The offset.
        offset: Offset,
        /// Why it was refused, if it was.
        refused: Option<ErrorKind>,
    },
    /// Something about a transaction.
    Transaction(TransactionFact),
    /// A committed offset expired or was deleted.
    OffsetRemoved {
        /// The group.
        group_id: Name,
        /// The partition.
        topic_partition: TopicPartition,
    },
    /// A partition has a new leader.
    Leader {
        /// The partition.
        topic_partition: TopicPartition,
        /// The leader, or none.
        leader: Option<BrokerId>,
        /// Its epoch.
        leader_epoch: i32,
    },
    /// A topic was created, grown, or deleted.
    Topic {
        /// The topic.
        topic: Name,
        /// How many partitions it has now; none if it was deleted.
        partitions: i32,
    },
    /// A coordinator replayed a partition of its internal topic.
    CoordinatorLoaded {
        /// The broker.
        broker: BrokerId,
        /// The partition.
        topic_partition: TopicPartition,
        /// How many records it holds.
        records: usize,
    },
}

/// Something that is true of a transaction since now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TransactionFact {
    /// An offset was stored for a transaction; it counts once that commits.
    OffsetPending {
        /// The group.
        group_id: Name,
        /// The partition.
        topic_partition: TopicPartition,
        /// The offset.
        offset: Offset,
        /// The producer of the transaction.
        producer_id: ProducerId,
    },
    /// A transaction that an offset was stored for was aborted.
    OffsetAborted {
        /// The group.
        group_id: Name,
        /// The partition.
        topic_partition: TopicPartition,
        /// The producer of the transaction.
        producer_id: ProducerId,
    },
    /// A transactional id changed its state.
    State {
        /// The transactional id.
        transactional_id: Name,
        /// Its state now.
        state: &'static str,
        /// Its producer id.
        producer_id: ProducerId,
        /// Its epoch.
        producer_epoch: ProducerEpoch,
    },
    /// An open transaction is aborted with an epoch that no producer knows.
    Fenced {
        /// The transactional id.
        transactional_id: Name,
        /// Its producer id.
        producer_id: ProducerId,
        /// The epoch from now on.
        producer_epoch: ProducerEpoch,
        /// `timeout` or `another producer`.
        reason: &'static str,
    },
    /// A transactional id was not used for too long.
    Expired {
        /// The transactional id.
        transactional_id: Name,
    },
    /// The end of a transaction was written to a partition.
    Marker {
        /// The partition.
        topic_partition: TopicPartition,
        /// The producer of the transaction.
        producer_id: ProducerId,
        /// The epoch of the marker.
        producer_epoch: ProducerEpoch,
        /// Commit or abort.
        control: ControlRecord,
        /// The offset that it takes.
        offset: Offset,
    },
}

impl From<TransactionFact> for Fact {
    fn from(fact: TransactionFact) -> Self {
        Self::Transaction(fact)
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Appended { broker, topic_partition, base_offset, count, digest } => write!(
                f,
                "appended {topic_partition}@{base_offset} +{count} on broker-{broker} {digest:016x}"
            ),
            Self::Replicated { broker, topic_partition, base_offset, count, leader_epoch } => {
                let place = format_args!("{topic_partition}@{base_offset} +{count}");
                write!(f, "replicated {place} on broker-{broker} epoch {leader_epoch}")
            }
            Self::Truncated { broker, topic_partition, from, to } => {
                write!(f, "truncated {topic_partition}@{from} to {to} on broker-{broker}")
            }
            Self::PageCacheLost { broker, topic_partition, from, to } => {
                write!(f, "power lost {topic_partition}@{from} to {to} on broker-{broker}")
            }
            Self::EpochStart { broker, topic_partition, leader_epoch, offset } => {
                write!(f, "epoch {leader_epoch} of {topic_partition}@{offset} on broker-{broker}")
            }
            Self::HighWatermark { broker, topic_partition, offset } => {
                write!(f, "high watermark {topic_partition}@{offset} on broker-{broker}")
            }
            Self::InSync { topic_partition, in_sync_replicas } => {
                write!(f, "in sync {topic_partition} {in_sync_replicas:?}")
            }
            Self::Eligible { topic_partition, eligible_leaders } => {
                write!(f, "eligible {topic_partition} {eligible_leaders:?}")
            }
            Self::DuplicateBatch { topic_partition, base_offset } => {
                write!(f, "duplicate of {topic_partition}@{base_offset}")
            }
            Self::ProduceRefused { topic_partition, error } => {
                write!(f, "refused {topic_partition} {error}")
            }
            Self::GroupState { group_id, generation, state, members } => {
                write!(f, "group {group_id} {state} generation {generation} members {members}")
            }
            Self::MemberLeft { group_id, member_id, reason } => {
                write!(f, "group {group_id} member {member_id} {reason}")
            }
            Self::OffsetCommit { group_id, topic_partition, offset, refused: None } => {
                write!(f, "group {group_id} committed {topic_partition}@{offset}")
            }
            Self::OffsetCommit { group_id, topic_partition, offset, refused: Some(error) } => {
                write!(f, "group {group_id} refused {topic_partition}@{offset} {error}")
            }
            Self::Transaction(fact) => fact.fmt(f),
            Self::OffsetRemoved { group_id, topic_partition } => {
                write!(f, "group {group_id} removed {topic_partition}")
            }
            Self::Leader { topic_partition, leader: Some(leader), leader_epoch } => {
                write!(f, "leader {topic_partition} broker-{leader} epoch {leader_epoch}")
            }
            Self::Leader { topic_partition, leader: None, leader_epoch } => {
                write!(f, "leader {topic_partition} none epoch {leader_epoch}")
            }
            Self::Topic { topic, partitions } => write!(f, "topic {topic} partitions {partitions}"),
            Self::CoordinatorLoaded { broker, topic_partition, records } => {
                write!(f, "broker-{broker} loaded {topic_partition} records {records}")
            }
        }
    }
}

impl fmt::Display for TransactionFact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OffsetPending { group_id, topic_partition, offset, producer_id } => {
                write!(f, "group {group_id} pending {topic_partition}@{offset} of {producer_id}")
            }
            Self::OffsetAborted { group_id, topic_partition, producer_id } => {
                write!(f, "group {group_id} aborted {topic_partition} of {producer_id}")
            }
            Self::State { transactional_id, state, producer_id, producer_epoch } => {
                write!(f, "transaction {transactional_id} {state} {producer_id}/{producer_epoch}")
            }
            Self::Fenced { transactional_id, producer_id, producer_epoch, reason } => {
                let session = format!("{producer_id}/{producer_epoch}");
                write!(f, "transaction {transactional_id} fenced by {reason} {session}")
            }
            Self::Expired { transactional_id } => {
                write!(f, "transaction {transactional_id} expired")
            }
            Self::Marker { topic_partition, producer_id, producer_epoch, control, offset } => {
                let control = match control {
                    ControlRecord::Commit => "commit",
                    ControlRecord::Abort => "abort",
                };
                let session = format!("{producer_id}/{producer_epoch}");
                write!(f, "marker {topic_partition}@{offset} {control} {session}")
            }
        }
    }
}
