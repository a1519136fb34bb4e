//! The past: which events came how often, so that a fault that struck at a time can be told to
//! strike at one of them.

use std::collections::BTreeMap;

use crate::fact::{Fact, TransactionFact};
use crate::fault::{FactPattern, Trigger};

/// Each kind of event as the trigger for the first one, with how many came, and when the last did.
#[derive(Debug, Default)]
pub(super) struct Past {
    kinds: BTreeMap<Trigger, (u32, u64)>,
    events: u64,
}

impl Past {
    /// An event came; `kind` is the trigger for the first one.
    pub(super) fn came(&mut self, kind: Trigger) {
        self.events += 1;
        let (count, last) = self.kinds.entry(kind).or_default();
        *count += 1;
        *last = self.events;
    }

    /// The trigger for the last event of each kind, the last one first.
    pub(super) fn last_first(&self) -> Vec<Trigger> {
        let mut kinds: Vec<_> = self.kinds.iter().collect();
        kinds.sort_by_key(|(_, (_, last))| std::cmp::Reverse(*last));
        kinds.into_iter().map(|(kind, (count, _))| kind.clone().nth(*count)).collect()
    }
}

/// What a trigger would wait for to see this fact. `before` is how many were in sync.
pub(super) fn pattern(fact: &Fact, before: Option<usize>) -> Option<FactPattern> {
    let at = |make: fn(_, _) -> FactPattern, at: &bus_core::TopicPartition| {
        make(at.topic.clone(), at.partition)
    };
    Some(match fact {
        Fact::Leader { topic_partition, leader: Some(_), .. } => {
            at(FactPattern::LeaderElected, topic_partition)
        }
        Fact::Leader { topic_partition, leader: None, .. } => {
            at(FactPattern::LeaderLost, topic_partition)
        }
        Fact::InSync { topic_partition, in_sync_replicas } => {
            let before = before?;
            match in_sync_replicas.len() {
                now if now < before => at(FactPattern::InSyncShrank, topic_partition),
                now if now > before => at(FactPattern::InSyncGrew, topic_partition),
                _ => return None,
            }
        }
        Fact::EpochStart { topic_partition, .. } => at(FactPattern::LeaderStarted, topic_partition),
        Fact::Appended { topic_partition, .. } => at(FactPattern::Appended, topic_partition),
        Fact::Replicated { topic_partition, .. } => at(FactPattern::Replicated, topic_partition),
        Fact::HighWatermark { topic_partition, .. } => {
            at(FactPattern::HighWatermark, topic_partition)
        }
        Fact::Truncated { topic_partition, .. } => at(FactPattern::Truncated, topic_partition),
        Fact::DuplicateBatch { topic_partition, .. } => {
            at(FactPattern::DuplicateBatch, topic_partition)
        }
        Fact::Transaction(TransactionFact::Marker { topic_partition, .. }) => {
            at(FactPattern::Marker, topic_partition)
        }
        Fact::GroupState { group_id, state, .. } => {
            FactPattern::GroupState(group_id.to_string(), (*state).to_owned())
        }
        Fact::MemberLeft { group_id, .. } => FactPattern::MemberLeft(group_id.to_string()),
        Fact::OffsetCommit { group_id, refused: None, .. } => {
            FactPattern::OffsetCommitted(group_id.to_string())
        }
        Fact::Transaction(TransactionFact::State { transactional_id, state, .. }) => {
            FactPattern::TransactionState(transactional_id.to_string(), (*state).to_owned())
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Stage;
    use crate::protocol::Api;

    #[test]
    fn the_last_event_of_each_kind_comes_first() {
        let [sent, handled] =
            [Stage::Sent, Stage::Handled].map(|is| Trigger::request(Api::Fetch, is));
        let mut past = Past::default();
        for kind in [&sent, &handled, &sent] {
            past.came(kind.clone());
        }
        assert_eq!(past.last_first(), [sent.nth(2), handled]);
    }
}
