//! The connections of a client: opened when needed, one per broker and purpose, with requests that
//! wait, are in flight, or ran out of time.
//!
//! As in librdkafka the coordinator has a connection of its own, so that a commit does not wait
//! behind a long poll. A request that times out closes its connection (`socket.max.fails=1`).
//!
//! - `any_broker`: requests that any broker can answer.

mod any_broker;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::choice::Label;
use crate::client::{ClientTimer, Identity};
use crate::node::{BrokerId, ConnectionId, CorrelationId, Effects, Input, NodeId, Timer};
use crate::protocol::{Request, Response};
use crate::time::SimTime;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// Records and metadata.
    Data,
    /// The coordinator of a group.
    Coordinator,
    /// The same, for a commit beside others that are in flight.
    Commit(u8),
}

/// A broker and what the connection to it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link {
    /// The broker.
    pub broker: BrokerId,
    /// What for.
    pub purpose: Purpose,
}

impl Link {
    /// The connection for records and metadata.
    pub const fn data(broker: BrokerId) -> Self {
        Self { broker, purpose: Purpose::Data }
    }

    /// The connection for the coordinator.
    pub const fn coordinator(broker: BrokerId) -> Self {
        Self { broker, purpose: Purpose::Coordinator }
    }

    /// The connection for one of the commits that are in flight; the first shares that of the
    /// coordinator.
    pub(crate) const fn commit(broker: BrokerId, slot: u8) -> Self {
        match slot {
            0 => Self::coordinator(broker),
            slot => Self { broker, purpose: Purpose::Commit(slot) },
        }
    }
}

/// librdkafka's `socket.timeout.ms`, if nothing else is said.
pub(crate) const SOCKET_TIMEOUT: Duration = Duration::from_mins(1);
/// librdkafka's `socket.connection.setup.timeout.ms`.
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);
/// librdkafka's `reconnect.backoff.ms` and `reconnect.backoff.max.ms`.
const RECONNECT_BACKOFF: Duration = Duration::from_millis(100);
const RECONNECT_BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What came of a request, or of a connection.
#[derive(Debug)]
pub(crate) enum Outcome<T> {
    /// The response.
    Response(T, Response),
    /// There is none, and none will come.
    Failed {
        token: T,
        /// Whether the broker may have the request.
        was_sent: bool,
        /// Whether it ran out of time, rather than that the connection broke.
        timed_out: bool,
    },
    /// A connection that was up broke: who leads may have changed.
    Down,
}

/// All connections of a client; `T` is what a request is remembered by.
#[derive(Debug)]
pub(crate) struct Connections<T> {
    identity: Identity,
    links: BTreeMap<Link, Connection<T>>,
    /// Requests for any broker, while none is up.
    for_any: VecDeque<Waiting<T>>,
    /// The brokers that are rather tried for those: the newest metadata names them.
    named: Vec<BrokerId>,
    /// All brokers, as `bootstrap.servers` names them.
    bootstrap: Vec<BrokerId>,
    next_ordinal: u32,
    draws: u32,
}

#[derive(Debug)]
struct Connection<T> {
    id: ConnectionId,
    state: State,
    waiting: VecDeque<Waiting<T>>,
    in_flight: VecDeque<InFlight<T>>,
    next_correlation: CorrelationId,
    /// Attempts to connect that failed, since the last that did not.
    failures: u32,
    /// When the timer of the first deadline fires.
    timeout_at: Option<SimTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waiting for the time to connect again.
    Backoff,
    Connecting,
    Open,
}

#[derive(Debug)]
struct Waiting<T> {
    token: T,
    request: Request,
    deadline: SimTime,
}

#[derive(Debug)]
struct InFlight<T> {
    token: T,
    correlation: CorrelationId,
    deadline: SimTime,
    /// Whether what is sent behind it waits for its response.
    is_long_poll: bool,
}

impl<T> Connections<T> {
    /// No connection; the brokers to start from are 1 to `brokers`.
    pub(crate) fn new(identity: Identity, brokers: i32) -> Self {
        Self {
            identity,
            links: BTreeMap::new(),
            for_any: VecDeque::new(),
            named: Vec::new(),
            bootstrap: (1..=brokers).collect(),
            next_ordinal: 0,
            draws: 0,
        }
    }

    /// Until when a request that is sent now waits for its response.
    pub(crate) fn deadline(&self, now: SimTime) -> SimTime {
        now + self.identity.socket_timeout
    }

    /// Sends a request once the link is up. It fails if it has no response by `deadline`.
    pub(crate) fn send(
        &mut self,
        now: SimTime,
        link: Link,
        token: T,
        request: Request,
        deadline: SimTime,
        effects: &mut Effects,
    ) {
        if !self.links.contains_key(&link) {
            self.open(now, link, effects);
        }
        let Some(connection) = self.links.get_mut(&link) else { return };
        if connection.state == State::Open {
            connection.put_in_flight(token, request, deadline, effects);
        } else {
            connection.waiting.push_back(Waiting { token, request, deadline });
        }
        connection.arm_timeout(link, deadline, effects);
    }

    /// Whether a link is up; opens it if there is none.
    pub(crate) fn open_for(&mut self, now: SimTime, link: Link, effects: &mut Effects) -> bool {
        if !self.links.contains_key(&link) {
            self.open(now, link, effects);
        }
        self.links.get(&link).is_some_and(|connection| connection.state == State::Open)
    }

    /// Whether a link was lost, or could not be opened, and is not up again.
    pub(crate) fn is_failing(&self, link: Link) -> bool {
        let connection = self.links.get(&link);
        connection
            .is_some_and(|connection| connection.state == State::Backoff || connection.failures > 0)
    }

    /// Sends a request that has no response (acks=0) on a link that is up.
    pub(crate) fn send_without_response(
        &mut self,
        link: Link,
        request: Request,
        effects: &mut Effects,
    ) {
        if let Some(connection) = self.links.get_mut(&link) {
            let correlation = connection.next_correlation;
            connection.next_correlation += 1;
            effects.request(connection.id, correlation, request);
        }
    }

    /// Forgets all requests and gives what they were remembered by.
    pub(crate) fn take_tokens(&mut self) -> Vec<T> {
        let mut tokens = Vec::new();
        for connection in self.links.values_mut() {
            tokens.extend(connection.in_flight.drain(..).map(|request| request.token));
            tokens.extend(connection.waiting.drain(..).map(|waiting| waiting.token));
        }
        tokens.extend(self.for_any.drain(..).map(|waiting| waiting.token));
        tokens
    }

    /// How many requests have no response yet on a link.
    pub(crate) fn in_flight(&self, link: Link) -> usize {
        let Some(connection) = self.links.get(&link) else { return 0 };
        connection.in_flight.len() + connection.waiting.len()
    }

    /// Closes a link; requests on it are forgotten.
    pub(crate) fn close(&mut self, link: Link, effects: &mut Effects) {
        if let Some(connection) = self.links.remove(&link) {
            effects.disconnect(connection.id);
            for timer in [
                ClientTimer::RequestTimeout(link),
                ClientTimer::Reconnect(link),
                ClientTimer::ConnectTimeout(link),
            ] {
                effects.cancel_timer(Timer::Client(timer));
            }
        }
    }

    /// Closes all links.
    pub(crate) fn close_all(&mut self, effects: &mut Effects) {
        self.for_any.clear();
        effects.cancel_timer(Timer::Client(ClientTimer::TryAnotherBroker));
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.close(link, effects);
        }
    }

    /// Handles what concerns connections and gives the outcomes of requests; `None` if the input is
    /// not about connections.
    pub(crate) fn handle(
        &mut self,
        now: SimTime,
        input: Input,
        effects: &mut Effects,
    ) -> Result<Vec<Outcome<T>>, Input> {
        match input {
            Input::Connected { connection } => {
                self.connected(connection, effects);
                Ok(Vec::new())
            }
            Input::Disconnected { connection } => {
                let Some(link) = self.link_of(connection) else { return Ok(Vec::new()) };
                Ok(self.lost(now, link, false, effects))
            }
            Input::Response { connection, correlation, response } => {
                Ok(self.response(connection, correlation, *response).into_iter().collect())
            }
            Input::Timer(Timer::Client(ClientTimer::RequestTimeout(link))) => {
                Ok(self.expire(now, link, effects))
            }
            Input::Timer(Timer::Client(ClientTimer::ConnectTimeout(link))) => {
                self.disconnect(link, effects);
                Ok(self.lost(now, link, true, effects))
            }
            Input::Timer(Timer::Client(ClientTimer::Reconnect(link))) => {
                self.reconnect(now, link, effects);
                Ok(Vec::new())
            }
            Input::Timer(Timer::Client(ClientTimer::TryAnotherBroker)) => {
                let expired = take_expired(&mut self.for_any, now).collect();
                self.try_another(now, effects);
                Ok(expired)
            }
            other => Err(other),
        }
    }

    fn open(&mut self, now: SimTime, link: Link, effects: &mut Effects) {
        let id = self.connect(now, link, effects);
        self.links.insert(
            link,
            Connection {
                id,
                state: State::Connecting,
                waiting: VecDeque::new(),
                in_flight: VecDeque::new(),
                next_correlation: 0,
                failures: 0,
                timeout_at: None,
            },
        );
    }

    fn connect(&mut self, now: SimTime, link: Link, effects: &mut Effects) -> ConnectionId {
        let id = ConnectionId { owner: self.identity.node, ordinal: self.next_ordinal };
        self.next_ordinal += 1;
        effects.connect(id, NodeId::Broker(link.broker));
        let timer = Timer::Client(ClientTimer::ConnectTimeout(link));
        effects.set_timer(timer, now + SETUP_TIMEOUT);
        id
    }

    fn reconnect(&mut self, now: SimTime, link: Link, effects: &mut Effects) {
        let id = self.connect(now, link, effects);
        if let Some(connection) = self.links.get_mut(&link) {
            connection.id = id;
            connection.state = State::Connecting;
            connection.next_correlation = 0;
        }
    }

    fn connected(&mut self, id: ConnectionId, effects: &mut Effects) {
        let Some(link) = self.link_of(id) else { return };
        effects.cancel_timer(Timer::Client(ClientTimer::ConnectTimeout(link)));
        let Some(connection) = self.links.get_mut(&link) else { return };
        connection.state = State::Open;
        connection.failures = 0;
        let for_any = match link.purpose {
            Purpose::Data => std::mem::take(&mut self.for_any),
            Purpose::Coordinator | Purpose::Commit(_) => VecDeque::new(),
        };
        if !for_any.is_empty() {
            effects.cancel_timer(Timer::Client(ClientTimer::TryAnotherBroker));
        }
        let waiting = std::mem::take(&mut connection.waiting);
        for Waiting { token, request, deadline } in waiting.into_iter().chain(for_any) {
            connection.put_in_flight(token, request, deadline, effects);
            connection.arm_timeout(link, deadline, effects);
        }
    }

    /// The link went down. What was in flight fails; what waits stays, unless connecting failed.
    fn lost(
        &mut self,
        now: SimTime,
        link: Link,
        timed_out: bool,
        effects: &mut Effects,
    ) -> Vec<Outcome<T>> {
        let Some(connection) = self.links.get_mut(&link) else { return Vec::new() };
        let mut outcomes = connection
            .in_flight
            .drain(..)
            .map(|request| Outcome::Failed { token: request.token, was_sent: true, timed_out })
            .collect::<Vec<_>>();
        if connection.state == State::Open {
            outcomes.push(Outcome::Down);
        }
        // A broker that cannot be reached fails what waits for it, so that the client looks for
        // another.
        if connection.state == State::Connecting {
            connection.failures += 1;
            outcomes.extend(connection.waiting.drain(..).map(|waiting| Outcome::Failed {
                token: waiting.token,
                was_sent: false,
                timed_out,
            }));
        }
        connection.state = State::Backoff;
        connection.timeout_at = None;
        effects.cancel_timer(Timer::Client(ClientTimer::RequestTimeout(link)));
        effects.cancel_timer(Timer::Client(ClientTimer::ConnectTimeout(link)));
        let failures = connection.failures;
        let wait = self.reconnect_wait(link, failures);
        effects.set_timer(Timer::Client(ClientTimer::Reconnect(link)), now + wait);
        if !self.for_any.is_empty() {
            self.try_another(now, effects);
        }
        outcomes
    }

    /// librdkafka's exponential back-off, with its jitter of -25 % to +50 %.
    fn reconnect_wait(&self, link: Link, failures: u32) -> Duration {
        let wait = RECONNECT_BACKOFF * (1 << failures.min(10));
        let cause = (link, self.next_ordinal);
        let percent = self.identity.choose(Label::ReconnectBackoff, cause, 76);
        let percent = 75 + u32::try_from(percent).unwrap_or(0);
        (wait * percent / 100).min(RECONNECT_BACKOFF_MAX)
    }

    fn response(
        &mut self,
        id: ConnectionId,
        correlation: CorrelationId,
        response: Response,
    ) -> Option<Outcome<T>> {
        let link = self.link_of(id)?;
        let connection = self.links.get_mut(&link)?;
        let place = connection.in_flight.iter().position(|r| r.correlation == correlation)?;
        let request = connection.in_flight.remove(place)?;
        Some(Outcome::Response(request.token, response))
    }

    /// Fails what ran out of time. One that was sent takes its connection down with it.
    fn expire(&mut self, now: SimTime, link: Link, effects: &mut Effects) -> Vec<Outcome<T>> {
        let Some(connection) = self.links.get_mut(&link) else { return Vec::new() };
        connection.timeout_at = None;
        let mut outcomes = Vec::new();
        if connection.in_flight.iter().any(|request| request.deadline <= now) {
            self.disconnect(link, effects);
            outcomes = self.lost(now, link, true, effects);
        }
        let Some(connection) = self.links.get_mut(&link) else { return outcomes };
        outcomes.extend(take_expired(&mut connection.waiting, now));
        let in_flight = connection.in_flight.iter().map(|request| request.deadline);
        let waiting = connection.waiting.iter().map(|waiting| waiting.deadline);
        if let Some(first) = in_flight.chain(waiting).min() {
            connection.arm_timeout(link, first, effects);
        }
        outcomes
    }

    fn disconnect(&self, link: Link, effects: &mut Effects) {
        if let Some(connection) = self.links.get(&link) {
            effects.disconnect(connection.id);
        }
    }

    fn link_of(&self, id: ConnectionId) -> Option<Link> {
        let (link, _) = self
            .links
            .iter()
            .find(|(_, connection)| connection.id == id && connection.state != State::Backoff)?;
        Some(*link)
    }
}

impl<T> Connection<T> {
    fn put_in_flight(
        &mut self,
        token: T,
        request: Request,
        deadline: SimTime,
        effects: &mut Effects,
    ) {
        let correlation = self.next_correlation;
        self.next_correlation += 1;
        let is_long_poll = matches!(request, Request::Fetch(_));
        effects.request(self.id, correlation, request);
        self.in_flight.push_back(InFlight { token, correlation, deadline, is_long_poll });
    }

    /// Sets the timer, unless it fires by then. It is not moved when a response comes: when it
    /// fires early it is set again, which costs less than moving it with every request.
    fn arm_timeout(&mut self, link: Link, deadline: SimTime, effects: &mut Effects) {
        if self.timeout_at.is_none_or(|at| at > deadline) {
            self.timeout_at = Some(deadline);
            effects.set_timer(Timer::Client(ClientTimer::RequestTimeout(link)), deadline);
        }
    }
}

/// Takes what waited for too long.
fn take_expired<T>(
    waiting: &mut VecDeque<Waiting<T>>,
    now: SimTime,
) -> impl Iterator<Item = Outcome<T>> {
    let (expired, left) = std::mem::take(waiting)
        .into_iter()
        .partition::<VecDeque<_>, _>(|waiting| waiting.deadline <= now);
    *waiting = left;
    expired.into_iter().map(|waiting| Outcome::Failed {
        token: waiting.token,
        was_sent: false,
        timed_out: true,
    })
}
