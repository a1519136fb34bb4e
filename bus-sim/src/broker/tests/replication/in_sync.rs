//! Who is in sync: shrinking, growing, and what the controller refuses.

use std::time::Duration;

use bus_core::{Acks, ErrorKind, IsolationLevel};

use super::{WAIT, orders};
use crate::broker::BrokerTimer;
use crate::broker::replica::Replica;
use crate::broker::tests::{Cluster, batch, produce_request, response_of};
use crate::config::{BrokerConfig, SimConfig};
use crate::fact::Fact;
use crate::mutation::Mutation;
use crate::node::{BrokerId, NodeId, Timer};
use crate::protocol::cluster::{
    AlterPartition, AlterPartitionRequest, AlterPartitionResponse, AlteredPartition, ClusterError,
    PartitionState,
};
use crate::protocol::{Request, fetch};

#[test]
fn a_follower_that_lags_leaves_and_one_that_caught_up_joins() {
    let mut cluster = Cluster::replicated(3, BrokerConfig::default(), &[]);
    cluster.append(1, Acks::All, 1).unwrap();
    cluster.cut_brokers(1, 3);
    let waiting = cluster.send_to(1, Acks::All, 2);
    cluster.advance(Duration::from_secs(29));
    assert_eq!(cluster.state().in_sync_replicas, [1, 2, 3]);
    cluster.advance(Duration::from_secs(16));
    assert_eq!(cluster.state().in_sync_replicas, [1, 2]);
    assert_eq!(cluster.append(1, Acks::All, 3), Ok(2));
    assert_eq!(cluster.answer(waiting), Some(Err(ErrorKind::RequestTimedOut)), "after 30 s");
    cluster.heal();
    cluster.advance(WAIT);
    assert_eq!(cluster.state().in_sync_replicas, [1, 2, 3]);
    cluster.advance(WAIT);
    assert_eq!(cluster.ends(), [(3, 3), (3, 3), (3, 3)]);
    let told: Vec<_> = cluster
        .facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::InSync { topic_partition, in_sync_replicas } if *topic_partition == orders() => {
                Some(in_sync_replicas.as_slice())
            }
            _ => None,
        })
        .collect();
    assert_eq!(told, [&[1, 2, 3][..], &[1, 2], &[1, 2, 3]]);
}

#[test]
fn leaders_of_the_first_hour_look_for_followers_that_lag_too() {
    let cluster = Cluster::new(SimConfig { brokers: 3, ..Default::default() });
    let is_led =
        |id: &BrokerId| cluster.brokers[id].0.replicas.values().any(Replica::has_followers);
    let leaders: Vec<_> = (1..=3).filter(is_led).collect();
    assert!(!leaders.is_empty(), "internal topics have several replicas");
    for id in leaders {
        let timer = (NodeId::Broker(id), Timer::Broker(BrokerTimer::CheckInSync));
        assert!(cluster.timers.contains_key(&timer), "broker {id}");
    }
}

#[test]
fn a_follower_with_nothing_to_fetch_stays_in_sync() {
    let mut cluster = Cluster::replicated(2, BrokerConfig::default(), &[]);
    cluster.append(1, Acks::All, 1).unwrap();
    cluster.advance(WAIT);
    cluster.cut_brokers(1, 2);
    cluster.advance(Duration::from_secs(60));
    assert_eq!(cluster.state().in_sync_replicas, [1, 2], "its log ends where the leader's does");
}

#[test]
fn one_that_is_about_to_join_counts_for_the_watermark_already() {
    let mut cluster = Cluster::replicated(2, BrokerConfig::default(), &[]);
    cluster.elect(Some(1), &[1]);
    cluster.cut(NodeId::Broker(1), NodeId::Controller);
    cluster.append(1, Acks::All, 1).unwrap();
    cluster.advance(WAIT);
    // It is proposed, and the answer of the controller is held.
    cluster.cut_brokers(1, 2);
    let waiting = cluster.send_to(1, Acks::All, 2);
    assert_eq!(cluster.answer(waiting), None);
    cluster.heal();
    assert!(cluster.answer(waiting).unwrap().is_ok());
    assert_eq!(cluster.state().in_sync_replicas, [1, 2]);
}

#[test]
fn one_that_is_about_to_leave_counts_until_the_controller_says_so() {
    let mut cluster = Cluster::replicated(2, BrokerConfig::default(), &[]);
    cluster.cut_brokers(1, 2);
    cluster.cut(NodeId::Broker(1), NodeId::Controller);
    let leader = cluster.connect(1);
    let Request::Produce(mut request) = produce_request(Acks::All, "orders", batch(&[1])) else {
        unreachable!()
    };
    request.timeout = Duration::from_secs(120);
    let waiting = cluster.send(leader, Request::Produce(request));
    // The leader lost its session by then, so the controller has elected the other one.
    cluster.advance(Duration::from_secs(60));
    assert!(cluster.take(leader, waiting).is_none());
    assert_eq!(cluster.state().leader, Some(2));
    cluster.heal();
    let response = response_of!(Produce, cluster.take(leader, waiting).unwrap());
    assert_eq!(response.partitions[0].result, Err(ErrorKind::NotLeaderOrFollower));
}

#[test]
fn a_fetch_with_an_old_registration_is_refused() {
    let mut cluster = Cluster::replicated(2, BrokerConfig::default(), &[]);
    let connection = cluster.connect(1);
    let newest = cluster.controller.image.brokers[&2].epoch;
    for (epoch, error) in [(newest - 1, Some(ErrorKind::NotLeaderOrFollower)), (newest, None)] {
        let request = Request::Fetch(fetch::Request {
            replica: Some((2, epoch)),
            max_wait: Duration::ZERO,
            min_bytes: 1,
            max_bytes: 1 << 20,
            isolation_level: IsolationLevel::ReadUncommitted,
            partitions: vec![fetch::PartitionRequest {
                topic_partition: orders(),
                offset: 0,
                current_leader_epoch: Some(0),
                last_fetched_epoch: None,
                max_bytes: 1 << 20,
            }],
        });
        let response = response_of!(Fetch, cluster.call(connection, request));
        assert_eq!(response.partitions[0].result.as_ref().err().copied(), error);
    }
}

#[test]
fn the_controller_refuses_what_was_made_from_old_state() {
    let mut cluster = Cluster::replicated(3, BrokerConfig::default(), &[]);
    let epoch_of = |cluster: &Cluster, id| cluster.controller.image.brokers[&id].epoch;
    let epochs: Vec<_> = (1..=3).map(|id| (id, epoch_of(&cluster, id))).collect();
    cluster.crash(3);
    cluster.advance(Duration::from_secs(10));
    cluster.elect(Some(1), &[1, 2]);
    assert_eq!(cluster.state().partition_epoch, 2);
    let right = AlterPartition {
        topic_partition: orders(),
        leader_epoch: 1,
        partition_epoch: 2,
        in_sync_replicas: epochs[..1].to_vec(),
    };
    let with = |change: &dyn Fn(&mut AlterPartition)| {
        let mut proposed = right.clone();
        change(&mut proposed);
        proposed
    };
    use ClusterError::{
        FencedLeaderEpoch, IneligibleReplica, InvalidRequest, InvalidUpdateVersion, NotController,
        UnknownTopicOrPartition,
    };
    for (broker, proposed, error) in [
        (1, with(&|p| p.topic_partition.partition = 1), UnknownTopicOrPartition),
        (1, with(&|p| p.leader_epoch = 2), NotController),
        (1, with(&|p| p.partition_epoch = 3), NotController),
        (1, with(&|p| p.leader_epoch = 0), FencedLeaderEpoch),
        (2, right.clone(), InvalidRequest),
        (1, with(&|p| p.partition_epoch = 1), InvalidUpdateVersion),
        (1, with(&|p| p.in_sync_replicas = vec![epochs[1]]), InvalidRequest),
        (1, with(&|p| p.in_sync_replicas.push((4, 0))), InvalidRequest),
        (1, with(&|p| p.in_sync_replicas.push(epochs[2])), IneligibleReplica),
        (1, with(&|p| p.in_sync_replicas.push((2, epochs[1].1 + 1))), IneligibleReplica),
    ] {
        let broker_epoch = epoch_of(&cluster, broker);
        let result = alter(&mut cluster, broker, broker_epoch, proposed.clone());
        assert_eq!(result.unwrap()[0].result, Err(error), "{broker} {proposed:?}");
    }
    let stale = alter(&mut cluster, 1, -1, right.clone());
    assert_eq!(stale, Err(ClusterError::StaleBrokerEpoch));
    let broker_epoch = epoch_of(&cluster, 1);
    let altered = alter(&mut cluster, 1, broker_epoch, right).unwrap().remove(0).result.unwrap();
    assert_eq!((altered.in_sync_replicas, altered.partition_epoch), (vec![1], 3));
}

/// The leader is replaced while its proposal to be alone in sync is under way.
fn replaced_amid_a_proposal(mutation: Option<Mutation>) -> Result<PartitionState, ClusterError> {
    let config = SimConfig { brokers: 3, mutation, ..Default::default() };
    let mut cluster = Cluster::replicated_with(config, &[]);
    let broker_epoch = cluster.controller.image.brokers[&1].epoch;
    let proposed = AlterPartition {
        topic_partition: orders(),
        leader_epoch: cluster.state().leader_epoch,
        partition_epoch: cluster.state().partition_epoch,
        in_sync_replicas: vec![(1, broker_epoch)],
    };
    cluster.elect(Some(2), &[2, 3]);
    alter(&mut cluster, 1, broker_epoch, proposed).unwrap().remove(0).result
}

#[test]
fn a_leader_that_was_replaced_does_not_say_who_is_in_sync() {
    assert_eq!(replaced_amid_a_proposal(None), Err(ClusterError::FencedLeaderEpoch));
    let believed = replaced_amid_a_proposal(Some(Mutation::StaleLeaderNotFenced)).unwrap();
    assert_eq!(believed.in_sync_replicas, [1], "what the leader has does not count");
}

type Altered = Result<Vec<AlteredPartition>, ClusterError>;

fn alter(
    cluster: &mut Cluster,
    broker: i32,
    broker_epoch: i64,
    proposed: AlterPartition,
) -> Altered {
    let connection = cluster.connect(1);
    cluster.connections.insert(connection, NodeId::Controller);
    let partitions = vec![proposed];
    let request = AlterPartitionRequest { broker, broker_epoch, partitions };
    let response = cluster.call(connection, Request::AlterPartition(request));
    let AlterPartitionResponse { result } = response_of!(AlterPartition, response);
    result
}
