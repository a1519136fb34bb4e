//! Clients: producer, consumer, and administration, imitating librdkafka, which is the client of
//! the other backend.
//!
//! - `connections`: connections to brokers, requests in flight, timeouts, back-off;
//! - `timeout`: how long they wait for a response;
//! - `metadata`: what a client knows of the cluster, and how stale that is;
//! - `producer`: accumulator, batches, retries, sequences;
//! - `consumer`: positions, fetches, membership, commits;
//! - `admin`: one request after another to where it belongs.

pub(crate) mod admin;
pub(crate) mod connections;
pub(crate) mod consumer;
pub(crate) mod metadata;
pub(crate) mod producer;
pub(crate) mod timeout;

use std::fmt;
use std::task::Waker;
use std::time::Duration;

use bus_core::{CommitSender, DeliverySender, Result, Timestamp, TopicPartition};

use crate::choice::{Choices, Label};
use crate::node::{Effects, Input, NodeId};
use crate::policy::ClientPolicy;
use crate::time::SimTime;

use admin::Admin;
pub use connections::{Link, Purpose};
use consumer::Consumer;
use producer::Producer;

/// A timer of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientTimer {
    /// When to look for requests that had no response in time.
    RequestTimeout(Link),
    /// When to connect again.
    Reconnect(Link),
    /// When to give up an attempt to connect.
    ConnectTimeout(Link),
    /// When to connect to another broker, for what any broker can answer.
    TryAnotherBroker,
    /// When to ask for metadata again.
    MetadataRefresh,
    /// When the oldest record of an open batch has lingered.
    Linger,
    /// When the oldest undelivered record runs out of time.
    DeliveryTimeout,
    /// When a failed batch, or a failed request for a producer id, is due again.
    Retry,
    /// When something of a transaction is due: a request to its coordinator, or the end of a call.
    Transaction,
    /// When a waiting poll is up.
    PollTimeout,
    /// When the application has not polled for too long.
    MaxPollInterval,
    /// When to send the next heartbeat.
    Heartbeat,
    /// When the member must take its session for expired.
    SessionTimeout,
    /// When to ask for the coordinator, or to join, again.
    GroupRetry,
    /// When to commit stored offsets.
    AutoCommit,
    /// When to fetch again from a broker that had an error.
    FetchBackoff,
    /// When to look up an offset again.
    OffsetRetry,
    /// When to commit again after a retriable error.
    CommitRetry,
    /// When to ask for committed offsets again.
    CommittedRetry,
    /// When an administrative operation is given up.
    OperationTimeout,
}

/// A client of any kind.
#[derive(Debug)]
pub(crate) enum ClientMachine {
    Producer(Box<Producer>),
    Consumer(Box<Consumer>),
    Admin(Box<Admin>),
}

impl ClientMachine {
    pub(crate) fn handle(&mut self, now: SimTime, input: Input, effects: &mut Effects) {
        match self {
            Self::Producer(producer) => producer.handle(now, input, effects),
            Self::Consumer(consumer) => consumer.handle(now, input, effects),
            Self::Admin(admin) => admin.handle(now, input, effects),
        }
    }

    /// The tasks of its process stand still from now on, or go on.
    pub(crate) fn set_stalled(&mut self, is_stalled: bool, now: SimTime, effects: &mut Effects) {
        match self {
            Self::Consumer(consumer) if is_stalled => consumer.stall(now, effects),
            Self::Consumer(consumer) => consumer.unstall(effects),
            // What they have is done without the application.
            Self::Producer(_) | Self::Admin(_) => {}
        }
    }

    /// What a call of the application waits for, if one does.
    pub(crate) fn waiting(&self) -> Option<String> {
        match self {
            Self::Producer(producer) => producer.waiting(),
            Self::Consumer(consumer) => consumer.waiting(),
            Self::Admin(admin) => admin.waiting(),
        }
    }
}

/// Who a client is: its node, a stable name for its choices, and what draws those.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    pub(crate) name: u64,
    pub(crate) choices: Choices,
    /// `socket.timeout.ms`.
    pub(crate) socket_timeout: Duration,
    pub(crate) policy: ClientPolicy,
}

impl Identity {
    pub(crate) fn new(node: NodeId, name: u64, choices: Choices) -> Self {
        let policy = ClientPolicy::default();
        Self { node, name, choices, socket_timeout: connections::SOCKET_TIMEOUT, policy }
    }

    /// With other policies.
    pub(crate) fn with_policy(self, policy: ClientPolicy) -> Self {
        Self { policy, ..self }
    }

    /// With another `socket.timeout.ms`.
    pub(crate) fn with_socket_timeout(self, socket_timeout: Duration) -> Self {
        Self { socket_timeout, ..self }
    }

    /// Draws a number below `bound`; `cause` says what asks.
    pub(crate) fn choose(&self, label: Label, cause: impl std::hash::Hash, bound: u64) -> u64 {
        self.choices.below(label, (self.name, cause), bound, || self.node.to_string())
    }
}

/// An outcome for the application, handed over once the world is unlocked.
pub(crate) enum Completion {
    /// The records of a batch were delivered.
    Delivered(DeliveredBatch),
    /// Records failed, each with its own error.
    Undelivered(Vec<(DeliverySender, bus_core::Error)>),
    /// A commit is over.
    Committed(CommitSender, Result<()>),
    /// Something that a task waits for may be there.
    Wake(Waker),
    /// Any other outcome.
    Reply(Box<dyn FnOnce() + Send>),
}

/// The records of a batch that was delivered.
#[derive(Debug)]
pub(crate) struct DeliveredBatch {
    pub(crate) topic_partition: TopicPartition,
    /// The offset of the first record, if a broker said it.
    pub(crate) base_offset: Option<i64>,
    /// The time of the append, where the topic stamps records with it.
    pub(crate) log_append_time: Option<Timestamp>,
    pub(crate) records: Vec<(DeliverySender, Timestamp)>,
}

impl Completion {
    /// Hands the outcome over. Wakes tasks, so the world must not be locked.
    pub(crate) fn hand_over(self) {
        match self {
            Self::Delivered(batch) => batch.hand_over(),
            Self::Undelivered(records) => {
                for (sender, error) in records {
                    sender.complete(Err(error));
                }
            }
            Self::Committed(sender, outcome) => sender.complete(outcome),
            Self::Wake(waker) => waker.wake(),
            Self::Reply(reply) => reply(),
        }
    }
}

impl DeliveredBatch {
    fn hand_over(self) {
        let Self { topic_partition, base_offset, log_append_time, records } = self;
        for (index, (sender, timestamp)) in (0_i64..).zip(records) {
            sender.complete(Ok(bus_core::RecordMetadata {
                topic_partition: topic_partition.clone(),
                offset: base_offset.map(|base| base + index),
                timestamp: Some(log_append_time.unwrap_or(timestamp)),
            }));
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delivered(_) => "Delivered",
            Self::Undelivered(_) => "Undelivered",
            Self::Committed(..) => "Committed",
            Self::Wake(_) => "Wake",
            Self::Reply(_) => "Reply",
        })
    }
}

/// Where an outcome of one call goes.
pub(crate) struct Reply<T>(Box<dyn FnOnce(Result<T>) + Send>);

impl<T: Send + 'static> Reply<T> {
    /// A reply that is handed to `receive`.
    pub(crate) fn new(receive: impl FnOnce(Result<T>) + Send + 'static) -> Self {
        Self(Box::new(receive))
    }

    /// Replies.
    pub(crate) fn send(self, outcome: Result<T>, effects: &mut Effects) {
        effects.complete(Completion::Reply(Box::new(move || (self.0)(outcome))));
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// librdkafka's `retry.backoff.ms`, doubled at each attempt up to `retry.backoff.max.ms`.
pub(crate) fn backoff(first: Duration, most: Duration, attempt: u32) -> Duration {
    first.saturating_mul(1 << attempt.min(16)).min(most)
}
