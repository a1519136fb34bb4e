//! Transactions: who is fenced, what time does, and what comes too late.

use std::time::Duration;

use bus_core::{ErrorKind, IsolationLevel};

use super::transactions::{Producer, TIMEOUT, orders, with_broker};
use super::{Cluster, response_of};
use crate::config::{BrokerConfig, SimConfig};
use crate::fact::{Fact, TransactionFact};
use crate::mutation::Mutation;
use crate::protocol::batch::ProducerEpoch;

fn fences(cluster: &Cluster) -> Vec<(ProducerEpoch, &'static str)> {
    let fence = |fact: &Fact| match fact {
        Fact::Transaction(TransactionFact::Fenced { producer_epoch, reason, .. }) => {
            Some((*producer_epoch, *reason))
        }
        _ => None,
    };
    cluster.facts.iter().filter_map(fence).collect()
}

#[test]
fn a_second_producer_aborts_the_transaction_of_the_first_and_fences_it() {
    for transaction_version in [1, 2] {
        let config = with_broker(BrokerConfig { transaction_version, ..Default::default() });
        let mut cluster = Cluster::with_orders(config, 1);
        let mut old = Producer::new(&mut cluster, "app");
        old.write(&mut cluster, &orders(0), 1).unwrap();
        let mut new = Producer::new(&mut cluster, "app");
        assert_eq!((new.id, new.epoch), (old.id, 2), "one epoch for the abort, one for it");
        assert_eq!(fences(&cluster), [(1, "another producer")]);
        assert_eq!(old.send(&mut cluster, &orders(0), 1), Err(ErrorKind::InvalidProducerEpoch));
        let error = old.add(&mut cluster, &[orders(0)]);
        assert_eq!(error, Some(ErrorKind::InvalidProducerEpoch), "as version 0 says it");
        assert_eq!(old.end(&mut cluster, true), Err(ErrorKind::InvalidProducerEpoch));
        let mut old = old.version_2();
        assert_eq!(old.end(&mut cluster, true), Err(ErrorKind::ProducerFenced));
        assert_eq!(old.bump(&mut cluster), Err(ErrorKind::ProducerFenced));
        new.write(&mut cluster, &orders(0), 1).unwrap();
        new.commit(&mut cluster);
        assert_eq!(cluster.committed_records(&orders(0)), [2]);
    }
}

#[test]
fn a_late_batch_of_a_fenced_producer_is_refused_where_its_marker_is() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 1);
    let mut old = Producer::new(&mut cluster, "app");
    old.write(&mut cluster, &orders(0), 1).unwrap();
    let mut new = Producer::new(&mut cluster, "app");
    // The new one opens a transaction here, so that the coordinator is not asked.
    new.write(&mut cluster, &orders(0), 1).unwrap();
    assert_eq!(old.send(&mut cluster, &orders(0), 1), Err(ErrorKind::InvalidProducerEpoch));
    new.abort(&mut cluster);
    assert_eq!(cluster.committed_records(&orders(0)), [0; 0]);
}

#[test]
fn a_producer_that_names_its_epoch_gets_the_next_one() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 1);
    let mut producer = Producer::new(&mut cluster, "app");
    let before = producer.clone();
    producer.bump(&mut cluster).unwrap();
    assert_eq!((producer.id, producer.epoch), (before.id, 1));
    let mut again = before;
    again.bump(&mut cluster).unwrap();
    assert_eq!(again.epoch, 1, "the response was lost");
    Producer::new(&mut cluster, "app");
    assert_eq!(producer.bump(&mut cluster), Err(ErrorKind::ProducerFenced), "it was replaced");
}

#[test]
fn used_up_epochs_make_room_for_another_producer_id() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 1);
    let mut producer = Producer::new(&mut cluster, "app");
    let first = producer.id;
    for epoch in 1..ProducerEpoch::MAX {
        producer.bump(&mut cluster).unwrap();
        assert_eq!((producer.id, producer.epoch), (first, epoch));
    }
    let before = producer.clone();
    producer.bump(&mut cluster).unwrap();
    assert_ne!(producer.id, first);
    assert_eq!(producer.epoch, 0);
    let mut again = before;
    again.bump(&mut cluster).unwrap();
    assert_eq!((again.id, again.epoch), (producer.id, 0), "the response was lost");
}

#[test]
fn with_version_2_the_last_epoch_ends_its_transaction_and_hands_over() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 1);
    let mut producer = Producer::new(&mut cluster, "app").version_2();
    for _ in 1..ProducerEpoch::MAX {
        producer.bump(&mut cluster).unwrap();
    }
    let first = producer.id;
    producer.send(&mut cluster, &orders(0), 1).unwrap();
    let mut again = producer.clone();
    producer.commit(&mut cluster);
    assert_ne!(producer.id, first);
    assert_eq!(producer.epoch, 0);
    again.commit(&mut cluster);
    assert_eq!((again.id, again.epoch), (producer.id, 0), "the response was lost");
    producer.send(&mut cluster, &orders(0), 1).unwrap();
    producer.commit(&mut cluster);
    assert_eq!(cluster.committed_records(&orders(0)), [0, 2]);
}

#[test]
fn a_transaction_that_is_open_too_long_is_aborted() {
    for transaction_version in [1, 2] {
        let config = with_broker(BrokerConfig { transaction_version, ..Default::default() });
        let mut cluster = Cluster::with_orders(config, 1);
        let mut producer = Producer::new(&mut cluster, "app");
        producer.write(&mut cluster, &orders(0), 1).unwrap();
        cluster.advance(TIMEOUT);
        assert!(fences(&cluster).is_empty(), "it may take exactly so long");
        cluster.advance(Duration::from_millis(500));
        assert_eq!(fences(&cluster), [(1, "timeout")]);
        assert_eq!(cluster.end_offset(&orders(0), IsolationLevel::ReadCommitted), 2);
        assert_eq!(producer.end(&mut cluster, true), Err(ErrorKind::InvalidProducerEpoch));
        assert_eq!(cluster.committed_records(&orders(0)), [0; 0]);
        assert!(
            cluster
                .timers
                .keys()
                .all(|(_, timer)| { !format!("{timer:?}").contains("AbortTransactions") }),
            "nothing is open any more"
        );
    }
}

#[test]
fn with_version_2_a_producer_learns_of_the_abort_by_its_own() {
    let mut cluster = Cluster::with_orders(SimConfig::default(), 1);
    let mut producer = Producer::new(&mut cluster, "app").version_2();
    producer.send(&mut cluster, &orders(0), 1).unwrap();
    cluster.advance(TIMEOUT + Duration::from_secs(1));
    assert_eq!(producer.send(&mut cluster, &orders(0), 1), Err(ErrorKind::InvalidProducerEpoch));
    producer.abort(&mut cluster);
    assert_eq!(producer.epoch, 1);
    producer.send(&mut cluster, &orders(0), 1).unwrap();
    producer.commit(&mut cluster);
    assert_eq!(cluster.committed_records(&orders(0)), [2]);
}

/// An EndTxn that is late decides the next transaction (KAFKA-17754).
#[test]
fn a_late_end_tears_the_next_transaction_of_version_1_only() {
    let visible = |is_version_2: bool| {
        let mut cluster = Cluster::with_orders(SimConfig::default(), 1);
        let producer = Producer::new(&mut cluster, "app");
        let mut producer = Producer { is_version_2, ..producer };
        producer.write(&mut cluster, &orders(0), 1).unwrap();
        let late = producer.ending(true);
        producer.commit(&mut cluster);
        let x = producer.write(&mut cluster, &orders(0), 1).unwrap();
        let connection = producer.coordinator(&mut cluster);
        let result = response_of!(EndTxn, cluster.call(connection, late)).result;
        producer.write(&mut cluster, &orders(0), 1).unwrap();
        producer.abort(&mut cluster);
        (result, cluster.committed_records(&orders(0)).contains(&x))
    };
    let (result, is_torn) = visible(false);
    assert!(result.is_ok() && is_torn, "half of the aborted transaction is there");
    assert_eq!(visible(true), (Err(ErrorKind::ProducerFenced), false));
}

/// A batch that is late opens a transaction that nobody will end (KAFKA-14402).
#[test]
fn a_late_batch_hangs_only_without_verification() {
    let late = |transaction_partition_verification: bool, is_version_2: bool| {
        let broker = BrokerConfig { transaction_partition_verification, ..Default::default() };
        let mut cluster = Cluster::with_orders(with_broker(broker), 1);
        let producer = Producer::new(&mut cluster, "app");
        let mut producer = Producer { is_version_2, ..producer };
        if !is_version_2 {
            assert_eq!(producer.add(&mut cluster, &[orders(0)]), None);
        }
        let late = producer.produce(&orders(0), 1);
        producer.abort(&mut cluster);
        let connection = cluster.connect(1);
        let response = response_of!(Produce, cluster.call(connection, late));
        let error = response.partitions[0].result.err();
        cluster.advance(TIMEOUT * 2);
        let end = cluster.end_offset(&orders(0), IsolationLevel::ReadUncommitted);
        let stable = cluster.end_offset(&orders(0), IsolationLevel::ReadCommitted);
        (error, end - stable)
    };
    assert_eq!(late(false, false), (None, 1), "it hangs");
    assert_eq!(late(true, false), (Some(ErrorKind::InvalidTxnState), 0));
    assert_eq!(late(true, true), (Some(ErrorKind::InvalidProducerEpoch), 0));
    assert_eq!(late(false, true), (Some(ErrorKind::InvalidProducerEpoch), 0), "it needs none");
}

#[test]
fn mutations_break_what_they_say() {
    let with = |mutation| {
        let config = SimConfig { mutation: Some(mutation), ..Default::default() };
        let mut cluster = Cluster::with_orders(config, 2);
        let producer = Producer::new(&mut cluster, "app");
        (cluster, producer)
    };
    let (mut cluster, mut producer) = with(Mutation::AbortedRecordVisible);
    producer.write(&mut cluster, &orders(0), 1).unwrap();
    producer.abort(&mut cluster);
    assert_eq!(cluster.committed_records(&orders(0)), [0]);

    let (mut cluster, mut producer) = with(Mutation::OpenTransactionVisible);
    producer.write(&mut cluster, &orders(0), 1).unwrap();
    assert_eq!(cluster.committed_records(&orders(0)), [0]);
    assert_eq!(cluster.end_offset(&orders(0), IsolationLevel::ReadCommitted), 1);

    let (mut cluster, mut producer) = with(Mutation::MarkerOffsetReused);
    producer.write(&mut cluster, &orders(0), 1).unwrap();
    producer.commit(&mut cluster);
    assert_eq!(producer.write(&mut cluster, &orders(0), 1), Ok(1), "as the marker");

    let (mut cluster, mut producer) = with(Mutation::ZombieTransactionAccepted);
    let mut zombie = producer.clone();
    producer.init(&mut cluster).unwrap();
    zombie.write(&mut cluster, &orders(0), 1).unwrap();
    zombie.commit(&mut cluster);
    assert_eq!(cluster.committed_records(&orders(0)), [0]);

    let (mut cluster, mut producer) = with(Mutation::MarkerMissing);
    producer.write(&mut cluster, &orders(0), 1).unwrap();
    producer.write(&mut cluster, &orders(1), 1).unwrap();
    producer.commit(&mut cluster);
    assert_eq!(cluster.committed_records(&orders(0)), [0]);
    assert_eq!(cluster.committed_records(&orders(1)), [0; 0]);

    let (mut cluster, mut producer) = with(Mutation::TransactionNeverTimesOut);
    producer.write(&mut cluster, &orders(0), 1).unwrap();
    cluster.advance(TIMEOUT * 10);
    assert_eq!(cluster.states_of("app").last(), Some(&"Ongoing"));
}
