//! CreateTopics, DeleteTopics, CreatePartitions: brokers forward them to the controller.

use std::collections::BTreeMap;

use bus_core::{ErrorKind, Partition, Topic};

/// Creates topics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CreateTopicsRequest {
    /// Which ones.
    pub topics: Vec<CreatableTopic>,
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CreatableTopic {
    /// The name.
    pub topic: Topic,
    /// How many partitions.
    pub partitions: Partition,
    /// How many replicas each; `None` for the default.
    pub replication_factor: Option<i16>,
    /// Topic properties.
    pub config: BTreeMap<String, String>,
}

/// Deletes topics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeleteTopicsRequest {
    /// Which ones.
    pub topics: Vec<Topic>,
}

/// Grows topics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CreatePartitionsRequest {
    /// Which ones, and to how many partitions in all.
    pub topics: Vec<(Topic, Partition)>,
}

/// What came of it, for each of the three.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicResponse {
    /// Per topic of the request, in its order.
    pub topics: Vec<TopicResult>,
}

/// What came of it for a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicResult {
    /// The topic.
    pub topic: Topic,
    /// Why it was refused, with a sentence, if it was.
    pub error: Option<(ErrorKind, String)>,
}
