//! Connections that a broker opens to other brokers, one per broker and purpose: who asked what is
//! remembered by a token, and each request ends in a response or in a failure.
//!
//! A request that is not answered in time breaks its connection, as with Kafka's own clients; so
//! all behind it fail as well. Whether a request that failed was handled is unknown.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::replication::Position;
use super::session::schedule;
use super::transaction::MarkersToken;
use super::{Broker, BrokerTimer};
use crate::node::{BrokerId, ConnectionId, CorrelationId, Effects, NodeId, Timer};
use crate::protocol::{Request, Response};
use crate::time::SimTime;

/// What a connection to another broker is for. Requests of different purposes do not wait for each
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// A follower fetches from the leaders of its partitions.
    Replication,
    /// A transaction coordinator has markers written.
    Markers,
    /// A partition leader verifies transactions with their coordinator.
    Verification,
}

/// By what a request is remembered until its outcome.
#[derive(Debug)]
pub(super) enum Token {
    /// A fetch of a follower, by where its logs ended.
    ReplicaFetch(Vec<Position>),
    /// A follower asked for the end of the leader's log.
    LeaderEnd(Position),
    /// Markers of a transaction.
    Markers(MarkersToken),
    /// The verification of a transaction, for the request of a connection.
    Verification(ConnectionId),
}

/// What came of a request: `None` if there was no response.
pub(super) type Outcome = (BrokerId, Token, Option<Response>);

/// The connections to other brokers.
#[derive(Debug)]
pub(super) struct Peers {
    id: BrokerId,
    /// Durable: how many connections were opened.
    opened: u32,
    peers: BTreeMap<(BrokerId, Purpose), Peer>,
    keys: BTreeMap<ConnectionId, (BrokerId, Purpose)>,
}

#[derive(Debug)]
struct Peer {
    connection: ConnectionId,
    is_connected: bool,
    correlation: CorrelationId,
    /// Requests that wait for the connection.
    waiting: VecDeque<(SimTime, Token, Request)>,
    /// Requests that wait for a response, in order.
    in_flight: VecDeque<(SimTime, CorrelationId, Token)>,
}

impl Peers {
    pub(super) const fn new(id: BrokerId) -> Self {
        Self { id, opened: FIRST_ORDINAL, peers: BTreeMap::new(), keys: BTreeMap::new() }
    }

    /// Loses what is in memory.
    pub(super) fn crash(&mut self) {
        *self = Self { opened: self.opened, ..Self::new(self.id) };
    }

    /// Sends a request to a broker, over a connection that is opened if there is none.
    pub(super) fn send(
        &mut self,
        now: SimTime,
        to: (BrokerId, Purpose),
        request: Request,
        token: Token,
        effects: &mut Effects,
    ) {
        let deadline = now + REQUEST_TIMEOUT;
        let peer = self.peers.entry(to).or_insert_with(|| {
            self.opened += 1;
            let owner = NodeId::Broker(self.id);
            let connection = ConnectionId { owner, ordinal: self.opened };
            self.keys.insert(connection, to);
            effects.connect(connection, NodeId::Broker(to.0));
            Peer {
                connection,
                is_connected: false,
                correlation: 0,
                waiting: VecDeque::new(),
                in_flight: VecDeque::new(),
            }
        });
        if peer.waiting.is_empty() && peer.in_flight.is_empty() {
            let connection = peer.connection;
            schedule(BrokerTimer::PeerExpires { connection }, deadline, effects);
        }
        if peer.is_connected {
            peer.transmit(deadline, token, request, effects);
        } else {
            peer.waiting.push_back((deadline, token, request));
        }
    }

    /// Closes the connection to a broker, and forgets what waits on it.
    pub(super) fn close(&mut self, to: (BrokerId, Purpose), effects: &mut Effects) {
        let Some(connection) = self.peers.get(&to).map(|peer| peer.connection) else { return };
        self.closed(connection, effects);
        effects.disconnect(connection);
    }

    fn connected(&mut self, connection: ConnectionId, effects: &mut Effects) {
        let Some(peer) = self.peer_of(connection) else { return };
        peer.is_connected = true;
        while let Some((deadline, token, request)) = peer.waiting.pop_front() {
            peer.transmit(deadline, token, request, effects);
        }
    }

    fn response(
        &mut self,
        connection: ConnectionId,
        correlation: CorrelationId,
        response: Response,
        effects: &mut Effects,
    ) -> Option<Outcome> {
        let broker = self.keys.get(&connection)?.0;
        let peer = self.peer_of(connection)?;
        let found = peer.in_flight.iter().position(|(_, number, _)| *number == correlation)?;
        let (_, _, token) = peer.in_flight.remove(found)?;
        match peer.in_flight.front() {
            Some((deadline, ..)) => {
                schedule(BrokerTimer::PeerExpires { connection }, *deadline, effects);
            }
            None => {
                effects.cancel_timer(Timer::Broker(BrokerTimer::PeerExpires { connection }));
            }
        }
        Some((broker, token, Some(response)))
    }

    /// Forgets a connection; whatever waits on it has failed.
    fn closed(&mut self, connection: ConnectionId, effects: &mut Effects) -> Vec<Outcome> {
        let Some(key) = self.keys.remove(&connection) else { return Vec::new() };
        let Some(peer) = self.peers.remove(&key) else { return Vec::new() };
        effects.cancel_timer(Timer::Broker(BrokerTimer::PeerExpires { connection }));
        let sent = peer.in_flight.into_iter().map(|(_, _, token)| token);
        let unsent = peer.waiting.into_iter().map(|(_, token, _)| token);
        sent.chain(unsent).map(|token| (key.0, token, None)).collect()
    }

    fn peer_of(&mut self, connection: ConnectionId) -> Option<&mut Peer> {
        self.peers.get_mut(self.keys.get(&connection)?)
    }
}

impl Peer {
    fn transmit(
        &mut self,
        deadline: SimTime,
        token: Token,
        request: Request,
        effects: &mut Effects,
    ) {
        self.correlation += 1;
        self.in_flight.push_back((deadline, self.correlation, token));
        effects.request(self.connection, self.correlation, request);
    }
}

impl Broker {
    pub(super) fn peer_connected(&mut self, connection: ConnectionId, effects: &mut Effects) {
        self.peers.connected(connection, effects);
    }

    pub(super) fn peer_response(
        &mut self,
        now: SimTime,
        (connection, correlation): (ConnectionId, CorrelationId),
        response: Response,
        effects: &mut Effects,
    ) {
        if let Some(outcome) = self.peers.response(connection, correlation, response, effects) {
            self.conclude(now, outcome, effects);
        }
    }

    /// A connection to another broker broke, or a request on it took too long.
    pub(super) fn peer_closed(
        &mut self,
        now: SimTime,
        connection: ConnectionId,
        effects: &mut Effects,
    ) {
        for outcome in self.peers.closed(connection, effects) {
            self.conclude(now, outcome, effects);
        }
    }

    pub(super) fn peer_expires(
        &mut self,
        now: SimTime,
        connection: ConnectionId,
        effects: &mut Effects,
    ) {
        effects.disconnect(connection);
        self.peer_closed(now, connection, effects);
    }

    /// Goes on with the outcome of a request to another broker.
    fn conclude(&mut self, now: SimTime, outcome: Outcome, effects: &mut Effects) {
        let (broker, token, response) = outcome;
        match token {
            Token::ReplicaFetch(positions) => {
                self.fetched_from(now, broker, positions, response, effects);
            }
            Token::LeaderEnd(position) => {
                self.learned_end(now, broker, &position, response, effects);
            }
            Token::Markers(token) => self.markers_concluded(now, token, response, effects),
            Token::Verification(connection) => {
                self.verification_concluded(now, connection, response, effects);
            }
        }
    }
}

/// `replica.socket.timeout.ms` and `request.timeout.ms`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Numbers of connections below this are those of the session with the controller.
const FIRST_ORDINAL: u32 = 1 << 24;
