//! What came of a run: the verdict, why, and what the cluster looks like.

use std::fmt;
use std::time::Duration;

use bus_core::{Admin, Bus, Consumer, ConsumerConfig, GroupState, Offset, Result, Topic};
use bus_core::{Partition, TopicPartition};
use serde::Serialize;

use crate::patience::{once_it_is_there, patiently};

/// What came of a run of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether its invariant held.
    pub verdict: Verdict,
    /// The guarantees that were broken; none if it held.
    pub broken: Vec<Broken>,
    /// What was done and how it ended, one sentence each.
    pub notes: Vec<String>,
    /// How many records this run wrote, in all topics.
    pub records: u64,
    /// The partitions of its topics.
    pub partitions: Vec<PartitionReport>,
    /// Its groups.
    pub groups: Vec<GroupReport>,
}

/// A guarantee of an application that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Its name, the same for everything that breaks it.
    pub guarantee: &'static str,
    /// What happened, as a sentence.
    pub sentence: String,
}

impl Report {
    /// The reasons of the verdict, and then what else there is to say, one sentence each.
    pub fn explanations(&self) -> impl Iterator<Item = &str> {
        let reasons = self.broken.iter().map(|broken| broken.sentence.as_str());
        reasons.chain(self.notes.iter().map(String::as_str))
    }
}

/// Whether the invariant of an application held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It held.
    Held,
    /// It was broken, and nothing is under way that could mend it.
    Violated,
    /// It is undecided: the application did not get to its end in time.
    Stalled,
}

impl Verdict {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Violated => "violated",
            Self::Stalled => "stalled",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A partition, and what this run wrote to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: Partition,
    /// The broker that leads it, if one does.
    pub leader: Option<i32>,
    /// How many records this run wrote to it.
    pub records: u64,
    /// One past its last record.
    pub end: Offset,
}

/// A group, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupReport {
    /// The group.
    pub group_id: String,
    /// Its state, in Kafka's word.
    pub state: String,
    /// Its members.
    pub members: Vec<MemberReport>,
    /// Records that it has not committed yet.
    pub lag: u64,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberReport {
    /// Its client id.
    pub client_id: String,
    /// The partitions that it is assigned, such as `order-export-0`.
    pub assignment: Vec<String>,
}

/// Looks at a topic and a group of a run from outside, as an operator does.
#[derive(Debug)]
pub struct Observer {
    admin: std::sync::Arc<dyn Admin>,
    consumer: std::sync::Arc<dyn Consumer>,
    topic: Topic,
    group_id: String,
    /// What was in the topic before the run, by partition.
    ends_before: Vec<Offset>,
}

impl Observer {
    /// Looks from now on; what the topic holds already is not this run's.
    ///
    /// # Errors
    /// Those of the administration client.
    pub async fn new(bus: &Bus, topic: Topic, group_id: &str) -> Result<Self> {
        let mut observer = Self {
            admin: bus.admin()?,
            consumer: bus.consumer(ConsumerConfig::default())?,
            topic,
            group_id: group_id.to_owned(),
            ends_before: Vec::new(),
        };
        let partitions = observer.partitions().await?;
        observer.ends_before = partitions.iter().map(|partition| partition.end).collect();
        Ok(observer)
    }

    /// The partitions of the topic.
    ///
    /// # Errors
    /// Those of the administration client.
    pub async fn partitions(&self) -> Result<Vec<PartitionReport>> {
        let described = once_it_is_there(|| self.admin.describe_topic(self.topic.clone())).await?;
        let mut partitions = Vec::with_capacity(described.partitions.len());
        for (i, partition) in described.partitions.iter().enumerate() {
            let topic_partition = TopicPartition::new(&self.topic, partition.partition);
            let watermarks = || self.consumer.watermarks(&topic_partition);
            let end = once_it_is_there(watermarks).await?.high;
            let before = self.ends_before.get(i).copied().unwrap_or(0);
            partitions.push(PartitionReport {
                topic: self.topic.clone(),
                partition: partition.partition,
                leader: partition.leader,
                records: u64::try_from(end - before).unwrap_or(0),
                end,
            });
        }
        Ok(partitions)
    }

    /// Records that the group has not committed yet.
    ///
    /// # Errors
    /// Those of the administration client.
    pub async fn lag(&self, partitions: &[PartitionReport]) -> Result<u64> {
        let offsets = patiently(|| self.admin.group_offsets(&self.group_id)).await?;
        let mut lag = 0;
        for partition in partitions {
            let is_here =
                |tp: &TopicPartition| tp.topic == self.topic && tp.partition == partition.partition;
            // Without a commit, a group has everything before it.
            let committed = offsets.iter().find(|offset| is_here(&offset.topic_partition));
            let committed = committed.map_or(0, |offset| offset.committed.offset);
            lag += u64::try_from(partition.end - committed).unwrap_or(0);
        }
        Ok(lag)
    }

    /// The group as it is now.
    ///
    /// # Errors
    /// Those of the administration client.
    pub async fn group(&self, partitions: &[PartitionReport]) -> Result<GroupReport> {
        let lag = self.lag(partitions).await?;
        let group = patiently(|| self.admin.describe_group(&self.group_id)).await?;
        let members = group.members.into_iter().map(|member| MemberReport {
            client_id: member.client_id,
            assignment: member.assignment.iter().map(ToString::to_string).collect(),
        });
        Ok(GroupReport {
            group_id: group.group_id,
            state: state_name(group.state).to_owned(),
            members: members.collect(),
            lag,
        })
    }

    /// The report of a run that has come to its end, or to the end of its time.
    ///
    /// # Errors
    /// Those of the administration client.
    pub async fn report(&self, is_settled: bool, broken: Vec<Broken>) -> Result<Report> {
        let partitions = self.partitions().await?;
        let group = self.group(&partitions).await?;
        let verdict = match (is_settled, broken.is_empty()) {
            (true, true) => Verdict::Held,
            (true, false) => Verdict::Violated,
            // What is missing may only be late.
            (false, _) => Verdict::Stalled,
        };
        Ok(Report {
            verdict,
            broken: if is_settled { broken } else { Vec::new() },
            notes: vec![format!("the group has a lag of {}", group.lag)],
            records: partitions.iter().map(|partition| partition.records).sum(),
            partitions,
            groups: vec![group],
        })
    }

    /// Waits up to `timeout` until the group is stable, so that the report does not show a
    /// rebalance in its middle.
    ///
    /// # Errors
    /// Those of the administration client.
    pub async fn settled(&self, timeout: Duration) -> Result<()> {
        let stable = async {
            while patiently(|| self.admin.describe_group(&self.group_id)).await?.state
                != GroupState::Stable
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        };
        tokio::time::timeout(timeout, stable).await.unwrap_or(Ok(()))
    }
}

const fn state_name(state: GroupState) -> &'static str {
    match state {
        GroupState::Empty => "Empty",
        GroupState::PreparingRebalance => "PreparingRebalance",
        GroupState::CompletingRebalance => "CompletingRebalance",
        GroupState::Stable => "Stable",
        GroupState::Dead => "Dead",
        GroupState::Unknown => "Unknown",
    }
}
