//! What a leader knows of its followers: how far each has fetched, which are in sync, and from that
//! the high watermark (KIP-497, KIP-903, KIP-966).
//!
//! - A follower's fetch says where its log ends. It is caught up while it fetched the leader's end
//!   within `replica.lag.time.max.ms`.
//! - The high watermark is the least end of all that are in sync, or caught up and able to join;
//!   it stands still while fewer than `min.insync.replicas` are in sync.
//! - A change of who is in sync is proposed to the controller. Until it answers, an expansion
//!   counts for the high watermark, and a shrinkage does not.

use std::collections::BTreeMap;
use std::time::Duration;

use bus_core::{ErrorKind, Offset};

use super::image::Registration;
use crate::node::BrokerId;
use crate::protocol::cluster::{BrokerEpoch, PartitionState};
use crate::time::SimTime;

/// What a replica knows while it leads.
#[derive(Debug)]
pub(super) struct Leadership {
    /// Where the epoch of this leader begins.
    pub(super) epoch_start: Offset,
    /// Those that the controller says are in sync.
    in_sync: Vec<BrokerId>,
    /// What was proposed to the controller.
    pending: Option<Change>,
    /// All other replicas.
    followers: BTreeMap<BrokerId, Follower>,
}

/// A proposed change of who is in sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// One joins.
    Expand(BrokerId),
    /// Some leave.
    Shrink(Vec<BrokerId>),
}

/// What a leader knows of a follower.
#[derive(Clone, Debug, Default)]
struct Follower {
    /// Where its log ends; `None` before its first fetch from this leader.
    end: Option<Offset>,
    /// When it fetched last, and where the leader's log ended then.
    last_fetch: Option<(SimTime, Offset)>,
    /// The latest time as of which it had all that the leader had.
    last_caught_up: Option<SimTime>,
    /// The registration that it fetched with.
    fetched_as: Option<BrokerEpoch>,
    /// The registration in the image, unless it is fenced.
    registered_as: Option<BrokerEpoch>,
    /// Whether it is in a controlled shutdown.
    is_shutting_down: bool,
}

/// Stands for a registration that is not known; the controller does not check it.
pub(super) const UNKNOWN_EPOCH: BrokerEpoch = -1;

/// A fetch of a follower.
#[derive(Clone, Copy, Debug)]
pub(super) struct FollowerFetch {
    pub(super) follower: BrokerId,
    pub(super) broker_epoch: BrokerEpoch,
    pub(super) offset: Offset,
}

impl Leadership {
    /// The view of a leader that knows nothing yet.
    pub(super) const fn new() -> Self {
        Self { epoch_start: 0, in_sync: Vec::new(), pending: None, followers: BTreeMap::new() }
    }

    /// Learns what the controller decided, and drops what was proposed before.
    pub(super) fn follow(
        &mut self,
        id: BrokerId,
        state: &PartitionState,
        brokers: &BTreeMap<BrokerId, Registration>,
    ) {
        self.pending = None;
        self.in_sync.clone_from(&state.in_sync_replicas);
        let is_follower = |broker: &BrokerId| *broker != id && state.replicas.contains(broker);
        self.followers.retain(|broker, _| is_follower(broker));
        for broker in state.replicas.iter().filter(|broker| is_follower(broker)) {
            self.followers.entry(*broker).or_default();
        }
        self.follow_brokers(brokers);
    }

    /// Learns which brokers are registered.
    pub(super) fn follow_brokers(&mut self, brokers: &BTreeMap<BrokerId, Registration>) {
        for (broker, follower) in &mut self.followers {
            let registration = brokers.get(broker).filter(|broker| !broker.is_fenced);
            follower.registered_as = registration.map(|broker| broker.epoch);
            follower.is_shutting_down = registration.is_some_and(|broker| broker.is_shutting_down);
        }
    }

    /// Begins an epoch at `start`: a new leader knows nothing of its followers' logs; one that led
    /// before does.
    pub(super) fn begin_epoch(&mut self, now: SimTime, start: Offset, is_new_leader: bool) {
        self.epoch_start = start;
        for (broker, follower) in &mut self.followers {
            let is_in_sync = self.in_sync.contains(broker);
            if is_new_leader {
                let Follower { registered_as, is_shutting_down, .. } = *follower;
                *follower = Follower { registered_as, is_shutting_down, ..Follower::default() };
            } else {
                follower.last_fetch = is_in_sync.then_some((now, start));
            }
            follower.last_caught_up = is_in_sync.then_some(now);
        }
    }

    /// How many replicas there are.
    pub(super) fn replica_count(&self) -> usize {
        self.followers.len() + 1
    }

    /// How many replicas the controller says are in sync.
    pub(super) const fn in_sync_count(&self) -> usize {
        self.in_sync.len()
    }

    /// How many replicas `acks=all` waits for: those in sync, and the one that joins.
    pub(super) const fn maximal_count(&self) -> usize {
        self.in_sync.len() + matches!(self.pending, Some(Change::Expand(_))) as usize
    }

    /// Whether a replica counts as in sync for the high watermark.
    fn is_maximal(&self, broker: BrokerId) -> bool {
        self.in_sync.contains(&broker) || self.pending == Some(Change::Expand(broker))
    }

    /// Whether there is such a follower.
    pub(super) fn is_follower(&self, broker: BrokerId) -> bool {
        self.followers.contains_key(&broker)
    }

    /// Notes a fetch of a follower. Returns whether it has more than before.
    ///
    /// # Errors
    /// It fetched with a registration that is not its newest.
    pub(super) fn fetched(
        &mut self,
        now: SimTime,
        fetch: FollowerFetch,
        log_end: Offset,
    ) -> Result<bool, ErrorKind> {
        let FollowerFetch { follower, broker_epoch, offset } = fetch;
        let follower = self.followers.get_mut(&follower).ok_or(ErrorKind::UnknownLeaderEpoch)?;
        if follower.registered_as.is_some_and(|newest| newest > broker_epoch) {
            return Err(ErrorKind::NotLeaderOrFollower);
        }
        let caught_up = if offset >= log_end {
            Some(now)
        } else {
            // It has all that there was at its last fetch.
            follower.last_fetch.filter(|(_, end)| offset >= *end).map(|(time, _)| time)
        };
        follower.last_caught_up = follower.last_caught_up.max(caught_up);
        let last_end = follower.last_fetch.map_or(0, |(_, end)| end);
        follower.last_fetch = Some((now, last_end.max(log_end)));
        follower.fetched_as = Some(broker_epoch);
        Ok(follower.end.replace(offset) != Some(offset))
    }

    /// Proposes that a follower joins those in sync, if it may: its log reaches the high watermark
    /// and the start of this epoch, as it may lack committed records before.
    pub(super) fn propose_expansion(&mut self, broker: BrokerId, high_watermark: Offset) -> bool {
        if self.pending.is_some() || self.in_sync.contains(&broker) {
            return false;
        }
        let Some(follower) = self.followers.get(&broker) else { return false };
        let reaches = |offset| follower.end.is_some_and(|end| end >= offset);
        let may_join = follower.can_join() && reaches(high_watermark) && reaches(self.epoch_start);
        if may_join {
            self.pending = Some(Change::Expand(broker));
        }
        may_join
    }

    /// Proposes that followers leave those in sync that are not caught up any more.
    pub(super) fn propose_shrinkage(
        &mut self,
        now: SimTime,
        log_end: Offset,
        max_lag: Duration,
    ) -> bool {
        if self.pending.is_some() {
            return false;
        }
        let is_out = |broker: &&BrokerId| {
            let follower = self.followers.get(*broker);
            follower.is_some_and(|follower| !follower.is_caught_up(now, log_end, max_lag))
        };
        let out: Vec<_> = self.in_sync.iter().filter(is_out).copied().collect();
        let is_any = !out.is_empty();
        if is_any {
            self.pending = Some(Change::Shrink(out));
        }
        is_any
    }

    /// Who shall be in sync by what is proposed, each with the registration that it fetched with,
    /// or [`UNKNOWN_EPOCH`].
    pub(super) fn proposed(
        &self,
        id: BrokerId,
        own_epoch: BrokerEpoch,
    ) -> Option<Vec<(BrokerId, BrokerEpoch)>> {
        let mut in_sync = self.in_sync.clone();
        match self.pending.as_ref()? {
            Change::Expand(broker) => in_sync.push(*broker),
            Change::Shrink(out) => in_sync.retain(|broker| !out.contains(broker)),
        }
        let epoch_of = |broker| {
            let follower = self.followers.get(&broker);
            let fetched_as = follower.and_then(|follower| follower.fetched_as);
            if broker == id { own_epoch } else { fetched_as.unwrap_or(UNKNOWN_EPOCH) }
        };
        Some(in_sync.into_iter().map(|broker| (broker, epoch_of(broker))).collect())
    }

    /// Whether a change is proposed.
    pub(super) const fn has_proposed(&self) -> bool {
        self.pending.is_some()
    }

    /// Takes back what was proposed: the controller did not do it.
    pub(super) fn withdraw(&mut self) {
        self.pending = None;
    }

    /// What was proposed is so now.
    pub(super) fn commit(&mut self, in_sync_replicas: &[BrokerId]) {
        self.pending = None;
        self.in_sync = in_sync_replicas.to_vec();
    }

    /// The least end of the logs that count; `None` if one of them is not known.
    pub(super) fn least_end(
        &self,
        now: SimTime,
        log_end: Offset,
        max_lag: Duration,
    ) -> Option<Offset> {
        self.followers.iter().try_fold(log_end, |least, (broker, follower)| {
            let counts = || {
                self.is_maximal(*broker)
                    || (follower.can_join() && follower.is_caught_up(now, log_end, max_lag))
            };
            match follower.end {
                Some(end) if end >= least => Some(least),
                end if counts() => end,
                _ => Some(least),
            }
        })
    }
}

impl Follower {
    fn is_caught_up(&self, now: SimTime, log_end: Offset, max_lag: Duration) -> bool {
        self.end == Some(log_end) || self.last_caught_up.is_some_and(|time| now <= time + max_lag)
    }

    /// Whether it fetched with the registration that counts, and is neither fenced nor shutting
    /// down.
    fn can_join(&self) -> bool {
        let is_current = self.fetched_as.is_some() && self.fetched_as == self.registered_as;
        is_current && !self.is_shutting_down
    }
}
