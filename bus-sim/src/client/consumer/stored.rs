//! Stored offsets: what the next auto commit commits, and when that is.

use std::collections::BTreeMap;

use bus_core::{Error, ErrorKind, Offset, Result, TopicPartition};

use crate::client::ClientTimer;
use crate::mutation::Mutation;
use crate::node::{Effects, Name, Timer};
use crate::policy::AutoCommit;
use crate::protocol::offset_commit;
use crate::time::SimTime;

use super::{Consumer, Partition, not_assigned};

/// What is kept of stored offsets beside the partitions.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// Of partitions that are not assigned, if the policy keeps them.
    kept: BTreeMap<TopicPartition, Kept>,
    /// When a poll commits next, if polls do.
    due: Option<SimTime>,
}

#[derive(Debug, Default)]
struct Kept {
    stored: Option<Offset>,
    committed: Option<Offset>,
}

impl Stored {
    /// A partition is assigned again.
    pub(super) fn give_back(&mut self, to: &TopicPartition, partition: &mut Partition) {
        if let Some(kept) = self.kept.remove(to) {
            partition.stored = kept.stored;
            partition.committed = kept.committed;
        }
    }
}

impl Consumer {
    /// Partitions go, or all of them: what is stored of them is kept, if that is the policy.
    pub(super) fn keep_stored(&mut self, of: Option<&[TopicPartition]>) {
        if !self.policy.offset_store_outlives_assignment {
            return;
        }
        for (topic_partition, partition) in &self.partitions {
            if of.is_none_or(|of| of.contains(topic_partition)) {
                let kept = Kept { stored: partition.stored, committed: partition.committed };
                self.stored.kept.insert(topic_partition.clone(), kept);
            }
        }
    }

    pub(crate) fn store_offsets(&mut self, offsets: &[(TopicPartition, Offset)]) -> Result<()> {
        self.check_open()?;
        if self.config.enable_auto_offset_store {
            let message = "offsets are stored by delivery; set enable.auto.offset.store=false";
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        for (topic_partition, offset) in offsets {
            topic_partition.validate()?;
            bus_core::consumer::validate_offset(topic_partition, *offset)?;
            let is_kept = self.policy.offset_store_outlives_assignment;
            if !is_kept && !self.partitions.contains_key(topic_partition) {
                return Err(not_assigned(topic_partition));
            }
        }
        for (topic_partition, offset) in offsets {
            match self.partitions.get_mut(topic_partition) {
                Some(partition) => partition.stored = Some(*offset),
                None => {
                    self.stored.kept.entry(topic_partition.clone()).or_default().stored =
                        Some(*offset);
                }
            }
        }
        Ok(())
    }

    /// Commits what is stored and not committed yet, of these partitions or of all.
    pub(super) fn commit_stored(
        &mut self,
        now: SimTime,
        of: Option<&[TopicPartition]>,
        effects: &mut Effects,
    ) {
        if !self.config.enable_auto_commit || self.member.is_none() {
            return;
        }
        let fetched_counts = self.mutation == Some(Mutation::CommitPassesUnfinishedRecord);
        let mut partitions = Vec::new();
        for (topic_partition, partition) in &mut self.partitions {
            if of.is_some_and(|of| !of.contains(topic_partition)) {
                continue;
            }
            let stored = match partition.fetched_to() {
                Some(end) if fetched_counts => Some(end),
                _ => partition.stored,
            };
            let Some(offset) = stored.filter(|offset| Some(*offset) != partition.committed) else {
                continue;
            };
            partition.committed = Some(offset);
            partitions.push(offset_commit::PartitionRequest {
                topic_partition: topic_partition.clone(),
                offset,
                leader_epoch: partition.leader_epoch,
                metadata: Name::from(""),
            });
        }
        if !partitions.is_empty() {
            self.enqueue_commit(now, partitions, None, effects);
        }
    }

    pub(super) fn auto_commit(&mut self, now: SimTime, effects: &mut Effects) {
        self.commit_stored(now, None, effects);
        self.watch_auto_commit(now, effects);
    }

    pub(super) fn watch_auto_commit(&mut self, now: SimTime, effects: &mut Effects) {
        let is_timed = self.policy.auto_commit == AutoCommit::Timer;
        if is_timed && self.config.enable_auto_commit && self.closing.is_none() {
            let at = now + self.config.auto_commit_interval;
            effects.set_timer(Timer::Client(ClientTimer::AutoCommit), at);
        }
    }

    /// In a poll: commits if polls do, and the interval has passed.
    pub(super) fn auto_commit_in_poll(
        &mut self,
        now: SimTime,
        policy: AutoCommit,
        effects: &mut Effects,
    ) {
        if self.policy.auto_commit != policy {
            return;
        }
        if self.stored.due.is_some_and(|due| due <= now) {
            self.commit_stored(now, None, effects);
            self.stored.due = None;
        }
        self.stored.due.get_or_insert(now + self.config.auto_commit_interval);
    }
}
