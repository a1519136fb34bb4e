//! What a consumer knows of its topics: the metadata it asks for, and what its subscription covers.

use std::collections::{BTreeMap, BTreeSet};

use bus_core::{Error, ErrorKind, Operation, Topic, TopicPartition};

use crate::client::connections::SOCKET_TIMEOUT;
use crate::node::Effects;
use crate::protocol::{Request, metadata};
use crate::time::SimTime;

use super::partition::FetchState;
use super::queries::Query;
use super::{Consumer, Token};

impl Consumer {
    /// Asks for the topics of the subscription and of the partitions, unless it did already.
    pub(super) fn want_metadata(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(link) = self.refresh.begin(&self.identity, &self.metadata) else { return };
        let request = Request::Metadata(metadata::Request { topics: self.topics_of_interest() });
        let deadline = now + SOCKET_TIMEOUT;
        self.connections.send(now, link, Token::Metadata, request, deadline, effects);
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
        self.learn_subscription(now, response, effects);
        let missing = response.topics.iter().filter(|topic| topic.result.is_err());
        let missing = missing.map(|topic| topic.topic.clone()).collect::<BTreeSet<_>>();
        self.fail_queries_for(&missing, effects);
        self.report_missing_assigned(&missing);
        self.refresh.watch(now + self.config.metadata_refresh_interval, effects);
        if !missing.is_empty() && !self.partitions.is_empty() {
            self.want_metadata_later(now, effects);
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
        let mut found = BTreeMap::new();
        let mut is_matched_by = vec![false; subscribed.patterns.len()];
        for topic in &response.topics {
            let name = &topic.topic;
            let is_named = subscribed.subscription.topics.contains(name);
            match &topic.result {
                Ok(details) => {
                    let mut is_matched = false;
                    for (pattern, any) in subscribed.patterns.iter().zip(&mut is_matched_by) {
                        let matches = !details.is_internal && pattern.is_match(name.as_str());
                        *any |= matches;
                        is_matched |= matches;
                    }
                    if is_named || is_matched {
                        let count = i32::try_from(details.partitions.len()).unwrap_or(i32::MAX);
                        found.insert(name.clone(), count);
                    }
                }
                Err(kind) if is_named && subscribed.reported.insert(name.clone()) => {
                    let message = format!("subscribed topic {name} is not available");
                    self.errors.push_back(
                        Error::new(*kind, message)
                            .with_operation(Operation::Poll)
                            .with_topic_partition(TopicPartition::new(name, -1)),
                    );
                }
                Err(_) => {}
            }
        }
        // librdkafka tells of a pattern without a match as of a missing topic of that name.
        let unmatched = subscribed.patterns.iter().zip(&is_matched_by).filter(|(_, any)| !**any);
        for pattern in unmatched.map(|(pattern, _)| pattern) {
            if subscribed.reported.insert(pattern.as_str().into()) {
                let message = format!("no topic matches {pattern}");
                let error = Error::new(ErrorKind::UnknownTopicOrPartition, message);
                self.errors.push_back(error.with_operation(Operation::Poll));
            }
        }
        let is_there = |topic: &Topic| {
            let mut patterns = subscribed.patterns.iter().zip(&is_matched_by);
            found.contains_key(topic)
                || patterns.any(|(pattern, any)| *any && pattern.as_str() == topic.as_str())
        };
        subscribed.reported.retain(|topic| !is_there(topic));
        if subscribed.found.as_ref() != Some(&found) {
            subscribed.found = Some(found);
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
