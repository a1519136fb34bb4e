//! What a client knows of the cluster: brokers, topics, and partitions.

use std::time::Duration;

use bus_core::{
    BrokerDescription, Error, ErrorKind, Operation, PartitionDescription, Result, Topic,
    TopicDescription,
};
use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::{Metadata, MetadataTopic};

use crate::error::{Code, from_rdkafka};

/// Describes a topic. Blocks until a broker has answered.
pub(crate) fn of_topic<C: ClientContext>(
    client: &Client<C>,
    topic: &Topic,
    timeout: Duration,
) -> Result<TopicDescription> {
    let metadata = client
        .fetch_metadata(Some(topic.as_str()), timeout)
        .map_err(|error| from_rdkafka(&error, Operation::DescribeTopics))?;
    match metadata.topics().iter().find(|found| *topic == found.name()) {
        Some(found) => describe(topic, found),
        None => Err(unknown(topic)),
    }
}

/// All brokers that are up, sorted by id.
pub(crate) fn brokers(metadata: &Metadata) -> Vec<BrokerDescription> {
    let mut brokers: Vec<_> = metadata
        .brokers()
        .iter()
        .map(|broker| BrokerDescription {
            id: broker.id(),
            address: format!("{}:{}", broker.host(), broker.port()),
        })
        .collect();
    brokers.sort_by_key(|broker| broker.id);
    brokers
}

fn describe(topic: &Topic, found: &MetadataTopic) -> Result<TopicDescription> {
    if let Some(code) = found.error() {
        let code = Code(code as i32);
        return Err(match code.known() {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                unknown(topic)
            }
            _ => code.error(""),
        });
    }
    let mut partitions: Vec<_> = found
        .partitions()
        .iter()
        .map(|partition| PartitionDescription {
            partition: partition.id(),
            leader: Some(partition.leader()).filter(|leader| *leader >= 0),
            replicas: partition.replicas().to_vec(),
            in_sync_replicas: partition.isr().to_vec(),
        })
        .collect();
    partitions.sort_by_key(|partition| partition.partition);
    Ok(TopicDescription { topic: topic.clone(), partitions })
}

/// The error of a topic that does not exist.
fn unknown(topic: &Topic) -> Error {
    let message = format!("topic {topic} does not exist");
    Error::new(ErrorKind::UnknownTopicOrPartition, message)
}
