//! Tests of the controller: who leads, and who is in sync.

use super::*;
use crate::protocol::cluster::{
    AlterPartition, AlterPartitionRequest, ClusterError, PartitionState,
};

/// Three brokers, and a topic `orders` of one partition with three replicas, led by the first.
fn replicated(config: &[(&str, &str)]) -> (Cluster, Vec<BrokerId>) {
    let mut cluster = Cluster::new(SimConfig { brokers: 3, ..Default::default() });
    let connection = cluster.connect(1);
    let config = config.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let topic = CreatableTopic {
        topic: "orders".into(),
        partitions: 1,
        replication_factor: Some(3),
        config: config.collect(),
    };
    let request = Request::CreateTopics(CreateTopicsRequest { topics: vec![topic] });
    let response = response_of!(CreateTopics, cluster.call(connection, request));
    assert_eq!(response.topics[0].error, None);
    let replicas = orders(&cluster).replicas;
    (cluster, replicas)
}

fn orders(cluster: &Cluster) -> PartitionState {
    let topic_partition = TopicPartition::new("orders", 0);
    cluster.controller.image.partition(&topic_partition).unwrap().clone()
}

/// Lets the leader propose who is in sync.
fn alter(
    cluster: &mut Cluster,
    in_sync: &[BrokerId],
    change: impl FnOnce(&mut AlterPartitionRequest),
) -> Result<PartitionState, ClusterError> {
    let state = orders(cluster);
    let leader = state.leader.unwrap();
    let epoch = |id: &BrokerId| cluster.controller.image.brokers[id].epoch;
    let mut request = AlterPartitionRequest {
        broker: leader,
        broker_epoch: epoch(&leader),
        partitions: vec![AlterPartition {
            topic_partition: TopicPartition::new("orders", 0),
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            in_sync_replicas: in_sync.iter().map(|id| (*id, epoch(id))).collect(),
        }],
    };
    change(&mut request);
    let response =
        cluster.controller.alter_partitions(cluster.now, &request, &mut Effects::default());
    response.result?.remove(0).result
}

#[test]
fn leaders_say_who_is_in_sync() {
    let (mut cluster, replicas) = replicated(&[]);
    let before = orders(&cluster);
    assert_eq!((before.leader, &before.in_sync_replicas), (Some(replicas[0]), &replicas));
    let after = alter(&mut cluster, &replicas[..2], |_| {}).unwrap();
    assert_eq!(after.in_sync_replicas, replicas[..2]);
    assert_eq!(after.leader_epoch, before.leader_epoch);
    assert_eq!(after.partition_epoch, before.partition_epoch + 1);
    assert_eq!(orders(&cluster), after);
    // The same again changes nothing.
    assert_eq!(alter(&mut cluster, &replicas[..2], |_| {}), Ok(after));
}

#[test]
fn proposals_are_checked() {
    let (mut cluster, replicas) = replicated(&[]);
    let mut refused = |change: fn(&mut AlterPartitionRequest)| {
        alter(&mut cluster, &replicas[..2], change).unwrap_err()
    };
    assert_eq!(refused(|request| request.broker_epoch += 1), ClusterError::StaleBrokerEpoch);
    assert_eq!(refused(|r| r.partitions[0].leader_epoch += 1), ClusterError::NotController);
    assert_eq!(refused(|r| r.partitions[0].partition_epoch += 1), ClusterError::NotController);
    assert_eq!(refused(|r| r.partitions[0].leader_epoch -= 1), ClusterError::FencedLeaderEpoch);
    let stale = refused(|r| r.partitions[0].partition_epoch -= 1);
    assert_eq!(stale, ClusterError::InvalidUpdateVersion);
    let without_leader = refused(|r| r.partitions[0].in_sync_replicas.truncate(0));
    assert_eq!(without_leader, ClusterError::InvalidRequest);
    let old_epoch = refused(|r| r.partitions[0].in_sync_replicas[1].1 += 1);
    assert_eq!(old_epoch, ClusterError::IneligibleReplica);
    let unknown_epoch = |r: &mut AlterPartitionRequest| r.partitions[0].in_sync_replicas[1].1 = -1;
    assert!(alter(&mut cluster, &replicas[..2], unknown_epoch).is_ok());
}

#[test]
fn a_fenced_broker_is_not_in_sync() {
    let (mut cluster, replicas) = replicated(&[]);
    cluster.crash(replicas[2]);
    cluster.advance(Duration::from_secs(5));
    assert_eq!(orders(&cluster).in_sync_replicas, replicas[..2]);
    let refused = alter(&mut cluster, &replicas, |_| {});
    assert_eq!(refused, Err(ClusterError::IneligibleReplica));
    // It is back, and its leader tells that it is in sync.
    cluster.restart(replicas[2]);
    assert_eq!(orders(&cluster).in_sync_replicas, replicas);
    assert_eq!(orders(&cluster).leader_epoch, 0);
}

#[test]
fn the_preferred_leader_leads_again_after_a_while() {
    let (mut cluster, replicas) = replicated(&[]);
    cluster.crash(replicas[0]);
    cluster.advance(Duration::from_secs(5));
    let after = orders(&cluster);
    assert_eq!((after.leader, after.leader_epoch), (Some(replicas[1]), 1));
    cluster.restart(replicas[0]);
    assert_eq!(orders(&cluster).leader, Some(replicas[1]));
    cluster.advance(Duration::from_mins(5));
    let after = orders(&cluster);
    assert_eq!((after.leader, after.leader_epoch), (Some(replicas[0]), 2));
}

#[test]
fn out_of_sync_replicas_lead_only_where_that_is_allowed() {
    for (is_unclean, leader) in [("false", None), ("true", Some(2))] {
        let config = [("unclean.leader.election.enable", is_unclean)];
        let (mut cluster, replicas) = replicated(&config);
        alter(&mut cluster, &replicas[..1], |_| {}).unwrap();
        cluster.crash(replicas[0]);
        cluster.advance(Duration::from_secs(5));
        let after = orders(&cluster);
        assert_eq!(after.leader, leader.map(|place: usize| replicas[place - 1]));
        let in_sync = after.leader.into_iter().collect::<Vec<_>>();
        assert_eq!(after.in_sync_replicas, in_sync);
    }
}

#[test]
fn a_broker_hands_over_before_it_shuts_down() {
    let (mut cluster, replicas) = replicated(&[]);
    let id = replicas[0];
    cluster.shut_down(id);
    let after = orders(&cluster);
    assert_eq!((after.leader, after.in_sync_replicas), (Some(replicas[1]), replicas[1..].into()));
    assert!(cluster.brokers[&id].1, "the others do not know yet");
    cluster.advance(Duration::from_secs(2));
    assert!(!cluster.brokers[&id].1);
    // It is fenced, so it can register again at once.
    cluster.start(id);
    cluster.advance(Duration::from_millis(100));
    assert!(cluster.controller.is_active(id));
}

#[test]
fn the_next_controller_goes_on_with_the_log() {
    let (mut cluster, replicas) = replicated(&[]);
    let before = cluster.controller.image.clone();
    cluster.crash(replicas[2]);
    cluster.advance(Duration::from_secs(3));
    cluster.crash_controller();
    assert_eq!(cluster.controller.image, before);
    // The crashed broker gets a new session from it, as all do.
    cluster.advance(Duration::from_secs(3));
    assert!(cluster.controller.is_active(replicas[2]));
    cluster.advance(Duration::from_secs(2));
    assert!(!cluster.controller.is_active(replicas[2]));
    assert!(cluster.controller.is_active(replicas[0]));
    assert_eq!(orders(&cluster).in_sync_replicas, replicas[..2]);
}
