//! High watermarks: who raises them, who learns of them, and what is visible.

use std::time::Duration;

use bus_core::{Acks, ErrorKind, IsolationLevel, TopicPartition};

use super::{WAIT, orders};
use crate::broker::tests::{Cluster, batch, fetch_request, produce_request, response_of};
use crate::config::{BrokerConfig, SimConfig};
use crate::fact::Fact;
use crate::mutation::Mutation;
use crate::node::{NodeId, Timer};
use crate::protocol::Request;
use crate::protocol::list_offsets::{self, OffsetSpec};

#[test]
fn followers_have_what_was_produced_and_learn_the_watermark_one_fetch_late() {
    let mut cluster = Cluster::replicated(3, BrokerConfig::default(), &[]);
    assert_eq!(cluster.append(1, Acks::All, 1), Ok(0));
    assert_eq!(cluster.ends(), [(1, 1), (1, 0), (1, 0)], "the followers fetch again");
    cluster.advance(WAIT);
    assert_eq!(cluster.ends(), [(1, 1), (1, 1), (1, 1)]);
    assert_eq!(cluster.log(1), cluster.log(2));
    assert_eq!(cluster.log(1), cluster.log(3));
}

#[test]
fn acks_all_waits_for_all_in_sync_and_acks_1_does_not() {
    let mut cluster = Cluster::replicated(3, BrokerConfig::default(), &[]);
    cluster.cut_brokers(1, 3);
    let waiting = cluster.send_to(1, Acks::All, 1);
    assert_eq!(cluster.append(1, Acks::Leader, 2), Ok(1));
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.answer(waiting), None);
    assert_eq!(cluster.ends(), [(2, 0), (2, 0), (0, 0)]);
    cluster.heal();
    assert_eq!(cluster.answer(waiting).unwrap().unwrap().base_offset, 0);
}

#[test]
fn acks_all_times_out_but_the_record_stays() {
    let mut cluster = Cluster::replicated(2, BrokerConfig::default(), &[]);
    cluster.cut_brokers(1, 2);
    let waiting = cluster.send_to(1, Acks::All, 1);
    cluster.advance(Duration::from_secs(29));
    assert_eq!(cluster.answer(waiting), None);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.answer(waiting), Some(Err(ErrorKind::RequestTimedOut)));
    cluster.heal();
    cluster.advance(Duration::from_secs(2));
    assert_eq!(cluster.ends(), [(1, 1), (1, 1)]);
}

#[test]
fn consumers_read_up_to_the_watermark_of_the_leader_only() {
    let mut cluster = Cluster::replicated(2, BrokerConfig::default(), &[]);
    cluster.append(1, Acks::All, 1).unwrap();
    cluster.cut_brokers(1, 2);
    cluster.append(1, Acks::Leader, 2).unwrap();
    let reader = cluster.connect(1);
    let fetched = cluster.fetch(reader, 0).unwrap();
    assert_eq!((fetched.batches.len(), fetched.high_watermark), (1, 1));
    let waiting = cluster.send(reader, fetch_request("orders", 1, Duration::from_secs(1)));
    assert!(cluster.take(reader, waiting).is_none(), "it waits for the watermark");
    cluster.heal();
    let response = response_of!(Fetch, cluster.take(reader, waiting).unwrap());
    assert_eq!(response.partitions[0].result.as_ref().unwrap().batches.len(), 1);
    let follower = cluster.connect(2);
    assert_eq!(cluster.fetch(follower, 0).unwrap_err(), ErrorKind::NotLeaderOrFollower);
}

#[test]
fn the_watermark_stands_still_below_min_insync_replicas() {
    let mut cluster =
        Cluster::replicated(2, BrokerConfig::default(), &[("min.insync.replicas", "2")]);
    cluster.append(1, Acks::All, 1).unwrap();
    cluster.crash(2);
    let waiting = cluster.send_to(1, Acks::All, 2);
    cluster.advance(Duration::from_secs(10));
    assert_eq!(cluster.state().in_sync_replicas, [1]);
    assert_eq!(cluster.append(1, Acks::All, 3), Err(ErrorKind::NotEnoughReplicas));
    assert_eq!(cluster.append(1, Acks::Leader, 4), Ok(2));
    assert_eq!(cluster.replica(1).high_watermark(), 1);
    cluster.advance(Duration::from_secs(20));
    assert_eq!(cluster.answer(waiting), Some(Err(ErrorKind::RequestTimedOut)));
    cluster.restart(2);
    assert_eq!(cluster.state().in_sync_replicas, [1, 2]);
    cluster.advance(WAIT);
    assert_eq!(cluster.ends(), [(3, 3), (3, 3)]);
}

#[test]
fn a_crash_goes_back_to_the_watermark_that_was_written_last() {
    let mut cluster = Cluster::replicated(2, BrokerConfig::default(), &[]);
    cluster.advance(Duration::from_secs(1));
    cluster.append(1, Acks::All, 1).unwrap();
    cluster.advance(Duration::from_secs(5));
    cluster.append(1, Acks::All, 2).unwrap();
    cluster.advance(WAIT);
    assert_eq!(cluster.ends(), [(2, 2), (2, 2)]);
    cluster.crash(2);
    assert_eq!(
        cluster.ends()[1],
        (2, 1),
        "the log is in the page cache, the second is not written"
    );
}

/// What a client is told of the end of `orders` by a broker.
fn latest(cluster: &mut Cluster, broker: i32, spec: OffsetSpec) -> Result<Option<i64>, ErrorKind> {
    let connection = cluster.connect(broker);
    let request = Request::ListOffsets(list_offsets::Request {
        replica: None,
        isolation_level: IsolationLevel::ReadUncommitted,
        partitions: vec![list_offsets::PartitionRequest {
            topic_partition: orders(),
            current_leader_epoch: None,
            spec,
        }],
    });
    response_of!(ListOffsets, cluster.call(connection, request)).partitions.remove(0).result
}

#[test]
fn a_new_leader_knows_the_end_once_its_watermark_reached_its_epoch() {
    let mut cluster = Cluster::replicated(3, BrokerConfig::default(), &[]);
    cluster.append(1, Acks::All, 1).unwrap();
    cluster.crash(1);
    cluster.cut_brokers(2, 3);
    cluster.elect(Some(2), &[2, 3]);
    assert_eq!(cluster.ends()[1], (1, 0), "it had not learned of the watermark");
    let time = OffsetSpec::Timestamp(bus_core::Timestamp::from_millis(1));
    let not_yet = Err(ErrorKind::OffsetNotAvailable);
    assert_eq!(latest(&mut cluster, 2, OffsetSpec::Latest), not_yet);
    assert_eq!(latest(&mut cluster, 2, time), not_yet);
    assert_eq!(latest(&mut cluster, 2, OffsetSpec::Earliest), Ok(Some(0)));
    cluster.heal();
    assert_eq!(latest(&mut cluster, 2, OffsetSpec::Latest), Ok(Some(1)));
    assert_eq!(latest(&mut cluster, 2, time), Ok(Some(0)));
}

#[test]
fn a_partition_with_one_replica_costs_no_timers_and_no_facts() {
    let (mut cluster, connection) = Cluster::with_topic();
    cluster.produce(connection, batch(&[1])).unwrap();
    let of_replication = |timer: &&(NodeId, Timer)| format!("{timer:?}").contains("InSync");
    assert_eq!(cluster.timers.keys().find(of_replication), None);
    let told = cluster.facts.iter().any(|fact| matches!(fact, Fact::HighWatermark { .. }));
    assert!(!told, "{:?}", cluster.facts);
}

/// Two brokers, one cut off, with a planted bug.
fn broken(mutation: Mutation, topic_config: &[(&str, &str)]) -> Cluster {
    let config = SimConfig { brokers: 2, mutation: Some(mutation), ..Default::default() };
    let mut cluster = Cluster::replicated_with(config, topic_config);
    cluster.cut_brokers(1, 2);
    cluster
}

#[test]
fn mutations_break_what_they_say() {
    let mut cluster = broken(Mutation::WatermarkAheadOfInSync, &[]);
    assert_eq!(cluster.append(1, Acks::All, 1), Ok(0));
    assert_eq!(cluster.ends(), [(1, 1), (0, 0)]);

    let mut cluster = broken(Mutation::AckedBeforeReplicated, &[]);
    assert_eq!(cluster.append(1, Acks::All, 1), Ok(0));
    assert_eq!(cluster.ends(), [(1, 0), (0, 0)]);

    let mut cluster = broken(Mutation::ReadAboveWatermark, &[]);
    cluster.append(1, Acks::Leader, 1).unwrap();
    let reader = cluster.connect(1);
    assert_eq!(cluster.fetch(reader, 0).unwrap().batches.len(), 1);

    let mut cluster = broken(Mutation::MinInsyncReplicasIgnored, &[("min.insync.replicas", "2")]);
    cluster.elect(Some(1), &[1]);
    assert_eq!(cluster.append(1, Acks::All, 1), Ok(0));

    let mut cluster = broken(Mutation::LeaderEpochIgnored, &[]);
    let Request::Fetch(mut request) = fetch_request("orders", 0, Duration::ZERO) else {
        unreachable!()
    };
    request.partitions[0].current_leader_epoch = Some(7);
    let reader = cluster.connect(1);
    let response = response_of!(Fetch, cluster.call(reader, Request::Fetch(request)));
    assert!(response.partitions[0].result.is_ok());
}

#[test]
fn a_request_for_several_partitions_is_answered_when_each_is_decided() {
    let mut cluster = Cluster::replicated(2, BrokerConfig::default(), &[]);
    cluster.cut_brokers(1, 2);
    let connection = cluster.connect(1);
    let Request::Produce(mut request) = produce_request(Acks::All, "orders", batch(&[1])) else {
        unreachable!()
    };
    let mut other = request.partitions[0].clone();
    other.topic_partition = TopicPartition::new("nowhere", 0);
    request.partitions.push(other);
    let sent = cluster.send(connection, Request::Produce(request));
    assert!(cluster.take(connection, sent).is_none());
    cluster.elect(Some(2), &[1, 2]);
    let response = response_of!(Produce, cluster.take(connection, sent).unwrap());
    let errors: Vec<_> = response.partitions.iter().map(|p| p.result.unwrap_err()).collect();
    assert_eq!(errors, [ErrorKind::NotLeaderOrFollower, ErrorKind::UnknownTopicOrPartition]);
}
