//! Tests of brokers and controller through their front door: a cluster on a network without
//! latency.

mod controller;
mod coordinators;
mod groups;
mod offsets;
mod partitions;
mod recovery;
mod replication;
mod topics;
mod transactions;
mod transactions_fencing;
mod transactions_markers;
mod transactions_offsets;
mod transactions_properties;
mod transactions_storm;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bus_core::{Acks, ErrorKind, Headers, IsolationLevel, Offset, Timestamp, TopicPartition};

use super::{Broker, Controller, bootstrap};
use crate::choice::Choices;
use crate::config::SimConfig;
use crate::fact::Fact;
use crate::node::{BrokerId, ConnectionId, Effect, Effects, Input, NodeId, Timer};
use crate::protocol::batch::{BatchRecord, ProducerStamp, RecordBatch};
use crate::protocol::cluster::MetadataRecord;
use crate::protocol::topics::{CreatableTopic, CreateTopicsRequest, TopicResult};
use crate::protocol::{Api, Request, Response, fetch, produce};
use crate::time::SimTime;

/// A batch of records with these timestamps.
pub(super) fn batch(times: &[i64]) -> RecordBatch {
    let record = |millis: &i64| BatchRecord {
        timestamp: Timestamp::from_millis(*millis),
        key: None,
        value: Some("v".into()),
        headers: Headers::new(),
    };
    RecordBatch::new(None, times.iter().map(record).collect())
}

/// Takes the response of an API out of a response.
macro_rules! response_of {
    ($api:ident, $response:expr) => {
        match $response {
            $crate::protocol::Response::$api(response) => response,
            other => panic!("{other:?} is no response of {}", stringify!($api)),
        }
    };
}
use response_of;

/// A cluster whose messages arrive at once.
struct Cluster {
    now: SimTime,
    controller: Controller,
    brokers: BTreeMap<BrokerId, (Broker, bool)>,
    inbox: VecDeque<(NodeId, Input)>,
    timers: BTreeMap<(NodeId, Timer), SimTime>,
    /// Where each open connection leads.
    connections: BTreeMap<ConnectionId, NodeId>,
    /// Connections of clients that a broker closed.
    closed: BTreeSet<ConnectionId>,
    responses: BTreeMap<(ConnectionId, u32), Response>,
    /// Requests between brokers of this API are held back.
    holding: Option<Api>,
    held_back: VecDeque<(NodeId, Input)>,
    facts: Vec<Fact>,
    /// Pairs of nodes whose messages are held.
    cuts: BTreeSet<(NodeId, NodeId)>,
    held: Vec<(NodeId, NodeId, Input)>,
    clients: u32,
    correlation: u32,
}

impl Cluster {
    fn new(config: SimConfig) -> Self {
        let choices = Choices::new(config.seed);
        let (controller, brokers) = bootstrap(&Arc::new(config), &choices);
        let mut cluster = Self {
            now: SimTime::ZERO,
            controller,
            brokers: (1..).zip(brokers.into_iter().map(|broker| (broker, true))).collect(),
            inbox: VecDeque::new(),
            timers: BTreeMap::new(),
            connections: BTreeMap::new(),
            closed: BTreeSet::new(),
            responses: BTreeMap::new(),
            holding: None,
            held_back: VecDeque::new(),
            facts: Vec::new(),
            cuts: BTreeSet::new(),
            held: Vec::new(),
            clients: 0,
            correlation: 0,
        };
        cluster.inbox.push_back((NodeId::Controller, Input::Start));
        let ids: Vec<_> = cluster.brokers.keys().copied().collect();
        cluster.inbox.extend(ids.into_iter().map(|id| (NodeId::Broker(id), Input::Start)));
        cluster.run();
        cluster
    }

    /// One broker, and a topic `orders` of one partition.
    fn with_topic() -> (Self, ConnectionId) {
        let mut cluster = Self::new(SimConfig::default());
        let connection = cluster.connect(1);
        assert_eq!(cluster.create_topic(connection, "orders", 1, &[]).error, None);
        (cluster, connection)
    }

    fn connect(&mut self, broker: BrokerId) -> ConnectionId {
        self.clients += 1;
        let connection = ConnectionId { owner: NodeId::Client(self.clients), ordinal: 1 };
        self.connections.insert(connection, NodeId::Broker(broker));
        connection
    }

    fn send(&mut self, connection: ConnectionId, request: Request) -> u32 {
        self.correlation += 1;
        let correlation = self.correlation;
        let to = self.connections[&connection];
        let request = Box::new(request);
        self.inbox.push_back((to, Input::Request { connection, correlation, request }));
        self.run();
        correlation
    }

    fn take(&mut self, connection: ConnectionId, correlation: u32) -> Option<Response> {
        self.responses.remove(&(connection, correlation))
    }

    fn call(&mut self, connection: ConnectionId, request: Request) -> Response {
        let asked = format!("{request:?}");
        let correlation = self.send(connection, request);
        if !self.responses.contains_key(&(connection, correlation)) {
            // A follower that found no leader yet tries again after a pause.
            self.advance(Duration::from_secs(2));
        }
        self.take(connection, correlation).unwrap_or_else(|| panic!("no response to {asked}"))
    }

    /// Closes a connection from the side of its client.
    fn close(&mut self, connection: ConnectionId) {
        if let Some(to) = self.connections.remove(&connection) {
            self.inbox.push_back((to, Input::Disconnected { connection }));
        }
        self.run();
    }

    /// Holds requests between brokers back, until [`release`](Self::release).
    const fn hold(&mut self, api: Api) {
        self.holding = Some(api);
    }

    /// Delivers what was held back, if its connection is still there, and holds back no more.
    fn release(&mut self) {
        self.holding = None;
        self.inbox.append(&mut self.held_back);
        self.run();
    }

    /// Loses what was held back, with the connections that it was sent on.
    fn lose_held(&mut self) {
        for (to, input) in std::mem::take(&mut self.held_back) {
            let Input::Request { connection, .. } = input else { continue };
            self.connections.remove(&connection);
            self.inbox.push_back((to, Input::Disconnected { connection }));
            self.inbox.push_back((connection.owner, Input::Disconnected { connection }));
        }
        self.run();
    }

    /// Lets time pass.
    fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some((key, at)) = self
            .timers
            .iter()
            .min_by_key(|(_, at)| **at)
            .map(|(key, at)| (key.clone(), *at))
            .filter(|(_, at)| *at <= end)
        {
            self.timers.remove(&key);
            self.now = self.now.max(at);
            self.inbox.push_back((key.0, Input::Timer(key.1)));
            self.run();
        }
        self.now = end;
    }

    fn crash(&mut self, id: BrokerId) {
        self.down(id, Broker::crash);
        self.run();
    }

    /// Begins a controlled shutdown of a broker.
    fn shut_down(&mut self, id: BrokerId) {
        let mut effects = Effects::default();
        let now = self.now;
        self.brokers.get_mut(&id).unwrap().0.begin_shutdown(now, &mut effects);
        for effect in effects.list {
            self.carry_out(NodeId::Broker(id), effect);
        }
        self.run();
    }

    /// Crashes the controller; the next is elected at once.
    fn crash_controller(&mut self) {
        self.controller.crash();
        self.disconnect(NodeId::Controller);
        self.inbox.push_back((NodeId::Controller, Input::Start));
        self.run();
    }

    fn down(&mut self, id: BrokerId, end: fn(&mut Broker, SimTime)) {
        let (broker, is_up) = self.brokers.get_mut(&id).unwrap();
        broker.check_coordinators(self.now);
        end(broker, self.now);
        *is_up = false;
        self.disconnect(NodeId::Broker(id));
    }

    /// A node goes down: its timers and connections end.
    fn disconnect(&mut self, node: NodeId) {
        self.timers.retain(|(owner, _), _| *owner != node);
        let lost: Vec<_> = self
            .connections
            .iter()
            .filter(|(connection, to)| connection.owner == node || **to == node)
            .map(|(connection, to)| (*connection, *to))
            .collect();
        for (connection, to) in lost {
            self.connections.remove(&connection);
            if matches!(connection.owner, NodeId::Client(_)) {
                self.closed.insert(connection);
                continue;
            }
            let other = if connection.owner == node { to } else { connection.owner };
            self.inbox.push_back((other, Input::Disconnected { connection }));
        }
    }

    /// Starts a broker again, and waits until it has loaded all.
    fn restart(&mut self, id: BrokerId) {
        self.start(id);
        self.advance(Duration::from_secs(12));
    }

    fn start(&mut self, id: BrokerId) {
        self.brokers.get_mut(&id).unwrap().1 = true;
        self.inbox.push_back((NodeId::Broker(id), Input::Start));
        self.run();
    }

    /// Holds all messages between two nodes.
    fn cut(&mut self, a: NodeId, b: NodeId) {
        self.cuts.extend([(a, b), (b, a)]);
    }

    /// Delivers what was held, and cuts nothing any more.
    fn heal(&mut self) {
        self.cuts.clear();
        for (_, to, input) in std::mem::take(&mut self.held) {
            self.deliver(to, input);
        }
        self.run();
    }

    /// Puts a message into the inbox of a node, if its connection is open.
    fn deliver(&mut self, to: NodeId, input: Input) {
        let connection = match &input {
            Input::Request { connection, .. }
            | Input::Response { connection, .. }
            | Input::Connected { connection } => Some(connection),
            _ => None,
        };
        if connection.is_none_or(|connection| self.connections.contains_key(connection)) {
            self.inbox.push_back((to, input));
        }
    }

    fn transmit(&mut self, from: NodeId, to: NodeId, input: Input) {
        if self.cuts.contains(&(from, to)) {
            self.held.push((from, to, input));
        } else {
            self.inbox.push_back((to, input));
        }
    }

    /// Crashes a broker by a loss of power.
    fn lose_power(&mut self, id: BrokerId) {
        let mut effects = Effects::default();
        self.brokers.get_mut(&id).unwrap().0.lose_power(self.now, &mut effects);
        effects.list.into_iter().for_each(|effect| self.carry_out(NodeId::Broker(id), effect));
        self.crash(id);
    }

    /// Lets the controller write records of its own accord.
    fn write(&mut self, records: Vec<MetadataRecord>) {
        let mut effects = Effects::default();
        self.controller.write(self.now, records, &mut effects);
        let node = NodeId::Controller;
        effects.list.into_iter().for_each(|effect| self.carry_out(node, effect));
        self.run();
    }

    fn run(&mut self) {
        while let Some((node, input)) = self.inbox.pop_front() {
            let mut effects = Effects::default();
            match node {
                NodeId::Controller => self.controller.handle(self.now, input, &mut effects),
                NodeId::Broker(id) => {
                    let (broker, is_up) = self.brokers.get_mut(&id).unwrap();
                    if *is_up {
                        broker.handle(self.now, input, &mut effects);
                    }
                }
                NodeId::Client(_) => self.receive(input),
            }
            for effect in effects.list {
                self.carry_out(node, effect);
            }
        }
    }

    fn receive(&mut self, input: Input) {
        match input {
            Input::Response { connection, correlation, response } => {
                self.responses.insert((connection, correlation), *response);
            }
            Input::Disconnected { connection } => {
                self.closed.insert(connection);
            }
            other => panic!("a client gets no {other:?}"),
        }
    }

    fn carry_out(&mut self, node: NodeId, effect: Effect) {
        match effect {
            Effect::Connect { connection, to } => {
                let is_up = match to {
                    NodeId::Broker(id) => self.brokers[&id].1,
                    _ => true,
                };
                if is_up {
                    self.connections.insert(connection, to);
                    self.transmit(to, node, Input::Connected { connection });
                } else {
                    self.inbox.push_back((node, Input::Disconnected { connection }));
                }
            }
            Effect::Disconnect { connection } => {
                if let Some(to) = self.connections.remove(&connection) {
                    let other = if node == to { connection.owner } else { to };
                    self.inbox.push_back((other, Input::Disconnected { connection }));
                }
            }
            Effect::Request { connection, correlation, request } => {
                if let Some(to) = self.connections.get(&connection) {
                    let to = *to;
                    let is_held = self.holding == Some(request.api());
                    let input = Input::Request { connection, correlation, request };
                    if is_held {
                        self.held_back.push_back((to, input));
                    } else {
                        self.transmit(node, to, input);
                    }
                }
            }
            Effect::Respond { connection, correlation, response } => {
                if self.connections.contains_key(&connection) {
                    let input = Input::Response { connection, correlation, response };
                    self.transmit(node, connection.owner, input);
                }
            }
            Effect::SetTimer { timer, at } => {
                self.timers.insert((node, timer), at);
            }
            Effect::CancelTimer { timer } => {
                self.timers.remove(&(node, timer));
            }
            Effect::Handled { .. } => {}
            Effect::Fact(fact) => self.facts.push(fact),
            Effect::Stop => {
                let NodeId::Broker(id) = node else { panic!("only brokers stop") };
                self.down(id, Broker::stop);
            }
            Effect::Complete(_) => panic!("brokers complete nothing"),
        }
    }

    fn create_topic(
        &mut self,
        connection: ConnectionId,
        topic: &str,
        partitions: i32,
        config: &[(&str, &str)],
    ) -> TopicResult {
        let config = config.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let topic = CreatableTopic {
            topic: topic.into(),
            partitions,
            replication_factor: None,
            config: config.collect(),
        };
        let request = Request::CreateTopics(CreateTopicsRequest { topics: vec![topic] });
        response_of!(CreateTopics, self.call(connection, request)).topics.remove(0)
    }

    fn produce(
        &mut self,
        connection: ConnectionId,
        batch: RecordBatch,
    ) -> Result<produce::Appended, ErrorKind> {
        let request = produce_request(Acks::All, "orders", batch);
        response_of!(Produce, self.call(connection, request)).partitions.remove(0).result
    }

    fn fetch(
        &mut self,
        connection: ConnectionId,
        offset: Offset,
    ) -> Result<fetch::Fetched, ErrorKind> {
        let request = fetch_request("orders", offset, Duration::ZERO);
        response_of!(Fetch, self.call(connection, request)).partitions.remove(0).result
    }
}

fn produce_request(acks: Acks, topic: &str, batch: RecordBatch) -> Request {
    let topic_partition = TopicPartition::new(topic, 0);
    Request::Produce(produce::Request {
        transactional_id: None,
        is_version_2: false,
        acks,
        timeout: Duration::from_secs(30),
        partitions: vec![produce::PartitionRequest { topic_partition, batch: Arc::new(batch) }],
    })
}

fn fetch_request(topic: &str, offset: Offset, max_wait: Duration) -> Request {
    Request::Fetch(fetch::Request {
        replica: None,
        max_wait,
        min_bytes: 1,
        max_bytes: 1 << 20,
        isolation_level: IsolationLevel::ReadCommitted,
        partitions: vec![fetch::PartitionRequest {
            last_fetched_epoch: None,
            topic_partition: TopicPartition::new(topic, 0),
            offset,
            current_leader_epoch: None,
            max_bytes: 1 << 20,
        }],
    })
}

fn stamped(batch: &RecordBatch, base_sequence: i32) -> RecordBatch {
    let stamp = ProducerStamp { producer_id: 1_000_000_000, producer_epoch: 0, base_sequence };
    batch.with_producer(Some(stamp))
}
