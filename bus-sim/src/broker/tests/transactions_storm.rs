//! Transactions over crashes: three brokers with three replicas of all, one of them down at times,
//! and producers that try again. What was committed is there, what was aborted is not, and in the
//! end nothing is open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{ErrorKind, IsolationLevel, TopicPartition};
use proptest::prelude::*;

use super::transactions::{Producer, TIMEOUT, orders};
use super::transactions_markers::replicated;
use super::{Cluster, response_of};
use crate::node::{BrokerId, Name};
use crate::protocol::batch::{ControlRecord, RecordBatch};
use crate::protocol::init_producer_id::{self, Transactional};
use crate::protocol::{Api, Request, Response, add_partitions_to_txn};

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A producer begins a transaction, or writes one more record in it.
    Write(usize, i32),
    End(usize, bool),
    /// A producer dies; another begins anew with its id.
    Replace(usize),
    Crash(BrokerId),
    /// The broker that is down comes back.
    Restart,
    Hold(bool),
    LoseMarkers,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..3_usize;
    prop_oneof![
        8 => (who(), 0..3).prop_map(|(who, partition)| Step::Write(who, partition)),
        5 => (who(), any::<bool>()).prop_map(|(who, is_commit)| Step::End(who, is_commit)),
        1 => who().prop_map(Step::Replace),
        2 => (1..4).prop_map(Step::Crash),
        2 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::Hold),
        1 => Just(Step::LoseMarkers),
        2 => (0..8_000_u64).prop_map(Step::Wait),
    ]
}

/// How a transaction ended, as its producer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Committed,
    Aborted,
    Unknown,
}

/// A producer that tries again.
#[derive(Debug)]
struct Worker {
    producer: Producer,
    /// It has a session.
    is_ready: bool,
    /// The values of its transaction, by partition.
    written: Vec<(TopicPartition, String)>,
    values: u32,
}

struct Storm {
    cluster: Cluster,
    workers: Vec<Worker>,
    down: Option<BrokerId>,
    ledger: Vec<(Outcome, Vec<(TopicPartition, String)>)>,
}

/// Whether the same request may succeed later.
fn may_pass(error: ErrorKind) -> bool {
    matches!(
        error,
        ErrorKind::NotLeaderOrFollower
            | ErrorKind::UnknownTopicOrPartition
            | ErrorKind::NotEnoughReplicas
            | ErrorKind::NotEnoughReplicasAfterAppend
            | ErrorKind::RequestTimedOut
            | ErrorKind::ConcurrentTransactions
            | ErrorKind::NotCoordinator
            | ErrorKind::CoordinatorNotAvailable
            | ErrorKind::CoordinatorLoadInProgress
    )
}

impl Storm {
    fn new() -> Self {
        let mut cluster = replicated(3);
        let workers = ["a", "b", "c"].into_iter().enumerate().map(|(index, id)| {
            let producer = Producer::new(&mut cluster, id);
            let producer = Producer { is_version_2: index == 2, ..producer };
            Worker { producer, is_ready: true, written: Vec::new(), values: 0 }
        });
        let workers = workers.collect();
        Self { cluster, workers, down: None, ledger: Vec::new() }
    }

    /// Sends a request to a broker, and waits for a while.
    fn ask(&mut self, broker: Option<BrokerId>, request: Request) -> Option<Response> {
        let broker = broker.filter(|broker| Some(*broker) != self.down)?;
        let connection = self.cluster.connect(broker);
        let asked = self.cluster.send(connection, request);
        for _ in 0..30 {
            if let Some(response) = self.cluster.take(connection, asked) {
                return Some(response);
            }
            self.cluster.advance(Duration::from_millis(100));
        }
        self.cluster.close(connection);
        None
    }

    /// Asks again until the answer is definite, if it is in time.
    fn insist<T>(
        &mut self,
        mut ask: impl FnMut(&mut Self) -> Option<Result<T, ErrorKind>>,
    ) -> Option<Result<T, ErrorKind>> {
        for _ in 0..40 {
            match ask(self) {
                Some(Err(error)) if may_pass(error) => {}
                None => {}
                answer => return answer,
            }
            self.cluster.advance(Duration::from_millis(300));
        }
        None
    }

    fn coordinator(&self, transactional_id: &Name) -> Option<BrokerId> {
        let any = self.cluster.any_broker();
        self.cluster.brokers[&any].0.transaction_coordinator(transactional_id).ok()
    }

    /// Begins a session anew, which aborts what is open.
    fn init(&mut self, who: usize) {
        let id = Name::clone(&self.workers[who].producer.transactional_id);
        let transactional =
            Some(Transactional { transactional_id: Name::clone(&id), timeout: TIMEOUT });
        let request =
            Request::InitProducerId(init_producer_id::Request { transactional, current: None });
        let answer = self.insist(|storm| {
            let coordinator = storm.coordinator(&id);
            let response = storm.ask(coordinator, request.clone())?;
            Some(response_of!(InitProducerId, response).result)
        });
        let worker = &mut self.workers[who];
        worker.is_ready = false;
        if let Some(Ok((id, epoch))) = answer {
            worker.is_ready = true;
            (worker.producer.id, worker.producer.epoch) = (id, epoch);
            worker.producer.sequences.clear();
        }
    }

    fn write(&mut self, who: usize, partition: &TopicPartition) {
        if !self.workers[who].is_ready {
            return self.init(who);
        }
        if !self.add(who, partition) {
            return self.give_up(who);
        }
        let worker = &mut self.workers[who];
        worker.values += 1;
        let value = format!("{who}-{}", worker.values);
        let Request::Produce(mut request) = worker.producer.produce(partition, 1) else {
            unreachable!("it is a produce")
        };
        let mut records = request.partitions[0].batch.records.to_vec();
        records[0].value = Some(value.clone().into());
        let stamp = request.partitions[0].batch.producer;
        let batch = Arc::new(RecordBatch::new(stamp, records).transactional());
        request.partitions[0].batch = batch;
        let answer = self.insist(|storm| {
            let leader = storm.cluster.leader_of(partition);
            let response = storm.ask(leader, Request::Produce(request.clone()))?;
            Some(response_of!(Produce, response).partitions.remove(0).result)
        });
        if let Some(Ok(_)) = answer {
            let worker = &mut self.workers[who];
            *worker.producer.sequences.entry(partition.clone()).or_default() += 1;
            worker.written.push((partition.clone(), value));
        } else {
            // It may be in the log, but no transaction commits with it.
            self.workers[who].written.push((partition.clone(), value));
            self.give_up(who);
        }
    }

    fn add(&mut self, who: usize, partition: &TopicPartition) -> bool {
        let producer = self.workers[who].producer.clone();
        if producer.is_version_2 {
            return true;
        }
        let request = Request::AddPartitionsToTxn(add_partitions_to_txn::Request {
            transactional_id: Name::clone(&producer.transactional_id),
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            verify_only: false,
            partitions: vec![partition.clone()],
        });
        let answer = self.insist(|storm| {
            let coordinator = storm.coordinator(&producer.transactional_id);
            let response = storm.ask(coordinator, request.clone())?;
            let error = response_of!(AddPartitionsToTxn, response).partitions[0].1;
            Some(error.map_or(Ok(()), Err))
        });
        matches!(answer, Some(Ok(())))
    }

    /// Ends the session: the transaction must not commit.
    fn give_up(&mut self, who: usize) {
        let written = std::mem::take(&mut self.workers[who].written);
        self.ledger.push((Outcome::Aborted, written));
        self.init(who);
    }

    fn end(&mut self, who: usize, is_commit: bool) {
        if self.workers[who].written.is_empty() || !self.workers[who].is_ready {
            return;
        }
        let producer = self.workers[who].producer.clone();
        let answer = self.insist(|storm| {
            let coordinator = storm.coordinator(&producer.transactional_id);
            let response = storm.ask(coordinator, producer.ending(is_commit))?;
            Some(response_of!(EndTxn, response).result)
        });
        let outcome = match answer {
            Some(Ok(session)) => {
                let worker = &mut self.workers[who];
                if producer.is_version_2 {
                    (worker.producer.id, worker.producer.epoch) = session;
                    worker.producer.sequences.clear();
                }
                if is_commit { Outcome::Committed } else { Outcome::Aborted }
            }
            _ if is_commit => Outcome::Unknown,
            _ => Outcome::Aborted,
        };
        let written = std::mem::take(&mut self.workers[who].written);
        self.ledger.push((outcome, written));
        if !matches!(answer, Some(Ok(_))) {
            self.init(who);
        }
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Write(who, partition) => self.write(who, &orders(partition)),
            Step::End(who, is_commit) => self.end(who, is_commit),
            Step::Replace(who) => self.give_up(who),
            Step::Crash(broker) if self.down.is_none() => {
                self.cluster.crash(broker);
                self.down = Some(broker);
            }
            Step::Crash(_) => {}
            Step::Restart => self.restart(),
            Step::Hold(true) => self.cluster.hold(Api::WriteTxnMarkers),
            Step::Hold(false) => self.cluster.release(),
            Step::LoseMarkers => self.cluster.lose_held(),
            Step::Wait(millis) => self.cluster.advance(Duration::from_millis(millis)),
        }
    }

    fn restart(&mut self) {
        if let Some(broker) = self.down.take() {
            self.cluster.start(broker);
        }
    }

    /// What those see that read committed records, per partition in order.
    fn seen(&mut self, partition: &TopicPartition) -> Vec<String> {
        let fetched = self.cluster.read(partition, IsolationLevel::ReadCommitted);
        let visible = super::transactions::visible(&fetched);
        let mut values = Vec::new();
        for stored in &fetched.batches {
            let is_data = stored.batch.control.is_none_or(|c| c != ControlRecord::Commit)
                && stored.batch.control.is_none();
            if is_data && visible.contains(&stored.base_offset) {
                let value = stored.batch.records[0].value.as_deref().unwrap_or_default();
                values.push(String::from_utf8_lossy(value).into_owned());
            }
        }
        values
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn transactions_are_all_or_nothing(steps in proptest::collection::vec(step(), 1..50)) {
        let mut storm = Storm::new();
        steps.iter().for_each(|step| storm.carry_out(*step));
        for who in 0..3 {
            storm.end(who, true);
        }
        storm.cluster.release();
        storm.restart();
        storm.cluster.advance(TIMEOUT * 2);
        let mut seen = BTreeMap::new();
        for partition in (0..3).map(orders) {
            let end = storm.cluster.end_offset(&partition, IsolationLevel::ReadUncommitted);
            let stable = storm.cluster.end_offset(&partition, IsolationLevel::ReadCommitted);
            prop_assert_eq!(end, stable, "something is open in {}", partition);
            for value in storm.seen(&partition) {
                let before = seen.insert(value, partition.clone());
                prop_assert_eq!(before, None, "seen twice");
            }
        }
        for (outcome, written) in &storm.ledger {
            let is_there = |(partition, value): &(TopicPartition, String)| {
                seen.get(value) == Some(partition)
            };
            let count = written.iter().filter(|record| is_there(record)).count();
            let expected: &[usize] = match outcome {
                Outcome::Committed => &[written.len()],
                Outcome::Aborted => &[0],
                Outcome::Unknown => &[0, written.len()],
            };
            prop_assert!(expected.contains(&count), "{outcome:?} {written:?} {seen:?}");
        }
    }
}
