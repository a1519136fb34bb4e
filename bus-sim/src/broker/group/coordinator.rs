//! The broker around its shards: which one a request goes to, loading, and unloading.

use std::time::Duration;

use bus_core::{ErrorKind, Partition, Topic, TopicPartition};

use super::{Shard, Then, Turn};
use crate::broker::connections::Caller;
use crate::broker::session::schedule;
use crate::broker::{Broker, BrokerTimer};
use crate::fact::Fact;
use crate::mutation::Mutation;
use crate::node::{Effects, Name, Timer};
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
        now: SimTime,
        caller: Caller,
        request: offset_fetch::Request,
        effects: &mut Effects,
    ) {
        let result = match self.shard_of(&request.group_id) {
            Ok(partition) if request.require_stable => {
                // What is written before shall be seen, once it is replicated.
                self.with_shard(now, partition, effects, |_, turn| {
                    turn.write(Vec::new(), Then::FetchOffsets(caller, request));
                });
                return;
            }
            Ok(partition) => {
                Ok(self.shards[&partition].fetch_offsets(&request, self.config.mutation))
            }
            Err(error) => Err(error),
        };
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
        let (config, choices) = (&self.config, &self.choices);
        let connections = &mut self.connections;
        let is_behind = !shard.uncommitted.is_empty();
        let writes = Vec::new();
        let mut turn =
            Turn { now, partition, config, choices, connections, effects, is_behind, writes };
        handler(shard, &mut turn);
        let writes = turn.writes;
        if !writes.is_empty() {
            self.append_writes(now, partition, writes, effects);
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
        if !has_lead {
            self.unload_coordinator(partition, effects);
        }
        if !is_new || self.shards.contains_key(&partition) {
            // One that leads on in a new epoch knows its groups.
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
        if self.config.mutation != Some(Mutation::CoordinatorLoadsNothing) {
            for stored in replica.log.batches() {
                shard.load(now, stored, replica.high_watermark());
            }
        }
        shard.is_loading = false;
        let records = replica.log.record_count();
        effects.fact(Fact::CoordinatorLoaded { broker: self.id, topic_partition, records });
        self.commit_writes(now, partition, effects);
        self.with_shard(now, partition, effects, Shard::loaded);
    }

    /// Stops being the coordinator of a partition: what waits there shall look for the new one.
    fn unload_coordinator(&mut self, partition: Partition, effects: &mut Effects) {
        let Some(shard) = self.shards.remove(&partition) else { return };
        for pending in shard.uncommitted {
            self.not_committed(pending.write.then, ErrorKind::NotCoordinator, effects);
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
        effects.cancel_timer(Timer::Broker(BrokerTimer::ExpireWrites { partition }));
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

/// How long a coordinator takes to load, at least.
const LOAD_TIME: Duration = Duration::from_millis(1);
/// How much longer for each record: a million a second.
const LOAD_TIME_PER_RECORD: Duration = Duration::from_micros(1);
