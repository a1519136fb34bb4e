//! Producers, recorded.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    BoxFuture, Delivery, GroupMetadata, OffsetAndMetadata, Partition, Producer, ProducerRecord,
    RecordMetadata, Result, Topic, TopicPartition, TransactionalProducer, partitioner,
};
use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::outcomes::Outcomes;
use super::pen::{Pen, with_ids};
use crate::digest::digest;
use crate::history::{Answer, Call, Note, OperationId, SentRecord, Writer};

pub(super) struct Recorded<P: ?Sized> {
    inner: Arc<P>,
    pen: Pen,
    /// Calls of several threads have one order: that of the history.
    turn: Mutex<()>,
    outcomes: Outcomes,
}

impl<P: Send + Sync + ?Sized> Recorded<P> {
    pub(super) fn new(inner: Arc<P>, pen: Pen) -> Self {
        let outcomes = Outcomes::new(pen.clone());
        Self { inner, pen, turn: Mutex::default(), outcomes }
    }

    /// Records a call that waits.
    fn waiting<'a>(
        &'a self,
        call: Call,
        act: impl Future<Output = Result<()>> + Send + 'a,
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let pending = self.pen.invoke(|_| call);
            let outcome = act.await;
            pending.end(&outcome);
            outcome
        }
        .boxed()
    }

    fn begin_send(&self, record: &ProducerRecord) -> OperationId {
        let key = record.key.as_ref().map(|key| partitioner::murmur2(key));
        let digest = digest(record.key.as_ref(), record.value.as_ref(), &record.headers);
        let now = self.pen.bus.now().as_millis();
        let timestamp = record.timestamp.map(bus_core::Timestamp::as_millis);
        let cause = self.pen.recorder.cause(record);
        self.pen.begin(|writer| {
            let cause =
                cause.map(|(at, offset)| (writer.partition(&at.topic, at.partition), offset));
            let topic = writer.topic(&record.topic);
            let partition = record.partition;
            Call::Send(Box::new(SentRecord {
                topic,
                partition,
                key,
                digest,
                timestamp,
                now,
                cause,
            }))
        })
    }
}

impl<P: ?Sized> fmt::Debug for Recorded<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded").field("pen", &self.pen).finish_non_exhaustive()
    }
}

#[deny(clippy::missing_trait_methods, reason = "what an adapter leaves out is not recorded")]
impl<P: Producer + ?Sized> Producer for Recorded<P> {
    fn send(&self, record: ProducerRecord) -> Delivery {
        let (operation, delivery) = {
            let _turn = self.turn.lock();
            (self.begin_send(&record), self.inner.send(record))
        };
        let awaited = self.outcomes.wait_for(operation);
        delivery.observed(|outcome| awaited.end(outcome, delivered))
    }

    fn ready(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.ready()
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        self.waiting(Call::Flush, self.inner.flush())
    }

    fn partitions_for(&self, topic: Topic) -> BoxFuture<'_, Result<Partition>> {
        async move {
            let pending = self.pen.invoke(|writer| Call::PartitionsFor(writer.topic(&topic)));
            let outcome = self.inner.partitions_for(topic).await;
            match &outcome {
                Ok(partitions) => pending.ok(|_| Answer::Partitions(*partitions)),
                Err(error) => pending.failed(error),
            }
            outcome
        }
        .boxed()
    }

    fn close(&self, timeout: Duration) -> BoxFuture<'_, Result<()>> {
        self.waiting(Call::CloseProducer { timeout }, self.inner.close(timeout))
    }

    fn native(&self) -> &dyn Any {
        self.inner.native()
    }
}

#[deny(clippy::missing_trait_methods, reason = "what an adapter leaves out is not recorded")]
impl<P: TransactionalProducer + ?Sized> TransactionalProducer for Recorded<P> {
    fn init_transactions(&self) -> BoxFuture<'_, Result<()>> {
        self.waiting(Call::InitTransactions, self.inner.init_transactions())
    }

    fn begin(&self) -> Result<()> {
        self.pen.at_once(|_| Call::Begin, || self.inner.begin())
    }

    fn send_offsets<'a>(
        &'a self,
        offsets: &'a [(TopicPartition, OffsetAndMetadata)],
        group: &'a GroupMetadata,
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let pending = self.pen.invoke(|writer| {
                let generation = group.generation;
                let offsets = with_ids(writer, offsets, |offset| offset.offset);
                Call::SendOffsets { group: writer.name(&group.group_id), generation, offsets }
            });
            let outcome = self.inner.send_offsets(offsets, group).await;
            pending.end(&outcome);
            outcome
        }
        .boxed()
    }

    fn commit(&self) -> BoxFuture<'_, Result<()>> {
        self.waiting(Call::CommitTransaction, self.inner.commit())
    }

    fn abort(&self) -> BoxFuture<'_, Result<()>> {
        self.waiting(Call::AbortTransaction, self.inner.abort())
    }
}

impl<P: ?Sized> Drop for Recorded<P> {
    fn drop(&mut self) {
        self.pen.note(Note::Dropped);
    }
}

fn delivered(writer: &mut Writer, metadata: &RecordMetadata) -> Answer {
    let RecordMetadata { topic_partition, offset, timestamp } = metadata;
    let partition = writer.partition(&topic_partition.topic, topic_partition.partition);
    let timestamp = timestamp.map(bus_core::Timestamp::as_millis);
    Answer::Delivered { partition, offset: *offset, timestamp }
}
