//! Metadata and FindCoordinator: what this broker's image says.
//!
//! The image can be older than the truth: a leader that was replaced, a topic that was just
//! created.
//!
//! Absent: topics made by asking for them (`auto.create.topics.enable` is off, as the shared
//! configuration of both backends has it). See `docs/fidelity.md`.

use std::sync::Arc;

use bus_core::{ErrorKind, Partition, Topic};

use super::Broker;
use super::connections::Caller;
use super::image::TopicImage;
use super::topic_control::is_internal;
use crate::node::{BrokerId, Effects};
use crate::protocol::Response;
use crate::protocol::find_coordinator::{self, CoordinatorType};
use crate::protocol::metadata::{self, PartitionMetadata, TopicDetails, TopicMetadata};

impl Broker {
    pub(super) fn metadata(
        &mut self,
        caller: Caller,
        request: &metadata::Request,
        effects: &mut Effects,
    ) {
        let describe = |(topic, image): (&Topic, &Arc<TopicImage>)| TopicMetadata {
            topic: topic.clone(),
            result: Ok(details(topic, image)),
        };
        let topics = match &request.topics {
            None => self.image.topics.iter().map(describe).collect(),
            Some(topics) => topics
                .iter()
                .map(|topic| match self.image.topics.get_key_value(topic) {
                    Some(found) => describe(found),
                    None => {
                        let error = match topic.validate() {
                            Ok(()) => ErrorKind::UnknownTopicOrPartition,
                            Err(_) => ErrorKind::InvalidTopic,
                        };
                        TopicMetadata { topic: topic.clone(), result: Err(error) }
                    }
                })
                .collect(),
        };
        let response = metadata::Response {
            cluster_id: CLUSTER_ID.to_owned(),
            brokers: self.image.live_brokers().collect(),
            topics,
        };
        self.connections.respond(caller, Response::Metadata(response), effects);
    }

    pub(super) fn find_coordinator(
        &mut self,
        caller: Caller,
        request: &find_coordinator::Request,
        effects: &mut Effects,
    ) {
        let result = match request.coordinator_type {
            CoordinatorType::Group => self.leader_of(&self.offsets_topic, &request.key),
            CoordinatorType::Transaction => self.transaction_coordinator(&request.key),
        };
        let response = Response::FindCoordinator(find_coordinator::Response { result });
        self.connections.respond(caller, response, effects);
    }

    /// The coordinator of a transactional id.
    pub(super) fn transaction_coordinator(
        &self,
        transactional_id: &str,
    ) -> Result<BrokerId, ErrorKind> {
        self.leader_of(&self.transactions_topic, transactional_id)
    }

    fn leader_of(&self, topic: &Topic, key: &str) -> Result<BrokerId, ErrorKind> {
        let (_, index) = self.partition_of(topic, key)?;
        let leader = self.image.topics[topic].partitions[index].leader;
        leader.ok_or(ErrorKind::CoordinatorNotAvailable)
    }

    /// The partition of `__consumer_offsets` that a group belongs to, as a number and as an index.
    pub(super) fn coordinator_partition(
        &self,
        group_id: &str,
    ) -> Result<(Partition, usize), ErrorKind> {
        self.partition_of(&self.offsets_topic, group_id)
    }

    /// The partition of an internal topic that a key belongs to, as a number and as an index.
    pub(super) fn partition_of(
        &self,
        topic: &Topic,
        key: &str,
    ) -> Result<(Partition, usize), ErrorKind> {
        let topic = self.image.topics.get(topic);
        let count = topic.map_or(0, |topic| topic.partitions.len());
        let partition = partition_of_key(key, count).ok_or(ErrorKind::CoordinatorNotAvailable)?;
        Ok((partition, usize::try_from(partition).unwrap_or(0)))
    }
}

fn details(topic: &Topic, image: &TopicImage) -> TopicDetails {
    let partitions = (0..).zip(&image.partitions).map(|(partition, state)| PartitionMetadata {
        partition,
        leader: state.leader,
        leader_epoch: state.leader_epoch,
        replicas: state.replicas.clone(),
        in_sync_replicas: state.in_sync_replicas.clone(),
    });
    TopicDetails {
        topic_id: image.topic_id,
        is_internal: is_internal(topic),
        partitions: partitions.collect(),
    }
}

/// The partition of an internal topic of `count` that a key belongs to; none if it has none.
pub(super) fn partition_of_key(key: &str, count: usize) -> Option<Partition> {
    let count = Partition::try_from(count).unwrap_or(0);
    (java_hash(key) & i32::MAX).checked_rem(count)
}

/// Java's `String.hashCode`.
fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0, |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(unit.into()))
}

/// The id of the cluster.
const CLUSTER_ID: &str = "bus-sim";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_java() {
        assert_eq!(java_hash(""), 0);
        assert_eq!(java_hash("hello"), 99_162_322);
        assert_eq!(java_hash("group-1"), 293_427_299);
        assert_eq!(java_hash("주문"), 1_642_940);
        assert_eq!(java_hash("😀"), 1_772_899);
    }
}
