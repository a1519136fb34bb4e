//! The transactional producer of a simulated process.
//!
//! A call goes on when its future is dropped; the same call made again gets its outcome, as with
//! `bus-kafka`.

use std::any::Any;
use std::time::Duration;

use bus_core::{
    BoxFuture, Delivery, Error, ErrorKind, GroupMetadata, OffsetAndMetadata, Operation, Partition,
    Producer, ProducerRecord, Recovery, Result, Topic, TopicPartition, TransactionalProducer,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::client::{Reply, producer};
use crate::node::Effects;
use crate::time::SimTime;
use crate::world::CallRecord;

use super::bus::over;
use super::producer::SimProducer;

/// A simulated producer of transactions.
#[derive(Debug)]
pub(super) struct SimTransactionalProducer {
    producer: SimProducer,
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    /// The newest, until somebody has seen its outcome.
    newest: Option<Call>,
    count: u64,
}

impl Calls {
    /// Makes way for another call, unless one is under way.
    fn clear(&mut self) -> Result<()> {
        if let Some(call) = self.newest.as_ref().filter(|call| call.is_running()) {
            let message = format!(
                "{:?} is under way; its future was dropped, or is elsewhere",
                call.operation
            );
            return Err(Error::new(ErrorKind::InvalidState, message).with_recovery(Recovery::Retry));
        }
        self.newest = None;
        Ok(())
    }
}

/// A call that was made.
#[derive(Clone, Debug)]
struct Call {
    id: u64,
    operation: Operation,
    outcome: watch::Receiver<Option<Result<()>>>,
}

impl Call {
    fn is_running(&self) -> bool {
        self.outcome.borrow().is_none()
    }
}

impl SimTransactionalProducer {
    pub(super) fn new(producer: SimProducer) -> Self {
        Self { producer, calls: Mutex::default() }
    }

    /// Makes a call, or takes up the same call of a future that was dropped.
    fn resume(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut producer::Producer, SimTime, Reply<()>, &mut Effects),
    ) -> BoxFuture<'_, Result<()>> {
        let newest = self.calls.lock().newest.clone();
        match newest {
            Some(call) if call.operation == operation => self.outcome(call),
            _ => self.start(operation, act),
        }
    }

    fn start(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut producer::Producer, SimTime, Reply<()>, &mut Effects),
    ) -> BoxFuture<'_, Result<()>> {
        let (sender, outcome) = watch::channel(None);
        let call = {
            let mut calls = self.calls.lock();
            if let Err(error) = calls.clear() {
                return failed(error, operation);
            }
            calls.count += 1;
            let call = Call { id: calls.count, operation, outcome };
            calls.newest = Some(call.clone());
            call
        };
        let reply = Reply::new(move |result| {
            sender.send_replace(Some(result));
        });
        // The outcome may be handed over at once, so nothing is locked here.
        let called = self.producer.call(|producer, now, effects| {
            effects.record(|| CallRecord::Called(operation, String::new()));
            act(producer, now, reply, effects);
        });
        if called.is_none() {
            // The call of a dead process never completes.
            return Box::pin(std::future::pending());
        }
        self.outcome(call)
    }

    /// Waits for the outcome of a call. Whoever sees it first lets it be forgotten.
    fn outcome(&self, mut call: Call) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let outcome = match call.outcome.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
                Err(_) => Err(over()),
            };
            self.calls.lock().newest.take_if(|newest| newest.id == call.id);
            outcome.map_err(|error| error.with_operation(call.operation))
        })
    }
}

fn failed(error: Error, operation: Operation) -> BoxFuture<'static, Result<()>> {
    Box::pin(std::future::ready(Err(error.with_operation(operation))))
}

impl TransactionalProducer for SimTransactionalProducer {
    fn init_transactions(&self) -> BoxFuture<'_, Result<()>> {
        self.resume(Operation::InitTransactions, |producer, now, reply, effects| {
            producer.init_transactions(now, reply, effects);
        })
    }

    fn begin(&self) -> Result<()> {
        let is_free = self.calls.lock().clear();
        let begun = is_free.and_then(|()| {
            let begun = self.producer.call(|producer, now, effects| {
                let operation = Operation::BeginTransaction;
                effects.record(|| CallRecord::Called(operation, String::new()));
                producer.begin_transaction(now, effects)
            });
            begun.unwrap_or_else(|| Err(over()))
        });
        begun.map_err(|error| error.with_operation(Operation::BeginTransaction))
    }

    fn send_offsets<'a>(
        &'a self,
        offsets: &'a [(TopicPartition, OffsetAndMetadata)],
        group: &'a GroupMetadata,
    ) -> BoxFuture<'a, Result<()>> {
        let sent = self.start(Operation::SendOffsets, |producer, now, reply, effects| {
            producer.send_offsets(now, offsets, group, reply, effects);
        });
        Box::pin(async move { sent.await.map_err(|error| error.with_group_id(&group.group_id)) })
    }

    fn commit(&self) -> BoxFuture<'_, Result<()>> {
        self.resume(Operation::CommitTransaction, |producer, now, reply, effects| {
            producer.commit_transaction(now, reply, effects);
        })
    }

    fn abort(&self) -> BoxFuture<'_, Result<()>> {
        self.resume(Operation::AbortTransaction, |producer, now, reply, effects| {
            producer.abort_transaction(now, reply, effects);
        })
    }
}

impl Producer for SimTransactionalProducer {
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
