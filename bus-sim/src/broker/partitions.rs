//! The partitions of a broker: what follows when the image changes one of them, and when more of
//! one is committed.

use bus_core::TopicPartition;

use super::image::TopicImage;
use super::replica::{Followed, Replica};
use super::{Broker, OFFSETS_TOPIC};
use crate::fact::Fact;
use crate::node::Effects;
use crate::protocol::cluster::PartitionState;
use crate::time::SimTime;

impl Broker {
    /// Makes the replica of a partition what the image says.
    pub(super) fn follow_partition(
        &mut self,
        now: SimTime,
        topic_partition: &TopicPartition,
        (image, state): (&TopicImage, &PartitionState),
        effects: &mut Effects,
    ) -> Followed {
        let replica = self
            .replicas
            .entry(topic_partition.clone())
            .or_insert_with(|| Replica::new(image.topic_id, &self.config));
        let brokers = &self.image.brokers;
        let followed = replica.follow_image(now, self.id, state, &image.config, brokers);
        let Followed { is_new_epoch, had_lead, has_lead, has_advanced } = followed;
        if has_lead && state.replicas.len() > 1 {
            if is_new_epoch {
                effects.fact(Fact::EpochStart {
                    broker: self.id,
                    topic_partition: topic_partition.clone(),
                    leader_epoch: state.leader_epoch,
                    offset: replica.log.end(),
                });
            }
            self.watch_in_sync(now, effects);
        }
        if is_new_epoch {
            self.stop_following(topic_partition);
            if !has_lead {
                self.start_following(now, topic_partition, effects);
            }
        }
        if had_lead && (is_new_epoch || !has_lead) {
            self.refuse_waiting(topic_partition, effects);
        }
        if has_advanced {
            self.watermark_rose(now, topic_partition, effects);
        }
        followed
    }

    /// Removes the replica of a partition that is deleted.
    pub(super) fn remove_partition(
        &mut self,
        topic_partition: &TopicPartition,
        effects: &mut Effects,
    ) {
        self.stop_following(topic_partition);
        let Some(mut replica) = self.replicas.remove(topic_partition) else { return };
        let waiters = replica.take_fetch_waiters();
        waiters.into_iter().for_each(|waiter| self.complete_fetch(waiter, effects));
        self.settle_produces(topic_partition, effects);
        self.settle_markers(effects);
    }

    /// Answers what waits for a partition that this broker does not lead any more, or in another
    /// epoch.
    fn refuse_waiting(&mut self, topic_partition: &TopicPartition, effects: &mut Effects) {
        let Some(replica) = self.replicas.get_mut(topic_partition) else { return };
        let waiters = replica.take_fetch_waiters();
        waiters.into_iter().for_each(|waiter| self.complete_fetch(waiter, effects));
        self.settle_produces(topic_partition, effects);
        self.settle_markers(effects);
    }

    /// Goes on with what waits for a partition to have more.
    pub(super) fn partition_grew(
        &mut self,
        topic_partition: &TopicPartition,
        effects: &mut Effects,
    ) {
        self.tell_watermark(topic_partition, effects);
        self.wake_fetches(topic_partition, effects);
        self.settle_produces(topic_partition, effects);
        self.settle_markers(effects);
    }

    /// Goes on with what waits for more of a partition to be committed.
    pub(super) fn watermark_rose(
        &mut self,
        now: SimTime,
        topic_partition: &TopicPartition,
        effects: &mut Effects,
    ) {
        self.tell_watermark(topic_partition, effects);
        if topic_partition.topic.as_str() == OFFSETS_TOPIC {
            self.commit_writes(now, topic_partition.partition, effects);
        } else if topic_partition.topic == self.transactions_topic {
            self.commit_transactions(now, topic_partition.partition, effects);
        }
        self.partition_grew(topic_partition, effects);
    }

    fn tell_watermark(&mut self, topic_partition: &TopicPartition, effects: &mut Effects) {
        let Some(replica) = self.replicas.get_mut(topic_partition) else { return };
        if let Some(offset) = replica.take_risen() {
            let (broker, topic_partition) = (self.id, topic_partition.clone());
            effects.fact(Fact::HighWatermark { broker, topic_partition, offset });
        }
    }

    /// Learns that brokers registered, were fenced, or unfenced.
    pub(super) fn follow_brokers(&mut self) {
        for replica in self.replicas.values_mut() {
            replica.follow_brokers(&self.image.brokers);
        }
    }

    /// Begins with what a broker does as long as it is up.
    pub(super) fn start_replication(&mut self, now: SimTime, effects: &mut Effects) {
        self.proposals.start();
        if self.replicas.values().any(Replica::has_followers) {
            self.watch_in_sync(now, effects);
        }
        self.wake_fetchers(now, effects);
    }

    /// Loses what is in memory, and what the system has not written to the disk.
    pub fn lose_power(&mut self, now: SimTime, effects: &mut Effects) {
        for (topic_partition, replica) in &mut self.replicas {
            let from = replica.log.end();
            replica.lose_power(now);
            let to = replica.log.end();
            if to < from {
                let (broker, topic_partition) = (self.id, topic_partition.clone());
                effects.fact(Fact::PageCacheLost { broker, topic_partition, from, to });
            }
        }
        self.crash(now);
    }

    /// Writes all to the disk, as a broker that stops does.
    pub fn flush(&mut self) {
        self.replicas.values_mut().for_each(Replica::flush);
    }
}
