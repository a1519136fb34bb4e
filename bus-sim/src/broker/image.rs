//! The metadata image: what a node knows of the cluster, made by replaying the metadata log.
//!
//! A broker's image can be older than the controller's; nothing that a broker decides looks beyond
//! its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use bus_core::{Topic, TopicPartition, Uuid};

use super::topic_config::TopicConfig;
use crate::config::SimConfig;
use crate::node::BrokerId;
use crate::protocol::cluster::{BrokerEpoch, MetadataRecord, PartitionState};

/// What a node knows of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// The offset of the next record to replay.
    pub(super) offset: i64,
    /// The brokers that ever registered.
    pub(super) brokers: BTreeMap<BrokerId, Registration>,
    /// The topics. Shared between images, which are equal most of the time.
    pub(super) topics: BTreeMap<Topic, Arc<TopicImage>>,
    /// What the brokers are configured with for topics that say nothing else.
    topic_defaults: TopicConfig,
}

/// A broker, as it registered last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registration {
    pub(super) epoch: BrokerEpoch,
    pub(super) incarnation: u32,
    pub(super) is_fenced: bool,
    /// In a controlled shutdown.
    pub(super) is_shutting_down: bool,
}

impl Registration {
    /// Whether the broker may lead, and be in sync.
    pub(super) const fn is_active(&self) -> bool {
        !self.is_fenced && !self.is_shutting_down
    }
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicImage {
    pub(super) topic_id: Uuid,
    pub(super) config: TopicConfig,
    /// By number, without gaps.
    pub(super) partitions: Vec<PartitionState>,
}

impl Image {
    /// The image of an empty log.
    pub(super) fn new(config: &SimConfig) -> Self {
        Self {
            offset: 0,
            brokers: BTreeMap::new(),
            topics: BTreeMap::new(),
            topic_defaults: TopicConfig::of_brokers(&config.broker),
        }
    }

    /// Learns a record. Records come in the order of the log.
    pub(super) fn replay(&mut self, record: &MetadataRecord) {
        self.offset += 1;
        match record {
            MetadataRecord::RegisterBroker { broker, broker_epoch, incarnation } => {
                let registration = Registration {
                    epoch: *broker_epoch,
                    incarnation: *incarnation,
                    is_fenced: true,
                    is_shutting_down: false,
                };
                self.brokers.insert(*broker, registration);
            }
            MetadataRecord::BrokerFenced { broker, is_fenced } => {
                if let Some(registration) = self.brokers.get_mut(broker) {
                    registration.is_fenced = *is_fenced;
                    // A broker that is fenced leaves its controlled shutdown: it may stop.
                    registration.is_shutting_down &= !is_fenced;
                }
            }
            MetadataRecord::BrokerInControlledShutdown { broker } => {
                if let Some(registration) = self.brokers.get_mut(broker) {
                    registration.is_shutting_down = true;
                }
            }
            MetadataRecord::Topic { topic, topic_id } => {
                let image = TopicImage {
                    topic_id: *topic_id,
                    config: self.topic_defaults.clone(),
                    partitions: Vec::new(),
                };
                self.topics.insert(topic.clone(), Arc::new(image));
            }
            MetadataRecord::TopicConfig { topic, config } => {
                let defaults = self.topic_defaults.clone();
                let image = self.topic_mut(topic);
                for (name, value) in config {
                    image.config.set(name, value.as_deref(), &defaults);
                }
            }
            MetadataRecord::Partition { topic, partition, state } => {
                let image = self.topic_mut(topic);
                let index = usize::try_from(*partition).unwrap_or(usize::MAX);
                if index < image.partitions.len() {
                    image.partitions[index].clone_from(state);
                } else {
                    assert_eq!(index, image.partitions.len(), "partitions are added in order");
                    image.partitions.push(state.clone());
                }
            }
            MetadataRecord::RemoveTopic { topic } => {
                self.topics.remove(topic);
            }
        }
    }

    /// The brokers that are registered and not fenced, sorted.
    pub(super) fn live_brokers(&self) -> impl Iterator<Item = BrokerId> {
        self.brokers.iter().filter(|(_, broker)| !broker.is_fenced).map(|(id, _)| *id)
    }

    /// A partition.
    pub(super) fn partition(&self, topic_partition: &TopicPartition) -> Option<&PartitionState> {
        let index = usize::try_from(topic_partition.partition).ok()?;
        self.topics.get(&topic_partition.topic)?.partitions.get(index)
    }

    fn topic_mut(&mut self, topic: &Topic) -> &mut TopicImage {
        let image =
            self.topics.get_mut(topic).expect("a topic's own record comes before the others");
        Arc::make_mut(image)
    }
}
