//! Admin: topics, groups, and the cluster.

use std::collections::BTreeMap;

use bus_core::{
    ErrorKind, GroupOffset, GroupState, NewTopic, OffsetAndMetadata, Topic, TopicPartition,
};

use crate::cx::Cx;
use crate::failure::{Failure, Verdict, refused};
use crate::{ensure, ensure_eq};

/// A topic that was created is described with its partitions and leaders, and is listed.
pub async fn created_topic_is_described_and_listed(cx: Cx) -> Verdict {
    let topic = cx.topic(3).await?;
    let described = described(&cx, &topic).await?;
    let numbers: Vec<_> = described.partitions.iter().map(|p| p.partition).collect();
    ensure_eq!(numbers, [0, 1, 2], "the partitions, in order");
    for partition in &described.partitions {
        ensure!(partition.leader.is_some(), "a partition without a leader: {partition:?}");
        ensure!(!partition.replicas.is_empty(), "a partition without replicas: {partition:?}");
        ensure_eq!(partition.in_sync_replicas, partition.replicas, "all replicas are in sync");
    }
    let listed = cx.admin().list_topics().await?;
    ensure!(listed.contains(&topic), "{topic} is not listed");
    ensure!(listed.is_sorted(), "the list is not sorted");
    ensure!(!listed.contains(&Topic::from("__consumer_offsets")), "an internal topic is listed");
    Ok(())
}

/// Describes a topic as soon as the brokers have learned of it.
async fn described(cx: &Cx, topic: &Topic) -> Verdict<bus_core::TopicDescription> {
    cx.until("the topic is known", async || match cx.admin().describe_topic(topic.clone()).await {
        Ok(described) if described.partitions.iter().all(|p| p.leader.is_some()) => {
            Ok(Some(described))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::UnknownTopicOrPartition => Ok(None),
        Err(error) => Err(error.into()),
    })
    .await
}

/// A topic that exists cannot be created again, and keeps its records.
pub async fn existing_topic_is_not_created_again(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    cx.publish(&topic, 2).await?;
    let outcome = cx.admin().create_topic(NewTopic::new(&topic).partitions(2)).await;
    refused(outcome, ErrorKind::TopicAlreadyExists)?;
    ensure_eq!(cx.producer()?.partitions_for(topic).await?, 1, "the topic is as it was");
    Ok(())
}

/// Topics with impossible names, numbers, or properties are refused, each with its own error.
pub async fn impossible_topics_are_refused(cx: Cx) -> Verdict {
    let new = || NewTopic::new(cx.name("impossible"));
    for (topic, kind) in [
        (NewTopic::new("no spaces allowed"), ErrorKind::InvalidTopic),
        (NewTopic::new("x".repeat(250)), ErrorKind::InvalidTopic),
        (NewTopic::new(".."), ErrorKind::InvalidTopic),
        (new().partitions(0), ErrorKind::InvalidPartitions),
        (new().replication_factor(100), ErrorKind::InvalidReplicationFactor),
        (new().config("no.such.property", "1"), ErrorKind::InvalidConfig),
        (new().config("max.message.bytes", "many"), ErrorKind::InvalidConfig),
    ] {
        let name = topic.topic.clone();
        refused(cx.admin().create_topic(topic).await, kind)?;
        let listed = cx.admin().list_topics().await?;
        ensure!(!listed.contains(&name), "{name} was refused and is there");
    }
    Ok(())
}

/// A deleted topic is gone; deleting or describing it again is an error.
pub async fn deleted_topic_is_gone(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    cx.publish(&topic, 4).await?;
    cx.admin().delete_topic(topic.clone()).await?;
    cx.until("the topic is gone", async || {
        let gone = cx.admin().describe_topic(topic.clone()).await.is_err();
        Ok(gone.then_some(()))
    })
    .await?;
    let unknown = ErrorKind::UnknownTopicOrPartition;
    refused(cx.admin().describe_topic(topic.clone()).await, unknown)?;
    refused(cx.admin().delete_topic(topic.clone()).await, unknown)?;
    ensure!(!cx.admin().list_topics().await?.contains(&topic), "{topic} is listed still");
    Ok(())
}

/// A topic that is created again under the same name is empty, and works.
pub async fn recreated_topic_is_empty(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    cx.publish(&topic, 4).await?;
    cx.admin().delete_topic(topic.clone()).await?;
    cx.until("the name is free", async || {
        match cx.admin().create_topic(NewTopic::new(&topic)).await {
            Ok(()) => Ok(Some(())),
            Err(error) if error.kind() == ErrorKind::TopicAlreadyExists => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    let producer = cx.producer()?;
    let sent = producer.send(cx.record(&place)).await?;
    ensure_eq!(sent.offset, Some(0), "the first offset");
    let read = cx.read(&place, 1).await?;
    ensure_eq!(read[0].value.as_deref(), Some(&b"value 4"[..]), "the only value");
    Ok(())
}

/// A topic grows to a number of partitions, and never shrinks.
pub async fn topic_grows_and_never_shrinks(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    cx.admin().create_partitions(topic.clone(), 5).await?;
    cx.until("the topic has grown", async || {
        let described = cx.admin().describe_topic(topic.clone()).await?;
        Ok((described.partitions.len() == 5).then_some(()))
    })
    .await?;
    for partitions in [5, 3, 0] {
        let outcome = cx.admin().create_partitions(topic.clone(), partitions).await;
        refused(outcome, ErrorKind::InvalidPartitions)?;
    }
    let unknown = Topic::from(cx.name("unknown"));
    let outcome = cx.admin().create_partitions(unknown, 3).await;
    refused(outcome, ErrorKind::UnknownTopicOrPartition)?;
    Ok(())
}

/// The cluster is described by its brokers.
pub async fn cluster_is_described(cx: Cx) -> Verdict {
    let described = cx.admin().describe_cluster().await?;
    ensure!(!described.brokers.is_empty(), "a cluster without brokers");
    ensure!(described.brokers.is_sorted_by_key(|broker| broker.id), "sorted by id");
    for broker in described.brokers {
        ensure!(broker.address.contains(':'), "{:?} is not host:port", broker.address);
    }
    Ok(())
}

/// A group with members is described with them and their partitions, and is listed.
pub async fn group_is_described_with_its_members(cx: Cx) -> Verdict {
    let topic = cx.topic(4).await?;
    let group = cx.name("group");
    let members = [cx.member(&group, &topic)?, cx.member(&group, &topic)?];
    let members = [&members[0], &members[1]];
    cx.drive(&members, "both have their share", || super::are_divided(&members, 4)).await?;
    let described = cx
        .until("the group is stable", async || {
            cx.drive_for(&members, crate::cx::STEP).await?;
            let described = cx.admin().describe_group(&group).await?;
            Ok((described.state == GroupState::Stable).then_some(described))
        })
        .await?;
    ensure_eq!(described.group_id, group, "the group");
    ensure_eq!(described.assignor, "range", "the assignor");
    let assignments: BTreeMap<_, _> =
        described.members.iter().map(|member| (&member.assignment, &member.member_id)).collect();
    ensure_eq!(assignments.len(), 2, "two members with partitions of their own: {described:?}");
    for member in members {
        ensure!(assignments.contains_key(&member.assignment()), "not as the member: {described:?}");
    }
    let listed = cx.admin().list_groups().await?;
    let found = listed.iter().find(|listing| listing.group_id == group);
    ensure_eq!(found.map(|found| found.state), Some(GroupState::Stable), "the group is listed");
    Ok(())
}

/// A group whose members have left is empty; one that never was is dead.
pub async fn groups_without_members_are_empty_or_dead(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let group = cx.name("group");
    cx.publish(&topic, 1).await?;
    let member = cx.member(&group, &topic)?;
    cx.drive(&[&member], "the record is read", || member.count() == 1).await?;
    member.commit_positions().await?;
    member.close().await?;
    let described = cx
        .until("the group is empty", async || {
            let described = cx.admin().describe_group(&group).await?;
            Ok((described.state == GroupState::Empty).then_some(described))
        })
        .await?;
    ensure_eq!(described.members, [], "no members");
    let unknown = cx.admin().describe_group(&cx.name("unknown")).await?;
    ensure_eq!((unknown.state, unknown.members), (GroupState::Dead, vec![]), "an unknown group");
    Ok(())
}

/// The offsets of a group come with the ends of the logs, and so with the lag.
pub async fn group_offsets_tell_the_lag(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let places = [0, 1].map(|partition| TopicPartition::new(&topic, partition));
    let group = cx.name("group");
    cx.publish(&topic, 8).await?;
    let member = cx.member(&group, &topic)?;
    cx.drive(&[&member], "the records are read", || member.count() == 8).await?;
    let noted = OffsetAndMetadata { offset: 3, metadata: "a note".to_owned() };
    member.commit(&[(places[1].clone(), 1.into()), (places[0].clone(), noted.clone())]).await?;
    let offsets = cx.admin().group_offsets(&group).await?;
    let [place, other] = places;
    let expected = [
        GroupOffset { topic_partition: place, committed: noted, end: 4 },
        GroupOffset { topic_partition: other, committed: 1.into(), end: 4 },
    ];
    ensure_eq!(offsets, expected, "sorted by partition");
    ensure_eq!(offsets.iter().map(GroupOffset::lag).collect::<Vec<_>>(), [1, 3], "the lag");
    let unknown = cx.admin().group_offsets(&cx.name("unknown")).await?;
    ensure_eq!(unknown, [], "an unknown group has no offsets");
    Ok(())
}

/// A group with members cannot be deleted; without them it is deleted with its offsets.
pub async fn group_is_deleted_without_members_only(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let group = cx.name("group");
    cx.publish(&topic, 2).await?;
    let member = cx.member(&group, &topic)?;
    cx.drive(&[&member], "the records are read", || member.count() == 2).await?;
    member.commit_positions().await?;
    refused(cx.admin().delete_group(&group).await, ErrorKind::NonEmptyGroup)?;
    member.close().await?;
    cx.until("the group is deleted", async || match cx.admin().delete_group(&group).await {
        Ok(()) => Ok(Some(())),
        Err(error) if error.kind() == ErrorKind::NonEmptyGroup => Ok(None),
        Err(error) => Err(error.into()),
    })
    .await?;
    refused(cx.admin().delete_group(&group).await, ErrorKind::GroupIdNotFound)?;
    let again = cx.member(&group, &topic)?;
    cx.drive(&[&again], "the records are read again", || again.count() == 2).await
}

/// What a backend does not do yet is `Unsupported` for certain, and never a silent success.
pub async fn unsupported_operations_say_so(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    let group = cx.name("group");
    cx.publish(&topic, 5).await?;
    let property = "retention.ms";
    let changes = BTreeMap::from([(property.to_owned(), Some("1234567".to_owned()))]);
    if done(cx.admin().alter_topic_config(topic.clone(), changes).await)?.is_some() {
        let config = cx.admin().topic_config(topic.clone()).await?;
        ensure_eq!(config.get(property).map(String::as_str), Some("1234567"), "the property");
    }
    if done(cx.admin().alter_group_offsets(&group, &[(place.clone(), 3.into())]).await)?.is_some() {
        let offsets = cx.admin().group_offsets(&group).await?;
        ensure_eq!(offsets[0].committed.offset, 3, "the offset");
    }
    if let Some(start) = done(cx.admin().delete_records(place.clone(), 2).await)? {
        ensure_eq!(start, 2, "the log start");
    }
    Ok(())
}

/// The value of an operation that the backend has; `None` if it says that it has not.
fn done<T>(outcome: bus_core::Result<T>) -> Verdict<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::Unsupported && !error.is_indeterminate() => {
            Ok(None)
        }
        Err(error) => Err(Failure::from(error)),
    }
}
