//! Administration: topics, groups, and the cluster.

use std::collections::BTreeMap;
use std::fmt;

use futures_util::future::BoxFuture;

use crate::consumer::OffsetAndMetadata;
use crate::error::Result;
use crate::record::{Offset, Partition, Topic, TopicPartition};

/// Administers a cluster. Made by [`Bus::admin`](crate::Bus::admin).
///
/// An operation returns when the controller has done it; clients learn of it a little later, with
/// their next metadata. What a backend does not do yet is
/// [`ErrorKind::Unsupported`](crate::ErrorKind) and stands in `docs/fidelity.md`.
pub trait Admin: Send + Sync + fmt::Debug {
    /// Creates a topic.
    ///
    /// # Errors
    /// `TopicAlreadyExists`, `InvalidTopic`, `InvalidPartitions`, `InvalidReplicationFactor`,
    /// `InvalidConfig`.
    fn create_topic(&self, topic: NewTopic) -> BoxFuture<'_, Result<()>>;

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    fn delete_topic(&self, topic: Topic) -> BoxFuture<'_, Result<()>>;

    /// Grows a topic to `partitions` partitions in all. Keys map to other partitions afterwards.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; `InvalidPartitions` if there are as many or more already.
    fn create_partitions(&self, topic: Topic, partitions: Partition) -> BoxFuture<'_, Result<()>>;

    /// Describes one topic.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    fn describe_topic(&self, topic: Topic) -> BoxFuture<'_, Result<TopicDescription>>;

    /// The names of all topics but the internal ones, sorted.
    fn list_topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>>;

    /// Describes the cluster.
    fn describe_cluster(&self) -> BoxFuture<'_, Result<ClusterDescription>>;

    /// All groups, sorted by id.
    fn list_groups(&self) -> BoxFuture<'_, Result<Vec<GroupListing>>>;

    /// Describes a group. One that does not exist is described as `Dead` and empty, as Kafka does
    /// in the classic protocol.
    fn describe_group<'a>(&'a self, group_id: &'a str) -> BoxFuture<'a, Result<GroupDescription>>;

    /// The committed offsets of a group with the end of each log, and so the lag; sorted by
    /// partition. Empty for a group that does not exist.
    fn group_offsets<'a>(&'a self, group_id: &'a str) -> BoxFuture<'a, Result<Vec<GroupOffset>>>;

    /// Deletes a group with its offsets.
    ///
    /// # Errors
    /// `NonEmptyGroup`, `GroupIdNotFound`.
    fn delete_group<'a>(&'a self, group_id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Sets committed offsets of a group that has no members (`--reset-offsets`).
    ///
    /// # Errors
    /// `UnknownMemberId` if it has members.
    fn alter_group_offsets<'a>(
        &'a self,
        group_id: &'a str,
        offsets: &'a [(TopicPartition, OffsetAndMetadata)],
    ) -> BoxFuture<'a, Result<()>>;

    /// The configuration of a topic, every property with its value.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    fn topic_config(&self, topic: Topic) -> BoxFuture<'_, Result<BTreeMap<String, String>>>;

    /// Changes properties of a topic; `None` restores the default.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, `InvalidConfig`.
    fn alter_topic_config(
        &self,
        topic: Topic,
        changes: BTreeMap<String, Option<String>>,
    ) -> BoxFuture<'_, Result<()>>;

    /// Deletes the records before the given offset and returns the new log start.
    ///
    /// # Errors
    /// `OffsetOutOfRange`, `UnknownTopicOrPartition`.
    fn delete_records(
        &self,
        topic_partition: TopicPartition,
        before: Offset,
    ) -> BoxFuture<'_, Result<Offset>>;
}

/// A topic to create.
///
/// ```
/// use bus_core::NewTopic;
///
/// let topic = NewTopic::new("orders").partitions(3).config("retention.ms", "604800000");
/// assert_eq!(topic.replication_factor, None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// The name.
    pub topic: Topic,
    /// How many partitions; 1 by default.
    pub partitions: Partition,
    /// How many replicas each has; `None` for the cluster's `default.replication.factor`.
    pub replication_factor: Option<i16>,
    /// Topic properties, such as `min.insync.replicas`.
    pub config: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic of one partition with the cluster's defaults.
    pub fn new(topic: impl Into<Topic>) -> Self {
        Self {
            topic: topic.into(),
            partitions: 1,
            replication_factor: None,
            config: BTreeMap::new(),
        }
    }

    /// Sets the number of partitions.
    #[must_use]
    pub const fn partitions(mut self, partitions: Partition) -> Self {
        self.partitions = partitions;
        self
    }

    /// Sets the number of replicas.
    #[must_use]
    pub const fn replication_factor(mut self, replication_factor: i16) -> Self {
        self.replication_factor = Some(replication_factor);
        self
    }

    /// Sets a topic property.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.insert(name.into(), value.into());
        self
    }
}

/// A topic as the cluster has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// The name.
    pub topic: Topic,
    /// The partitions, in order.
    pub partitions: Vec<PartitionDescription>,
}

/// A partition as the cluster has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDescription {
    /// The number of the partition.
    pub partition: Partition,
    /// The broker that leads it, if one does.
    pub leader: Option<i32>,
    /// The brokers that hold it, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub in_sync_replicas: Vec<i32>,
}

/// The cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// The id of the cluster, where the backend knows it.
    pub cluster_id: Option<String>,
    /// The brokers that are up, sorted by id.
    pub brokers: Vec<BrokerDescription>,
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerDescription {
    /// Its id.
    pub id: i32,
    /// The address that clients use, as `host:port`.
    pub address: String,
}

/// The state of a group (classic protocol).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupState {
    /// No members; offsets may remain.
    Empty,
    /// Waiting for the members to join.
    PreparingRebalance,
    /// Waiting for the assignment of the leader.
    CompletingRebalance,
    /// Every member has its assignment.
    Stable,
    /// Gone.
    Dead,
    /// The backend gave a state that this version does not know.
    Unknown,
}

impl GroupState {
    /// The state of that name in Kafka's protocol.
    pub fn from_name(name: &str) -> Self {
        match name {
            "Empty" => Self::Empty,
            "PreparingRebalance" => Self::PreparingRebalance,
            "CompletingRebalance" => Self::CompletingRebalance,
            "Stable" => Self::Stable,
            "Dead" => Self::Dead,
            _ => Self::Unknown,
        }
    }
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    /// The id.
    pub group_id: String,
    /// The state.
    pub state: GroupState,
}

/// A group with its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// The id.
    pub group_id: String,
    /// The state.
    pub state: GroupState,
    /// The assignor that the group agreed on; empty if none.
    pub assignor: String,
    /// The members, sorted by client id and member id.
    pub members: Vec<MemberDescription>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    /// The id that the coordinator gave it.
    pub member_id: String,
    /// The static id, where there is one and the backend tells it.
    pub group_instance_id: Option<String>,
    /// The client id.
    pub client_id: String,
    /// The partitions that it is assigned, sorted.
    pub assignment: Vec<TopicPartition>,
}

/// How far a group is in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The committed offset.
    pub committed: OffsetAndMetadata,
    /// The high watermark.
    pub end: Offset,
}

impl GroupOffset {
    /// Records that are in the log and not committed.
    pub const fn lag(&self) -> i64 {
        let lag = self.end - self.committed.offset;
        if lag < 0 { 0 } else { lag }
    }
}
