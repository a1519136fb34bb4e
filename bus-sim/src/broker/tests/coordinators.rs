//! Group coordinators on replicated partitions: what they wrote counts once it is replicated, and
//! the next one knows it.

use std::time::Duration;

use bus_core::{ErrorKind, Offset};

use super::groups::Member;
use super::offsets::{commit_request, committed_in, fetch_request};
use super::{Cluster, response_of};
use crate::config::{BrokerConfig, SimConfig};
use crate::mutation::Mutation;
use crate::node::{BrokerId, ConnectionId};
use crate::protocol::{Request, Response, find_coordinator, offset_commit};

/// Three brokers, a topic, and who coordinates the group.
fn cluster(broker: BrokerConfig) -> (Cluster, BrokerId) {
    cluster_of(SimConfig { brokers: 3, broker, ..Default::default() })
}

fn cluster_of(config: SimConfig) -> (Cluster, BrokerId) {
    let mut cluster = Cluster::new(config);
    let connection = cluster.connect(1);
    cluster.create_topic(connection, "orders", 1, &[]);
    cluster.advance(Duration::from_secs(1));
    let coordinator = coordinator(&mut cluster, 1).unwrap();
    (cluster, coordinator)
}

/// Who coordinates the group, as a broker knows it.
fn coordinator(cluster: &mut Cluster, broker: BrokerId) -> Result<BrokerId, ErrorKind> {
    let connection = cluster.connect(broker);
    let request = Request::FindCoordinator(find_coordinator::Request {
        coordinator_type: find_coordinator::CoordinatorType::Group,
        key: "billing".into(),
    });
    response_of!(FindCoordinator, cluster.call(connection, request)).result
}

fn member(cluster: &mut Cluster, broker: BrokerId) -> Member {
    let connection = cluster.connect(broker);
    Member { connection, ..Member::new(cluster) }
}

/// A client that only stores offsets.
fn simple(connection: ConnectionId) -> Member {
    Member { connection, id: "".into(), instance: None, generation: -1, protocols: Vec::new() }
}

fn commit(cluster: &mut Cluster, broker: BrokerId, offset: Offset) -> (ConnectionId, u32) {
    let connection = cluster.connect(broker);
    let request = commit_request(&simple(connection), "orders", offset, "");
    (connection, cluster.send(connection, request))
}

fn answer(cluster: &mut Cluster, sent: (ConnectionId, u32)) -> Option<Option<ErrorKind>> {
    let Response::OffsetCommit(offset_commit::Response { partitions }) =
        cluster.take(sent.0, sent.1)?
    else {
        panic!("a commit is answered");
    };
    Some(partitions[0].1)
}

fn committed(cluster: &mut Cluster, broker: BrokerId) -> Result<Option<Offset>, ErrorKind> {
    let connection = cluster.connect(broker);
    committed_in(response_of!(OffsetFetch, cluster.call(connection, fetch_request(false))))
}

/// The brokers beside this one.
fn others(broker: BrokerId) -> [BrokerId; 2] {
    match broker {
        1 => [2, 3],
        2 => [1, 3],
        _ => [1, 2],
    }
}

#[test]
fn a_commit_counts_once_it_is_replicated() {
    let (mut cluster, broker) = cluster(BrokerConfig::default());
    let sent = commit(&mut cluster, broker, 5);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(answer(&mut cluster, sent), Some(None));
    // Without followers it waits until they are out of sync.
    others(broker).into_iter().for_each(|other| cluster.crash(other));
    let sent = commit(&mut cluster, broker, 6);
    let connection = cluster.connect(broker);
    let fetch = cluster.send(connection, fetch_request(true));
    cluster.advance(Duration::from_secs(1));
    assert_eq!(answer(&mut cluster, sent), None);
    assert_eq!(committed(&mut cluster, broker), Ok(Some(5)));
    assert!(cluster.take(connection, fetch).is_none(), "who wants it stable waits");
    cluster.advance(Duration::from_secs(3));
    assert_eq!(answer(&mut cluster, sent), Some(None));
    assert_eq!(committed(&mut cluster, broker), Ok(Some(6)));
    let response = cluster.take(connection, fetch).expect("an answer");
    assert_eq!(committed_in(response_of!(OffsetFetch, response)), Ok(Some(6)));
}

#[test]
fn a_planted_bug_answers_before_a_commit_is_replicated() {
    let mutation = Some(Mutation::CommitAckedBeforeReplicated);
    let (mut cluster, broker) =
        cluster_of(SimConfig { brokers: 3, mutation, ..Default::default() });
    others(broker).into_iter().for_each(|other| cluster.crash(other));
    let sent = commit(&mut cluster, broker, 5);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(answer(&mut cluster, sent), Some(None), "nobody else has it");
}

#[test]
fn a_commit_that_takes_too_long_is_refused_and_may_count_later() {
    let config =
        BrokerConfig { offsets_commit_timeout: Duration::from_secs(1), ..Default::default() };
    let (mut cluster, broker) = cluster(config);
    others(broker).into_iter().for_each(|other| cluster.crash(other));
    let sent = commit(&mut cluster, broker, 5);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(answer(&mut cluster, sent), Some(Some(ErrorKind::CoordinatorNotAvailable)));
    assert_eq!(committed(&mut cluster, broker), Ok(None));
    cluster.advance(Duration::from_secs(4));
    assert_eq!(committed(&mut cluster, broker), Ok(Some(5)));
}

#[test]
fn the_next_coordinator_knows_the_group() {
    let (mut cluster, broker) = cluster(BrokerConfig::default());
    let mut members = [member(&mut cluster, broker)];
    let asked = members[0].ask_with_id(&mut cluster);
    cluster.advance(Duration::from_secs(1));
    members[0].joined(&mut cluster, asked).unwrap();
    let id = members[0].id.clone();
    let synced = members[0].sync(&mut cluster, &[(&id, "orders-0")]);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(members[0].synced(&mut cluster, synced).unwrap(), "orders-0");
    let request = commit_request(&members[0], "orders", 7, "");
    let sent = (members[0].connection, cluster.send(members[0].connection, request));
    cluster.advance(Duration::from_secs(1));
    assert_eq!(answer(&mut cluster, sent), Some(None));
    cluster.crash(broker);
    let [other, _] = others(broker);
    assert_eq!(coordinator(&mut cluster, other), Ok(broker), "nobody knows yet");
    cluster.advance(Duration::from_secs(5));
    let next = coordinator(&mut cluster, other).unwrap();
    assert_ne!(next, broker);
    assert_eq!(committed(&mut cluster, next), Ok(Some(7)));
    members[0].connection = cluster.connect(next);
    assert_eq!(members[0].heartbeat(&mut cluster), None);
    // The old one comes back, and leads again once it is preferred.
    cluster.restart(broker);
    cluster.advance(Duration::from_mins(5));
    assert_eq!(coordinator(&mut cluster, other), Ok(broker));
    assert_eq!(committed(&mut cluster, broker), Ok(Some(7)));
    assert_eq!(committed(&mut cluster, next), Err(ErrorKind::NotCoordinator));
}

#[test]
fn what_waits_at_a_coordinator_that_shuts_down_looks_for_the_next() {
    let (mut cluster, broker) = cluster(BrokerConfig::default());
    let mut members = [member(&mut cluster, broker), member(&mut cluster, broker)];
    stabilize_on(&mut cluster, &mut members[..1]);
    // The second waits for the first to join again.
    let asked = members[1].ask_with_id(&mut cluster);
    assert!(cluster.take(members[1].connection, asked).is_none());
    cluster.shut_down(broker);
    let error = members[1].joined(&mut cluster, asked).unwrap_err();
    assert_eq!(error, ErrorKind::NotCoordinator);
}

/// As `stabilize`, where writes need time.
fn stabilize_on(cluster: &mut Cluster, members: &mut [Member]) {
    let asked: Vec<_> = members.iter_mut().map(|member| member.ask_with_id(cluster)).collect();
    cluster.advance(Duration::from_millis(600));
    for (member, asked) in members.iter_mut().zip(asked) {
        member.joined(cluster, asked).unwrap();
        let id = member.id.clone();
        let synced = member.sync(cluster, &[(&id, "orders-0")]);
        cluster.advance(Duration::from_millis(600));
        member.synced(cluster, synced).unwrap();
    }
}
