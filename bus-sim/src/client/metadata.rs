//! What a client knows of the cluster: brokers, partitions, leaders. It can be stale. And when it
//! asks again.

use std::collections::BTreeMap;
use std::time::Duration;

use bus_core::{Partition, Topic, TopicPartition};

use crate::client::ClientTimer;
use crate::node::{BrokerId, Effects, Timer};
use crate::protocol::metadata::{self, TopicDetails};
use crate::time::SimTime;

/// librdkafka's `topic.metadata.refresh.fast.interval.ms`.
const RETRY: Duration = Duration::from_millis(100);

/// What a client knows of the cluster.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) brokers: Vec<BrokerId>,
    pub(crate) topics: BTreeMap<Topic, TopicDetails>,
}

impl Metadata {
    /// Knows the brokers that it was given to start from, as `bootstrap.servers` does.
    pub(crate) fn new(brokers: i32) -> Self {
        Self { brokers: (1..=brokers).collect(), topics: BTreeMap::new() }
    }

    /// Learns from a response. Topics that the response does not mention stay as they are. So do
    /// partitions whose leader epoch is older than the one that is known: the broker that answered
    /// knows less (KIP-320).
    pub(crate) fn update(&mut self, response: &metadata::Response) {
        if !response.brokers.is_empty() {
            self.brokers.clone_from(&response.brokers);
        }
        for topic in &response.topics {
            match &topic.result {
                Ok(details) => {
                    let mut details = details.clone();
                    let known = self.topics.get(&topic.topic);
                    if let Some(known) = known.filter(|known| known.topic_id == details.topic_id) {
                        for (new, old) in details.partitions.iter_mut().zip(&known.partitions) {
                            if new.leader_epoch < old.leader_epoch {
                                new.clone_from(old);
                            }
                        }
                    }
                    self.topics.insert(topic.topic.clone(), details);
                }
                Err(_) => {
                    self.topics.remove(&topic.topic);
                }
            }
        }
    }

    /// How many partitions a topic has, if it is known.
    pub(crate) fn partitions(&self, topic: &Topic) -> Option<Partition> {
        Partition::try_from(self.topics.get(topic)?.partitions.len()).ok()
    }

    /// The leader of a partition with its epoch, if one is known.
    pub(crate) fn leader(&self, topic_partition: &TopicPartition) -> Option<(BrokerId, i32)> {
        let details = self.topics.get(&topic_partition.topic)?;
        let index = usize::try_from(topic_partition.partition).ok()?;
        let partition = details.partitions.get(index)?;
        Some((partition.leader?, partition.leader_epoch))
    }

    /// The leader epoch of a partition, with a leader or without.
    pub(crate) fn leader_epoch(&self, topic_partition: &TopicPartition) -> Option<i32> {
        let details = self.topics.get(&topic_partition.topic)?;
        let index = usize::try_from(topic_partition.partition).ok()?;
        Some(details.partitions.get(index)?.leader_epoch)
    }

    /// Whether the partition is known to have no leader at the moment.
    pub(crate) fn is_leaderless(&self, topic_partition: &TopicPartition) -> bool {
        let details = self.topics.get(&topic_partition.topic);
        let index = usize::try_from(topic_partition.partition).unwrap_or(usize::MAX);
        let partition = details.and_then(|details| details.partitions.get(index));
        partition.is_some_and(|partition| partition.leader.is_none())
    }
}

/// When a client asks for metadata: one request at a time.
#[derive(Debug, Default)]
pub(crate) struct Refresh {
    is_in_flight: bool,
    /// When the timer is set for.
    at: Option<SimTime>,
}

impl Refresh {
    /// Begins a request; not while one is under way.
    pub(crate) const fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.is_in_flight, true)
    }

    /// The request is over.
    pub(crate) const fn end(&mut self) {
        self.is_in_flight = false;
    }

    /// The timer has fired.
    pub(crate) const fn timer_fired(&mut self) {
        self.at = None;
    }

    /// Asks again soon, unless a request is under way.
    pub(crate) fn soon(&mut self, now: SimTime, effects: &mut Effects) {
        if !self.is_in_flight {
            self.watch(now + RETRY, effects);
        }
    }

    /// Sets the timer, unless it comes earlier already: who asks again and again must not put it
    /// off for ever.
    pub(crate) fn watch(&mut self, at: SimTime, effects: &mut Effects) {
        if self.at.is_none_or(|earlier| at < earlier) {
            self.at = Some(at);
            effects.set_timer(Timer::Client(ClientTimer::MetadataRefresh), at);
        }
    }
}
