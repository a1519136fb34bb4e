//! What a consumer knows of its topics: the metadata it asks for, and what its subscription covers.

use std::collections::{BTreeMap, BTreeSet};

use bus_core::{Error, ErrorKind, Operation, Topic, TopicPartition};
use regex::Regex;

use crate::node::Effects;
use crate::protocol::{Request, metadata};
use crate::time::SimTime;

use super::partition::FetchState;
use super::queries::Query;
use super::{Consumer, Subscribed, Token};

impl Consumer {
    /// Asks for the topics of the subscription and of the partitions, unless it did already.
    pub(super) fn want_metadata(&mut self, now: SimTime, effects: &mut Effects) {
        if !self.refresh.begin() {
            return;
        }
        self.asked_topics = self.topics_of_interest();
        let topics = self.asked_topics.clone();
        let request = Request::Metadata(metadata::Request { topics });
        let deadline = self.connections.deadline(now);
        let brokers = &self.metadata.brokers;
        self.connections.send_to_any(now, brokers, Token::Metadata, request, deadline, effects);
    }

    /// Asks for metadata after a pause.
    pub(super) fn want_metadata_later(&mut self, now: SimTime, effects: &mut Effects) {
        self.refresh.soon(now, effects);
    }

    /// The topics to ask for; `None` for all, which a pattern needs.
    pub(super) fn topics_of_interest(&self) -> Option<Vec<Topic>> {
        let mut topics = BTreeSet::new();
        if let Some(subscribed) = &self.subscription {
            if !subscribed.patterns.is_empty() {
                return None;
            }
            topics.extend(subscribed.subscription.topics.iter().cloned());
        }
        topics.extend(self.partitions.keys().map(|tp| tp.topic.clone()));
        topics.extend(self.queries.values().flat_map(Query::topics));
        Some(topics.into_iter().collect())
    }

    pub(super) fn learn(
        &mut self,
        now: SimTime,
        response: &metadata::Response,
        effects: &mut Effects,
    ) {
        self.metadata.update(response);
        self.learn_leaders();
        self.queries.values_mut().for_each(Query::ask_again);
        if self.was_asked_for_subscription() {
            self.learn_subscription(now, response, effects);
        } else {
            // It was under way when the application subscribed.
            self.want_metadata(now, effects);
        }
        let missing = response.topics.iter().filter(|topic| topic.result.is_err());
        let mut missing = missing.map(|topic| topic.topic.clone()).collect::<BTreeSet<_>>();
        if self.asked_topics.is_none() {
            // Of all topics, those that are not named do not exist.
            let named = |topic: &Topic| response.topics.iter().any(|answer| answer.topic == *topic);
            let asked = self.queries.values().flat_map(Query::topics);
            missing.extend(asked.filter(|topic| !named(topic)));
        }
        self.fail_queries_for(&missing, effects);
        self.report_missing_assigned(&missing);
        self.refresh.watch(now + self.config.metadata_refresh_interval, effects);
        if !missing.is_empty() && !self.partitions.is_empty() {
            self.want_metadata_later(now, effects);
        }
    }

    /// Whether the metadata that was asked for tells what the subscription covers.
    fn was_asked_for_subscription(&self) -> bool {
        match (&self.asked_topics, &self.subscription) {
            (Some(_), Some(subscribed)) if !subscribed.patterns.is_empty() => false,
            (Some(asked), Some(subscribed)) => {
                subscribed.subscription.topics.iter().all(|topic| asked.contains(topic))
            }
            (None, _) | (_, None) => true,
        }
    }

    /// Works out which topics the subscription covers, and rejoins if that changed.
    pub(super) fn learn_subscription(
        &mut self,
        now: SimTime,
        response: &metadata::Response,
        effects: &mut Effects,
    ) {
        let Some(subscribed) = &mut self.subscription else { return };
        let Subscribed { subscription, patterns, found: known } = subscribed;
        let mut found = BTreeMap::new();
        for topic in &response.topics {
            let Ok(details) = &topic.result else { continue };
            let name = &topic.topic;
            let is_matched =
                !details.is_internal && patterns.iter().any(|p| p.is_match(name.as_str()));
            if subscription.topics.contains(name) || is_matched {
                let count = i32::try_from(details.partitions.len()).unwrap_or(i32::MAX);
                found.insert(name.clone(), count);
            }
        }
        // librdkafka tells of a pattern without a match as of a missing topic of that name.
        let named = subscription.topics.iter().filter(|topic| !found.contains_key(*topic));
        let is_unmatched =
            |pattern: &&Regex| !found.keys().any(|topic| pattern.is_match(topic.as_str()));
        let unmatched = patterns.iter().filter(is_unmatched).map(|p| Topic::from(p.as_str()));
        let missing = named.cloned().chain(unmatched).collect::<BTreeSet<_>>();
        let is_changed = known.as_ref() != Some(&found);
        *known = Some(found);
        for topic in missing.difference(&self.reported) {
            let answer = response.topics.iter().find(|answer| answer.topic == *topic);
            let kind = answer.and_then(|answer| answer.result.as_ref().err().copied());
            let kind = kind.unwrap_or(ErrorKind::UnknownTopicOrPartition);
            let message = format!("subscribed topic {topic} is not available");
            self.errors.push_back(
                Error::new(kind, message)
                    .with_operation(Operation::Poll)
                    .with_topic_partition(TopicPartition::new(topic, -1)),
            );
        }
        self.reported = missing;
        if is_changed {
            self.subscription_changed(now, effects);
        }
    }

    pub(super) fn report_missing_assigned(&mut self, missing: &BTreeSet<Topic>) {
        if self.subscription.is_some() {
            return;
        }
        for (topic_partition, partition) in &mut self.partitions {
            let count = self.metadata.partitions(&topic_partition.topic);
            let is_out_of_range = count.is_some_and(|count| topic_partition.partition >= count);
            let is_missing = missing.contains(&topic_partition.topic) || is_out_of_range;
            if is_missing && partition.fetch != FetchState::Nowhere {
                partition.fetch = FetchState::Nowhere;
                self.errors.push_back(
                    Error::new(ErrorKind::UnknownTopicOrPartition, "no such partition")
                        .with_operation(Operation::Poll)
                        .with_topic_partition(topic_partition.clone()),
                );
            }
        }
    }
}
