//! Crashes: what is durable is there again, what is not is gone.

use std::time::Duration;

use bus_core::ErrorKind;
use proptest::prelude::*;

use super::groups::{Member, SESSION, describe, group};
use super::offsets::{commit, committed};
use super::{Cluster, batch, response_of};
use crate::broker::group::record::GroupRecord;
use crate::config::{BrokerConfig, SimConfig};
use crate::fact::Fact;
use crate::node::Name;
use crate::protocol::Request;
use crate::protocol::metadata;

#[test]
fn a_crashed_broker_leads_nothing_until_it_is_back() {
    let broker = BrokerConfig { default_replication_factor: 1, ..Default::default() };
    let mut cluster = Cluster::new(SimConfig { brokers: 2, broker, ..Default::default() });
    let connection = cluster.connect(2);
    cluster.create_topic(connection, "orders", 2, &[]);
    let leaders = |cluster: &mut Cluster| {
        let connection = cluster.connect(2);
        let request = metadata::Request { topics: Some(vec!["orders".into()]) };
        let response = response_of!(Metadata, cluster.call(connection, Request::Metadata(request)));
        let partitions = &response.topics[0].result.as_ref().unwrap().partitions;
        let mut leaders: Vec<_> = partitions.iter().map(|p| (p.leader, p.leader_epoch)).collect();
        leaders.sort_unstable();
        (response.brokers, leaders)
    };
    assert_eq!(leaders(&mut cluster), (vec![1, 2], vec![(Some(1), 0), (Some(2), 0)]));
    cluster.crash(1);
    assert_eq!(leaders(&mut cluster).0, [1, 2], "nobody knows yet");
    cluster.advance(Duration::from_secs(10));
    assert_eq!(leaders(&mut cluster), (vec![2], vec![(None, 1), (Some(2), 0)]));
    cluster.restart(1);
    assert_eq!(leaders(&mut cluster), (vec![1, 2], vec![(Some(1), 2), (Some(2), 0)]));
}

#[test]
fn a_broker_that_starts_refuses_requests_until_it_caught_up() {
    let (mut cluster, _) = Cluster::with_topic();
    cluster.crash(1);
    cluster.start(1);
    let connection = cluster.connect(1);
    cluster.send(connection, Request::Metadata(metadata::Request { topics: None }));
    assert!(cluster.closed.contains(&connection));
    cluster.advance(Duration::from_secs(12));
    let connection = cluster.connect(1);
    cluster.call(connection, Request::Metadata(metadata::Request { topics: None }));
}

#[test]
fn a_log_survives() {
    let (mut cluster, connection) = Cluster::with_topic();
    cluster.produce(connection, batch(&[1, 2])).unwrap();
    cluster.crash(1);
    cluster.restart(1);
    let connection = cluster.connect(1);
    assert_eq!(cluster.produce(connection, batch(&[3])).unwrap().base_offset, 2);
    let fetched = cluster.fetch(connection, 0).unwrap();
    let epochs: Vec<_> = fetched.batches.iter().map(|batch| batch.leader_epoch).collect();
    assert_eq!(epochs, [0, 2]);
}

#[test]
fn a_group_survives_and_its_sessions_begin_anew() {
    let (mut cluster, mut members) = group(2);
    commit(&mut cluster, &members[0], 5);
    let before = describe(&mut cluster);
    cluster.crash(1);
    cluster.restart(1);
    assert_eq!(describe(&mut cluster), before);
    assert_eq!(committed(&mut cluster), Some(5));
    assert!(cluster.facts.iter().any(|fact| matches!(fact, Fact::CoordinatorLoaded { .. })));
    for member in &mut members {
        member.connection = cluster.connect(1);
        assert_eq!(member.heartbeat(&mut cluster), None);
    }
    cluster.advance(SESSION * 2);
    assert_eq!(members[0].heartbeat(&mut cluster), Some(ErrorKind::UnknownMemberId));
}

#[test]
fn a_rebalance_that_was_not_finished_is_forgotten() {
    let (mut cluster, mut members) = group(1);
    let mut other = Member::new(&mut cluster);
    other.ask_with_id(&mut cluster);
    cluster.crash(1);
    cluster.restart(1);
    let details = describe(&mut cluster);
    assert_eq!(format!("{:?}", details.state), "Stable");
    assert_eq!(details.members.len(), 1);
    members[0].connection = cluster.connect(1);
    assert_eq!(members[0].heartbeat(&mut cluster), None);
}

/// What a client does to the group.
#[derive(Clone, Debug)]
enum Step {
    Add,
    /// A member asks to join, and does not wait for the rebalance.
    Join(usize),
    Leave(usize),
    Rebalance,
    Commit(usize, i64),
    Wait(u64),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Add),
        (0..4_usize).prop_map(Step::Join),
        (0..4_usize).prop_map(Step::Leave),
        Just(Step::Rebalance),
        (0..4_usize, 0..100_i64).prop_map(|(member, offset)| Step::Commit(member, offset)),
        (0..8_u64).prop_map(Step::Wait),
        Just(Step::Crash),
    ]
}

/// What the coordinators know that is durable: the offsets of each group, and the group as its
/// record would be, unless it rebalances (then memory is ahead of the records).
fn durable(cluster: &Cluster) -> Vec<(String, Option<GroupRecord>)> {
    let broker = &cluster.brokers[&1].0;
    let groups = broker.shards.values().flat_map(|shard| shard.groups.values());
    groups.map(|group| (format!("{:?}", group.offsets()), group.snapshot())).collect()
}

/// Lets the members that are still known join; if all did, the leader assigns. Forgets the others.
fn rebalance(cluster: &mut Cluster, members: &mut Vec<Member>) {
    members.retain(|member| {
        member.id.is_empty() || member.heartbeat(cluster) != Some(ErrorKind::UnknownMemberId)
    });
    let asked: Vec<_> = members.iter_mut().map(|m| m.ask_with_id(cluster)).collect();
    cluster.advance(Duration::ZERO);
    let mut leader = None;
    for (index, (member, asked)) in members.iter_mut().zip(asked).enumerate() {
        match cluster
            .take(member.connection, asked)
            .map(|response| response_of!(JoinGroup, response))
        {
            Some(response) => {
                if let Ok(joined) = response.result {
                    member.generation = joined.generation;
                    leader = if joined.leader == member.id { Some(index) } else { leader };
                }
            }
            None => {
                // It goes on waiting there, and the client asks on another connection.
                let connection = cluster.connect(1);
                cluster.close(std::mem::replace(&mut member.connection, connection));
            }
        }
    }
    if let Some(leader) = leader {
        let ids: Vec<_> = members.iter().map(|member| Name::clone(&member.id)).collect();
        let assignments: Vec<_> = ids.iter().map(|id| (id, &**id)).collect();
        members[leader].sync(cluster, &assignments);
        let connection = cluster.connect(1);
        cluster.close(std::mem::replace(&mut members[leader].connection, connection));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_crash_at_any_point_keeps_what_is_durable(
        steps in proptest::collection::vec(step(), 1..20),
    ) {
        let (mut cluster, mut members) = group(1);
        for step in steps {
            match step {
                Step::Add => members.push(Member::new(&mut cluster)),
                Step::Leave(index) if index < members.len() => {
                    members.remove(index).leave(&mut cluster);
                }
                Step::Join(index) if index < members.len() => {
                    let asked = members[index].clone().ask(&mut cluster);
                    cluster.take(members[index].connection, asked);
                    let connection = cluster.connect(1);
                    let old = std::mem::replace(&mut members[index].connection, connection);
                    cluster.close(old);
                }
                Step::Rebalance => rebalance(&mut cluster, &mut members),
                Step::Commit(index, offset) if index < members.len() => {
                    commit(&mut cluster, &members[index].clone(), offset);
                }
                Step::Wait(seconds) => cluster.advance(Duration::from_secs(seconds)),
                Step::Crash => {
                    let before = durable(&cluster);
                    cluster.crash(1);
                    cluster.restart(1);
                    let after = durable(&cluster);
                    prop_assert_eq!(after.len(), before.len());
                    for (before, after) in before.iter().zip(&after) {
                        prop_assert_eq!(&after.0, &before.0);
                        if before.1.is_some() {
                            prop_assert_eq!(&after.1, &before.1);
                        }
                    }
                    cluster.crash(1);
                    cluster.restart(1);
                    prop_assert_eq!(durable(&cluster), after, "replaying is repeatable");
                    for member in &mut members {
                        member.connection = cluster.connect(1);
                    }
                }
                Step::Join(_) | Step::Leave(_) | Step::Commit(..) => {}
            }
        }
    }
}
