//! The entries of a history: operations, each invoked and then ended once, and notes.

use std::time::Duration;

use bus_core::{
    Acks, Error, ErrorKind, IsolationLevel, Offset, OffsetReset, Partition, RebalanceKind,
    Recovery, StartAt,
};
use serde::{Deserialize, Serialize};

use super::{ClientId, NameId, OperationId, PartitionId, ProcessId, TopicId};

/// One entry: who, when, what. The order of entries is the order of events: an operation that
/// ended before another was invoked stands before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Nanoseconds since the bus was made: virtual on the simulator.
    pub at: u64,
    /// Whose entry it is.
    pub client: ClientId,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// An operation was called for.
    Invoke(OperationId, Call),
    /// It succeeded.
    Ok(OperationId, Answer),
    /// It failed, and definitely has no effect.
    Fail(OperationId, Failure),
    /// It failed, or was given up, and nobody knows whether it has an effect.
    Info(OperationId, Option<Failure>),
    /// Something that is no operation.
    Note(Note),
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the method of that name, and its arguments")]
pub enum Call {
    // Producer.
    Send(Box<SentRecord>),
    Flush,
    PartitionsFor(TopicId),
    CloseProducer {
        timeout: Duration,
    },
    InitTransactions,
    Begin,
    SendOffsets {
        group: NameId,
        generation: i32,
        offsets: Box<[(PartitionId, Offset)]>,
    },
    CommitTransaction,
    AbortTransaction,
    // Consumer.
    Subscribe(Box<[TopicId]>),
    Unsubscribe,
    Assign(Box<[(PartitionId, StartAt)]>),
    Poll,
    /// The first completion of a rebalance guard.
    Complete {
        kind: RebalanceKind,
        partitions: Box<[PartitionId]>,
    },
    Seek(PartitionId, StartAt),
    Pause(Box<[PartitionId]>),
    Resume(Box<[PartitionId]>),
    Commit(Box<[(PartitionId, Offset)]>),
    StoreOffsets(Box<[(PartitionId, Offset)]>),
    Committed(Box<[PartitionId]>),
    Watermarks(PartitionId),
    CloseConsumer,
    // Administration.
    CreateTopic {
        topic: TopicId,
        partitions: Partition,
    },
    CreatePartitions {
        topic: TopicId,
        partitions: Partition,
    },
    DescribeTopic(TopicId),
    DeleteTopic(TopicId),
    DeleteRecords(PartitionId, Offset),
    GroupOffsets(NameId),
    AlterGroupOffsets {
        group: NameId,
        offsets: Box<[(PartitionId, Offset)]>,
    },
    DeleteGroup(NameId),
}

/// A record as it was given to `send`. Its contents are kept as a digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentRecord {
    /// Where to.
    pub topic: TopicId,
    /// The partition, if the application chose it.
    pub partition: Option<Partition>,
    /// Kafka's hash of the key, if there is one.
    pub key: Option<i32>,
    /// The digest of key, value, and headers.
    pub digest: u64,
    /// The timestamp, if the application gave it, in milliseconds.
    pub timestamp: Option<i64>,
    /// The time of day of the call, in milliseconds.
    pub now: i64,
    /// The input record that this one is made of, if the application says so.
    pub cause: Option<(PartitionId, Offset)>,
}

/// A record as a poll returned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRecord {
    /// Where from.
    pub partition: PartitionId,
    /// The epoch of the leader that appended it, where the backend knows it.
    pub leader_epoch: Option<i32>,
    /// Its place there.
    pub offset: Offset,
    /// The digest of key, value, and headers.
    pub digest: u64,
    /// Its timestamp, in milliseconds.
    pub timestamp: i64,
    /// Whether the leader set the timestamp.
    pub is_log_append_time: bool,
}

/// What came of an operation that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Nothing but that it is done.
    Done,
    /// A record was delivered.
    Delivered {
        /// Where it is.
        partition: PartitionId,
        /// Its offset; none with acks 0.
        offset: Option<Offset>,
        /// Its timestamp in milliseconds, where the backend knows it.
        timestamp: Option<i64>,
    },
    /// A poll returned records, or none when its time was up.
    Records(Box<[SeenRecord]>),
    /// A poll returned a rebalance guard.
    Rebalance {
        /// What happened.
        kind: RebalanceKind,
        /// To which partitions.
        partitions: Box<[PartitionId]>,
        /// The generation that the member was in, where it is known.
        generation: Option<i32>,
    },
    /// The committed offsets of partitions, in the order of the call.
    Committed(Box<[Option<Offset>]>),
    /// The ends of a partition.
    Watermarks {
        /// The log start.
        low: Offset,
        /// The end, as far as this client may read.
        high: Offset,
    },
    /// The committed offsets of a group with the high watermarks.
    GroupOffsets(Box<[(PartitionId, Offset, Offset)]>),
    /// The number of partitions of a topic.
    Partitions(Partition),
    /// The log start after records were deleted.
    LogStart(Offset),
}

/// How an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened.
    pub kind: ErrorKind,
    /// What the caller may do.
    pub recovery: Recovery,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self { kind: error.kind(), recovery: error.recovery() }
    }
}

/// What is no operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// The client was made.
    Made,
    /// The client was dropped: without a close, its process may have crashed.
    Dropped,
    /// The application began to handle a record.
    HandleStart(PartitionId, Offset),
    /// The application settled a record.
    HandleEnd(PartitionId, Offset, Handled),
    /// Others write to the topic, too.
    Foreign(TopicId),
    /// All faults are healed: from here on, progress is due.
    Quiesced,
    /// The client has read everything from `low` to `high`, after all was over.
    Audited {
        /// The partition.
        partition: PartitionId,
        /// The log start.
        low: Offset,
        /// The end.
        high: Offset,
    },
}

/// How the application settled a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handled {
    /// Its effect is done.
    Done,
    /// It was left out on purpose.
    Skipped,
    /// It went to a dead letter topic.
    Dead,
    /// It failed, and is tried again.
    Failed,
}

impl Handled {
    /// Whether the group need not see the record again.
    pub const fn is_settled(self) -> bool {
        match self {
            Self::Done | Self::Skipped | Self::Dead => true,
            Self::Failed => false,
        }
    }
}

/// A client with what the checkers need to know of its configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Whose it is.
    pub process: ProcessId,
    /// In which life of the process, from 1 on.
    pub incarnation: u32,
    /// What it is.
    pub role: Role,
}

/// What a client is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A producer.
    Producer(ProducerFacts),
    /// A consumer.
    Consumer(ConsumerFacts),
    /// An administration client, or what the notes of a test stand under.
    Admin,
}

/// The configuration of a producer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerFacts {
    /// `acks`.
    pub acks: Acks,
    /// `enable.idempotence`.
    pub idempotence: bool,
    /// `max.in.flight.requests.per.connection`.
    pub max_in_flight: u32,
    /// `retries`.
    pub retries: u32,
    /// `delivery.timeout.ms`.
    pub delivery_timeout: Duration,
    /// The transactional id and its timeout.
    pub transaction: Option<(NameId, Duration)>,
}

impl ProducerFacts {
    /// IDEM: a retry is recognized.
    pub const fn is_idempotent(&self) -> bool {
        self.idempotence || self.transaction.is_some()
    }

    /// ORD: retries keep the order of the calls.
    pub fn keeps_order(&self) -> bool {
        self.is_idempotent()
            || self.max_in_flight == 1
            || (self.retries == 0 && self.acks != Acks::None)
    }
}

/// The configuration of a consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerFacts {
    /// `group.id`.
    pub group: Option<NameId>,
    /// `group.instance.id`.
    pub instance: Option<String>,
    /// `isolation.level`.
    pub isolation: IsolationLevel,
    /// `auto.offset.reset`.
    pub reset: OffsetReset,
    /// `enable.auto.commit`.
    pub auto_commit: bool,
    /// `enable.auto.offset.store`.
    pub auto_store: bool,
    /// `session.timeout.ms`.
    pub session_timeout: Duration,
    /// `max.poll.interval.ms`.
    pub max_poll_interval: Duration,
    /// `max.poll.records`.
    pub max_poll_records: u32,
    /// Whether its assignor moves only what must move.
    pub is_cooperative: bool,
}

impl ConsumerFacts {
    /// After how long without a poll the group may give its partitions away.
    pub fn patience(&self) -> Duration {
        self.session_timeout.min(self.max_poll_interval)
    }
}
