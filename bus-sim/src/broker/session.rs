//! A broker's session with the controller: connecting, registering, heartbeats, and the metadata
//! log.
//!
//! - A broker that restarts within its old session is refused until that ends.
//! - A controlled shutdown asks the controller with heartbeats, and ends when it may, or after 5
//!   minutes.
//!
//! Simplified: one connection carries all of it, and the controller answers in any order; Kafka
//! uses several connections and the Raft protocol. See `docs/fidelity.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bus_core::Topic;

use super::image::Image;
use super::{Broker, BrokerTimer};
use crate::config::SimConfig;
use crate::node::{BrokerId, ConnectionId, CorrelationId, Effects, NodeId, Timer};
use crate::protocol::cluster::{
    AlterPartitionRequest, BrokerEpoch, BrokerHeartbeatRequest, BrokerHeartbeatResponse,
    FetchMetadataLogRequest, MetadataRecord, RegisterBrokerRequest,
};
use crate::protocol::{Request, Response};
use crate::time::SimTime;

/// The session of a broker with the controller.
#[derive(Debug)]
pub(super) struct Session {
    id: BrokerId,
    /// Durable: how many connections it opened.
    connections: u32,
    /// Durable: how often it started.
    incarnation: u32,
    /// Durable until the next start: the registration as of the last clean shutdown.
    clean_shutdown: Option<BrokerEpoch>,
    /// What `clean_shutdown` was at this start.
    previous_epoch: Option<BrokerEpoch>,
    connection: Option<ConnectionId>,
    is_connected: bool,
    /// The registration.
    epoch: Option<BrokerEpoch>,
    /// Whether it has read the metadata log since it started.
    is_ready: bool,
    shutdown: Shutdown,
    correlation: CorrelationId,
    /// Tries that failed since the last success.
    failures: u32,
    /// Requests of other connections that were forwarded.
    forwarded: BTreeMap<CorrelationId, ConnectionId>,
}

/// Whether the broker wants to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shutdown {
    No,
    Wanted,
    /// The controller knows.
    Answered,
}

impl Session {
    pub(super) const fn new(id: BrokerId) -> Self {
        Self {
            id,
            connections: 0,
            incarnation: 0,
            clean_shutdown: None,
            previous_epoch: None,
            connection: None,
            is_connected: false,
            epoch: None,
            is_ready: false,
            shutdown: Shutdown::No,
            correlation: 0,
            failures: 0,
            forwarded: BTreeMap::new(),
        }
    }

    /// Makes it one that registered and caught up.
    pub(super) const fn resume(&mut self, epoch: BrokerEpoch) {
        self.incarnation = 1;
        self.epoch = Some(epoch);
        self.is_ready = true;
    }

    /// Loses what is in memory.
    pub(super) fn crash(&mut self) {
        let Self { id, connections, incarnation, clean_shutdown, .. } = *self;
        *self = Self { connections, incarnation, clean_shutdown, ..Self::new(id) };
    }

    /// Notes that the broker stops in good order: nothing is missing from its logs.
    pub(super) const fn stop(&mut self) {
        self.clean_shutdown = self.epoch;
    }

    /// Whether the broker knows enough to serve.
    pub(super) const fn is_ready(&self) -> bool {
        self.is_ready
    }

    pub(super) fn start(&mut self, effects: &mut Effects) {
        if self.epoch.is_none() {
            self.incarnation += 1;
            self.previous_epoch = self.clean_shutdown.take();
        }
        self.connect(effects);
    }

    fn connect(&mut self, effects: &mut Effects) {
        self.connections += 1;
        let connection = ConnectionId { owner: NodeId::Broker(self.id), ordinal: self.connections };
        self.connection = Some(connection);
        effects.connect(connection, NodeId::Controller);
    }

    /// Whether `connection` is that of this session.
    fn is_own(&self, connection: ConnectionId) -> bool {
        self.connection == Some(connection)
    }

    /// The registration, if there is one.
    pub(super) const fn epoch(&self) -> Option<BrokerEpoch> {
        self.epoch
    }

    /// Proposes to the controller who shall be in sync, if it is connected.
    pub(super) fn alter_partition(
        &mut self,
        request: AlterPartitionRequest,
        effects: &mut Effects,
    ) -> Option<CorrelationId> {
        self.send(Request::AlterPartition(request), effects)
    }

    /// Sends a request, if it is connected.
    fn send(&mut self, request: Request, effects: &mut Effects) -> Option<CorrelationId> {
        let connection = self.connection.filter(|_| self.is_connected)?;
        self.correlation += 1;
        effects.request(connection, self.correlation, request);
        Some(self.correlation)
    }

    /// Forwards a request of another connection. Returns whether it was sent.
    pub(super) fn forward(
        &mut self,
        from: ConnectionId,
        request: &Request,
        effects: &mut Effects,
    ) -> bool {
        if !self.is_connected {
            return false;
        }
        let correlation = self.send(request.clone(), effects);
        self.forwarded.extend(correlation.map(|correlation| (correlation, from)));
        correlation.is_some()
    }

    fn register(&mut self, effects: &mut Effects) {
        let request = RegisterBrokerRequest {
            broker: self.id,
            incarnation: self.incarnation,
            previous_broker_epoch: self.previous_epoch,
        };
        self.send(Request::RegisterBroker(request), effects);
    }

    fn heartbeat(&mut self, image: &Image, effects: &mut Effects) {
        let Some(broker_epoch) = self.epoch else { return };
        let request = BrokerHeartbeatRequest {
            broker: self.id,
            broker_epoch,
            metadata_offset: image.offset,
            want_shutdown: self.shutdown != Shutdown::No,
        };
        self.send(Request::BrokerHeartbeat(request), effects);
    }

    fn fetch_metadata(&mut self, image: &Image, effects: &mut Effects) {
        let request = FetchMetadataLogRequest { broker: self.id, offset: image.offset };
        self.send(Request::FetchMetadataLog(request), effects);
    }

    /// The time of a heartbeat has come.
    pub(super) fn heartbeat_due(
        &mut self,
        now: SimTime,
        image: &Image,
        config: &SimConfig,
        effects: &mut Effects,
    ) {
        if self.is_connected && self.epoch.is_some() {
            self.heartbeat(image, effects);
            schedule(BrokerTimer::Heartbeat, now + config.broker_heartbeat_interval(), effects);
        }
    }

    /// The time to try again has come.
    pub(super) fn retry(&mut self, effects: &mut Effects) {
        match (self.connection, self.epoch) {
            (None, _) => self.connect(effects),
            (Some(_), None) => self.register(effects),
            (Some(_), Some(_)) => {}
        }
    }

    /// Goes on without the connection. Returns whether it was that of the session.
    pub(super) fn disconnected(
        &mut self,
        now: SimTime,
        connection: ConnectionId,
        effects: &mut Effects,
    ) -> bool {
        if !self.is_own(connection) {
            return false;
        }
        self.connection = None;
        self.is_connected = false;
        self.forwarded.clear();
        self.back_off(now, effects);
        true
    }

    fn back_off(&mut self, now: SimTime, effects: &mut Effects) {
        let backoff = BACKOFF_MIN * (1 << self.failures.min(5));
        self.failures += 1;
        schedule(BrokerTimer::Reconnect, now + backoff.min(BACKOFF_MAX), effects);
    }
}

impl Broker {
    pub(super) fn on_connected(
        &mut self,
        now: SimTime,
        connection: ConnectionId,
        effects: &mut Effects,
    ) {
        if !self.session.is_own(connection) {
            self.peer_connected(connection, effects);
            return;
        }
        self.session.is_connected = true;
        if self.session.epoch.is_some() {
            self.session.failures = 0;
            self.session.fetch_metadata(&self.image, effects);
            let interval = self.config.broker_heartbeat_interval();
            schedule(BrokerTimer::Heartbeat, now + interval, effects);
            self.send_proposals(effects);
        } else {
            self.session.register(effects);
        }
        self.send_forwards(effects);
    }

    pub(super) fn on_response(
        &mut self,
        now: SimTime,
        connection: ConnectionId,
        correlation: CorrelationId,
        response: Response,
        effects: &mut Effects,
    ) {
        if !self.session.is_own(connection) {
            self.peer_response(now, (connection, correlation), response, effects);
            return;
        }
        match response {
            Response::RegisterBroker(response) => match response.result {
                Ok(epoch) => {
                    self.session.epoch = Some(epoch);
                    self.session.failures = 0;
                    self.session.fetch_metadata(&self.image, effects);
                    self.session.heartbeat_due(now, &self.image, &self.config, effects);
                    self.send_proposals(effects);
                    self.wake_fetchers(now, effects);
                }
                Err(_) => self.session.back_off(now, effects),
            },
            Response::BrokerHeartbeat(response) => self.on_heartbeat(now, &response, effects),
            Response::FetchMetadataLog(response) => {
                self.learn(now, &response.records, effects);
                self.session.fetch_metadata(&self.image, effects);
                self.caught_up(effects);
            }
            Response::AlterPartition(response) => {
                self.altered_partitions(now, correlation, response, effects);
            }
            response => {
                if let Some(from) = self.session.forwarded.remove(&correlation) {
                    self.on_forwarded(from, response, effects);
                }
            }
        }
        self.complete_forwards(effects);
    }

    fn on_heartbeat(
        &mut self,
        now: SimTime,
        response: &BrokerHeartbeatResponse,
        effects: &mut Effects,
    ) {
        if response.error.is_some() {
            self.session.epoch = None;
            self.session.register(effects);
            return;
        }
        match self.session.shutdown {
            Shutdown::No => {}
            Shutdown::Wanted | Shutdown::Answered if response.may_shut_down => effects.stop(),
            Shutdown::Wanted => {
                self.session.shutdown = Shutdown::Answered;
                schedule(BrokerTimer::Heartbeat, now + SHUTDOWN_RETRY, effects);
            }
            Shutdown::Answered => {}
        }
    }

    /// Its registration, once it has read the metadata log since it started.
    pub fn epoch(&self) -> Option<BrokerEpoch> {
        self.session.epoch.filter(|_| self.session.is_ready)
    }

    /// Begins a controlled shutdown; [`Effects::stop`] ends it. A broker that is not registered
    /// stops at once.
    pub fn begin_shutdown(&mut self, now: SimTime, effects: &mut Effects) {
        if self.session.shutdown != Shutdown::No {
            return;
        }
        if !self.session.is_ready {
            effects.stop();
            return;
        }
        self.session.shutdown = Shutdown::Wanted;
        schedule(BrokerTimer::ShutdownExpires, now + SHUTDOWN_TIMEOUT, effects);
        self.session.heartbeat_due(now, &self.image, &self.config, effects);
    }

    /// Learns records of the metadata log.
    fn learn(&mut self, now: SimTime, records: &[MetadataRecord], effects: &mut Effects) {
        let mut topics = BTreeSet::<&Topic>::new();
        let mut has_brokers = false;
        for record in records {
            self.image.replay(record);
            match record {
                MetadataRecord::Topic { topic, .. }
                | MetadataRecord::TopicConfig { topic, .. }
                | MetadataRecord::Partition { topic, .. }
                | MetadataRecord::RemoveTopic { topic } => {
                    topics.insert(topic);
                }
                MetadataRecord::RegisterBroker { .. }
                | MetadataRecord::BrokerFenced { .. }
                | MetadataRecord::BrokerInControlledShutdown { .. } => has_brokers = true,
            }
        }
        if has_brokers {
            self.follow_brokers();
        }
        for topic in topics {
            self.follow_topic(now, topic, effects);
        }
        self.wake_fetchers(now, effects);
    }

    /// Once it has read its own registration, it can serve, and tells the controller at once.
    fn caught_up(&mut self, effects: &mut Effects) {
        let Some(epoch) = self.session.epoch else { return };
        if self.image.offset > epoch {
            self.session.is_ready = true;
            if self.image.brokers.get(&self.id).is_some_and(|broker| broker.is_fenced) {
                self.session.heartbeat(&self.image, effects);
            }
        }
    }
}

/// Sets a timer of a broker.
pub(super) fn schedule(timer: BrokerTimer, at: SimTime, effects: &mut Effects) {
    effects.set_timer(Timer::Broker(timer), at);
}

/// How soon a broker that wants to stop asks the second time.
const SHUTDOWN_RETRY: Duration = Duration::from_millis(50);
/// When a broker stops without being allowed to.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_mins(5);
/// `reconnect.backoff.ms`.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// `reconnect.backoff.max.ms`.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
