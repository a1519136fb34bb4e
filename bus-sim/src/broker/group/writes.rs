//! What shards write: it is appended to their partition of `__consumer_offsets`, and counts once it
//! is below the high watermark (Kafka's `CoordinatorRuntime`).
//!
//! - Appends do not wait for replicas and ask for no `min.insync.replicas`; what follows a write
//!   waits for the high watermark.
//! - What waits for longer than `offsets.commit.timeout.ms` is refused with
//!   `CoordinatorNotAvailable`. Its records stay, and count if they are replicated after all.
//! - When the broker leads no more, all that waits is refused with `NotCoordinator`.
//!
//! Simplified: each write is a batch; Kafka collects those of 5 ms. The replacement of a static
//! member that is refused here is not taken back.

use std::sync::Arc;

use bus_core::{ErrorKind, Offset, Partition, TopicPartition};

use super::record::GroupRecord;
use super::{InTransaction, Shard, Then, Write};
use crate::broker::session::schedule;
use crate::broker::{Broker, BrokerTimer};
use crate::fact::{Fact, TransactionFact};
use crate::mutation::Mutation;
use crate::node::{Effects, Name};
use crate::protocol::{Response, offset_fetch};
use crate::time::SimTime;

/// A write that is not below the high watermark.
#[derive(Debug)]
pub(super) struct Uncommitted {
    /// The offset behind it.
    end: Offset,
    /// When what follows it is given up.
    deadline: SimTime,
    pub(super) write: Write,
}

impl Uncommitted {
    /// One that another coordinator wrote: nobody waits for it here.
    pub(super) const fn loaded(end: Offset, write: Write) -> Self {
        Self { end, deadline: SimTime::ZERO, write }
    }
}

impl Broker {
    /// Appends what a shard wrote, and goes on with what is below the high watermark.
    pub(super) fn append_writes(
        &mut self,
        now: SimTime,
        partition: Partition,
        writes: Vec<Write>,
        effects: &mut Effects,
    ) {
        let topic_partition = TopicPartition::new(&self.offsets_topic, partition);
        let replica = self.replicas.get_mut(&topic_partition);
        let leader = replica.filter(|replica| replica.check_leader(None).is_ok());
        let (Some(replica), Some(shard)) = (leader, self.shards.get_mut(&partition)) else {
            for write in writes {
                self.not_committed(write.then, ErrorKind::NotCoordinator, effects);
            }
            return;
        };
        let deadline = now + self.config.broker.offsets_commit_timeout;
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
            let end = replica.log.end();
            shard.uncommitted.push_back(Uncommitted { end, deadline, write });
        }
        self.commit_writes(now, partition, effects);
        self.partition_grew(&topic_partition, effects);
        self.watch_writes(partition, effects);
    }

    /// Replays what is below the high watermark, and does what follows it.
    pub(in crate::broker) fn commit_writes(
        &mut self,
        now: SimTime,
        partition: Partition,
        effects: &mut Effects,
    ) {
        let topic_partition = TopicPartition::new(&self.offsets_topic, partition);
        let Some(replica) = self.replicas.get(&topic_partition) else { return };
        let is_hasty = self.config.mutation == Some(Mutation::CommitAckedBeforeReplicated);
        let committed = if is_hasty { replica.log.end() } else { replica.high_watermark() };
        while let Some(shard) = self.shards.get_mut(&partition)
            && let Some(Uncommitted { end, write, .. }) =
                shard.uncommitted.pop_front_if(|pending| pending.end <= committed)
        {
            let then = shard.replay_write(now, end, write, effects);
            self.committed(now, partition, then, effects);
        }
    }

    /// Does what follows a write.
    fn committed(&mut self, now: SimTime, partition: Partition, then: Then, effects: &mut Effects) {
        match then {
            Then::Nothing => {}
            Then::Respond(caller, response) => {
                self.connections.respond(caller, response, effects);
            }
            Then::FetchOffsets(caller, request) => {
                let Some(shard) = self.shards.get(&partition) else { return };
                let result = Ok(shard.fetch_offsets(&request, self.config.mutation));
                let response = Response::OffsetFetch(offset_fetch::Response { result });
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
            Then::Deleted { caller, group_id } => self.deleted(caller, &group_id, None, effects),
        }
    }

    /// Refuses what waits for a write and needs no group for it.
    pub(super) fn not_committed(&mut self, then: Then, error: ErrorKind, effects: &mut Effects) {
        match then {
            Then::Respond(caller, response) => {
                self.connections.respond(caller, refused(response, error), effects);
            }
            Then::FetchOffsets(caller, _) => {
                let response = offset_fetch::Response { result: Err(error) };
                self.connections.respond(caller, Response::OffsetFetch(response), effects);
            }
            Then::Deleted { caller, group_id } => {
                self.deleted(caller, &group_id, Some(error), effects);
            }
            // Who waits for these is known to the group.
            Then::Assigned { .. } | Then::StaticRejoined { .. } | Then::Nothing => {}
        }
    }

    /// Gives up what waits for too long.
    pub(in crate::broker) fn expire_writes(
        &mut self,
        now: SimTime,
        partition: Partition,
        effects: &mut Effects,
    ) {
        let Some(shard) = self.shards.get_mut(&partition) else { return };
        shard.expires_writes = false;
        let expired = shard.uncommitted.iter_mut().take_while(|pending| pending.deadline <= now);
        let expired: Vec<Then> = expired
            .map(|pending| std::mem::replace(&mut pending.write.then, Then::Nothing))
            .collect();
        let error = ErrorKind::CoordinatorNotAvailable;
        for then in expired {
            match then {
                Then::Assigned { group_id, generation } => {
                    self.with_shard(now, partition, effects, |shard, turn| {
                        shard.not_assigned(turn, &group_id, generation, error);
                    });
                }
                Then::StaticRejoined { group_id, member_id } => {
                    self.with_shard(now, partition, effects, |shard, turn| {
                        shard.not_rejoined(turn, &group_id, &member_id, error);
                    });
                }
                then => self.not_committed(then, error, effects),
            }
        }
        self.watch_writes(partition, effects);
    }

    /// Sees to it that what waits for too long is given up.
    fn watch_writes(&mut self, partition: Partition, effects: &mut Effects) {
        let Some(shard) = self.shards.get_mut(&partition) else { return };
        let waits = |pending: &&Uncommitted| !matches!(pending.write.then, Then::Nothing);
        if !shard.expires_writes
            && let Some(first) = shard.uncommitted.iter().find(waits)
        {
            shard.expires_writes = true;
            schedule(BrokerTimer::ExpireWrites { partition }, first.deadline, effects);
        }
    }
}

impl Shard {
    /// Learns what it wrote, up to `end`. Returns what follows.
    fn replay_write(
        &mut self,
        now: SimTime,
        end: Offset,
        write: Write,
        effects: &mut Effects,
    ) -> Then {
        let first = end - Offset::try_from(write.records.len()).unwrap_or(0);
        for (recorded, record) in (first..).zip(write.records) {
            tell_offset(&record, write.transaction.as_ref(), effects);
            match &write.transaction {
                Some(InTransaction::Offsets((producer_id, _))) => {
                    self.replay_pending(now, *producer_id, recorded, record);
                }
                _ => self.replay(now, recorded, record),
            }
        }
        if let Some(InTransaction::End(marker)) = write.transaction {
            let facts = self.replay_end(marker.producer_id, marker.control);
            facts.into_iter().for_each(|fact| effects.fact(fact));
        }
        write.then
    }
}

/// A response that says for all that it answers that it failed.
fn refused(mut response: Response, error: ErrorKind) -> Response {
    match &mut response {
        Response::OffsetCommit(response) => {
            response.partitions.iter_mut().for_each(|(_, refused)| *refused = Some(error));
        }
        Response::TxnOffsetCommit(response) => {
            response.partitions.iter_mut().for_each(|(_, refused)| *refused = Some(error));
        }
        Response::Heartbeat(response) => response.error = Some(error),
        Response::LeaveGroup(response) => response.error = Some(error),
        other => unreachable!("{} waits for no write", other.api().name()),
    }
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
