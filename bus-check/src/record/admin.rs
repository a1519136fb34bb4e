//! Administration, recorded: what changes topics and groups, and what tells of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bus_core::{
    Admin, BoxFuture, ClusterDescription, GroupDescription, GroupListing, GroupOffset, NewTopic,
    Offset, OffsetAndMetadata, Partition, Result, Topic, TopicDescription, TopicPartition,
};
use futures_util::FutureExt as _;

use super::pen::{Pen, with_ids};
use crate::history::{Answer, Call, Writer};

#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) inner: Arc<dyn Admin>,
    pub(super) pen: Pen,
}

impl Recorded {
    /// Records a call, and what the answer is made of.
    fn asking<'a, T: Send + 'a>(
        &'a self,
        call: impl FnOnce(&mut Writer) -> Call + Send + 'a,
        act: impl Future<Output = Result<T>> + Send + 'a,
        answer: impl FnOnce(&mut Writer, &T) -> Answer + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        async move {
            let pending = self.pen.invoke(call);
            let outcome = act.await;
            match &outcome {
                Ok(found) => pending.ok(|writer| answer(writer, found)),
                Err(error) => pending.failed(error),
            }
            outcome
        }
        .boxed()
    }
}

#[deny(clippy::missing_trait_methods, reason = "what an adapter leaves out is not recorded")]
impl Admin for Recorded {
    fn create_topic(&self, topic: NewTopic) -> BoxFuture<'_, Result<()>> {
        let (name, partitions) = (topic.topic.clone(), topic.partitions);
        self.asking(
            move |writer| Call::CreateTopic { topic: writer.topic(&name), partitions },
            self.inner.create_topic(topic),
            |_, ()| Answer::Done,
        )
    }

    fn delete_topic(&self, topic: Topic) -> BoxFuture<'_, Result<()>> {
        let name = topic.clone();
        self.asking(
            move |writer| Call::DeleteTopic(writer.topic(&name)),
            self.inner.delete_topic(topic),
            |_, ()| Answer::Done,
        )
    }

    fn create_partitions(&self, topic: Topic, partitions: Partition) -> BoxFuture<'_, Result<()>> {
        let name = topic.clone();
        self.asking(
            move |writer| Call::CreatePartitions { topic: writer.topic(&name), partitions },
            self.inner.create_partitions(topic, partitions),
            |_, ()| Answer::Done,
        )
    }

    fn describe_topic(&self, topic: Topic) -> BoxFuture<'_, Result<TopicDescription>> {
        let name = topic.clone();
        self.asking(
            move |writer| Call::DescribeTopic(writer.topic(&name)),
            self.inner.describe_topic(topic),
            |_, description: &TopicDescription| {
                let partitions = description.partitions.len();
                Answer::Partitions(Partition::try_from(partitions).unwrap_or(Partition::MAX))
            },
        )
    }

    fn list_topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        self.inner.list_topics()
    }

    fn describe_cluster(&self) -> BoxFuture<'_, Result<ClusterDescription>> {
        self.inner.describe_cluster()
    }

    fn list_groups(&self) -> BoxFuture<'_, Result<Vec<GroupListing>>> {
        self.inner.list_groups()
    }

    fn describe_group<'a>(&'a self, group_id: &'a str) -> BoxFuture<'a, Result<GroupDescription>> {
        self.inner.describe_group(group_id)
    }

    fn group_offsets<'a>(&'a self, group_id: &'a str) -> BoxFuture<'a, Result<Vec<GroupOffset>>> {
        self.asking(
            |writer| Call::GroupOffsets(writer.name(group_id)),
            self.inner.group_offsets(group_id),
            |writer, found: &Vec<GroupOffset>| {
                let offsets = found.iter().map(|found| {
                    let TopicPartition { topic, partition } = &found.topic_partition;
                    (writer.partition(topic, *partition), found.committed.offset, found.end)
                });
                Answer::GroupOffsets(offsets.collect())
            },
        )
    }

    fn delete_group<'a>(&'a self, group_id: &'a str) -> BoxFuture<'a, Result<()>> {
        self.asking(
            |writer| Call::DeleteGroup(writer.name(group_id)),
            self.inner.delete_group(group_id),
            |_, ()| Answer::Done,
        )
    }

    fn alter_group_offsets<'a>(
        &'a self,
        group_id: &'a str,
        offsets: &'a [(TopicPartition, OffsetAndMetadata)],
    ) -> BoxFuture<'a, Result<()>> {
        self.asking(
            |writer| {
                let offsets = with_ids(writer, offsets, |offset| offset.offset);
                Call::AlterGroupOffsets { group: writer.name(group_id), offsets }
            },
            self.inner.alter_group_offsets(group_id, offsets),
            |_, ()| Answer::Done,
        )
    }

    fn topic_config(&self, topic: Topic) -> BoxFuture<'_, Result<BTreeMap<String, String>>> {
        self.inner.topic_config(topic)
    }

    fn alter_topic_config(
        &self,
        topic: Topic,
        changes: BTreeMap<String, Option<String>>,
    ) -> BoxFuture<'_, Result<()>> {
        self.inner.alter_topic_config(topic, changes)
    }

    fn delete_records(
        &self,
        topic_partition: TopicPartition,
        before: Offset,
    ) -> BoxFuture<'_, Result<Offset>> {
        let TopicPartition { topic, partition } = topic_partition.clone();
        self.asking(
            move |writer| Call::DeleteRecords(writer.partition(&topic, partition), before),
            self.inner.delete_records(topic_partition, before),
            |_, log_start: &Offset| Answer::LogStart(*log_start),
        )
    }
}
