//! What the bus knows of a consumer: how it gets partitions, which it has, and where each is.

use std::collections::BTreeMap;
use std::sync::Arc;

use bus_core::{
    Error, ErrorKind, Offset, Rebalance, RebalanceKind, Record, Result, Subscription,
    TopicPartition,
};

/// The state of a consumer; librdkafka has its own, and the two change together.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) mode: Mode,
    /// Counts the changes of `mode`, so that a change in the background notices a newer one.
    pub(crate) version: u64,
    /// The partitions that the consumer reads.
    pub(crate) assignment: BTreeMap<TopicPartition, Place>,
    /// Partitions that were left and are paused until librdkafka has given them up.
    pub(crate) left: Vec<TopicPartition>,
    /// The rebalance that waits for the application.
    pub(crate) pending: Option<Pending>,
    /// What is subscribed to.
    pub(crate) subscription: Subscription,
    /// The error after which librdkafka's client is of no use; every poll repeats it.
    pub(crate) fatal: Option<Error>,
}

/// A rebalance that waits for the application.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) rebalance: Arc<Rebalance>,
    /// Whether it is a revocation that turns into a loss if the group does not wait.
    pub(crate) may_turn_lost: bool,
}

impl Pending {
    /// The group did not wait: a revocation is a loss now, and the older guard overtaken.
    pub(crate) fn turn_lost(&mut self) {
        if self.may_turn_lost {
            let partitions = self.rebalance.partitions.clone();
            self.rebalance = Arc::new(Rebalance { kind: RebalanceKind::Lost, partitions });
            self.may_turn_lost = false;
        }
    }
}

/// How the consumer gets its partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Not at all.
    #[default]
    Idle,
    /// As a member of its group.
    Subscribed,
    /// By hand.
    Assigned,
}

/// Where a partition is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The next record that `poll` returns, once one was returned or a place was sought.
    pub(crate) position: Option<Offset>,
    /// Where librdkafka starts if there is no position.
    pub(crate) start: rdkafka::Offset,
    pub(crate) is_paused: bool,
    /// A place that was sought while a rebalance was pending, for when it is answered.
    pub(crate) sought: Option<Offset>,
}

impl Default for Place {
    fn default() -> Self {
        Self::starting_at(rdkafka::Offset::Stored)
    }
}

impl Place {
    pub(crate) const fn starting_at(start: rdkafka::Offset) -> Self {
        Self { position: None, start, is_paused: false, sought: None }
    }

    /// Where librdkafka has to go on.
    pub(crate) fn next(&self) -> rdkafka::Offset {
        self.position.map_or(self.start, rdkafka::Offset::Offset)
    }
}

impl State {
    /// The place of an assigned partition.
    pub(crate) fn place(&self, topic_partition: &TopicPartition) -> Result<&Place> {
        self.assignment.get(topic_partition).ok_or_else(|| not_assigned(topic_partition))
    }

    /// The paused partitions, sorted.
    pub(crate) fn paused(&self) -> Vec<TopicPartition> {
        let paused = self.assignment.iter().filter(|(_, place)| place.is_paused);
        paused.map(|(topic_partition, _)| topic_partition.clone()).collect()
    }

    /// Goes over to another mode, with nothing assigned.
    pub(crate) fn reset(&mut self, mode: Mode) -> u64 {
        self.mode = mode;
        self.version += 1;
        self.subscription = Subscription::default();
        self.assignment.clear();
        self.version
    }

    /// Whether the application has given up these partitions by what it subscribes to now. A
    /// pattern may still match them.
    pub(crate) fn is_given_up(&self, partitions: &[TopicPartition]) -> bool {
        let Subscription { topics, patterns } = &self.subscription;
        patterns.is_empty() && partitions.iter().all(|partition| !topics.contains(&partition.topic))
    }

    /// Applies a completed rebalance.
    pub(crate) fn apply(&mut self, rebalance: &Rebalance, is_cooperative: bool) {
        let Rebalance { kind, partitions } = rebalance;
        if !is_cooperative {
            self.assignment.clear();
        }
        for topic_partition in partitions {
            match kind {
                RebalanceKind::Assigned => {
                    self.assignment.insert(topic_partition.clone(), Place::default());
                }
                RebalanceKind::Revoked | RebalanceKind::Lost => {
                    self.assignment.remove(topic_partition);
                }
            }
        }
    }

    /// Takes note that the records are returned now, and drops those of partitions that are gone.
    pub(crate) fn deliver(&mut self, records: &mut Vec<Record>) {
        let mut gone = false;
        for i in 0..records.len() {
            let record = &records[i];
            // Records come in runs of one partition: only the last of a run moves the position.
            let ends_run = records.get(i + 1).is_none_or(|next| {
                next.partition != record.partition || next.topic != record.topic
            });
            if ends_run {
                match self.assignment.get_mut(&record.topic_partition()) {
                    Some(place) => place.position = Some(record.next_offset()),
                    None => gone = true,
                }
            }
        }
        if gone {
            records.retain(|record| self.assignment.contains_key(&record.topic_partition()));
        }
    }
}

pub(crate) fn not_assigned(topic_partition: &TopicPartition) -> Error {
    Error::new(ErrorKind::InvalidState, "the partition is not assigned to this consumer")
        .with_topic_partition(topic_partition.clone())
}

#[cfg(test)]
mod tests {
    use bus_core::{Headers, Timestamp, TimestampType, Topic};

    use super::*;

    fn partition(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn rebalance(kind: RebalanceKind, partitions: &[i32]) -> Rebalance {
        Rebalance { kind, partitions: partitions.iter().copied().map(partition).collect() }
    }

    fn record(partition: i32, offset: Offset) -> Record {
        Record {
            topic: Topic::from("t"),
            partition,
            offset,
            timestamp: Timestamp::EPOCH,
            timestamp_type: TimestampType::CreateTime,
            leader_epoch: None,
            key: None,
            value: None,
            headers: Headers::new(),
        }
    }

    #[test]
    fn an_eager_rebalance_is_about_all_partitions_and_a_cooperative_one_about_some() {
        let mut state = State::default();
        state.apply(&rebalance(RebalanceKind::Assigned, &[0, 1]), true);
        state.apply(&rebalance(RebalanceKind::Revoked, &[0]), true);
        state.apply(&rebalance(RebalanceKind::Assigned, &[2]), true);
        assert_eq!(state.assignment.keys().cloned().collect::<Vec<_>>(), [1, 2].map(partition));
        state.apply(&rebalance(RebalanceKind::Assigned, &[3]), false);
        assert_eq!(state.assignment.keys().cloned().collect::<Vec<_>>(), [3].map(partition));
        state.apply(&rebalance(RebalanceKind::Lost, &[3]), false);
        assert!(state.assignment.is_empty());
    }

    #[test]
    fn a_revocation_turns_into_a_loss_once() {
        let rebalance = Arc::new(rebalance(RebalanceKind::Revoked, &[0]));
        let mut pending = Pending { rebalance: Arc::clone(&rebalance), may_turn_lost: true };
        pending.turn_lost();
        let lost = Arc::clone(&pending.rebalance);
        assert_eq!((lost.kind, &lost.partitions), (RebalanceKind::Lost, &rebalance.partitions));
        pending.turn_lost();
        assert!(Arc::ptr_eq(&lost, &pending.rebalance));
    }

    #[test]
    fn partitions_are_given_up_by_a_subscription_without_their_topic() {
        for (subscription, is_given_up) in [
            (Subscription::topics(["t", "u"]), false),
            (Subscription::topics(["u"]), true),
            // The pattern may match it.
            (Subscription::topics(["u"]).and_pattern("^t"), false),
        ] {
            let state = State { subscription, ..State::default() };
            assert_eq!(state.is_given_up(&[partition(0)]), is_given_up, "{state:?}");
        }
    }

    #[test]
    fn delivery_moves_positions_and_drops_what_is_gone() {
        let mut state = State::default();
        state.apply(&rebalance(RebalanceKind::Assigned, &[0, 1]), false);
        let mut records = vec![record(0, 4), record(0, 7), record(2, 0), record(1, 1)];
        state.deliver(&mut records);
        assert_eq!(records, [record(0, 4), record(0, 7), record(1, 1)]);
        assert_eq!(state.place(&partition(0)).unwrap().position, Some(8));
        assert_eq!(state.place(&partition(1)).unwrap().position, Some(2));
        let error = state.place(&partition(2)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidState);
    }
}
