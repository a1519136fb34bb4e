//! Administration from a simulated process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bus_core::{
    Admin, BoxFuture, BrokerDescription, ClusterDescription, Error, ErrorKind, GroupDescription,
    GroupListing, GroupOffset, IsolationLevel, MemberDescription, NewTopic, Offset,
    OffsetAndMetadata, Operation, Partition, PartitionDescription, Result, Topic, TopicDescription,
    TopicPartition,
};

use crate::client::ClientMachine;
use crate::client::admin::Target;
use crate::client::consumer::wire::decode_assignment;
use crate::node::{BrokerId, ClientId, Name};
use crate::protocol::list_offsets::OffsetSpec;
use crate::protocol::metadata::{TopicDetails, TopicMetadata};
use crate::protocol::topics::CreatableTopic;
use crate::protocol::{Request, Response, groups, list_offsets, metadata, offset_fetch, topics};
use crate::world::CallRecord;

use super::Shared;
use super::producer::{answer, reply_channel};

/// A simulated administration client.
pub(super) struct SimAdmin {
    shared: Arc<Shared>,
    client: ClientId,
    brokers: i32,
}

impl SimAdmin {
    pub(super) const fn new(shared: Arc<Shared>, client: ClientId, brokers: i32) -> Self {
        Self { shared, client, brokers }
    }

    fn request(
        &self,
        target: Target,
        operation: Operation,
        request: Request,
    ) -> impl Future<Output = Result<Response>> + Send + use<> {
        let (reply, receiver) = reply_channel();
        let called = self.shared.enter(|world| {
            world.with_client(self.client, |machine, now, effects| match machine {
                ClientMachine::Admin(admin) => {
                    effects.record(|| CallRecord::Called(operation, String::new()));
                    admin.call(now, target, request, operation, reply, effects);
                }
                ClientMachine::Producer(_) | ClientMachine::Consumer(_) => {
                    unreachable!("client {} is an administration client", self.client)
                }
            })
        });
        answer(called.flatten().is_some(), receiver, operation)
    }

    async fn metadata(
        &self,
        operation: Operation,
        topics: Option<Vec<Topic>>,
    ) -> Result<metadata::Response> {
        let request = Request::Metadata(metadata::Request { topics });
        match self.request(Target::Any, operation, request).await? {
            Response::Metadata(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn topic_request(&self, operation: Operation, request: Request) -> Result<()> {
        let response = match self.request(Target::Any, operation, request).await? {
            Response::CreateTopics(response)
            | Response::DeleteTopics(response)
            | Response::CreatePartitions(response) => response,
            other => return Err(unexpected(&other)),
        };
        match response.topics.into_iter().find_map(|topic| topic.error) {
            Some((kind, message)) => Err(Error::new(kind, message).with_operation(operation)),
            None => Ok(()),
        }
    }

    /// The high watermark of a partition.
    async fn end_of(&self, leader: BrokerId, topic_partition: &TopicPartition) -> Result<Offset> {
        let operation = Operation::GroupOffsets;
        let request = Request::ListOffsets(list_offsets::Request {
            replica: None,
            isolation_level: IsolationLevel::ReadUncommitted,
            partitions: vec![list_offsets::PartitionRequest {
                topic_partition: topic_partition.clone(),
                current_leader_epoch: None,
                spec: OffsetSpec::Latest,
            }],
        });
        let target = Target::Leader(Some(leader), topic_partition.clone());
        let response = match self.request(target, operation, request).await? {
            Response::ListOffsets(response) => response,
            other => return Err(unexpected(&other)),
        };
        let end = response.partitions.into_iter().next().map(|first| first.result);
        match end {
            Some(Ok(end)) => Ok(end.unwrap_or(0)),
            Some(Err(kind)) => Err(Error::from(kind).with_operation(operation)),
            None => Ok(0),
        }
    }

    async fn offsets_of(&self, group_id: &str) -> Result<Vec<GroupOffset>> {
        let request = Request::OffsetFetch(offset_fetch::Request {
            group_id: group_id.into(),
            partitions: None,
            require_stable: false,
        });
        let target = Target::Coordinator(group_id.into());
        let response = match self.request(target, Operation::GroupOffsets, request).await? {
            Response::OffsetFetch(response) => response,
            other => return Err(unexpected(&other)),
        };
        let committed = response.result.map_err(Error::from)?;
        let topics = committed.iter().map(|c| c.topic_partition.topic.clone());
        let topics = topics.collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        let metadata = self.metadata(Operation::GroupOffsets, Some(topics)).await?;
        let mut offsets = Vec::new();
        for offset_fetch::PartitionResponse { topic_partition, result } in committed {
            let Ok(Some(offset)) = result else { continue };
            let Some(leader) = leader_of(&metadata, &topic_partition) else { continue };
            let end = self.end_of(leader, &topic_partition).await?;
            let committed =
                OffsetAndMetadata { offset: offset.offset, metadata: offset.metadata.to_string() };
            offsets.push(GroupOffset { topic_partition, committed, end });
        }
        Ok(offsets)
    }

    async fn describe(&self, group_id: &str) -> Result<GroupDescription> {
        let groups = vec![Name::from(group_id)];
        let request = Request::DescribeGroups(groups::DescribeGroupsRequest { groups });
        let target = Target::Coordinator(group_id.into());
        let response = match self.request(target, Operation::DescribeGroup, request).await? {
            Response::DescribeGroups(response) => response,
            other => return Err(unexpected(&other)),
        };
        let described = response.groups.into_iter().next().map(|group| group.result);
        let details = match described {
            Some(Ok(details)) => details,
            Some(Err(kind)) => return Err(Error::from(kind).with_group_id(group_id)),
            None => return Err(Error::from(ErrorKind::UnknownServerError)),
        };
        let mut members = details
            .members
            .into_iter()
            .map(|member| MemberDescription {
                member_id: member.member_id.to_string(),
                group_instance_id: member.group_instance_id.as_deref().map(str::to_owned),
                client_id: member.client_id.to_string(),
                assignment: decode_assignment(&member.assignment).unwrap_or_default(),
            })
            .collect::<Vec<_>>();
        members.sort_by(|a, b| (&a.client_id, &a.member_id).cmp(&(&b.client_id, &b.member_id)));
        Ok(GroupDescription {
            group_id: group_id.to_owned(),
            state: details.state,
            assignor: details.protocol.to_string(),
            members,
        })
    }
}

impl Admin for SimAdmin {
    fn create_topic(&self, topic: NewTopic) -> BoxFuture<'_, Result<()>> {
        let NewTopic { topic, partitions, replication_factor, config } = topic;
        let is_valid = || {
            topic.validate()?;
            check_partitions(partitions)?;
            check_replication_factor(replication_factor)
        };
        if let Err(error) = is_valid() {
            return refused(error, Operation::CreateTopic);
        }
        let topics = vec![CreatableTopic { topic, partitions, replication_factor, config }];
        let request = Request::CreateTopics(topics::CreateTopicsRequest { topics });
        Box::pin(self.topic_request(Operation::CreateTopic, request))
    }

    fn delete_topic(&self, topic: Topic) -> BoxFuture<'_, Result<()>> {
        if let Err(error) = topic.validate() {
            return refused(error, Operation::DeleteTopic);
        }
        let request = Request::DeleteTopics(topics::DeleteTopicsRequest { topics: vec![topic] });
        Box::pin(self.topic_request(Operation::DeleteTopic, request))
    }

    fn create_partitions(&self, topic: Topic, partitions: Partition) -> BoxFuture<'_, Result<()>> {
        let is_valid = || {
            topic.validate()?;
            check_partitions(partitions)
        };
        if let Err(error) = is_valid() {
            return refused(error, Operation::CreatePartitions);
        }
        let topics = vec![(topic, partitions)];
        let request = Request::CreatePartitions(topics::CreatePartitionsRequest { topics });
        Box::pin(self.topic_request(Operation::CreatePartitions, request))
    }

    fn describe_topic(&self, topic: Topic) -> BoxFuture<'_, Result<TopicDescription>> {
        Box::pin(async move {
            let operation = Operation::DescribeTopics;
            topic.validate().map_err(|error| error.with_operation(operation))?;
            let response = self.metadata(operation, Some(vec![topic.clone()])).await?;
            match response.topics.into_iter().next().map(|topic| topic.result) {
                Some(Ok(details)) => Ok(describe_topic(topic, details)),
                Some(Err(kind)) => {
                    let message = format!("topic {topic} is not available");
                    Err(Error::new(kind, message).with_operation(operation))
                }
                None => Err(Error::from(ErrorKind::UnknownServerError)),
            }
        })
    }

    fn list_topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        Box::pin(async move {
            let response = self.metadata(Operation::DescribeTopics, None).await?;
            let is_public = |topic: &TopicMetadata| {
                topic.result.as_ref().is_ok_and(|details| !details.is_internal)
            };
            let public = response.topics.into_iter().filter(is_public);
            Ok(public.map(|topic| topic.topic).collect())
        })
    }

    fn describe_cluster(&self) -> BoxFuture<'_, Result<ClusterDescription>> {
        Box::pin(async move {
            let response = self.metadata(Operation::DescribeCluster, Some(Vec::new())).await?;
            let broker = |id| BrokerDescription { id, address: format!("broker-{id}:9092") };
            Ok(ClusterDescription {
                cluster_id: Some(response.cluster_id),
                brokers: response.brokers.into_iter().map(broker).collect(),
            })
        })
    }

    fn list_groups(&self) -> BoxFuture<'_, Result<Vec<GroupListing>>> {
        Box::pin(async move {
            let mut listings = Vec::new();
            for broker in self.metadata(Operation::ListGroups, Some(Vec::new())).await?.brokers {
                let request = Request::ListGroups(groups::ListGroupsRequest);
                let target = Target::Broker(broker);
                let response = self.request(target, Operation::ListGroups, request).await?;
                let Response::ListGroups(response) = response else {
                    return Err(unexpected(&response));
                };
                let groups = response.result.map_err(Error::from)?.into_iter();
                listings.extend(groups.map(|(group_id, state)| GroupListing {
                    group_id: group_id.to_string(),
                    state,
                }));
            }
            listings.sort_by(|a, b| a.group_id.cmp(&b.group_id));
            Ok(listings)
        })
    }

    fn describe_group<'a>(&'a self, group_id: &'a str) -> BoxFuture<'a, Result<GroupDescription>> {
        Box::pin(self.describe(group_id))
    }

    fn group_offsets<'a>(&'a self, group_id: &'a str) -> BoxFuture<'a, Result<Vec<GroupOffset>>> {
        Box::pin(self.offsets_of(group_id))
    }

    fn delete_group<'a>(&'a self, group_id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let groups = vec![Name::from(group_id)];
            let request = Request::DeleteGroups(groups::DeleteGroupsRequest { groups });
            let target = Target::Coordinator(group_id.into());
            let response = match self.request(target, Operation::DeleteGroup, request).await? {
                Response::DeleteGroups(response) => response,
                other => return Err(unexpected(&other)),
            };
            match response.groups.into_iter().find_map(|(_, error)| error) {
                Some(kind) => Err(Error::from(kind)
                    .with_operation(Operation::DeleteGroup)
                    .with_group_id(group_id)),
                None => Ok(()),
            }
        })
    }

    fn alter_group_offsets<'a>(
        &'a self,
        _: &'a str,
        _: &'a [(TopicPartition, OffsetAndMetadata)],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(Err(unsupported(Operation::AlterGroupOffsets))))
    }

    fn topic_config(&self, _: Topic) -> BoxFuture<'_, Result<BTreeMap<String, String>>> {
        Box::pin(std::future::ready(Err(unsupported(Operation::TopicConfig))))
    }

    fn alter_topic_config(
        &self,
        _: Topic,
        _: BTreeMap<String, Option<String>>,
    ) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Err(unsupported(Operation::TopicConfig))))
    }

    fn delete_records(&self, _: TopicPartition, _: Offset) -> BoxFuture<'_, Result<Offset>> {
        Box::pin(std::future::ready(Err(unsupported(Operation::DeleteRecords))))
    }
}

impl Drop for SimAdmin {
    fn drop(&mut self) {
        // After the end of the simulation there is nothing to remove.
        let _over = self.shared.enter(|world| world.remove_client(self.client));
    }
}

impl fmt::Debug for SimAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimAdmin").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

fn describe_topic(topic: Topic, details: TopicDetails) -> TopicDescription {
    let partitions = details.partitions.into_iter().map(|partition| PartitionDescription {
        partition: partition.partition,
        leader: partition.leader,
        replicas: partition.replicas,
        in_sync_replicas: partition.in_sync_replicas,
    });
    TopicDescription { topic, partitions: partitions.collect() }
}

fn leader_of(metadata: &metadata::Response, topic_partition: &TopicPartition) -> Option<BrokerId> {
    let topic = metadata.topics.iter().find(|topic| topic.topic == topic_partition.topic)?;
    let index = usize::try_from(topic_partition.partition).ok()?;
    topic.result.as_ref().ok()?.partitions.get(index)?.leader
}

/// librdkafka's administration checks what it can before it asks the controller.
fn check_partitions(partitions: Partition) -> Result<()> {
    if partitions >= 1 {
        return Ok(());
    }
    let message = format!("a topic has at least 1 partition, not {partitions}");
    Err(Error::new(ErrorKind::InvalidPartitions, message))
}

fn check_replication_factor(factor: Option<i16>) -> Result<()> {
    match factor {
        Some(factor) if factor < 1 => Err(Error::new(
            ErrorKind::InvalidReplicationFactor,
            format!("replication factor {factor} is below 1"),
        )),
        _ => Ok(()),
    }
}

/// A call that fails before it is made.
fn refused<'a, T: Send + 'a>(error: Error, operation: Operation) -> BoxFuture<'a, Result<T>> {
    Box::pin(std::future::ready(Err(error.with_operation(operation))))
}

fn unsupported(operation: Operation) -> Error {
    let message = format!("{operation:?} is not simulated yet; see docs/fidelity.md");
    Error::new(ErrorKind::Unsupported, message).with_operation(operation)
}

fn unexpected(response: &Response) -> Error {
    let message = format!("unexpected response of {}", response.api().name());
    Error::new(ErrorKind::Backend, message)
}
