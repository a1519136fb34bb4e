//! What a client knows of the cluster: brokers, partitions, leaders. It can be stale.

use std::collections::BTreeMap;

use bus_core::{Partition, Topic, TopicPartition};

use crate::node::BrokerId;
use crate::protocol::metadata::{self, TopicDetails};

/// What a client knows of the cluster.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) brokers: Vec<BrokerId>,
    pub(crate) topics: BTreeMap<Topic, TopicDetails>,
}

impl Metadata {
    /// Knows the brokers that it was given to start from, as `bootstrap.servers` does.
    pub(crate) fn new(brokers: i32) -> Self {
        Self { brokers: (1..=brokers).collect(), topics: BTreeMap::new() }
    }

    /// Learns from a response. Topics that the response does not mention stay as they are.
    pub(crate) fn update(&mut self, response: &metadata::Response) {
        if !response.brokers.is_empty() {
            self.brokers.clone_from(&response.brokers);
        }
        for topic in &response.topics {
            match &topic.result {
                Ok(details) => {
                    self.topics.insert(topic.topic.clone(), details.clone());
                }
                Err(_) => {
                    self.topics.remove(&topic.topic);
                }
            }
        }
    }

    /// How many partitions a topic has, if it is known.
    pub(crate) fn partitions(&self, topic: &Topic) -> Option<Partition> {
        Partition::try_from(self.topics.get(topic)?.partitions.len()).ok()
    }

    /// The leader of a partition with its epoch, if one is known.
    pub(crate) fn leader(&self, topic_partition: &TopicPartition) -> Option<(BrokerId, i32)> {
        let details = self.topics.get(&topic_partition.topic)?;
        let index = usize::try_from(topic_partition.partition).ok()?;
        let partition = details.partitions.get(index)?;
        Some((partition.leader?, partition.leader_epoch))
    }
}
