//! OffsetCommit, OffsetFetch, expiry, ListGroups, DeleteGroups.

use std::time::Duration;

use bus_core::{ErrorKind, GroupState, Offset, TopicPartition};

use super::groups::{Member, group, stabilize};
use super::{Cluster, response_of};
use crate::config::SimConfig;
use crate::mutation::Mutation;
use crate::node::{ConnectionId, Name};
use crate::protocol::groups::{DeleteGroupsRequest, ListGroupsRequest};
use crate::protocol::topics::DeleteTopicsRequest;
use crate::protocol::{Request, offset_commit, offset_fetch};

const RETENTION: Duration = Duration::from_hours(7 * 24);

pub(super) fn commit(cluster: &mut Cluster, member: &Member, offset: Offset) -> Option<ErrorKind> {
    commit_with(cluster, member, "orders", offset, "note")
}

fn commit_with(
    cluster: &mut Cluster,
    member: &Member,
    topic: &str,
    offset: Offset,
    metadata: &str,
) -> Option<ErrorKind> {
    let request = commit_request(member, topic, offset, metadata);
    response_of!(OffsetCommit, cluster.call(member.connection, request)).partitions[0].1
}

pub(super) fn commit_request(
    member: &Member,
    topic: &str,
    offset: Offset,
    metadata: &str,
) -> Request {
    Request::OffsetCommit(offset_commit::Request {
        group_id: "billing".into(),
        generation: member.generation,
        member_id: Name::clone(&member.id),
        group_instance_id: member.instance.clone(),
        partitions: vec![offset_commit::PartitionRequest {
            topic_partition: TopicPartition::new(topic, 0),
            offset,
            leader_epoch: Some(0),
            metadata: metadata.into(),
        }],
    })
}

pub(super) fn committed(cluster: &mut Cluster) -> Option<Offset> {
    let connection = cluster.connect(1);
    let response = cluster.call(connection, fetch_request(true));
    committed_in(response_of!(OffsetFetch, response)).unwrap()
}

pub(super) fn fetch_request(require_stable: bool) -> Request {
    Request::OffsetFetch(offset_fetch::Request {
        group_id: "billing".into(),
        partitions: Some(vec![TopicPartition::new("orders", 0)]),
        require_stable,
    })
}

pub(super) fn committed_in(response: offset_fetch::Response) -> Result<Option<Offset>, ErrorKind> {
    let answer = response.result?.remove(0).result?;
    Ok(answer.map(|committed| committed.offset))
}

/// A client that only stores offsets.
fn simple(connection: ConnectionId) -> Member {
    Member { connection, id: "".into(), instance: None, generation: -1, protocols: Vec::new() }
}

fn delete_group(cluster: &mut Cluster) -> Option<ErrorKind> {
    let connection = cluster.connect(1);
    let request = Request::DeleteGroups(DeleteGroupsRequest { groups: vec!["billing".into()] });
    response_of!(DeleteGroups, cluster.call(connection, request)).groups[0].1
}

fn list(cluster: &mut Cluster) -> Vec<(Name, GroupState)> {
    let connection = cluster.connect(1);
    let response = cluster.call(connection, Request::ListGroups(ListGroupsRequest));
    response_of!(ListGroups, response).result.unwrap()
}

#[test]
fn a_member_commits_in_its_generation() {
    let (mut cluster, members) = group(1);
    assert_eq!(committed(&mut cluster), None);
    assert_eq!(commit(&mut cluster, &members[0], 5), None);
    assert_eq!(committed(&mut cluster), Some(5));
}

#[test]
fn zombies_cannot_commit() {
    let (mut cluster, members) = group(1);
    let member = &members[0];
    for (zombie, error) in [
        (Member { generation: 0, ..member.clone() }, ErrorKind::IllegalGeneration),
        (Member { id: "nobody".into(), ..member.clone() }, ErrorKind::UnknownMemberId),
        (simple(member.connection), ErrorKind::UnknownMemberId),
    ] {
        assert_eq!(commit(&mut cluster, &zombie, 5), Some(error));
    }
    assert_eq!(committed(&mut cluster), None);
}

#[test]
fn a_group_that_does_not_exist_has_no_generation() {
    let (mut cluster, connection) = Cluster::with_topic();
    let member = Member { id: "x".into(), generation: 1, ..simple(connection) };
    assert_eq!(commit(&mut cluster, &member, 4), Some(ErrorKind::GroupIdNotFound));
}

#[test]
fn commits_wait_for_the_assignment() {
    let (mut cluster, mut members) = group(1);
    let asked = members[0].ask(&mut cluster);
    members[0].joined(&mut cluster, asked).unwrap();
    assert_eq!(commit(&mut cluster, &members[0], 5), Some(ErrorKind::RebalanceInProgress));
}

#[test]
fn a_commit_is_accepted_while_others_join() {
    let (mut cluster, members) = group(1);
    let mut other = Member::new(&mut cluster);
    other.ask_with_id(&mut cluster);
    assert_eq!(commit(&mut cluster, &members[0], 5), None);
}

#[test]
fn an_empty_group_stores_offsets_of_anybody() {
    let (mut cluster, connection) = Cluster::with_topic();
    let client = simple(connection);
    assert_eq!(commit(&mut cluster, &client, 3), None);
    assert_eq!(committed(&mut cluster), Some(3));
    assert_eq!(list(&mut cluster), [("billing".into(), GroupState::Empty)]);
    let stranger = Member { id: "x".into(), generation: 1, ..simple(connection) };
    assert_eq!(commit(&mut cluster, &stranger, 4), Some(ErrorKind::UnknownMemberId));
}

#[test]
fn commits_are_checked() {
    let (mut cluster, members) = group(1);
    let long = "x".repeat(4097);
    let error = commit_with(&mut cluster, &members[0], "orders", 1, &long);
    assert_eq!(error, Some(ErrorKind::OffsetMetadataTooLarge));
    let error = commit_with(&mut cluster, &members[0], "nowhere", 1, "");
    assert_eq!(error, Some(ErrorKind::UnknownTopicOrPartition));
}

#[test]
fn only_an_empty_group_is_deleted() {
    let (mut cluster, members) = group(1);
    commit(&mut cluster, &members[0], 5);
    assert_eq!(delete_group(&mut cluster), Some(ErrorKind::NonEmptyGroup));
    members[0].leave(&mut cluster);
    assert_eq!(delete_group(&mut cluster), None);
    assert_eq!(delete_group(&mut cluster), Some(ErrorKind::GroupIdNotFound));
    assert_eq!(committed(&mut cluster), None);
    assert!(list(&mut cluster).is_empty());
}

#[test]
fn offsets_expire_after_the_group_became_empty() {
    let (mut cluster, members) = group(1);
    commit(&mut cluster, &members[0], 5);
    cluster.advance(Duration::from_hours(1));
    // Its session ended; it became empty long before this.
    cluster.advance(RETENTION - Duration::from_hours(2));
    assert_eq!(committed(&mut cluster), Some(5));
    cluster.advance(Duration::from_hours(2));
    assert_eq!(committed(&mut cluster), None);
    assert!(list(&mut cluster).is_empty());
}

#[test]
fn offsets_of_a_group_in_use_stay() {
    let mut cluster = Cluster::new(SimConfig::default());
    let connection = cluster.connect(1);
    cluster.create_topic(connection, "orders", 1, &[]);
    let mut members = vec![Member::new(&mut cluster)];
    // Version 0, one topic: "orders".
    let subscription = b"\0\0\0\0\0\x01\0\x06orders";
    members[0].protocols = vec![("range".into(), subscription.as_slice().into())];
    stabilize(&mut cluster, &mut members);
    commit(&mut cluster, &members[0], 5);
    let hours = RETENTION.as_secs() / 3600 + 1;
    for _ in 0..hours * 600 {
        cluster.advance(Duration::from_secs(6));
        members[0].heartbeat(&mut cluster);
    }
    assert_eq!(committed(&mut cluster), Some(5));
}

#[test]
fn offsets_go_with_their_topic() {
    let (mut cluster, members) = group(1);
    commit(&mut cluster, &members[0], 5);
    let connection = cluster.connect(1);
    let request = DeleteTopicsRequest { topics: vec!["orders".into()] };
    cluster.call(connection, Request::DeleteTopics(request));
    assert_eq!(committed(&mut cluster), None);
}

#[test]
fn mutations_break_what_they_say() {
    let with = |mutation| {
        let config = SimConfig { mutation: Some(mutation), ..Default::default() };
        let mut cluster = Cluster::new(config);
        let connection = cluster.connect(1);
        cluster.create_topic(connection, "orders", 1, &[]);
        let mut members = vec![Member::new(&mut cluster)];
        stabilize(&mut cluster, &mut members);
        (cluster, members.remove(0))
    };
    let (mut cluster, member) = with(Mutation::CommitRewound);
    commit(&mut cluster, &member, 5);
    assert_eq!(committed(&mut cluster), Some(4));
    let (mut cluster, member) = with(Mutation::ZombieCommitAccepted);
    let zombie = Member { generation: 0, ..member };
    assert_eq!(commit(&mut cluster, &zombie, 5), None);
}
