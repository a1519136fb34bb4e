//! Administration.

use std::collections::BTreeMap;

use bus_core::{GroupDescription, TopicDescription};

use super::Interpreter;
use crate::outcome::{GroupShape, Outcome, PartitionShape};
use crate::program::AdminStep;
use crate::slot::{GroupSlot, Names, TopicSlot};

impl Interpreter<'_> {
    pub(super) async fn admin(&mut self, step: &AdminStep) -> Outcome {
        match step {
            AdminStep::CreateTopic(topic, spec) => {
                Outcome::done(self.admin.create_topic(self.new_topic(*topic, spec)).await)
            }
            AdminStep::DeleteTopic(topic) => self.delete_topic(*topic).await,
            AdminStep::CreatePartitions(topic, partitions) => {
                let topic = self.names.topic(*topic);
                Outcome::done(self.admin.create_partitions(topic, *partitions).await)
            }
            AdminStep::DescribeTopic(topic) => {
                let described = self.admin.describe_topic(self.names.topic(*topic)).await;
                Outcome::of(described, |topic| Outcome::Topic(shape_of_topic(&topic)))
            }
            AdminStep::TopicConfig(topic, names) => self.topic_config(*topic, names).await,
            AdminStep::AlterTopicConfig(topic, changes) => {
                let changes = changes.iter().map(|(name, value)| {
                    (name.clone(), Some(value.clone()).filter(|value| !value.is_empty()))
                });
                let (topic, changes) = (self.names.topic(*topic), changes.collect());
                Outcome::done(self.admin.alter_topic_config(topic, changes).await)
            }
            AdminStep::DeleteRecords(place, before) => {
                let place = self.names.place(*place);
                Outcome::of(self.admin.delete_records(place, *before).await, Outcome::Offset)
            }
            AdminStep::ListTopics => {
                let names = &self.names;
                Outcome::of(self.admin.list_topics().await, |topics| {
                    Outcome::Topics(
                        topics.iter().filter_map(|topic| names.slot_of(topic)).collect(),
                    )
                })
            }
            AdminStep::DescribeCluster => {
                Outcome::of(self.admin.describe_cluster().await, |cluster| {
                    Outcome::Cluster(cluster.brokers.len())
                })
            }
            AdminStep::ListGroups
            | AdminStep::DescribeGroup(_)
            | AdminStep::GroupOffsets(_)
            | AdminStep::DeleteGroup(_)
            | AdminStep::AlterGroupOffsets(..) => self.administer_group(step).await,
        }
    }

    async fn delete_topic(&mut self, topic: TopicSlot) -> Outcome {
        let deleted = self.admin.delete_topic(self.names.topic(topic)).await;
        if deleted.is_ok() {
            self.ledger.delete(topic);
        }
        Outcome::done(deleted)
    }

    async fn topic_config(&self, topic: TopicSlot, names: &[String]) -> Outcome {
        Outcome::of(self.admin.topic_config(self.names.topic(topic)).await, |config| {
            let asked = config.into_iter().filter(|(name, _)| names.contains(name));
            Outcome::Config(asked.collect::<BTreeMap<_, _>>())
        })
    }

    async fn administer_group(&self, step: &AdminStep) -> Outcome {
        let (admin, names) = (&self.admin, &self.names);
        match step {
            AdminStep::DescribeGroup(group) => {
                let described = admin.describe_group(&names.group(*group)).await;
                Outcome::of(described, |group| Outcome::Group(shape_of_group(&group, names)))
            }
            AdminStep::GroupOffsets(group) => self.group_offsets(*group).await,
            AdminStep::DeleteGroup(group) => {
                Outcome::done(admin.delete_group(&names.group(*group)).await)
            }
            AdminStep::AlterGroupOffsets(group, offsets) => {
                let offsets: Vec<_> = offsets
                    .iter()
                    .map(|(place, offset)| (names.place(*place), (*offset).into()))
                    .collect();
                Outcome::done(admin.alter_group_offsets(&names.group(*group), &offsets).await)
            }
            _ => Outcome::of(admin.list_groups().await, |groups| {
                let ours = groups.iter().filter_map(|group| {
                    Some((names.group_of(&group.group_id)?, format!("{:?}", group.state)))
                });
                Outcome::Groups(ours.collect())
            }),
        }
    }

    async fn group_offsets(&self, group: GroupSlot) -> Outcome {
        Outcome::of(self.admin.group_offsets(&self.names.group(group)).await, |offsets| {
            let offsets = offsets.into_iter().filter_map(|offset| {
                let place = self.names.place_of(&offset.topic_partition)?;
                let committed = offset.committed;
                Some((place, committed.offset, committed.metadata, offset.end))
            });
            Outcome::GroupOffsets(offsets.collect())
        })
    }
}

fn shape_of_topic(topic: &TopicDescription) -> Vec<PartitionShape> {
    let partitions = topic.partitions.iter().map(|partition| PartitionShape {
        partition: partition.partition,
        is_led: partition.leader.is_some(),
        replicas: partition.replicas.len(),
        in_sync: partition.in_sync_replicas.len(),
    });
    partitions.collect()
}

fn shape_of_group(group: &GroupDescription, names: &Names) -> GroupShape {
    let members = group.members.iter().map(|member| {
        let places = member.assignment.iter().filter_map(|place| names.place_of(place));
        (member.client_id.clone(), places.collect())
    });
    GroupShape {
        state: format!("{:?}", group.state),
        assignor: group.assignor.clone(),
        members: members.collect(),
    }
}
