//! Connections that others opened: one request at a time, in order, like Kafka's muted channels.
//!
//! Kafka does not read from a muted channel, so it does not see either that the other end has
//! closed it: what was sent before is read, and carried out, when the request in hand is over.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use crate::node::{ConnectionId, CorrelationId, Effects};
use crate::protocol::{Request, Response};

/// Who waits for a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) connection: ConnectionId,
    pub(super) correlation: CorrelationId,
}

/// The connections that others opened, and the requests that wait on them.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: BTreeMap<ConnectionId, Connection>,
    /// Requests whose turn it is.
    ready: VecDeque<(Caller, Box<Request>)>,
}

#[derive(Debug, Default)]
struct Connection {
    /// Which request is handled now.
    current: Option<CorrelationId>,
    /// Those behind it.
    queue: VecDeque<(CorrelationId, Box<Request>)>,
    /// The other end has closed it, and there are requests left.
    is_closed: bool,
    /// How many member ids were given out on it: a part of their cause.
    member_ids: u32,
}

impl Connections {
    /// Takes a request that arrived.
    pub(super) fn arrived(
        &mut self,
        connection: ConnectionId,
        correlation: CorrelationId,
        request: Box<Request>,
    ) {
        let state = self.open.entry(connection).or_default();
        if state.current.is_none() {
            state.current = Some(correlation);
            self.ready.push_back((Caller { connection, correlation }, request));
        } else {
            state.queue.push_back((correlation, request));
        }
    }

    /// The next request to handle.
    pub(super) fn next(&mut self) -> Option<(Caller, Box<Request>)> {
        self.ready.pop_front()
    }

    /// Answers a request; nothing happens if its connection is closed by now.
    pub(super) fn respond(&mut self, caller: Caller, response: Response, effects: &mut Effects) {
        if self.done(caller) {
            effects.respond(caller.connection, caller.correlation, response);
        }
    }

    /// Ends a request without a response, so that the next of its connection has its turn. Returns
    /// whether the connection is open.
    pub(super) fn done(&mut self, caller: Caller) -> bool {
        let Entry::Occupied(mut state) = self.open.entry(caller.connection) else { return false };
        if state.get().current != Some(caller.correlation) {
            // The connection was closed, and a request that was late has come over it since.
            debug_assert!(
                state.get().current.is_none_or(|current| current > caller.correlation),
                "responses are given in the order of the requests"
            );
            return false;
        }
        let next = state.get_mut().queue.pop_front();
        state.get_mut().current = next.as_ref().map(|(correlation, _)| *correlation);
        let is_open = !state.get().is_closed;
        match next {
            Some((correlation, request)) => {
                self.ready.push_back((Caller { correlation, ..caller }, request));
            }
            None if is_open => {}
            None => drop(state.remove()),
        }
        is_open
    }

    /// The other end has closed a connection. If there are requests behind the one in hand, it is
    /// forgotten after them, and `true` is returned; else it is to be forgotten now.
    pub(super) fn closed(&mut self, connection: ConnectionId) -> bool {
        if let Some(state) = self.open.get_mut(&connection)
            && state.current.is_some()
            && !state.queue.is_empty()
        {
            state.is_closed = true;
            return true;
        }
        false
    }

    /// Forgets a connection and what waits on it.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        self.open.remove(&connection);
        self.ready.retain(|(caller, _)| caller.connection != connection);
    }

    /// Counts the member ids that were given out on a connection.
    pub(super) fn count_member_id(&mut self, connection: ConnectionId) -> u32 {
        let Some(state) = self.open.get_mut(&connection) else { return 0 };
        state.member_ids += 1;
        state.member_ids
    }
}
