//! A replica while it leads others: their fetches, and what it proposes about who is in sync.

use bus_core::ErrorKind;

use super::Replica;
use crate::broker::in_sync::{FollowerFetch, Leadership};
use crate::mutation::Mutation;
use crate::node::BrokerId;
use crate::protocol::cluster::{BrokerEpoch, PartitionState};
use crate::time::SimTime;

/// What came of a fetch of a follower.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Fetched {
    /// More is committed than before.
    pub(in crate::broker) has_advanced: bool,
    /// It shall join those in sync.
    pub(in crate::broker) is_proposed: bool,
}

/// Who shall be in sync.
#[derive(Debug)]
pub(in crate::broker) struct Proposal {
    pub(in crate::broker) leader_epoch: i32,
    pub(in crate::broker) partition_epoch: i32,
    pub(in crate::broker) in_sync_replicas: Vec<(BrokerId, BrokerEpoch)>,
}

impl Replica {
    /// Notes a fetch of a follower. Returns whether more is committed by it.
    ///
    /// # Errors
    /// It fetched with a registration that is not its newest.
    pub(in crate::broker) fn fetched(
        &mut self,
        now: SimTime,
        fetch: FollowerFetch,
    ) -> Result<Fetched, ErrorKind> {
        let log_end = self.log.end();
        let is_lax = self.config.mutation == Some(Mutation::JoinsBehindWatermark);
        let high_watermark = if is_lax { 0 } else { self.high_watermark() };
        let leadership = self.leadership_mut().ok_or(ErrorKind::NotLeaderOrFollower)?;
        let has_more = leadership.fetched(now, fetch, log_end)?;
        let is_proposed = leadership.propose_expansion(fetch.follower, high_watermark);
        if self.config.mutation == Some(Mutation::WatermarkTakenBack)
            && fetch.offset < high_watermark
        {
            self.set_high_watermark(now, fetch.offset);
            if let Some(role) = &mut self.role {
                role.has_risen = true;
            }
            return Ok(Fetched { has_advanced: true, is_proposed });
        }
        Ok(Fetched { has_advanced: has_more && self.advance(now), is_proposed })
    }

    /// Proposes that followers leave those in sync that have lagged too long. Returns whether any
    /// shall.
    pub(in crate::broker) fn propose_shrinkage(&mut self, now: SimTime) -> bool {
        let (log_end, max_lag) = (self.log.end(), self.config.broker.replica_lag_time_max);
        self.leadership_mut()
            .is_some_and(|leadership| leadership.propose_shrinkage(now, log_end, max_lag))
    }

    /// What is proposed to the controller, as the leader with that registration.
    pub(in crate::broker) fn proposal(
        &self,
        id: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> Option<Proposal> {
        let role = self.role.as_ref()?;
        let in_sync_replicas = role.leadership.as_ref()?.proposed(id, broker_epoch)?;
        Some(Proposal {
            leader_epoch: role.leader_epoch,
            partition_epoch: role.partition_epoch,
            in_sync_replicas,
        })
    }

    /// Whether what is proposed was made from this partition epoch: an answer to an older proposal
    /// says nothing about it.
    pub(in crate::broker) fn has_proposed(&self, partition_epoch: i32) -> bool {
        self.role.as_ref().is_some_and(|role| {
            role.partition_epoch == partition_epoch
                && role.leadership.as_ref().is_some_and(Leadership::has_proposed)
        })
    }

    /// The controller did what was proposed. Returns whether more is committed by it.
    pub(in crate::broker) fn commit_proposal(
        &mut self,
        now: SimTime,
        state: &PartitionState,
    ) -> bool {
        let Some(role) = &mut self.role else { return false };
        let Some(leadership) = &mut role.leadership else { return false };
        if state.leader_epoch != role.leader_epoch || state.partition_epoch < role.partition_epoch {
            return false;
        }
        leadership.commit(&state.in_sync_replicas);
        role.partition_epoch = state.partition_epoch;
        self.advance(now)
    }

    /// The controller refused what was proposed.
    pub(in crate::broker) fn withdraw_proposal(&mut self) {
        if let Some(leadership) = self.leadership_mut() {
            leadership.withdraw();
        }
    }
}
