//! `Recorded`: any bus, with a history of what its clients do.
//!
//! Cases are plain code on a [`Bus`]; this adapter around it writes their [`History`]. It changes
//! nothing but that a delivery or commit resolves in a task of its own.

mod producers;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Acks, Admin, Backend, BoxFuture, Bus, ClusterDescription, Commit, Consumer, ConsumerConfig,
    GroupDescription, GroupListing, GroupMetadata, GroupOffset, NewTopic, Offset,
    OffsetAndMetadata, Partition, Polled, ProcessStart, Producer, ProducerConfig, Rebalance,
    RebalanceCompleter, RebalanceGuard, Result, StartAt, Subscription, Timestamp, Topic,
    TopicDescription, TopicPartition, TransactionConfig, TransactionalProducer, Uuid, Watermarks,
};
use futures_util::FutureExt as _;
use parking_lot::Mutex;

use self::producers::{RecordedProducer, RecordedTransactions};
use crate::history::{Client, ClientId, ConsumerFacts, Entry, Event, History};

/// A bus like `bus` whose clients write `history`.
pub fn recorded(bus: &Bus, history: &History) -> Bus {
    Bus::new(Arc::new(Recorded { bus: bus.clone(), history: history.clone() }))
}

#[derive(Debug)]
struct Recorded {
    bus: Bus,
    history: History,
}

impl Recorded {
    fn pen(&self, client: Client) -> Pen {
        let client = self.history.client(self.bus.elapsed(), self.bus.now(), client);
        Pen { bus: self.bus.clone(), history: self.history.clone(), client }
    }
}

#[deny(clippy::missing_trait_methods, reason = "what an adapter leaves out is not recorded")]
impl Backend for Recorded {
    fn scheme(&self) -> &'static str {
        self.bus.scheme()
    }

    fn producer(&self, config: ProducerConfig) -> Result<Arc<dyn Producer>> {
        let keeps_order = config.enable_idempotence
            || config.max_in_flight == 1
            || (config.retries == 0 && config.acks != Acks::None);
        let inner = self.bus.producer(config)?;
        let pen = self.pen(Client::Producer { keeps_order, transactional_id: None });
        Ok(Arc::new(RecordedProducer::new(inner, pen)))
    }

    fn transactional_producer(
        &self,
        config: ProducerConfig,
        transaction: TransactionConfig,
    ) -> Result<Arc<dyn TransactionalProducer>> {
        let transactional_id = Some(transaction.transactional_id.clone());
        let inner = self.bus.transactional_producer(config, transaction)?;
        let pen = self.pen(Client::Producer { keeps_order: true, transactional_id });
        Ok(Arc::new(RecordedTransactions::new(inner, pen)))
    }

    fn consumer(&self, config: ConsumerConfig) -> Result<Arc<dyn Consumer>> {
        let facts = ConsumerFacts {
            group_id: config.group_id.clone(),
            isolation: config.isolation_level,
            reset: config.auto_offset_reset,
            auto_commit: config.enable_auto_commit,
            auto_store: config.enable_auto_offset_store,
            patience: config.max_poll_interval.min(config.session_timeout),
        };
        let inner = self.bus.consumer(config)?;
        let pen = self.pen(Client::Consumer(facts.clone()));
        Ok(Arc::new(RecordedConsumer { inner, pen, facts, completed: Arc::default() }))
    }

    fn admin(&self) -> Result<Arc<dyn Admin>> {
        let inner = self.bus.admin()?;
        Ok(Arc::new(RecordedAdmin { inner, pen: self.pen(Client::Admin) }))
    }

    fn now(&self) -> Timestamp {
        self.bus.now()
    }

    fn elapsed(&self) -> Duration {
        self.bus.elapsed()
    }

    fn new_id(&self) -> Uuid {
        self.bus.new_id()
    }

    fn spawn(&self, name: &str, task: BoxFuture<'static, ()>) {
        drop(self.bus.spawn(name, task));
    }

    fn process(&self, name: &str, start: ProcessStart) {
        let history = self.history.clone();
        self.bus.process(name, move |bus| start(recorded(&bus, &history)));
    }

    fn native(&self) -> &dyn Any {
        self.bus.native()
    }
}

/// What a client writes the history with.
#[derive(Clone)]
struct Pen {
    bus: Bus,
    history: History,
    client: ClientId,
}

impl Pen {
    fn write(&self, event: Event) {
        let Self { bus, history, client } = self;
        history.push(Entry { at: bus.elapsed(), now: bus.now(), client: *client, event });
    }
}

impl fmt::Debug for Pen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pen").field(&self.client).finish()
    }
}

#[derive(Debug)]
struct RecordedConsumer {
    inner: Arc<dyn Consumer>,
    pen: Pen,
    facts: ConsumerFacts,
    completed: Arc<Mutex<Option<RebalanceGuard>>>,
}

#[deny(clippy::missing_trait_methods, reason = "what an adapter leaves out is not recorded")]
impl Consumer for RecordedConsumer {
    fn subscribe(&self, subscription: Subscription) -> Result<()> {
        self.inner.subscribe(subscription)?;
        self.pen.write(Event::Subscribed);
        Ok(())
    }

    fn unsubscribe(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            self.inner.unsubscribe().await?;
            self.pen.write(Event::Unsubscribed);
            Ok(())
        }
        .boxed()
    }

    fn assign(&self, partitions: &[(TopicPartition, StartAt)]) -> Result<()> {
        self.inner.assign(partitions)?;
        self.pen.write(Event::Assigned(partitions.to_vec()));
        Ok(())
    }

    fn assignment(&self) -> Vec<TopicPartition> {
        self.inner.assignment()
    }

    fn poll(&self, timeout: Duration) -> BoxFuture<'_, Result<Polled>> {
        async move {
            self.pen.write(Event::Polling);
            // Nothing is awaited after this, so a cancelled poll loses nothing here either.
            let polled = self.inner.poll(timeout).await;
            match polled {
                Ok(Polled::Records(records)) => {
                    for record in &records {
                        self.pen.write(Event::Delivered(record.clone()));
                    }
                    Ok(Polled::Records(records))
                }
                Ok(Polled::Rebalance(guard)) => Ok(Polled::Rebalance(self.guard(guard))),
                Err(error) => {
                    self.pen.write(Event::PollFailed(error.kind()));
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
            self.inner.seek(topic_partition, to).await?;
            self.pen.write(Event::Sought { topic_partition: topic_partition.clone(), to });
            Ok(())
        }
        .boxed()
    }

    fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.inner.pause(partitions)?;
        self.pen.write(Event::Paused(partitions.to_vec()));
        Ok(())
    }

    fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.pen.write(Event::Resumed(partitions.to_vec()));
        self.inner.resume(partitions)
    }

    fn paused(&self) -> Vec<TopicPartition> {
        self.inner.paused()
    }

    fn commit(&self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Commit {
        let Some(group_id) = self.facts.group_id.clone() else {
            return self.inner.commit(offsets);
        };
        let commit = self.pen.history.next_commit();
        self.pen.write(Event::Commit { commit, group_id, offsets: offsets.to_vec() });
        let inner = self.inner.commit(offsets);
        let (sender, recorded) = Commit::channel();
        let pen = self.pen.clone();
        drop(self.pen.bus.spawn("recorded commit", async move {
            let outcome = inner.await;
            pen.write(Event::Committed { commit, outcome: outcome.clone() });
            sender.complete(outcome);
        }));
        recorded
    }

    fn store_offsets(&self, offsets: &[(TopicPartition, Offset)]) -> Result<()> {
        self.inner.store_offsets(offsets)?;
        self.pen.write(Event::Stored(offsets.to_vec()));
        Ok(())
    }

    fn committed<'a>(
        &'a self,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<Vec<Option<OffsetAndMetadata>>>> {
        self.inner.committed(partitions)
    }

    fn position(&self, topic_partition: &TopicPartition) -> Result<Option<Offset>> {
        self.inner.position(topic_partition)
    }

    fn watermarks<'a>(
        &'a self,
        topic_partition: &'a TopicPartition,
    ) -> BoxFuture<'a, Result<Watermarks>> {
        self.inner.watermarks(topic_partition)
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
        self.pen.write(Event::Closed);
        self.inner.close()
    }

    fn native(&self) -> &dyn Any {
        self.inner.native()
    }
}

impl RecordedConsumer {
    fn guard(&self, inner: RebalanceGuard) -> RebalanceGuard {
        let rebalance = Arc::new(inner.rebalance().clone());
        let (pen, completed) = (self.pen.clone(), Arc::clone(&self.completed));
        RebalanceGuard::new(rebalance, Arc::new(Completer { inner, pen, completed }))
    }
}

impl Drop for RecordedConsumer {
    fn drop(&mut self) {
        self.pen.write(Event::Closed);
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
        if !again {
            self.pen.write(Event::Rebalanced(Rebalance::clone(&rebalance)));
            *completed = Some(self.inner.clone());
        }
        self.inner.clone().complete().boxed()
    }
}

#[derive(Debug)]
struct RecordedAdmin {
    inner: Arc<dyn Admin>,
    pen: Pen,
}

#[deny(clippy::missing_trait_methods, reason = "what an adapter leaves out is not recorded")]
impl Admin for RecordedAdmin {
    fn create_topic(&self, topic: NewTopic) -> BoxFuture<'_, Result<()>> {
        async move {
            let made =
                Event::Partitions { topic: topic.topic.clone(), partitions: topic.partitions };
            self.inner.create_topic(topic).await?;
            self.pen.write(made);
            Ok(())
        }
        .boxed()
    }

    fn delete_topic(&self, topic: Topic) -> BoxFuture<'_, Result<()>> {
        async move {
            self.inner.delete_topic(topic.clone()).await?;
            self.pen.write(Event::TopicDeleted(topic));
            Ok(())
        }
        .boxed()
    }

    fn create_partitions(&self, topic: Topic, partitions: Partition) -> BoxFuture<'_, Result<()>> {
        async move {
            self.inner.create_partitions(topic.clone(), partitions).await?;
            self.pen.write(Event::Partitions { topic, partitions });
            Ok(())
        }
        .boxed()
    }

    fn describe_topic(&self, topic: Topic) -> BoxFuture<'_, Result<TopicDescription>> {
        self.inner.describe_topic(topic)
    }

    fn list_topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        self.inner.list_topics()
    }

    fn describe_cluster(&self) -> BoxFuture<'_, Result<ClusterDescription>> {
        self.inner.describe_cluster()
    }

    fn list_groups(&self) -> BoxFuture<'_, Result<Vec<GroupListing>>> {
        self.inner.list_groups()
    }

    fn describe_group<'a>(&'a self, group_id: &'a str) -> BoxFuture<'a, Result<GroupDescription>> {
        self.inner.describe_group(group_id)
    }

    fn group_offsets<'a>(&'a self, group_id: &'a str) -> BoxFuture<'a, Result<Vec<GroupOffset>>> {
        self.inner.group_offsets(group_id)
    }

    fn delete_group<'a>(&'a self, group_id: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            self.inner.delete_group(group_id).await?;
            self.pen.write(Event::GroupDeleted(group_id.to_owned()));
            Ok(())
        }
        .boxed()
    }

    fn alter_group_offsets<'a>(
        &'a self,
        group_id: &'a str,
        offsets: &'a [(TopicPartition, OffsetAndMetadata)],
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let commit = self.pen.history.next_commit();
            let (group, asked) = (group_id.to_owned(), offsets.to_vec());
            self.pen.write(Event::Commit { commit, group_id: group, offsets: asked });
            let outcome = self.inner.alter_group_offsets(group_id, offsets).await;
            self.pen.write(Event::Committed { commit, outcome: outcome.clone() });
            outcome
        }
        .boxed()
    }

    fn topic_config(&self, topic: Topic) -> BoxFuture<'_, Result<BTreeMap<String, String>>> {
        self.inner.topic_config(topic)
    }

    fn alter_topic_config(
        &self,
        topic: Topic,
        changes: BTreeMap<String, Option<String>>,
    ) -> BoxFuture<'_, Result<()>> {
        self.inner.alter_topic_config(topic, changes)
    }

    fn delete_records(
        &self,
        topic_partition: TopicPartition,
        before: Offset,
    ) -> BoxFuture<'_, Result<Offset>> {
        self.inner.delete_records(topic_partition, before)
    }
}
