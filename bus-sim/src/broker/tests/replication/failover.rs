//! Failover: what a new leader has, what a follower takes back, and what a loss of power takes.

use std::time::Duration;

use bus_core::{Acks, ErrorKind};

use super::{WAIT, orders};
use crate::broker::tests::{Cluster, fetch_request, response_of};
use crate::config::{BrokerConfig, SimConfig, Truncation};
use crate::fact::Fact;
use crate::mutation::Mutation;
use crate::protocol::Request;
use crate::protocol::offset_for_leader_epoch::{self, EpochEnd};
use crate::protocol::topics::DeleteTopicsRequest;

#[test]
fn an_acknowledged_record_survives_the_leader_and_another_one_is_taken_back() {
    let mut cluster = Cluster::replicated(3, BrokerConfig::default(), &[]);
    cluster.append(1, Acks::All, 1).unwrap();
    cluster.cut_brokers(1, 2);
    cluster.cut_brokers(1, 3);
    cluster.append(1, Acks::Leader, 2).unwrap();
    cluster.crash(1);
    cluster.heal();
    cluster.advance(Duration::from_secs(10));
    assert_eq!((cluster.state().leader, cluster.state().leader_epoch), (Some(2), 1));
    assert_eq!(cluster.append(2, Acks::All, 3), Ok(1));
    cluster.restart(1);
    assert_eq!(cluster.records(1), [(1, 0), (3, 1)]);
    assert_eq!(cluster.state().in_sync_replicas, [2, 3, 1]);
    let truncated = Fact::Truncated { broker: 1, topic_partition: orders(), from: 2, to: 1 };
    assert!(cluster.facts.contains(&truncated), "{:?}", cluster.facts);
}

#[test]
fn waiting_requests_are_answered_when_the_leadership_is_lost() {
    let mut cluster = Cluster::replicated(2, BrokerConfig::default(), &[]);
    cluster.cut_brokers(1, 2);
    let produce = cluster.send_to(1, Acks::All, 1);
    let reader = cluster.connect(1);
    let fetch = cluster.send(reader, fetch_request("orders", 0, Duration::from_secs(60)));
    cluster.elect(Some(2), &[1, 2]);
    assert_eq!(cluster.answer(produce), Some(Err(ErrorKind::NotLeaderOrFollower)));
    let response = response_of!(Fetch, cluster.take(reader, fetch).unwrap());
    let error = response.partitions[0].result.as_ref().unwrap_err();
    assert_eq!(*error, ErrorKind::NotLeaderOrFollower);
}

/// Two replicas have an acknowledged record that they do not yet know to be committed. One of them
/// takes over, the other begins to follow it, and takes over before it has fetched.
fn twice_elected(config: SimConfig) -> Cluster {
    let mut cluster = Cluster::replicated_with(config, &[]);
    cluster.append(1, Acks::All, 1).unwrap();
    cluster.advance(WAIT);
    cluster.append(1, Acks::All, 2).unwrap();
    assert_eq!(cluster.ends(), [(2, 2), (2, 1), (2, 1)]);
    cluster.crash(1);
    cluster.cut_brokers(2, 3);
    cluster.elect(Some(2), &[2, 3]);
    cluster.crash(2);
    cluster.elect(Some(3), &[3]);
    cluster
}

fn three(truncation: Truncation, mutation: Option<Mutation>) -> SimConfig {
    let broker = BrokerConfig { truncation, ..Default::default() };
    SimConfig { brokers: 3, broker, mutation, ..Default::default() }
}

#[test]
fn truncation_to_the_watermark_loses_an_acknowledged_record_and_by_epoch_does_not() {
    let cluster = twice_elected(three(Truncation::ToHighWatermark, None));
    assert_eq!(cluster.records(3), [(1, 0)]);
    let mutated = three(Truncation::ByLeaderEpoch, Some(Mutation::TruncatedToWatermark));
    assert_eq!(twice_elected(mutated).records(3), [(1, 0)]);
    let cluster = twice_elected(three(Truncation::ByLeaderEpoch, None));
    assert_eq!(cluster.records(3), [(1, 0), (2, 0)]);
}

/// Both replicas lose power; the one that had not written the second record comes back first, and
/// leads.
fn lost_power_twice(truncation: Truncation) -> Cluster {
    let broker = BrokerConfig { truncation, ..Default::default() };
    let mut cluster = Cluster::replicated(2, broker, &[]);
    cluster.append(1, Acks::All, 1).unwrap();
    cluster.advance(Duration::from_secs(30));
    cluster.append(1, Acks::All, 2).unwrap();
    cluster.brokers.get_mut(&1).unwrap().0.flush();
    cluster.lose_power(1);
    cluster.lose_power(2);
    assert_eq!(cluster.ends(), [(2, 2), (1, 1)]);
    cluster.advance(Duration::from_secs(10));
    cluster.elect(None, &[1, 2]);
    cluster.start(2);
    cluster.advance(Duration::from_secs(2));
    cluster.elect(Some(2), &[2]);
    cluster.append(2, Acks::All, 3).unwrap();
    cluster.restart(1);
    cluster
}

#[test]
fn truncation_to_the_watermark_lets_logs_diverge_and_by_epoch_does_not() {
    let cluster = lost_power_twice(Truncation::ToHighWatermark);
    assert_eq!(cluster.records(1), [(1, 0), (2, 0)]);
    assert_eq!(cluster.records(2)[1].0, 3);
    let cluster = lost_power_twice(Truncation::ByLeaderEpoch);
    assert_eq!(cluster.records(1)[1].0, 3);
    assert_eq!(cluster.log(1), cluster.log(2));
}

/// Three leaders one after the other, each cut off from the others (KIP-279): the follower has an
/// epoch that the leader has not, between two that it has.
fn led_alone_by_turns(mutation: Option<Mutation>) -> Cluster {
    let mut cluster = Cluster::replicated_with(three(Truncation::ByLeaderEpoch, mutation), &[]);
    cluster.append(1, Acks::All, 1).unwrap();
    cluster.advance(WAIT);
    [(1, 2), (1, 3), (2, 3)].into_iter().for_each(|(a, b)| cluster.cut_brokers(a, b));
    cluster.elect(Some(2), &[2]);
    cluster.append(2, Acks::Leader, 20).unwrap();
    cluster.elect(Some(3), &[3]);
    cluster.append(3, Acks::Leader, 30).unwrap();
    cluster.append(3, Acks::Leader, 31).unwrap();
    cluster.elect(Some(2), &[2]);
    cluster.append(2, Acks::Leader, 21).unwrap();
    assert_eq!(cluster.records(2), [(1, 0), (20, 1), (21, 3)]);
    assert_eq!(cluster.records(3), [(1, 0), (30, 2), (31, 2)]);
    cluster.heal();
    cluster.advance(WAIT * 2);
    cluster
}

#[test]
fn logs_agree_after_fast_changes_of_leaders() {
    let cluster = led_alone_by_turns(None);
    assert_eq!(cluster.records(3), [(1, 0), (20, 1), (21, 3)]);
    assert_eq!(cluster.log(2), cluster.log(3));
    assert_eq!(cluster.log(2), cluster.log(1));
}

#[test]
fn a_follower_that_keeps_what_its_leader_has_not_diverges() {
    let cluster = led_alone_by_turns(Some(Mutation::DivergenceIgnored));
    assert_eq!(cluster.records(3), [(1, 0), (30, 2), (31, 2)]);
}

#[test]
fn an_offset_beyond_the_leaders_log_is_taken_back() {
    let broker =
        BrokerConfig { truncation: Truncation::ToHighWatermark, ..BrokerConfig::default() };
    let mut cluster = Cluster::replicated(2, broker, &[]);
    for value in 1..=3 {
        cluster.append(1, Acks::All, value).unwrap();
    }
    cluster.advance(WAIT);
    cluster.lose_power(2);
    assert_eq!(cluster.ends(), [(3, 3), (0, 0)]);
    cluster.advance(Duration::from_secs(10));
    cluster.cut_brokers(1, 2);
    cluster.start(2);
    cluster.advance(Duration::from_secs(2));
    cluster.elect(Some(2), &[2]);
    cluster.append(2, Acks::Leader, 9).unwrap();
    cluster.heal();
    cluster.advance(Duration::from_secs(2));
    assert_eq!(cluster.ends(), [(1, 1), (1, 1)]);
}

#[test]
fn a_loss_of_power_takes_what_the_system_has_not_written() {
    let mut cluster = Cluster::replicated(2, BrokerConfig::default(), &[]);
    cluster.append(1, Acks::All, 1).unwrap();
    cluster.advance(Duration::from_secs(30));
    cluster.append(1, Acks::All, 2).unwrap();
    cluster.lose_power(1);
    cluster.lose_power(2);
    assert_eq!((cluster.records(1).len(), cluster.records(2).len()), (1, 1));
    let from_to = |fact: &Fact| match fact {
        Fact::PageCacheLost { broker, from, to, .. } => Some((*broker, *from, *to)),
        _ => None,
    };
    let lost: Vec<_> = cluster.facts.iter().filter_map(from_to).collect();
    assert_eq!(lost, [(1, 2, 1), (2, 2, 1)]);

    let mut cluster = Cluster::replicated(2, BrokerConfig::default(), &[("flush.messages", "1")]);
    cluster.append(1, Acks::All, 1).unwrap();
    cluster.lose_power(1);
    assert_eq!(cluster.records(1).len(), 1, "it was flushed");
}

#[test]
fn the_end_of_an_epoch_is_told() {
    let mut cluster = Cluster::replicated(2, BrokerConfig::default(), &[]);
    cluster.append(1, Acks::All, 1).unwrap();
    cluster.elect(Some(2), &[1, 2]);
    cluster.append(2, Acks::All, 2).unwrap();
    let mut ask = |broker, leader_epoch| {
        let connection = cluster.connect(broker);
        let request = Request::OffsetForLeaderEpoch(offset_for_leader_epoch::Request {
            replica: None,
            partitions: vec![offset_for_leader_epoch::PartitionRequest {
                topic_partition: orders(),
                current_leader_epoch: Some(1),
                leader_epoch,
            }],
        });
        let response = response_of!(OffsetForLeaderEpoch, cluster.call(connection, request));
        response.partitions[0].result
    };
    assert_eq!(ask(2, 0), Ok(Some(EpochEnd { leader_epoch: 0, end_offset: 1 })));
    assert_eq!(ask(2, 1), Ok(Some(EpochEnd { leader_epoch: 1, end_offset: 2 })));
    assert_eq!(ask(2, 2), Ok(None));
    assert_eq!(ask(1, 0), Err(ErrorKind::NotLeaderOrFollower));
}

#[test]
fn a_topic_that_is_deleted_is_not_fetched_any_more() {
    let mut cluster = Cluster::replicated(2, BrokerConfig::default(), &[]);
    assert_eq!(cluster.brokers[&2].0.fetchers.len(), 1);
    let connection = cluster.connect(2);
    let request = DeleteTopicsRequest { topics: vec!["orders".into()] };
    cluster.call(connection, Request::DeleteTopics(request));
    cluster.advance(WAIT);
    assert!(cluster.brokers[&2].0.fetchers.is_empty());
    let open = cluster.connections.keys().filter(|connection| connection.ordinal > 1 << 24);
    assert_eq!(open.count(), 0, "the connection of the fetcher is closed");
}
