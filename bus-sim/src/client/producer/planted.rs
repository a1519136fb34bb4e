//! Planted bugs of the producer that take more than a line.

use bus_core::{Delivery, RecordMetadata, TopicPartition};

use crate::client::{Completion, DeliveredBatch};
use crate::mutation::Mutation;
use crate::node::Effects;

use super::Producer;
use super::partition::{Batch, PartitionQueue};

impl Producer {
    /// Whether a batch counts as delivered when it is sent.
    pub(super) fn acknowledges_when_sent(&self, queue: &PartitionQueue) -> bool {
        match self.mutation {
            Some(Mutation::AckedWhenSent) => true,
            Some(Mutation::PipelinedAckedWhenSent) => queue.in_flight.len() > 1,
            _ => false,
        }
    }

    /// Reports all records as delivered, though they are not: a planted bug.
    pub(super) fn pretend_delivery(&mut self, effects: &mut Effects) {
        for (topic, state) in &mut self.topics {
            let waiting = state.unassigned.drain(..).map(|(_, pending)| pending);
            let queued = state.partitions.iter_mut().flat_map(|queue| queue.open.drain(..));
            for (offset, pending) in (0..).zip(waiting.chain(queued)) {
                self.buffered_records -= 1;
                let metadata = RecordMetadata {
                    topic_partition: TopicPartition { topic: topic.clone(), partition: 0 },
                    offset: Some(offset),
                    timestamp: Some(pending.record.timestamp),
                };
                let sender = pending.sender;
                effects.complete(Completion::Reply(Box::new(move || {
                    sender.complete(Ok(metadata));
                })));
            }
        }
    }
}

/// Reports the records of a batch as delivered, somewhere. What comes of them nobody hears.
pub(super) fn acknowledge_early(
    topic_partition: &TopicPartition,
    batch: &mut Batch,
    effects: &mut Effects,
) {
    let unheard = batch.senders.iter().map(|_| Delivery::channel().0).collect();
    let senders = std::mem::replace(&mut batch.senders, unheard);
    let timestamps = batch.content.records.iter().map(|record| record.timestamp);
    effects.complete(Completion::Delivered(DeliveredBatch {
        topic_partition: topic_partition.clone(),
        base_offset: None,
        log_append_time: None,
        records: senders.into_iter().zip(timestamps).collect(),
    }));
}

/// Leaves the records of a batch without an outcome: to drop the senders would be one.
pub(super) fn forget(batch: Batch) {
    std::mem::forget(batch.senders);
}
