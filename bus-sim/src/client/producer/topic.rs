//! What a producer keeps per topic: partition queues, and records that wait for metadata.

use std::collections::VecDeque;
use std::time::Duration;

use bus_core::{Error, ErrorKind, Partition, Topic, TopicPartition, partitioner};

use crate::choice::Label;
use crate::client::Identity;
use crate::time::SimTime;

use super::partition::{PartitionQueue, Pending};

/// A topic that records were sent to.
#[derive(Debug)]
pub(super) struct TopicState {
    /// Empty until the metadata is there.
    pub(super) partitions: Vec<PartitionQueue>,
    /// Records that wait for the metadata, with their explicit partitions.
    pub(super) unassigned: VecDeque<(Option<Partition>, Pending)>,
    /// Since when the topic is unknown: after a while its records fail.
    pub(super) unknown_since: SimTime,
    /// It was unknown for so long that its records failed: until it is found, further ones are not
    /// taken at all.
    pub(super) is_missing: bool,
    sticky: Option<Sticky>,
    sticky_changes: u32,
}

/// Where records without key go for a while (KIP-480).
#[derive(Debug)]
struct Sticky {
    partition: usize,
    until: SimTime,
}

impl TopicState {
    pub(super) const fn unknown(now: SimTime) -> Self {
        Self {
            partitions: Vec::new(),
            unassigned: VecDeque::new(),
            unknown_since: now,
            is_missing: false,
            sticky: None,
            sticky_changes: 0,
        }
    }

    /// Which partition a record goes to; `None` while the topic is unknown.
    #[expect(clippy::too_many_arguments, reason = "all that a partitioner may look at")]
    pub(super) fn partition_for(
        &mut self,
        now: SimTime,
        identity: &Identity,
        topic: &Topic,
        explicit: Option<Partition>,
        key: Option<&[u8]>,
        sticky_linger: Duration,
        bias: Partition,
    ) -> Option<Result<usize, Error>> {
        let count = Partition::try_from(self.partitions.len()).ok().filter(|count| *count > 0)?;
        let partition = match (explicit, key) {
            (Some(explicit), _) if explicit >= count => {
                let message = format!("partition {explicit} is out of range 0..{count}");
                let topic_partition = TopicPartition::new(topic, explicit);
                return Some(Err(Error::new(ErrorKind::UnknownTopicOrPartition, message)
                    .with_topic_partition(topic_partition)));
            }
            (Some(explicit), _) => explicit,
            (None, Some(key)) => (partitioner::partition_for_key(key, count) + bias) % count,
            (None, None) => return Some(Ok(self.sticky(now, identity, topic, sticky_linger))),
        };
        Some(Ok(usize::try_from(partition).unwrap_or(0)))
    }

    fn sticky(
        &mut self,
        now: SimTime,
        identity: &Identity,
        topic: &Topic,
        linger: Duration,
    ) -> usize {
        if let Some(sticky) = &self.sticky
            && now < sticky.until
        {
            return sticky.partition;
        }
        self.sticky_changes += 1;
        let bound = u64::try_from(self.partitions.len()).unwrap_or(1);
        let cause = (topic, self.sticky_changes);
        let drawn = identity.choose(Label::StickyPartition, cause, bound);
        let partition = usize::try_from(drawn).unwrap_or(0);
        self.sticky = Some(Sticky { partition, until: now + linger });
        partition
    }
}
