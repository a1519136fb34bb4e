//! The history of a case: what its clients asked for and what they were told, in order.
//!
//! It is written by [`Recorded`](crate::recorded) at the traits, so no case can forget it, and
//! judged by the [oracle](crate::oracle). The order of the entries is the order of the events: an
//! operation that ended before another began stands before it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Bytes, ErrorKind, IsolationLevel, Offset, OffsetAndMetadata, OffsetReset, Partition,
    ProducerRecord, Rebalance, Record, RecordMetadata, Result, StartAt, Timestamp, Topic,
    TopicPartition,
};
use parking_lot::Mutex;

use crate::fixture::Fault;
use crate::oracle::Law;

/// A client of the history, by the order in which they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub usize);

/// What the laws need to know of a client.
#[derive(Clone, Debug)]
pub enum Client {
    /// A producer.
    Producer {
        /// Whether retries keep the order: idempotence, or one request in flight.
        keeps_order: bool,
        /// Who it is across restarts, if it has transactions.
        transactional_id: Option<String>,
    },
    /// A consumer.
    Consumer(ConsumerFacts),
    /// An administration client, or the case itself.
    Admin,
}

/// What the laws need to know of a consumer.
#[derive(Clone, Debug)]
pub struct ConsumerFacts {
    /// Its group.
    pub group_id: Option<String>,
    /// Whether it is given records of transactions that are open or aborted.
    pub isolation: IsolationLevel,
    /// Where it starts without a committed offset.
    pub reset: OffsetReset,
    /// Whether it commits by itself.
    pub auto_commit: bool,
    /// Whether delivery stores the offset for that.
    pub auto_store: bool,
    /// After how long without a poll the group may give its partitions away.
    pub patience: Duration,
}

/// One send, by its order in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SendId(pub usize);

/// One commit, by its order in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitId(pub usize);

/// How a transaction is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the call of that name")]
pub enum End {
    Commit,
    Abort,
}

/// What a commit names.
pub type CommitOffsets = Vec<(TopicPartition, OffsetAndMetadata)>;

/// What happened.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "fields are named for what they hold")]
pub enum Event {
    /// The client was made.
    Made(Client),
    /// A record was given to `send`.
    Send { send: SendId, record: ProducerRecord },
    /// The delivery of a send resolved.
    Sent { send: SendId, outcome: Result<RecordMetadata> },
    /// A transaction began: what the producer sends from here on belongs to it.
    Begun,
    /// The transaction is about to be ended.
    Ending(End),
    /// The end of the transaction was answered.
    Ended { end: End, outcome: Result<()> },
    /// Partitions were assigned by hand.
    Assigned(Vec<(TopicPartition, StartAt)>),
    /// The consumer subscribed, giving up what it had before.
    Subscribed,
    /// The consumer is about to complete the guard of a rebalance.
    Rebalanced(Rebalance),
    /// A poll began.
    Polling,
    /// A poll returned this record.
    Delivered(Record),
    /// A poll failed.
    PollFailed(ErrorKind),
    /// The position of a partition was moved.
    Sought { topic_partition: TopicPartition, to: StartAt },
    /// Partitions were paused.
    Paused(Vec<TopicPartition>),
    /// Partitions were resumed.
    Resumed(Vec<TopicPartition>),
    /// Offsets were stored for the next auto commit.
    Stored(Vec<(TopicPartition, Offset)>),
    /// A commit was asked for.
    Commit { commit: CommitId, group_id: String, offsets: CommitOffsets },
    /// A commit was answered.
    Committed { commit: CommitId, outcome: Result<()> },
    /// The consumer gave up its subscription.
    Unsubscribed,
    /// The client is being closed, or was dropped without.
    Closed,
    /// A topic was made with so many partitions, or grew to them.
    Partitions { topic: Topic, partitions: Partition },
    /// A topic was deleted.
    TopicDeleted(Topic),
    /// A group was deleted.
    GroupDeleted(String),
    /// Processes outside of this history write to the topic too.
    Foreign(Topic),
    /// A process outside of this history has transactions, by this transactional id.
    ForeignTransactions(String),
    /// The case makes something fail.
    Inflicted(Fault),
    /// The case makes the law impossible to keep, for the stated reason.
    Excused { law: Law, reason: &'static str },
}

/// An event with its client and time.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Since the bus was made.
    pub at: Duration,
    /// The time of day.
    pub now: Timestamp,
    /// Whose event it is.
    pub client: ClientId,
    /// What happened.
    pub event: Event,
}

/// The history of one case. Cheap to clone; all clones are the same history.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    entries: Vec<Entry>,
    clients: usize,
    sends: usize,
    commits: usize,
}

impl History {
    /// Adds a client.
    pub fn client(&self, at: Duration, now: Timestamp, client: Client) -> ClientId {
        let mut inner = self.0.lock();
        let id = ClientId(inner.clients);
        inner.clients += 1;
        inner.entries.push(Entry { at, now, client: id, event: Event::Made(client) });
        id
    }

    /// Adds an entry.
    pub fn push(&self, entry: Entry) {
        self.0.lock().entries.push(entry);
    }

    /// A new send.
    pub fn next_send(&self) -> SendId {
        let mut inner = self.0.lock();
        inner.sends += 1;
        SendId(inner.sends - 1)
    }

    /// A new commit.
    pub fn next_commit(&self) -> CommitId {
        let mut inner = self.0.lock();
        inner.commits += 1;
        CommitId(inner.commits - 1)
    }

    /// All entries so far, in order.
    pub fn entries(&self) -> Vec<Entry> {
        self.0.lock().entries.clone()
    }

    /// The last entries as text, without the polls; the evidence of a failure.
    pub fn excerpt(&self, most: usize) -> String {
        let inner = self.0.lock();
        let lines: Vec<_> = inner
            .entries
            .iter()
            .filter(|entry| !matches!(entry.event, Event::Polling))
            .map(ToString::to_string)
            .collect();
        let skipped = lines.len().saturating_sub(most);
        let mut text = format!("history ({skipped} earlier entries left out):\n");
        for line in &lines[skipped..] {
            text += "  ";
            text += line;
            text += "\n";
        }
        text
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.4}s  client {:<3} ", self.at.as_secs_f64(), self.client.0)?;
        match &self.event {
            Event::Send { send, record } => {
                let value = Shown(record.value.as_ref());
                write!(f, "send {} to {} value {value}", send.0, record.topic)
            }
            Event::Sent { send, outcome: Ok(metadata) } => {
                let RecordMetadata { topic_partition, offset, .. } = metadata;
                write!(f, "sent {} at {topic_partition}@{offset:?}", send.0)
            }
            Event::Sent { send, outcome: Err(error) } => {
                write!(f, "sent {} failed: {error}", send.0)
            }
            Event::Delivered(record) => {
                let value = Shown(record.value.as_ref());
                let Record { topic, partition, offset, .. } = record;
                write!(f, "delivered {topic}-{partition}@{offset} value {value}")
            }
            event => write!(f, "{event:?}"),
        }
    }
}

/// A payload, shortened for the eye.
pub(crate) struct Shown<'a>(pub(crate) Option<&'a Bytes>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BYTES: usize = 32;
        match self.0 {
            None => f.write_str("null"),
            Some(bytes) if bytes.len() <= BYTES => write!(f, "\"{}\"", bytes.escape_ascii()),
            Some(bytes) => {
                write!(f, "\"{}…\" ({} bytes)", bytes[..BYTES].escape_ascii(), bytes.len())
            }
        }
    }
}
