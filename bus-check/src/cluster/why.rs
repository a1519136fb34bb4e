//! Answers of a simulated cluster to the questions of the seam: the last event that is such a
//! cause, before the anomaly showed.
//!
//! A loss, a duplicate, and an end that goes back have a cause in the cluster or none: without one
//! something is wrong with the simulator or a client. Of the others the cluster knows less than
//! all, so that without a cause nothing is said.

use std::collections::BTreeMap;

use bus_core::Offset;

use super::{BrokerId, Cluster, ClusterEvent, CutBy, Happened, PlaceId};
use crate::truth::{Cause, GroundTruth, Question, Truth};

impl GroundTruth for Cluster {
    fn why(&self, question: &Question, until: u64) -> Truth {
        let known = self.events.partition_point(|event| event.at <= until);
        let events = &self.events[..known];
        match question {
            Question::Lost { topic_partition, offset } => {
                let Some(place) = self.find(topic_partition) else { return Truth::Unknown };
                let cut = events.iter().rev().find(|event| is_cut_at(event, place, *offset));
                self.or_nothing(cut)
            }
            Question::Duplicated { topic_partition, offsets } => {
                let Some(place) = self.find(topic_partition) else { return Truth::Unknown };
                self.duplicated(events, place, offsets)
            }
            Question::Moved { topic_partition, .. } => {
                let Some(place) = self.find(topic_partition) else { return Truth::Unknown };
                self.or_unknown(events.iter().rev().find(|event| is_cut(event, place)))
            }
            Question::Reordered { topic_partition, .. } => {
                let Some(place) = self.find(topic_partition) else { return Truth::Unknown };
                let is_cause = |event: &&ClusterEvent| {
                    is_cut(event, place)
                        || matches!(event.what, Happened::Refused { place: at, .. } if at == place)
                };
                self.or_unknown(events.iter().rev().find(is_cause))
            }
            Question::Redelivered { group_id, .. } => {
                let is_cause = |event: &&ClusterEvent| match &event.what {
                    Happened::Group { group_id: at, .. } => at == group_id,
                    _ => false,
                };
                self.or_unknown(events.iter().rev().find(is_cause))
            }
            Question::OldCommit { group_id, since } => {
                let removed = events.iter().rev().find(|event| is_removed(event, group_id));
                let of_commits = self.place_ids().filter(|place| self.is_of_commits(*place));
                let old = of_commits.filter_map(|place| old_leader(events, place, *since)).last();
                let late = self.late_coordinator(events, *since).or(old);
                self.or_nothing(late.or(removed))
            }
            Question::OldEnd { topic_partition, offset, since } => {
                let Some(place) = self.find(topic_partition) else { return Truth::Unknown };
                let cut = || events.iter().rev().find(|event| is_cut_at(event, place, *offset));
                self.or_nothing(old_leader(events, place, *since).or_else(cut))
            }
            Question::ZombieCommit { group_id, since } => {
                self.or_nothing(was_empty(events, group_id, *since))
            }
            Question::Fenced { name, since } => {
                let is_of = |event: &&ClusterEvent| match &event.what {
                    Happened::Fenced { transactional_id, .. }
                    | Happened::Transaction { transactional_id, .. } => transactional_id == name,
                    _ => false,
                };
                let is_cause = |event: &&ClusterEvent| match &event.what {
                    Happened::Fenced { .. } => event.at >= *since && is_of(event),
                    // A producer id was asked for, and given out with the next epoch.
                    Happened::Transaction { state, .. } => {
                        event.at > *since && *state == "Empty" && is_of(event)
                    }
                    Happened::Group { group_id, .. } => group_id == name,
                    _ => false,
                };
                let cause = events.iter().rev().find(is_cause);
                if events.iter().any(|event| is_of(&event)) {
                    self.or_nothing(cause)
                } else {
                    self.or_unknown(cause)
                }
            }
        }
    }

    fn cluster(&self) -> Option<&Cluster> {
        Some(self)
    }
}

impl Cluster {
    /// This is why, or nothing is.
    fn or_nothing(&self, event: Option<&ClusterEvent>) -> Truth {
        event.map_or(Truth::Unexplained, |event| self.because(event))
    }

    /// This is why, or something that the cluster does not know.
    fn or_unknown(&self, event: Option<&ClusterEvent>) -> Truth {
        event.map_or(Truth::Unknown, |event| self.because(event))
    }

    fn because(&self, event: &ClusterEvent) -> Truth {
        let sentence = self.sentence(event);
        Truth::Because(Cause { event: event.number, sentence: format!("{sentence}.") })
    }

    /// A leader of the topic of commits whose high watermark had not reached that of the one before
    /// it at some time from `since` on: it did not know yet that what is above is committed.
    fn late_coordinator<'a>(
        &self,
        events: &'a [ClusterEvent],
        since: u64,
    ) -> Option<&'a ClusterEvent> {
        /// Of a partition: how high the high watermark ever was, and a leader that is behind it.
        #[derive(Clone, Copy, Default)]
        struct Known<'a> {
            high_watermark: Offset,
            late: Option<(BrokerId, &'a ClusterEvent)>,
        }
        let mut known = BTreeMap::<PlaceId, Known<'a>>::new();
        for event in events {
            match event.what {
                Happened::EpochStart { broker, place, .. } if self.is_of_commits(place) => {
                    let known = known.entry(place).or_default();
                    known.late = (known.high_watermark > 0).then_some((broker, event));
                }
                Happened::HighWatermark { broker, place, offset } if self.is_of_commits(place) => {
                    let known = known.entry(place).or_default();
                    if offset >= known.high_watermark {
                        known.high_watermark = offset;
                        // The leader before it may still learn what was replicated.
                        let is_late = |(late, _): &(BrokerId, _)| *late != broker;
                        known.late = known.late.filter(|late| event.at >= since || is_late(late));
                    }
                }
                _ => {}
            }
        }
        let late = known.into_values().filter_map(|known| known.late);
        late.map(|(_, event)| event).max_by_key(|event| event.number)
    }

    fn place_ids(&self) -> impl Iterator<Item = PlaceId> {
        (0..).take(self.places.len()).map(PlaceId)
    }

    fn is_of_commits(&self, place: PlaceId) -> bool {
        self.places[place.index()].topic.as_str() == OFFSETS_TOPIC
    }

    /// A batch that was appended twice was sent twice: a retry whose first attempt was not
    /// answered.
    fn duplicated(&self, events: &[ClusterEvent], place: PlaceId, offsets: &[Offset]) -> Truth {
        let [first, again, ..] = offsets else { return Truth::Unknown };
        let append = |offset: Offset| {
            events.iter().rev().find_map(|event| match event.what {
                Happened::Appended { place: at, base, count, digest, .. }
                    if at == place && (base..base + i64::from(count)).contains(&offset) =>
                {
                    Some((event, digest, offset - base))
                }
                _ => None,
            })
        };
        let (Some(one), Some(other)) = (append(*first), append(*again)) else {
            return Truth::Unknown;
        };
        if one.1 != other.1 || one.2 != other.2 {
            return Truth::Unexplained;
        }
        let later = if one.0.number < other.0.number { other.0 } else { one.0 };
        let sentence =
            format!("{}: the batch was there already, so this is a retry.", self.sentence(later));
        Truth::Because(Cause { event: later.number, sentence })
    }
}

/// The election of another leader that one which led before had perhaps not heard of at `since`: a
/// leader goes on until it hears that it is none, and answers by what it knows.
fn old_leader(events: &[ClusterEvent], place: PlaceId, since: u64) -> Option<&ClusterEvent> {
    let mut leads = BTreeMap::<BrokerId, i32>::new();
    let mut elected: Option<(i32, &ClusterEvent)> = None;
    for event in events {
        match event.what {
            Happened::Leader { place: at, leader_epoch, .. } if at == place => {
                elected = Some((leader_epoch, event));
            }
            Happened::EpochStart { place: at, broker, leader_epoch, .. } if at == place => {
                leads.insert(broker, leader_epoch);
            }
            // Of topics that were there from the start no election is told.
            Happened::HighWatermark { place: at, broker, .. } if at == place => {
                let leader_epoch = elected.map_or(0, |(leader_epoch, _)| leader_epoch);
                leads.entry(broker).or_insert(leader_epoch);
            }
            // Whoever follows has heard of it.
            Happened::Replicated { place: at, broker, leader_epoch, .. }
                if at == place && event.at < since && leads.get(&broker) < Some(&leader_epoch) =>
            {
                leads.remove(&broker);
            }
            _ => {}
        }
    }
    let (leader_epoch, event) = elected?;
    leads.values().any(|led| *led < leader_epoch).then_some(event)
}

/// A group changed its state.
fn is_state(event: &ClusterEvent, group_id: &str) -> bool {
    matches!(&event.what, Happened::Group { group_id: at, what }
        if at == group_id && what.contains(", generation "))
}

/// When a group had no members, at the last of the times since then that it had none.
fn was_empty<'e>(
    events: &'e [ClusterEvent],
    group_id: &str,
    since: u64,
) -> Option<&'e ClusterEvent> {
    let mut states = events.iter().rev().filter(|event| is_state(event, group_id));
    // The one that it was in already counts, too; none before that does.
    let last = states.find(|event| is_empty(event) || event.at <= since)?;
    is_empty(last).then_some(last)
}

/// It has no members any more.
fn is_empty(event: &ClusterEvent) -> bool {
    matches!(&event.what, Happened::Group { what, .. } if what.starts_with("Empty"))
}

/// Commits of a group were removed: with a topic, or as they grew old.
fn is_removed(event: &ClusterEvent, group_id: &str) -> bool {
    matches!(&event.what, Happened::Group { group_id: at, what }
        if at == group_id && what.ends_with("was removed"))
}

/// Where Kafka keeps what groups have committed.
const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The end of a log is gone, this offset with it; or one leads that does not have it.
fn is_cut_at(event: &ClusterEvent, place: PlaceId, offset: Offset) -> bool {
    match event.what {
        Happened::Cut { place: at, from, to, .. } => at == place && (to..from).contains(&offset),
        Happened::EpochStart { place: at, end, .. } => at == place && end <= offset,
        _ => false,
    }
}

/// The end of a log is gone.
fn is_cut(event: &ClusterEvent, place: PlaceId) -> bool {
    matches!(event.what, Happened::Cut { place: at, why: CutBy::Truncation | CutBy::PowerLoss, .. }
        if at == place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_was_empty_while_a_commit_was_under_way_explains_it() {
        let state = |at, what: &str| ClusterEvent {
            number: at,
            at,
            what: Happened::Group { group_id: "g".to_owned(), what: what.to_owned() },
        };
        let events = [
            state(10, "Stable, generation 1, 2 members"),
            state(20, "Empty, generation 2, 0 members"),
            state(30, "Stable, generation 3, 1 members"),
        ];
        let was_empty_since = |since| was_empty(&events, "g", since).map(|event| event.at);
        assert_eq!(was_empty_since(15), Some(20));
        assert_eq!(was_empty_since(25), Some(20), "it was already");
        assert_eq!(was_empty_since(30), None);
        assert_eq!(was_empty(&events[..2], "g", 30).map(|event| event.at), Some(20));
        assert!(was_empty(&events, "h", 0).is_none());
    }
}
