//! Where partitions start, and fetching ahead: one long poll per leader.

use std::time::Duration;

use bus_core::{Error, ErrorKind, Offset, OffsetReset, Operation, StartAt, TopicPartition};

use crate::client::ClientTimer;
use crate::client::connections::Link;
use crate::mutation::Mutation;
use crate::node::{BrokerId, Effects, Timer};
use crate::protocol::list_offsets::OffsetSpec;
use crate::protocol::offset_fetch::PartitionResponse;
use crate::protocol::{Request, fetch, list_offsets, offset_fetch};
use crate::time::SimTime;

use super::partition::FetchState;
use super::{Consumer, Token};

/// librdkafka's `fetch.error.backoff.ms`.
const FETCH_BACKOFF: Duration = Duration::from_millis(500);

/// What a fetch asked for.
#[derive(Clone, Debug)]
pub(crate) struct FetchPart {
    pub(super) topic_partition: TopicPartition,
    pub(super) version: u64,
    pub(super) offset: Offset,
}

impl Consumer {
    /// Looks up where partitions start that do not know it.
    pub(super) fn pump_starts(&mut self, now: SimTime, effects: &mut Effects) {
        if self.rebalance.is_some() || self.closing.is_some() {
            return;
        }
        let mut from_committed = Vec::new();
        let mut from_list = Vec::new();
        for (topic_partition, partition) in &mut self.partitions {
            let FetchState::Find(start) = partition.fetch else { continue };
            if partition.not_before > now {
                continue;
            }
            match start {
                StartAt::Committed if self.member.is_some() => {
                    if self.member.as_ref().is_some_and(|member| member.coordinator.is_some()) {
                        partition.fetch = FetchState::Finding(start);
                        from_committed.push((topic_partition.clone(), partition.version));
                    }
                }
                StartAt::Offset(offset) => partition.fetch = FetchState::At(offset),
                start => from_list.push((topic_partition.clone(), partition.version, start)),
            }
        }
        let waits_for_coordinator = self
            .partitions
            .values()
            .any(|partition| partition.fetch == FetchState::Find(StartAt::Committed));
        if waits_for_coordinator {
            self.want_coordinator(now, effects);
        }
        if !from_committed.is_empty() {
            self.ask_committed(now, from_committed, effects);
        }
        for (topic_partition, version, start) in from_list {
            self.ask_list(now, topic_partition, version, start, effects);
        }
    }

    fn ask_committed(
        &mut self,
        now: SimTime,
        parts: Vec<(TopicPartition, u64)>,
        effects: &mut Effects,
    ) {
        let Some(member) = &self.member else { return };
        let Some(coordinator) = member.coordinator else { return };
        let partitions = parts.iter().map(|(topic_partition, _)| topic_partition.clone()).collect();
        let request = Request::OffsetFetch(offset_fetch::Request {
            group_id: member.group_id.clone(),
            partitions: Some(partitions),
            require_stable: self.requires_stable(),
        });
        let link = Link::coordinator(coordinator);
        let token = Token::StartFromCommitted(parts);
        self.connections.send(now, link, token, request, self.connections.deadline(now), effects);
    }

    fn ask_list(
        &mut self,
        now: SimTime,
        topic_partition: TopicPartition,
        version: u64,
        start: StartAt,
        effects: &mut Effects,
    ) {
        let spec = match start {
            StartAt::Beginning => OffsetSpec::Earliest,
            StartAt::End => OffsetSpec::Latest,
            StartAt::Timestamp(time) => OffsetSpec::Timestamp(time),
            // Without a group there are no committed offsets.
            StartAt::Committed => {
                return self.reset(now, &topic_partition, ErrorKind::NoOffset, effects);
            }
            StartAt::Offset(_) => return,
        };
        let Some((leader, epoch)) = self.metadata.leader(&topic_partition) else {
            return self.want_metadata_later(now, effects);
        };
        if let Some(partition) = self.partitions.get_mut(&topic_partition) {
            partition.fetch = FetchState::Finding(start);
        }
        let request = Request::ListOffsets(list_offsets::Request {
            replica: None,
            isolation_level: self.config.isolation_level,
            partitions: vec![list_offsets::PartitionRequest {
                topic_partition: topic_partition.clone(),
                current_leader_epoch: Some(epoch),
                spec,
            }],
        });
        let token = Token::StartFromList(topic_partition, version);
        let deadline = self.connections.deadline(now);
        self.connections.send(now, Link::data(leader), token, request, deadline, effects);
    }

    /// The coordinator told the committed offsets.
    pub(super) fn start_from_committed(
        &mut self,
        now: SimTime,
        parts: &[(TopicPartition, u64)],
        result: Result<Vec<PartitionResponse>, ErrorKind>,
        effects: &mut Effects,
    ) {
        let skip = match self.mutation {
            Some(Mutation::RecordSkippedAtRebalance) => 1,
            Some(Mutation::CommitTakenForLastRecord) => -1,
            _ => 0,
        };
        let is_unstable = |answer: &PartitionResponse| {
            answer.result.as_ref().is_err_and(|kind| *kind == ErrorKind::UnstableOffsetCommit)
        };
        let answers = match result {
            // librdkafka asks again for all that it has asked for.
            Ok(answers) if answers.iter().any(is_unstable) => Vec::new(),
            Ok(answers) => answers,
            Err(kind) => {
                self.note_coordinator_error(now, kind, effects);
                Vec::new()
            }
        };
        for (topic_partition, version) in parts {
            let answer = answers.iter().find(|answer| answer.topic_partition == *topic_partition);
            let Some(partition) = self.partitions.get_mut(topic_partition) else { continue };
            if partition.version != *version
                || partition.fetch != FetchState::Finding(StartAt::Committed)
            {
                continue;
            }
            match answer.map(|answer| &answer.result) {
                Some(Ok(Some(committed))) => {
                    partition.committed = Some(committed.offset);
                    partition.found((committed.offset + skip).max(0), committed.leader_epoch);
                }
                Some(Ok(None)) => self.reset(now, topic_partition, ErrorKind::NoOffset, effects),
                Some(Err(_)) | None => {
                    partition.fetch = FetchState::Find(StartAt::Committed);
                    self.back_off(now, topic_partition, effects);
                }
            }
        }
    }

    /// A leader told an offset by time or at an end.
    pub(super) fn start_from_list(
        &mut self,
        now: SimTime,
        topic_partition: &TopicPartition,
        version: u64,
        result: Result<Option<Offset>, ErrorKind>,
        effects: &mut Effects,
    ) {
        let Some(partition) = self.partitions.get_mut(topic_partition) else { return };
        let FetchState::Finding(start) = partition.fetch else { return };
        if partition.version != version {
            return;
        }
        match result {
            Ok(Some(offset)) => partition.found(offset, None),
            // No record is as young: the end.
            Ok(None) => partition.fetch = FetchState::Find(StartAt::End),
            Err(_) => {
                partition.fetch = FetchState::Find(start);
                self.want_metadata_later(now, effects);
                self.back_off(now, topic_partition, effects);
            }
        }
    }

    /// `auto.offset.reset`.
    pub(crate) fn reset_policy(&self) -> OffsetReset {
        if self.mutation == Some(Mutation::ResetPolicyIgnored) {
            OffsetReset::Earliest
        } else {
            self.config.auto_offset_reset
        }
    }

    /// Follows `auto.offset.reset`.
    pub(super) fn reset(
        &mut self,
        now: SimTime,
        topic_partition: &TopicPartition,
        why: ErrorKind,
        effects: &mut Effects,
    ) {
        let policy = match why {
            ErrorKind::NoOffset if self.mutation == Some(Mutation::NoOffsetMeansEnd) => {
                OffsetReset::Latest
            }
            _ => self.reset_policy(),
        };
        let Some(partition) = self.partitions.get_mut(topic_partition) else { return };
        partition.clear_buffer();
        match policy {
            OffsetReset::Earliest => partition.fetch = FetchState::Find(StartAt::Beginning),
            OffsetReset::Latest => partition.fetch = FetchState::Find(StartAt::End),
            OffsetReset::None => {
                partition.fetch = FetchState::Nowhere;
                let message = match why {
                    ErrorKind::OffsetOutOfRange => "the offset is out of range",
                    _ => "no offset is committed",
                };
                let message = format!("{message}, and auto.offset.reset is none");
                self.errors.push_back(
                    Error::new(why, message)
                        .with_operation(Operation::Poll)
                        .with_topic_partition(topic_partition.clone()),
                );
                return;
            }
        }
        let FetchState::Find(start) = partition.fetch else { return };
        let version = partition.version;
        self.ask_list(now, topic_partition.clone(), version, start, effects);
    }

    /// Sends a fetch to each leader that has none under way and partitions with room.
    pub(super) fn pump_fetches(&mut self, now: SimTime, effects: &mut Effects) {
        if self.closing.is_some() || self.has_died_of_idleness(now) {
            return;
        }
        let buffered = self.partitions.values().map(|p| p.buffered_bytes).sum::<u64>();
        if buffered >= u64::from(self.config.prefetch_kbytes) * 1024 {
            return;
        }
        for (broker, parts) in self.fetchable(now) {
            self.send_fetch(now, broker, parts, effects);
        }
        // A new leader is looked for soon, not only with the next refresh.
        if self.partitions.keys().any(|partition| self.metadata.is_leaderless(partition)) {
            self.want_metadata_later(now, effects);
        }
    }

    /// What can be fetched, by leader.
    fn fetchable(&self, now: SimTime) -> Vec<(BrokerId, Vec<FetchPart>)> {
        let mut by_leader: Vec<(BrokerId, Vec<FetchPart>)> = Vec::new();
        for (topic_partition, partition) in &self.partitions {
            let FetchState::At(offset) = partition.fetch else { continue };
            let pause_counts = self.mutation != Some(Mutation::PauseIgnored);
            if (partition.is_paused && pause_counts)
                || !partition.wants_more(self.config.prefetch_records)
            {
                continue;
            }
            let Some((leader, _)) = self.metadata.leader(topic_partition) else { continue };
            let is_backing_off = self.backing_off.contains_key(&leader);
            if self.fetching.contains(&leader) || is_backing_off || partition.not_before > now {
                continue;
            }
            let part = FetchPart {
                topic_partition: topic_partition.clone(),
                version: partition.version,
                offset,
            };
            match by_leader.iter_mut().find(|(broker, _)| *broker == leader) {
                Some((_, parts)) => parts.push(part),
                None => by_leader.push((leader, vec![part])),
            }
        }
        by_leader
    }

    fn send_fetch(
        &mut self,
        now: SimTime,
        broker: BrokerId,
        parts: Vec<FetchPart>,
        effects: &mut Effects,
    ) {
        self.fetching.insert(broker);
        let mut partitions = Vec::with_capacity(parts.len());
        for part in &parts {
            let epoch = self.metadata.leader(&part.topic_partition).map(|(_, epoch)| epoch);
            partitions.push(fetch::PartitionRequest {
                last_fetched_epoch: None,
                topic_partition: part.topic_partition.clone(),
                offset: part.offset,
                current_leader_epoch: epoch,
                max_bytes: self.config.max_partition_fetch_bytes,
            });
            if let Some(partition) = self.partitions.get_mut(&part.topic_partition) {
                partition.fetch = FetchState::Fetching(part.offset, broker);
            }
        }
        let request = Request::Fetch(fetch::Request {
            replica: None,
            max_wait: self.config.fetch_max_wait,
            min_bytes: self.config.fetch_min_bytes,
            max_bytes: self.config.fetch_max_bytes,
            isolation_level: self.config.isolation_level,
            partitions,
        });
        let deadline = self.connections.deadline(now) + self.config.fetch_max_wait;
        let token = Token::Fetch(broker, parts);
        self.connections.send(now, Link::data(broker), token, request, deadline, effects);
    }

    /// A fetch was answered.
    pub(super) fn fetched(
        &mut self,
        now: SimTime,
        broker: BrokerId,
        parts: &[FetchPart],
        response: fetch::Response,
        effects: &mut Effects,
    ) {
        self.fetching.remove(&broker);
        for (part, answer) in parts.iter().zip(response.partitions) {
            let Some(partition) = self.partitions.get_mut(&part.topic_partition) else { continue };
            // A seek, or another assignment, has overtaken the fetch.
            if partition.version != part.version {
                if self.mutation == Some(Mutation::SeekIgnored)
                    && let Ok(fetched) = &answer.result
                {
                    partition.take_in(part.offset, fetched, self.mutation);
                }
                continue;
            }
            // The partition has another leader by now, or is asked about.
            if partition.fetch != FetchState::Fetching(part.offset, broker) {
                continue;
            }
            match answer.result {
                Ok(fetched) => {
                    let next = partition.take_in(part.offset, &fetched, self.mutation);
                    partition.fetch = FetchState::At(next);
                }
                Err(kind) => {
                    partition.fetch = FetchState::At(part.offset);
                    self.fetch_refused(now, &part.topic_partition, kind, effects);
                }
            }
        }
    }

    fn fetch_refused(
        &mut self,
        now: SimTime,
        topic_partition: &TopicPartition,
        kind: ErrorKind,
        effects: &mut Effects,
    ) {
        match kind {
            ErrorKind::OffsetOutOfRange => self.reset(now, topic_partition, kind, effects),
            kind if kind.recovery() == bus_core::Recovery::Retry => {
                self.want_metadata_later(now, effects);
                self.back_off(now, topic_partition, effects);
            }
            kind => {
                self.errors.push_back(
                    Error::new(kind, "")
                        .with_operation(Operation::Poll)
                        .with_topic_partition(topic_partition.clone()),
                );
                self.back_off(now, topic_partition, effects);
            }
        }
    }

    /// A fetch has no answer.
    pub(super) fn fetch_failed(
        &mut self,
        now: SimTime,
        broker: BrokerId,
        parts: &[FetchPart],
        effects: &mut Effects,
    ) {
        self.fetching.remove(&broker);
        for part in parts {
            if let Some(partition) = self.partitions.get_mut(&part.topic_partition)
                && partition.version == part.version
                && partition.fetch == FetchState::Fetching(part.offset, broker)
            {
                partition.fetch = FetchState::At(part.offset);
                if self.mutation == Some(Mutation::BufferLostWithConnection) {
                    partition.clear_buffer();
                }
            }
        }
        self.want_metadata_later(now, effects);
        self.backing_off.insert(broker, now + FETCH_BACKOFF);
        self.watch_backoff(now + FETCH_BACKOFF, effects);
    }

    /// Leaves a partition alone for a while.
    pub(super) fn back_off(
        &mut self,
        now: SimTime,
        topic_partition: &TopicPartition,
        effects: &mut Effects,
    ) {
        if let Some(partition) = self.partitions.get_mut(topic_partition) {
            partition.not_before = now + FETCH_BACKOFF;
            self.watch_backoff(now + FETCH_BACKOFF, effects);
        }
    }

    fn watch_backoff(&mut self, at: SimTime, effects: &mut Effects) {
        if self.backoff_at.is_none_or(|earlier| at < earlier) {
            self.backoff_at = Some(at);
            effects.set_timer(Timer::Client(ClientTimer::FetchBackoff), at);
        }
    }

    /// The first time of leaving something alone is over.
    pub(super) fn backoff_due(&mut self, now: SimTime, effects: &mut Effects) {
        self.backoff_at = None;
        self.backing_off.retain(|_, until| *until > now);
        let partitions = self.partitions.values().map(|partition| partition.not_before);
        let next = partitions.chain(self.backing_off.values().copied()).filter(|at| *at > now);
        if let Some(next) = next.min() {
            self.watch_backoff(next, effects);
        }
    }

    /// A planted bug.
    fn has_died_of_idleness(&self, now: SimTime) -> bool {
        self.mutation == Some(Mutation::ConsumerDiesWhenIdle)
            && now.since(self.last_record) > Duration::from_mins(1)
    }
}
