//! A replica of a partition: its log, and, while it leads, the high watermark, the producers, and
//! who waits for more.
//!
//! Simplified: one replica per partition, so that every append is replicated at once.
//! Absent: followers, truncation, unclean election. See `docs/fidelity.md`.

use std::sync::Arc;

use bus_core::{ErrorKind, Offset, Timestamp, Uuid};

use super::log::Log;
use super::producer_state::{ProducerRules, ProducerStates, Sequencing};
use super::topic_config::TopicConfig;
use super::transaction::guard::Guard;
use crate::node::{BrokerId, ConnectionId};
use crate::protocol::batch::{RecordBatch, StoredTimestamp};
use crate::protocol::cluster::PartitionState;
use crate::time::SimTime;

/// A replica of a partition on a broker.
#[derive(Debug)]
pub(super) struct Replica {
    /// Durable: which topic of that name it is of.
    pub(super) topic_id: Uuid,
    /// Durable.
    pub(super) log: Log,
    /// What the broker knows of the partition; `None` after a crash, until the image says it.
    role: Option<Role>,
}

#[derive(Debug)]
struct Role {
    is_leader: bool,
    leader_epoch: i32,
    replicas: usize,
    in_sync_replicas: usize,
    config: TopicConfig,
    high_watermark: Offset,
    producers: ProducerStates,
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

impl Replica {
    /// An empty replica.
    pub(super) fn new(topic_id: Uuid) -> Self {
        Self { topic_id, log: Log::default(), role: None }
    }

    /// Loses what is in memory.
    pub(super) fn crash(&mut self) {
        self.role = None;
    }

    /// Learns what the image says of the partition. Returns whether it leads from now on with
    /// another epoch than before.
    pub(super) fn follow_image(
        &mut self,
        now: SimTime,
        id: BrokerId,
        state: &PartitionState,
        config: &TopicConfig,
    ) -> bool {
        let is_leader = state.leader == Some(id);
        let log = &self.log;
        let role = self.role.get_or_insert_with(|| {
            let mut producers = ProducerStates::default();
            log.batches().for_each(|stored| producers.replay(now, stored));
            Role {
                is_leader: false,
                leader_epoch: -1,
                replicas: 0,
                in_sync_replicas: 0,
                config: config.clone(),
                high_watermark: log.start(),
                producers,
                fetch_waiters: Vec::new(),
            }
        });
        let is_new = is_leader && (!role.is_leader || role.leader_epoch != state.leader_epoch);
        role.is_leader = is_leader;
        role.leader_epoch = state.leader_epoch;
        role.replicas = state.replicas.len();
        role.in_sync_replicas = state.in_sync_replicas.len();
        role.config.clone_from(config);
        if is_leader && state.in_sync_replicas == [id] {
            role.high_watermark = log.end();
        }
        is_new
    }

    /// Whether it leads.
    pub(super) fn is_leader(&self) -> bool {
        self.role.as_ref().is_some_and(|role| role.is_leader)
    }

    /// Checks that it leads, with the epoch that the client knows of.
    pub(super) fn check_leader(&self, epoch: Option<i32>) -> Result<(), ErrorKind> {
        let role = self.role.as_ref().ok_or(ErrorKind::NotLeaderOrFollower)?;
        match epoch {
            Some(epoch) if epoch < role.leader_epoch => Err(ErrorKind::FencedLeaderEpoch),
            Some(epoch) if epoch > role.leader_epoch => Err(ErrorKind::UnknownLeaderEpoch),
            _ if role.is_leader => Ok(()),
            _ => Err(ErrorKind::NotLeaderOrFollower),
        }
    }

    /// The first offset that is not on all in-sync replicas.
    pub(super) fn high_watermark(&self) -> Offset {
        self.role.as_ref().map_or(0, |role| role.high_watermark)
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
        self.role.as_ref().is_some_and(|role| {
            role.in_sync_replicas < role.config.min_insync_replicas.min(role.replicas)
        })
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
            return Ok(Append::Duplicate { base_offset, timestamp });
        }
        let (base_offset, log_append_time) = self.append_unchecked(now, Arc::clone(batch));
        Ok(Append::Appended { base_offset, log_append_time })
    }

    /// Appends a batch as the leader: one of a coordinator, or one that was checked.
    pub(super) fn append_unchecked(
        &mut self,
        now: SimTime,
        batch: Arc<RecordBatch>,
    ) -> (Offset, Option<Timestamp>) {
        let role = self.role.as_mut().expect("only a leader appends");
        let time = role.config.is_log_append_time.then(|| now.timestamp());
        let stamp = time.map_or(StoredTimestamp::CreateTime, StoredTimestamp::LogAppendTime);
        let is_idempotent = batch.producer.is_some();
        let base_offset = self.log.append(batch, role.leader_epoch, stamp);
        if is_idempotent && let Some(stored) = self.log.last() {
            role.producers.replay(now, stored);
        }
        if role.in_sync_replicas == 1 {
            role.high_watermark = self.log.end();
        }
        (base_offset, time)
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

/// What the broker is configured with that an append is checked by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) message_max_bytes: u32,
    pub(super) producers: ProducerRules,
    pub(super) checks_sequences: bool,
}

impl Role {
    /// Checks a batch by the rules of the topic, in Kafka's order.
    fn validate(&self, now: SimTime, batch: &RecordBatch, limits: Limits) -> Result<(), ErrorKind> {
        if batch.size > self.config.max_message_bytes.unwrap_or(limits.message_max_bytes) {
            return Err(ErrorKind::MessageTooLarge);
        }
        let is_malformed = batch.records.is_empty()
            || batch.control.is_some()
            || (batch.is_transactional && batch.producer.is_none())
            || batch.producer.is_some_and(|p| p.base_sequence < 0);
        if is_malformed {
            return Err(ErrorKind::InvalidRecord);
        }
        if self.config.is_compacted && batch.records.iter().any(|record| record.key.is_none()) {
            return Err(ErrorKind::InvalidRecord);
        }
        if self.config.is_log_append_time {
            return Ok(());
        }
        let now = now.timestamp().as_millis();
        let is_in_range = |time: i64| {
            now.saturating_sub(time) <= self.config.timestamp_before_max
                && time.saturating_sub(now) <= self.config.timestamp_after_max
        };
        let mut times = batch.records.iter().map(|record| record.timestamp.as_millis());
        if times.all(is_in_range) { Ok(()) } else { Err(ErrorKind::InvalidTimestamp) }
    }
}
