//! A tiny Kafka that writes valid histories: two partitions, five producers, four consumers.
//!
//! It is a log with transactions, a group, and committed offsets, and nothing of a network. What a
//! step cannot do in its state, it leaves out.

use std::collections::BTreeMap;
use std::time::Duration;

use bus_check::History;
use bus_check::history::{
    Answer, Call, ClientId, ConsumerFacts, Handled, NameId, Note, OperationId, PartitionId,
    ProducerFacts, Role, SeenRecord, SentRecord,
};
use bus_check::story::{Story, idempotent};
use bus_core::{
    Acks, ErrorKind, IsolationLevel, Offset, OffsetReset, RebalanceKind, StartAt, partitioner,
};

use crate::step::{Fate, HowEnded, Step};

/// A record of the log, or a control record.
#[derive(Clone, Copy)]
struct Stored {
    record: Option<SeenRecord>,
    transaction: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Open,
    Committed,
    Aborted,
}

#[derive(Default)]
struct Producing {
    open: Vec<(OperationId, PartitionId, Offset)>,
    transaction: Option<usize>,
    is_initialized: bool,
    is_fenced: bool,
    offsets: Vec<(PartitionId, Offset)>,
    partitions: Vec<PartitionId>,
}

#[derive(Default)]
struct Consuming {
    positions: BTreeMap<PartitionId, Offset>,
    paused: Vec<PartitionId>,
}

/// The tiny Kafka.
pub(crate) struct Tiny {
    story: Story,
    producers: Vec<(ClientId, ProducerFacts, Producing)>,
    consumers: Vec<(ClientId, ConsumerFacts, Consuming)>,
    logs: BTreeMap<PartitionId, Vec<Stored>>,
    outcomes: Vec<Outcome>,
    committed: BTreeMap<PartitionId, Offset>,
    owners: [Option<usize>; 2],
    generation: i32,
    group: NameId,
    sends: u64,
    /// The record that a member was given last.
    last_given: Option<(PartitionId, Offset)>,
}

impl Tiny {
    /// Plays the steps, and gives the history.
    pub(crate) fn play(steps: &[Step]) -> History {
        let mut tiny = Self::new();
        tiny.rebalance([0, 1]);
        tiny.init(3);
        for step in steps {
            tiny.step(step);
        }
        tiny.finish()
    }

    fn new() -> Self {
        let mut story = Story::new();
        let topic = story.topic();
        story.done(ClientId(0), Call::CreatePartitions { topic, partitions: 2 });
        let places = [story.partition(0), story.partition(1)];
        let group = story.writer().name("g");
        let id = story.writer().name("tid");
        let transaction = Some((id, Duration::from_secs(30)));
        let plain =
            ProducerFacts { acks: Acks::Leader, idempotence: false, retries: 3, ..idempotent() };
        let facts = [
            idempotent(),
            idempotent(),
            plain,
            ProducerFacts { transaction, ..idempotent() },
            ProducerFacts { transaction, ..idempotent() },
        ];
        let producers = facts
            .into_iter()
            .map(|facts| (story.client(Role::Producer(facts.clone())), facts, Producing::default()))
            .collect();
        let member = ConsumerFacts { max_poll_records: 4, ..story.facts() };
        let reader = ConsumerFacts { group: None, ..member.clone() };
        let facts = [
            member.clone(),
            ConsumerFacts { reset: OffsetReset::Earliest, ..member },
            reader.clone(),
            ConsumerFacts { isolation: IsolationLevel::ReadUncommitted, ..reader },
        ];
        let mut consumers: Vec<_> = facts
            .into_iter()
            .map(|facts| (story.client(Role::Consumer(facts.clone())), facts, Consuming::default()))
            .collect();
        for (client, _, consuming) in &mut consumers[2..] {
            let from = places.map(|place| (place, StartAt::Beginning));
            story.done(*client, Call::Assign(Box::new(from)));
            consuming.positions = places.map(|place| (place, 0)).into();
        }
        for (client, ..) in &consumers[..2] {
            story.done(*client, Call::Subscribe(Box::new([topic])));
        }
        let logs = places.map(|place| (place, Vec::new())).into();
        Self {
            story,
            producers,
            consumers,
            logs,
            outcomes: Vec::new(),
            committed: BTreeMap::new(),
            owners: [None; 2],
            generation: 0,
            group,
            sends: 0,
            last_given: None,
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each kind of step")]
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Send { producer, partition, keyed, contents, fate } => {
                self.send(producer, partition, keyed, contents, fate);
            }
            Step::Acknowledge { producer } => self.acknowledge(producer),
            Step::Flush { producer } => {
                while !self.producers[producer].2.open.is_empty() {
                    self.acknowledge(producer);
                }
                let client = self.producers[producer].0;
                self.story.done(client, Call::Flush);
            }
            Step::Init { producer } => self.init(producer),
            Step::Begin { producer } => self.begin(producer),
            Step::SendOffsets { producer, member } => self.send_offsets(producer, member),
            Step::End { producer, how } => self.end(producer, how),
            Step::Transaction { producer, sends, member, how } => {
                self.begin(producer);
                for n in 0..sends {
                    self.send(producer, i32::from(n % 2), false, 40 + n, Fate::Open);
                }
                if let Some(member) = member {
                    self.send_offsets(producer, member);
                }
                self.end(producer, how);
            }
            Step::Close { producer } => {
                while !self.producers[producer].2.open.is_empty() {
                    self.acknowledge(producer);
                }
                let call = Call::CloseProducer { timeout: Duration::from_secs(1) };
                self.story.done(self.producers[producer].0, call);
            }
            Step::Rebalance { owners } => self.rebalance(owners),
            Step::Poll { consumer, most } => {
                self.poll(consumer, most);
            }
            Step::Commit { member, less, is_lost } => self.commit(member, less, is_lost),
            Step::Committed { member } => {
                let client = self.consumers[member].0;
                let places: Box<[_]> = self.logs.keys().copied().collect();
                let committed = places.iter().map(|place| self.committed.get(place).copied());
                let answer = Answer::Committed(committed.collect());
                let operation = self.story.call(client, Call::Committed(places));
                self.story.answer(client, operation, answer);
            }
            Step::Watermarks { consumer, partition } => {
                let place = self.story.partition(partition);
                let client = self.consumers[consumer].0;
                let high = self.high(place, self.consumers[consumer].1.isolation);
                let operation = self.story.call(client, Call::Watermarks(place));
                self.story.answer(client, operation, Answer::Watermarks { low: 0, high });
            }
            Step::Seek { consumer, partition, to } => {
                let place = self.story.partition(partition);
                let end = Offset::try_from(self.logs[&place].len()).unwrap();
                let (client, _, consuming) = &mut self.consumers[consumer];
                if let Some(position) = consuming.positions.get_mut(&place) {
                    *position = to.min(end);
                    let to = StartAt::Offset(*position);
                    self.story.done(*client, Call::Seek(place, to));
                }
            }
            Step::Pause { consumer, partition, resumes } => {
                let place = self.story.partition(partition);
                let (client, _, consuming) = &mut self.consumers[consumer];
                if consuming.positions.contains_key(&place) {
                    consuming.paused.retain(|paused| *paused != place);
                    let list = Box::new([place]);
                    if resumes {
                        self.story.done(*client, Call::Resume(list));
                    } else {
                        consuming.paused.push(place);
                        self.story.done(*client, Call::Pause(list));
                    }
                }
            }
            Step::Wait { millis } => self.story.wait(Duration::from_millis(millis)),
        }
    }

    fn send(&mut self, producer: usize, partition: i32, keyed: bool, contents: u8, fate: Fate) {
        let (client, facts, producing) = &self.producers[producer];
        let (client, is_transactional) = (*client, facts.transaction.is_some());
        let (transaction, is_ordered) = (producing.transaction, facts.keeps_order());
        if is_transactional && (transaction.is_none() || producing.is_fenced) {
            return;
        }
        let mut record = self.story.record(&format!("contents {contents}"));
        let mut number = partition;
        if keyed {
            // Most contents are their own.
            let key = partitioner::murmur2(&[contents, u8::from(partition == 1)]);
            record = SentRecord { partition: None, key: Some(key), ..record };
            number = (key & 0x7fff_ffff) % 2;
        } else {
            record.partition = Some(partition);
        }
        let place = self.story.partition(number);
        if contents > 3 {
            // Else contents repeat.
            self.sends += 1;
            record.digest = record.digest.rotate_left(7) ^ self.sends;
        }
        if is_transactional {
            record.cause = self.last_given;
        }
        let (digest, now) = (record.digest, record.now);
        let operation = self.story.call(client, Call::Send(Box::new(record)));
        // What is behind an open send of an ordered producer waits for it.
        let fate = match fate {
            Fate::Refused | Fate::Lost if is_transactional => Fate::Delivered,
            Fate::Open if !is_ordered => Fate::Delivered,
            fate => fate,
        };
        match fate {
            Fate::Refused => {
                return self.story.fail(client, operation, ErrorKind::MessageTooLarge);
            }
            Fate::Lost => {
                return self.story.fail(client, operation, ErrorKind::MessageTimedOut);
            }
            Fate::Delivered | Fate::Open | Fate::Appended => {}
        }
        let log = self.logs.get_mut(&place).unwrap();
        let offset = Offset::try_from(log.len()).unwrap();
        let record = SeenRecord {
            partition: place,
            leader_epoch: Some(0),
            offset,
            digest,
            timestamp: now,
            is_log_append_time: false,
        };
        log.push(Stored { record: Some(record), transaction });
        let producing = &mut self.producers[producer].2;
        if !producing.partitions.contains(&place) {
            producing.partitions.push(place);
        }
        match fate {
            Fate::Open => producing.open.push((operation, place, offset)),
            Fate::Delivered => {
                producing.open.push((operation, place, offset));
                // Deliveries end in the order of the calls.
                while !self.producers[producer].2.open.is_empty() {
                    self.acknowledge(producer);
                }
            }
            Fate::Appended | Fate::Lost | Fate::Refused => {
                self.story.fail(client, operation, ErrorKind::RequestTimedOut);
            }
        }
    }

    fn acknowledge(&mut self, producer: usize) {
        let (client, _, producing) = &mut self.producers[producer];
        if producing.open.is_empty() {
            return;
        }
        let (operation, partition, offset) = producing.open.remove(0);
        let answer = Answer::Delivered { partition, offset: Some(offset), timestamp: None };
        self.story.answer(*client, operation, answer);
    }

    fn init(&mut self, producer: usize) {
        if self.producers[producer].1.transaction.is_none() {
            return;
        }
        for other in [3, 4] {
            while !self.producers[other].2.open.is_empty() {
                self.acknowledge(other);
            }
            let open = self.producers[other].2.transaction;
            self.conclude(other, Outcome::Aborted);
            let producing = &mut self.producers[other].2;
            // Its producer has not heard of it yet.
            producing.transaction = open.filter(|_| other != producer);
            producing.is_fenced = other != producer;
        }
        let (client, _, producing) = &mut self.producers[producer];
        producing.is_initialized = true;
        self.story.done(*client, Call::InitTransactions);
    }

    fn begin(&mut self, producer: usize) {
        let (client, _, producing) = &mut self.producers[producer];
        if !producing.is_initialized || producing.is_fenced || producing.transaction.is_some() {
            return;
        }
        producing.transaction = Some(self.outcomes.len());
        self.outcomes.push(Outcome::Open);
        self.story.done(*client, Call::Begin);
    }

    fn send_offsets(&mut self, producer: usize, member: usize) {
        let positions = self.given(member);
        let (client, _, producing) = &mut self.producers[producer];
        if producing.transaction.is_none() || producing.is_fenced || positions.is_empty() {
            return;
        }
        producing.offsets.extend(positions.iter().copied());
        let (group, generation) = (self.group, self.generation);
        let call = Call::SendOffsets { group, generation, offsets: positions.into() };
        self.story.done(*client, call);
    }

    fn end(&mut self, producer: usize, how: HowEnded) {
        let (client, _, producing) = &self.producers[producer];
        let client = *client;
        if producing.transaction.is_none() || producing.is_fenced {
            return;
        }
        while !self.producers[producer].2.open.is_empty() {
            self.acknowledge(producer);
        }
        match how {
            HowEnded::Committed => {
                let operation = self.story.call(client, Call::CommitTransaction);
                self.conclude(producer, Outcome::Committed);
                self.story.answer(client, operation, Answer::Done);
            }
            HowEnded::Aborted => {
                let operation = self.story.call(client, Call::AbortTransaction);
                self.conclude(producer, Outcome::Aborted);
                self.story.answer(client, operation, Answer::Done);
            }
            HowEnded::CommittedUnknown => {
                let operation = self.story.call(client, Call::CommitTransaction);
                self.conclude(producer, Outcome::Committed);
                self.story.fail(client, operation, ErrorKind::TimedOut);
            }
            HowEnded::NotCommittedUnknown => {
                let operation = self.story.call(client, Call::CommitTransaction);
                self.story.fail(client, operation, ErrorKind::TimedOut);
                self.conclude(producer, Outcome::Aborted);
                self.story.done(client, Call::AbortTransaction);
            }
        }
    }

    /// Writes the markers of the open transaction of a producer.
    fn conclude(&mut self, producer: usize, outcome: Outcome) {
        let producing = &mut self.producers[producer].2;
        let Some(transaction) = producing.transaction.take() else { return };
        for place in producing.partitions.drain(..) {
            let log = self.logs.get_mut(&place).unwrap();
            log.push(Stored { record: None, transaction: None });
        }
        let offsets = std::mem::take(&mut producing.offsets);
        if self.outcomes[transaction] == Outcome::Open {
            self.outcomes[transaction] = outcome;
            if outcome == Outcome::Committed {
                self.committed.extend(offsets);
            }
        }
    }

    fn rebalance(&mut self, owners: [usize; 2]) {
        let places: Vec<_> = self.logs.keys().copied().collect();
        for member in 0..2 {
            let owned: Box<[_]> = self.consumers[member].2.positions.keys().copied().collect();
            if !owned.is_empty() {
                self.guard(member, RebalanceKind::Revoked, owned);
            }
            self.consumers[member].2 = Consuming::default();
        }
        self.generation += 1;
        for member in 0..2 {
            let owned: Box<[_]> = places
                .iter()
                .zip(owners)
                .filter(|(_, owner)| *owner == member)
                .map(|(p, _)| *p)
                .collect();
            self.guard(member, RebalanceKind::Assigned, owned.clone());
            for place in owned {
                let from = self.committed.get(&place).copied().unwrap_or(0);
                self.consumers[member].2.positions.insert(place, from);
            }
        }
        self.owners = owners.map(Some);
    }

    fn guard(&mut self, member: usize, kind: RebalanceKind, partitions: Box<[PartitionId]>) {
        let client = self.consumers[member].0;
        let generation = Some(self.generation);
        let poll = self.story.call(client, Call::Poll);
        let answer = Answer::Rebalance { kind, partitions: partitions.clone(), generation };
        self.story.answer(client, poll, answer);
        self.story.done(client, Call::Complete { kind, partitions });
    }

    /// The end of a partition for readers of this isolation.
    fn high(&self, place: PartitionId, isolation: IsolationLevel) -> Offset {
        let log = &self.logs[&place];
        let is_open = |stored: &Stored| {
            stored.transaction.is_some_and(|index| self.outcomes[index] == Outcome::Open)
        };
        let end = match isolation {
            IsolationLevel::ReadCommitted => log.iter().position(is_open),
            IsolationLevel::ReadUncommitted => None,
        };
        Offset::try_from(end.unwrap_or(log.len())).unwrap()
    }

    /// The visible records of a partition from an offset on.
    fn visible(
        &self,
        place: PartitionId,
        from: Offset,
        isolation: IsolationLevel,
    ) -> Vec<SeenRecord> {
        let is_aborted = |stored: &&Stored| {
            isolation == IsolationLevel::ReadCommitted
                && stored.transaction.is_some_and(|index| self.outcomes[index] == Outcome::Aborted)
        };
        let end = usize::try_from(self.high(place, isolation)).unwrap();
        let from = usize::try_from(from).unwrap().min(end);
        self.logs[&place][from..end]
            .iter()
            .filter(|stored| !is_aborted(stored))
            .filter_map(|stored| stored.record)
            .collect()
    }

    fn poll(&mut self, consumer: usize, most: usize) -> usize {
        let (client, facts, consuming) = &self.consumers[consumer];
        let (client, isolation) = (*client, facts.isolation);
        let mut records = Vec::new();
        for (place, position) in &consuming.positions {
            if !consuming.paused.contains(place) {
                let left = most.min(4) - records.len().min(most.min(4));
                records.extend(self.visible(*place, *position, isolation).into_iter().take(left));
            }
        }
        for record in &records {
            let positions = &mut self.consumers[consumer].2.positions;
            positions.insert(record.partition, record.offset + 1);
        }
        let count = records.len();
        if let Some(last) = records.last().filter(|_| consumer < 2) {
            self.last_given = Some((last.partition, last.offset));
        }
        self.story.poll_records(client, records.clone());
        if consumer == 0 {
            for record in records {
                let handled = Note::HandleEnd(record.partition, record.offset, Handled::Done);
                self.story.note(client, handled);
            }
        }
        count
    }

    /// What a member was given, per partition, as offsets to commit.
    fn given(&self, member: usize) -> Vec<(PartitionId, Offset)> {
        let positions = &self.consumers[member].2.positions;
        positions.iter().map(|(place, offset)| (*place, *offset)).collect()
    }

    fn commit(&mut self, member: usize, less: Offset, is_lost: bool) {
        let mut offsets = self.given(member);
        offsets.iter_mut().for_each(|(_, offset)| *offset = (*offset - less).max(0));
        if offsets.is_empty() {
            return;
        }
        let client = self.consumers[member].0;
        let operation = self.story.call(client, Call::Commit(offsets.clone().into()));
        if is_lost {
            return self.story.fail(client, operation, ErrorKind::RequestTimedOut);
        }
        self.committed.extend(offsets);
        self.story.answer(client, operation, Answer::Done);
    }

    /// Ends everything, lets everybody read on, and audits.
    fn finish(mut self) -> History {
        for producer in 0..self.producers.len() {
            while !self.producers[producer].2.open.is_empty() {
                self.acknowledge(producer);
            }
            if !self.producers[producer].2.is_fenced {
                self.end(producer, HowEnded::Aborted);
            }
        }
        self.story.quiesce();
        for consumer in 0..self.consumers.len() {
            while self.poll(consumer, 4) > 0 {}
        }
        self.story.wait(SETTLING);
        for consumer in 0..self.consumers.len() {
            self.poll(consumer, 4);
        }
        for isolation in [IsolationLevel::ReadUncommitted, IsolationLevel::ReadCommitted] {
            for place in self.logs.keys().copied().collect::<Vec<_>>() {
                let facts = ConsumerFacts { group: None, isolation, ..self.story.facts() };
                let reader = self.story.client(Role::Consumer(facts));
                let high = self.high(place, isolation);
                let operation = self.story.call(reader, Call::Watermarks(place));
                self.story.answer(reader, operation, Answer::Watermarks { low: 0, high });
                let from = Box::new([(place, StartAt::Offset(0))]);
                self.story.done(reader, Call::Assign(from));
                let records = self.visible(place, 0, isolation);
                self.story.poll_records(reader, records);
                let note = Note::Audited { partition: place, low: 0, high };
                self.story.note(reader, note);
            }
        }
        self.story.history()
    }
}

/// How long everything may take after the quiescence.
pub(crate) const SETTLING: Duration = Duration::from_secs(5);
