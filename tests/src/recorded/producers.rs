//! The producers of [`Recorded`](super::Recorded): sends, transactions, and the offsets in them.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    BoxFuture, Delivery, Error, ErrorKind, GroupMetadata, OffsetAndMetadata, Partition, Producer,
    ProducerRecord, Recovery, Result, Topic, TopicPartition, TransactionalProducer,
};
use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::Pen;
use crate::history::{CommitId, End, Event};

/// A producer whose sends are recorded.
#[derive(Debug)]
pub(super) struct RecordedProducer<P: ?Sized> {
    inner: Arc<P>,
    pen: Pen,
    turn: Mutex<()>,
}

impl<P: ?Sized> RecordedProducer<P> {
    pub(super) fn new(inner: Arc<P>, pen: Pen) -> Self {
        Self { inner, pen, turn: Mutex::default() }
    }
}

#[deny(clippy::missing_trait_methods, reason = "what an adapter leaves out is not recorded")]
impl<P: Producer + ?Sized> Producer for RecordedProducer<P> {
    fn send(&self, record: ProducerRecord) -> Delivery {
        let (send, delivery) = {
            // Calls of several threads have one order: that of the history.
            let _turn = self.turn.lock();
            let send = self.pen.history.next_send();
            self.pen.write(Event::Send { send, record: record.clone() });
            (send, self.inner.send(record))
        };
        let (sender, recorded) = Delivery::channel();
        let pen = self.pen.clone();
        drop(self.pen.bus.spawn("recorded delivery", async move {
            let outcome = delivery.await;
            pen.write(Event::Sent { send, outcome: outcome.clone() });
            sender.complete(outcome);
        }));
        recorded
    }

    fn ready(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.ready()
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.flush()
    }

    fn partitions_for(&self, topic: Topic) -> BoxFuture<'_, Result<Partition>> {
        self.inner.partitions_for(topic)
    }

    fn close(&self, timeout: Duration) -> BoxFuture<'_, Result<()>> {
        self.pen.write(Event::Closed);
        self.inner.close(timeout)
    }

    fn native(&self) -> &dyn Any {
        self.inner.native()
    }
}

/// The same with its transactions.
#[derive(Debug)]
pub(super) struct RecordedTransactions {
    producer: RecordedProducer<dyn TransactionalProducer>,
    /// The commits of offsets that end with the transaction.
    offsets: Mutex<Vec<CommitId>>,
}

impl RecordedTransactions {
    pub(super) fn new(inner: Arc<dyn TransactionalProducer>, pen: Pen) -> Self {
        Self { producer: RecordedProducer::new(inner, pen), offsets: Mutex::default() }
    }

    async fn end(&self, end: End) -> Result<()> {
        let RecordedProducer { inner, pen, .. } = &self.producer;
        pen.write(Event::Ending(end));
        let outcome = match end {
            End::Commit => inner.commit().await,
            End::Abort => inner.abort().await,
        };
        pen.write(Event::Ended { end, outcome: outcome.clone() });
        let aborted = || Err(Error::new(ErrorKind::TransactionAbortable, "aborted"));
        let of_offsets = match (end, &outcome) {
            (End::Commit, Ok(())) => Ok(()),
            (End::Abort, Ok(())) => aborted(),
            (_, Err(error)) if error.recovery() != Recovery::Close || error.is_indeterminate() => {
                // It is still open, or nobody knows.
                return outcome;
            }
            (_, Err(_)) => aborted(),
        };
        for commit in self.offsets.lock().drain(..) {
            pen.write(Event::Committed { commit, outcome: of_offsets.clone() });
        }
        outcome
    }
}

#[deny(clippy::missing_trait_methods, reason = "what an adapter leaves out is not recorded")]
impl TransactionalProducer for RecordedTransactions {
    fn init_transactions(&self) -> BoxFuture<'_, Result<()>> {
        self.producer.inner.init_transactions()
    }

    fn begin(&self) -> Result<()> {
        let RecordedProducer { inner, pen, turn } = &self.producer;
        // No send of another thread comes in between.
        let _turn = turn.lock();
        inner.begin()?;
        // Those of a transaction whose end nobody saw stay open.
        self.offsets.lock().clear();
        pen.write(Event::Begun);
        Ok(())
    }

    fn send_offsets<'a>(
        &'a self,
        offsets: &'a [(TopicPartition, OffsetAndMetadata)],
        group: &'a GroupMetadata,
    ) -> BoxFuture<'a, Result<()>> {
        let RecordedProducer { inner, pen, .. } = &self.producer;
        if offsets.is_empty() {
            return inner.send_offsets(offsets, group);
        }
        async move {
            let commit = pen.history.next_commit();
            let (group_id, asked) = (group.group_id.clone(), offsets.to_vec());
            pen.write(Event::Commit { commit, group_id, offsets: asked });
            // They count from the end of the transaction on, even if nobody waits for this.
            self.offsets.lock().push(commit);
            let outcome = inner.send_offsets(offsets, group).await;
            if let Err(error) = &outcome
                && !error.is_indeterminate()
            {
                self.offsets.lock().retain(|other| *other != commit);
                pen.write(Event::Committed { commit, outcome: outcome.clone() });
            }
            outcome
        }
        .boxed()
    }

    fn commit(&self) -> BoxFuture<'_, Result<()>> {
        self.end(End::Commit).boxed()
    }

    fn abort(&self) -> BoxFuture<'_, Result<()>> {
        self.end(End::Abort).boxed()
    }
}

#[deny(clippy::missing_trait_methods, reason = "what an adapter leaves out is not recorded")]
impl Producer for RecordedTransactions {
    fn send(&self, record: ProducerRecord) -> Delivery {
        self.producer.send(record)
    }

    fn ready(&self) -> BoxFuture<'_, Result<()>> {
        self.producer.ready()
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        self.producer.flush()
    }

    fn partitions_for(&self, topic: Topic) -> BoxFuture<'_, Result<Partition>> {
        self.producer.partitions_for(topic)
    }

    fn close(&self, timeout: Duration) -> BoxFuture<'_, Result<()>> {
        self.producer.close(timeout)
    }

    fn native(&self) -> &dyn Any {
        self.producer.native()
    }
}
