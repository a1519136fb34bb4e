//! OffsetCommit, OffsetFetch, and the expiry of offsets.
//!
//! - A commit of a member is accepted in its own generation only, and not while the assignment is
//!   awaited; one without generation (-1) and member only while the group is empty.
//! - An offset expires `offsets.retention.minutes` after its group became empty; in a group that is
//!   in use, or that only stores offsets, after its commit, if nobody subscribes to its topic
//!   (KIP-211).
//!
//! Offsets in transactions are in `transactional`. Absent: OffsetDelete. See `docs/fidelity.md`.

use std::collections::BTreeSet;

use bus_core::{ErrorKind, Timestamp, Topic, TopicPartition};

use super::classic::{Group, State};
use super::record::{GroupRecord, OffsetValue};
use super::transactional::StoredOffset;
use super::{Shard, Then, Turn};
use crate::broker::BrokerTimer;
use crate::broker::connections::Caller;
use crate::fact::Fact;
use crate::mutation::Mutation;
use crate::node::Name;
use crate::protocol::offset_fetch::{self, CommittedOffset, PartitionResponse};
use crate::protocol::{Response, offset_commit};
use crate::time::SimTime;

impl Shard {
    /// Commits offsets; `known` says of each partition whether it exists.
    pub(super) fn commit(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        request: &offset_commit::Request,
        known: &[bool],
    ) {
        let checked = match self.groups.get_mut(&request.group_id) {
            Some(group) => group.check_commit(turn, request),
            None if request.generation < 0 => {
                self.watch_offsets(turn);
                Ok(())
            }
            None => Err(ErrorKind::GroupIdNotFound),
        };
        let rewind = i64::from(turn.config.mutation == Some(Mutation::CommitRewound));
        let is_mixed_up = turn.config.mutation == Some(Mutation::CommitMixedUp);
        let mut records = Vec::with_capacity(request.partitions.len());
        let mut partitions = Vec::with_capacity(request.partitions.len());
        for (partition, is_known) in request.partitions.iter().zip(known) {
            let refused = self.refused(turn, partition, *is_known, checked);
            let topic_partition = partition.topic_partition.clone();
            let group_id = Name::clone(&request.group_id);
            if refused.is_some() {
                let offset = partition.offset;
                turn.effects.fact(Fact::OffsetCommit {
                    group_id,
                    topic_partition: topic_partition.clone(),
                    offset,
                    refused,
                });
            } else {
                let mut value = OffsetValue::of(partition, turn.now.timestamp());
                value.offset = (value.offset - rewind).max(0);
                if is_mixed_up && let Some(last) = request.partitions.last() {
                    value.offset = last.offset;
                }
                let topic_partition = topic_partition.clone();
                let value = Some(value);
                records.push(GroupRecord::Offset { group_id, topic_partition, value });
            }
            partitions.push((topic_partition, refused));
        }
        if records.is_empty() && checked.is_ok() && known.contains(&true) {
            // The group exists from now on, even if nothing was committed.
            let id = &request.group_id;
            if !self.groups.contains_key(id) {
                let group = Group::new(Name::clone(id), turn.now);
                records.push(group.record_of_new());
                self.groups.insert(Name::clone(id), group);
            }
        }
        let response = Response::OffsetCommit(offset_commit::Response { partitions });
        turn.write(records, Then::Respond(caller, response));
    }

    /// Why the offset of a partition is not stored.
    pub(super) fn refused(
        &self,
        turn: &Turn<'_>,
        partition: &offset_commit::PartitionRequest,
        is_known: bool,
        checked: Result<(), ErrorKind>,
    ) -> Option<ErrorKind> {
        if !is_known {
            return Some(ErrorKind::UnknownTopicOrPartition);
        }
        let max = turn.config.broker.offset_metadata_max_bytes;
        // Java counts in UTF-16.
        let is_too_large = partition.metadata.encode_utf16().count() > max;
        checked.err().or_else(|| is_too_large.then_some(ErrorKind::OffsetMetadataTooLarge))
    }

    /// Reads committed offsets. One that a transaction is about to change is refused to those who
    /// want it stable.
    pub(super) fn fetch_offsets(
        &self,
        request: &offset_fetch::Request,
        mutation: Option<Mutation>,
    ) -> Vec<PartitionResponse> {
        let offsets = self.groups.get(&request.group_id).map(|group| &group.offsets);
        let wants_stable =
            request.require_stable && mutation != Some(Mutation::UnstableOffsetServed);
        let read = |partition: &TopicPartition, stored: Option<&StoredOffset>| {
            if wants_stable && self.is_unstable(&request.group_id, partition) {
                let result = Err(ErrorKind::UnstableOffsetCommit);
                return PartitionResponse { topic_partition: partition.clone(), result };
            }
            response(partition, stored)
        };
        match &request.partitions {
            None => offsets
                .into_iter()
                .flatten()
                .map(|(partition, stored)| read(partition, Some(stored)))
                .collect(),
            Some(partitions) => partitions
                .iter()
                .map(|partition| read(partition, offsets.and_then(|o| o.get(partition))))
                .collect(),
        }
    }

    /// Sees to it that expired offsets are looked for, at Kafka's interval from the start.
    pub(super) fn watch_offsets(&mut self, turn: &mut Turn<'_>) {
        if self.expires_offsets {
            return;
        }
        self.expires_offsets = true;
        let interval = turn.config.broker.offsets_retention_check_interval.as_nanos();
        let next = (u128::from(turn.now.as_nanos()) / interval.max(1) + 1) * interval;
        let next = SimTime::from_nanos(u64::try_from(next).unwrap_or(u64::MAX));
        turn.schedule(BrokerTimer::ExpireOffsets { partition: turn.partition }, next);
    }

    /// Removes expired offsets, and the groups that are empty without them.
    pub(in crate::broker) fn expire_offsets(&mut self, turn: &mut Turn<'_>) {
        self.expires_offsets = false;
        let mut records = Vec::new();
        for group in self.groups.values() {
            let expired = group.expired_offsets(turn);
            let is_bare = expired.len() == group.offsets.len() && group.pending_offsets.is_empty();
            records.extend(expired.into_iter().map(|partition| tombstone(&group.id, partition)));
            if is_bare && group.state == State::Empty {
                let group_id = Name::clone(&group.id);
                records.push(GroupRecord::Group { group_id, value: None });
            }
        }
        if !records.is_empty() {
            turn.write(records, Then::Nothing);
        }
        if !self.groups.is_empty() {
            self.watch_offsets(turn);
        }
    }

    /// Removes the offsets of a topic that is gone.
    pub(in crate::broker) fn forget_topic(&mut self, turn: &mut Turn<'_>, topic: &Topic) {
        let mut records = Vec::new();
        for group in self.groups.values() {
            let pending = group.pending_offsets.values().flat_map(|pending| pending.keys());
            let partitions: BTreeSet<_> = group.offsets.keys().chain(pending).collect();
            let gone = partitions.into_iter().filter(|partition| partition.topic == *topic);
            records.extend(gone.map(|partition| tombstone(&group.id, partition)));
        }
        if !records.is_empty() {
            turn.write(records, Then::Nothing);
        }
    }
}

impl Group {
    /// Checks who commits, and keeps its session alive.
    fn check_commit(
        &mut self,
        turn: &mut Turn<'_>,
        request: &offset_commit::Request,
    ) -> Result<(), ErrorKind> {
        if turn.config.mutation == Some(Mutation::ZombieCommitAccepted) {
            return Ok(());
        }
        if request.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        let instance = request.group_instance_id.as_ref();
        if request.generation < 0 && request.member_id.is_empty() && instance.is_none() {
            return Err(ErrorKind::UnknownMemberId);
        }
        self.check_member(&request.member_id, instance)?;
        if request.generation != self.generation {
            return Err(ErrorKind::IllegalGeneration);
        }
        match self.state {
            State::CompletingRebalance => return Err(ErrorKind::RebalanceInProgress),
            State::PreparingRebalance | State::Stable => {
                self.touch_member(turn, &request.member_id);
            }
            State::Empty => {}
        }
        Ok(())
    }

    /// The partitions whose offsets have expired.
    fn expired_offsets(&self, turn: &Turn<'_>) -> Vec<&TopicPartition> {
        let topics = self.subscribed_topics();
        let is_simple = self.protocol_type.is_none();
        let from_empty = !is_simple && self.state == State::Empty;
        let is_watched =
            from_empty || is_simple || (self.state == State::Stable && topics.is_some());
        if !is_watched {
            return Vec::new();
        }
        let retention = turn.config.broker.offsets_retention.as_millis();
        let now = turn.now.timestamp().as_millis();
        let is_expired = |value: &OffsetValue| {
            let base = if from_empty { self.since } else { value.committed };
            u128::try_from(now - base.as_millis()).is_ok_and(|age| age >= retention)
        };
        let is_free = |partition: &TopicPartition| {
            topics.as_ref().is_none_or(|topics| !topics.contains(&partition.topic))
        };
        self.offsets
            .iter()
            .filter(|(partition, stored)| is_free(partition) && is_expired(&stored.value))
            .filter(|(partition, _)| !self.is_pending(partition))
            .map(|(partition, _)| partition)
            .collect()
    }
}

/// The record that removes an offset.
pub(super) fn tombstone(group_id: &Name, topic_partition: &TopicPartition) -> GroupRecord {
    let topic_partition = topic_partition.clone();
    GroupRecord::Offset { group_id: Name::clone(group_id), topic_partition, value: None }
}

impl OffsetValue {
    /// What a request says of a partition.
    pub(super) fn of(partition: &offset_commit::PartitionRequest, now: Timestamp) -> Self {
        Self {
            offset: partition.offset,
            leader_epoch: partition.leader_epoch,
            metadata: Name::clone(&partition.metadata),
            committed: now,
        }
    }
}

fn response(partition: &TopicPartition, stored: Option<&StoredOffset>) -> PartitionResponse {
    let committed = stored.map(|StoredOffset { value, .. }| CommittedOffset {
        offset: value.offset,
        leader_epoch: value.leader_epoch,
        metadata: Name::clone(&value.metadata),
    });
    PartitionResponse { topic_partition: partition.clone(), result: Ok(committed) }
}
