//! Administration: one client for all, and each operation on a thread that may block.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bus_core::{
    Admin, BoxFuture, BrokerDescription, ClusterDescription, Error, ErrorKind, GroupDescription,
    GroupListing, GroupOffset, GroupState, NewTopic, Offset, OffsetAndMetadata, Operation,
    Partition, Result, Topic, TopicDescription, TopicPartition,
};
use futures_util::FutureExt as _;
use rdkafka::ClientConfig;
use rdkafka::client::Client;
use rdkafka::types::RDKafkaType;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::config::{INTERNAL_TOPICS, Options};
use crate::context::Context;
use crate::error::from_rdkafka;
use crate::ffi::admin as requests;
use crate::ffi::{EventKind, Failure, Queue};
use crate::offload::Offloaded;
use crate::{Attempts, OPERATION_TIMEOUT, blocking, metadata};

/// The client that administers, and by which `connect` finds out whether a Kafka is there.
pub(crate) struct AdminClient {
    native: Arc<Offloaded<Native>>,
    /// The client that asks what groups have committed, made when it is first needed. It is of the
    /// kind of consumers: librdkafka 2.12.1 ends the process with a segmentation fault if a
    /// coordinator tells another client that it has moved (`rd_kafka_handle_OffsetFetch` takes the
    /// group of the client, and only a consumer has one).
    of_groups: OnceLock<Arc<Offloaded<Native>>>,
    group_config: ClientConfig,
    runtime: Handle,
}

struct Native {
    // The queue goes before the client.
    queue: Queue,
    client: Client<Context>,
}

impl AdminClient {
    /// Connects, and waits for the first broker that answers.
    pub(crate) async fn connect(options: &Options, runtime: &Handle) -> Result<Self> {
        let admin = Self::create(options, runtime)?;
        let timeout = options.connect_timeout;
        let cluster_id = admin
            .run(move |client| Ok(requests::cluster_id(client.native_client(), timeout)))
            .await?;
        match cluster_id {
            Some(_) => Ok(admin),
            None => Err(unreachable(options, admin.native.client.context())),
        }
    }

    /// Not async: librdkafka's configuration must not be held while a future waits, because it is
    /// not `Send`.
    fn create(options: &Options, runtime: &Handle) -> Result<Self> {
        // Of the two kinds a producer has less: no group and no fetchers.
        let kind = RDKafkaType::RD_KAFKA_PRODUCER;
        Ok(Self {
            native: Native::create(&options.admin_config(), kind, runtime)?,
            of_groups: OnceLock::new(),
            group_config: options.group_admin_config(),
            runtime: runtime.clone(),
        })
    }

    /// Runs a blocking call.
    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Client<Context>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let native = Arc::clone(&self.native);
        blocking(&self.runtime, move || call(&native.client)).await?
    }

    /// Runs a blocking call of the client that asks what groups have committed.
    async fn run_of_groups<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Client<Context>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let native = Arc::clone(self.of_groups()?);
        blocking(&self.runtime, move || call(&native.client)).await?
    }

    fn of_groups(&self) -> Result<&Arc<Offloaded<Native>>> {
        if let Some(native) = self.of_groups.get() {
            return Ok(native);
        }
        let kind = RDKafkaType::RD_KAFKA_CONSUMER;
        let native = Native::create(&self.group_config, kind, &self.runtime)?;
        // Of two that are made at the same time one is dropped.
        Ok(self.of_groups.get_or_init(|| native))
    }
}

impl Native {
    fn create(
        config: &ClientConfig,
        kind: RDKafkaType,
        runtime: &Handle,
    ) -> Result<Arc<Offloaded<Self>>> {
        let failed = |error| from_rdkafka(&error, Operation::Connect);
        let native_config = config.create_native_config().map_err(failed)?;
        crate::ffi::enable_events(&native_config);
        let client =
            Client::new(config, native_config, kind, Context::default()).map_err(failed)?;
        let mut queue = Queue::main(client.native_client()).ok_or_else(|| {
            Error::new(ErrorKind::Backend, "librdkafka's client has no main queue")
        })?;
        let arrived = Arc::new(Notify::new());
        let notifier = Arc::clone(&arrived);
        queue.on_nonempty(move || notifier.notify_one());
        // Events may have come before the callback.
        arrived.notify_one();
        let native = Arc::new(Offloaded::new(Self { queue, client }));
        drop(runtime.spawn(serve(Arc::downgrade(&native), arrived)));
        Ok(native)
    }
}

/// Handles what the client tells on the side, until it is gone.
async fn serve(native: std::sync::Weak<Offloaded<Native>>, arrived: Arc<Notify>) {
    loop {
        arrived.notified().await;
        let Some(native) = native.upgrade() else { return };
        while let Some(event) = native.queue.poll(Duration::ZERO) {
            match (event.kind(), event.failure()) {
                (EventKind::Error { .. }, Some(Failure { code, message })) => {
                    native.client.context().side_error(code, &message);
                }
                (other, _) => native.client.context().side_event(other),
            }
        }
    }
}

fn unreachable(options: &Options, context: &Context) -> Error {
    let Options { bootstrap, connect_timeout, .. } = options;
    let last =
        context.last_error().map_or_else(String::new, |last| format!("; last error: {last}"));
    let message = format!(
        "no broker answered within {connect_timeout:?} at {bootstrap}{last}; check that a Kafka \
         listens there, that security.protocol is right, and connect.timeout.ms"
    );
    let kind = if context.is_refused() {
        ErrorKind::AuthenticationFailed
    } else {
        ErrorKind::AllBrokersDown
    };
    Error::new(kind, message).with_operation(Operation::Connect)
}

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
        self.run(Operation::DescribeGroup, move |client| describe_group(client, &group_id))
    }

    fn group_offsets<'a>(&'a self, group_id: &'a str) -> BoxFuture<'a, Result<Vec<GroupOffset>>> {
        let group_id = group_id.to_owned();
        let operation = Operation::GroupOffsets;
        async move {
            let offsets = self.client.run_of_groups(move |client| group_offsets(client, &group_id));
            offsets.await.map_err(|error| error.with_operation(operation))
        }
        .boxed()
    }

    fn delete_group<'a>(&'a self, group_id: &'a str) -> BoxFuture<'a, Result<()>> {
        let group_id = group_id.to_owned();
        self.run(Operation::DeleteGroup, move |client| {
            requests::delete_group(client.native_client(), &group_id, OPERATION_TIMEOUT)
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

fn describe_group(client: &Client<Context>, group_id: &str) -> Result<GroupDescription> {
    let described = requests::describe_group(client.native_client(), group_id, OPERATION_TIMEOUT)
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

fn group_offsets(client: &Client<Context>, group_id: &str) -> Result<Vec<GroupOffset>> {
    let native = client.native_client();
    let listed = match requests::group_offsets(native, group_id, OPERATION_TIMEOUT)
        .map_err(Failure::into_error)
    {
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
        match metadata::of_topic(client, &topic, OPERATION_TIMEOUT) {
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
        requests::high_watermarks(native, &partitions, OPERATION_TIMEOUT)
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
