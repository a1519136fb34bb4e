//! Offsets in transactions: TxnOffsetCommit, and what its marker makes of them (KIP-98, KIP-447;
//! Kafka's `OffsetMetadataManager`).
//!
//! - A member is checked by its id, static id, and generation, whatever the group does; a producer
//!   that names no member is believed.
//! - Until the marker comes, the offsets are pending: a commit makes them count, unless one that
//!   was written later counts already; an abort drops them.
//! - An offset that is pending does not expire, and its group stays.

use std::collections::BTreeMap;

use bus_core::{ErrorKind, Offset, Partition, TopicPartition};

use super::classic::{Group, State};
use super::record::{GroupRecord, OffsetValue};
use super::{InTransaction, Shard, Then, Turn, Write};
use crate::broker::Broker;
use crate::broker::connections::Caller;
use crate::broker::produce::producer_rules;
use crate::broker::transaction::guard::Guard;
use crate::fact::{Fact, TransactionFact};
use crate::mutation::Mutation;
use crate::node::{Effects, Name};
use crate::protocol::batch::{ControlRecord, ProducerId};
use crate::protocol::write_txn_markers::Marker;
use crate::protocol::{Response, txn_offset_commit};
use crate::time::SimTime;

/// An offset at its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct StoredOffset {
    pub(in crate::broker) value: OffsetValue,
    /// The offset of its record.
    pub(in crate::broker) recorded: Offset,
}

/// The offsets that transactions are about to commit, by producer.
pub(in crate::broker) type PendingOffsets =
    BTreeMap<ProducerId, BTreeMap<TopicPartition, StoredOffset>>;

impl Broker {
    /// The shard that a TxnOffsetCommit goes to.
    pub(in crate::broker) fn check_txn_offset_commit(
        &self,
        request: &txn_offset_commit::Request,
    ) -> Result<Partition, ErrorKind> {
        self.shard_of_named(&request.group_id)
    }

    /// Stores offsets for a transaction; `guard` is what its verification came to, `None` if it is
    /// open already.
    pub(in crate::broker) fn commit_in_transaction(
        &mut self,
        now: SimTime,
        caller: Caller,
        request: txn_offset_commit::Request,
        guard: Result<Option<Guard>, ErrorKind>,
        effects: &mut Effects,
    ) {
        let checked = self.check_txn_offset_commit(&request).and_then(|partition| {
            let guard = guard.map_err(known_to_producers)?;
            let topic_partition = TopicPartition::new(&self.offsets_topic, partition);
            let replica = self.replicas.get(&topic_partition).ok_or(ErrorKind::NotCoordinator)?;
            let producers = replica.producers().ok_or(ErrorKind::NotCoordinator)?;
            let producer = (request.producer_id, request.producer_epoch);
            let verdict =
                producers.check_transactional(producer, guard, producer_rules(&self.config));
            Ok((partition, verdict))
        });
        let known: Vec<bool> = request
            .partitions
            .iter()
            .map(|partition| self.image.partition(&partition.topic_partition).is_some())
            .collect();
        match checked {
            Ok((partition, verdict)) => self.with_shard(now, partition, effects, |shard, turn| {
                shard.commit_in_transaction(turn, caller, &request, &known, verdict);
            }),
            Err(error) => self.refuse_txn_offset_commit(caller, request, error, effects),
        }
    }

    pub(in crate::broker) fn refuse_txn_offset_commit(
        &mut self,
        caller: Caller,
        request: txn_offset_commit::Request,
        error: ErrorKind,
        effects: &mut Effects,
    ) {
        let partitions = request.partitions.into_iter();
        let partitions = partitions.map(|p| (p.topic_partition, Some(error))).collect();
        let response = Response::TxnOffsetCommit(txn_offset_commit::Response { partitions });
        self.connections.respond(caller, response, effects);
    }
}

impl Shard {
    /// Whether it knows its groups.
    pub(in crate::broker) const fn is_ready(&self) -> bool {
        !self.is_loading
    }

    fn commit_in_transaction(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        request: &txn_offset_commit::Request,
        known: &[bool],
        verdict: Result<(), ErrorKind>,
    ) {
        let is_unchecked =
            turn.config.mutation == Some(Mutation::TransactionOfOldGenerationAccepted);
        let checked = match self.groups.get(&request.group_id) {
            _ if is_unchecked => Ok(()),
            Some(group) => group.check_transactional(request),
            None if request.generation < 0 => Ok(()),
            None => Err(ErrorKind::IllegalGeneration),
        };
        let checked = checked.and(verdict);
        let mut records = Vec::with_capacity(request.partitions.len());
        let mut partitions = Vec::with_capacity(request.partitions.len());
        for (partition, is_known) in request.partitions.iter().zip(known) {
            let topic_partition = partition.topic_partition.clone();
            let refused = self.refused(turn, partition, *is_known, checked);
            if refused.is_none() {
                records.push(GroupRecord::Offset {
                    group_id: Name::clone(&request.group_id),
                    topic_partition: topic_partition.clone(),
                    value: Some(OffsetValue::of(partition, turn.now.timestamp())),
                });
            }
            partitions.push((topic_partition, refused));
        }
        let is_outside = turn.config.mutation == Some(Mutation::OffsetsBeforeCommit);
        let producer = (request.producer_id, request.producer_epoch);
        let transaction = (!is_outside).then_some(InTransaction::Offsets(producer));
        let response = Response::TxnOffsetCommit(txn_offset_commit::Response { partitions });
        let then = Then::Respond(caller, response);
        self.watch_offsets(turn);
        turn.writes.push(Write { records, transaction, then });
    }

    /// Writes the end of a transaction.
    pub(in crate::broker) fn write_marker(&mut self, turn: &mut Turn<'_>, mut marker: Marker) {
        if turn.config.mutation == Some(Mutation::AbortedOffsetsCount) {
            marker.control = ControlRecord::Commit;
        }
        let transaction = Some(InTransaction::End(marker));
        turn.writes.push(Write { records: Vec::new(), transaction, then: Then::Nothing });
    }

    /// Learns an offset that a transaction is about to commit.
    pub(super) fn replay_pending(
        &mut self,
        now: SimTime,
        producer_id: ProducerId,
        recorded: Offset,
        record: GroupRecord,
    ) {
        let GroupRecord::Offset { group_id, topic_partition, value: Some(value) } = record else {
            return;
        };
        let new = || Group::new(Name::clone(&group_id), now);
        let group = self.groups.entry(Name::clone(&group_id)).or_insert_with(new);
        let pending = group.pending_offsets.entry(producer_id).or_default();
        pending.insert(topic_partition, StoredOffset { value, recorded });
    }

    /// Learns the end of a transaction, and returns what it made of each offset.
    pub(super) fn replay_end(
        &mut self,
        producer_id: ProducerId,
        control: ControlRecord,
    ) -> Vec<Fact> {
        let mut facts = Vec::new();
        for group in self.groups.values_mut() {
            let Some(pending) = group.pending_offsets.remove(&producer_id) else { continue };
            for (topic_partition, stored) in pending {
                let group_id = Name::clone(&group.id);
                let known = group.offsets.get(&topic_partition);
                match control {
                    ControlRecord::Abort => {
                        let fact = TransactionFact::OffsetAborted {
                            group_id,
                            topic_partition,
                            producer_id,
                        };
                        facts.push(fact.into());
                    }
                    ControlRecord::Commit
                        if known.is_none_or(|known| known.recorded < stored.recorded) =>
                    {
                        let offset = stored.value.offset;
                        group.offsets.insert(topic_partition.clone(), stored);
                        let refused = None;
                        let fact =
                            Fact::OffsetCommit { group_id, topic_partition, offset, refused };
                        facts.push(fact);
                    }
                    ControlRecord::Commit => {}
                }
            }
        }
        facts
    }

    /// Whether a transaction is about to change an offset: also one whose record is not replicated,
    /// as it may have been accepted already.
    pub(super) fn is_unstable(&self, group_id: &Name, partition: &TopicPartition) -> bool {
        let is_pending = self.groups.get(group_id).is_some_and(|group| group.is_pending(partition));
        is_pending
            || self.uncommitted.iter().any(|pending| {
                let is_of = |record: &GroupRecord| {
                    matches!(record, GroupRecord::Offset { group_id: group, topic_partition, .. }
                        if group == group_id && topic_partition == partition)
                };
                matches!(pending.write.transaction, Some(InTransaction::Offsets(_)))
                    && pending.write.records.iter().any(is_of)
            })
    }
}

impl Group {
    /// Whether a transaction is about to commit an offset for a partition.
    pub(super) fn is_pending(&self, partition: &TopicPartition) -> bool {
        self.pending_offsets.values().any(|pending| pending.contains_key(partition))
    }

    /// Checks who commits.
    fn check_transactional(&self, request: &txn_offset_commit::Request) -> Result<(), ErrorKind> {
        let instance = request.group_instance_id.as_ref();
        let is_named = request.generation >= 0 || !request.member_id.is_empty();
        if request.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if !is_named && instance.is_none() {
            return Ok(());
        }
        self.check_member(&request.member_id, instance)?;
        if request.generation == self.generation {
            Ok(())
        } else {
            Err(ErrorKind::IllegalGeneration)
        }
    }
}

/// Makes an error of the verification one that producers try again.
const fn known_to_producers(error: ErrorKind) -> ErrorKind {
    match error {
        ErrorKind::NetworkException => ErrorKind::CoordinatorLoadInProgress,
        ErrorKind::UnknownTopicOrPartition | ErrorKind::NotEnoughReplicas => {
            ErrorKind::CoordinatorNotAvailable
        }
        ErrorKind::NotLeaderOrFollower => ErrorKind::NotCoordinator,
        error => error,
    }
}
