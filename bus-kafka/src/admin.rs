//! Administration: each operation runs on a thread that may block.

mod client;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Admin, BoxFuture, BrokerDescription, ClusterDescription, Error, ErrorKind, GroupDescription,
    GroupListing, GroupOffset, GroupState, NewTopic, Offset, OffsetAndMetadata, Operation,
    Partition, Result, Topic, TopicDescription, TopicPartition,
};
use futures_util::FutureExt as _;
use rdkafka::client::Client;

pub(crate) use self::client::AdminClient;
use crate::config::INTERNAL_TOPICS;
use crate::context::Context;
use crate::error::from_rdkafka;
use crate::ffi::Failure;
use crate::ffi::admin as requests;
use crate::{Attempts, OPERATION_TIMEOUT, metadata};

/// Administers a Kafka.
pub(crate) struct KafkaAdmin {
    client: Arc<AdminClient>,
}

impl KafkaAdmin {
    pub(crate) const fn new(client: Arc<AdminClient>) -> Self {
        Self { client }
    }

    /// Runs a blocking call in the name of an operation.
    fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        call: impl FnOnce(&Client<Context>) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        async move { self.client.run(call).await.map_err(|error| error.with_operation(operation)) }
            .boxed()
    }

    /// Runs a blocking call about a group in the name of an operation.
    fn run_of_groups<T: Send + 'static>(
        &self,
        operation: Operation,
        may_repeat: impl Fn(&Error) -> bool + Send + Sync + 'static,
        call: impl Fn(&Client<Context>, Duration) -> Result<T> + Send + Sync + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        async move {
            let outcome = self.client.run_of_groups(may_repeat, call).await;
            outcome.map_err(|error| error.with_operation(operation))
        }
        .boxed()
    }
}

impl Admin for KafkaAdmin {
    fn create_topic(&self, topic: NewTopic) -> BoxFuture<'_, Result<()>> {
        self.run(Operation::CreateTopic, move |client| {
            check(&topic)?;
            requests::create_topic(client.native_client(), &topic, OPERATION_TIMEOUT)
                .map_err(Failure::into_error)?;
            await_topic(client, &topic.topic, topic.partitions)
        })
    }

    fn delete_topic(&self, topic: Topic) -> BoxFuture<'_, Result<()>> {
        self.run(Operation::DeleteTopic, move |client| {
            topic.validate()?;
            requests::delete_topic(client.native_client(), topic.as_str(), OPERATION_TIMEOUT)
                .map_err(Failure::into_error)?;
            await_metadata(|| match metadata::of_topic(client, &topic, OPERATION_TIMEOUT) {
                Err(error) => error.kind() == ErrorKind::UnknownTopicOrPartition,
                Ok(_) => false,
            });
            Ok(())
        })
    }

    fn create_partitions(&self, topic: Topic, partitions: Partition) -> BoxFuture<'_, Result<()>> {
        self.run(Operation::CreatePartitions, move |client| {
            topic.validate()?;
            let count = usize::try_from(partitions).ok().filter(|count| *count > 0);
            let count = count.ok_or_else(|| invalid_partitions(partitions))?;
            let client_ = client.native_client();
            requests::create_partitions(client_, topic.as_str(), count, OPERATION_TIMEOUT)
                .map_err(Failure::into_error)?;
            await_topic(client, &topic, partitions)
        })
    }

    fn describe_topic(&self, topic: Topic) -> BoxFuture<'_, Result<TopicDescription>> {
        self.run(Operation::DescribeTopics, move |client| {
            topic.validate()?;
            metadata::of_topic(client, &topic, OPERATION_TIMEOUT)
        })
    }

    fn list_topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        self.run(Operation::DescribeTopics, |client| {
            let metadata = client
                .fetch_metadata(None, OPERATION_TIMEOUT)
                .map_err(|error| from_rdkafka(&error, Operation::DescribeTopics))?;
            let names = metadata.topics().iter().map(rdkafka::metadata::MetadataTopic::name);
            let mut topics: Vec<Topic> =
                names.filter(|name| !INTERNAL_TOPICS.contains(name)).map(Topic::from).collect();
            topics.sort();
            Ok(topics)
        })
    }

    fn describe_cluster(&self) -> BoxFuture<'_, Result<ClusterDescription>> {
        self.run(Operation::DescribeCluster, |client| {
            let metadata = client
                .fetch_metadata(None, OPERATION_TIMEOUT)
                .map_err(|error| from_rdkafka(&error, Operation::DescribeCluster))?;
            let cluster_id = requests::cluster_id(client.native_client(), Duration::ZERO);
            Ok(ClusterDescription { cluster_id, brokers: metadata::brokers(&metadata) })
        })
    }

    fn list_groups(&self) -> BoxFuture<'_, Result<Vec<GroupListing>>> {
        self.run(Operation::ListGroups, |client| {
            let mut groups = requests::list_groups(client.native_client(), OPERATION_TIMEOUT)
                .map_err(Failure::into_error)?;
            groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
            Ok(groups)
        })
    }

    fn describe_group<'a>(&'a self, group_id: &'a str) -> BoxFuture<'a, Result<GroupDescription>> {
        let group_id = group_id.to_owned();
        self.run_of_groups(
            Operation::DescribeGroup,
            |_| true,
            move |client, timeout| describe_group(client, &group_id, timeout),
        )
    }

    fn group_offsets<'a>(&'a self, group_id: &'a str) -> BoxFuture<'a, Result<Vec<GroupOffset>>> {
        let group_id = group_id.to_owned();
        self.run_of_groups(
            Operation::GroupOffsets,
            |_| true,
            move |client, timeout| group_offsets(client, &group_id, timeout),
        )
    }

    fn delete_group<'a>(&'a self, group_id: &'a str) -> BoxFuture<'a, Result<()>> {
        let group_id = group_id.to_owned();
        let is_certain = |error: &Error| !error.is_indeterminate();
        self.run_of_groups(Operation::DeleteGroup, is_certain, move |client, timeout| {
            requests::delete_group(client.native_client(), &group_id, timeout)
                .map_err(|failure| failure.into_error().with_group_id(&group_id))
        })
    }

    fn alter_group_offsets<'a>(
        &'a self,
        _: &'a str,
        _: &'a [(TopicPartition, OffsetAndMetadata)],
    ) -> BoxFuture<'a, Result<()>> {
        unsupported(Operation::AlterGroupOffsets)
    }

    fn topic_config(&self, _: Topic) -> BoxFuture<'_, Result<BTreeMap<String, String>>> {
        unsupported(Operation::TopicConfig)
    }

    fn alter_topic_config(
        &self,
        _: Topic,
        _: BTreeMap<String, Option<String>>,
    ) -> BoxFuture<'_, Result<()>> {
        unsupported(Operation::TopicConfig)
    }

    fn delete_records(&self, _: TopicPartition, _: Offset) -> BoxFuture<'_, Result<Offset>> {
        unsupported(Operation::DeleteRecords)
    }
}

impl fmt::Debug for KafkaAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KafkaAdmin")
    }
}

/// What can be said of a new topic without asking the controller.
fn check(topic: &NewTopic) -> Result<()> {
    topic.topic.validate()?;
    if topic.partitions < 1 {
        return Err(invalid_partitions(topic.partitions));
    }
    match topic.replication_factor {
        Some(factor) if factor < 1 => Err(Error::new(
            ErrorKind::InvalidReplicationFactor,
            format!("replication factor {factor} is below 1"),
        )),
        _ => Ok(()),
    }
}

fn invalid_partitions(partitions: Partition) -> Error {
    let message = format!("a topic has at least 1 partition, not {partitions}");
    Error::new(ErrorKind::InvalidPartitions, message)
}

fn describe_group(
    client: &Client<Context>,
    group_id: &str,
    timeout: Duration,
) -> Result<GroupDescription> {
    let described = requests::describe_group(client.native_client(), group_id, timeout)
        .map_err(Failure::into_error);
    let mut group = match described {
        Ok(group) => group,
        // Newer brokers say it where older ones describe a dead group (KIP-1043).
        Err(error) if error.kind() == ErrorKind::GroupIdNotFound => GroupDescription {
            group_id: group_id.to_owned(),
            state: GroupState::Dead,
            assignor: String::new(),
            members: Vec::new(),
        },
        Err(error) => return Err(error.with_group_id(group_id)),
    };
    group.members.sort_by(|a, b| (&a.client_id, &a.member_id).cmp(&(&b.client_id, &b.member_id)));
    Ok(group)
}

fn group_offsets(
    client: &Client<Context>,
    group_id: &str,
    timeout: Duration,
) -> Result<Vec<GroupOffset>> {
    let native = client.native_client();
    let listed =
        match requests::group_offsets(native, group_id, timeout).map_err(Failure::into_error) {
            Ok(listed) => listed,
            Err(error) if error.kind() == ErrorKind::GroupIdNotFound => Vec::new(),
            Err(error) => return Err(error.with_group_id(group_id)),
        };
    let mut offsets: Vec<_> = listed
        .into_iter()
        .filter(|listed| listed.offset >= 0 && listed.error.is_none())
        .map(|listed| GroupOffset {
            topic_partition: listed.topic_partition,
            committed: OffsetAndMetadata { offset: listed.offset, metadata: listed.metadata },
            end: 0,
        })
        .collect();
    if offsets.is_empty() {
        return Ok(offsets);
    }
    offsets.sort_by(|a, b| a.topic_partition.cmp(&b.topic_partition));
    let mut partitions: Vec<_> =
        offsets.iter().map(|offset| offset.topic_partition.clone()).collect();
    // Offsets may outlive their topic, and of such a topic no leader knows the end.
    let mut topics: Vec<_> = partitions.iter().map(|partition| partition.topic.clone()).collect();
    topics.dedup();
    for topic in topics {
        match metadata::of_topic(client, &topic, timeout) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::UnknownTopicOrPartition => {
                partitions.retain(|partition| partition.topic != topic);
            }
            Err(error) => return Err(error.with_group_id(group_id)),
        }
    }
    let ends = if partitions.is_empty() {
        Vec::new()
    } else {
        requests::high_watermarks(native, &partitions, timeout)
            .map_err(|failure| failure.into_error().with_group_id(group_id))?
    };
    for offset in &mut offsets {
        let end = ends.iter().find(|end| end.topic_partition == offset.topic_partition);
        // A partition whose end is not known, because its topic was deleted, has no lag.
        offset.end = end
            .filter(|end| end.error.is_none() && end.offset >= 0)
            .map_or(offset.committed.offset, |end| end.offset);
    }
    Ok(offsets)
}

/// Waits until this client sees the topic with all its partitions, their leaders answer for them,
/// and every other broker knows it: a client may ask any of them.
fn await_topic(client: &Client<Context>, topic: &Topic, partitions: Partition) -> Result<()> {
    /// A broker that is slower may have died a moment ago.
    const PATIENCE: Duration = Duration::from_secs(1);

    let wanted: Vec<_> =
        (0..partitions).map(|partition| TopicPartition::new(topic, partition)).collect();
    let native = client.native_client();
    let is_led = || {
        metadata::of_topic(client, topic, OPERATION_TIMEOUT).is_ok_and(|found| {
            found.partitions.len() >= wanted.len()
                && found.partitions.iter().all(|partition| partition.leader.is_some())
        })
    };
    let is_answered_for = || {
        requests::high_watermarks(native, &wanted, OPERATION_TIMEOUT)
            .is_ok_and(|ends| ends.iter().all(|end| end.error.is_none()))
    };
    let is_known = |broker: &BrokerDescription| {
        requests::partitions_known(native, broker.id, topic, PATIENCE)
            .is_ok_and(|count| count >= wanted.len())
    };
    let is_known_everywhere = || {
        client.fetch_metadata(Some(topic.as_str()), OPERATION_TIMEOUT).is_ok_and(|metadata| {
            let brokers = metadata::brokers(&metadata);
            brokers.len() == 1 || brokers.iter().all(is_known)
        })
    };
    await_metadata(|| is_led() && is_answered_for() && is_known_everywhere());
    Ok(())
}

/// Asks until the metadata is as it should be. The controller has done its part, and brokers learn
/// of it within milliseconds; if one does not, the operation still has succeeded.
fn await_metadata(is_there: impl Fn() -> bool) {
    const LIMIT: Duration = Duration::from_secs(10);

    let mut attempts = Attempts::within(LIMIT);
    while !is_there() && attempts.pause() {}
}

fn unsupported<'a, T: Send + 'a>(operation: Operation) -> BoxFuture<'a, Result<T>> {
    let message = "bus-kafka does not do this yet; see docs/fidelity.md";
    std::future::ready(Err(Error::new(ErrorKind::Unsupported, message).with_operation(operation)))
        .boxed()
}
