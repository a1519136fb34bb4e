//! Transactions: markers on their way, lost, late, and over crashes and new leaders.

use std::time::Duration;

use bus_core::{ErrorKind, IsolationLevel, Topic, TopicPartition};

use super::transactions::{Producer, orders, with_broker};
use super::transactions_offsets::nobody;
use super::{Cluster, response_of};
use crate::config::{BrokerConfig, SimConfig};
use crate::fact::{Fact, TransactionFact};
use crate::node::BrokerId;
use crate::protocol::batch::{ControlRecord, ProducerId};
use crate::protocol::cluster::MetadataRecord;
use crate::protocol::topics::DeleteTopicsRequest;
use crate::protocol::write_txn_markers::{self, Marker};
use crate::protocol::{Api, Request};

const MOMENT: Duration = Duration::from_millis(100);

/// Three brokers, each with a replica of all.
pub(super) fn replicated(partitions: i32) -> Cluster {
    let broker = BrokerConfig {
        default_replication_factor: 3,
        offsets_topic_replication_factor: 3,
        transaction_state_replication_factor: 3,
        min_insync_replicas: 2,
        transaction_state_min_insync_replicas: 2,
        ..Default::default()
    };
    let mut cluster =
        Cluster::with_orders(SimConfig { brokers: 3, ..with_broker(broker) }, partitions);
    cluster.advance(Duration::from_secs(1));
    cluster
}

fn markers_of(cluster: &Cluster, partition: &TopicPartition) -> Vec<ControlRecord> {
    let marker = |fact: &Fact| match fact {
        Fact::Transaction(TransactionFact::Marker { topic_partition, control, .. })
            if topic_partition == partition =>
        {
            Some(*control)
        }
        _ => None,
    };
    cluster.facts.iter().filter_map(marker).collect()
}

fn coordinator_of(cluster: &mut Cluster, producer: &Producer) -> BrokerId {
    let connection = producer.coordinator(cluster);
    match cluster.connections[&connection] {
        crate::node::NodeId::Broker(id) => id,
        other => panic!("{other} coordinates nothing"),
    }
}

/// Sends a marker to the leader of `orders-0`.
fn write_marker(
    cluster: &mut Cluster,
    producer: (ProducerId, i16),
    coordinator_epoch: i32,
    is_version_2: bool,
) -> Option<ErrorKind> {
    let marker = Marker {
        producer_id: producer.0,
        producer_epoch: producer.1,
        control: ControlRecord::Commit,
        coordinator_epoch,
        is_version_2,
        partitions: vec![orders(0)],
    };
    let request = Request::WriteTxnMarkers(write_txn_markers::Request { markers: vec![marker] });
    let leader = cluster.leader_of(&orders(0)).unwrap();
    let connection = cluster.connect(leader);
    response_of!(WriteTxnMarkers, cluster.call(connection, request)).markers[0].1[0].1
}

#[test]
fn a_transaction_that_is_decided_makes_others_wait() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 1);
    let mut producer = Producer::new(&mut cluster, "app");
    producer.write(&mut cluster, &orders(0), 1).unwrap();
    cluster.hold(Api::WriteTxnMarkers);
    producer.commit(&mut cluster);
    assert_eq!(cluster.states_of("app").last(), Some(&"PrepareCommit"));
    let concurrent = ErrorKind::ConcurrentTransactions;
    assert_eq!(producer.add(&mut cluster, &[orders(0)]), Some(concurrent));
    assert_eq!(producer.end(&mut cluster, true), Err(concurrent));
    assert_eq!(producer.clone().init(&mut cluster), Err(concurrent));
    assert_eq!(cluster.committed_records(&orders(0)), [0; 0]);
    cluster.release();
    assert_eq!(cluster.states_of("app").last(), Some(&"CompleteCommit"));
    assert_eq!(cluster.committed_records(&orders(0)), [0]);
    assert_eq!(producer.end(&mut cluster, true), Ok(()));
}

#[test]
fn a_batch_waits_until_the_transaction_before_is_complete() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 2);
    let mut old = Producer::new(&mut cluster, "old");
    old.write(&mut cluster, &orders(0), 1).unwrap();
    let mut new = Producer::new(&mut cluster, "new").version_2();
    new.write(&mut cluster, &orders(0), 1).unwrap();
    cluster.hold(Api::WriteTxnMarkers);
    old.commit(&mut cluster);
    let error = old.send(&mut cluster, &orders(1), 1).unwrap_err();
    assert_eq!(error, ErrorKind::NotEnoughReplicas, "version 1 tries again");
    new.commit(&mut cluster);
    let connection = cluster.connect(1);
    let asked = cluster.send(connection, new.produce(&orders(1), 1));
    cluster.advance(Duration::from_millis(90));
    assert!(cluster.take(connection, asked).is_none(), "the leader asks again");
    cluster.release();
    cluster.advance(Duration::from_millis(20));
    let response = response_of!(Produce, cluster.take(connection, asked).unwrap());
    assert!(response.partitions[0].result.is_ok());
    cluster.hold(Api::WriteTxnMarkers);
    new.commit(&mut cluster);
    let asked = cluster.send(connection, new.produce(&orders(0), 1));
    cluster.advance(Duration::from_millis(120));
    let response = response_of!(Produce, cluster.take(connection, asked).unwrap());
    let error = response.partitions[0].result.unwrap_err();
    assert_eq!(error, ErrorKind::ConcurrentTransactions, "but not for ever");
}

#[test]
fn a_marker_that_is_lost_is_sent_again() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 2);
    let mut producer = Producer::new(&mut cluster, "app");
    producer.write(&mut cluster, &orders(0), 1).unwrap();
    producer.write(&mut cluster, &orders(1), 1).unwrap();
    cluster.hold(Api::WriteTxnMarkers);
    producer.commit(&mut cluster);
    for _ in 0..3 {
        cluster.lose_held();
        cluster.advance(MOMENT);
    }
    cluster.release();
    cluster.advance(MOMENT);
    assert_eq!(cluster.states_of("app").last(), Some(&"CompleteCommit"));
    for partition in [orders(0), orders(1)] {
        assert_eq!(markers_of(&cluster, &partition), [ControlRecord::Commit]);
    }
}

#[test]
fn a_marker_waits_for_a_leader() {
    let broker = BrokerConfig {
        default_replication_factor: 1,
        transaction_state_replication_factor: 1,
        ..Default::default()
    };
    let mut cluster = Cluster::with_orders(SimConfig { brokers: 3, ..with_broker(broker) }, 3);
    let mut producer = Producer::new(&mut cluster, "app");
    for partition in 0..3 {
        producer.write(&mut cluster, &orders(partition), 1).unwrap();
    }
    let coordinator = coordinator_of(&mut cluster, &producer);
    let partition = (0..3).map(orders).find(|p| cluster.leader_of(p) != Some(coordinator));
    let partition = partition.unwrap();
    let leader = cluster.leader_of(&partition).unwrap();
    cluster.crash(leader);
    producer.abort(&mut cluster);
    cluster.advance(Duration::from_secs(20));
    assert_eq!(cluster.states_of("app").last(), Some(&"PrepareAbort"));
    cluster.restart(leader);
    assert_eq!(cluster.states_of("app").last(), Some(&"CompleteAbort"));
    assert_eq!(cluster.end_offset(&partition, IsolationLevel::ReadCommitted), 2);
    assert_eq!(cluster.committed_records(&partition), [0; 0]);
}

#[test]
fn a_partition_that_is_gone_needs_no_marker() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 1);
    let connection = cluster.connect(1);
    cluster.create_topic(connection, "gone", 1, &[]);
    let mut producer = Producer::new(&mut cluster, "app");
    producer.write(&mut cluster, &orders(0), 1).unwrap();
    producer.write(&mut cluster, &TopicPartition::new("gone", 0), 1).unwrap();
    let request = DeleteTopicsRequest { topics: vec!["gone".into()] };
    cluster.call(connection, Request::DeleteTopics(request));
    producer.commit(&mut cluster);
    assert_eq!(cluster.states_of("app").last(), Some(&"CompleteCommit"));
    assert_eq!(cluster.committed_records(&orders(0)), [0]);
}

#[test]
fn a_coordinator_that_comes_back_sends_the_markers_again() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 1);
    let mut producer = Producer::new(&mut cluster, "app");
    producer.write(&mut cluster, &orders(0), 1).unwrap();
    cluster.hold(Api::WriteTxnMarkers);
    producer.commit(&mut cluster);
    cluster.crash(1);
    cluster.held_back.clear();
    cluster.restart(1);
    assert_eq!(cluster.states_of("app").last(), Some(&"PrepareCommit"));
    cluster.release();
    assert_eq!(cluster.states_of("app").last(), Some(&"CompleteCommit"));
    assert_eq!(cluster.committed_records(&orders(0)), [0]);
    producer.write(&mut cluster, &orders(0), 1).unwrap();
    producer.commit(&mut cluster);
    assert_eq!(cluster.committed_records(&orders(0)), [0, 2]);
}

#[test]
fn another_broker_completes_what_a_coordinator_has_decided() {
    let mut cluster = replicated(3);
    let mut producer = Producer::new(&mut cluster, "app");
    for partition in 0..3 {
        producer.write(&mut cluster, &orders(partition), 1).unwrap();
    }
    let coordinator = coordinator_of(&mut cluster, &producer);
    cluster.hold(Api::WriteTxnMarkers);
    producer.commit(&mut cluster);
    cluster.crash(coordinator);
    cluster.held_back.clear();
    cluster.release();
    cluster.advance(Duration::from_secs(10));
    assert_ne!(coordinator_of(&mut cluster, &producer), coordinator);
    assert_eq!(cluster.states_of("app").last(), Some(&"CompleteCommit"));
    for partition in 0..3 {
        assert_eq!(cluster.committed_records(&orders(partition)), [0]);
    }
}

#[test]
fn markers_of_the_past_are_refused() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 1);
    let mut producer = Producer::new(&mut cluster, "app");
    producer.bump(&mut cluster).unwrap();
    producer.write(&mut cluster, &orders(0), 1).unwrap();
    let error = write_marker(&mut cluster, (producer.id, 0), 5, false);
    assert_eq!(error, Some(ErrorKind::InvalidProducerEpoch));
    assert_eq!(write_marker(&mut cluster, (producer.id, 1), 5, false), None);
    let error = write_marker(&mut cluster, (producer.id, 1), 4, false);
    assert_eq!(error, Some(ErrorKind::TransactionCoordinatorFenced));
    assert_eq!(write_marker(&mut cluster, (producer.id, 1), 5, false), None, "once more");
}

#[test]
fn with_version_2_a_marker_that_comes_twice_ends_no_other_transaction() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 1);
    let mut producer = Producer::new(&mut cluster, "app").version_2();
    producer.send(&mut cluster, &orders(0), 1).unwrap();
    producer.commit(&mut cluster);
    let session = (producer.id, producer.epoch);
    assert_eq!(write_marker(&mut cluster, session, 0, true), None, "nothing is open");
    producer.send(&mut cluster, &orders(0), 1).unwrap();
    let error = write_marker(&mut cluster, session, 0, true);
    assert_eq!(error, Some(ErrorKind::InvalidProducerEpoch));
    producer.abort(&mut cluster);
    assert_eq!(cluster.committed_records(&orders(0)), [0]);
}

#[test]
fn a_marker_counts_once_it_is_replicated() {
    let mut cluster = replicated(1);
    let mut producer = Producer::new(&mut cluster, "app");
    // Whoever coordinates needs its followers as well, so the marker is written by hand.
    producer.write(&mut cluster, &orders(0), 2).unwrap();
    cluster.advance(Duration::from_secs(1));
    cluster.hold(Api::Fetch);
    cluster.advance(Duration::from_secs(1));
    let marker = Marker {
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        control: ControlRecord::Commit,
        coordinator_epoch: 0,
        is_version_2: false,
        partitions: vec![orders(0)],
    };
    let request = Request::WriteTxnMarkers(write_txn_markers::Request { markers: vec![marker] });
    let leader = cluster.leader_of(&orders(0)).unwrap();
    let connection = cluster.connect(leader);
    let asked = cluster.send(connection, request);
    assert!(cluster.take(connection, asked).is_none(), "it waits for the followers");
    assert_eq!(cluster.end_offset(&orders(0), IsolationLevel::ReadUncommitted), 2);
    assert_eq!(cluster.end_offset(&orders(0), IsolationLevel::ReadCommitted), 0);
    cluster.release();
    cluster.advance(Duration::from_secs(2));
    let response = response_of!(WriteTxnMarkers, cluster.take(connection, asked).unwrap());
    assert_eq!(response.markers[0].1[0].1, None);
    assert_eq!(cluster.end_offset(&orders(0), IsolationLevel::ReadCommitted), 3);
}

#[test]
fn followers_know_open_and_aborted_transactions() {
    let mut cluster = replicated(1);
    let mut first = Producer::new(&mut cluster, "first");
    let mut second = Producer::new(&mut cluster, "second");
    first.write(&mut cluster, &orders(0), 2).unwrap();
    first.abort(&mut cluster);
    cluster.advance(Duration::from_secs(1));
    second.write(&mut cluster, &orders(0), 1).unwrap();
    cluster.advance(Duration::from_secs(1));
    let leader = cluster.leader_of(&orders(0)).unwrap();
    cluster.crash(leader);
    cluster.advance(Duration::from_secs(10));
    assert_ne!(cluster.leader_of(&orders(0)), Some(leader));
    let fetched = cluster.read(&orders(0), IsolationLevel::ReadCommitted);
    assert_eq!(fetched.aborted, [(first.id, 0)]);
    assert_eq!(fetched.last_stable_offset, 3);
    assert_eq!(second.send(&mut cluster, &orders(0), 1), Ok(4), "it is open here as well");
    second.commit(&mut cluster);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.committed_records(&orders(0)), [3, 4]);
}

/// Makes another broker the leader of a partition, as the controller does.
fn move_leader(cluster: &mut Cluster, partition: &TopicPartition) {
    let mut state = cluster.controller.image.partition(partition).unwrap().clone();
    state.leader = state.in_sync_replicas.iter().copied().find(|id| Some(*id) != state.leader);
    state.leader_epoch += 1;
    state.partition_epoch += 1;
    let TopicPartition { topic, partition } = partition.clone();
    cluster.write(vec![MetadataRecord::Partition { topic, partition, state }]);
}

/// The partition of `__transaction_state` or `__consumer_offsets` that a key belongs to.
fn internal(cluster: &Cluster, topic: &str, key: &str) -> TopicPartition {
    let topic = Topic::from(topic);
    let (partition, _) = cluster.brokers[&1].0.partition_of(&topic, key).unwrap();
    TopicPartition { topic, partition }
}

#[test]
fn who_waits_for_a_coordinator_that_is_replaced_is_sent_to_the_next() {
    let mut cluster = replicated(1);
    let mut producer = Producer::new(&mut cluster, "app");
    producer.write(&mut cluster, &orders(0), 1).unwrap();
    cluster.advance(Duration::from_secs(1));
    cluster.hold(Api::Fetch);
    cluster.advance(Duration::from_secs(1));
    let connection = producer.coordinator(&mut cluster);
    let ended = cluster.send(connection, producer.ending(true));
    assert!(cluster.take(connection, ended).is_none(), "it is not replicated");
    let partition = internal(&cluster, "__transaction_state", "app");
    move_leader(&mut cluster, &partition);
    let result = response_of!(EndTxn, cluster.take(connection, ended).unwrap()).result;
    assert_eq!(result, Err(ErrorKind::NotCoordinator));
    cluster.release();
    cluster.advance(Duration::from_secs(3));
    producer.commit(&mut cluster);
    cluster.advance(Duration::from_secs(2));
    assert_eq!(cluster.committed_records(&orders(0)), [0]);
}

#[test]
fn offsets_that_wait_for_a_coordinator_that_is_replaced_are_refused() {
    let mut cluster = replicated(1);
    let producer = Producer::new(&mut cluster, "app");
    producer.add_offsets(&mut cluster);
    cluster.advance(Duration::from_secs(1));
    let partition = internal(&cluster, "__consumer_offsets", "billing");
    let leader = cluster.leader_of(&partition).unwrap();
    cluster.hold(Api::Fetch);
    cluster.advance(Duration::from_secs(1));
    let member = nobody(&mut cluster);
    let connection = cluster.connect(leader);
    let request = Request::TxnOffsetCommit(producer.offsets(&member, 5));
    let sent = cluster.send(connection, request);
    assert!(cluster.take(connection, sent).is_none(), "it is not replicated");
    move_leader(&mut cluster, &partition);
    let response = response_of!(TxnOffsetCommit, cluster.take(connection, sent).unwrap());
    assert_eq!(response.partitions[0].1, Some(ErrorKind::NotCoordinator));
}

#[test]
fn a_coordinator_needs_its_followers() {
    let mut cluster = replicated(1);
    let mut producer = Producer::new(&mut cluster, "app");
    let coordinator = coordinator_of(&mut cluster, &producer);
    let others: Vec<_> = (1..4).filter(|id| *id != coordinator).collect();
    producer.write(&mut cluster, &orders(0), 1).unwrap();
    others.iter().for_each(|id| cluster.crash(*id));
    cluster.advance(Duration::from_secs(20));
    let connection = cluster.connect(coordinator);
    let response = cluster.call(connection, producer.ending(true));
    let error = response_of!(EndTxn, response).result;
    assert_eq!(error, Err(ErrorKind::CoordinatorNotAvailable));
    others.iter().for_each(|id| cluster.start(*id));
    cluster.advance(Duration::from_secs(20));
    producer.commit(&mut cluster);
    cluster.advance(Duration::from_secs(2));
    assert_eq!(cluster.committed_records(&orders(0)), [0]);
}

#[test]
fn the_last_step_of_a_transaction_is_tried_again() {
    let mut cluster = replicated(1);
    let mut producer = Producer::new(&mut cluster, "app");
    producer.write(&mut cluster, &orders(0), 1).unwrap();
    cluster.advance(Duration::from_secs(1));
    cluster.hold(Api::WriteTxnMarkers);
    producer.commit(&mut cluster);
    cluster.advance(Duration::from_secs(1));
    cluster.release();
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.states_of("app").last(), Some(&"CompleteCommit"));
    producer.write(&mut cluster, &orders(0), 1).unwrap();
    cluster.advance(Duration::from_secs(1));
    let coordinator = coordinator_of(&mut cluster, &producer);
    let others: Vec<_> = (1..4).filter(|id| *id != coordinator).collect();
    cluster.hold(Api::WriteTxnMarkers);
    producer.commit(&mut cluster);
    others.iter().for_each(|id| cluster.crash(*id));
    cluster.held.clear();
    cluster.advance(Duration::from_secs(20));
    cluster.release();
    cluster.advance(Duration::from_secs(5));
    assert_eq!(cluster.states_of("app").last(), Some(&"PrepareCommit"));
    others.iter().for_each(|id| cluster.start(*id));
    cluster.advance(Duration::from_secs(60));
    assert_eq!(cluster.states_of("app").last(), Some(&"CompleteCommit"));
    assert_eq!(cluster.committed_records(&orders(0)), [0, 2]);
}
