//! Metadata: brokers, topics, partitions, and their leaders, as one broker knows them.

use bus_core::{ErrorKind, Partition, Topic, Uuid};

use crate::node::BrokerId;

/// Asks for topics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Which ones; `None` for all.
    pub topics: Option<Vec<Topic>>,
}

/// What the broker knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// The id of the cluster.
    pub cluster_id: String,
    /// The brokers that are up, sorted.
    pub brokers: Vec<BrokerId>,
    /// Per topic asked for, in that order; all topics sorted by name.
    pub topics: Vec<TopicMetadata>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicMetadata {
    /// The name.
    pub topic: Topic,
    /// The partitions in order, or why there are none.
    pub result: Result<TopicDetails, ErrorKind>,
}

/// A topic that exists.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicDetails {
    /// The id, another one after the topic was deleted and made again.
    pub topic_id: Uuid,
    /// Whether it is Kafka's own.
    pub is_internal: bool,
    /// The partitions, in order.
    pub partitions: Vec<PartitionMetadata>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionMetadata {
    /// Its number.
    pub partition: Partition,
    /// The leader, if there is one.
    pub leader: Option<BrokerId>,
    /// The epoch of the leader.
    pub leader_epoch: i32,
    /// The replicas, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// Those in sync.
    pub in_sync_replicas: Vec<BrokerId>,
}
