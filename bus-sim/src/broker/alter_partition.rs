//! AlterPartition as a leader: proposes to the controller who shall be in sync (KIP-497).
//!
//! - A follower is proposed to join when its fetch reaches far enough, and to leave when it has
//!   lagged for `replica.lag.time.max.ms`; that is looked at each half of it.
//! - One request is under way; what is proposed meanwhile goes with the next. A request is sent
//!   again until it is answered.
//! - What the controller refuses because of newer state stays proposed until the image shows that
//!   state.
//!
//! Simplified: a request that is lost is made anew, from what is proposed then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bus_core::TopicPartition;

use super::replica::{Proposal, Replica};
use super::session::schedule;
use super::{Broker, BrokerTimer};
use crate::node::{CorrelationId, Effects};
use crate::protocol::cluster::{
    AlterPartition, AlterPartitionRequest, AlterPartitionResponse, AlteredPartition, ClusterError,
};
use crate::time::SimTime;

/// What a broker proposes to the controller.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    /// The partitions that something is proposed for and that no response came for.
    waiting: BTreeSet<TopicPartition>,
    /// The request under way: its number, and the partition epochs that it was made from.
    in_flight: Option<(CorrelationId, BTreeMap<TopicPartition, i32>)>,
    /// Whether a look at who lags is due.
    is_watching: bool,
}

impl Proposals {
    /// Begins without the timers of an earlier start.
    pub(super) const fn start(&mut self) {
        self.is_watching = false;
    }
}

impl Broker {
    /// Sets the timer for a look at who lags, if it is not set.
    pub(super) fn watch_in_sync(&mut self, now: SimTime, effects: &mut Effects) {
        if self.proposals.is_watching {
            return;
        }
        self.proposals.is_watching = true;
        let half = self.config.broker.replica_lag_time_max / 2;
        schedule(BrokerTimer::CheckInSync, next_multiple(now, half), effects);
    }

    /// Proposes that those that lag leave the in-sync replicas.
    pub(super) fn check_in_sync(&mut self, now: SimTime, effects: &mut Effects) {
        self.proposals.is_watching = false;
        let mut proposed = Vec::new();
        for (topic_partition, replica) in &mut self.replicas {
            if replica.propose_shrinkage(now) {
                proposed.push(topic_partition.clone());
            }
        }
        proposed.into_iter().for_each(|partition| self.propose(partition, effects));
        if self.replicas.values().any(Replica::has_followers) {
            self.watch_in_sync(now, effects);
        }
    }

    /// Sends what a replica proposes.
    pub(super) fn propose(&mut self, topic_partition: TopicPartition, effects: &mut Effects) {
        if let Some(replica) = self.replicas.get_mut(&topic_partition)
            && !self.proposals.waiting.insert(topic_partition)
        {
            // An older proposal was not answered; Kafka calls this one "not attempted".
            replica.withdraw_proposal();
        }
        self.send_proposals(effects);
    }

    /// Sends what is proposed, unless a request is under way or there is no controller.
    pub(super) fn send_proposals(&mut self, effects: &mut Effects) {
        let Some(broker_epoch) = self.session.epoch() else { return };
        if self.proposals.in_flight.is_some() {
            return;
        }
        let mut partitions = Vec::new();
        self.proposals.waiting.retain(|topic_partition| {
            let replica = self.replicas.get(topic_partition);
            let Some(proposal) = replica.and_then(|r| r.proposal(self.id, broker_epoch)) else {
                return false;
            };
            let Proposal { leader_epoch, partition_epoch, in_sync_replicas } = proposal;
            partitions.push(AlterPartition {
                topic_partition: topic_partition.clone(),
                leader_epoch,
                partition_epoch,
                in_sync_replicas,
            });
            true
        });
        if partitions.is_empty() {
            return;
        }
        let epoch_of = |p: &AlterPartition| (p.topic_partition.clone(), p.partition_epoch);
        let epochs = partitions.iter().map(epoch_of).collect();
        let request = AlterPartitionRequest { broker: self.id, broker_epoch, partitions };
        let correlation = self.session.alter_partition(request, effects);
        self.proposals.in_flight = correlation.map(|correlation| (correlation, epochs));
    }

    /// The connection to the controller broke: what was under way is sent again on the next.
    pub(super) fn proposals_lost(&mut self) {
        self.proposals.in_flight = None;
    }

    /// The controller answered what was proposed.
    pub(super) fn altered_partitions(
        &mut self,
        now: SimTime,
        correlation: CorrelationId,
        response: AlterPartitionResponse,
        effects: &mut Effects,
    ) {
        let is_answered = |(sent, _): &mut (CorrelationId, _)| *sent == correlation;
        let Some((_, epochs)) = self.proposals.in_flight.take_if(is_answered) else { return };
        let Ok(partitions) = response.result else {
            schedule(BrokerTimer::SendProposals, now + RETRY_BACKOFF, effects);
            return;
        };
        for AlteredPartition { topic_partition, result } in partitions {
            self.proposals.waiting.remove(&topic_partition);
            let Some(epoch) = epochs.get(&topic_partition).copied() else { continue };
            let Some(replica) = self.replicas.get_mut(&topic_partition) else { continue };
            if !replica.has_proposed(epoch) {
                // The image was faster, and has taken its place.
                continue;
            }
            match result {
                Ok(state) => {
                    if replica.commit_proposal(now, &state) {
                        self.watermark_rose(now, &topic_partition, effects);
                    }
                }
                Err(ClusterError::IneligibleReplica) => replica.withdraw_proposal(),
                Err(ClusterError::NotController | ClusterError::StaleBrokerEpoch) => {
                    self.proposals.waiting.insert(topic_partition);
                }
                // The image will show what is newer.
                Err(
                    ClusterError::UnknownTopicOrPartition
                    | ClusterError::FencedLeaderEpoch
                    | ClusterError::InvalidRequest
                    | ClusterError::InvalidUpdateVersion,
                ) => {}
            }
        }
        self.send_proposals(effects);
    }
}

/// The next time after `now` that is a multiple of `interval`.
fn next_multiple(now: SimTime, interval: Duration) -> SimTime {
    let interval = interval.as_nanos().max(1);
    let next = (u128::from(now.as_nanos()) / interval + 1) * interval;
    SimTime::from_nanos(u64::try_from(next).unwrap_or(u64::MAX))
}

/// How long after an error of the whole request the next one is sent.
const RETRY_BACKOFF: Duration = Duration::from_millis(50);
