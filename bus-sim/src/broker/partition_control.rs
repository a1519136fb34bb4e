//! Partitions at the controller: AlterPartition, and preferred leaders.
//!
//! - A leader proposes who is in sync; it is refused if it does not lead any more, if the partition
//!   changed meanwhile, or if one of them is fenced, shutting down, or registered anew (KIP-497,
//!   KIP-841, KIP-903).
//! - Every `leader.imbalance.check.interval.seconds` partitions go back to their preferred leaders,
//!   if those are in sync.

use bus_core::TopicPartition;

use super::BrokerTimer;
use super::controller::Controller;
use super::election::{Change, Election};
use super::in_sync::UNKNOWN_EPOCH;
use super::session::schedule;
use super::topic_config::TopicConfig;
use crate::mutation::Mutation;
use crate::node::Effects;
use crate::protocol::cluster::{
    AlterPartition, AlterPartitionRequest, AlterPartitionResponse, AlteredPartition, ClusterError,
    MetadataRecord, PartitionState,
};
use crate::time::SimTime;

impl Controller {
    pub(super) fn alter_partitions(
        &mut self,
        now: SimTime,
        request: &AlterPartitionRequest,
        effects: &mut Effects,
    ) -> AlterPartitionResponse {
        let known = self.image.brokers.get(&request.broker);
        if known.is_none_or(|known| known.epoch != request.broker_epoch) {
            return AlterPartitionResponse { result: Err(ClusterError::StaleBrokerEpoch) };
        }
        let mut partitions = Vec::with_capacity(request.partitions.len());
        for alter in &request.partitions {
            let result = self.alter_partition(now, request, alter, effects);
            let topic_partition = alter.topic_partition.clone();
            partitions.push(AlteredPartition { topic_partition, result });
        }
        AlterPartitionResponse { result: Ok(partitions) }
    }

    fn alter_partition(
        &mut self,
        now: SimTime,
        request: &AlterPartitionRequest,
        alter: &AlterPartition,
        effects: &mut Effects,
    ) -> Result<PartitionState, ClusterError> {
        let state = self.check_alter(request, alter)?;
        let in_sync = alter.in_sync_replicas.iter().map(|(broker, _)| *broker).collect();
        let change = self.change(&alter.topic_partition, state).in_sync(in_sync);
        let Some(state) = change.build(|id| self.is_active(id)) else {
            return Ok(state.clone());
        };
        let TopicPartition { topic, partition } = alter.topic_partition.clone();
        let record = MetadataRecord::Partition { topic, partition, state: state.clone() };
        self.write(now, [record], effects);
        Ok(state)
    }

    /// Kafka's checks, in its order.
    fn check_alter(
        &self,
        request: &AlterPartitionRequest,
        alter: &AlterPartition,
    ) -> Result<&PartitionState, ClusterError> {
        let state = self.image.partition(&alter.topic_partition);
        let state = state.ok_or(ClusterError::UnknownTopicOrPartition)?;
        let is_ahead = alter.leader_epoch > state.leader_epoch
            || alter.partition_epoch > state.partition_epoch;
        if is_ahead {
            // The leader knows more than this controller, which then is not the active one.
            return Err(ClusterError::NotController);
        }
        if self.config.mutation == Some(Mutation::StaleLeaderNotFenced) {
            return Ok(state);
        }
        if alter.leader_epoch < state.leader_epoch {
            return Err(ClusterError::FencedLeaderEpoch);
        }
        if state.leader != Some(request.broker) {
            return Err(ClusterError::InvalidRequest);
        }
        if alter.partition_epoch < state.partition_epoch {
            return Err(ClusterError::InvalidUpdateVersion);
        }
        let in_sync = &alter.in_sync_replicas;
        let is_replica = in_sync.iter().all(|(broker, _)| state.replicas.contains(broker));
        let has_leader = in_sync.iter().any(|(broker, _)| *broker == request.broker);
        if !is_replica || !has_leader {
            return Err(ClusterError::InvalidRequest);
        }
        let is_eligible = in_sync.iter().all(|(broker, epoch)| {
            let known = self.image.brokers.get(broker);
            known.is_some_and(|known| {
                known.is_active() && (*epoch == UNKNOWN_EPOCH || *epoch == known.epoch)
            })
        });
        if is_eligible { Ok(state) } else { Err(ClusterError::IneligibleReplica) }
    }

    /// Which elections are held for a topic without being asked for.
    pub(super) fn election_of(&self, config: &TopicConfig) -> Election {
        let is_mutant = self.config.mutation == Some(Mutation::ElectedOutOfSync);
        if config.is_unclean_election || is_mutant { Election::Unclean } else { Election::Online }
    }

    /// Elects the preferred leaders that are in sync and do not lead.
    pub fn elect_preferred(&mut self, now: SimTime, effects: &mut Effects) {
        let records = self.changes(|topic_partition, state| {
            let is_other = !has_preferred_leader(state);
            let config = &self.image.topics[&topic_partition.topic].config;
            let change = is_other
                .then(|| Change::new(state, Election::Preferred, config.min_insync_replicas))?;
            change.build(|id| self.is_active(id))
        });
        self.write(now, records, effects);
        self.watch_leaders(now, effects);
    }

    /// Sees to it that preferred leaders are elected, if one does not lead.
    pub(super) fn watch_leaders(&mut self, now: SimTime, effects: &mut Effects) {
        let broker = &self.config.broker;
        if self.balances_leaders || !broker.auto_leader_rebalance {
            return;
        }
        let is_other = |(_, state): (TopicPartition, &PartitionState)| {
            state.replicas.len() > 1 && !has_preferred_leader(state)
        };
        if self.partitions().any(is_other) {
            self.balances_leaders = true;
            let interval = broker.leader_imbalance_check_interval.as_nanos().max(1);
            let turns = now.since(self.active_since).as_nanos() / interval + 1;
            let wait = interval.saturating_mul(turns);
            let wait = std::time::Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX));
            schedule(BrokerTimer::BalanceLeaders, self.active_since + wait, effects);
        }
    }
}

fn has_preferred_leader(state: &PartitionState) -> bool {
    state.leader.is_some() && state.leader.as_ref() == state.replicas.first()
}
