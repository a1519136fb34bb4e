//! What every node of the world is: a state machine without input or output of its own.
//!
//! A node handles an [`Input`] at a time and writes what shall happen next into [`Effects`]. It
//! sees no clock, no randomness, no network, and no other node. Read this file first.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::Arc;

use crate::broker::BrokerTimer;
use crate::client::{ClientTimer, Completion};
use crate::fact::Fact;
use crate::protocol::{Api, Request, Response};
use crate::time::SimTime;
use crate::world::CallRecord;

/// The id of a broker, from 1.
pub type BrokerId = i32;

/// The number of a client in the world, in the order of their making.
pub type ClientId = u32;

/// A node of the world.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeId {
    /// The controller: one, outside of the brokers.
    Controller,
    /// A broker.
    Broker(BrokerId),
    /// A producer, consumer, or administration client.
    Client(ClientId),
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller => f.write_str("controller"),
            Self::Broker(id) => write!(f, "broker-{id}"),
            Self::Client(id) => write!(f, "client-{id}"),
        }
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A connection, named by the node that opened it. A node never uses a number twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Who opened it.
    pub owner: NodeId,
    /// The how-manieth of that node it is.
    pub ordinal: u32,
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.owner, self.ordinal)
    }
}

/// The number of a request on its connection.
pub type CorrelationId = u32;

/// Something that happens to a node.
#[derive(Debug)]
pub enum Input {
    /// The node starts, or starts again after a crash.
    Start,
    /// A request arrived on a connection that another node opened.
    Request {
        /// The connection.
        connection: ConnectionId,
        /// Its number, for the response.
        correlation: CorrelationId,
        /// The request.
        request: Box<Request>,
    },
    /// A response arrived on a connection that this node opened.
    Response {
        /// The connection.
        connection: ConnectionId,
        /// The number of the request.
        correlation: CorrelationId,
        /// The response.
        response: Box<Response>,
    },
    /// A connection that this node opened is established.
    Connected {
        /// The connection.
        connection: ConnectionId,
    },
    /// A connection was refused, reset, or closed by the other side. Requests without a response
    /// have none now; whether they were handled is unknown.
    Disconnected {
        /// The connection.
        connection: ConnectionId,
    },
    /// A timer that this node set has come.
    Timer(Timer),
}

/// A timer of a node, named by what it is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// Of a broker or of the controller.
    Broker(BrokerTimer),
    /// Of a client.
    Client(ClientTimer),
}

/// What a node wants done, in order.
#[derive(Debug, Default)]
pub struct Effects {
    pub(crate) list: Vec<Effect>,
    /// What the application did, if events are recorded.
    pub(crate) call: Option<CallRecord>,
    is_recording: bool,
}

/// One thing that a node wants done.
#[derive(Debug)]
pub(crate) enum Effect {
    Connect { connection: ConnectionId, to: NodeId },
    Disconnect { connection: ConnectionId },
    Request { connection: ConnectionId, correlation: CorrelationId, request: Box<Request> },
    Respond { connection: ConnectionId, correlation: CorrelationId, response: Box<Response> },
    SetTimer { timer: Timer, at: SimTime },
    CancelTimer { timer: Timer },
    Complete(Completion),
    Fact(Fact),
    Handled { connection: ConnectionId, correlation: CorrelationId, api: Api },
    Stop,
}

impl Effects {
    /// Effects that keep what the application did, if events are recorded.
    pub(crate) fn recording(is_recording: bool) -> Self {
        Self { is_recording, ..Self::default() }
    }

    /// Says what the application did, for the record of events.
    pub(crate) fn record(&mut self, call: impl FnOnce() -> CallRecord) {
        if self.is_recording {
            self.call = Some(call());
        }
    }

    /// Opens a connection to a node that accepts them (a broker, the controller). Answered by
    /// [`Input::Connected`] or [`Input::Disconnected`].
    pub fn connect(&mut self, connection: ConnectionId, to: NodeId) {
        self.list.push(Effect::Connect { connection, to });
    }

    /// Closes a connection from either side. What was sent on it before still arrives.
    pub fn disconnect(&mut self, connection: ConnectionId) {
        self.list.push(Effect::Disconnect { connection });
    }

    /// Sends a request on a connection that this node opened. Requests of one connection arrive in
    /// their order or not at all.
    pub fn request(
        &mut self,
        connection: ConnectionId,
        correlation: CorrelationId,
        request: Request,
    ) {
        self.list.push(Effect::Request { connection, correlation, request: Box::new(request) });
    }

    /// Answers a request.
    pub fn respond(
        &mut self,
        connection: ConnectionId,
        correlation: CorrelationId,
        response: Response,
    ) {
        self.list.push(Effect::Respond { connection, correlation, response: Box::new(response) });
    }

    /// Sets a timer, in place of the one of that name.
    pub fn set_timer(&mut self, timer: Timer, at: SimTime) {
        self.list.push(Effect::SetTimer { timer, at });
    }

    /// Takes a timer back; nothing happens if it is not set.
    pub fn cancel_timer(&mut self, timer: Timer) {
        self.list.push(Effect::CancelTimer { timer });
    }

    /// Hands an outcome to the application.
    pub(crate) fn complete(&mut self, completion: Completion) {
        self.list.push(Effect::Complete(completion));
    }

    /// Ends a broker in good order, after all else that it wants done.
    pub fn stop(&mut self) {
        self.list.push(Effect::Stop);
    }

    /// Tells that a request was handled for the first time, whether or not it is answered by now.
    /// For the plan of faults: no node sees it.
    pub(crate) fn handled(
        &mut self,
        connection: ConnectionId,
        correlation: CorrelationId,
        api: Api,
    ) {
        self.list.push(Effect::Handled { connection, correlation, api });
    }

    /// Records what is true now, for the trace and the explanations: no node sees it.
    pub fn fact(&mut self, fact: Fact) {
        self.list.push(Effect::Fact(fact));
    }
}

/// A name that many messages share. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
