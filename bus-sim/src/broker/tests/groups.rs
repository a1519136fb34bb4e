//! JoinGroup, SyncGroup, Heartbeat, LeaveGroup.

use std::time::Duration;

use bus_core::{Bytes, ErrorKind};

use super::{Cluster, response_of};
use crate::config::{BrokerConfig, SimConfig};
use crate::fact::Fact;
use crate::mutation::Mutation;
use crate::node::{ConnectionId, Name};
use crate::protocol::groups::{DescribeGroupsRequest, GroupDetails};
use crate::protocol::join_group::{self, Joined};
use crate::protocol::{Request, heartbeat, leave_group, sync_group};

pub(super) const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);

/// A client of the group `billing`.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) connection: ConnectionId,
    pub(super) id: Name,
    pub(super) instance: Option<Name>,
    pub(super) generation: i32,
    pub(super) protocols: Vec<(Name, Bytes)>,
}

impl Member {
    pub(super) fn new(cluster: &mut Cluster) -> Self {
        Self {
            connection: cluster.connect(1),
            id: "".into(),
            instance: None,
            generation: -1,
            protocols: vec![("range".into(), "topics".into())],
        }
    }

    pub(super) fn fixed(cluster: &mut Cluster, instance: &str) -> Self {
        Self { instance: Some(instance.into()), ..Self::new(cluster) }
    }

    /// Asks to join, and returns the number of the request.
    pub(super) fn ask(&self, cluster: &mut Cluster) -> u32 {
        let request = join_group::Request {
            group_id: "billing".into(),
            member_id: Name::clone(&self.id),
            group_instance_id: self.instance.clone(),
            client_id: "app".into(),
            session_timeout: SESSION,
            rebalance_timeout: REBALANCE,
            protocol_type: "consumer".into(),
            protocols: self.protocols.clone(),
        };
        cluster.send(self.connection, Request::JoinGroup(request))
    }

    /// Asks to join, with an id if it needs one.
    pub(super) fn ask_with_id(&mut self, cluster: &mut Cluster) -> u32 {
        if self.id.is_empty() && self.instance.is_none() {
            let asked = self.ask(cluster);
            let response = response_of!(JoinGroup, cluster.take(self.connection, asked).unwrap());
            assert_eq!(response.result.unwrap_err(), ErrorKind::MemberIdRequired);
            self.id = response.member_id;
        }
        self.ask(cluster)
    }

    /// Takes the place in the generation.
    pub(super) fn joined(
        &mut self,
        cluster: &mut Cluster,
        asked: u32,
    ) -> Result<Joined, ErrorKind> {
        let response = cluster.take(self.connection, asked).expect("the rebalance went on");
        let response = response_of!(JoinGroup, response);
        let joined = response.result?;
        self.id = response.member_id;
        self.generation = joined.generation;
        Ok(joined)
    }

    pub(super) fn sync(&self, cluster: &mut Cluster, assignments: &[(&Name, &str)]) -> u32 {
        let assignments = assignments.iter().map(|(id, assignment)| {
            (Name::clone(id), Bytes::copy_from_slice(assignment.as_bytes()))
        });
        let request = sync_group::Request {
            group_id: "billing".into(),
            generation: self.generation,
            member_id: Name::clone(&self.id),
            group_instance_id: self.instance.clone(),
            assignments: assignments.collect(),
        };
        cluster.send(self.connection, Request::SyncGroup(request))
    }

    pub(super) fn synced(&self, cluster: &mut Cluster, asked: u32) -> Result<Bytes, ErrorKind> {
        let response = cluster.take(self.connection, asked).expect("the assignment is there");
        response_of!(SyncGroup, response).result
    }

    pub(super) fn heartbeat(&self, cluster: &mut Cluster) -> Option<ErrorKind> {
        let request = heartbeat::Request {
            group_id: "billing".into(),
            generation: self.generation,
            member_id: Name::clone(&self.id),
            group_instance_id: self.instance.clone(),
        };
        response_of!(Heartbeat, cluster.call(self.connection, Request::Heartbeat(request))).error
    }

    pub(super) fn leave(&self, cluster: &mut Cluster) -> Option<ErrorKind> {
        let request = leave_group::Request {
            group_id: "billing".into(),
            member_id: Name::clone(&self.id),
            group_instance_id: self.instance.clone(),
        };
        response_of!(LeaveGroup, cluster.call(self.connection, Request::LeaveGroup(request))).error
    }
}

/// Lets all of `members` join and sync; the first is the leader. The `n`th gets `assignment-n`.
pub(super) fn stabilize(cluster: &mut Cluster, members: &mut [Member]) {
    let asked: Vec<_> = members.iter_mut().map(|member| member.ask_with_id(cluster)).collect();
    cluster.advance(Duration::ZERO);
    let mut leader = None;
    for (index, (member, asked)) in members.iter_mut().zip(asked).enumerate() {
        let joined = member.joined(cluster, asked).unwrap();
        if joined.leader == member.id {
            leader = Some(index);
        }
    }
    let names: Vec<_> = (0..members.len()).map(|n| format!("assignment-{n}")).collect();
    let assignments: Vec<_> =
        members.iter().zip(&names).map(|(member, name)| (&member.id, name.as_str())).collect();
    let leader = leader.expect("one of them leads");
    let synced = members[leader].sync(cluster, &assignments);
    assert_eq!(members[leader].synced(cluster, synced).unwrap(), names[leader]);
    for (member, name) in members.iter().zip(&names) {
        let synced = member.sync(cluster, &[]);
        assert_eq!(member.synced(cluster, synced).unwrap(), *name);
    }
}

pub(super) fn group(members: usize) -> (Cluster, Vec<Member>) {
    group_with(SimConfig::default(), members)
}

fn group_with(config: SimConfig, members: usize) -> (Cluster, Vec<Member>) {
    let mut cluster = Cluster::new(config);
    let connection = cluster.connect(1);
    cluster.create_topic(connection, "orders", 3, &[]);
    let mut members: Vec<_> = (0..members).map(|_| Member::new(&mut cluster)).collect();
    stabilize(&mut cluster, &mut members);
    (cluster, members)
}

pub(super) fn describe(cluster: &mut Cluster) -> GroupDetails {
    let connection = cluster.connect(1);
    let request = DescribeGroupsRequest { groups: vec!["billing".into()] };
    let response = cluster.call(connection, Request::DescribeGroups(request));
    response_of!(DescribeGroups, response).groups.remove(0).result.unwrap()
}

fn state(cluster: &mut Cluster) -> String {
    format!("{:?}", describe(cluster).state)
}

#[test]
fn members_join_and_get_their_assignments() {
    let (mut cluster, members) = group(3);
    assert_eq!(state(&mut cluster), "Stable");
    assert!(members.iter().all(|member| member.generation == members[0].generation));
    assert!(members[0].id.starts_with("app-"));
    assert_eq!(members[0].id.len(), "app-".len() + 36);
    for member in &members {
        assert_eq!(member.heartbeat(&mut cluster), None);
    }
}

#[test]
fn stable_group_with_new_member_rebalances() {
    let (mut cluster, mut members) = group(1);
    let mut other = Member::new(&mut cluster);
    let asked = other.ask_with_id(&mut cluster);
    assert_eq!(state(&mut cluster), "PreparingRebalance");
    assert!(cluster.take(other.connection, asked).is_none());
    assert_eq!(members[0].heartbeat(&mut cluster), Some(ErrorKind::RebalanceInProgress));
    let rejoined = members[0].ask(&mut cluster);
    let joined = other.joined(&mut cluster, asked).unwrap();
    assert_eq!(joined.generation, 2);
    assert!(joined.members.is_empty(), "only the leader sees the members");
    assert_eq!(members[0].joined(&mut cluster, rejoined).unwrap().members.len(), 2);
    let early = other.sync(&mut cluster, &[]);
    assert!(cluster.take(other.connection, early).is_none(), "the leader has not synced");
    let synced = members[0].sync(&mut cluster, &[(&other.id, "all")]);
    assert_eq!(other.synced(&mut cluster, early).unwrap(), "all");
    assert_eq!(members[0].synced(&mut cluster, synced).unwrap(), "");
}

#[test]
fn a_follower_that_joins_again_gets_the_current_generation() {
    let (mut cluster, mut members) = group(2);
    let leader = describe_leader(&mut cluster, &mut members);
    let follower = 1 - leader;
    let asked = members[follower].ask(&mut cluster);
    let joined = members[follower].joined(&mut cluster, asked).unwrap();
    assert_eq!(joined.generation, members[leader].generation);
    assert_eq!(state(&mut cluster), "Stable");
    members[follower].protocols[0].1 = "other topics".into();
    members[follower].ask(&mut cluster);
    assert_eq!(state(&mut cluster), "PreparingRebalance");
}

/// The index of the leader, found without a rebalance.
fn describe_leader(cluster: &mut Cluster, members: &mut [Member]) -> usize {
    let broker = &cluster.brokers[&1].0;
    let mut groups = broker.shards.values().flat_map(|shard| shard.groups.values());
    let leader = groups.next().unwrap().leader().unwrap();
    members.iter().position(|member| member.id == leader).unwrap()
}

#[test]
fn a_leader_that_joins_again_forces_a_rebalance() {
    let (mut cluster, mut members) = group(2);
    let leader = describe_leader(&mut cluster, &mut members);
    members[leader].ask(&mut cluster);
    assert_eq!(state(&mut cluster), "PreparingRebalance");
}

#[test]
fn a_silent_member_expires() {
    let (mut cluster, members) = group(2);
    for _ in 0..3 {
        cluster.advance(SESSION / 2);
        members[0].heartbeat(&mut cluster);
    }
    assert_eq!(members[0].heartbeat(&mut cluster), Some(ErrorKind::RebalanceInProgress));
    assert_eq!(members[1].heartbeat(&mut cluster), Some(ErrorKind::UnknownMemberId));
    assert!(
        cluster
            .facts
            .iter()
            .any(|fact| { matches!(fact, Fact::MemberLeft { reason: "session expired", .. }) })
    );
    let asked = members[0].ask(&mut cluster);
    let joined = members[0].clone().joined(&mut cluster, asked).unwrap();
    assert_eq!(joined.members.len(), 1);
}

#[test]
fn heartbeats_keep_a_member() {
    let (mut cluster, members) = group(1);
    for _ in 0..20 {
        cluster.advance(SESSION - Duration::from_millis(1));
        assert_eq!(members[0].heartbeat(&mut cluster), None);
    }
}

#[test]
fn the_last_member_that_leaves_empties_the_group() {
    let (mut cluster, members) = group(2);
    assert_eq!(members[0].leave(&mut cluster), None);
    assert_eq!(members[0].leave(&mut cluster), Some(ErrorKind::UnknownMemberId));
    assert_eq!(state(&mut cluster), "PreparingRebalance");
    assert_eq!(members[1].leave(&mut cluster), None);
    assert_eq!(state(&mut cluster), "Empty");
}

#[test]
fn a_rebalance_goes_on_without_those_that_do_not_join() {
    let (mut cluster, members) = group(2);
    let mut other = Member::new(&mut cluster);
    let asked = other.ask_with_id(&mut cluster);
    for _ in 0..12 {
        // They are alive, and do not join.
        for member in &members {
            assert_eq!(member.heartbeat(&mut cluster), Some(ErrorKind::RebalanceInProgress));
        }
        cluster.advance(REBALANCE / 12);
    }
    assert_eq!(other.joined(&mut cluster, asked).unwrap().members.len(), 1);
    assert_eq!(members[0].heartbeat(&mut cluster), Some(ErrorKind::UnknownMemberId));
}

#[test]
fn a_member_that_does_not_sync_is_removed() {
    let (mut cluster, mut members) = group(2);
    let leader = describe_leader(&mut cluster, &mut members);
    let asked = [members[leader].ask(&mut cluster), members[1 - leader].ask(&mut cluster)];
    members[leader].joined(&mut cluster, asked[0]).unwrap();
    members[1 - leader].joined(&mut cluster, asked[1]).unwrap();
    let sync = members[leader].sync(&mut cluster, &[]);
    members[leader].synced(&mut cluster, sync).unwrap();
    for _ in 0..12 {
        for member in &members {
            assert_eq!(member.heartbeat(&mut cluster), None);
        }
        cluster.advance(REBALANCE / 12);
    }
    let error = members[leader].heartbeat(&mut cluster);
    assert_eq!(error, Some(ErrorKind::RebalanceInProgress));
    let error = members[1 - leader].heartbeat(&mut cluster);
    assert_eq!(error, Some(ErrorKind::UnknownMemberId));
}

#[test]
fn a_pending_member_holds_up_a_rebalance_until_its_session_ends() {
    let (mut cluster, mut members) = group(1);
    let pending = Member::new(&mut cluster);
    let asked = pending.ask(&mut cluster);
    response_of!(JoinGroup, cluster.take(pending.connection, asked).unwrap());
    assert_eq!(state(&mut cluster), "Stable", "an id alone is no member");
    let asked = members[0].ask(&mut cluster);
    assert!(cluster.take(members[0].connection, asked).is_none());
    cluster.advance(SESSION);
    assert_eq!(members[0].joined(&mut cluster, asked).unwrap().members.len(), 1);
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut cluster = Cluster::new(SimConfig::default());
    let mut members = vec![Member::fixed(&mut cluster, "one"), Member::fixed(&mut cluster, "two")];
    stabilize(&mut cluster, &mut members);
    let leader = describe_leader(&mut cluster, &mut members);
    for index in [leader, 1 - leader] {
        let old = members[index].clone();
        let mut again = Member { id: "".into(), ..old.clone() };
        let asked = again.ask(&mut cluster);
        let joined = again.joined(&mut cluster, asked).unwrap();
        assert_eq!(joined.generation, old.generation);
        assert_eq!(joined.skip_assignment, index == leader);
        assert_ne!(again.id, old.id);
        assert_eq!(state(&mut cluster), "Stable");
        let synced = again.sync(&mut cluster, &[]);
        let assignment = format!("assignment-{index}");
        assert_eq!(again.synced(&mut cluster, synced).unwrap(), assignment);
        assert_eq!(old.heartbeat(&mut cluster), Some(ErrorKind::FencedInstanceId));
        members[index] = again;
    }
}

#[test]
fn protocols_and_timeouts_are_checked() {
    let (mut cluster, _) = group(1);
    let mut other = Member::new(&mut cluster);
    other.protocols = vec![("sticky".into(), "".into())];
    let asked = other.ask(&mut cluster);
    let error = other.joined(&mut cluster, asked).unwrap_err();
    assert_eq!(error, ErrorKind::InconsistentGroupProtocol);
    let join = |group_id: &str, member_id: &str, session_timeout| {
        Request::JoinGroup(join_group::Request {
            group_id: group_id.into(),
            member_id: member_id.into(),
            group_instance_id: None,
            client_id: "app".into(),
            session_timeout,
            rebalance_timeout: REBALANCE,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), "".into())],
        })
    };
    for (request, error) in [
        (join("", "", SESSION), ErrorKind::InvalidGroupId),
        (join("billing", "", Duration::from_millis(1)), ErrorKind::InvalidSessionTimeout),
        (join("billing", "nobody", SESSION), ErrorKind::UnknownMemberId),
        (join("shipping", "nobody", SESSION), ErrorKind::UnknownMemberId),
    ] {
        let response = response_of!(JoinGroup, cluster.call(other.connection, request));
        assert_eq!(response.result.unwrap_err(), error);
    }
}

#[test]
fn the_protocol_is_one_that_all_support() {
    let mut cluster = Cluster::new(SimConfig::default());
    let protocol = |name: &str| (Name::from(name), Bytes::new());
    let mut members = [Member::new(&mut cluster), Member::new(&mut cluster)];
    members[0].protocols = vec![protocol("sticky"), protocol("range")];
    members[1].protocols = vec![protocol("range")];
    let asked: Vec<_> = members.iter_mut().map(|m| m.ask_with_id(&mut cluster)).collect();
    cluster.advance(Duration::ZERO);
    let joined = members[0].joined(&mut cluster, asked[0]).unwrap();
    assert_eq!(&*joined.protocol, "range");
}

#[test]
fn a_full_group_takes_no_more() {
    let broker = BrokerConfig { group_max_size: 1, ..Default::default() };
    let (mut cluster, _) = group_with(SimConfig { broker, ..Default::default() }, 1);
    let mut other = Member::new(&mut cluster);
    let asked = other.ask(&mut cluster);
    let error = other.joined(&mut cluster, asked).unwrap_err();
    assert_eq!(error, ErrorKind::GroupMaxSizeReached);
}

#[test]
fn the_first_rebalance_waits_for_its_delay() {
    let delay = Duration::from_secs(3);
    let broker = BrokerConfig { group_initial_rebalance_delay: delay, ..Default::default() };
    let mut cluster = Cluster::new(SimConfig { broker, ..Default::default() });
    let mut members = [Member::new(&mut cluster), Member::new(&mut cluster)];
    let first = members[0].ask_with_id(&mut cluster);
    cluster.advance(delay / 2);
    let second = members[1].ask_with_id(&mut cluster);
    cluster.advance(delay);
    assert!(cluster.take(members[0].connection, first).is_none(), "somebody joined: once more");
    cluster.advance(delay / 2);
    assert_eq!(members[0].joined(&mut cluster, first).unwrap().generation, 1);
    assert_eq!(members[1].joined(&mut cluster, second).unwrap().generation, 1);
}

#[test]
fn an_old_generation_is_refused() {
    let (mut cluster, members) = group(1);
    let old = Member { generation: 0, ..members[0].clone() };
    assert_eq!(old.heartbeat(&mut cluster), Some(ErrorKind::IllegalGeneration));
    let asked = old.sync(&mut cluster, &[]);
    assert_eq!(old.synced(&mut cluster, asked).unwrap_err(), ErrorKind::IllegalGeneration);
}

#[test]
fn members_never_expire_with_the_mutation() {
    let mutation = Some(Mutation::SessionNeverExpires);
    let (mut cluster, members) = group_with(SimConfig { mutation, ..Default::default() }, 2);
    cluster.advance(SESSION * 3);
    assert_eq!(members[1].heartbeat(&mut cluster), None);
}

#[test]
fn a_stale_assignment_is_that_of_the_generation_before() {
    let mutation = Some(Mutation::StaleAssignment);
    let (mut cluster, mut members) = group_with(SimConfig { mutation, ..Default::default() }, 1);
    let asked = members[0].ask(&mut cluster);
    members[0].joined(&mut cluster, asked).unwrap();
    let id = Name::clone(&members[0].id);
    let synced = members[0].sync(&mut cluster, &[(&id, "new")]);
    assert_eq!(members[0].synced(&mut cluster, synced).unwrap(), "assignment-0");
}
