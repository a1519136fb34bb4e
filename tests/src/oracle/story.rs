//! Histories by hand, good and bad, for the tests of the laws.

use std::collections::BTreeMap;
use std::time::Duration;

use bus_core::{
    Error, ErrorKind, Headers, IsolationLevel, Offset, OffsetReset, ProducerRecord, Rebalance,
    RebalanceKind, Record, RecordMetadata, StartAt, Timestamp, TimestampType, TopicPartition,
};

use super::{Evidence, Law, Log, judge};
use crate::history::{Client, ClientId, ConsumerFacts, Entry, Event, History, SendId};

/// A history with what the cluster holds in the end: one partition, `t-0`, and one group, `g`.
pub(super) struct Story {
    history: History,
    evidence: Evidence,
    time: u64,
}

impl Story {
    pub(super) fn new() -> Self {
        let logs = BTreeMap::from([(place(), Log::default())]);
        let committed = BTreeMap::from([("g".to_owned(), Some(BTreeMap::new()))]);
        let evidence = Evidence { logs, uncommitted: BTreeMap::new(), committed };
        let mut story = Self { history: History::default(), evidence, time: 0 };
        let admin = story.client(Client::Admin);
        story.event(admin, Event::Partitions { topic: "t".into(), partitions: 1 });
        story
    }

    /// A story in which these values were sent, one after the other.
    pub(super) fn with(values: &[&str]) -> Self {
        let mut story = Self::new();
        let producer = story.producer();
        for value in values {
            story.sent(producer, value);
        }
        story
    }

    pub(super) fn producer(&mut self) -> ClientId {
        self.client(Client::Producer { keeps_order: true, transactional_id: None })
    }

    pub(super) fn transactional(&mut self) -> ClientId {
        let transactional_id = Some("t".to_owned());
        self.client(Client::Producer { keeps_order: true, transactional_id })
    }

    pub(super) fn member(&mut self, reset: OffsetReset, auto_commit: bool) -> ClientId {
        self.client(Client::Consumer(ConsumerFacts {
            group_id: Some("g".to_owned()),
            isolation: IsolationLevel::ReadCommitted,
            reset,
            auto_commit,
            auto_store: true,
            patience: Duration::from_secs(1),
        }))
    }

    /// A member that was assigned the partition.
    pub(super) fn owner(&mut self) -> ClientId {
        let member = self.member(OffsetReset::Earliest, false);
        self.rebalance(member, RebalanceKind::Assigned);
        member
    }

    /// A consumer that was assigned the partition by hand.
    pub(super) fn reader(&mut self, from: StartAt) -> ClientId {
        let reader = self.member(OffsetReset::Earliest, false);
        self.event(reader, Event::Assigned(vec![(place(), from)]));
        reader
    }

    fn client(&mut self, client: Client) -> ClientId {
        self.time += 1;
        self.history.client(Duration::from_millis(self.time), self.now(), client)
    }

    pub(super) fn event(&mut self, client: ClientId, event: Event) {
        self.time += 1;
        let at = Duration::from_millis(self.time);
        self.history.push(Entry { at, now: self.now(), client, event });
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(i64::try_from(self.time).unwrap())
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.time += u64::try_from(time.as_millis()).unwrap();
    }

    pub(super) fn send(&mut self, producer: ClientId, value: &str) -> SendId {
        self.send_record(producer, ProducerRecord::to("t").value(value.to_owned()))
    }

    pub(super) fn send_record(&mut self, producer: ClientId, record: ProducerRecord) -> SendId {
        let send = self.history.next_send();
        self.event(producer, Event::Send { send, record });
        send
    }

    /// The broker appends a record.
    pub(super) fn append(&mut self, value: &str) -> Offset {
        let now = self.now();
        let log = self.log();
        let offset = log.end;
        log.end += 1;
        log.records.push(Record {
            topic: "t".into(),
            partition: 0,
            offset,
            timestamp: now,
            timestamp_type: TimestampType::CreateTime,
            leader_epoch: None,
            key: None,
            value: Some(value.to_owned().into()),
            headers: Headers::new(),
        });
        offset
    }

    /// The broker appends the marker of a transaction.
    pub(super) fn marker(&mut self) {
        self.log().end += 1;
        let written = self.log().clone();
        self.evidence.uncommitted.insert(place(), written);
    }

    /// A record is not visible to readers of committed records.
    pub(super) fn hide(&mut self, offset: Offset) {
        self.log().records.retain(|record| record.offset != offset);
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.history.entries()
    }

    pub(super) fn acknowledge(&mut self, producer: ClientId, send: SendId, offset: Offset) {
        let topic_partition = place();
        let metadata = RecordMetadata { topic_partition, offset: Some(offset), timestamp: None };
        self.event(producer, Event::Sent { send, outcome: Ok(metadata) });
    }

    pub(super) fn fail(&mut self, producer: ClientId, send: SendId, kind: ErrorKind) {
        self.event(producer, Event::Sent { send, outcome: Err(Error::from(kind)) });
    }

    /// A record is sent, appended, and acknowledged.
    pub(super) fn sent(&mut self, producer: ClientId, value: &str) -> Offset {
        let send = self.send(producer, value);
        let offset = self.append(value);
        self.acknowledge(producer, send, offset);
        offset
    }

    pub(super) fn rebalance(&mut self, member: ClientId, kind: RebalanceKind) {
        self.event(member, Event::Polling);
        self.event(member, Event::Rebalanced(Rebalance { kind, partitions: vec![place()] }));
    }

    /// The consumer is given the record that the log has there.
    pub(super) fn deliver(&mut self, consumer: ClientId, offset: Offset) {
        let record = self.log().at(offset).unwrap().clone();
        self.event(consumer, Event::Polling);
        self.event(consumer, Event::Delivered(record));
    }

    pub(super) fn commit(&mut self, member: ClientId, offset: Offset) {
        self.commit_silently(member, offset);
        let committed = self.evidence.committed.get_mut("g").unwrap().as_mut().unwrap();
        committed.insert(place(), offset.into());
    }

    /// A commit that is acknowledged and changes nothing.
    pub(super) fn commit_silently(&mut self, member: ClientId, offset: Offset) {
        let commit = self.history.next_commit();
        let offsets = vec![(place(), offset.into())];
        self.event(member, Event::Commit { commit, group_id: "g".to_owned(), offsets });
        self.event(member, Event::Committed { commit, outcome: Ok(()) });
    }

    /// What the group has committed in the end.
    pub(super) fn set_committed(&mut self, offset: Offset) {
        let committed = self.evidence.committed.get_mut("g").unwrap().as_mut().unwrap();
        committed.insert(place(), offset.into());
    }

    pub(super) fn log(&mut self) -> &mut Log {
        self.evidence.logs.get_mut(&place()).unwrap()
    }

    /// The laws that the story breaks.
    pub(super) fn broken(&self) -> Vec<Law> {
        let violations = judge(&self.history.entries(), &self.evidence);
        violations.into_iter().map(|violation| violation.law).collect()
    }
}

pub(super) fn place() -> TopicPartition {
    TopicPartition::new("t", 0)
}
