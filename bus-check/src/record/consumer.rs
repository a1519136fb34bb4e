//! Consumers, recorded.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    BoxFuture, Commit, Consumer, GroupMetadata, Offset, OffsetAndMetadata, Polled, Rebalance,
    RebalanceCompleter, RebalanceGuard, Record, Result, StartAt, Subscription, Timestamp,
    TimestampType, TopicPartition, Watermarks,
};
use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::outcomes::Outcomes;
use super::pen::{Pen, partition_ids, with_ids};
use crate::digest::digest;
use crate::history::{Answer, Call, Note, PartitionId, SeenRecord, Writer};

#[derive(Debug)]
pub(super) struct Recorded {
    inner: Arc<dyn Consumer>,
    pen: Pen,
    /// The guard that was completed last: only the first completion of a guard counts.
    completed: Arc<Mutex<Option<RebalanceGuard>>>,
    outcomes: Outcomes,
}

impl Recorded {
    pub(super) fn new(inner: Arc<dyn Consumer>, pen: Pen) -> Self {
        let outcomes = Outcomes::new(pen.clone());
        Self { inner, pen, completed: Arc::default(), outcomes }
    }

    fn guard(&self, inner: RebalanceGuard) -> RebalanceGuard {
        let rebalance = Arc::new(inner.rebalance().clone());
        let (pen, completed) = (self.pen.clone(), Arc::clone(&self.completed));
        RebalanceGuard::new(rebalance, Arc::new(Completer { inner, pen, completed }))
    }

    /// The generation that the member is in, while a guard tells of it.
    fn generation(&self) -> Option<i32> {
        let generation = self.inner.group_metadata()?.generation;
        (generation >= 0).then_some(generation)
    }
}

#[deny(clippy::missing_trait_methods, reason = "what an adapter leaves out is not recorded")]
impl Consumer for Recorded {
    fn subscribe(&self, subscription: Subscription) -> Result<()> {
        let call = |writer: &mut Writer| {
            Call::Subscribe(subscription.topics.iter().map(|topic| writer.topic(topic)).collect())
        };
        let pending = self.pen.invoke(call);
        let outcome = self.inner.subscribe(subscription);
        pending.end(&outcome);
        outcome
    }

    fn unsubscribe(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            let pending = self.pen.invoke(|_| Call::Unsubscribe);
            let outcome = self.inner.unsubscribe().await;
            pending.end(&outcome);
            outcome
        }
        .boxed()
    }

    fn assign(&self, partitions: &[(TopicPartition, StartAt)]) -> Result<()> {
        self.pen.at_once(
            |writer| Call::Assign(with_ids(writer, partitions, |from| *from)),
            || self.inner.assign(partitions),
        )
    }

    fn assignment(&self) -> Vec<TopicPartition> {
        self.inner.assignment()
    }

    fn poll(&self, timeout: Duration) -> BoxFuture<'_, Result<Polled>> {
        async move {
            let pending = self.pen.invoke(|_| Call::Poll);
            // Nothing is awaited after this, so a cancelled poll loses nothing here either.
            let polled = self.inner.poll(timeout).await;
            match polled {
                Ok(Polled::Records(records)) => {
                    let seen: Vec<_> = records.iter().map(seen).collect();
                    pending.ok(|writer| Answer::Records(placed(writer, seen, &records)));
                    Ok(Polled::Records(records))
                }
                Ok(Polled::Rebalance(guard)) => {
                    let generation = self.generation();
                    pending.ok(|writer| Answer::Rebalance {
                        kind: guard.kind(),
                        partitions: partition_ids(writer, guard.partitions()),
                        generation,
                    });
                    Ok(Polled::Rebalance(self.guard(guard)))
                }
                Err(error) => {
                    pending.failed(&error);
                    Err(error)
                }
            }
        }
        .boxed()
    }

    fn seek<'a>(
        &'a self,
        topic_partition: &'a TopicPartition,
        to: StartAt,
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let TopicPartition { topic, partition } = topic_partition;
            let pending =
                self.pen.invoke(|writer| Call::Seek(writer.partition(topic, *partition), to));
            let outcome = self.inner.seek(topic_partition, to).await;
            pending.end(&outcome);
            outcome
        }
        .boxed()
    }

    fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.pen.at_once(
            |writer| Call::Pause(partition_ids(writer, partitions)),
            || self.inner.pause(partitions),
        )
    }

    fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.pen.at_once(
            |writer| Call::Resume(partition_ids(writer, partitions)),
            || self.inner.resume(partitions),
        )
    }

    fn paused(&self) -> Vec<TopicPartition> {
        self.inner.paused()
    }

    fn commit(&self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Commit {
        let operation = self
            .pen
            .begin(|writer| Call::Commit(with_ids(writer, offsets, |offset| offset.offset)));
        let commit = self.inner.commit(offsets);
        let awaited = self.outcomes.wait_for(operation);
        commit.observed(|outcome| awaited.end(outcome, |_, ()| Answer::Done))
    }

    fn store_offsets(&self, offsets: &[(TopicPartition, Offset)]) -> Result<()> {
        self.pen.at_once(
            |writer| Call::StoreOffsets(with_ids(writer, offsets, |offset| *offset)),
            || self.inner.store_offsets(offsets),
        )
    }

    fn committed<'a>(
        &'a self,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<Vec<Option<OffsetAndMetadata>>>> {
        async move {
            let pending =
                self.pen.invoke(|writer| Call::Committed(partition_ids(writer, partitions)));
            let outcome = self.inner.committed(partitions).await;
            match &outcome {
                Ok(committed) => pending.ok(|_| {
                    let offsets =
                        committed.iter().map(|found| found.as_ref().map(|found| found.offset));
                    Answer::Committed(offsets.collect())
                }),
                Err(error) => pending.failed(error),
            }
            outcome
        }
        .boxed()
    }

    fn position(&self, topic_partition: &TopicPartition) -> Result<Option<Offset>> {
        self.inner.position(topic_partition)
    }

    fn watermarks<'a>(
        &'a self,
        topic_partition: &'a TopicPartition,
    ) -> BoxFuture<'a, Result<Watermarks>> {
        async move {
            let TopicPartition { topic, partition } = topic_partition;
            let pending =
                self.pen.invoke(|writer| Call::Watermarks(writer.partition(topic, *partition)));
            let outcome = self.inner.watermarks(topic_partition).await;
            match &outcome {
                Ok(Watermarks { low, high }) => {
                    pending.ok(|_| Answer::Watermarks { low: *low, high: *high });
                }
                Err(error) => pending.failed(error),
            }
            outcome
        }
        .boxed()
    }

    fn offsets_for_times<'a>(
        &'a self,
        times: &'a [(TopicPartition, Timestamp)],
    ) -> BoxFuture<'a, Result<Vec<Option<Offset>>>> {
        self.inner.offsets_for_times(times)
    }

    fn group_metadata(&self) -> Option<GroupMetadata> {
        self.inner.group_metadata()
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            let pending = self.pen.invoke(|_| Call::CloseConsumer);
            let outcome = self.inner.close().await;
            pending.end(&outcome);
            outcome
        }
        .boxed()
    }

    fn native(&self) -> &dyn Any {
        self.inner.native()
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let address = std::ptr::from_ref(self).cast::<()>().addr();
        self.pen.recorder.shared.lives.lock().consumers.remove(&address);
        self.pen.note(Note::Dropped);
    }
}

/// Writes the completion of a guard, the first one only, and passes it on.
struct Completer {
    inner: RebalanceGuard,
    pen: Pen,
    completed: Arc<Mutex<Option<RebalanceGuard>>>,
}

#[deny(clippy::missing_trait_methods, reason = "what an adapter leaves out is not recorded")]
impl RebalanceCompleter for Completer {
    fn complete(&self, rebalance: Arc<Rebalance>) -> BoxFuture<'static, Result<()>> {
        let mut completed = self.completed.lock();
        let again = completed
            .as_ref()
            .is_some_and(|last| std::ptr::eq(last.rebalance(), self.inner.rebalance()));
        let inner = self.inner.clone().complete();
        if again {
            return inner.boxed();
        }
        *completed = Some(self.inner.clone());
        let pending = self.pen.invoke(|writer| Call::Complete {
            kind: rebalance.kind,
            partitions: partition_ids(writer, &rebalance.partitions),
        });
        async move {
            let outcome = inner.await;
            pending.end(&outcome);
            outcome
        }
        .boxed()
    }
}

/// A record without its partition, which is looked up under the lock.
fn seen(record: &Record) -> SeenRecord {
    SeenRecord {
        partition: PartitionId(0),
        leader_epoch: record.leader_epoch,
        offset: record.offset,
        digest: digest(record.key.as_ref(), record.value.as_ref(), &record.headers),
        timestamp: record.timestamp.as_millis(),
        is_log_append_time: record.timestamp_type == TimestampType::LogAppendTime,
    }
}

fn placed(writer: &mut Writer, mut seen: Vec<SeenRecord>, records: &[Record]) -> Box<[SeenRecord]> {
    for (seen, record) in seen.iter_mut().zip(records) {
        seen.partition = writer.partition(&record.topic, record.partition);
    }
    seen.into()
}
