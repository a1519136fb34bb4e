//! The consumer of a simulated process.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bus_core::{
    BoxFuture, Commit, Consumer, Error, ErrorKind, GroupMetadata, Offset, OffsetAndMetadata,
    OffsetReset, Operation, Polled, Rebalance, RebalanceCompleter, RebalanceGuard, Result, StartAt,
    Subscription, Timestamp, TopicPartition, Watermarks,
};

use crate::client::consumer::Ready;
use crate::client::{ClientMachine, Reply, consumer};
use crate::node::{ClientId, Effects};
use crate::time::SimTime;
use crate::world::CallRecord;

use super::Shared;
use super::bus::over;
use super::producer::{answer, reply_channel};

/// A simulated consumer.
#[derive(Debug)]
pub(super) struct SimConsumer {
    link: Arc<Link>,
}

/// The way to the machine; guards hold it too.
#[derive(Debug)]
struct Link {
    shared: Arc<Shared>,
    client: ClientId,
}

impl SimConsumer {
    pub(super) fn new(shared: Arc<Shared>, client: ClientId) -> Self {
        Self { link: Arc::new(Link { shared, client }) }
    }

    fn ask<T: Send + 'static>(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut consumer::Consumer, SimTime, Reply<T>, &mut Effects),
    ) -> BoxFuture<'_, Result<T>> {
        let (reply, receiver) = reply_channel();
        let called = self.link.call(|consumer, now, effects| {
            effects.record(|| CallRecord::Called(operation, String::new()));
            act(consumer, now, reply, effects);
        });
        Box::pin(answer(called.is_some(), receiver, operation))
    }

    fn now<T>(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut consumer::Consumer, SimTime, &mut Effects) -> Result<T>,
    ) -> Result<T> {
        let called = self.link.call(|consumer, now, effects| {
            effects.record(|| CallRecord::Called(operation, String::new()));
            act(consumer, now, effects)
        });
        let result = called.unwrap_or_else(|| Err(over()));
        result.map_err(|error| error.with_operation(operation))
    }
}

impl SimConsumer {
    /// The offset that a place stands for now.
    async fn place_of(&self, topic_partition: &TopicPartition, to: StartAt) -> Result<Offset> {
        let ends = || self.watermarks(topic_partition);
        Ok(match to {
            StartAt::Offset(offset) => offset,
            StartAt::Beginning => ends().await?.low,
            StartAt::End => ends().await?.high,
            StartAt::Timestamp(time) => {
                let times = [(topic_partition.clone(), time)];
                match self.offsets_for_times(&times).await?.first().copied().flatten() {
                    Some(offset) => offset,
                    None => ends().await?.high,
                }
            }
            StartAt::Committed => {
                let committed = match self.group_metadata() {
                    Some(_) => self.committed(std::slice::from_ref(topic_partition)).await?,
                    // Without a group nothing is committed.
                    None => Vec::new(),
                };
                if let Some(committed) = committed.into_iter().next().flatten() {
                    return Ok(committed.offset);
                }
                match self.link.call(|consumer, _, _| consumer.reset_policy()).ok_or_else(over)? {
                    OffsetReset::Earliest => ends().await?.low,
                    OffsetReset::Latest => ends().await?.high,
                    OffsetReset::None => {
                        let message = "no offset is committed, and auto.offset.reset is none";
                        return Err(Error::new(ErrorKind::NoOffset, message)
                            .with_topic_partition(topic_partition.clone()));
                    }
                }
            }
        })
    }
}

impl Link {
    /// Calls the machine. `None` if its process has crashed or the simulation is over.
    fn call<T>(
        &self,
        act: impl FnOnce(&mut consumer::Consumer, SimTime, &mut Effects) -> T,
    ) -> Option<T> {
        let called = self.shared.enter(|world| {
            world.with_client(self.client, |machine, now, effects| match machine {
                ClientMachine::Consumer(consumer) => act(consumer, now, effects),
                ClientMachine::Producer(_) | ClientMachine::Admin(_) => {
                    unreachable!("client {} is a consumer", self.client)
                }
            })
        });
        called.flatten()
    }
}

impl Consumer for SimConsumer {
    fn subscribe(&self, subscription: Subscription) -> Result<()> {
        self.now(Operation::Subscribe, |consumer, now, effects| {
            consumer.subscribe(now, subscription, effects)
        })
    }

    fn unsubscribe(&self) -> BoxFuture<'_, Result<()>> {
        self.ask(Operation::Subscribe, |consumer, now, reply, effects| {
            consumer.unsubscribe(now, reply, effects);
        })
    }

    fn assign(&self, partitions: &[(TopicPartition, StartAt)]) -> Result<()> {
        self.now(Operation::Assign, |consumer, now, effects| {
            consumer.assign(now, partitions, effects)
        })
    }

    fn assignment(&self) -> Vec<TopicPartition> {
        self.link.call(|consumer, _, _| consumer.assignment()).unwrap_or_default()
    }

    fn poll(&self, timeout: Duration) -> BoxFuture<'_, Result<Polled>> {
        Box::pin(PollFuture { link: &self.link, timeout, deadline: None })
    }

    fn seek<'a>(
        &'a self,
        topic_partition: &'a TopicPartition,
        to: StartAt,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.now(Operation::Seek, |consumer, _, _| consumer.check_seek(topic_partition, to))?;
            let place = self.place_of(topic_partition, to).await;
            let offset = place.map_err(|error| error.with_operation(Operation::Seek))?;
            self.now(Operation::Seek, |consumer, now, effects| {
                consumer.seek(now, topic_partition, offset, effects)
            })
        })
    }

    fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.now(Operation::Pause, |consumer, now, effects| {
            consumer.set_paused(now, partitions, true, effects)
        })
    }

    fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.now(Operation::Pause, |consumer, now, effects| {
            consumer.set_paused(now, partitions, false, effects)
        })
    }

    fn paused(&self) -> Vec<TopicPartition> {
        self.link.call(|consumer, _, _| consumer.paused()).unwrap_or_default()
    }

    fn commit(&self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Commit {
        let called = self.link.call(|consumer, now, effects| {
            effects.record(|| CallRecord::Called(Operation::Commit, describe(offsets)));
            consumer.commit(now, offsets, effects)
        });
        called.unwrap_or_else(|| {
            // The call of a dead process never completes.
            let (sender, commit) = Commit::channel();
            std::mem::forget(sender);
            commit
        })
    }

    fn store_offsets(&self, offsets: &[(TopicPartition, Offset)]) -> Result<()> {
        self.now(Operation::StoreOffsets, |consumer, _, _| consumer.store_offsets(offsets))
    }

    fn committed<'a>(
        &'a self,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<Vec<Option<OffsetAndMetadata>>>> {
        self.ask(Operation::Committed, |consumer, now, reply, effects| {
            consumer.committed(now, partitions.to_vec(), reply, effects);
        })
    }

    fn position(&self, topic_partition: &TopicPartition) -> Result<Option<Offset>> {
        self.now(Operation::Position, |consumer, _, _| consumer.position(topic_partition))
    }

    fn watermarks<'a>(
        &'a self,
        topic_partition: &'a TopicPartition,
    ) -> BoxFuture<'a, Result<Watermarks>> {
        self.ask(Operation::Watermarks, |consumer, now, reply, effects| {
            consumer.watermarks(now, topic_partition, reply, effects);
        })
    }

    fn offsets_for_times<'a>(
        &'a self,
        times: &'a [(TopicPartition, Timestamp)],
    ) -> BoxFuture<'a, Result<Vec<Option<Offset>>>> {
        self.ask(Operation::OffsetsForTimes, |consumer, now, reply, effects| {
            consumer.offsets_for_times(now, times, reply, effects);
        })
    }

    fn group_metadata(&self) -> Option<GroupMetadata> {
        self.link.call(|consumer, _, _| consumer.group_metadata()).flatten()
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.ask(Operation::Close, |consumer, now, reply, effects| {
            consumer.close(now, reply, effects);
        })
    }

    fn native(&self) -> &dyn Any {
        self
    }
}

impl Drop for SimConsumer {
    fn drop(&mut self) {
        self.link.call(|consumer, now, effects| {
            effects.record(|| CallRecord::Called(Operation::Close, "dropped".to_owned()));
            consumer.abandon(now, effects);
        });
    }
}

/// A poll that waits. Nothing is taken from the machine before it is ready, so dropping it loses
/// nothing.
struct PollFuture<'a> {
    link: &'a Arc<Link>,
    timeout: Duration,
    /// Set once the poll has begun.
    deadline: Option<SimTime>,
}

impl Future for PollFuture<'_> {
    type Output = Result<Polled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (timeout, begun) = (self.timeout, self.deadline);
        let link = self.link;
        let called = link.call(|consumer, now, effects| {
            let deadline = match begun {
                Some(deadline) => deadline,
                None => {
                    effects.record(|| CallRecord::Called(Operation::Poll, String::new()));
                    consumer.poll_begin(now, effects)?;
                    now + timeout
                }
            };
            let taken = consumer.poll_take(now, deadline, cx.waker(), effects);
            if let Some(taken) = &taken {
                record_taken(taken, effects);
                consumer.poll_end(now, effects);
            }
            Ok((deadline, taken))
        });
        let (deadline, taken) = match called {
            Some(Ok(taken)) => taken,
            Some(Err(error)) => {
                let error: Error = error;
                return Poll::Ready(Err(error.with_operation(Operation::Poll)));
            }
            // The call of a dead process never completes.
            None => return Poll::Pending,
        };
        let Some(ready) = taken else {
            self.deadline = Some(deadline);
            return Poll::Pending;
        };
        self.deadline = None;
        Poll::Ready(match ready {
            Ok(Ready::Records(records)) => Ok(Polled::Records(records)),
            Ok(Ready::Rebalance(rebalance)) => {
                let completer = Arc::new(Completer(Arc::clone(link)));
                Ok(Polled::Rebalance(RebalanceGuard::new(rebalance, completer)))
            }
            Err(error) => Err(error.with_operation(Operation::Poll)),
        })
    }
}

impl Drop for PollFuture<'_> {
    fn drop(&mut self) {
        if self.deadline.is_some() {
            self.link.call(|consumer, now, effects| consumer.poll_end(now, effects));
        }
    }
}

/// Tells the record of events what a poll took; an empty poll is nothing to tell.
fn record_taken(taken: &Result<Ready>, effects: &mut Effects) {
    match taken {
        Ok(Ready::Records(records)) if records.is_empty() => {}
        Ok(Ready::Records(records)) => effects.record(|| {
            let mut spans: BTreeMap<TopicPartition, (Offset, Offset)> = BTreeMap::new();
            for record in records {
                let span = spans.entry(record.topic_partition());
                span.and_modify(|span| span.1 = record.offset)
                    .or_insert((record.offset, record.offset));
            }
            let spans =
                spans.into_iter().map(|(partition, (first, last))| (partition, first, last));
            CallRecord::Polled(spans.collect())
        }),
        Ok(Ready::Rebalance(rebalance)) => {
            effects.record(|| CallRecord::Rebalance(Rebalance::clone(rebalance)));
        }
        Err(error) => {
            effects.record(|| CallRecord::Taken(error.message().to_owned(), Some(error.kind())));
        }
    }
}

/// Offsets to commit in a few words, for people.
fn describe(offsets: &[(TopicPartition, OffsetAndMetadata)]) -> String {
    let each = offsets.iter().map(|(partition, commit)| format!("{partition}@{}", commit.offset));
    each.collect::<Vec<_>>().join(", ")
}

struct Completer(Arc<Link>);

impl RebalanceCompleter for Completer {
    fn complete(&self, rebalance: Arc<Rebalance>) -> BoxFuture<'static, Result<()>> {
        let completed = self.0.call(|consumer, now, effects| {
            let operation = Operation::CompleteRebalance;
            effects.record(|| CallRecord::Called(operation, String::new()));
            consumer.complete_rebalance(now, &rebalance, effects)
        });
        Box::pin(async move {
            match completed {
                Some(completed) => {
                    completed.map_err(|e| e.with_operation(Operation::CompleteRebalance))
                }
                None => std::future::pending().await,
            }
        })
    }
}
