//! The broker around its shards: which one a request goes to, appending what they write, loading.

use std::sync::Arc;
use std::time::Duration;

use bus_core::{ErrorKind, Offset, Partition, Topic, TopicPartition};

use super::record::GroupRecord;
use super::{InTransaction, Shard, Then, Turn, Write};
use crate::broker::connections::Caller;
use crate::broker::session::schedule;
use crate::broker::{Broker, BrokerTimer};
use crate::fact::{Fact, TransactionFact};
use crate::node::{Effects, Name, Timer};
use crate::protocol::batch::StoredBatch;
use crate::protocol::{
    Response, heartbeat, join_group, leave_group, offset_commit, offset_fetch, sync_group,
};
use crate::time::SimTime;

impl Broker {
    pub(in crate::broker) fn join_group(
        &mut self,
        now: SimTime,
        caller: Caller,
        request: join_group::Request,
        effects: &mut Effects,
    ) {
        let limits = &self.config.broker;
        let sessions = limits.group_min_session_timeout..=limits.group_max_session_timeout;
        let found = if request.group_id.is_empty() {
            Err(ErrorKind::InvalidGroupId)
        } else if !sessions.contains(&request.session_timeout) {
            Err(ErrorKind::InvalidSessionTimeout)
        } else {
            self.shard_of(&request.group_id)
        };
        match found {
            Ok(partition) => self.with_shard(now, partition, effects, |shard, turn| {
                shard.join(turn, caller, request);
            }),
            Err(error) => {
                let response =
                    join_group::Response { result: Err(error), member_id: request.member_id };
                self.connections.respond(caller, Response::JoinGroup(response), effects);
            }
        }
    }

    pub(in crate::broker) fn sync_group(
        &mut self,
        now: SimTime,
        caller: Caller,
        request: sync_group::Request,
        effects: &mut Effects,
    ) {
        match self.shard_of_named(&request.group_id) {
            Ok(partition) => self.with_shard(now, partition, effects, |shard, turn| {
                shard.sync(turn, caller, request);
            }),
            Err(error) => {
                let response = sync_group::Response { result: Err(error) };
                self.connections.respond(caller, Response::SyncGroup(response), effects);
            }
        }
    }

    pub(in crate::broker) fn heartbeat(
        &mut self,
        now: SimTime,
        caller: Caller,
        request: &heartbeat::Request,
        effects: &mut Effects,
    ) {
        match self.shard_of_named(&request.group_id) {
            Ok(partition) => self.with_shard(now, partition, effects, |shard, turn| {
                shard.heartbeat(turn, caller, request);
            }),
            Err(error) => {
                // While it loads, Kafka answers blindly.
                let error = Some(error).filter(|e| *e != ErrorKind::CoordinatorLoadInProgress);
                let response = Response::Heartbeat(heartbeat::Response { error });
                self.connections.respond(caller, response, effects);
            }
        }
    }

    pub(in crate::broker) fn leave_group(
        &mut self,
        now: SimTime,
        caller: Caller,
        request: &leave_group::Request,
        effects: &mut Effects,
    ) {
        match self.shard_of_named(&request.group_id) {
            Ok(partition) => self.with_shard(now, partition, effects, |shard, turn| {
                shard.leave(turn, caller, request);
            }),
            Err(error) => {
                let response = Response::LeaveGroup(leave_group::Response { error: Some(error) });
                self.connections.respond(caller, response, effects);
            }
        }
    }

    pub(in crate::broker) fn offset_commit(
        &mut self,
        now: SimTime,
        caller: Caller,
        request: offset_commit::Request,
        effects: &mut Effects,
    ) {
        let known: Vec<bool> = request
            .partitions
            .iter()
            .map(|partition| self.image.partition(&partition.topic_partition).is_some())
            .collect();
        match self.shard_of(&request.group_id) {
            Ok(partition) => self.with_shard(now, partition, effects, |shard, turn| {
                shard.commit(turn, caller, &request, &known);
            }),
            Err(error) => {
                let partitions = request.partitions.into_iter();
                let partitions = partitions.map(|p| (p.topic_partition, Some(error))).collect();
                let response = Response::OffsetCommit(offset_commit::Response { partitions });
                self.connections.respond(caller, response, effects);
            }
        }
    }

    pub(in crate::broker) fn offset_fetch(
        &mut self,
        caller: Caller,
        request: offset_fetch::Request,
        effects: &mut Effects,
    ) {
        let result = self
            .shard_of(&request.group_id)
            .map(|partition| self.shards[&partition].fetch_offsets(&request, self.config.mutation));
        let response = Response::OffsetFetch(offset_fetch::Response { result });
        self.connections.respond(caller, response, effects);
    }

    /// The shard of a group, which must have a name.
    pub(super) fn shard_of_named(&self, group_id: &str) -> Result<Partition, ErrorKind> {
        if group_id.is_empty() { Err(ErrorKind::InvalidGroupId) } else { self.shard_of(group_id) }
    }

    /// The shard of a group, if it is here and ready.
    pub(super) fn shard_of(&self, group_id: &str) -> Result<Partition, ErrorKind> {
        let (partition, _) = self.coordinator_partition(group_id)?;
        match self.shards.get(&partition) {
            None => Err(ErrorKind::NotCoordinator),
            Some(shard) if shard.is_loading => Err(ErrorKind::CoordinatorLoadInProgress),
            Some(_) => Ok(partition),
        }
    }

    /// Runs a handler on the shard of a group, if it is here and ready.
    pub(in crate::broker) fn with_group(
        &mut self,
        now: SimTime,
        group_id: &str,
        effects: &mut Effects,
        handler: impl FnOnce(&mut Shard, &mut Turn<'_>),
    ) {
        if let Ok(partition) = self.shard_of(group_id) {
            self.with_shard(now, partition, effects, handler);
        }
    }

    /// Runs a handler on a shard, and appends what it writes.
    pub(in crate::broker) fn with_shard(
        &mut self,
        now: SimTime,
        partition: Partition,
        effects: &mut Effects,
        handler: impl FnOnce(&mut Shard, &mut Turn<'_>),
    ) {
        let Some(shard) = self.shards.get_mut(&partition) else { return };
        let config = &self.config;
        let connections = &mut self.connections;
        let mut turn = Turn { now, partition, config, connections, effects, writes: Vec::new() };
        handler(shard, &mut turn);
        let writes = turn.writes;
        if !writes.is_empty() {
            self.append_writes(now, partition, writes, effects);
        }
    }

    /// Appends what a shard wrote, and goes on with what is below the high watermark.
    fn append_writes(
        &mut self,
        now: SimTime,
        partition: Partition,
        writes: Vec<Write>,
        effects: &mut Effects,
    ) {
        let topic_partition = TopicPartition::new(&self.offsets_topic, partition);
        let Some(replica) = self.replicas.get_mut(&topic_partition) else { return };
        let Some(shard) = self.shards.get_mut(&partition) else { return };
        for write in writes {
            if let Some(batch) = write.batch(now.timestamp()) {
                let batch = Arc::new(batch);
                let (base_offset, _) = replica.append_unchecked(now, Arc::clone(&batch));
                effects.fact(Fact::Appended {
                    broker: self.id,
                    topic_partition: topic_partition.clone(),
                    base_offset,
                    count: u32::try_from(batch.records.len()).unwrap_or(u32::MAX),
                    digest: batch.digest,
                });
            }
            shard.uncommitted.push_back((replica.log.end(), write));
        }
        self.commit_writes(now, partition, effects);
        self.partition_grew(&topic_partition, effects);
    }

    /// Replays what is below the high watermark, and does what follows it.
    pub(in crate::broker) fn commit_writes(
        &mut self,
        now: SimTime,
        partition: Partition,
        effects: &mut Effects,
    ) {
        let topic_partition = TopicPartition::new(&self.offsets_topic, partition);
        let high_watermark =
            self.replicas.get(&topic_partition).map_or(0, |replica| replica.high_watermark());
        while let Some(shard) = self.shards.get_mut(&partition)
            && let Some((end, write)) =
                shard.uncommitted.pop_front_if(|(end, _)| *end <= high_watermark)
        {
            let first = end - Offset::try_from(write.records.len()).unwrap_or(0);
            for (recorded, record) in (first..).zip(write.records) {
                tell_offset(&record, write.transaction.as_ref(), effects);
                match &write.transaction {
                    Some(InTransaction::Offsets((producer_id, _))) => {
                        shard.replay_pending(now, *producer_id, recorded, record);
                    }
                    _ => shard.replay(now, recorded, record),
                }
            }
            if let Some(InTransaction::End(marker)) = write.transaction {
                let facts = shard.replay_end(marker.producer_id, marker.control);
                facts.into_iter().for_each(|fact| effects.fact(fact));
            }
            match write.then {
                Then::Nothing => {}
                Then::Respond(caller, response) => {
                    self.connections.respond(caller, response, effects);
                }
                Then::Assigned { group_id, generation } => {
                    self.with_shard(now, partition, effects, |shard, turn| {
                        shard.assigned(turn, &group_id, generation);
                    });
                }
                Then::StaticRejoined { group_id, member_id } => {
                    self.with_shard(now, partition, effects, |shard, turn| {
                        shard.static_rejoined(turn, &group_id, &member_id);
                    });
                }
                Then::Deleted(caller) => self.deleted(caller, effects),
            }
        }
    }

    /// Becomes or stops being the coordinator of a partition.
    pub(in crate::broker) fn follow_coordinator(
        &mut self,
        now: SimTime,
        partition: Partition,
        is_new: bool,
        has_lead: bool,
        effects: &mut Effects,
    ) {
        if !has_lead || is_new {
            self.unload_coordinator(partition, effects);
        }
        if !is_new {
            return;
        }
        let topic_partition = TopicPartition::new(&self.offsets_topic, partition);
        let records = self.replicas[&topic_partition].log.record_count();
        let is_loading = records > 0;
        self.shards.insert(partition, Shard { is_loading, ..Shard::default() });
        if is_loading {
            let records = u32::try_from(records).unwrap_or(u32::MAX);
            let at = now + LOAD_TIME + LOAD_TIME_PER_RECORD * records;
            schedule(BrokerTimer::LoadCoordinator { partition }, at, effects);
        }
    }

    /// Replays the partition of a coordinator.
    pub(in crate::broker) fn load_coordinator(
        &mut self,
        now: SimTime,
        partition: Partition,
        effects: &mut Effects,
    ) {
        let topic_partition = TopicPartition::new(&self.offsets_topic, partition);
        let Some(replica) = self.replicas.get(&topic_partition) else { return };
        let Some(shard) = self.shards.get_mut(&partition).filter(|shard| shard.is_loading) else {
            return;
        };
        for stored in replica.log.batches() {
            shard.load(now, stored);
        }
        shard.is_loading = false;
        let records = replica.log.record_count();
        effects.fact(Fact::CoordinatorLoaded { broker: self.id, topic_partition, records });
        self.with_shard(now, partition, effects, Shard::loaded);
    }

    /// Stops being the coordinator of a partition: what waits there shall look for the new one.
    fn unload_coordinator(&mut self, partition: Partition, effects: &mut Effects) {
        let Some(shard) = self.shards.remove(&partition) else { return };
        for (_, write) in shard.uncommitted {
            match write.then {
                Then::Respond(caller, response) => {
                    self.connections.respond(caller, not_coordinator(response), effects);
                }
                Then::Deleted(caller) => self.not_deleted(caller, effects),
                // Those who wait for a rebalance are answered below.
                Then::Nothing | Then::Assigned { .. } | Then::StaticRejoined { .. } => {}
            }
        }
        for (group_id, group) in shard.groups {
            for mut member in group.members.into_values() {
                let error = ErrorKind::NotCoordinator;
                if let Some(caller) = member.awaiting_join.take() {
                    let member_id = Name::clone(&member.id);
                    let response = join_group::Response { result: Err(error), member_id };
                    self.connections.respond(caller, Response::JoinGroup(response), effects);
                }
                if let Some(caller) = member.awaiting_sync.take() {
                    let response = sync_group::Response { result: Err(error) };
                    self.connections.respond(caller, Response::SyncGroup(response), effects);
                }
                let timer = BrokerTimer::MemberSession {
                    group_id: Name::clone(&group_id),
                    member_id: member.id,
                };
                effects.cancel_timer(Timer::Broker(timer));
            }
            let join = BrokerTimer::Join { group_id: Name::clone(&group_id) };
            effects.cancel_timer(Timer::Broker(join));
            effects.cancel_timer(Timer::Broker(BrokerTimer::Sync { group_id }));
        }
        effects.cancel_timer(Timer::Broker(BrokerTimer::ExpireOffsets { partition }));
        effects.cancel_timer(Timer::Broker(BrokerTimer::LoadCoordinator { partition }));
    }

    /// Removes the offsets that groups committed in a topic that is gone.
    pub(in crate::broker) fn forget_offsets(
        &mut self,
        now: SimTime,
        topic: &Topic,
        effects: &mut Effects,
    ) {
        let partitions: Vec<_> = self.shards.keys().copied().collect();
        for partition in partitions {
            self.with_shard(now, partition, effects, |shard, turn| {
                shard.forget_topic(turn, topic);
            });
        }
    }
}

impl Shard {
    /// Replays a batch while the coordinator loads.
    fn load(&mut self, now: SimTime, stored: &StoredBatch) {
        let StoredBatch { base_offset, batch, .. } = stored;
        let producer_id = batch.producer.map(|producer| producer.producer_id);
        if let (Some(control), Some(producer_id)) = (batch.control, producer_id) {
            self.replay_end(producer_id, control);
            return;
        }
        let records = (*base_offset..).zip(batch.records.iter());
        for (recorded, record) in records {
            let Some(record) = GroupRecord::decode(record) else { continue };
            match producer_id.filter(|_| batch.is_transactional) {
                Some(producer_id) => self.replay_pending(now, producer_id, recorded, record),
                None => self.replay(now, recorded, record),
            }
        }
    }
}

/// Makes an answer that waited for records one that says that they may be gone.
fn not_coordinator(mut response: Response) -> Response {
    let partitions = match &mut response {
        Response::OffsetCommit(response) => &mut response.partitions,
        Response::TxnOffsetCommit(response) => &mut response.partitions,
        _ => return response,
    };
    partitions.iter_mut().for_each(|(_, error)| *error = Some(ErrorKind::NotCoordinator));
    response
}

/// Tells the trace of an offset that is committed, pending, or removed.
fn tell_offset(record: &GroupRecord, transaction: Option<&InTransaction>, effects: &mut Effects) {
    let GroupRecord::Offset { group_id, topic_partition, value } = record else { return };
    let (group_id, topic_partition) = (Name::clone(group_id), topic_partition.clone());
    let offset = value.as_ref().map(|value| value.offset);
    effects.fact(match (offset, transaction) {
        (Some(offset), Some(InTransaction::Offsets((producer_id, _)))) => {
            let producer_id = *producer_id;
            TransactionFact::OffsetPending { group_id, topic_partition, offset, producer_id }.into()
        }
        (Some(offset), _) => {
            Fact::OffsetCommit { group_id, topic_partition, offset, refused: None }
        }
        (None, _) => Fact::OffsetRemoved { group_id, topic_partition },
    });
}

/// How long a coordinator takes to load, at least.
const LOAD_TIME: Duration = Duration::from_millis(1);
/// How much longer for each record: a million a second.
const LOAD_TIME_PER_RECORD: Duration = Duration::from_micros(1);
