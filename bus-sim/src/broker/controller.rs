//! The controller: which brokers are alive, which topics there are, and who leads what. Its state
//! is made by replaying its own log, which brokers read as well.
//!
//! - A broker without heartbeats for `broker.session.timeout.ms` is fenced: it leads nothing, and
//!   is in sync nowhere, except where it is the last in sync.
//! - The leader is the first replica that is in sync and alive, or none; never one out of sync.
//!
//! Simplified: one controller that never fails, whose log is durable at once.
//! Absent: controlled shutdown, reassignment, preferred leader election. See `docs/fidelity.md`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bus_core::{ErrorKind, TopicPartition};

use super::BrokerTimer;
use super::image::Image;
use super::in_sync::UNKNOWN_EPOCH;
use super::session::schedule;
use crate::config::SimConfig;
use crate::fact::Fact;
use crate::node::{BrokerId, ConnectionId, CorrelationId, Effects, Input, Timer};
use crate::protocol::cluster::{
    AlterPartition, AlterPartitionRequest, AlterPartitionResponse, AlteredPartition, BrokerEpoch,
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, ClusterError, FetchMetadataLogRequest,
    FetchMetadataLogResponse, MetadataRecord, PartitionState, RegisterBrokerRequest,
    RegisterBrokerResponse,
};
use crate::protocol::{Request, Response};
use crate::time::SimTime;

/// The controller of a cluster.
#[derive(Debug)]
pub struct Controller {
    pub(super) config: Arc<SimConfig>,
    /// Durable.
    pub(super) log: Vec<MetadataRecord>,
    pub(super) image: Image,
    /// When each broker was heard of.
    sessions: BTreeMap<BrokerId, Contact>,
    /// Who waits for records, and from which offset.
    polls: BTreeMap<ConnectionId, (CorrelationId, usize)>,
}

#[derive(Debug)]
struct Contact {
    deadline: SimTime,
    /// Whether the timer is set, to the deadline or to an earlier time.
    is_watched: bool,
}

impl Controller {
    /// The controller of a cluster without brokers. See [`bootstrap`](super::bootstrap()).
    pub fn new(config: &Arc<SimConfig>) -> Self {
        Self::resumed(config, Vec::new(), Image::default())
    }

    pub(super) fn resumed(config: &Arc<SimConfig>, log: Vec<MetadataRecord>, image: Image) -> Self {
        let config = Arc::clone(config);
        Self { config, log, image, sessions: BTreeMap::new(), polls: BTreeMap::new() }
    }

    /// Handles `input` at `now`, adding what shall happen next to `effects`.
    pub fn handle(&mut self, now: SimTime, input: Input, effects: &mut Effects) {
        match input {
            Input::Start => {
                let brokers: Vec<_> = self.image.live_brokers().collect();
                brokers.into_iter().for_each(|broker| self.heard_of(now, broker, effects));
            }
            Input::Request { connection, correlation, request } => {
                let response = match *request {
                    Request::RegisterBroker(request) => {
                        Response::RegisterBroker(self.register(now, &request, effects))
                    }
                    Request::BrokerHeartbeat(request) => {
                        Response::BrokerHeartbeat(self.heartbeat(now, &request, effects))
                    }
                    Request::FetchMetadataLog(request) => {
                        self.poll(connection, correlation, &request, effects);
                        return;
                    }
                    Request::AlterPartition(request) => {
                        Response::AlterPartition(self.alter_partition(&request, effects))
                    }
                    Request::CreateTopics(request) => {
                        Response::CreateTopics(self.create_topics(&request, effects))
                    }
                    Request::DeleteTopics(request) => {
                        Response::DeleteTopics(self.delete_topics(&request, effects))
                    }
                    Request::CreatePartitions(request) => {
                        Response::CreatePartitions(self.create_partitions(&request, effects))
                    }
                    _ => {
                        effects.disconnect(connection);
                        return;
                    }
                };
                effects.respond(connection, correlation, response);
            }
            Input::Disconnected { connection } => {
                self.polls.remove(&connection);
            }
            Input::Timer(Timer::Broker(BrokerTimer::BrokerSession { broker })) => {
                self.session_due(now, broker, effects);
            }
            Input::Timer(_) | Input::Response { .. } | Input::Connected { .. } => {}
        }
    }

    /// Appends records, replays them, and sends them to the brokers that wait.
    pub(super) fn write(
        &mut self,
        records: impl IntoIterator<Item = MetadataRecord>,
        effects: &mut Effects,
    ) {
        for record in records {
            self.tell(&record, effects);
            self.image.replay(&record);
            self.log.push(record);
        }
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
        let has_changed =
            before.is_none_or(|before| before.in_sync_replicas != state.in_sync_replicas);
        if has_changed && state.replicas.len() > 1 {
            let in_sync_replicas = state.in_sync_replicas.clone();
            effects.fact(Fact::InSync { topic_partition, in_sync_replicas });
        }
    }

    fn register(
        &mut self,
        now: SimTime,
        request: &RegisterBrokerRequest,
        effects: &mut Effects,
    ) -> RegisterBrokerResponse {
        let &RegisterBrokerRequest { broker, incarnation } = request;
        let has_session = self.sessions.get(&broker).is_some_and(|contact| now < contact.deadline);
        let known = self.image.brokers.get(&broker).copied();
        if let Some(known) = known
            && has_session
            && known.incarnation != incarnation
        {
            // Kafka: DUPLICATE_BROKER_REGISTRATION, until the session of the one before ends.
            return RegisterBrokerResponse { result: Err(ErrorKind::InvalidRequest) };
        }
        let broker_epoch: BrokerEpoch = self.image.offset;
        let mut records =
            vec![MetadataRecord::RegisterBroker { broker, broker_epoch, incarnation }];
        if known.is_some_and(|known| !known.is_fenced) {
            records.extend(self.elections(|id| id != broker));
        }
        self.write(records, effects);
        self.heard_of(now, broker, effects);
        RegisterBrokerResponse { result: Ok(broker_epoch) }
    }

    fn heartbeat(
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
            return BrokerHeartbeatResponse { error, is_fenced: true, may_shut_down: true };
        };
        self.heard_of(now, broker, effects);
        let is_fenced = known.is_fenced && request.metadata_offset <= known.epoch;
        if known.is_fenced && !is_fenced {
            let mut records = vec![MetadataRecord::BrokerFenced { broker, is_fenced }];
            records.extend(self.elections(|id| id == broker || self.is_alive(id)));
            self.write(records, effects);
        }
        BrokerHeartbeatResponse { error: None, is_fenced, may_shut_down: request.want_shutdown }
    }

    /// AlterPartition: a leader proposes who shall be in sync.
    fn alter_partition(
        &mut self,
        request: &AlterPartitionRequest,
        effects: &mut Effects,
    ) -> AlterPartitionResponse {
        let known = self.image.brokers.get(&request.broker);
        if known.is_none_or(|known| known.epoch != request.broker_epoch) {
            return AlterPartitionResponse { result: Err(ClusterError::StaleBrokerEpoch) };
        }
        let partitions = request.partitions.iter().map(|proposed| {
            let topic_partition = proposed.topic_partition.clone();
            let result = self.altered(request.broker, proposed);
            if let Ok(state) = &result {
                let TopicPartition { topic, partition } = topic_partition.clone();
                let state = state.clone();
                self.write([MetadataRecord::Partition { topic, partition, state }], effects);
            }
            AlteredPartition { topic_partition, result }
        });
        AlterPartitionResponse { result: Ok(partitions.collect()) }
    }

    /// What a partition becomes by a proposal, or why it is refused.
    fn altered(
        &self,
        broker: BrokerId,
        proposed: &AlterPartition,
    ) -> Result<PartitionState, ClusterError> {
        let AlterPartition { topic_partition, leader_epoch, partition_epoch, in_sync_replicas } =
            proposed;
        let state = self.image.partition(topic_partition);
        let state = state.ok_or(ClusterError::UnknownTopicOrPartition)?;
        if *leader_epoch > state.leader_epoch || *partition_epoch > state.partition_epoch {
            return Err(ClusterError::NotController);
        }
        if *leader_epoch < state.leader_epoch {
            return Err(ClusterError::FencedLeaderEpoch);
        }
        if state.leader != Some(broker) {
            return Err(ClusterError::InvalidRequest);
        }
        if *partition_epoch < state.partition_epoch {
            return Err(ClusterError::InvalidUpdateVersion);
        }
        let ids: Vec<_> = in_sync_replicas.iter().map(|(id, _)| *id).collect();
        if !ids.contains(&broker) || !ids.iter().all(|id| state.replicas.contains(id)) {
            return Err(ClusterError::InvalidRequest);
        }
        let is_eligible = |(id, epoch): &(BrokerId, BrokerEpoch)| {
            let known = self.image.brokers.get(id);
            known.is_some_and(|b| !b.is_fenced && (*epoch == UNKNOWN_EPOCH || b.epoch == *epoch))
        };
        if !in_sync_replicas.iter().all(is_eligible) {
            return Err(ClusterError::IneligibleReplica);
        }
        let partition_epoch = state.partition_epoch + 1;
        Ok(PartitionState { in_sync_replicas: ids, partition_epoch, ..state.clone() })
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
        self.write([], effects);
    }

    fn heard_of(&mut self, now: SimTime, broker: BrokerId, effects: &mut Effects) {
        let deadline = now + self.config.broker.broker_session_timeout;
        let contact =
            self.sessions.entry(broker).or_insert(Contact { deadline, is_watched: false });
        contact.deadline = deadline;
        if !contact.is_watched {
            contact.is_watched = true;
            schedule(BrokerTimer::BrokerSession { broker }, deadline, effects);
        }
    }

    fn session_due(&mut self, now: SimTime, broker: BrokerId, effects: &mut Effects) {
        let Some(contact) = self.sessions.get_mut(&broker) else { return };
        if now < contact.deadline {
            schedule(BrokerTimer::BrokerSession { broker }, contact.deadline, effects);
            return;
        }
        contact.is_watched = false;
        if self.is_alive(broker) {
            let mut records = vec![MetadataRecord::BrokerFenced { broker, is_fenced: true }];
            records.extend(self.elections(|id| id != broker && self.is_alive(id)));
            self.write(records, effects);
        }
    }

    pub(super) fn is_alive(&self, broker: BrokerId) -> bool {
        self.image.brokers.get(&broker).is_some_and(|broker| !broker.is_fenced)
    }

    /// The partitions that change when exactly these brokers are alive.
    fn elections(&self, is_alive: impl Fn(BrokerId) -> bool) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        for (topic, image) in &self.image.topics {
            for (partition, state) in (0..).zip(&image.partitions) {
                if let Some(state) = elect(state, &is_alive) {
                    records.push(MetadataRecord::Partition {
                        topic: topic.clone(),
                        partition,
                        state,
                    });
                }
            }
        }
        records
    }
}

/// What becomes of a partition when exactly these brokers are alive; `None` if nothing changes.
pub(super) fn elect(
    state: &PartitionState,
    is_alive: impl Fn(BrokerId) -> bool,
) -> Option<PartitionState> {
    let is_alive = |id: &&BrokerId| is_alive(**id);
    let mut in_sync_replicas: Vec<_> =
        state.in_sync_replicas.iter().filter(is_alive).copied().collect();
    if in_sync_replicas.is_empty() {
        // The last in sync stays so: only it has everything.
        in_sync_replicas.clone_from(&state.in_sync_replicas);
    }
    let can_lead = |id: &&BrokerId| is_alive(id) && in_sync_replicas.contains(*id);
    let leader = state
        .leader
        .filter(|leader| can_lead(&leader))
        .or_else(|| state.replicas.iter().find(can_lead).copied());
    if leader == state.leader && in_sync_replicas == state.in_sync_replicas {
        return None;
    }
    Some(PartitionState {
        replicas: state.replicas.clone(),
        in_sync_replicas,
        leader,
        leader_epoch: state.leader_epoch + i32::from(leader != state.leader),
        partition_epoch: state.partition_epoch + 1,
    })
}
