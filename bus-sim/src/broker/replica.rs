//! A replica of a partition: its log and the epochs of its leaders, the high watermark, the
//! producers, and, while it leads, what it knows of its followers and who waits for more.
//!
//! - A leader appends at its end, and its epoch begins where it took over. A follower appends what
//!   it fetched, and takes back what its leader does not have.
//! - The high watermark of a leader follows those in sync, that of a follower its leader's. A start
//!   begins with the one that was written last (`replication-offset-checkpoint`).
//! - A crash of the process keeps all that was appended, as it is in the page cache; a loss of
//!   power only what the system has written to the disk.

mod leader;

use std::collections::BTreeMap;
use std::sync::Arc;

use bus_core::{ErrorKind, Offset, Timestamp, Uuid};

pub(super) use self::leader::Proposal;
use super::epochs::EpochCache;
use super::image::Registration;
use super::in_sync::Leadership;
use super::log::Log;
use super::producer_state::{ProducerRules, ProducerStates, Sequencing};
use super::topic_config::TopicConfig;
use super::transaction::guard::Guard;
use crate::config::SimConfig;
use crate::mutation::Mutation;
use crate::node::{BrokerId, ConnectionId};
use crate::protocol::batch::{RecordBatch, StoredBatch, StoredTimestamp};
use crate::protocol::cluster::PartitionState;
use crate::protocol::offset_for_leader_epoch::EpochEnd;
use crate::time::SimTime;

/// A replica of a partition on a broker.
#[derive(Debug)]
pub(super) struct Replica {
    /// Durable: which topic of that name it is of.
    pub(super) topic_id: Uuid,
    /// Durable, as far as it is written.
    pub(super) log: Log,
    /// Durable.
    epochs: EpochCache,
    /// Durable: the high watermark as it was written last.
    checkpoint: Offset,
    config: Arc<SimConfig>,
    /// What the broker knows of the partition; `None` after a crash, until the image says it.
    role: Option<Role>,
}

#[derive(Debug)]
struct Role {
    leader: Option<BrokerId>,
    leader_epoch: i32,
    partition_epoch: i32,
    topic: TopicConfig,
    high_watermark: Offset,
    /// When that changed.
    high_watermark_since: SimTime,
    /// Whether it rose, as the leader of others, and nobody was told.
    has_risen: bool,
    producers: ProducerStates,
    leadership: Option<Leadership>,
    /// Fetches that wait for this partition. May name some that were answered by now.
    fetch_waiters: Vec<ConnectionId>,
}

/// What came of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Append {
    /// It is there now.
    Appended { base_offset: Offset, log_append_time: Option<Timestamp> },
    /// It was there before.
    Duplicate { base_offset: Offset, timestamp: Timestamp },
}

/// What changed when a replica learned of its partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Followed {
    /// It is of another leader epoch than before.
    pub(super) is_new_epoch: bool,
    /// It led before.
    pub(super) had_lead: bool,
    /// It leads now.
    pub(super) has_lead: bool,
    /// More is committed than before.
    pub(super) has_advanced: bool,
}

impl Replica {
    /// An empty replica.
    pub(super) fn new(topic_id: Uuid, config: &Arc<SimConfig>) -> Self {
        Self {
            topic_id,
            log: Log::default(),
            epochs: EpochCache::default(),
            checkpoint: 0,
            config: Arc::clone(config),
            role: None,
        }
    }

    /// Loses what is in memory.
    pub(super) fn crash(&mut self, now: SimTime) {
        if let Some(role) = self.role.take()
            && self.is_checkpointed_since(role.high_watermark_since, now)
        {
            self.checkpoint = role.high_watermark;
        }
        if self.has(Mutation::TailLostAtRestart) {
            self.log.truncate(self.log.last_base());
        }
    }

    /// Loses what is in memory, and what the system has not written to the disk.
    pub(super) fn lose_power(&mut self, now: SimTime) {
        self.crash(now);
        let written = self.log.written(now, self.config.broker.page_cache_expiry);
        self.log.truncate(written);
    }

    /// Writes the high watermark and the log to the disk, as a broker that stops does.
    pub(super) fn flush(&mut self) {
        self.checkpoint = self.high_watermark();
        self.log.flush();
    }

    /// Whether high watermarks were written to the disk after `since`, up to now.
    fn is_checkpointed_since(&self, since: SimTime, now: SimTime) -> bool {
        let interval = self.config.broker.high_watermark_flush_interval.as_nanos().max(1);
        let tick = |time: SimTime| u128::from(time.as_nanos()) / interval;
        tick(now) > tick(since)
    }

    /// Learns what the image says of the partition.
    pub(super) fn follow_image(
        &mut self,
        now: SimTime,
        id: BrokerId,
        state: &PartitionState,
        topic: &TopicConfig,
        brokers: &BTreeMap<BrokerId, Registration>,
    ) -> Followed {
        let role = self.role.get_or_insert_with(|| {
            self.epochs.truncate(self.log.end());
            Role {
                leader: None,
                leader_epoch: -1,
                partition_epoch: -1,
                topic: topic.clone(),
                high_watermark: self.checkpoint.clamp(self.log.start(), self.log.end()),
                high_watermark_since: now,
                has_risen: false,
                producers: replayed(now, &self.log),
                leadership: None,
                fetch_waiters: Vec::new(),
            }
        });
        role.topic.clone_from(topic);
        let had_lead = role.leadership.is_some();
        let mut followed = Followed { had_lead, has_lead: had_lead, ..Followed::default() };
        if state.partition_epoch <= role.partition_epoch {
            // The answer to an AlterPartition can say it before the image does.
            return followed;
        }
        followed.is_new_epoch = state.leader_epoch > role.leader_epoch;
        let leads_on = had_lead && self.config.mutation == Some(Mutation::DeposedLeaderLeadsOn);
        followed.has_lead = state.leader == Some(id) || leads_on;
        role.leader = state.leader;
        role.leader_epoch = state.leader_epoch;
        role.partition_epoch = state.partition_epoch;
        if !followed.has_lead {
            role.leadership = None;
            return followed;
        }
        let leadership = role.leadership.get_or_insert_with(Leadership::new);
        leadership.follow(id, state, brokers);
        if followed.is_new_epoch {
            let start = self.log.end();
            self.epochs.assign(state.leader_epoch, start);
            leadership.begin_epoch(now, start, !had_lead);
        }
        followed.has_advanced = self.advance(now);
        followed
    }

    /// Learns which brokers are registered.
    pub(super) fn follow_brokers(&mut self, brokers: &BTreeMap<BrokerId, Registration>) {
        if self.has(Mutation::RegistrationNotHeard) {
            return;
        }
        if let Some(leadership) = self.leadership_mut() {
            leadership.follow_brokers(brokers);
        }
    }

    fn leadership(&self) -> Option<&Leadership> {
        self.role.as_ref()?.leadership.as_ref()
    }

    fn leadership_mut(&mut self) -> Option<&mut Leadership> {
        self.role.as_mut()?.leadership.as_mut()
    }

    /// Whether it leads.
    pub(super) fn is_leader(&self) -> bool {
        self.leadership().is_some()
    }

    /// Whether it leads other replicas.
    pub(super) fn has_followers(&self) -> bool {
        self.leadership().is_some_and(|leadership| leadership.replica_count() > 1)
    }

    /// Whether `broker` is a follower of it.
    pub(super) fn is_followed_by(&self, broker: BrokerId) -> bool {
        self.leadership().is_some_and(|leadership| leadership.is_follower(broker))
    }

    /// The broker that leads the partition, and its epoch.
    pub(super) fn leader(&self) -> Option<(BrokerId, i32)> {
        let role = self.role.as_ref()?;
        Some((role.leader?, role.leader_epoch))
    }

    /// Checks that it leads, with the epoch that the client knows of.
    pub(super) fn check_leader(&self, epoch: Option<i32>) -> Result<(), ErrorKind> {
        let role = self.role.as_ref().ok_or(ErrorKind::NotLeaderOrFollower)?;
        let epoch = epoch.filter(|_| !self.has(Mutation::LeaderEpochIgnored));
        match epoch {
            Some(epoch) if epoch < role.leader_epoch => Err(ErrorKind::FencedLeaderEpoch),
            Some(epoch) if epoch > role.leader_epoch => Err(ErrorKind::UnknownLeaderEpoch),
            _ if role.leadership.is_some() => Ok(()),
            _ => Err(ErrorKind::NotLeaderOrFollower),
        }
    }

    /// The epoch of the last record, or the own one if it leads.
    pub(super) fn latest_epoch(&self) -> Option<i32> {
        self.epochs.latest()
    }

    /// The largest leader epoch that is not above `epoch`, and the offset behind its last record.
    pub(super) fn end_of_epoch(&self, epoch: i32) -> Option<EpochEnd> {
        self.epochs.end_of(epoch, self.log.end())
    }

    /// The first offset that is not on all in-sync replicas, as far as this one knows.
    pub(super) fn high_watermark(&self) -> Offset {
        self.role.as_ref().map_or(self.checkpoint, |role| role.high_watermark)
    }

    /// The high watermark that was written to the disk last.
    pub(super) const fn checkpoint(&self) -> Offset {
        self.checkpoint
    }

    /// Whether the high watermark has not reached the start of this leader's epoch, so that records
    /// that were acknowledged before may still be above it (KIP-207).
    pub(super) fn lags_behind_epoch(&self) -> bool {
        self.leadership().is_some_and(|leadership| self.high_watermark() < leadership.epoch_start)
    }

    /// The first offset of an open transaction, or the high watermark.
    pub(super) fn last_stable_offset(&self) -> Offset {
        let high_watermark = self.high_watermark();
        let unstable = self.producers().and_then(|p| p.first_unstable_offset(high_watermark));
        unstable.map_or(high_watermark, |offset| offset.min(high_watermark))
    }

    /// What it knows of producers and transactions.
    pub(super) fn producers(&self) -> Option<&ProducerStates> {
        self.role.as_ref().map(|role| &role.producers)
    }

    pub(super) fn producers_mut(&mut self) -> Option<&mut ProducerStates> {
        self.role.as_mut().map(|role| &mut role.producers)
    }

    /// Whether too few replicas are in sync for `acks=all`. No more are asked for than there are.
    pub(super) fn lacks_replicas(&self) -> bool {
        self.lacks(Leadership::in_sync_count)
    }

    /// As [`lacks_replicas`](Self::lacks_replicas), but counting one that is about to join.
    pub(super) fn lacks_replicas_after_append(&self) -> bool {
        self.lacks(Leadership::maximal_count)
    }

    fn lacks(&self, count: impl Fn(&Leadership) -> usize) -> bool {
        let Some(role) = &self.role else { return false };
        let Some(leadership) = &role.leadership else { return false };
        let least = role.topic.min_insync_replicas.min(leadership.replica_count());
        count(leadership) < least && !self.has(Mutation::MinInsyncReplicasIgnored)
    }

    fn has(&self, mutation: Mutation) -> bool {
        self.config.mutation == Some(mutation)
    }

    /// Appends a batch of a client as the leader.
    ///
    /// # Errors
    /// It breaks a rule of the topic or of its producer; nothing was appended.
    pub(super) fn append(
        &mut self,
        now: SimTime,
        batch: &Arc<RecordBatch>,
        guard: Option<Guard>,
        limits: Limits,
    ) -> Result<Append, ErrorKind> {
        let role = self.role.as_mut().ok_or(ErrorKind::NotLeaderOrFollower)?;
        role.validate(now, batch, limits)?;
        if limits.checks_sequences
            && let Sequencing::Duplicate(base_offset, timestamp) =
                role.producers.check(now, batch, guard, limits.producers)?
        {
            if self.has(Mutation::DuplicateTakesOffsets) {
                self.log.skip(i64::try_from(batch.records.len()).unwrap_or(0));
            }
            return Ok(Append::Duplicate { base_offset, timestamp });
        }
        let (base_offset, log_append_time) = self.append_unchecked(now, Arc::clone(batch));
        if self.has(Mutation::BatchLostAtRoll)
            && base_offset / MUTANT_SEGMENT != self.log.end() / MUTANT_SEGMENT
        {
            self.log.lose_last_batch();
        }
        Ok(Append::Appended { base_offset, log_append_time })
    }

    /// Appends a batch as the leader: one of a coordinator, or one that was checked.
    pub(super) fn append_unchecked(
        &mut self,
        now: SimTime,
        batch: Arc<RecordBatch>,
    ) -> (Offset, Option<Timestamp>) {
        let role = self.role.as_mut().expect("only a leader appends");
        let time = role.topic.is_log_append_time.then(|| now.timestamp());
        let timestamp = time.map_or(StoredTimestamp::CreateTime, StoredTimestamp::LogAppendTime);
        let (base_offset, leader_epoch) = (self.log.end(), role.leader_epoch);
        self.store(now, StoredBatch { base_offset, leader_epoch, timestamp, batch });
        self.advance(now);
        (base_offset, time)
    }

    /// Appends a batch that was fetched from the leader.
    pub(super) fn append_as_follower(&mut self, now: SimTime, stored: StoredBatch) {
        self.store(now, stored);
    }

    fn store(&mut self, now: SimTime, stored: StoredBatch) {
        let role = self.role.as_mut().expect("a broker appends to partitions of its image");
        self.epochs.assign(stored.leader_epoch, stored.base_offset);
        if stored.batch.producer.is_some() {
            role.producers.replay(now, &stored);
        }
        self.log.append(now, stored);
        self.log.flush_from(role.topic.flush_messages);
    }

    /// Takes back what is at and behind an offset, as a follower whose leader does not have it.
    pub(super) fn truncate(&mut self, now: SimTime, to: Offset) {
        // An epoch that began at the end, without a record, is none of the leader's either.
        self.epochs.truncate(to);
        if to >= self.log.end() {
            return;
        }
        self.log.truncate(to);
        let producers = replayed(now, &self.log);
        let high_watermark = self.high_watermark().min(self.log.end());
        self.set_high_watermark(now, high_watermark);
        if let Some(role) = &mut self.role {
            role.producers = producers;
        }
    }

    /// Learns the high watermark of its leader, as a follower.
    pub(super) fn follow_high_watermark(&mut self, now: SimTime, leaders: Offset) {
        self.set_high_watermark(now, leaders.clamp(self.log.start(), self.log.end()));
    }

    fn set_high_watermark(&mut self, now: SimTime, to: Offset) {
        let Some(since) = self.role.as_ref().map(|role| role.high_watermark_since) else { return };
        let is_checkpointed = self.is_checkpointed_since(since, now);
        let Some(role) = &mut self.role else { return };
        if role.high_watermark == to {
            return;
        }
        if is_checkpointed {
            self.checkpoint = role.high_watermark;
        }
        role.high_watermark = to;
        role.high_watermark_since = now;
    }

    /// Raises the high watermark of a leader as far as the in-sync replicas allow. Returns whether
    /// it rose.
    fn advance(&mut self, now: SimTime) -> bool {
        let log_end = self.log.end();
        let is_ahead = self.has(Mutation::WatermarkAheadOfInSync);
        let Some(leadership) = self.leadership() else { return false };
        let least = if is_ahead || leadership.replica_count() == 1 {
            Some(log_end)
        } else if self.lacks_replicas() {
            None
        } else {
            leadership.least_end(now, log_end, self.config.broker.replica_lag_time_max)
        };
        let Some(least) = least.filter(|least| *least > self.high_watermark()) else {
            return false;
        };
        self.set_high_watermark(now, least);
        let has_followers = self.has_followers();
        if let Some(role) = &mut self.role {
            role.has_risen = has_followers;
        }
        true
    }

    /// Takes the high watermark if it rose since this was asked last, as the leader of others.
    pub(super) fn take_risen(&mut self) -> Option<Offset> {
        let role = self.role.as_mut()?;
        std::mem::take(&mut role.has_risen).then_some(role.high_watermark)
    }

    /// Notes that a fetch waits for this partition.
    pub(super) fn add_fetch_waiter(&mut self, connection: ConnectionId) {
        if let Some(role) = &mut self.role
            && !role.fetch_waiters.contains(&connection)
        {
            role.fetch_waiters.push(connection);
        }
    }

    /// Takes the fetches that wait for this partition.
    pub(super) fn take_fetch_waiters(&mut self) -> Vec<ConnectionId> {
        self.role.as_mut().map_or_else(Vec::new, |role| std::mem::take(&mut role.fetch_waiters))
    }
}

/// The records of a segment to [`Mutation::BatchLostAtRoll`].
const MUTANT_SEGMENT: Offset = 32;

/// What the broker is configured with that an append is checked by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) message_max_bytes: u32,
    pub(super) producers: ProducerRules,
    pub(super) checks_sequences: bool,
}

/// What a log says of its producers.
fn replayed(now: SimTime, log: &Log) -> ProducerStates {
    let mut producers = ProducerStates::default();
    log.batches().for_each(|stored| producers.replay(now, stored));
    producers
}

impl Role {
    /// Checks a batch by the rules of the topic, in Kafka's order.
    fn validate(&self, now: SimTime, batch: &RecordBatch, limits: Limits) -> Result<(), ErrorKind> {
        if batch.size > self.topic.max_message_bytes.unwrap_or(limits.message_max_bytes) {
            return Err(ErrorKind::MessageTooLarge);
        }
        let is_malformed = batch.records.is_empty()
            || batch.control.is_some()
            || (batch.is_transactional && batch.producer.is_none())
            || batch.producer.is_some_and(|p| p.base_sequence < 0);
        if is_malformed {
            return Err(ErrorKind::InvalidRecord);
        }
        if self.topic.is_compacted && batch.records.iter().any(|record| record.key.is_none()) {
            return Err(ErrorKind::InvalidRecord);
        }
        if self.topic.is_log_append_time {
            return Ok(());
        }
        let now = now.timestamp().as_millis();
        let is_in_range = |time: i64| {
            now.saturating_sub(time) <= self.topic.timestamp_before_max
                && time.saturating_sub(now) <= self.topic.timestamp_after_max
        };
        let mut times = batch.records.iter().map(|record| record.timestamp.as_millis());
        if times.all(is_in_range) { Ok(()) } else { Err(ErrorKind::InvalidTimestamp) }
    }
}
