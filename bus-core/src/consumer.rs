//! The consumer: reads records of assigned partitions, alone or as a member of a group.
//!
//! Four places are kept per partition: *fetched* (what the client has asked for), *delivered* (the
//! [`position`](Consumer::position): next record that `poll` returns), *stored* (next to be
//! auto-committed), and *committed* (next to be processed after a restart).

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::outcome::{Completer, Outcome};
use crate::record::{Offset, Record, Timestamp, Topic, TopicPartition};

/// Reads records. Made by [`Bus::consumer`](crate::Bus::consumer).
///
/// Either [`subscribe`](Self::subscribe) as a member of a group, whose coordinator hands out the
/// partitions, or [`assign`](Self::assign) by hand; the one replaces the other.
///
/// Every method but [`poll`](Self::poll) may be called at any time, also while a poll waits.
/// Dropping a consumer leaves the group in the background, without a last commit;
/// [`close`](Self::close) does it in the open.
pub trait Consumer: Send + Sync + fmt::Debug {
    /// Subscribes to topics by name and by pattern, in place of what was subscribed or assigned
    /// before. The partitions arrive as a rebalance guard from [`poll`](Self::poll).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] without a group id; [`ErrorKind::InvalidArgument`] for an
    /// invalid pattern or no topic at all; [`ErrorKind::Closed`].
    fn subscribe(&self, subscription: Subscription) -> Result<()>;

    /// Leaves the group and gives up all partitions. Nothing is delivered afterwards.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`].
    fn unsubscribe(&self) -> BoxFuture<'_, Result<()>>;

    /// Reads exactly these partitions, outside of group management, in place of what was subscribed
    /// or assigned before. Offsets can still be committed if there is a group id.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a negative offset or a partition named twice;
    /// [`ErrorKind::Closed`].
    fn assign(&self, partitions: &[(TopicPartition, StartAt)]) -> Result<()>;

    /// The partitions that this consumer reads now, sorted.
    fn assignment(&self) -> Vec<TopicPartition>;

    /// Waits up to `timeout` for records, a rebalance, or an error.
    ///
    /// Gives at most `max_poll_records` records, or no records when the time is up. In the middle
    /// of a batch it does not wait. A rebalance is handed over as a [`RebalanceGuard`]: until it is
    /// completed, every poll returns the same one, and no record.
    ///
    /// Polling is also the sign of life of a group member: between two polls (of any outcome) at
    /// most `max_poll_interval` may pass.
    ///
    /// Cancel safe: dropping the future loses neither a record nor a guard. One poll at a time.
    ///
    /// # Errors
    /// [`ErrorKind::MaxPollExceeded`], [`ErrorKind::NoOffset`],
    /// [`ErrorKind::UnknownTopicOrPartition`] for a subscribed topic that does not exist,
    /// [`ErrorKind::FencedInstanceId`], [`ErrorKind::InvalidState`] while another poll waits,
    /// [`ErrorKind::Closed`].
    fn poll(&self, timeout: Duration) -> BoxFuture<'_, Result<Polled>>;

    /// Moves the position of an assigned partition: the next record comes from there.
    ///
    /// A place without a number (an end, a time, the committed offset) is looked up now, and is the
    /// position when the call returns; on an error the position stays where it was. A number that
    /// is not in the log is found out by the next fetch, which then follows `auto_offset_reset`, as
    /// in Kafka.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a negative offset; [`ErrorKind::InvalidState`] if the
    /// partition is not assigned; [`ErrorKind::NoOffset`] for the committed offset, if there is
    /// none and `auto_offset_reset` is `none`; [`ErrorKind::TimedOut`] if nobody answers, or if a
    /// transaction is about to change the committed offset for longer than the call waits;
    /// [`ErrorKind::UnknownTopicOrPartition`]; [`ErrorKind::Closed`].
    fn seek<'a>(
        &'a self,
        topic_partition: &'a TopicPartition,
        to: StartAt,
    ) -> BoxFuture<'a, Result<()>>;

    /// Stops delivering records of these partitions until [`resume`](Self::resume). The partitions
    /// stay owned and their positions stay. A pause ends when the partition is revoked.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] if a partition is not assigned; [`ErrorKind::Closed`].
    fn pause(&self, partitions: &[TopicPartition]) -> Result<()>;

    /// Delivers records of these partitions again, from where they were.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] if a partition is not assigned; [`ErrorKind::Closed`].
    fn resume(&self, partitions: &[TopicPartition]) -> Result<()>;

    /// The paused partitions, sorted.
    fn paused(&self) -> Vec<TopicPartition>;

    /// Commits offsets for the group: each is that of the *next* record to process.
    ///
    /// The request goes out with the call, in the order of the calls; await the [`Commit`] to learn
    /// what came of it (Kafka's `commitSync`), or drop it (`commitAsync`).
    ///
    /// Errors come through the [`Commit`]: [`ErrorKind::IllegalGeneration`],
    /// [`ErrorKind::UnknownMemberId`], [`ErrorKind::RebalanceInProgress`] (recovery `Rejoin`),
    /// [`ErrorKind::OffsetMetadataTooLarge`], [`ErrorKind::InvalidConfig`] without a group id,
    /// [`ErrorKind::InvalidArgument`] for a negative offset, [`ErrorKind::Closed`].
    fn commit(&self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Commit;

    /// Stores offsets for the next auto commit, where `enable_auto_offset_store` is off.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] if a partition is not assigned, or if offsets are stored
    /// automatically; [`ErrorKind::InvalidArgument`] for a negative offset; [`ErrorKind::Closed`].
    fn store_offsets(&self, offsets: &[(TopicPartition, Offset)]) -> Result<()>;

    /// The offsets that the group has committed, as the coordinator knows them; `None` where there
    /// is none. In the order of the argument.
    fn committed<'a>(
        &'a self,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<Vec<Option<OffsetAndMetadata>>>>;

    /// The offset of the next record that `poll` returns, or `None` if none was returned and no
    /// place was sought yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] if the partition is not assigned; [`ErrorKind::Closed`].
    fn position(&self, topic_partition: &TopicPartition) -> Result<Option<Offset>>;

    /// Asks the leader for the log start and for the end that this consumer may read to: the high
    /// watermark, or the last stable offset with `read_committed`.
    fn watermarks<'a>(
        &'a self,
        topic_partition: &'a TopicPartition,
    ) -> BoxFuture<'a, Result<Watermarks>>;

    /// The first offset of each partition whose record is not older than the given time; `None`
    /// where there is no such record. In the order of the argument.
    fn offsets_for_times<'a>(
        &'a self,
        times: &'a [(TopicPartition, Timestamp)],
    ) -> BoxFuture<'a, Result<Vec<Option<Offset>>>>;

    /// Who this consumer is in its group, for
    /// [`send_offsets`](crate::TransactionalProducer::send_offsets). `None` without a group id.
    fn group_metadata(&self) -> Option<GroupMetadata>;

    /// Gives up all partitions (a pending guard is answered), auto-commits if that is on, leaves
    /// the group, and releases the connections. A second close does nothing.
    fn close(&self) -> BoxFuture<'_, Result<()>>;

    /// The backend's own consumer, for what the contract leaves out: on Kafka
    /// `bus_kafka::NativeConsumer`.
    fn native(&self) -> &dyn Any;
}

/// What a [`poll`](Consumer::poll) gives.
#[derive(Debug)]
pub enum Polled {
    /// Records, in order per partition. Empty when the time was up.
    Records(Vec<Record>),
    /// Partitions come or go.
    Rebalance(RebalanceGuard),
}

/// What happened to the partitions of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RebalanceKind {
    /// They are this member's from the completion of the guard on.
    Assigned,
    /// They are this member's until the completion of the guard: finish, and commit what is done.
    Revoked,
    /// They may be another member's already: discard what is under way, and do not commit.
    Lost,
}

/// What a rebalance is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebalance {
    /// What happened.
    pub kind: RebalanceKind,
    /// The partitions that it happened to, sorted. With an eager assignor all of the member's; with
    /// a cooperative one only those that move.
    pub partitions: Vec<TopicPartition>,
}

/// A rebalance that waits for the application. Records flow again after
/// [`complete`](Self::complete).
///
/// While the guard is pending, `commit` and `position` work; the group waits for this member up to
/// its rebalance timeout. Dropping the guard loses nothing: the next poll returns it again.
#[must_use = "no record is delivered until the guard is completed"]
#[derive(Clone)]
pub struct RebalanceGuard {
    rebalance: Arc<Rebalance>,
    completer: Arc<dyn RebalanceCompleter>,
}

impl RebalanceGuard {
    /// A guard that `completer` answers; for those who write a backend.
    pub fn new(rebalance: Arc<Rebalance>, completer: Arc<dyn RebalanceCompleter>) -> Self {
        Self { rebalance, completer }
    }

    /// What the rebalance is about.
    pub fn rebalance(&self) -> &Rebalance {
        &self.rebalance
    }

    /// What happened.
    pub fn kind(&self) -> RebalanceKind {
        self.rebalance.kind
    }

    /// The partitions that it happened to, sorted.
    pub fn partitions(&self) -> &[TopicPartition] {
        &self.rebalance.partitions
    }

    /// Takes note of the rebalance: assigned partitions start, revoked and lost ones end.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the consumer was closed. Completing a guard that was completed, or
    /// that a newer event has overtaken, does nothing.
    pub async fn complete(self) -> Result<()> {
        self.completer.complete(Arc::clone(&self.rebalance)).await
    }
}

impl fmt::Debug for RebalanceGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RebalanceGuard").field(&self.rebalance).finish()
    }
}

/// Answers a [`RebalanceGuard`]; for those who write a backend.
pub trait RebalanceCompleter: Send + Sync {
    /// Completes the rebalance, if it is still the pending one.
    fn complete(&self, rebalance: Arc<Rebalance>) -> BoxFuture<'static, Result<()>>;
}

/// Where to read a partition from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StartAt {
    /// The committed offset, or `auto_offset_reset` where there is none.
    #[default]
    Committed,
    /// The log start.
    Beginning,
    /// The end: only what comes after the call.
    End,
    /// This offset.
    Offset(Offset),
    /// The first record that is not older than this, or the end if there is none.
    Timestamp(Timestamp),
}

impl StartAt {
    /// Checks that an explicit offset is not negative.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`].
    pub fn validate(self, topic_partition: &TopicPartition) -> Result<()> {
        match self {
            Self::Offset(offset) => validate_offset(topic_partition, offset),
            Self::Committed | Self::Beginning | Self::End | Self::Timestamp(_) => Ok(()),
        }
    }
}

/// Checks that an offset that the application gave is not negative.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`].
pub fn validate_offset(topic_partition: &TopicPartition, offset: Offset) -> Result<()> {
    if offset >= 0 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("offset {offset} is negative; offsets start at 0"),
    )
    .with_topic_partition(topic_partition.clone()))
}

/// What to subscribe to.
///
/// ```
/// use bus_core::Subscription;
///
/// let subscription = Subscription::topics(["orders", "payments"]).and_pattern("^audit-.*");
/// assert_eq!(subscription.topics.len(), 2);
/// assert!(subscription.validate().is_ok());
/// assert!(Subscription::pattern("audit-.*").validate().is_err(), "a pattern starts with ^");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Topics by name.
    pub topics: Vec<Topic>,
    /// Topics by regular expression, each starting with `^` as in librdkafka. Topics that are made
    /// later and match join with the next refresh of the metadata. Internal topics never match.
    pub patterns: Vec<String>,
}

impl Subscription {
    /// Subscribes to topics by name.
    pub fn topics<T: Into<Topic>>(topics: impl IntoIterator<Item = T>) -> Self {
        Self { topics: topics.into_iter().map(Into::into).collect(), patterns: Vec::new() }
    }

    /// Subscribes to topics by one pattern.
    pub fn pattern(pattern: impl Into<String>) -> Self {
        Self { topics: Vec::new(), patterns: vec![pattern.into()] }
    }

    /// Adds a pattern.
    #[must_use]
    pub fn and_pattern(mut self, pattern: impl Into<String>) -> Self {
        self.patterns.push(pattern.into());
        self
    }

    /// Checks what can be checked without the cluster.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if nothing is named, or a pattern does not start with `^`;
    /// [`ErrorKind::InvalidTopic`] for an invalid name.
    pub fn validate(&self) -> Result<()> {
        if self.topics.is_empty() && self.patterns.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "the subscription names no topic and no pattern; unsubscribe gives up all",
            ));
        }
        if let Some(pattern) = self.patterns.iter().find(|pattern| !pattern.starts_with('^')) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("pattern {pattern:?} must start with '^', for example \"^{pattern}\""),
            ));
        }
        self.topics.iter().try_for_each(Topic::validate)
    }
}

/// An offset to commit, with a note that is kept beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OffsetAndMetadata {
    /// The offset of the next record to process.
    pub offset: Offset,
    /// A note of up to `offset.metadata.max.bytes` (4096) bytes; empty by default.
    pub metadata: String,
}

impl From<Offset> for OffsetAndMetadata {
    fn from(offset: Offset) -> Self {
        Self { offset, metadata: String::new() }
    }
}

/// The ends of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Watermarks {
    /// The log start: the first offset that is kept.
    pub low: Offset,
    /// The high watermark or last stable offset: one past the last record that may be read.
    pub high: Offset,
}

/// A member of a group, as transactions need it (KIP-447).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    /// The group.
    pub group_id: String,
    /// The generation, or -1 outside of group management.
    pub generation: i32,
    /// The member id, or empty.
    pub member_id: String,
    /// The static id, if there is one.
    pub group_instance_id: Option<String>,
    /// The backend's own form of it.
    pub native: Option<NativeGroupMetadata>,
}

/// The backend's own form of [`GroupMetadata`], opaque to all others.
#[derive(Clone)]
pub struct NativeGroupMetadata(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for NativeGroupMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NativeGroupMetadata")
    }
}

impl PartialEq for NativeGroupMetadata {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for NativeGroupMetadata {}

/// The outcome of one [`commit`](Consumer::commit).
///
/// Dropping it does not take the commit back.
#[derive(Debug)]
#[must_use = "a commit may fail; await it, or drop it explicitly if that does not matter"]
pub struct Commit(Outcome<()>);

impl Commit {
    /// A commit and what resolves it; for those who write a backend. If that is dropped, it
    /// resolves with [`ErrorKind::Closed`].
    pub fn channel() -> (CommitSender, Self) {
        let (completer, outcome) = Outcome::channel(|| {
            Error::new(ErrorKind::Closed, "the consumer was closed").indeterminate()
        });
        (CommitSender(completer), Self(outcome))
    }

    /// A commit that is over already.
    pub fn done(outcome: Result<()>) -> Self {
        Self(Outcome::known(outcome))
    }

    /// As [`Delivery::observed`](crate::Delivery::observed).
    pub fn observed(self, observe: impl FnOnce(&Result<()>) + Send + 'static) -> Self {
        self.0.observe(observe);
        self
    }
}

impl Future for Commit {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|outcome| {
            outcome.unwrap_or_else(|| {
                Err(Error::new(ErrorKind::InvalidState, "the commit was awaited to its end before"))
            })
        })
    }
}

/// Resolves a [`Commit`]; for those who write a backend.
#[derive(Debug)]
pub struct CommitSender(Completer<()>);

impl CommitSender {
    /// Resolves the commit. The application need not wait for it.
    pub fn complete(self, outcome: Result<()>) {
        self.0.complete(outcome);
    }
}

/// Comforts on every consumer.
pub trait ConsumerExt: Consumer {
    /// Polls for records and completes every rebalance on the way: for consumers that keep nothing
    /// per partition.
    fn poll_records(&self, timeout: Duration) -> impl Future<Output = Result<Vec<Record>>> + Send {
        self.poll_with(timeout, |_| std::future::ready(()))
    }

    /// Polls for records and shows every rebalance to `listener` before completing it: Kafka's
    /// `ConsumerRebalanceListener`.
    fn poll_with<L, F>(
        &self,
        timeout: Duration,
        mut listener: L,
    ) -> impl Future<Output = Result<Vec<Record>>> + Send
    where
        L: FnMut(Rebalance) -> F + Send,
        F: Future<Output = ()> + Send,
    {
        async move {
            loop {
                match self.poll(timeout).await? {
                    Polled::Records(records) => return Ok(records),
                    Polled::Rebalance(guard) => {
                        listener(guard.rebalance().clone()).await;
                        guard.complete().await?;
                    }
                }
            }
        }
    }

    /// Commits the positions of all assigned partitions: everything that `poll` has returned.
    fn commit_positions(&self) -> Commit {
        let mut offsets = Vec::new();
        for topic_partition in self.assignment() {
            if let Ok(Some(offset)) = self.position(&topic_partition) {
                offsets.push((topic_partition, offset.into()));
            }
        }
        if offsets.is_empty() { Commit::done(Ok(())) } else { self.commit(&offsets) }
    }

    /// Commits that `record`, and all before it in its partition, are done.
    fn commit_record(&self, record: &Record) -> Commit {
        self.commit(&[(record.topic_partition(), record.next_offset().into())])
    }
}

impl<C: Consumer + ?Sized> ConsumerExt for C {}
