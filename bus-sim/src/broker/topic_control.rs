//! CreateTopics, DeleteTopics, CreatePartitions at the controller.
//!
//! - Errors, their order, and their sentences are Kafka's.
//! - Partitions are spread over the live brokers in turn, from one drawn by the topic's name; the
//!   replicas of one are next to each other, fenced brokers last.
//!
//! Simplified: Kafka shuffles the brokers after each round. Internal topics cannot be deleted.
//! Absent: given assignments, `validate_only`, quotas, policies. See `docs/fidelity.md`.

use std::collections::{BTreeMap, BTreeSet};

use bus_core::{ErrorKind, Partition, Topic, Uuid};

use super::controller::Controller;
use super::image::Registration;
use super::topic_config;
use super::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC};
use crate::choice::Label;
use crate::fact::Fact;
use crate::node::{BrokerId, Effects};
use crate::protocol::cluster::{MetadataRecord, PartitionState};
use crate::protocol::topics::{
    CreatableTopic, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    TopicResponse, TopicResult,
};
use crate::time::SimTime;

/// Why something was refused, with a sentence.
type Refused = (ErrorKind, String);

impl Controller {
    pub(super) fn create_topics(
        &mut self,
        now: SimTime,
        request: &CreateTopicsRequest,
        effects: &mut Effects,
    ) -> TopicResponse {
        let duplicates = duplicates(request.topics.iter().map(|topic| &topic.topic));
        let topics = request.topics.iter().map(|creatable| {
            let topic = creatable.topic.clone();
            if duplicates.contains(&topic) {
                return refused(topic, (ErrorKind::InvalidRequest, "Duplicate topic name.".into()));
            }
            match self.plan_topic(creatable) {
                Ok(records) => {
                    self.write(now, records, effects);
                    self.tell_topic(&topic, effects);
                    TopicResult { topic, error: None }
                }
                Err(why) => refused(topic, why),
            }
        });
        TopicResponse { topics: topics.collect() }
    }

    pub(super) fn delete_topics(
        &mut self,
        now: SimTime,
        request: &DeleteTopicsRequest,
        effects: &mut Effects,
    ) -> TopicResponse {
        let topics = request.topics.iter().cloned().map(|topic| {
            let known = self.image.topics.contains_key(&topic);
            if !known {
                return refused(topic, unknown_topic());
            }
            if is_internal(&topic) {
                let sentence = format!("Topic {topic} is internal and cannot be deleted.");
                return refused(topic, (ErrorKind::InvalidTopic, sentence));
            }
            self.write(now, [MetadataRecord::RemoveTopic { topic: topic.clone() }], effects);
            self.tell_topic(&topic, effects);
            TopicResult { topic, error: None }
        });
        TopicResponse { topics: topics.collect() }
    }

    pub(super) fn create_partitions(
        &mut self,
        now: SimTime,
        request: &CreatePartitionsRequest,
        effects: &mut Effects,
    ) -> TopicResponse {
        let duplicates = duplicates(request.topics.iter().map(|(topic, _)| topic));
        let topics = request.topics.iter().map(|(topic, count)| {
            let topic = topic.clone();
            if duplicates.contains(&topic) {
                return refused(topic, (ErrorKind::InvalidRequest, "Duplicate topic name.".into()));
            }
            match self.plan_growth(&topic, *count) {
                Ok(records) => {
                    self.write(now, records, effects);
                    self.tell_topic(&topic, effects);
                    TopicResult { topic, error: None }
                }
                Err(why) => refused(topic, why),
            }
        });
        TopicResponse { topics: topics.collect() }
    }

    /// The records that make a topic, or why it cannot be made.
    fn plan_topic(&self, creatable: &CreatableTopic) -> Result<Vec<MetadataRecord>, Refused> {
        let CreatableTopic { topic, partitions, replication_factor, config } = creatable;
        check_name(topic)?;
        let collides = |other: &&Topic| {
            *other != topic && other.as_str().replace('.', "_") == topic.as_str().replace('.', "_")
        };
        if let Some(other) = self.image.topics.keys().find(collides) {
            let sentence = format!("Topic '{topic}' collides with existing topic: {other}");
            return Err((ErrorKind::InvalidTopic, sentence));
        }
        if self.image.topics.contains_key(topic) {
            let sentence = format!("Topic '{topic}' already exists.");
            return Err((ErrorKind::TopicAlreadyExists, sentence));
        }
        topic_config::check(config).map_err(|why| (ErrorKind::InvalidConfig, why))?;
        let factor = self.replication_factor(*replication_factor)?;
        let partitions = match *partitions {
            -1 => self.config.broker.num_partitions,
            1.. => *partitions,
            _ => {
                let sentence = "Number of partitions was set to an invalid non-positive value.";
                return Err((ErrorKind::InvalidPartitions, sentence.to_owned()));
            }
        };
        let mut records =
            vec![MetadataRecord::Topic { topic: topic.clone(), topic_id: self.draw_id(topic) }];
        if !config.is_empty() {
            let config: BTreeMap<_, _> = config
                .iter()
                .map(|(name, value)| (name.clone(), Some(value.trim().to_owned())))
                .collect();
            records.push(MetadataRecord::TopicConfig { topic: topic.clone(), config });
        }
        records.extend(self.place(topic, 0..partitions, factor)?);
        Ok(records)
    }

    fn plan_growth(&self, topic: &Topic, count: Partition) -> Result<Vec<MetadataRecord>, Refused> {
        let image = self.image.topics.get(topic).ok_or_else(unknown_topic)?;
        let now = Partition::try_from(image.partitions.len()).unwrap_or(Partition::MAX);
        let sentence = if count == now {
            format!("Topic already has {now} partition(s).")
        } else if count < now {
            format!(
                "The topic {topic} currently has {now} partition(s); {count} would not be an \
                 increase."
            )
        } else {
            return self.place(topic, now..count, image.partitions[0].replicas.len());
        };
        Err((ErrorKind::InvalidPartitions, sentence))
    }

    /// How many replicas a partition shall have.
    fn replication_factor(&self, factor: Option<i16>) -> Result<usize, Refused> {
        let default = self.config.broker.default_replication_factor;
        let default = self.config.replication_factor(default);
        let factor = factor.filter(|factor| *factor != -1).unwrap_or(default);
        let fits = self.config.replication_factor(factor);
        let factor = if self.config.fewer_replicas { fits } else { factor };
        match usize::try_from(factor) {
            Ok(factor @ 1..) => Ok(factor),
            _ => {
                let sentence =
                    "Replication factor must be larger than 0, or -1 to use the default value.";
                Err((ErrorKind::InvalidReplicationFactor, sentence.to_owned()))
            }
        }
    }

    /// Spreads new partitions over the brokers.
    fn place(
        &self,
        topic: &Topic,
        partitions: std::ops::Range<Partition>,
        factor: usize,
    ) -> Result<Vec<MetadataRecord>, Refused> {
        let refuse = |why: String| {
            let sentence = format!("Unable to replicate the partition {factor} time(s): {why}");
            Err((ErrorKind::InvalidReplicationFactor, sentence))
        };
        let usable = self.image.brokers.iter().filter(|(_, broker)| !broker.is_shutting_down);
        let (alive, fenced): (Vec<_>, Vec<_>) = usable.partition(|(_, broker)| !broker.is_fenced);
        let brokers = alive.len() + fenced.len();
        if factor > brokers {
            return refuse(format!(
                "The target replication factor of {factor} cannot be reached because only \
                 {brokers} broker(s) are registered or some brokers have all their log directories \
                 cordoned."
            ));
        }
        if alive.is_empty() {
            return refuse("All brokers are currently fenced.".to_owned());
        }
        let bound = u64::try_from(alive.len()).unwrap_or(1);
        let cause = ("first broker", topic.as_str());
        let first = self
            .choices
            .below(Label::TopicId, cause, bound, || format!("first broker of {}", topic.as_str()));
        let first = usize::try_from(first).unwrap_or(0);
        let records = partitions.map(|partition| {
            let turn = first + usize::try_from(partition).unwrap_or(0);
            let in_turn = |brokers: &[(&BrokerId, &Registration)]| {
                let turns = (turn..turn + brokers.len()).map(|turn| turn % brokers.len());
                turns.map(|index| *brokers[index].0).collect::<Vec<_>>()
            };
            let mut replicas = in_turn(&alive);
            replicas.append(&mut in_turn(&fenced));
            replicas.truncate(factor);
            let mut state = PartitionState::new(replicas);
            state.in_sync_replicas.truncate(alive.len());
            MetadataRecord::Partition { topic: topic.clone(), partition, state }
        });
        Ok(records.collect())
    }

    /// The id of a topic: another one each time that the name is used.
    fn draw_id(&self, topic: &Topic) -> Uuid {
        let is_same = |record: &&MetadataRecord| match record {
            MetadataRecord::Topic { topic: name, .. } => name == topic,
            _ => false,
        };
        let before = self.log.iter().filter(is_same).count();
        let draw = |half: u8| self.choices.id(Label::TopicId, (topic.as_str(), before, half));
        Uuid::from_u64_pair(draw(0), draw(1))
    }

    fn tell_topic(&self, topic: &Topic, effects: &mut Effects) {
        let image = self.image.topics.get(topic);
        let partitions = image.map_or(0, |image| image.partitions.len());
        effects.fact(Fact::Topic {
            topic: topic.as_str().into(),
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
        });
    }
}

/// Whether it is Kafka's own.
pub(super) fn is_internal(topic: &Topic) -> bool {
    *topic == OFFSETS_TOPIC || *topic == TRANSACTIONS_TOPIC
}

fn check_name(topic: &Topic) -> Result<(), Refused> {
    let name = topic.as_str();
    let rule = if topic.validate().is_ok() {
        return Ok(());
    } else if name.is_empty() {
        "the empty string is not allowed".to_owned()
    } else if name == "." || name == ".." {
        format!("'{name}' is not allowed")
    } else if name.len() > Topic::NAME_MAX {
        format!("the length of '{name}' is longer than the max allowed length {}", Topic::NAME_MAX)
    } else {
        format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and \
             '-'"
        )
    };
    Err((ErrorKind::InvalidTopic, format!("Topic name is invalid: {rule}")))
}

fn unknown_topic() -> Refused {
    let sentence = "This server does not host this topic-partition.";
    (ErrorKind::UnknownTopicOrPartition, sentence.to_owned())
}

fn refused(topic: Topic, why: Refused) -> TopicResult {
    TopicResult { topic, error: Some(why) }
}

/// The names that occur more than once.
fn duplicates<'a>(topics: impl Iterator<Item = &'a Topic>) -> BTreeSet<Topic> {
    let mut seen = BTreeSet::new();
    topics.filter(|topic| !seen.insert(*topic)).cloned().collect()
}
