//! Elections: who leads a partition, who is in sync, and who may lead although it is not
//! (ELR, KIP-966), after brokers came, went, or were proposed by a leader.
//!
//! - The leader stays as long as it is in sync and alive; otherwise the first replica that is.
//! - Whoever leaves the in-sync replicas while fewer than `min.insync.replicas` stay is *eligible*:
//!   the high watermark has not moved since, so it lacks nothing that was committed. It may lead
//!   when nobody is in sync, until it comes back from an unclean shutdown.
//! - With nobody in sync and nobody eligible, the leader that was the last may lead again; with
//!   `unclean.leader.election.enable` any replica may. Both are unclean: records can be lost.
//!
//! Absent: reassignment, the recovery state of a leader after an unclean election (it has no effect
//! that clients see). See `docs/fidelity.md`.

use crate::mutation::Mutation;
use crate::node::BrokerId;
use crate::protocol::cluster::PartitionState;

/// Which kind of election is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Election {
    /// Of the preferred leader, if it is in sync.
    Preferred,
    /// Only if there must be one; only of replicas in sync or eligible.
    Online,
    /// As `Online`, but of any replica before there is no leader.
    Unclean,
}

/// A change that is made to a partition.
#[derive(Debug)]
pub(super) struct Change<'a> {
    state: &'a PartitionState,
    election: Election,
    /// `min.insync.replicas`, but not more than there are replicas.
    min_insync_replicas: usize,
    in_sync_replicas: Vec<BrokerId>,
    /// Who came back from an unclean shutdown.
    unclean: Option<BrokerId>,
    mutation: Option<Mutation>,
}

/// Who was elected.
#[derive(Debug, PartialEq, Eq)]
struct Elected {
    leader: Option<BrokerId>,
    is_unclean: bool,
}

impl<'a> Change<'a> {
    /// No change yet.
    pub(super) fn new(
        state: &'a PartitionState,
        election: Election,
        min_insync_replicas: usize,
    ) -> Self {
        let in_sync_replicas = state.in_sync_replicas.clone();
        let min_insync_replicas = min_insync_replicas.min(state.replicas.len());
        Self {
            state,
            election,
            min_insync_replicas,
            in_sync_replicas,
            unclean: None,
            mutation: None,
        }
    }

    /// With this bug planted.
    pub(super) const fn mutated(mut self, mutation: Option<Mutation>) -> Self {
        self.mutation = mutation;
        self
    }

    /// These shall be in sync.
    pub(super) fn in_sync(mut self, in_sync_replicas: Vec<BrokerId>) -> Self {
        self.in_sync_replicas = in_sync_replicas;
        self
    }

    /// This one shall not be in sync.
    pub(super) fn without(mut self, broker: BrokerId) -> Self {
        self.in_sync_replicas.retain(|replica| *replica != broker);
        self
    }

    /// This one came back from an unclean shutdown: it may lack what it had.
    pub(super) fn without_unclean(self, broker: BrokerId) -> Self {
        Self { unclean: Some(broker), ..self.without(broker) }
    }

    /// What becomes of the partition when the leader must be one of these; `None` if nothing
    /// changes.
    pub(super) fn build(self, is_acceptable: impl Fn(BrokerId) -> bool) -> Option<PartitionState> {
        let before = self.state;
        let mut eligible_leaders = self.eligible();
        let is_valid = |broker: &BrokerId| {
            let is_candidate = self.in_sync_replicas.contains(broker)
                || (self.in_sync_replicas.is_empty() && eligible_leaders.contains(broker));
            is_candidate && is_acceptable(*broker)
        };
        let elected = self.elect(is_valid, &is_acceptable, eligible_leaders.is_empty());
        let mut in_sync_replicas = self.in_sync_replicas;
        if elected.leader != before.leader
            && let Some(leader) = elected.leader
        {
            if eligible_leaders.contains(&leader) {
                in_sync_replicas = vec![leader];
                eligible_leaders.retain(|broker| *broker != leader);
            } else if elected.is_unclean {
                // This is where records get lost.
                in_sync_replicas = vec![leader];
                eligible_leaders.clear();
            }
        }
        let last_known_leader = match elected.leader {
            Some(_) => None,
            None if in_sync_replicas.is_empty() && !before.in_sync_replicas.is_empty() => {
                before.leader.or(before.last_known_leader)
            }
            None => before.last_known_leader,
        };
        let mut after = PartitionState {
            replicas: before.replicas.clone(),
            in_sync_replicas,
            eligible_leaders,
            last_known_leader,
            leader: elected.leader,
            ..*before
        };
        if after == *before {
            return None;
        }
        after.leader_epoch += i32::from(after.leader != before.leader);
        after.partition_epoch += 1;
        Some(after)
    }

    /// Who is eligible after the change, before an election.
    fn eligible(&self) -> Vec<BrokerId> {
        let is_kept = self.mutation == Some(Mutation::EligibleForTooLong)
            && !self.state.eligible_leaders.is_empty();
        if self.in_sync_replicas.len() >= self.min_insync_replicas && !is_kept {
            return Vec::new();
        }
        let before = self.state.eligible_leaders.iter().chain(&self.state.in_sync_replicas);
        let stays = |broker: &&BrokerId| {
            !self.in_sync_replicas.contains(*broker) && self.unclean != Some(**broker)
        };
        let mut eligible: Vec<BrokerId> = before.filter(stays).copied().collect();
        eligible.sort_unstable();
        eligible.dedup();
        eligible
    }

    fn elect(
        &self,
        is_valid: impl Fn(&BrokerId) -> bool,
        is_acceptable: impl Fn(BrokerId) -> bool,
        nobody_is_eligible: bool,
    ) -> Elected {
        let replicas = &self.state.replicas;
        let preferred = replicas.first().filter(|_| self.election == Election::Preferred);
        let clean = preferred
            .filter(|broker| is_valid(broker))
            .or_else(|| self.state.leader.as_ref().filter(|broker| is_valid(broker)))
            .or_else(|| replicas.iter().find(|broker| is_valid(broker)));
        if let Some(leader) = clean {
            return Elected { leader: Some(*leader), is_unclean: false };
        }
        let last_known = self.state.last_known_leader.filter(|broker| {
            nobody_is_eligible && self.in_sync_replicas.is_empty() && is_acceptable(*broker)
        });
        let leader = last_known.or_else(|| {
            let any = replicas.iter().find(|broker| is_acceptable(**broker));
            any.filter(|_| self.election == Election::Unclean).copied()
        });
        Elected { leader, is_unclean: leader.is_some() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(in_sync: &[BrokerId], leader: Option<BrokerId>) -> PartitionState {
        PartitionState {
            replicas: vec![1, 2, 3],
            in_sync_replicas: in_sync.to_vec(),
            eligible_leaders: Vec::new(),
            last_known_leader: None,
            leader,
            leader_epoch: 5,
            partition_epoch: 7,
        }
    }

    /// Fences a broker, with `min.insync.replicas=2`.
    fn fence(
        state: &PartitionState,
        broker: BrokerId,
        alive: &[BrokerId],
        election: Election,
    ) -> PartitionState {
        let change = Change::new(state, election, 2).without(broker);
        change.build(|id| id != broker && alive.contains(&id)).expect("it changes")
    }

    /// Unfences a broker.
    fn unfence(state: &PartitionState, alive: &[BrokerId]) -> Option<PartitionState> {
        Change::new(state, Election::Online, 2).build(|id| alive.contains(&id))
    }

    #[test]
    fn the_next_leader_is_the_first_in_sync() {
        let after = fence(&state(&[3, 1, 2], Some(1)), 1, &[2, 3], Election::Online);
        assert_eq!((after.leader, after.leader_epoch, after.partition_epoch), (Some(2), 6, 8));
        assert_eq!(after.in_sync_replicas, [3, 2]);
        assert!(after.eligible_leaders.is_empty());
    }

    #[test]
    fn a_follower_that_leaves_changes_no_leader_epoch() {
        let after = fence(&state(&[1, 2, 3], Some(1)), 3, &[1, 2], Election::Online);
        assert_eq!((after.leader, after.leader_epoch, after.partition_epoch), (Some(1), 5, 8));
    }

    #[test]
    fn who_leaves_below_the_minimum_is_eligible() {
        let one = fence(&state(&[1, 2], Some(1)), 1, &[2], Election::Online);
        assert_eq!((one.leader, &*one.in_sync_replicas), (Some(2), &[2][..]));
        assert_eq!(one.eligible_leaders, [1]);
        let none = fence(&one, 2, &[], Election::Online);
        assert_eq!((none.leader, &*none.in_sync_replicas), (None, &[][..]));
        assert_eq!((&*none.eligible_leaders, none.last_known_leader), (&[1, 2][..], Some(2)));
        // A replica out of sync is not elected, an eligible one is, and alone in sync then.
        assert_eq!(unfence(&none, &[3]), None);
        let again = unfence(&none, &[3, 1]).expect("one may lead");
        assert_eq!((again.leader, &*again.in_sync_replicas), (Some(1), &[1][..]));
        assert_eq!((&*again.eligible_leaders, again.last_known_leader), (&[2][..], None));
    }

    #[test]
    fn an_unclean_shutdown_ends_the_eligibility() {
        let none = PartitionState {
            eligible_leaders: vec![1, 2],
            last_known_leader: Some(2),
            ..state(&[], None)
        };
        let change =
            |state, broker| Change::new(state, Election::Online, 2).without_unclean(broker);
        let one = change(&none, 1).build(|_| false).expect("it changes");
        assert_eq!(one.eligible_leaders, [2]);
        assert_eq!(unfence(&one, &[1]), None);
        // With nobody eligible the last leader may lead again.
        let nobody = change(&one, 2).build(|_| false).expect("it changes");
        assert_eq!(unfence(&nobody, &[1, 3]), None);
        let last = unfence(&nobody, &[2]).expect("the last leader may lead");
        assert_eq!((last.leader, &*last.in_sync_replicas), (Some(2), &[2][..]));
        assert_eq!(last.last_known_leader, None);
    }

    #[test]
    fn an_unclean_election_leaves_one_in_sync() {
        let alone = state(&[1], Some(1));
        let after = fence(&alone, 1, &[3], Election::Unclean);
        assert_eq!((after.leader, &*after.in_sync_replicas), (Some(3), &[3][..]));
        assert!(after.eligible_leaders.is_empty());
        let after = fence(&alone, 1, &[3], Election::Online);
        assert_eq!((after.leader, after.leader_epoch), (None, 6));
        assert_eq!(after.eligible_leaders, [1]);
    }

    #[test]
    fn the_preferred_leader_leads_again_when_it_is_in_sync() {
        let change =
            |state: &PartitionState| Change::new(state, Election::Preferred, 1).build(|_| true);
        assert_eq!(change(&state(&[2, 3], Some(2))), None);
        let after = change(&state(&[2, 3, 1], Some(2))).expect("it changes");
        assert_eq!((after.leader, after.leader_epoch), (Some(1), 6));
    }
}
