//! The one error of all backends. It answers three questions.
//!
//! - [`Error::kind`]: what happened, in Kafka's words.
//! - [`Error::recovery`]: what may I do? The kind gives the default; the operation may override it,
//!   because it is the operation that is retriable, not the error.
//! - [`Error::is_indeterminate`]: may it have happened anyway? A send that timed out can still
//!   reach the log; one that was too large cannot.
//!
//! The table below is part of the contract and is total: every kind has an answer to each.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::record::TopicPartition;

/// The result of everything that the bus does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller may do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Recovery {
    /// Try the same again, after a pause: it may succeed.
    Retry,
    /// Abort the current transaction and begin another.
    Abort,
    /// The membership in the group is gone: poll again, which joins anew.
    Rejoin,
    /// This client cannot go on: close it (fenced, fatal).
    Close,
    /// The same call will fail again: fix the arguments, the configuration, or the code.
    Fix,
}

/// Whether the effect of a failed operation may have happened anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Effect {
    /// Definitely not: the history records `fail`.
    None,
    /// Unknown: the history records `info`.
    Unknown,
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:expr, $recovery:ident, $effect:ident;)+) => {
        /// What happened, in Kafka's words where Kafka has one.
        #[non_exhaustive]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum ErrorKind {
            $($(#[doc = $doc])+ $name,)+
        }

        impl ErrorKind {
            /// Every kind, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Kafka's protocol error code, for the kinds that have one.
            pub const fn code(self) -> Option<i16> {
                match self { $(Self::$name => $code,)+ }
            }

            /// The kind of a Kafka protocol error code.
            pub fn from_code(code: i16) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.code() == Some(code))
            }

            /// What a caller may do, unless the operation says otherwise.
            pub const fn recovery(self) -> Recovery {
                match self { $(Self::$name => Recovery::$recovery,)+ }
            }

            /// Whether the effect may have happened, unless the operation says otherwise.
            pub const fn effect(self) -> Effect {
                match self { $(Self::$name => Effect::$effect,)+ }
            }

            /// The name of the kind.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The sentence of the table.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+),)+ }
            }
        }
    };
}

kinds! {
    // Kafka's protocol errors. Source: org.apache.kafka.common.protocol.Errors.

    /// The broker failed in a way that it has no error code for.
    UnknownServerError = Some(-1), Fix, Unknown;
    /// The offset is outside what the partition holds.
    OffsetOutOfRange = Some(1), Fix, None;
    /// A batch failed its checksum or is otherwise malformed.
    CorruptMessage = Some(2), Retry, None;
    /// The topic or the partition does not exist (or this broker does not know it yet).
    UnknownTopicOrPartition = Some(3), Retry, None;
    /// The partition has no leader at the moment.
    LeaderNotAvailable = Some(5), Retry, None;
    /// The broker is not the leader (or a follower) of the partition.
    NotLeaderOrFollower = Some(6), Retry, None;
    /// The broker gave up waiting; for a produce request the records are in the leader's log.
    RequestTimedOut = Some(7), Retry, Unknown;
    /// The replica is not available.
    ReplicaNotAvailable = Some(9), Retry, None;
    /// The record, or the batch that it makes, is larger than is allowed.
    MessageTooLarge = Some(10), Fix, None;
    /// The metadata of a commit is longer than `offset.metadata.max.bytes`.
    OffsetMetadataTooLarge = Some(12), Fix, None;
    /// The connection broke before the response came.
    NetworkException = Some(13), Retry, Unknown;
    /// The coordinator is still loading its state from its internal topic.
    CoordinatorLoadInProgress = Some(14), Retry, None;
    /// No coordinator is available.
    CoordinatorNotAvailable = Some(15), Retry, None;
    /// The broker is not the coordinator of this group or transactional id.
    NotCoordinator = Some(16), Retry, None;
    /// The topic name breaks Kafka's rules, or the topic is internal.
    InvalidTopic = Some(17), Fix, None;
    /// The request holds more than a segment can.
    RecordListTooLarge = Some(18), Fix, None;
    /// Fewer replicas are in sync than `min.insync.replicas`; nothing was appended.
    NotEnoughReplicas = Some(19), Retry, None;
    /// Appended at the leader, but fewer replicas are in sync than `min.insync.replicas`.
    NotEnoughReplicasAfterAppend = Some(20), Retry, Unknown;
    /// The acks of the request are none of 0, 1, and -1.
    InvalidRequiredAcks = Some(21), Fix, None;
    /// The generation of the member is not that of the group: a rebalance went on without it.
    IllegalGeneration = Some(22), Rejoin, None;
    /// The members of the group have no assignor in common with this one.
    InconsistentGroupProtocol = Some(23), Fix, None;
    /// The group id is empty or otherwise invalid.
    InvalidGroupId = Some(24), Fix, None;
    /// The coordinator does not know the member: it was evicted, or it left.
    UnknownMemberId = Some(25), Rejoin, None;
    /// The session timeout is outside `group.min` and `group.max.session.timeout.ms`.
    InvalidSessionTimeout = Some(26), Fix, None;
    /// The group is rebalancing.
    RebalanceInProgress = Some(27), Rejoin, None;
    /// The commit does not fit into a batch of the offsets topic.
    InvalidCommitOffsetSize = Some(28), Fix, None;
    /// Not authorized to use the topic.
    TopicAuthorizationFailed = Some(29), Fix, None;
    /// Not authorized to use the group.
    GroupAuthorizationFailed = Some(30), Fix, None;
    /// Not authorized to use the cluster.
    ClusterAuthorizationFailed = Some(31), Fix, None;
    /// The timestamp of a record is outside what the topic accepts.
    InvalidTimestamp = Some(32), Fix, None;
    /// The broker does not speak a version of this API that the client can use.
    UnsupportedVersion = Some(35), Fix, None;
    /// The topic exists already.
    TopicAlreadyExists = Some(36), Fix, None;
    /// The number of partitions is invalid, for example lower than before.
    InvalidPartitions = Some(37), Fix, None;
    /// The replication factor is below 1 or above the number of brokers.
    InvalidReplicationFactor = Some(38), Fix, None;
    /// The given assignment of replicas is invalid.
    InvalidReplicaAssignment = Some(39), Fix, None;
    /// A configuration (of a topic, a client, the bus URL) is invalid.
    InvalidConfig = Some(40), Fix, None;
    /// The broker is not the controller.
    NotController = Some(41), Retry, None;
    /// The request is malformed.
    InvalidRequest = Some(42), Fix, None;
    /// A policy of the broker forbids it.
    PolicyViolation = Some(44), Fix, None;
    /// An idempotent producer's batch does not follow the one before.
    OutOfOrderSequenceNumber = Some(45), Close, None;
    /// The batch was appended before, too long ago to say at which offset.
    DuplicateSequenceNumber = Some(46), Fix, Unknown;
    /// The producer's epoch is older than the partition's.
    InvalidProducerEpoch = Some(47), Close, None;
    /// The transaction is in a state that does not allow this.
    InvalidTxnState = Some(48), Close, None;
    /// The producer id is not that of the transactional id.
    InvalidProducerIdMapping = Some(49), Close, None;
    /// The transaction timeout is above `transaction.max.timeout.ms`.
    InvalidTransactionTimeout = Some(50), Fix, None;
    /// The previous transaction of this transactional id is still being completed.
    ConcurrentTransactions = Some(51), Retry, None;
    /// The transaction coordinator was replaced.
    TransactionCoordinatorFenced = Some(52), Retry, None;
    /// Not authorized to use the transactional id.
    TransactionalIdAuthorizationFailed = Some(53), Fix, None;
    /// The partition has no state for the producer id any more.
    UnknownProducerId = Some(59), Abort, None;
    /// The group has members, so it cannot be deleted.
    NonEmptyGroup = Some(68), Fix, None;
    /// The group does not exist.
    GroupIdNotFound = Some(69), Fix, None;
    /// The leader epoch of the request is older than the leader's.
    FencedLeaderEpoch = Some(74), Retry, None;
    /// The leader epoch of the request is newer than the leader's.
    UnknownLeaderEpoch = Some(75), Retry, None;
    /// The broker registered again meanwhile (between brokers only).
    StaleBrokerEpoch = Some(77), Retry, None;
    /// The leader is new and does not know the high watermark yet (KIP-207).
    OffsetNotAvailable = Some(78), Retry, None;
    /// The coordinator gave out a member id; join with it (KIP-394).
    MemberIdRequired = Some(79), Rejoin, None;
    /// The group has `group.max.size` members.
    GroupMaxSizeReached = Some(81), Close, None;
    /// Another member uses the same `group.instance.id` now.
    FencedInstanceId = Some(82), Close, None;
    /// The group uses the topic, so its offsets cannot be deleted.
    GroupSubscribedToTopic = Some(86), Fix, None;
    /// A record breaks a rule of the topic, for example a null key in a compacted one.
    InvalidRecord = Some(87), Fix, None;
    /// An offset is written by a transaction that is still open.
    UnstableOffsetCommit = Some(88), Retry, None;
    /// The broker throttles this client.
    ThrottlingQuotaExceeded = Some(89), Retry, None;
    /// A newer producer uses the same transactional id.
    ProducerFenced = Some(90), Close, None;
    /// The partition changed meanwhile (between brokers only).
    InvalidUpdateVersion = Some(95), Retry, None;
    /// The topic id is unknown: the topic was deleted, or re-created under the same name.
    UnknownTopicId = Some(100), Retry, None;
    /// A replica may not be in sync: it is fenced, or shutting down (between brokers only).
    IneligibleReplica = Some(107), Retry, None;
    /// The transaction must be aborted (KIP-890).
    TransactionAbortable = Some(120), Abort, None;

    // The client's own errors, as librdkafka has them.

    /// Not delivered within `delivery.timeout.ms`. Where it is known that no broker can have the
    /// record, the error says so (`is_indeterminate` is false).
    MessageTimedOut = None, Retry, Unknown;
    /// An operation did not finish within its timeout.
    TimedOut = None, Retry, Unknown;
    /// The producer's buffer is full; wait for `ready`.
    QueueFull = None, Retry, None;
    /// Dropped from the producer's buffer because the producer was dropped or closed.
    Purged = None, Fix, None;
    /// No broker could be reached.
    AllBrokersDown = None, Retry, None;
    /// The time between two polls exceeded `max.poll.interval.ms`: the member left the group.
    MaxPollExceeded = None, Rejoin, None;
    /// There is no committed offset, and `auto.offset.reset` is `none`.
    NoOffset = None, Fix, None;
    /// Authentication failed.
    AuthenticationFailed = None, Fix, None;
    /// The client is in an unrecoverable state; the message says which error put it there.
    Fatal = None, Close, None;

    // The bus's own errors.

    /// The client was closed before the call.
    Closed = None, Fix, None;
    /// An argument is invalid.
    InvalidArgument = None, Fix, None;
    /// The call is not allowed in this state, for example two polls at once.
    InvalidState = None, Fix, None;
    /// The backend does not support this; `docs/fidelity.md` says why.
    Unsupported = None, Fix, None;
    /// A payload could not be encoded or decoded.
    Serialization = None, Fix, None;
    /// The process that the call belongs to was crashed by the simulator.
    Crashed = None, Close, Unknown;
    /// The simulation has no event left, but the application still waits.
    Stalled = None, Fix, Unknown;
    /// The backend failed in a way that has no kind of its own; see the source.
    Backend = None, Fix, Unknown;
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the caller asked for when the error arose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is the method of that name")]
pub enum Operation {
    Connect,
    Run,
    Send,
    Ready,
    Flush,
    Close,
    Subscribe,
    Assign,
    Poll,
    CompleteRebalance,
    Seek,
    Pause,
    Commit,
    StoreOffsets,
    Committed,
    Position,
    Watermarks,
    OffsetsForTimes,
    InitTransactions,
    BeginTransaction,
    SendOffsets,
    CommitTransaction,
    AbortTransaction,
    CreateTopic,
    DeleteTopic,
    CreatePartitions,
    DescribeTopics,
    DescribeCluster,
    ListGroups,
    DescribeGroup,
    GroupOffsets,
    DeleteGroup,
    AlterGroupOffsets,
    TopicConfig,
    DeleteRecords,
    Encode,
    Decode,
}

/// An error of the bus. Cheap to clone; see the [module](self) for the three answers.
///
/// ```
/// use bus_core::{Error, ErrorKind, Recovery};
///
/// let error = Error::new(ErrorKind::RequestTimedOut, "no response within 30s");
/// assert_eq!(error.recovery(), Recovery::Retry);
/// assert!(error.is_indeterminate());
/// // The operation may know better than the kind.
/// let error = error.with_recovery(Recovery::Abort).definite();
/// assert_eq!(error.recovery(), Recovery::Abort);
/// assert!(!error.is_indeterminate());
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    recovery: Recovery,
    effect: Effect,
    message: String,
    operation: Option<Operation>,
    topic_partition: Option<TopicPartition>,
    group_id: Option<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`, with its default recovery and effect. The message is a fragment in lower
    /// case that names what is wrong and, where it can, what would be right.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            recovery: kind.recovery(),
            effect: kind.effect(),
            message: message.into(),
            operation: None,
            topic_partition: None,
            group_id: None,
            source: None,
        }))
    }

    /// Sets what the caller may do.
    #[must_use]
    pub fn with_recovery(mut self, recovery: Recovery) -> Self {
        self.0.recovery = recovery;
        self
    }

    /// States that the effect definitely did not happen.
    #[must_use]
    pub fn definite(mut self) -> Self {
        self.0.effect = Effect::None;
        self
    }

    /// States that the effect may have happened.
    #[must_use]
    pub fn indeterminate(mut self) -> Self {
        self.0.effect = Effect::Unknown;
        self
    }

    /// Names the operation, unless one is named already.
    #[must_use]
    pub fn with_operation(mut self, operation: Operation) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names the partition.
    #[must_use]
    pub fn with_topic_partition(mut self, topic_partition: TopicPartition) -> Self {
        self.0.topic_partition = Some(topic_partition);
        self
    }

    /// Names the group.
    #[must_use]
    pub fn with_group_id(mut self, group_id: impl Into<String>) -> Self {
        self.0.group_id = Some(group_id.into());
        self
    }

    /// Attaches the error beneath this one.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// What happened.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What the caller may do.
    pub fn recovery(&self) -> Recovery {
        self.0.recovery
    }

    /// Whether the effect may have happened anyway.
    pub fn is_indeterminate(&self) -> bool {
        self.0.effect == Effect::Unknown
    }

    /// The message, without the kind and the context.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What the caller asked for.
    pub fn operation(&self) -> Option<Operation> {
        self.0.operation
    }

    /// The partition that it is about.
    pub fn topic_partition(&self) -> Option<&TopicPartition> {
        self.0.topic_partition.as_ref()
    }

    /// The group that it is about.
    pub fn group_id(&self) -> Option<&str> {
        self.0.group_id.as_deref()
    }
}

impl fmt::Display for Error {
    /// A fragment in lower case; never the source, which the reporter walks once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.message.is_empty() {
            f.write_str(self.0.kind.description().trim().trim_end_matches('.'))?;
        } else {
            f.write_str(&self.0.message)?;
        }
        if let Some(topic_partition) = &self.0.topic_partition {
            write!(f, " (partition {topic_partition})")?;
        }
        if let Some(group_id) = &self.0.group_id {
            write!(f, " (group {group_id})")?;
        }
        write!(f, " [{}]", self.0.kind)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        f.debug_struct("Error")
            .field("kind", &inner.kind)
            .field("recovery", &inner.recovery)
            .field("effect", &inner.effect)
            .field("message", &inner.message)
            .field("operation", &inner.operation)
            .field("topic_partition", &inner.topic_partition)
            .field("group_id", &inner.group_id)
            .field("source", &inner.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind, String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_found_again() {
        for &kind in ErrorKind::ALL {
            if let Some(code) = kind.code() {
                assert_eq!(ErrorKind::from_code(code), Some(kind));
            }
        }
        assert_eq!(ErrorKind::from_code(0), None);
    }

    #[test]
    fn display_names_the_context_and_not_the_source() {
        let error = Error::new(ErrorKind::OffsetOutOfRange, "offset 9 is past the end")
            .with_topic_partition(TopicPartition::new("orders", 2))
            .with_source(std::io::Error::other("secret"));
        assert_eq!(
            error.to_string(),
            "offset 9 is past the end (partition orders-2) [OffsetOutOfRange]"
        );
        assert_eq!(error.source().expect("a source").to_string(), "secret");
    }

    #[test]
    fn an_error_without_message_is_described_by_its_kind() {
        let error = Error::from(ErrorKind::QueueFull);
        assert_eq!(
            error.to_string(),
            "The producer's buffer is full; wait for `ready` [QueueFull]"
        );
    }

    #[test]
    fn an_error_is_one_word_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
