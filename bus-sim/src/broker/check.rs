//! The law of coordinators: every durable fact is a record. In debug builds it is checked whenever
//! a broker goes down: what its coordinators know is what a replay of their logs gives.
//!
//! Coordinators with records that are not replicated are left out: those do not count yet. So are
//! groups that rebalance: memory is ahead of their records.

use std::collections::BTreeMap;

use bus_core::{Offset, TopicPartition};

use super::group::record::GroupRecord;
use super::group::transactional::{PendingOffsets, StoredOffset};
use super::{Broker, group, transaction};
use crate::node::Name;
use crate::time::SimTime;

impl Broker {
    /// Checks the law, in debug builds and without a planted bug.
    ///
    /// # Panics
    /// If a coordinator knows something else than its log.
    pub fn check_coordinators(&self, now: SimTime) {
        if !cfg!(debug_assertions) || self.config.mutation.is_some() {
            return;
        }
        for (partition, shard) in self.shards.iter().filter(|(_, shard)| shard.is_at_rest()) {
            let topic_partition = TopicPartition::new(&self.offsets_topic, *partition);
            let Some(replica) = self.replicas.get(&topic_partition) else { continue };
            let mut fresh = group::Shard::loading();
            replica.log.batches().for_each(|stored| fresh.load(now, stored, Offset::MAX));
            let (known, mut fresh) = (durable(shard), durable(&fresh));
            for (group_id, fresh) in &mut fresh {
                if known.get(group_id).is_some_and(|known| known.group.is_none()) {
                    fresh.group = None;
                }
            }
            assert_eq!(known, fresh, "the groups of {topic_partition} and its replay");
        }
        for (partition, shard) in self.transactions.iter().filter(|(_, shard)| shard.is_at_rest()) {
            let topic_partition = TopicPartition::new(&self.transactions_topic, *partition);
            let Some(replica) = self.replicas.get(&topic_partition) else { continue };
            let mut fresh = transaction::Shard::new(0, true);
            replica.log.batches().for_each(|stored| fresh.load(stored));
            assert_eq!(
                shard.durable(),
                fresh.durable(),
                "the transactions of {topic_partition} and its replay"
            );
        }
    }
}

/// What is durable of a group.
#[derive(Debug, PartialEq)]
struct Durable {
    offsets: BTreeMap<TopicPartition, StoredOffset>,
    pending: PendingOffsets,
    group: Option<GroupRecord>,
}

fn durable(shard: &group::Shard) -> BTreeMap<Name, Durable> {
    let groups = shard.groups.iter().map(|(group_id, group)| {
        let offsets = group.offsets().clone();
        let pending = group.pending_offsets().clone();
        // A group that nobody has joined may have no record of its own.
        let has_record = |record: &GroupRecord| match record {
            GroupRecord::Group { value: Some(value), .. } => value.generation > 0,
            _ => false,
        };
        let group = group.snapshot().filter(has_record);
        (Name::clone(group_id), Durable { offsets, pending, group })
    });
    groups.collect()
}
