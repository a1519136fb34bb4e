//! Transactions: the coordinator, markers, and what those that read committed records see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{Acks, ErrorKind, IsolationLevel, Offset, Timestamp, TopicPartition};

use super::{Cluster, batch, response_of};
use crate::config::{BrokerConfig, SimConfig};
use crate::fact::{Fact, TransactionFact};
use crate::node::{BrokerId, ConnectionId, Name};
use crate::protocol::batch::{
    ControlRecord, ProducerEpoch, ProducerId, ProducerStamp, RecordBatch,
};
use crate::protocol::fetch::{self, Fetched};
use crate::protocol::find_coordinator::{self, CoordinatorType};
use crate::protocol::init_producer_id::{self, Transactional};
use crate::protocol::list_offsets::{self, OffsetSpec};
use crate::protocol::{Request, Response, add_partitions_to_txn, end_txn, produce};

pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// A transactional producer.
#[derive(Clone, Debug)]
pub(super) struct Producer {
    pub(super) transactional_id: Name,
    pub(super) id: ProducerId,
    pub(super) epoch: ProducerEpoch,
    /// The next sequence of each partition.
    pub(super) sequences: BTreeMap<TopicPartition, i32>,
    pub(super) is_version_2: bool,
}

impl Producer {
    pub(super) fn new(cluster: &mut Cluster, transactional_id: &str) -> Self {
        let mut producer = Self {
            transactional_id: transactional_id.into(),
            id: -1,
            epoch: -1,
            sequences: BTreeMap::new(),
            is_version_2: false,
        };
        producer.init(cluster).unwrap();
        producer
    }

    /// The same, as a client that speaks version 2 of transactions.
    pub(super) fn version_2(self) -> Self {
        Self { is_version_2: true, ..self }
    }

    pub(super) fn coordinator(&self, cluster: &mut Cluster) -> ConnectionId {
        let request = find_coordinator::Request {
            coordinator_type: CoordinatorType::Transaction,
            key: Name::clone(&self.transactional_id),
        };
        let any = cluster.any_broker();
        let connection = cluster.connect(any);
        let response = cluster.call(connection, Request::FindCoordinator(request));
        let broker = response_of!(FindCoordinator, response).result.unwrap();
        cluster.connect(broker)
    }

    fn ask_init(
        &self,
        cluster: &mut Cluster,
        current: Option<(ProducerId, ProducerEpoch)>,
    ) -> Result<(ProducerId, ProducerEpoch), ErrorKind> {
        let transactional_id = Name::clone(&self.transactional_id);
        let transactional = Some(Transactional { transactional_id, timeout: TIMEOUT });
        let request = Request::InitProducerId(init_producer_id::Request { transactional, current });
        let connection = self.coordinator(cluster);
        response_of!(InitProducerId, cluster.call(connection, request)).result
    }

    /// Begins a new session, waiting for the transaction before.
    pub(super) fn init(&mut self, cluster: &mut Cluster) -> Result<(), ErrorKind> {
        self.init_with(cluster, None)
    }

    /// Begins a new epoch of the session.
    pub(super) fn bump(&mut self, cluster: &mut Cluster) -> Result<(), ErrorKind> {
        self.init_with(cluster, Some((self.id, self.epoch)))
    }

    fn init_with(
        &mut self,
        cluster: &mut Cluster,
        current: Option<(ProducerId, ProducerEpoch)>,
    ) -> Result<(), ErrorKind> {
        for _ in 0..10 {
            match self.ask_init(cluster, current) {
                Err(ErrorKind::ConcurrentTransactions) => {
                    cluster.advance(Duration::from_millis(100));
                }
                result => {
                    (self.id, self.epoch) = result?;
                    self.sequences.clear();
                    return Ok(());
                }
            }
        }
        Err(ErrorKind::ConcurrentTransactions)
    }

    pub(super) fn add(
        &self,
        cluster: &mut Cluster,
        partitions: &[TopicPartition],
    ) -> Option<ErrorKind> {
        let request = add_partitions_to_txn::Request {
            transactional_id: Name::clone(&self.transactional_id),
            producer_id: self.id,
            producer_epoch: self.epoch,
            verify_only: false,
            partitions: partitions.to_vec(),
        };
        let connection = self.coordinator(cluster);
        let response = cluster.call(connection, Request::AddPartitionsToTxn(request));
        response_of!(AddPartitionsToTxn, response).partitions[0].1
    }

    /// A request to append `count` records, with the next sequence.
    pub(super) fn produce(&self, partition: &TopicPartition, count: usize) -> Request {
        let stamp = ProducerStamp {
            producer_id: self.id,
            producer_epoch: self.epoch,
            base_sequence: self.sequences.get(partition).copied().unwrap_or(0),
        };
        let batch = batch(&vec![0; count]).with_producer(Some(stamp)).transactional();
        Request::Produce(produce::Request {
            transactional_id: Some(Name::clone(&self.transactional_id)),
            is_version_2: self.is_version_2,
            acks: Acks::All,
            timeout: Duration::from_secs(30),
            partitions: vec![produce::PartitionRequest {
                topic_partition: partition.clone(),
                batch: Arc::new(batch),
            }],
        })
    }

    /// Appends `count` records to a partition that is in the transaction.
    pub(super) fn send(
        &mut self,
        cluster: &mut Cluster,
        partition: &TopicPartition,
        count: usize,
    ) -> Result<Offset, ErrorKind> {
        let request = self.produce(partition, count);
        let leader = cluster.leader_of(partition).unwrap();
        let connection = cluster.connect(leader);
        let response = cluster.call_patiently(connection, request);
        let appended = response_of!(Produce, response).partitions.remove(0).result?;
        *self.sequences.entry(partition.clone()).or_default() += i32::try_from(count).unwrap();
        Ok(appended.base_offset)
    }

    /// Adds a partition, and appends `count` records to it.
    pub(super) fn write(
        &mut self,
        cluster: &mut Cluster,
        partition: &TopicPartition,
        count: usize,
    ) -> Result<Offset, ErrorKind> {
        if !self.is_version_2 {
            while let Some(error) = self.add(cluster, std::slice::from_ref(partition)) {
                if error != ErrorKind::ConcurrentTransactions {
                    return Err(error);
                }
                cluster.advance(Duration::from_millis(50));
            }
        }
        self.send(cluster, partition, count)
    }

    pub(super) fn ending(&self, is_commit: bool) -> Request {
        Request::EndTxn(end_txn::Request {
            transactional_id: Name::clone(&self.transactional_id),
            producer_id: self.id,
            producer_epoch: self.epoch,
            is_commit,
            is_version_2: self.is_version_2,
        })
    }

    pub(super) fn end(&mut self, cluster: &mut Cluster, is_commit: bool) -> Result<(), ErrorKind> {
        let connection = self.coordinator(cluster);
        let response = cluster.call(connection, self.ending(is_commit));
        let session = response_of!(EndTxn, response).result?;
        if self.is_version_2 && session != (self.id, self.epoch) {
            (self.id, self.epoch) = session;
            self.sequences.clear();
        }
        Ok(())
    }

    pub(super) fn commit(&mut self, cluster: &mut Cluster) {
        self.end(cluster, true).unwrap();
    }

    pub(super) fn abort(&mut self, cluster: &mut Cluster) {
        self.end(cluster, false).unwrap();
    }
}

/// Brokers with one replica of everything.
pub(super) fn unreplicated(brokers: BrokerId) -> SimConfig {
    let broker = BrokerConfig {
        default_replication_factor: 1,
        offsets_topic_replication_factor: 1,
        transaction_state_replication_factor: 1,
        ..Default::default()
    };
    SimConfig { brokers, broker, ..Default::default() }
}

impl Cluster {
    pub(super) fn any_broker(&self) -> BrokerId {
        *self.brokers.iter().find(|(_, (_, is_up))| *is_up).unwrap().0
    }

    pub(super) fn leader_of(&self, partition: &TopicPartition) -> Option<BrokerId> {
        self.controller.image.partition(partition)?.leader
    }

    /// As `call`, but the broker may ask a coordinator for a while.
    pub(super) fn call_patiently(
        &mut self,
        connection: ConnectionId,
        request: Request,
    ) -> Response {
        let asked = self.send(connection, request);
        if let Some(response) = self.take(connection, asked) {
            return response;
        }
        self.advance(Duration::from_secs(2));
        self.take(connection, asked).expect("it asks for no longer than that")
    }

    /// One broker, and a topic `orders` with that many partitions.
    pub(super) fn with_orders(config: SimConfig, partitions: i32) -> Self {
        let mut cluster = Self::new(config);
        let connection = cluster.connect(1);
        assert_eq!(cluster.create_topic(connection, "orders", partitions, &[]).error, None);
        cluster
    }

    /// Reads a partition as a response has it.
    pub(super) fn read(
        &mut self,
        partition: &TopicPartition,
        isolation_level: IsolationLevel,
    ) -> Fetched {
        let request = Request::Fetch(fetch::Request {
            replica: None,
            max_wait: Duration::ZERO,
            min_bytes: 0,
            max_bytes: 1 << 20,
            isolation_level,
            partitions: vec![fetch::PartitionRequest {
                topic_partition: partition.clone(),
                offset: 0,
                current_leader_epoch: None,
                last_fetched_epoch: None,
                max_bytes: 1 << 20,
            }],
        });
        let leader = self.leader_of(partition).unwrap();
        let connection = self.connect(leader);
        response_of!(Fetch, self.call(connection, request)).partitions.remove(0).result.unwrap()
    }

    /// The offsets of the records that a client shows which reads committed ones.
    pub(super) fn committed_records(&mut self, partition: &TopicPartition) -> Vec<Offset> {
        visible(&self.read(partition, IsolationLevel::ReadCommitted))
    }

    pub(super) fn end_offset(
        &mut self,
        partition: &TopicPartition,
        isolation_level: IsolationLevel,
    ) -> Offset {
        let request = Request::ListOffsets(list_offsets::Request {
            replica: None,
            isolation_level,
            partitions: vec![list_offsets::PartitionRequest {
                topic_partition: partition.clone(),
                current_leader_epoch: None,
                spec: OffsetSpec::Latest,
            }],
        });
        let leader = self.leader_of(partition).unwrap();
        let connection = self.connect(leader);
        let response = response_of!(ListOffsets, self.call(connection, request));
        response.partitions[0].result.unwrap().unwrap()
    }

    /// The states that a transactional id went through.
    pub(super) fn states_of(&self, id: &str) -> Vec<&'static str> {
        let state = |fact: &Fact| match fact {
            Fact::Transaction(TransactionFact::State { transactional_id, state, .. })
                if **transactional_id == *id =>
            {
                Some(*state)
            }
            _ => None,
        };
        self.facts.iter().filter_map(state).collect()
    }
}

/// The offsets of the records that a client shows: as Kafka's, it drops what is between the first
/// offset of an aborted transaction and its marker.
pub(super) fn visible(fetched: &Fetched) -> Vec<Offset> {
    let mut aborted = fetched.aborted.iter().peekable();
    let mut dropped = std::collections::BTreeSet::new();
    let mut offsets = Vec::new();
    for stored in &fetched.batches {
        while let Some((producer_id, _)) =
            aborted.next_if(|(_, first_offset)| *first_offset < stored.next_offset())
        {
            dropped.insert(*producer_id);
        }
        let producer_id = stored.batch.producer.map(|producer| producer.producer_id);
        match stored.batch.control {
            Some(ControlRecord::Abort) => {
                dropped.remove(&producer_id.unwrap());
            }
            Some(ControlRecord::Commit) => {}
            None if stored.batch.is_transactional && dropped.contains(&producer_id.unwrap()) => {}
            None => offsets.extend(stored.base_offset..stored.next_offset()),
        }
    }
    offsets
}

pub(super) fn orders(partition: i32) -> TopicPartition {
    TopicPartition::new("orders", partition)
}

pub(super) fn with_broker(broker: BrokerConfig) -> SimConfig {
    SimConfig { broker, ..Default::default() }
}

#[test]
fn a_commit_shows_records_and_an_abort_does_not() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 2);
    let mut producer = Producer::new(&mut cluster, "app");
    assert_eq!(producer.write(&mut cluster, &orders(0), 2), Ok(0));
    assert_eq!(producer.write(&mut cluster, &orders(1), 1), Ok(0));
    assert_eq!(cluster.committed_records(&orders(0)), [0; 0], "it is open");
    assert_eq!(cluster.end_offset(&orders(0), IsolationLevel::ReadCommitted), 0);
    assert_eq!(cluster.end_offset(&orders(0), IsolationLevel::ReadUncommitted), 2);
    producer.commit(&mut cluster);
    assert_eq!(cluster.committed_records(&orders(0)), [0, 1]);
    assert_eq!(cluster.committed_records(&orders(1)), [0]);
    assert_eq!(cluster.end_offset(&orders(0), IsolationLevel::ReadCommitted), 3, "a marker");
    assert_eq!(producer.write(&mut cluster, &orders(0), 1), Ok(3));
    producer.abort(&mut cluster);
    assert_eq!(cluster.committed_records(&orders(0)), [0, 1]);
    let fetched = cluster.read(&orders(0), IsolationLevel::ReadCommitted);
    assert_eq!(fetched.aborted, [(producer.id, 3)]);
    assert_eq!(fetched.last_stable_offset, 5);
    let states = ["Empty", "Ongoing", "Ongoing", "PrepareCommit", "CompleteCommit", "Ongoing"];
    assert_eq!(cluster.states_of("app")[..6], states);
    assert_eq!(cluster.states_of("app")[6..], ["PrepareAbort", "CompleteAbort"]);
}

#[test]
fn a_transaction_goes_over_brokers() {
    let config = unreplicated(3);
    let mut cluster = Cluster::with_orders(config, 3);
    for id in ["app", "b", "c", "d"] {
        let mut producer = Producer::new(&mut cluster, id);
        for partition in 0..3 {
            producer.write(&mut cluster, &orders(partition), 1).unwrap();
        }
        producer.commit(&mut cluster);
    }
    for partition in 0..3 {
        assert_eq!(cluster.committed_records(&orders(partition)), [0, 2, 4, 6]);
    }
}

#[test]
fn with_version_2_leaders_add_partitions_and_each_end_raises_the_epoch() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 2);
    let mut producer = Producer::new(&mut cluster, "app").version_2();
    for (end, epoch) in [(true, 1), (false, 2), (true, 3)] {
        producer.send(&mut cluster, &orders(0), 1).unwrap();
        producer.send(&mut cluster, &orders(1), 2).unwrap();
        producer.end(&mut cluster, end).unwrap();
        assert_eq!(producer.epoch, epoch);
    }
    assert_eq!(cluster.committed_records(&orders(0)), [0, 4]);
    assert_eq!(cluster.committed_records(&orders(1)), [0, 1, 6, 7]);
    producer.abort(&mut cluster);
    assert_eq!(producer.epoch, 4, "also an abort of nothing");
    assert_eq!(producer.end(&mut cluster, true), Err(ErrorKind::InvalidTxnState));
}

#[test]
fn an_end_that_is_asked_for_again_is_answered_alike() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 1);
    let one = Producer::new(&mut cluster, "one");
    let two = Producer::new(&mut cluster, "two").version_2();
    for mut producer in [one, two] {
        for is_commit in [true, false] {
            producer.write(&mut cluster, &orders(0), 1).unwrap();
            let mut again = producer.clone();
            producer.end(&mut cluster, is_commit).unwrap();
            let mut other = again.clone();
            again.end(&mut cluster, is_commit).unwrap();
            assert_eq!((again.id, again.epoch), (producer.id, producer.epoch));
            assert_eq!(other.end(&mut cluster, !is_commit), Err(ErrorKind::InvalidTxnState));
        }
    }
}

#[test]
fn requests_are_refused_that_fit_no_transaction() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 1);
    let mut producer = Producer::new(&mut cluster, "app");
    assert_eq!(producer.end(&mut cluster, true), Err(ErrorKind::InvalidTxnState), "none is open");
    let unknown = TopicPartition::new("nowhere", 0);
    let error = producer.add(&mut cluster, &[unknown]);
    assert_eq!(error, Some(ErrorKind::UnknownTopicOrPartition));
    let error = producer.send(&mut cluster, &orders(0), 1);
    assert_eq!(error, Err(ErrorKind::InvalidTxnState), "it is not added");
    let stranger = Producer { transactional_id: "other".into(), ..producer.clone() };
    let error = stranger.add(&mut cluster, &[orders(0)]);
    assert_eq!(error, Some(ErrorKind::InvalidProducerIdMapping), "nobody asked for an id");
    let nameless = Producer { transactional_id: "".into(), ..producer.clone() };
    assert_eq!(nameless.add(&mut cluster, &[orders(0)]), Some(ErrorKind::InvalidRequest));
    let other_id = Producer { id: producer.id + 7, ..producer.clone() };
    let error = other_id.add(&mut cluster, &[orders(0)]);
    assert_eq!(error, Some(ErrorKind::InvalidProducerIdMapping));
}

#[test]
fn a_transaction_may_not_take_longer_than_the_broker_allows() {
    let mut cluster = Cluster::new(SimConfig::default());
    for timeout in [Duration::ZERO, Duration::from_mins(15) + Duration::from_millis(1)] {
        let transactional = Some(Transactional { transactional_id: "app".into(), timeout });
        let request = init_producer_id::Request { transactional, current: None };
        let connection = cluster.connect(1);
        let response = cluster.call(connection, Request::InitProducerId(request));
        let result = response_of!(InitProducerId, response).result;
        assert_eq!(result, Err(ErrorKind::InvalidTransactionTimeout));
    }
}

#[test]
fn a_batch_of_a_transaction_needs_its_id_and_its_kind() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 1);
    let mut producer = Producer::new(&mut cluster, "app");
    producer.write(&mut cluster, &orders(0), 1).unwrap();
    let refused = |cluster: &mut Cluster, change: &dyn Fn(&mut produce::Request)| {
        let Request::Produce(mut request) = producer.produce(&orders(0), 1) else { unreachable!() };
        change(&mut request);
        let connection = cluster.connect(1);
        let response = cluster.call(connection, Request::Produce(request));
        response_of!(Produce, response).partitions.remove(0).result.unwrap_err()
    };
    let error = refused(&mut cluster, &|request| request.transactional_id = None);
    assert_eq!(error, ErrorKind::TransactionalIdAuthorizationFailed);
    let session = (producer.id, producer.epoch);
    let error = refused(&mut cluster, &|request| {
        let marker = RecordBatch::marker(session, ControlRecord::Commit, 0, Timestamp::EPOCH);
        request.partitions[0].batch = Arc::new(marker);
    });
    assert_eq!(error, ErrorKind::InvalidRecord, "only coordinators write markers");
    let error = refused(&mut cluster, &|request| {
        let batch = (*request.partitions[0].batch).clone();
        request.partitions[0].batch = Arc::new(RecordBatch { is_transactional: false, ..batch });
    });
    assert_eq!(error, ErrorKind::InvalidTxnState, "a transaction is open");
}

#[test]
fn sequences_go_on_after_a_marker_and_begin_anew_with_an_epoch() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 1);
    let mut producer = Producer::new(&mut cluster, "app");
    producer.write(&mut cluster, &orders(0), 2).unwrap();
    let again = producer.clone();
    producer.commit(&mut cluster);
    assert_eq!(producer.write(&mut cluster, &orders(0), 1), Ok(3), "sequence 2");
    let mut gap = producer.clone();
    gap.sequences.insert(orders(0), 9);
    assert_eq!(gap.send(&mut cluster, &orders(0), 1), Err(ErrorKind::OutOfOrderSequenceNumber));
    let mut again = Producer { sequences: BTreeMap::new(), ..again };
    assert_eq!(again.send(&mut cluster, &orders(0), 2), Ok(0), "a duplicate, over the marker");
    producer.commit(&mut cluster);
    producer.bump(&mut cluster).unwrap();
    producer.add(&mut cluster, &[orders(0)]);
    producer.sequences.insert(orders(0), 3);
    assert_eq!(
        producer.send(&mut cluster, &orders(0), 1),
        Err(ErrorKind::OutOfOrderSequenceNumber)
    );
    producer.sequences.clear();
    assert_eq!(producer.send(&mut cluster, &orders(0), 1), Ok(5));
}

#[test]
fn a_transactional_id_that_is_not_used_expires() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 1);
    let mut producer = Producer::new(&mut cluster, "app");
    producer.write(&mut cluster, &orders(0), 1).unwrap();
    producer.commit(&mut cluster);
    cluster.advance(Duration::from_hours(7 * 24) - Duration::from_secs(1));
    assert!(
        !cluster
            .facts
            .iter()
            .any(|fact| matches!(fact, Fact::Transaction(TransactionFact::Expired { .. })))
    );
    cluster.advance(Duration::from_hours(2));
    assert!(
        cluster
            .facts
            .iter()
            .any(|fact| matches!(fact, Fact::Transaction(TransactionFact::Expired { .. })))
    );
    let error = producer.add(&mut cluster, &[orders(0)]);
    assert_eq!(error, Some(ErrorKind::InvalidProducerIdMapping));
}
