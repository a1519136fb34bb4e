//! The producer: accumulator, batches, retries, and sequences, as librdkafka has them.
//!
//! A record waits in its partition's queue until a batch is full or has lingered. A batch that
//! failed goes back to the head of its partition, in order, with the same sequences. If a batch is
//! given up although a broker may have it, the producer drains all that is in flight and gets a new
//! producer id before it goes on; if a sequence is out of order although all before it was
//! acknowledged, it fails for good.

mod dispatch;
mod outcome;
mod partition;
mod planted;
#[cfg(test)]
mod script;
mod sequence;
mod session;
mod topic;
mod transaction;

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Duration;

use bus_core::{
    Bytes, Delivery, Error, ErrorKind, Partition, ProducerConfig, ProducerRecord, Result, Topic,
    TopicPartition,
};

use crate::client::connections::{Connections, Outcome};
use crate::client::metadata::{Metadata, Refresh};
use crate::client::{ClientTimer, Completion, Identity, Reply};
use crate::mutation::Mutation;
use crate::node::{Effects, Input, Timer};
use crate::protocol::Response;
use crate::protocol::batch::BatchRecord;
use crate::time::SimTime;

use partition::{Batch, Pending};
use session::Session;
use topic::TopicState;
use transaction::Transaction;
pub(crate) use transaction::TransactionSettings;

/// What a request is remembered by.
#[derive(Debug)]
pub(crate) enum Token {
    Metadata,
    InitProducerId,
    Produce(TopicPartition, Batch),
    /// Of the transaction.
    FindCoordinator,
    AddPartitions,
    AddOffsets,
    /// The coordinator of a group.
    FindGroup,
    TxnOffsetCommit,
    EndTxn,
}

/// A producer.
#[derive(Debug)]
pub(crate) struct Producer {
    identity: Identity,
    config: ProducerConfig,
    mutation: Option<Mutation>,
    connections: Connections<Token>,
    metadata: Metadata,
    refresh: Refresh,
    topics: BTreeMap<Topic, TopicState>,
    session: Session,
    /// `None` for a producer without transactions.
    transaction: Option<Box<Transaction>>,
    /// Produce requests without an outcome, on all links.
    requests_in_flight: u32,
    next_number: u64,
    buffered_records: u32,
    buffered_bytes: u64,
    flushes: Vec<Flush>,
    /// Who waits for room in the buffer.
    ready_wakers: Vec<Waker>,
    partition_requests: Vec<(Topic, Reply<Partition>)>,
    linger_at: Option<SimTime>,
    delivery_timeout_at: Option<SimTime>,
    retry_at: Option<SimTime>,
    closing: Option<Closing>,
}

/// A call that waits for all records before it.
#[derive(Debug)]
struct Flush {
    /// Records with a lower number belong to it.
    before: u64,
    remaining: u32,
    reply: Option<Reply<()>>,
}

#[derive(Debug)]
enum Closing {
    Flushing(Vec<Reply<()>>),
    Closed,
}

impl Producer {
    pub(crate) fn new(
        identity: Identity,
        config: ProducerConfig,
        brokers: i32,
        mutation: Option<Mutation>,
    ) -> Self {
        let session = if config.enable_idempotence { Session::unassigned() } else { Session::Off };
        Self::with_session(identity, config, brokers, mutation, session)
    }

    /// A producer of transactions.
    pub(crate) fn transactional(
        identity: Identity,
        config: ProducerConfig,
        settings: TransactionSettings,
        brokers: i32,
        mutation: Option<Mutation>,
    ) -> Self {
        let session = Session::Uninitialized;
        let mut producer = Self::with_session(identity, config, brokers, mutation, session);
        producer.transaction = Some(Box::new(Transaction::new(settings)));
        producer
    }

    fn with_session(
        identity: Identity,
        config: ProducerConfig,
        brokers: i32,
        mutation: Option<Mutation>,
        session: Session,
    ) -> Self {
        Self {
            connections: Connections::new(identity.clone(), brokers),
            metadata: Metadata::new(brokers),
            refresh: Refresh::default(),
            topics: BTreeMap::new(),
            session,
            transaction: None,
            requests_in_flight: 0,
            next_number: 0,
            buffered_records: 0,
            buffered_bytes: 0,
            flushes: Vec::new(),
            ready_wakers: Vec::new(),
            partition_requests: Vec::new(),
            linger_at: None,
            delivery_timeout_at: None,
            retry_at: None,
            closing: None,
            identity,
            config,
            mutation,
        }
    }

    /// Puts a record into the buffer.
    pub(crate) fn send(
        &mut self,
        now: SimTime,
        record: ProducerRecord,
        effects: &mut Effects,
    ) -> Delivery {
        if let Err(error) = self.check(&record) {
            return self.refuse(error, &record);
        }
        let (sender, delivery) = Delivery::channel();
        let number = self.next_number;
        self.next_number += 1;
        let ProducerRecord { topic, partition, key, value, headers, timestamp } = record;
        let record = BatchRecord {
            timestamp: timestamp.unwrap_or_else(|| now.timestamp()),
            key: self.mangle(key),
            value: self.mangle(value),
            headers,
        };
        let pending = Pending { size: record.size(), record, sender, number, enqueued: now };
        self.buffered_records += 1;
        self.buffered_bytes += u64::from(pending.size);
        self.watch_delivery_timeout(now, effects);
        let bias = self.key_bias();
        let state = self.topics.entry(topic.clone()).or_insert_with(|| TopicState::unknown(now));
        match state.partition_for(
            now,
            &self.identity,
            &topic,
            partition,
            pending.record.key.as_deref(),
            self.config.sticky_linger,
            bias,
        ) {
            None if state.is_missing => {
                self.want_metadata(now, effects);
                self.reject(pending, outcome::unknown_topic(&topic), effects);
            }
            None => {
                state.unassigned.push_back((partition, pending));
                self.want_metadata(now, effects);
            }
            Some(Err(error)) => self.reject(pending, error, effects),
            Some(Ok(partition)) => {
                let queue = &mut state.partitions[partition];
                queue.push(pending);
                let is_full = queue.is_full(&self.config);
                if self.transaction.is_some() {
                    let place = topic_partition(&topic, partition);
                    self.add_to_transaction(now, place, effects);
                }
                if is_full || self.is_flushing() {
                    self.pump(now, &topic, partition, effects);
                } else {
                    self.watch_linger(now + self.config.linger, effects);
                }
            }
        }
        delivery
    }

    /// Whether the buffer has room; if not, `waker` is woken when it has.
    pub(crate) fn poll_ready(&mut self, waker: &Waker) -> Option<Result<()>> {
        if self.closing.is_some() {
            return Some(Err(closed()));
        }
        if self.has_room() {
            return Some(Ok(()));
        }
        if !self.ready_wakers.iter().any(|other| other.will_wake(waker)) {
            self.ready_wakers.push(waker.clone());
        }
        None
    }

    /// Sends everything without lingering and replies when all of it is over.
    pub(crate) fn flush(&mut self, now: SimTime, reply: Reply<()>, effects: &mut Effects) {
        if self.closing.is_some() {
            reply.send(Err(closed()), effects);
        } else {
            self.begin_flush(now, Some(reply), effects);
        }
    }

    /// Replies with the number of partitions of a topic.
    pub(crate) fn partitions_for(
        &mut self,
        now: SimTime,
        topic: Topic,
        reply: Reply<Partition>,
        effects: &mut Effects,
    ) {
        if self.closing.is_some() {
            reply.send(Err(closed()), effects);
        } else {
            // As librdkafka's, the answer is the cluster's of now: the topic may have grown.
            self.topics.entry(topic.clone()).or_insert_with(|| TopicState::unknown(now));
            self.partition_requests.push((topic, reply));
            self.want_metadata(now, effects);
        }
    }

    /// Flushes for at most `timeout`, then fails what is left.
    pub(crate) fn close(
        &mut self,
        now: SimTime,
        timeout: Duration,
        reply: Reply<()>,
        effects: &mut Effects,
    ) {
        match &mut self.closing {
            Some(Closing::Closed) => reply.send(Ok(()), effects),
            Some(Closing::Flushing(replies)) => replies.push(reply),
            None => {
                self.closing = Some(Closing::Flushing(vec![reply]));
                self.wake_ready(effects);
                if self.mutation == Some(Mutation::AcknowledgedInFlightLostOnClose) {
                    self.pretend_delivery(effects);
                }
                if self.mutation != Some(Mutation::CloseIgnoresDeadline) {
                    effects.set_timer(Timer::Client(ClientTimer::OperationTimeout), now + timeout);
                }
                self.begin_flush(now, None, effects);
                self.finish_close_if_drained(effects);
            }
        }
    }

    /// Discards what is in the buffer, as dropping librdkafka's producer does.
    pub(crate) fn purge(&mut self, effects: &mut Effects) {
        self.closing = Some(Closing::Closed);
        self.wake_ready(effects);
        self.fail_everything(effects);
        self.drop_call(effects);
        self.connections.close_all(effects);
    }

    /// What a call of the application waits for, if one does.
    pub(crate) fn waiting(&self) -> Option<String> {
        let call = self.transaction.as_ref().and_then(|transaction| transaction.waiting());
        call.or_else(|| {
            (self.buffered_records > 0)
                .then(|| format!("a producer has {} records undelivered", self.buffered_records))
        })
    }

    pub(crate) fn handle(&mut self, now: SimTime, input: Input, effects: &mut Effects) {
        match self.connections.handle(now, input, effects) {
            Ok(outcomes) => {
                for outcome in outcomes {
                    self.conclude(now, outcome, effects);
                }
                self.pump_all(now, effects);
            }
            Err(Input::Timer(Timer::Client(timer))) => self.timer(now, timer, effects),
            Err(_) => {}
        }
        self.pump_transaction(now, effects);
        self.finish_close_if_drained(effects);
    }

    fn timer(&mut self, now: SimTime, timer: ClientTimer, effects: &mut Effects) {
        match timer {
            ClientTimer::Linger => {
                self.linger_at = None;
                self.pump_all(now, effects);
            }
            ClientTimer::Retry => {
                self.retry_at = None;
                self.pump_all(now, effects);
            }
            ClientTimer::MetadataRefresh => {
                self.refresh.timer_fired();
                self.want_metadata(now, effects);
            }
            ClientTimer::DeliveryTimeout => {
                self.delivery_timeout_at = None;
                self.expire(now, effects);
                self.pump_all(now, effects);
            }
            ClientTimer::Transaction => self.transaction_timer_fired(now, effects),
            ClientTimer::OperationTimeout => {
                if matches!(self.closing, Some(Closing::Flushing(_))) {
                    self.finish_close(effects);
                }
            }
            _ => {}
        }
    }

    fn conclude(&mut self, now: SimTime, outcome: Outcome<Token>, effects: &mut Effects) {
        match outcome {
            Outcome::Response(Token::Metadata, Response::Metadata(response)) => {
                self.refresh.end();
                self.learn(now, &response, effects);
            }
            Outcome::Response(Token::InitProducerId, Response::InitProducerId(response)) => {
                self.initialized(now, response.result, effects);
            }
            Outcome::Response(
                Token::Produce(topic_partition, batch),
                Response::Produce(response),
            ) => {
                self.requests_in_flight -= 1;
                let result = response.partitions.into_iter().next().map(|first| first.result);
                match result {
                    Some(Ok(appended)) => {
                        self.acknowledged(topic_partition, batch, Some(appended), effects);
                    }
                    Some(Err(error)) => self.refused(now, topic_partition, batch, error, effects),
                    None => self.lost(now, topic_partition, batch, true, effects),
                }
            }
            Outcome::Down => {
                if !self.topics.is_empty() {
                    self.want_metadata(now, effects);
                }
            }
            Outcome::Failed { token: Token::Metadata, .. } => {
                self.refresh.end();
                self.want_metadata_later(now, effects);
            }
            Outcome::Failed { token: Token::InitProducerId, .. } => {
                self.initialized(now, Err(ErrorKind::NetworkException), effects);
            }
            Outcome::Failed { token: Token::Produce(topic_partition, batch), was_sent, .. } => {
                self.requests_in_flight -= 1;
                self.lost(now, topic_partition, batch, was_sent, effects);
            }
            outcome => self.transaction_concluded(now, outcome, effects),
        }
    }

    fn check_open(&self) -> Result<()> {
        if self.closing.is_some() { Err(closed()) } else { Ok(()) }
    }

    /// Whether nothing is sent any more.
    fn closing_for_good(&self) -> bool {
        matches!(self.closing, Some(Closing::Closed))
    }

    fn check(&self, record: &ProducerRecord) -> Result<()> {
        self.check_open()?;
        record.topic.validate()?;
        if let Some(partition) = record.partition.filter(|partition| *partition < 0) {
            let message = format!("partition {partition} is negative; partitions start at 0");
            return Err(Error::new(ErrorKind::UnknownTopicOrPartition, message)
                .with_topic_partition(TopicPartition::new(&record.topic, partition)));
        }
        let size = payload_size(record);
        if size > self.config.max_request_size as usize {
            let message = format!(
                "the record has {size} bytes; message.max.bytes allows {}",
                self.config.max_request_size
            );
            return Err(Error::new(ErrorKind::MessageTooLarge, message));
        }
        if !self.has_room() {
            let message =
                format!("the buffer holds {} records; wait for ready()", self.buffered_records);
            return Err(Error::new(ErrorKind::QueueFull, message));
        }
        self.check_not_failed()?;
        self.transaction.as_ref().map_or(Ok(()), |transaction| transaction.check_send())
    }

    fn refuse(&self, error: Error, record: &ProducerRecord) -> Delivery {
        if error.kind() == ErrorKind::Closed
            && self.mutation == Some(Mutation::PublishAfterCloseDropped)
        {
            let (sender, delivery) = Delivery::channel();
            sender.complete(Ok(bus_core::RecordMetadata {
                topic_partition: TopicPartition::new(&record.topic, 0),
                offset: Some(0),
                timestamp: record.timestamp,
            }));
            return delivery;
        }
        Delivery::failed(error.with_operation(bus_core::Operation::Send))
    }

    fn has_room(&self) -> bool {
        self.buffered_records < self.config.buffer_records
            && self.buffered_bytes < u64::from(self.config.buffer_kbytes) * 1024
    }

    /// How far the partitioner is off; zero but for a planted bug.
    fn key_bias(&self) -> Partition {
        Partition::from(self.mutation == Some(Mutation::KeyToAnotherPartition))
    }

    fn is_flushing(&self) -> bool {
        !self.flushes.is_empty()
    }

    fn mangle(&self, bytes: Option<Bytes>) -> Option<Bytes> {
        if self.mutation != Some(Mutation::NonUtf8Mangled) {
            return bytes;
        }
        bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned().into())
    }

    fn begin_flush(&mut self, now: SimTime, reply: Option<Reply<()>>, effects: &mut Effects) {
        if self.buffered_records == 0 {
            if let Some(reply) = reply {
                reply.send(Ok(()), effects);
            }
            return;
        }
        let remaining = self.buffered_records;
        self.flushes.push(Flush { before: self.next_number, remaining, reply });
        self.pump_all(now, effects);
    }

    fn finish_close_if_drained(&mut self, effects: &mut Effects) {
        if matches!(self.closing, Some(Closing::Flushing(_))) && self.buffered_records == 0 {
            self.finish_close(effects);
        }
    }

    fn finish_close(&mut self, effects: &mut Effects) {
        let left = self.buffered_records;
        let Some(Closing::Flushing(replies)) = self.closing.replace(Closing::Closed) else {
            return;
        };
        self.fail_everything(effects);
        self.drop_call(effects);
        effects.cancel_timer(Timer::Client(ClientTimer::OperationTimeout));
        self.connections.close_all(effects);
        for reply in replies {
            reply.send(
                if left == 0 {
                    Ok(())
                } else {
                    let message = format!("{left} records were not delivered before the timeout");
                    Err(Error::new(ErrorKind::TimedOut, message)
                        .with_operation(bus_core::Operation::Close))
                },
                effects,
            );
        }
    }

    fn wake_ready(&mut self, effects: &mut Effects) {
        for waker in self.ready_wakers.drain(..) {
            effects.complete(Completion::Wake(waker));
        }
    }
}

fn topic_partition(topic: &Topic, index: usize) -> TopicPartition {
    let partition = Partition::try_from(index).unwrap_or(Partition::MAX);
    TopicPartition { topic: topic.clone(), partition }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the producer is closed")
}

/// The bytes of a record as librdkafka counts them against `message.max.bytes`.
fn payload_size(record: &ProducerRecord) -> usize {
    let bytes = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers = record.headers.iter().map(|header| header.name.len() + bytes(&header.value));
    bytes(&record.key) + bytes(&record.value) + headers.sum::<usize>()
}
