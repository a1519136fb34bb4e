//! The controller: which brokers are alive, which topics there are, and who leads what. Its state
//! is made by replaying its own log, which brokers read as well.
//!
//! `broker_control` has the sessions of brokers, `partition_control` the leaders and in-sync
//! replicas, `topic_control` the topics, and `election` the rules of an election.
//!
//! Simplified: of a quorum of controllers there is the active one, whose log is committed at once.
//! When it crashes, the world starts the next after an election, which reads the log. Absent:
//! reassignment. See `docs/fidelity.md`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bus_core::{Topic, TopicPartition};

use super::broker_control::Contact;
use super::image::Image;
use super::metadata::partition_of_key;
use super::{BrokerTimer, OFFSETS_TOPIC, TRANSACTIONS_TOPIC};
use crate::choice::Choices;
use crate::config::SimConfig;
use crate::fact::Fact;
use crate::node::{BrokerId, ConnectionId, CorrelationId, Effects, Input, Timer};
use crate::protocol::cluster::{
    BrokerEpoch, FetchMetadataLogRequest, FetchMetadataLogResponse, MetadataRecord, PartitionState,
};
use crate::protocol::{Request, Response};
use crate::time::SimTime;

/// The controller of a cluster.
#[derive(Debug)]
pub struct Controller {
    pub(super) config: Arc<SimConfig>,
    pub(super) choices: Choices,
    /// Durable.
    pub(super) log: Vec<MetadataRecord>,
    pub(super) image: Image,
    /// When each broker was heard of.
    pub(super) contacts: BTreeMap<BrokerId, Contact>,
    /// When it became the active controller: what is done at intervals counts from then.
    pub(super) active_since: SimTime,
    /// Whether the timer for preferred leaders is set.
    pub(super) balances_leaders: bool,
    /// Who waits for records, and from which offset.
    polls: BTreeMap<ConnectionId, (CorrelationId, usize)>,
}

impl Controller {
    /// The controller of a cluster without brokers. See [`bootstrap`](super::bootstrap()).
    pub fn new(config: &Arc<SimConfig>, choices: &Choices) -> Self {
        Self::resumed(config, choices, Vec::new())
    }

    pub(super) fn resumed(
        config: &Arc<SimConfig>,
        choices: &Choices,
        log: Vec<MetadataRecord>,
    ) -> Self {
        let mut image = Image::new(config);
        log.iter().for_each(|record| image.replay(record));
        Self {
            config: Arc::clone(config),
            choices: choices.clone(),
            log,
            image,
            contacts: BTreeMap::new(),
            active_since: SimTime::ZERO,
            balances_leaders: false,
            polls: BTreeMap::new(),
        }
    }

    /// Loses what is in memory. [`Input::Start`] begins the next active controller.
    pub fn crash(&mut self) {
        let log = std::mem::take(&mut self.log);
        *self = Self::resumed(&self.config, &self.choices, log);
    }

    /// Handles `input` at `now`, adding what shall happen next to `effects`.
    pub fn handle(&mut self, now: SimTime, input: Input, effects: &mut Effects) {
        match input {
            Input::Start => self.activate(now, effects),
            Input::Request { connection, correlation, request } => {
                let api = request.api();
                self.on_request(now, (connection, correlation), *request, effects);
                if !self.config.plan.faults.is_empty() {
                    effects.handled(connection, correlation, api);
                }
            }
            Input::Disconnected { connection } => {
                self.polls.remove(&connection);
            }
            Input::Timer(Timer::Broker(BrokerTimer::BrokerSession { broker })) => {
                self.session_due(now, broker, effects);
            }
            Input::Timer(Timer::Broker(BrokerTimer::BalanceLeaders)) => {
                self.balances_leaders = false;
                self.elect_preferred(now, effects);
            }
            Input::Timer(_) | Input::Response { .. } | Input::Connected { .. } => {}
        }
    }

    /// What is known of a partition.
    pub fn partition(&self, topic_partition: &TopicPartition) -> Option<&PartitionState> {
        self.image.partition(topic_partition)
    }

    /// Whether a broker with that registration may lead, and be in sync.
    pub fn is_registered(&self, broker: BrokerId, epoch: BrokerEpoch) -> bool {
        let known = self.image.brokers.get(&broker);
        known.is_some_and(|known| known.is_active() && known.epoch == epoch)
    }

    /// The broker that coordinates a group.
    pub fn group_coordinator(&self, group_id: &str) -> Option<BrokerId> {
        self.coordinator(OFFSETS_TOPIC, group_id)
    }

    /// The broker that coordinates the transactions of a transactional id.
    pub fn transaction_coordinator(&self, transactional_id: &str) -> Option<BrokerId> {
        self.coordinator(TRANSACTIONS_TOPIC, transactional_id)
    }

    fn coordinator(&self, topic: &str, key: &str) -> Option<BrokerId> {
        let topic = Topic::from(topic);
        let count = self.image.topics.get(&topic)?.partitions.len();
        let partition = partition_of_key(key, count)?;
        self.partition(&TopicPartition::new(topic, partition))?.leader
    }

    fn on_request(
        &mut self,
        now: SimTime,
        (connection, correlation): (ConnectionId, CorrelationId),
        request: Request,
        effects: &mut Effects,
    ) {
        let response = match request {
            Request::RegisterBroker(request) => {
                Response::RegisterBroker(self.register(now, &request, effects))
            }
            Request::BrokerHeartbeat(request) => {
                Response::BrokerHeartbeat(self.heartbeat(now, &request, effects))
            }
            Request::AlterPartition(request) => {
                Response::AlterPartition(self.alter_partitions(now, &request, effects))
            }
            Request::FetchMetadataLog(request) => {
                self.poll(connection, correlation, &request, effects);
                return;
            }
            Request::CreateTopics(request) => {
                Response::CreateTopics(self.create_topics(now, &request, effects))
            }
            Request::DeleteTopics(request) => {
                Response::DeleteTopics(self.delete_topics(now, &request, effects))
            }
            Request::CreatePartitions(request) => {
                Response::CreatePartitions(self.create_partitions(now, &request, effects))
            }
            _ => {
                effects.disconnect(connection);
                return;
            }
        };
        effects.respond(connection, correlation, response);
    }

    /// Begins as the active controller: every broker that is not fenced gets a new session.
    fn activate(&mut self, now: SimTime, effects: &mut Effects) {
        self.active_since = now;
        let brokers: Vec<_> = self.image.live_brokers().collect();
        brokers.into_iter().for_each(|broker| self.heard_of(now, broker, effects));
        self.watch_leaders(now, effects);
    }

    /// Appends records, replays them, and sends them to the brokers that wait.
    pub(super) fn write(
        &mut self,
        now: SimTime,
        records: impl IntoIterator<Item = MetadataRecord>,
        effects: &mut Effects,
    ) {
        let before = self.log.len();
        for record in records {
            self.tell(&record, effects);
            self.image.replay(&record);
            self.log.push(record);
        }
        if self.log.len() > before {
            self.answer_polls(effects);
            self.watch_leaders(now, effects);
        }
    }

    /// Tells the trace what a record changes. Called before it is replayed.
    fn tell(&self, record: &MetadataRecord, effects: &mut Effects) {
        let MetadataRecord::Partition { topic, partition, state } = record else { return };
        let topic_partition = TopicPartition::new(topic, *partition);
        let before = self.image.partition(&topic_partition);
        if before.is_none_or(|before| before.leader_epoch != state.leader_epoch) {
            let PartitionState { leader, leader_epoch, .. } = *state;
            let topic_partition = topic_partition.clone();
            effects.fact(Fact::Leader { topic_partition, leader, leader_epoch });
        }
        if state.replicas.len() < 2 {
            return;
        }
        let has_changed =
            before.is_none_or(|before| before.in_sync_replicas != state.in_sync_replicas);
        if has_changed {
            let topic_partition = topic_partition.clone();
            let in_sync_replicas = state.in_sync_replicas.clone();
            effects.fact(Fact::InSync { topic_partition, in_sync_replicas });
        }
        let none = Vec::new();
        if before.map_or(&none, |before| &before.eligible_leaders) != &state.eligible_leaders {
            let eligible_leaders = state.eligible_leaders.clone();
            effects.fact(Fact::Eligible { topic_partition, eligible_leaders });
        }
    }

    fn poll(
        &mut self,
        connection: ConnectionId,
        correlation: CorrelationId,
        request: &FetchMetadataLogRequest,
        effects: &mut Effects,
    ) {
        let offset = usize::try_from(request.offset).unwrap_or(0);
        self.polls.insert(connection, (correlation, offset));
        self.answer_polls(effects);
    }

    fn answer_polls(&mut self, effects: &mut Effects) {
        let log = &self.log;
        self.polls.retain(|connection, (correlation, offset)| {
            let Some(records) = log.get(*offset..).filter(|records| !records.is_empty()) else {
                return true;
            };
            let response = FetchMetadataLogResponse { records: records.to_vec() };
            effects.respond(*connection, *correlation, Response::FetchMetadataLog(response));
            false
        });
    }
}
