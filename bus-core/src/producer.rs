//! The producer: sends records and tells of each whether it was delivered.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::consumer::{GroupMetadata, OffsetAndMetadata};
use crate::error::{Error, ErrorKind, Result};
use crate::outcome::{Completer, Outcome};
use crate::record::{Offset, Partition, ProducerRecord, Timestamp, Topic, TopicPartition};

/// Sends records to topics. Made by [`Bus::producer`](crate::Bus::producer).
///
/// A producer gathers records in batches per partition, sends up to
/// [`max_in_flight`](crate::ProducerConfig::max_in_flight) batches per broker at a time, and
/// retries what may be retried until [`delivery_timeout`](crate::ProducerConfig::delivery_timeout).
///
/// Dropping a producer without [`close`](Self::close) discards what is still in its buffer: those
/// deliveries fail with [`ErrorKind::Purged`].
pub trait Producer: Send + Sync + fmt::Debug {
    /// Puts `record` into the buffer, in the order of the calls, and returns its delivery.
    ///
    /// Never waits. Every error comes through the [`Delivery`], those of the arguments at once:
    /// - [`ErrorKind::QueueFull`]: the buffer is full; await [`ready`](Self::ready) and send again;
    /// - [`ErrorKind::MessageTooLarge`]: above the configured `max_request_size`;
    /// - [`ErrorKind::UnknownTopicOrPartition`]: no such topic, or the partition is out of range;
    /// - [`ErrorKind::MessageTimedOut`]: not delivered in time (indeterminate if it was on the
    ///   wire);
    /// - [`ErrorKind::OutOfOrderSequenceNumber`]: of an idempotent producer with several batches in
    ///   flight, a leader that did not know it refused this record and took a later one; it may be
    ///   missing (KAFKA-14359; indeterminate, with [`Recovery::Retry`](crate::Recovery::Retry)).
    ///   With `max_in_flight` 1 there is no later one;
    /// - [`ErrorKind::Fatal`]: what a log has of an idempotent producer is not what was
    ///   acknowledged; only another producer goes on;
    /// - [`ErrorKind::Closed`]: the producer was closed before.
    fn send(&self, record: ProducerRecord) -> Delivery;

    /// Waits until the buffer has room: the back-pressure of [`send`](Self::send).
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the producer is or gets closed.
    fn ready(&self) -> BoxFuture<'_, Result<()>>;

    /// Sends what is in the buffer without lingering, and waits until each record that was sent
    /// before this call is delivered or failed. At most as long as the delivery timeout.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the producer is closed. A failed delivery is no error of `flush`:
    /// its own [`Delivery`] says so.
    fn flush(&self) -> BoxFuture<'_, Result<()>>;

    /// How many partitions `topic` has, from the metadata of the cluster.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopicOrPartition`] if the topic does not exist.
    fn partitions_for(&self, topic: Topic) -> BoxFuture<'_, Result<Partition>>;

    /// Flushes for at most `timeout`, fails what is left with [`ErrorKind::Purged`], and releases
    /// the connections. A second close does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] if records were left.
    fn close(&self, timeout: Duration) -> BoxFuture<'_, Result<()>>;

    /// The backend's own producer, for what the contract leaves out: on Kafka
    /// `bus_kafka::NativeProducer`.
    fn native(&self) -> &dyn Any;
}

/// A producer whose sends and offsets become visible together or not at all (KIP-98).
///
/// Made by [`Bus::transactional_producer`](crate::Bus::transactional_producer).
/// [`init_transactions`](Self::init_transactions) comes first; then each transaction goes from
/// [`begin`](Self::begin) over [`send`](Producer::send) and [`send_offsets`](Self::send_offsets) to
/// [`commit`](Self::commit) or [`abort`](Self::abort).
///
/// ```
/// # async fn example(bus: &bus_core::Bus) -> bus_core::Result<()> {
/// use bus_core::{Producer, ProducerConfig, ProducerRecord, Recovery, TransactionConfig};
///
/// let transaction = TransactionConfig::new("billing-1");
/// let producer = bus.transactional_producer(ProducerConfig::default(), transaction)?;
/// producer.init_transactions().await?;
/// loop {
///     producer.begin()?;
///     // `commit` fails if this delivery does, so it need not be awaited.
///     drop(producer.send(ProducerRecord::to("invoices").value("42")));
///     match producer.commit().await {
///         Ok(()) => return Ok(()),
///         Err(error) if error.recovery() == Recovery::Abort => producer.abort().await?,
///         Err(error) => return Err(error),
///     }
/// }
/// # }
/// ```
///
/// # Errors
/// Every error says by its [`recovery`](crate::Error::recovery) how to go on:
/// - [`Recovery::Retry`](crate::Recovery::Retry): call the same again; it resumes. It is safe for
///   `commit` as well.
/// - [`Recovery::Abort`](crate::Recovery::Abort): the transaction has failed. Until `abort`, every
///   call repeats the error that made it fail, but for `send`, which is an
///   [`ErrorKind::InvalidState`]. Every failed [`Delivery`] is such an error: its record is no part
///   of the transaction. What `send` refuses for its arguments is none; it changes nothing.
/// - [`Recovery::Close`](crate::Recovery::Close): the producer cannot go on, and every later call
///   repeats the error. Above all [`ErrorKind::ProducerFenced`]: the newest producer of a
///   transactional id fences all older ones. An older one notices with its next request, and so
///   does one whose transaction was aborted because it took longer than
///   [`transaction_timeout`](crate::TransactionConfig::transaction_timeout).
/// - [`Recovery::Fix`](crate::Recovery::Fix): the call was wrong, and nothing has changed.
///   [`ErrorKind::InvalidState`]: the call does not fit: everything before `init_transactions` but
///   that, a second `init_transactions` or `begin`, and `send`, `send_offsets`, `commit`, or
///   `abort` without a transaction.
///
/// Transactions go one after the other, and so do their calls. A call whose future is dropped goes
/// on by itself. Until it has ended, every other one is an [`ErrorKind::InvalidState`] to
/// [`Retry`](crate::Recovery::Retry), except that `init_transactions`, `commit`, and `abort`,
/// called once more, wait for the outcome of the one that is under way.
///
/// Closing or dropping the producer does not end an open transaction: the next producer of the
/// transactional id aborts it, or the coordinator after the transaction timeout.
pub trait TransactionalProducer: Producer {
    /// Fences older producers of the transactional id and aborts what they left open; what they
    /// were committing is committed. Call once, first.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidState`]: it was done before;
    /// - [`ErrorKind::TimedOut`] or the reason, such as [`ErrorKind::CoordinatorNotAvailable`]: not
    ///   done within 30 s; to retry, which resumes;
    /// - [`ErrorKind::InvalidTransactionTimeout`]: the transaction timeout is above the broker's
    ///   `transaction.max.timeout.ms`; this producer cannot go on;
    /// - [`ErrorKind::Closed`].
    fn init_transactions(&self) -> BoxFuture<'_, Result<()>>;

    /// Begins a transaction: sends after this belong to it. No broker hears of it; the time of the
    /// transaction begins with its first record or offset.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidState`]: a transaction is open, or `init_transactions` was not called;
    /// - the error of the transaction, to abort, if one is open that has failed;
    /// - [`ErrorKind::ProducerFenced`], if that was noticed before;
    /// - [`ErrorKind::Closed`].
    fn begin(&self) -> Result<()>;

    /// Commits the offsets of a consumer as part of the transaction (KIP-447): they count only if
    /// the transaction commits and the member still belongs to the group. No offsets are fine, and
    /// nothing. The offset to commit is that of the next record to process, as in
    /// [`Consumer::commit`](crate::Consumer::commit).
    ///
    /// `group` is the consumer's [`group_metadata`](crate::Consumer::group_metadata) of now: keep
    /// none over a rebalance. That of a consumer that is no member (generation -1, no member id) is
    /// not checked, so it does not keep zombies off.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidState`]: no transaction is open;
    /// - [`ErrorKind::InvalidArgument`]: an offset is negative; nothing has changed;
    /// - to abort: [`ErrorKind::IllegalGeneration`] (the group has rebalanced since),
    ///   [`ErrorKind::UnknownMemberId`] (another group's member, or one that is gone),
    ///   [`ErrorKind::FencedInstanceId`], [`ErrorKind::InvalidGroupId`] (the empty group id),
    ///   [`ErrorKind::OffsetMetadataTooLarge`]; [`ErrorKind::UnknownTopicOrPartition`], after
    ///   trying for 30 s, or the transaction timeout if that is less;
    /// - [`ErrorKind::ProducerFenced`];
    /// - [`ErrorKind::Closed`].
    fn send_offsets<'a>(
        &'a self,
        offsets: &'a [(TopicPartition, OffsetAndMetadata)],
        group: &'a GroupMetadata,
    ) -> BoxFuture<'a, Result<()>>;

    /// Flushes and commits: every delivery of the transaction has resolved when this has. Without
    /// records and offsets there is nothing to commit, and no broker hears of it.
    ///
    /// After an indeterminate error that may be retried, calling it again is safe.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidState`]: no transaction is open;
    /// - [`ErrorKind::TransactionAbortable`]: a delivery failed, which says why; or the error that
    ///   made the transaction fail. To abort;
    /// - [`ErrorKind::TimedOut`]: not done within 30 s; to retry, which resumes;
    /// - [`ErrorKind::ProducerFenced`], indeterminate if this call noticed it: an earlier attempt
    ///   of its request may have committed before;
    /// - [`ErrorKind::Closed`].
    fn commit(&self) -> BoxFuture<'_, Result<()>>;

    /// Aborts: nothing that was sent since `begin` becomes visible to `read_committed` readers, and
    /// no offset is committed. Records that are still in the buffer are dropped: their deliveries
    /// fail with [`ErrorKind::Purged`].
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidState`]: no transaction is open;
    /// - [`ErrorKind::TimedOut`]: not done within 30 s; to retry, which resumes;
    /// - [`ErrorKind::ProducerFenced`];
    /// - [`ErrorKind::InvalidTxnState`], with [`Recovery::Close`](crate::Recovery::Close): a commit
    ///   just before is still being completed, and no record or offset of this transaction was
    ///   acknowledged yet. Nothing is lost, but another producer must go on;
    /// - [`ErrorKind::Closed`].
    fn abort(&self) -> BoxFuture<'_, Result<()>>;
}

/// Where a delivered record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The partition that it went to.
    pub topic_partition: TopicPartition,
    /// Its offset; `None` with `acks=0`, where no broker says it.
    pub offset: Option<Offset>,
    /// Its timestamp: the record's own, or the time of the append where the topic says so. `None`
    /// where the backend does not know it.
    pub timestamp: Option<Timestamp>,
}

/// The outcome of one [`send`](Producer::send): a future of the record's metadata.
///
/// Dropping it does not take the record back. It resolves exactly once; after it was awaited to its
/// end it must not be awaited again.
#[derive(Debug)]
#[must_use = "a send may fail; await the delivery, or drop it explicitly if that does not matter"]
pub struct Delivery(Outcome<RecordMetadata>);

impl Delivery {
    /// A delivery and what resolves it; for those who write a backend. If that is dropped, it
    /// resolves with [`ErrorKind::Purged`].
    pub fn channel() -> (DeliverySender, Self) {
        let (completer, outcome) = Outcome::channel(|| {
            Error::new(ErrorKind::Purged, "the producer was dropped").indeterminate()
        });
        (DeliverySender(completer), Self(outcome))
    }

    /// A delivery that failed at once.
    pub fn failed(error: Error) -> Self {
        Self(Outcome::known(Err(error)))
    }

    /// Has `observe` see the outcome the moment that it is there, before whoever awaits the
    /// delivery, and also if that was dropped; for those who write an adapter. It is called where
    /// the backend completes the delivery, and should be short.
    pub fn observed(self, observe: impl FnOnce(&Result<RecordMetadata>) + Send + 'static) -> Self {
        self.0.observe(observe);
        self
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|outcome| {
            outcome.unwrap_or_else(|| {
                Err(Error::new(
                    ErrorKind::InvalidState,
                    "the delivery was awaited to its end before",
                ))
            })
        })
    }
}

/// Resolves a [`Delivery`]; for those who write a backend.
#[derive(Debug)]
pub struct DeliverySender(Completer<RecordMetadata>);

impl DeliverySender {
    /// Resolves the delivery. The application need not wait for it.
    pub fn complete(self, outcome: Result<RecordMetadata>) {
        self.0.complete(outcome);
    }
}

/// Comforts on every producer.
pub trait ProducerExt: Producer {
    /// Sends all records in order, waiting for room where there is none, and then for each
    /// delivery. One outcome per record, in the same order.
    ///
    /// ```
    /// # async fn example(producer: &dyn bus_core::Producer) {
    /// use bus_core::{ProducerExt, ProducerRecord};
    ///
    /// let outcomes = producer
    ///     .send_all((0..100).map(|n| ProducerRecord::to("orders").value(format!("order {n}"))))
    ///     .await;
    /// assert!(outcomes.iter().all(Result::is_ok));
    /// # }
    /// ```
    fn send_all<I>(&self, records: I) -> impl Future<Output = Vec<Result<RecordMetadata>>> + Send
    where
        I: IntoIterator<Item = ProducerRecord> + Send,
        I::IntoIter: Send,
    {
        let records = records.into_iter();
        async move {
            let mut deliveries = Vec::with_capacity(records.size_hint().0);
            for record in records {
                deliveries.push(match self.ready().await {
                    Ok(()) => self.send(record),
                    Err(error) => Delivery::failed(error),
                });
            }
            let mut outcomes = Vec::with_capacity(deliveries.len());
            for delivery in deliveries {
                outcomes.push(delivery.await);
            }
            outcomes
        }
    }
}

impl<P: Producer + ?Sized> ProducerExt for P {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_delivery_whose_sender_is_gone_is_purged_and_unknown() {
        let (sender, delivery) = Delivery::channel();
        drop(sender);
        let error = delivery.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Purged);
        assert!(error.is_indeterminate());
    }

    #[tokio::test]
    async fn a_delivery_resolves_once() {
        let mut delivery = Delivery::failed(ErrorKind::QueueFull.into());
        assert_eq!((&mut delivery).await.unwrap_err().kind(), ErrorKind::QueueFull);
        assert_eq!(delivery.await.unwrap_err().kind(), ErrorKind::InvalidState);
    }
}
