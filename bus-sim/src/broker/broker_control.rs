//! Brokers at the controller: registration, heartbeats, fencing, and controlled shutdown.
//!
//! - A broker without heartbeats for `broker.session.timeout.ms` is fenced: it leads nothing, and
//!   is in sync nowhere. It is unfenced by a heartbeat once it has read its own registration.
//! - A broker that wants to stop gives up what it leads, and may stop once the other brokers know.
//! - A broker that registers again without having been shut down cleanly may lack what its logs had
//!   before, so it is eligible to lead nowhere (KIP-966).
//!
//! Simplified: a session ends at its exact time; Kafka looks at intervals.

use bus_core::{ErrorKind, TopicPartition};

use super::BrokerTimer;
use super::controller::Controller;
use super::election::Change;
use super::session::schedule;
use crate::mutation::Mutation;
use crate::node::{BrokerId, Effects};
use crate::protocol::cluster::{
    BrokerEpoch, BrokerHeartbeatRequest, BrokerHeartbeatResponse, MetadataRecord, PartitionState,
    RegisterBrokerRequest, RegisterBrokerResponse,
};
use crate::time::SimTime;

/// When a broker was heard of.
#[derive(Debug)]
pub(super) struct Contact {
    /// When its session ends.
    deadline: SimTime,
    /// Whether the timer is set, to the deadline or to an earlier time.
    is_watched: bool,
    /// How far it has read the metadata log.
    metadata_offset: i64,
    /// In a controlled shutdown: how far the others must have read it.
    shutdown_offset: Option<i64>,
}

/// What becomes of a broker with a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Fenced,
    Unfenced,
    ControlledShutdown,
    ShutdownNow,
}

impl Controller {
    pub(super) fn register(
        &mut self,
        now: SimTime,
        request: &RegisterBrokerRequest,
        effects: &mut Effects,
    ) -> RegisterBrokerResponse {
        let &RegisterBrokerRequest { broker, incarnation, previous_broker_epoch } = request;
        let known = self.image.brokers.get(&broker).copied();
        if let Some(known) = known.filter(|known| known.incarnation == incarnation) {
            return RegisterBrokerResponse { result: Ok(known.epoch) };
        }
        if known.is_some_and(|known| !known.is_fenced) && self.has_session(now, broker) {
            // Kafka: DUPLICATE_BROKER_REGISTRATION, until the session of the one before ends.
            return RegisterBrokerResponse { result: Err(ErrorKind::InvalidRequest) };
        }
        let is_clean = known.is_some_and(|known| previous_broker_epoch == Some(known.epoch))
            || self.config.mutation == Some(Mutation::UncleanRestartForgotten);
        let mut records = self.changes(|topic_partition, state| {
            let change = self.change(topic_partition, state);
            let change =
                if is_clean { change.without(broker) } else { change.without_unclean(broker) };
            change.build(|id| id != broker && self.is_active(id))
        });
        let broker_epoch: BrokerEpoch = self.image.offset + BrokerEpoch::from(len_of(&records));
        records.push(MetadataRecord::RegisterBroker { broker, broker_epoch, incarnation });
        self.write(now, records, effects);
        self.contacts.remove(&broker);
        RegisterBrokerResponse { result: Ok(broker_epoch) }
    }

    pub(super) fn heartbeat(
        &mut self,
        now: SimTime,
        request: &BrokerHeartbeatRequest,
        effects: &mut Effects,
    ) -> BrokerHeartbeatResponse {
        let broker = request.broker;
        let known = self.image.brokers.get(&broker).copied();
        let Some(known) = known.filter(|known| known.epoch == request.broker_epoch) else {
            // Kafka: STALE_BROKER_EPOCH.
            let error = Some(ErrorKind::InvalidRequest);
            return BrokerHeartbeatResponse { error, is_fenced: true, may_shut_down: false };
        };
        let next = self.next_state(request);
        let records = match next {
            Next::Unfenced if known.is_fenced => self.unfence(broker),
            Next::ControlledShutdown if !known.is_shutting_down => self.begin_shutdown(broker),
            Next::ShutdownNow if !known.is_fenced => self.fence(broker),
            _ => Vec::new(),
        };
        self.write(now, records, effects);
        let is_fenced = matches!(next, Next::Fenced | Next::ShutdownNow);
        if is_fenced {
            self.contacts.remove(&broker);
        } else {
            self.heard_of(now, broker, effects);
            let offset = self.image.offset;
            if let Some(contact) = self.contacts.get_mut(&broker) {
                contact.metadata_offset = request.metadata_offset;
                if next == Next::ControlledShutdown {
                    contact.shutdown_offset.get_or_insert(offset);
                }
            }
        }
        let may_shut_down = next == Next::ShutdownNow;
        BrokerHeartbeatResponse { error: None, is_fenced, may_shut_down }
    }

    fn next_state(&self, request: &BrokerHeartbeatRequest) -> Next {
        let broker = request.broker;
        let known = self.image.brokers[&broker];
        let leads = || self.partitions().any(|(_, state)| state.leader == Some(broker));
        if known.is_fenced {
            if request.want_shutdown {
                Next::ShutdownNow
            } else if request.metadata_offset > known.epoch {
                Next::Unfenced
            } else {
                Next::Fenced
            }
        } else if known.is_shutting_down {
            // The others must know that it leads nothing any more.
            let others = self.contacts.iter().filter(|(id, _)| self.is_active(**id));
            let lowest = others.map(|(_, contact)| contact.metadata_offset).min();
            let contact = self.contacts.get(&broker);
            let wanted = contact.and_then(|contact| contact.shutdown_offset).unwrap_or(0);
            if leads() || lowest.is_some_and(|lowest| lowest < wanted) {
                Next::ControlledShutdown
            } else {
                Next::ShutdownNow
            }
        } else if request.want_shutdown && leads() {
            Next::ControlledShutdown
        } else if request.want_shutdown {
            Next::ShutdownNow
        } else {
            Next::Unfenced
        }
    }

    fn unfence(&self, broker: BrokerId) -> Vec<MetadataRecord> {
        let mut records = vec![MetadataRecord::BrokerFenced { broker, is_fenced: false }];
        if self.config.mutation == Some(Mutation::LeaderlessForEver) {
            return records;
        }
        records.extend(self.changes(|topic_partition, state| {
            let is_leaderless = state.leader.is_none();
            let change = is_leaderless.then(|| self.change(topic_partition, state))?;
            change.build(|id| id == broker || self.is_active(id))
        }));
        records
    }

    fn fence(&self, broker: BrokerId) -> Vec<MetadataRecord> {
        let mut records = vec![MetadataRecord::BrokerFenced { broker, is_fenced: true }];
        records.extend(self.give_up(broker));
        records
    }

    fn begin_shutdown(&self, broker: BrokerId) -> Vec<MetadataRecord> {
        let mut records = vec![MetadataRecord::BrokerInControlledShutdown { broker }];
        records.extend(self.give_up(broker));
        records
    }

    /// What changes when a broker leads nothing, and is in sync nowhere.
    fn give_up(&self, broker: BrokerId) -> Vec<MetadataRecord> {
        self.changes(|topic_partition, state| {
            let is_in_sync = state.in_sync_replicas.contains(&broker);
            let change = is_in_sync.then(|| self.change(topic_partition, state))?;
            change.without(broker).build(|id| id != broker && self.is_active(id))
        })
    }

    /// A broker that is not fenced was heard of.
    pub(super) fn heard_of(&mut self, now: SimTime, broker: BrokerId, effects: &mut Effects) {
        let deadline = now + self.config.broker_session_timeout();
        let new =
            Contact { deadline, is_watched: false, metadata_offset: 0, shutdown_offset: None };
        let contact = self.contacts.entry(broker).or_insert(new);
        contact.deadline = deadline;
        if !contact.is_watched {
            contact.is_watched = true;
            schedule(BrokerTimer::BrokerSession { broker }, deadline, effects);
        }
    }

    pub(super) fn session_due(&mut self, now: SimTime, broker: BrokerId, effects: &mut Effects) {
        let Some(contact) = self.contacts.get_mut(&broker) else { return };
        if now < contact.deadline {
            schedule(BrokerTimer::BrokerSession { broker }, contact.deadline, effects);
            return;
        }
        self.contacts.remove(&broker);
        if self.image.brokers.get(&broker).is_some_and(|known| !known.is_fenced) {
            let records = self.fence(broker);
            self.write(now, records, effects);
        }
    }

    fn has_session(&self, now: SimTime, broker: BrokerId) -> bool {
        self.contacts.get(&broker).is_some_and(|contact| now < contact.deadline)
    }

    /// Whether a broker may lead: it is neither fenced nor shutting down.
    pub(super) fn is_active(&self, broker: BrokerId) -> bool {
        self.image.brokers.get(&broker).is_some_and(|known| known.is_active())
    }

    /// All partitions.
    pub fn partitions(&self) -> impl Iterator<Item = (TopicPartition, &PartitionState)> {
        self.image.topics.iter().flat_map(|(topic, image)| {
            let partitions = (0..).zip(&image.partitions);
            partitions.map(move |(partition, state)| (TopicPartition::new(topic, partition), state))
        })
    }

    /// The records of what becomes of partitions.
    pub(super) fn changes<'a>(
        &'a self,
        change: impl Fn(&TopicPartition, &'a PartitionState) -> Option<PartitionState>,
    ) -> Vec<MetadataRecord> {
        let changed = self.partitions().filter_map(|(topic_partition, before)| {
            let state = change(&topic_partition, before)?;
            let TopicPartition { topic, partition } = topic_partition;
            Some(MetadataRecord::Partition { topic, partition, state })
        });
        changed.collect()
    }

    /// A change of a partition, by the rules of its topic.
    pub(super) fn change<'a>(
        &self,
        topic_partition: &TopicPartition,
        state: &'a PartitionState,
    ) -> Change<'a> {
        let config = &self.image.topics[&topic_partition.topic].config;
        Change::new(state, self.election_of(config), config.min_insync_replicas)
            .mutated(self.config.mutation)
    }
}

fn len_of(records: &[MetadataRecord]) -> i32 {
    i32::try_from(records.len()).unwrap_or(i32::MAX)
}
