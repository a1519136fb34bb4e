//! The network: connections between nodes, as TCP has them.
//!
//! - What is sent on a connection arrives in order, each message after a latency, or not at all.
//! - A cut link holds messages back; when it heals they arrive (TCP sends them again), unless the
//!   connection was reset meanwhile.
//! - Losing a message resets its connection: a lost *request* was never handled, a lost *response*
//!   belongs to a request that was.
//! - Closing a connection does not take back what was sent on it, so a delayed request can arrive
//!   after its retry on a new connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::choice::{Choices, Label};
use crate::config::SimConfig;
use crate::digest::Digest;
use crate::node::{BrokerId, ConnectionId, Input, NodeId};
use crate::protocol::Api;
use crate::time::SimTime;
use crate::world::{Event, ProcessId};

/// One side of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Endpoint {
    /// The controller.
    Controller,
    /// A broker.
    Broker(BrokerId),
    /// A process with all its clients.
    Process(ProcessId),
}

/// Which way a message goes on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// From the node that opened the connection.
    Request,
    /// To the node that opened the connection.
    Response,
}

/// What is done to messages that match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) api: Api,
    pub(crate) direction: Direction,
    /// Who sends the request.
    pub(crate) from: Side,
    /// Who handles the request.
    pub(crate) to: Side,
    pub(crate) action: Action,
    /// Which fault of the plan made it.
    pub(crate) fault: Option<usize>,
    /// Whether it is over with the first message that matches.
    pub(crate) is_once: bool,
}

/// Who may be at an end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Anybody,
    AnyBroker,
    AnyProcess,
    Is(Endpoint),
}

impl Side {
    fn fits(self, endpoint: Endpoint) -> bool {
        match self {
            Self::Anybody => true,
            Self::AnyBroker => matches!(endpoint, Endpoint::Broker(_)),
            Self::AnyProcess => matches!(endpoint, Endpoint::Process(_)),
            Self::Is(this) => this == endpoint,
        }
    }
}

/// What is done to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is lost, and its connection is reset.
    Lose,
    /// It takes this much longer, and what is behind it on the connection too.
    Delay(Duration),
}

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It arrives then.
    Deliver(SimTime),
    /// It is held until the link heals.
    Held,
    /// It is lost: reset the connection.
    Reset,
    /// The connection is closed; it goes nowhere.
    Discard,
}

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) connection: ConnectionId,
    pub(crate) direction: Direction,
    pub(crate) api: Option<Api>,
    pub(crate) digest: u64,
}

/// All connections and links.
#[derive(Debug)]
pub(crate) struct Network {
    choices: Choices,
    latency_min: Duration,
    /// How many nanoseconds above the least latency there can be, plus one.
    latency_spread: u64,
    connections: BTreeMap<ConnectionId, Connection>,
    cuts: BTreeSet<(Endpoint, Endpoint)>,
    rules: Vec<Rule>,
    /// The rule that matched last, if a fault of the plan made it: the fault, and whether it is
    /// over.
    matched: Option<(usize, bool)>,
    /// How often each message was sent: part of the cause of its latency, so that the same request
    /// sent again has a latency of its own.
    occurrences: BTreeMap<u64, u32>,
}

#[derive(Debug)]
struct Connection {
    to: NodeId,
    /// The endpoints of owner and other side.
    link: (Endpoint, Endpoint),
    /// A stable name of the owner, for choices.
    owner_name: u64,
    owner_open: bool,
    other_open: bool,
    /// No message arrives before the one ahead of it: request way, response way.
    last_arrival: [SimTime; 2],
    /// What waits for the link to heal: request way, response way.
    held: [Vec<Event>; 2],
}

impl Network {
    pub(crate) fn new(config: &SimConfig, choices: &Choices) -> Self {
        let spread = config.latency_max.saturating_sub(config.latency_min).as_nanos();
        Self {
            choices: choices.clone(),
            latency_min: config.latency_min,
            latency_spread: u64::try_from(spread).unwrap_or(u64::MAX - 1) + 1,
            connections: BTreeMap::new(),
            cuts: BTreeSet::new(),
            rules: Vec::new(),
            matched: None,
            occurrences: BTreeMap::new(),
        }
    }

    /// Opens a connection on its owner's side.
    pub(crate) fn open(
        &mut self,
        connection: ConnectionId,
        to: NodeId,
        link: (Endpoint, Endpoint),
        owner_name: u64,
    ) {
        let opened = Connection {
            to,
            link,
            owner_name,
            owner_open: true,
            other_open: false,
            last_arrival: [SimTime::ZERO; 2],
            held: [Vec::new(), Vec::new()],
        };
        let before = self.connections.insert(connection, opened);
        assert!(before.is_none(), "{connection:?} is used twice");
    }

    /// Marks a connection as accepted by the other side.
    pub(crate) fn accept(&mut self, connection: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.other_open = true;
        }
    }

    /// Where a connection leads to.
    pub(crate) fn destination(&self, connection: ConnectionId) -> Option<NodeId> {
        Some(self.connections.get(&connection)?.to)
    }

    /// Whether what arrives in that direction still finds an open end.
    pub(crate) fn is_open(&self, connection: ConnectionId, direction: Direction) -> bool {
        self.connections.get(&connection).is_some_and(|connection| match direction {
            Direction::Request => connection.other_open,
            Direction::Response => connection.owner_open,
        })
    }

    /// Closes one side; returns whether the other side is to be told.
    pub(crate) fn close(&mut self, connection: ConnectionId, by: NodeId) -> bool {
        let Some(open) = self.connections.get_mut(&connection) else { return false };
        let other_is_open = if by == connection.owner {
            open.owner_open = false;
            open.other_open
        } else {
            open.other_open = false;
            open.owner_open
        };
        if !other_is_open {
            self.connections.remove(&connection);
        }
        other_is_open
    }

    /// Removes a connection and what it held; for resets.
    pub(crate) fn remove(&mut self, connection: ConnectionId) -> Option<(NodeId, bool, bool)> {
        let removed = self.connections.remove(&connection)?;
        Some((removed.to, removed.owner_open, removed.other_open))
    }

    /// All connections that a node opened or accepted.
    pub(crate) fn connections_of(&self, node: NodeId) -> Vec<ConnectionId> {
        self.connections
            .iter()
            .filter(|(id, connection)| id.owner == node || connection.to == node)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Decides what becomes of a message that is sent now. `Held` asks for [`hold`](Self::hold).
    pub(crate) fn send(&mut self, now: SimTime, message: &Message) -> Verdict {
        let Some(connection) = self.connections.get(&message.connection) else {
            return Verdict::Discard;
        };
        let (link, name) = (connection.link, connection.owner_name);
        let mut extra = Duration::ZERO;
        match self.take_rule(message, link) {
            Some(Action::Lose) => return Verdict::Reset,
            Some(Action::Delay(by)) => extra = by,
            None => {}
        }
        if self.is_cut(link, message.direction) {
            return Verdict::Held;
        }
        let latency = self.latency(name, message) + extra;
        let Some(connection) = self.connections.get_mut(&message.connection) else {
            return Verdict::Discard;
        };
        let last = &mut connection.last_arrival[message.direction as usize];
        *last = (*last).max(now + latency);
        Verdict::Deliver(*last)
    }

    /// Keeps a message until its link heals.
    pub(crate) fn hold(&mut self, message: &Message, event: Event) {
        if let Some(connection) = self.connections.get_mut(&message.connection) {
            connection.held[message.direction as usize].push(event);
        }
    }

    /// Whether a link between brokers, or between one and the controller, is cut.
    pub(crate) fn is_cluster_cut(&self) -> bool {
        let is_process = |end: &Endpoint| matches!(end, Endpoint::Process(_));
        self.cuts.iter().any(|(from, to)| !is_process(from) && !is_process(to))
    }

    /// Cuts a link in one direction.
    pub(crate) fn cut(&mut self, from: Endpoint, to: Endpoint) {
        self.cuts.insert((from, to));
    }

    /// Heals some links, each in one direction, and returns what they held, in order, with when it
    /// arrives.
    pub(crate) fn mend(
        &mut self,
        links: &[(Endpoint, Endpoint)],
        now: SimTime,
    ) -> Vec<(SimTime, Event)> {
        for link in links {
            self.cuts.remove(link);
        }
        let mut released = Vec::new();
        for connection in self.connections.values_mut() {
            let (owner, other) = connection.link;
            let ways = [(owner, other), (other, owner)];
            let ends = connection.held.iter_mut().zip(&mut connection.last_arrival);
            for ((held, last), way) in ends.zip(ways) {
                if links.contains(&way) {
                    for event in held.drain(..) {
                        *last = (*last).max(now + self.latency_min);
                        released.push((*last, event));
                    }
                }
            }
        }
        released
    }

    /// The link of a connection, in the direction of a message.
    pub(crate) fn link(&self, message: &Message) -> Option<(Endpoint, Endpoint)> {
        let (owner, other) = self.connections.get(&message.connection)?.link;
        Some(match message.direction {
            Direction::Request => (owner, other),
            Direction::Response => (other, owner),
        })
    }

    /// Heals all links and returns what was held, in order, with when it arrives.
    pub(crate) fn heal(&mut self, now: SimTime) -> Vec<(SimTime, Event)> {
        self.cuts.clear();
        let mut released = Vec::new();
        let latency = self.latency_min;
        for connection in self.connections.values_mut() {
            for (held, last) in connection.held.iter_mut().zip(&mut connection.last_arrival) {
                for event in held.drain(..) {
                    *last = (*last).max(now + latency);
                    released.push((*last, event));
                }
            }
        }
        released
    }

    /// Does something to messages that match.
    pub(crate) fn add_rule(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    fn take_rule(&mut self, message: &Message, link: (Endpoint, Endpoint)) -> Option<Action> {
        if self.rules.is_empty() {
            return None;
        }
        let found = self.rules.iter().position(|rule| {
            Some(rule.api) == message.api
                && rule.direction == message.direction
                && rule.from.fits(link.0)
                && rule.to.fits(link.1)
        })?;
        let rule = self.rules[found];
        if rule.is_once {
            self.rules.remove(found);
        }
        self.matched = rule.fault.map(|fault| (fault, rule.is_once));
        Some(rule.action)
    }

    /// The fault of the plan whose rule matched since this was last asked, and whether it is over.
    pub(crate) fn take_matched(&mut self) -> Option<(usize, bool)> {
        self.matched.take()
    }

    /// Drops the rules that a fault of the plan made, or all.
    pub(crate) fn remove_rules(&mut self, fault: Option<usize>) {
        self.rules.retain(|rule| fault.is_some() && rule.fault != fault);
    }

    fn is_cut(&self, (owner, other): (Endpoint, Endpoint), direction: Direction) -> bool {
        !self.cuts.is_empty()
            && self.cuts.contains(&match direction {
                Direction::Request => (owner, other),
                Direction::Response => (other, owner),
            })
    }

    fn latency(&mut self, owner_name: u64, message: &Message) -> Duration {
        if self.latency_spread == 1 {
            return self.latency_min;
        }
        let sent = Digest::of(&(owner_name, message.direction, message.api, message.digest));
        let occurrence = self.occurrences.entry(sent).or_insert(0);
        *occurrence += 1;
        let cause = (sent, *occurrence);
        let describe = || describe(message, *occurrence);
        let nanos = self.choices.below(Label::Latency, cause, self.latency_spread, describe);
        self.latency_min + Duration::from_nanos(nanos)
    }
}

/// Names a message for people.
fn describe(message: &Message, occurrence: u32) -> String {
    let what = match (message.direction, message.api) {
        (Direction::Request, Some(api)) => format!("{} request", api.name()),
        (Direction::Response, Some(api)) => format!("{} response", api.name()),
        (_, None) => "connected".to_owned(),
    };
    format!("{:?} {what} {occurrence}", message.connection)
}

/// The message that carries an input, if it comes over a connection.
pub(crate) fn message_of(input: &Input, digest: u64) -> Option<Message> {
    let (connection, direction, api) = match input {
        Input::Request { connection, request, .. } => {
            (*connection, Direction::Request, Some(request.api()))
        }
        Input::Response { connection, response, .. } => {
            (*connection, Direction::Response, Some(response.api()))
        }
        Input::Connected { connection } => (*connection, Direction::Response, None),
        Input::Disconnected { .. } | Input::Start | Input::Timer(_) => return None,
    };
    Some(Message { connection, direction, api, digest })
}
