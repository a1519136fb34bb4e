//! Histories by hand: for tests of checkers, and for explaining one.
//!
//! A story has one topic `t` with partition 0 (and others on demand), one group `g`, and keeps what
//! the log really holds, so that polls can be told by offset alone.

use std::collections::BTreeMap;
use std::time::Duration;

use bus_core::{
    Acks, Bytes, Error, ErrorKind, Headers, IsolationLevel, Offset, OffsetReset, Partition,
    RebalanceKind, StartAt, Topic,
};

use crate::digest::digest;
use crate::history::{
    Answer, Call, ClientId, ConsumerFacts, History, Note, OperationId, PartitionId, ProducerFacts,
    Role, SeenRecord, SentRecord, TopicId, Writer,
};

/// A history that is told step by step; each step is a millisecond.
#[derive(Debug)]
pub struct Story {
    writer: Writer,
    at: u64,
    logs: BTreeMap<PartitionId, Vec<SeenRecord>>,
    process: u32,
}

impl Story {
    /// A story of topic `t` with one partition.
    pub fn new() -> Self {
        let mut story =
            Self { writer: Writer::new("story"), at: 0, logs: BTreeMap::new(), process: 0 };
        let admin = story.client(Role::Admin);
        let topic = story.topic();
        story.done(admin, Call::CreateTopic { topic, partitions: 1 });
        story
    }

    /// A story in which one idempotent producer has sent these values, one after the other.
    pub fn with(values: &[&str]) -> Self {
        let mut story = Self::new();
        let producer = story.producer();
        for value in values {
            story.sent(producer, value);
        }
        story
    }

    /// The history so far.
    pub fn history(&self) -> History {
        self.writer.history().clone()
    }

    /// What writes it, for what has no step of its own.
    pub const fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// The time now, which every step moves on.
    pub const fn step(&mut self) -> u64 {
        self.at += 1_000_000;
        self.at
    }

    /// Time passes.
    pub fn wait(&mut self, time: Duration) {
        self.at += u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    }

    /// The topic `t`.
    pub fn topic(&mut self) -> TopicId {
        self.writer.topic(&Topic::from("t"))
    }

    /// A partition of it.
    pub fn partition(&mut self, partition: Partition) -> PartitionId {
        self.writer.partition(&Topic::from("t"), partition)
    }

    /// The partition `t-0`.
    pub fn place(&mut self) -> PartitionId {
        self.partition(0)
    }

    /// A client in a process of its own.
    pub fn client(&mut self, role: Role) -> ClientId {
        self.process += 1;
        let process = self.writer.process(&format!("p{}", self.process));
        let at = self.step();
        self.writer.client(at, (process, 1), role)
    }

    /// An idempotent producer.
    pub fn producer(&mut self) -> ClientId {
        self.client(Role::Producer(idempotent()))
    }

    /// A transactional producer that was initialized.
    pub fn transactional(&mut self, id: &str) -> ClientId {
        let id = self.writer.name(id);
        let transaction = Some((id, Duration::from_mins(1)));
        let producer = self.client(Role::Producer(ProducerFacts { transaction, ..idempotent() }));
        self.done(producer, Call::InitTransactions);
        producer
    }

    /// A consumer of group `g`.
    pub fn member(&mut self) -> ClientId {
        let facts = self.facts();
        self.client(Role::Consumer(facts))
    }

    /// The configuration of a consumer of group `g`: from the earliest, `read_committed`.
    pub fn facts(&mut self) -> ConsumerFacts {
        ConsumerFacts {
            group: Some(self.writer.name("g")),
            instance: None,
            isolation: IsolationLevel::ReadCommitted,
            reset: OffsetReset::Earliest,
            auto_commit: false,
            auto_store: true,
            session_timeout: Duration::from_secs(1),
            max_poll_interval: Duration::from_secs(1),
            max_poll_records: 500,
            is_cooperative: false,
        }
    }

    /// A member that was assigned `t-0`.
    pub fn owner(&mut self) -> ClientId {
        let member = self.member();
        self.rebalance(member, RebalanceKind::Assigned);
        member
    }

    /// A consumer that was assigned `t-0` by hand.
    pub fn reader(&mut self, from: StartAt) -> ClientId {
        let reader = self.member();
        let place = self.place();
        self.done(reader, Call::Assign(Box::new([(place, from)])));
        reader
    }

    /// A call.
    pub fn call(&mut self, client: ClientId, call: Call) -> OperationId {
        let at = self.step();
        self.writer.invoke(at, client, call)
    }

    /// An answer.
    pub fn answer(&mut self, client: ClientId, operation: OperationId, answer: Answer) {
        let at = self.step();
        self.writer.ok(at, client, operation, answer);
    }

    /// A call that succeeds.
    pub fn done(&mut self, client: ClientId, call: Call) {
        let operation = self.call(client, call);
        self.answer(client, operation, Answer::Done);
    }

    /// An operation fails, with what the kind says of its effect.
    pub fn fail(&mut self, client: ClientId, operation: OperationId, kind: ErrorKind) {
        let at = self.step();
        self.writer.failed(at, client, operation, &Error::from(kind));
    }

    /// A note.
    pub fn note(&mut self, client: ClientId, note: Note) {
        let at = self.step();
        self.writer.note(at, client, note);
    }

    /// A value is sent to `t-0`.
    pub fn send(&mut self, producer: ClientId, value: &str) -> OperationId {
        let sent = self.record(value);
        self.call(producer, Call::Send(Box::new(sent)))
    }

    /// A record for `t-0` with this value.
    pub fn record(&mut self, value: &str) -> SentRecord {
        SentRecord {
            topic: self.topic(),
            partition: Some(0),
            key: None,
            digest: digest_of(value),
            timestamp: None,
            now: self.now(),
            cause: None,
        }
    }

    /// The broker appends a value to `t-0`.
    pub fn append(&mut self, value: &str) -> Offset {
        let place = self.place();
        let timestamp = self.now();
        let log = self.logs.entry(place).or_default();
        let offset = Offset::try_from(log.len()).unwrap_or(Offset::MAX);
        log.push(SeenRecord {
            partition: place,
            leader_epoch: None,
            offset,
            digest: digest_of(value),
            timestamp,
            is_log_append_time: false,
        });
        offset
    }

    /// A delivery succeeds.
    pub fn deliver(&mut self, producer: ClientId, send: OperationId, offset: Offset) {
        let partition = self.place();
        let answer = Answer::Delivered { partition, offset: Some(offset), timestamp: None };
        self.answer(producer, send, answer);
    }

    /// A value is sent, appended, and acknowledged.
    pub fn sent(&mut self, producer: ClientId, value: &str) -> Offset {
        let send = self.send(producer, value);
        let offset = self.append(value);
        self.deliver(producer, send, offset);
        offset
    }

    /// The record of `t-0` at this offset, as the log has it.
    ///
    /// # Panics
    /// If nothing was appended there.
    pub fn at(&mut self, offset: Offset) -> SeenRecord {
        let place = self.place();
        let index = usize::try_from(offset).expect("offsets start at 0");
        self.logs[&place][index]
    }

    /// A poll returns the records of `t-0` at these offsets.
    pub fn poll(&mut self, consumer: ClientId, offsets: &[Offset]) {
        let records: Vec<_> = offsets.iter().map(|offset| self.at(*offset)).collect();
        self.poll_records(consumer, records);
    }

    /// A poll returns these records.
    pub fn poll_records(&mut self, consumer: ClientId, records: Vec<SeenRecord>) {
        let poll = self.call(consumer, Call::Poll);
        self.answer(consumer, poll, Answer::Records(records.into()));
    }

    /// A member is given a guard about `t-0`, and completes it.
    pub fn rebalance(&mut self, member: ClientId, kind: RebalanceKind) {
        self.rebalance_in(member, kind, None);
    }

    /// The same, in a generation.
    pub fn rebalance_in(&mut self, member: ClientId, kind: RebalanceKind, generation: Option<i32>) {
        let partitions: Box<[_]> = Box::new([self.place()]);
        let poll = self.call(member, Call::Poll);
        let answer = Answer::Rebalance { kind, partitions: partitions.clone(), generation };
        self.answer(member, poll, answer);
        self.done(member, Call::Complete { kind, partitions });
    }

    /// A member commits `t-0` up to this offset.
    pub fn commit(&mut self, member: ClientId, offset: Offset) {
        let place = self.place();
        self.done(member, Call::Commit(Box::new([(place, offset)])));
    }

    /// A consumer asks what is committed for `t-0`, and is told this.
    pub fn committed(&mut self, consumer: ClientId, offset: Option<Offset>) {
        let place = self.place();
        let operation = self.call(consumer, Call::Committed(Box::new([place])));
        self.answer(consumer, operation, Answer::Committed(Box::new([offset])));
    }

    /// A consumer asks for the ends of `t-0`, and is told these.
    pub fn watermarks(&mut self, consumer: ClientId, low: Offset, high: Offset) {
        let place = self.place();
        let operation = self.call(consumer, Call::Watermarks(place));
        self.answer(consumer, operation, Answer::Watermarks { low, high });
    }

    /// A fresh reader reads these offsets of `t-0`, and that is all there is up to `high`.
    pub fn audit(
        &mut self,
        isolation: IsolationLevel,
        offsets: &[Offset],
        high: Offset,
    ) -> ClientId {
        let facts = ConsumerFacts { group: None, isolation, ..self.facts() };
        let reader = self.client(Role::Consumer(facts));
        let partition = self.place();
        self.watermarks(reader, 0, high);
        self.done(reader, Call::Assign(Box::new([(partition, StartAt::Offset(0))])));
        self.poll(reader, offsets);
        self.note(reader, Note::Audited { partition, low: 0, high });
        reader
    }

    /// All faults are healed.
    pub fn quiesce(&mut self) {
        self.note(ClientId(0), Note::Quiesced);
    }

    fn now(&self) -> i64 {
        i64::try_from(self.at / 1_000_000).unwrap_or(i64::MAX)
    }
}

impl Default for Story {
    fn default() -> Self {
        Self::new()
    }
}

/// The configuration of an idempotent producer with acks of all.
pub const fn idempotent() -> ProducerFacts {
    ProducerFacts {
        acks: Acks::All,
        idempotence: true,
        max_in_flight: 5,
        retries: u32::MAX,
        delivery_timeout: Duration::from_mins(2),
        transaction: None,
    }
}

/// The digest of a record that holds a value and nothing else.
pub fn digest_of(value: &str) -> u64 {
    digest(None, Some(&Bytes::copy_from_slice(value.as_bytes())), &Headers::new())
}
