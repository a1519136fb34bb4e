//! Offsets in transactions: TxnOffsetCommit, OffsetFetch, and what remains after a crash.

use std::time::Duration;

use bus_core::{ErrorKind, Offset};

use super::groups::{Member, group, stabilize};
use super::offsets::{commit, committed};
use super::transactions::{Producer, TIMEOUT, orders};
use super::{Cluster, response_of};
use crate::fact::{Fact, TransactionFact};
use crate::mutation::Mutation;
use crate::node::Name;
use crate::protocol::groups::DeleteGroupsRequest;
use crate::protocol::{Api, Request, add_offsets_to_txn, offset_commit, offset_fetch};
use crate::protocol::{topics::DeleteTopicsRequest, txn_offset_commit};

impl Producer {
    pub(super) fn add_offsets(&self, cluster: &mut Cluster) -> Option<ErrorKind> {
        let request = Request::AddOffsetsToTxn(add_offsets_to_txn::Request {
            transactional_id: Name::clone(&self.transactional_id),
            producer_id: self.id,
            producer_epoch: self.epoch,
            group_id: "billing".into(),
        });
        let connection = self.coordinator(cluster);
        response_of!(AddOffsetsToTxn, cluster.call(connection, request)).error
    }

    pub(super) fn offsets(&self, member: &Member, offset: Offset) -> txn_offset_commit::Request {
        txn_offset_commit::Request {
            transactional_id: Name::clone(&self.transactional_id),
            producer_id: self.id,
            producer_epoch: self.epoch,
            is_version_2: self.is_version_2,
            group_id: "billing".into(),
            generation: member.generation,
            member_id: Name::clone(&member.id),
            group_instance_id: member.instance.clone(),
            partitions: vec![offset_commit::PartitionRequest {
                topic_partition: orders(0),
                offset,
                leader_epoch: None,
                metadata: "".into(),
            }],
        }
    }

    /// Sends an offset to a group that is in the transaction.
    pub(super) fn send_offset(
        &self,
        cluster: &mut Cluster,
        member: &Member,
        offset: Offset,
    ) -> Option<ErrorKind> {
        let request = Request::TxnOffsetCommit(self.offsets(member, offset));
        let connection = cluster.connect(1);
        let response = cluster.call_patiently(connection, request);
        response_of!(TxnOffsetCommit, response).partitions[0].1
    }

    /// Adds the group, and sends an offset.
    pub(super) fn commit_offset(
        &self,
        cluster: &mut Cluster,
        member: &Member,
        offset: Offset,
    ) -> Option<ErrorKind> {
        let error = if self.is_version_2 { None } else { self.add_offsets(cluster) };
        error.or_else(|| self.send_offset(cluster, member, offset))
    }
}

/// Somebody who is no member.
pub(super) fn nobody(cluster: &mut Cluster) -> Member {
    Member {
        connection: cluster.connect(1),
        id: "".into(),
        instance: None,
        generation: -1,
        protocols: Vec::new(),
    }
}

pub(super) fn fetch_offset(
    cluster: &mut Cluster,
    require_stable: bool,
) -> Result<Option<Offset>, ErrorKind> {
    let request = Request::OffsetFetch(offset_fetch::Request {
        group_id: "billing".into(),
        partitions: Some(vec![orders(0)]),
        require_stable,
    });
    let connection = cluster.connect(1);
    let mut partitions = response_of!(OffsetFetch, cluster.call(connection, request)).result?;
    Ok(partitions.remove(0).result?.map(|committed| committed.offset))
}

#[test]
fn offsets_count_once_their_transaction_commits() {
    let (mut cluster, members) = group(1);
    let producer = Producer::new(&mut cluster, "app");
    for is_version_2 in [false, true] {
        let mut producer = Producer { is_version_2, ..producer.clone() };
        commit(&mut cluster, &members[0], 1);
        assert_eq!(producer.commit_offset(&mut cluster, &members[0], 5), None);
        assert_eq!(fetch_offset(&mut cluster, true), Err(ErrorKind::UnstableOffsetCommit));
        assert_eq!(fetch_offset(&mut cluster, false), Ok(Some(1)), "who does not ask is not told");
        producer.abort(&mut cluster);
        assert_eq!(fetch_offset(&mut cluster, true), Ok(Some(1)));
        assert_eq!(producer.commit_offset(&mut cluster, &members[0], 6), None);
        assert_eq!(producer.commit_offset(&mut cluster, &members[0], 7), None);
        producer.commit(&mut cluster);
        assert_eq!(fetch_offset(&mut cluster, true), Ok(Some(7)));
    }
}

/// KIP-447: the transaction of a member that was replaced does not count.
#[test]
fn only_a_member_of_this_generation_sends_offsets() {
    let (mut cluster, members) = group(1);
    let producer = Producer::new(&mut cluster, "app");
    producer.add_offsets(&mut cluster);
    let member = &members[0];
    for (zombie, error) in [
        (Member { generation: 0, ..member.clone() }, Some(ErrorKind::IllegalGeneration)),
        (Member { id: "nobody".into(), ..member.clone() }, Some(ErrorKind::UnknownMemberId)),
        (Member { instance: Some("x".into()), ..member.clone() }, Some(ErrorKind::UnknownMemberId)),
        (nobody(&mut cluster), None),
        (member.clone(), None),
    ] {
        assert_eq!(producer.send_offset(&mut cluster, &zombie, 5), error, "{zombie:?}");
    }
}

#[test]
fn a_static_member_that_was_replaced_is_fenced() {
    let mut cluster = Cluster::with_topic().0;
    let mut members = vec![Member::fixed(&mut cluster, "a")];
    stabilize(&mut cluster, &mut members);
    let old = members[0].clone();
    let mut new = Member::fixed(&mut cluster, "a");
    let asked = new.ask(&mut cluster);
    new.joined(&mut cluster, asked).unwrap();
    let producer = Producer::new(&mut cluster, "app");
    let error = producer.commit_offset(&mut cluster, &old, 5);
    assert_eq!(error, Some(ErrorKind::FencedInstanceId));
    assert_eq!(producer.commit_offset(&mut cluster, &new, 5), None);
}

#[test]
fn offsets_are_accepted_while_the_group_rebalances() {
    let (mut cluster, mut members) = group(1);
    let asked = members[0].ask(&mut cluster);
    members[0].joined(&mut cluster, asked).unwrap();
    assert_eq!(commit(&mut cluster, &members[0], 5), Some(ErrorKind::RebalanceInProgress));
    let producer = Producer::new(&mut cluster, "app");
    assert_eq!(producer.commit_offset(&mut cluster, &members[0], 5), None);
}

#[test]
fn a_group_must_be_in_the_transaction() {
    let (mut cluster, members) = group(1);
    let mut producer = Producer::new(&mut cluster, "app");
    let error = producer.send_offset(&mut cluster, &members[0], 5);
    assert_eq!(error, Some(ErrorKind::InvalidTxnState));
    producer.commit_offset(&mut cluster, &members[0], 5);
    producer.commit(&mut cluster);
    let error = producer.send_offset(&mut cluster, &members[0], 6);
    assert_eq!(error, Some(ErrorKind::InvalidTxnState), "that one is over");
    let mut zombie = producer.clone();
    producer.init(&mut cluster).unwrap();
    zombie.is_version_2 = true;
    let error = zombie.send_offset(&mut cluster, &members[0], 6);
    assert_eq!(error, Some(ErrorKind::InvalidProducerEpoch));
}

#[test]
fn offsets_of_a_transaction_that_hangs_are_dropped() {
    let (mut cluster, members) = group(1);
    let producer = Producer::new(&mut cluster, "app");
    producer.commit_offset(&mut cluster, &members[0], 5);
    cluster.advance(TIMEOUT + Duration::from_secs(1));
    assert_eq!(fetch_offset(&mut cluster, true), Ok(None));
    assert!(
        cluster
            .facts
            .iter()
            .any(|fact| matches!(fact, Fact::Transaction(TransactionFact::OffsetAborted { .. })))
    );
}

/// The new owner of a partition must not read the offset of before (KIP-447).
#[test]
fn an_offset_is_unstable_until_the_marker_is_there() {
    let (mut cluster, members) = group(1);
    let mut producer = Producer::new(&mut cluster, "app");
    producer.commit_offset(&mut cluster, &members[0], 5);
    cluster.hold(Api::WriteTxnMarkers);
    producer.commit(&mut cluster);
    assert_eq!(fetch_offset(&mut cluster, true), Err(ErrorKind::UnstableOffsetCommit));
    cluster.release();
    assert_eq!(fetch_offset(&mut cluster, true), Ok(Some(5)));
}

#[test]
fn the_last_commit_counts_in_a_transaction_or_not() {
    let (mut cluster, members) = group(1);
    let mut producer = Producer::new(&mut cluster, "app");
    producer.commit_offset(&mut cluster, &members[0], 5);
    commit(&mut cluster, &members[0], 3);
    producer.commit(&mut cluster);
    assert_eq!(committed(&mut cluster), Some(3), "written after the one of the transaction");
    producer.commit_offset(&mut cluster, &members[0], 7);
    producer.commit(&mut cluster);
    assert_eq!(committed(&mut cluster), Some(7));
}

#[test]
fn pending_offsets_survive_a_crash() {
    for is_commit in [true, false] {
        let (mut cluster, members) = group(1);
        let mut producer = Producer::new(&mut cluster, "app");
        commit(&mut cluster, &members[0], 1);
        producer.commit_offset(&mut cluster, &members[0], 5);
        cluster.crash(1);
        cluster.restart(1);
        assert_eq!(fetch_offset(&mut cluster, true), Err(ErrorKind::UnstableOffsetCommit));
        producer.end(&mut cluster, is_commit).unwrap();
        let expected = if is_commit { 5 } else { 1 };
        assert_eq!(fetch_offset(&mut cluster, true), Ok(Some(expected)));
        cluster.crash(1);
        cluster.restart(1);
        assert_eq!(fetch_offset(&mut cluster, true), Ok(Some(expected)));
    }
}

#[test]
fn pending_offsets_go_with_their_topic_and_their_group() {
    let (mut cluster, members) = group(1);
    let mut producer = Producer::new(&mut cluster, "app");
    producer.commit_offset(&mut cluster, &members[0], 5);
    members[0].leave(&mut cluster);
    let connection = cluster.connect(1);
    let request = DeleteGroupsRequest { groups: vec!["billing".into()] };
    let response = cluster.call(connection, Request::DeleteGroups(request));
    assert_eq!(response_of!(DeleteGroups, response).groups[0].1, None);
    producer.commit(&mut cluster);
    assert_eq!(fetch_offset(&mut cluster, true), Ok(None));
    let member = nobody(&mut cluster);
    producer.commit_offset(&mut cluster, &member, 6);
    let request = DeleteTopicsRequest { topics: vec!["orders".into()] };
    cluster.call(connection, Request::DeleteTopics(request));
    producer.commit(&mut cluster);
    assert_eq!(fetch_offset(&mut cluster, true), Ok(None));
}

#[test]
fn a_pending_offset_keeps_its_group() {
    let retention = Duration::from_hours(7 * 24);
    let broker = crate::config::BrokerConfig {
        transaction_max_timeout: retention * 2,
        transaction_abort_interval: retention * 2,
        ..Default::default()
    };
    let mut cluster = Cluster::with_orders(super::transactions::with_broker(broker), 1);
    let mut producer = Producer::new(&mut cluster, "app");
    let member = nobody(&mut cluster);
    assert_eq!(commit(&mut cluster, &member, 3), None);
    producer.commit_offset(&mut cluster, &member, 5);
    cluster.advance(retention + Duration::from_hours(1));
    assert_eq!(fetch_offset(&mut cluster, false), Ok(Some(3)), "it is about to change");
    producer.commit(&mut cluster);
    assert_eq!(fetch_offset(&mut cluster, true), Ok(Some(5)));
    cluster.advance(Duration::from_hours(1));
    assert_eq!(fetch_offset(&mut cluster, true), Ok(None));
}

#[test]
fn mutations_break_what_they_say() {
    let with = |mutation| {
        let config = crate::config::SimConfig { mutation: Some(mutation), ..Default::default() };
        let mut cluster = Cluster::with_orders(config, 1);
        let mut members = vec![Member::new(&mut cluster)];
        stabilize(&mut cluster, &mut members);
        let producer = Producer::new(&mut cluster, "app");
        (cluster, members.remove(0), producer)
    };
    let (mut cluster, member, mut producer) = with(Mutation::OffsetsBeforeCommit);
    producer.commit_offset(&mut cluster, &member, 5);
    producer.abort(&mut cluster);
    assert_eq!(fetch_offset(&mut cluster, true), Ok(Some(5)));
    let (mut cluster, member, producer) = with(Mutation::UnstableOffsetServed);
    producer.commit_offset(&mut cluster, &member, 5);
    assert_eq!(fetch_offset(&mut cluster, true), Ok(None));
    let (mut cluster, member, producer) = with(Mutation::TransactionOfOldGenerationAccepted);
    let zombie = Member { generation: 0, ..member };
    assert_eq!(producer.commit_offset(&mut cluster, &zombie, 5), None);
}
