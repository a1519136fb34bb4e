//! The record of events with their causes; see [`crate::event`]. It changes nothing in the world,
//! and when it is off, nothing is kept or formatted.

use std::collections::BTreeMap;

use bus_core::{ErrorKind, Offset, Operation, Rebalance, TopicPartition};

use crate::client::Completion;
use crate::event::{Change, EventSeq, Fate, MessageKind, Place, SimEvent, SimEventKind};
use crate::fact::Fact;
use crate::fault::CommitFate;
use crate::node::{ConnectionId, Input, NodeId};
use crate::time::SimTime;

use super::detail::{batches, request_detail, response_detail};
use super::{Endpoint, Event, Verdict, World};

/// No event: the cause of what comes from outside, and every cause while nothing is recorded.
pub(super) const NONE: EventSeq = 0;

/// What was recorded so far.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    events: Option<Vec<SimEvent>>,
    /// What is handled now: the cause of all that comes of it.
    pub(super) current: EventSeq,
    /// What last woke a task that waits for a client: the cause of what it takes then.
    wakes: BTreeMap<NodeId, EventSeq>,
}

impl Recorder {
    /// A record that keeps events or nothing.
    pub(super) fn new(is_on: bool) -> Self {
        Self { events: is_on.then(Vec::new), current: NONE, wakes: BTreeMap::new() }
    }

    /// Whether it keeps events.
    pub(super) const fn is_on(&self) -> bool {
        self.events.is_some()
    }

    fn add(
        &mut self,
        (at, number): (SimTime, u64),
        cause: EventSeq,
        place: Place,
        kind: SimEventKind,
    ) -> EventSeq {
        let Some(events) = &mut self.events else { return NONE };
        let seq = events.len() as EventSeq + 1;
        let cause = (cause != NONE).then_some(cause);
        events.push(SimEvent { seq, number, at, cause, place, kind });
        seq
    }

    /// Says what became of a message.
    fn set_fate(&mut self, sent: EventSeq, becomes: Fate) {
        let index = usize::try_from(sent.wrapping_sub(1)).unwrap_or(usize::MAX);
        let event = self.events.as_mut().and_then(|events| events.get_mut(index));
        if let Some(SimEvent { kind: SimEventKind::Sent { fate, .. }, .. }) = event {
            *fate = becomes;
        }
    }
}

/// What the application asked a client, or took from it; told by the driver.
#[derive(Debug)]
pub(crate) enum CallRecord {
    /// A call.
    Called(Operation, String),
    /// What a call that waited took.
    Taken(String, Option<ErrorKind>),
    /// Records that a poll took.
    Polled(Vec<(TopicPartition, Offset, Offset)>),
    /// A rebalance that the application is to complete.
    Rebalance(Rebalance),
}

impl World {
    /// The recorded events, if they were asked for.
    pub(crate) fn take_recorded(&mut self) -> Vec<SimEvent> {
        self.recorder.events.take().unwrap_or_default()
    }

    /// Records what is caused by what is handled now.
    fn record(&mut self, node: NodeId, kind: impl FnOnce() -> SimEventKind) -> EventSeq {
        self.record_from(self.recorder.current, node, kind)
    }

    fn record_from(
        &mut self,
        cause: EventSeq,
        node: NodeId,
        kind: impl FnOnce() -> SimEventKind,
    ) -> EventSeq {
        if self.recorder.events.is_none() {
            return NONE;
        }
        let place = self.place_of(node);
        self.recorder.add((self.now, self.trace.events()), cause, place, kind())
    }

    fn place_of(&self, node: NodeId) -> Place {
        match node {
            NodeId::Controller => Place::Controller,
            NodeId::Broker(id) => Place::Broker(id),
            NodeId::Client(client) => {
                let process = &self.processes[self.clients[client as usize].process];
                let incarnation = process.incarnation;
                Place::Client { process: process.name.as_str().into(), incarnation, client }
            }
        }
    }

    /// Records what was done to the world from outside; what follows is caused by it.
    pub(super) fn record_note(&mut self, line: String) {
        if self.recorder.events.is_some() {
            let kind = SimEventKind::Note(line);
            let cause = self.recorder.current;
            self.recorder.current =
                self.recorder.add((self.now, self.trace.events()), cause, Place::World, kind);
        }
    }

    /// A process came to a crash point.
    pub(super) fn record_reached(&mut self, process: &str, point: &str) {
        if self.recorder.events.is_some() {
            let kind = SimEventKind::Reached(point.to_owned());
            let when = (self.now, self.trace.events());
            self.recorder.add(when, NONE, Place::Process(process.into()), kind);
        }
    }

    /// A process commits at a database outside of the bus.
    pub(super) fn record_commit(&mut self, process: &str, database: &str, fate: CommitFate) {
        if self.recorder.events.is_some() {
            let kind = SimEventKind::Commits { database: database.to_owned(), fate };
            let when = (self.now, self.trace.events());
            self.recorder.add(when, NONE, Place::Process(process.into()), kind);
        }
    }

    /// Says what the last note was about.
    pub(super) fn record_change(&mut self, place: Place, change: Change) {
        let last = self.recorder.events.as_mut().and_then(|events| events.last_mut());
        let Some(SimEvent { place: at, kind, .. }) = last else { return };
        if let SimEventKind::Note(line) = kind {
            *kind = SimEventKind::Changed(change, std::mem::take(line));
            *at = place;
        }
    }

    /// Says that the last note was about links.
    pub(super) fn record_links(
        &mut self,
        links: &[(Endpoint, Endpoint)],
        kind: impl FnOnce(Vec<(Place, Place)>) -> SimEventKind,
    ) {
        if self.recorder.events.is_none() || links.is_empty() {
            return;
        }
        let place = |endpoint: Endpoint| match endpoint {
            Endpoint::Controller => Place::Controller,
            Endpoint::Broker(id) => Place::Broker(id),
            Endpoint::Process(id) => Place::Process(self.processes[id].name.as_str().into()),
        };
        let links = links.iter().map(|(from, to)| (place(*from), place(*to))).collect();
        let last = self.recorder.events.as_mut().and_then(|events| events.last_mut());
        if let Some(SimEvent { kind: note @ SimEventKind::Note(_), .. }) = last {
            *note = kind(links);
        }
    }

    /// Says that the last note was that all links were healed.
    pub(super) fn record_healed(&mut self) {
        let last = self.recorder.events.as_mut().and_then(|events| events.last_mut());
        if let Some(SimEvent { kind: note @ SimEventKind::Note(_), .. }) = last {
            *note = SimEventKind::Healed;
        }
    }

    /// Records that a node starts; what follows is caused by it.
    pub(super) fn record_start(&mut self, node: NodeId) {
        let is_told =
            self.recorder.events.as_ref().and_then(|events| events.last()).is_some_and(|last| {
                last.seq == self.recorder.current
                    && matches!(last.kind, SimEventKind::Changed(Change::Started, _))
            });
        if is_told {
            return;
        }
        let kind = || SimEventKind::Changed(Change::Started, String::new());
        self.recorder.current = self.record(node, kind);
    }

    /// Records what reaches a node; what follows is caused by it.
    pub(super) fn record_input(&mut self, cause: EventSeq, node: NodeId, input: &Input) {
        let seq = self.record_from(cause, node, || match input {
            Input::Timer(timer) => SimEventKind::Timer(timer.clone()),
            Input::Disconnected { connection } => SimEventKind::Disconnected(*connection),
            Input::Start => SimEventKind::Changed(Change::Started, String::new()),
            Input::Request { .. } | Input::Response { .. } | Input::Connected { .. } => {
                SimEventKind::Arrived
            }
        });
        self.recorder.set_fate(cause, Fate::Arrived(seq));
        self.recorder.current = seq;
    }

    /// Records that a request for a connection reached a node.
    pub(super) fn record_syn(&mut self, cause: EventSeq, node: NodeId) {
        let seq = self.record_from(cause, node, || SimEventKind::Arrived);
        self.recorder.set_fate(cause, Fate::Arrived(seq));
        self.recorder.current = seq;
    }

    /// Records that a message found nobody.
    pub(super) fn record_discarded(&mut self, cause: EventSeq, node: NodeId) {
        let seq = self.record_from(cause, node, || SimEventKind::Discarded);
        self.recorder.set_fate(cause, Fate::Discarded(seq));
        self.recorder.current = seq;
    }

    /// Records that a message is sent, and names the record as the cause of its arrival.
    pub(super) fn record_sent(&mut self, to: NodeId, event: &mut Event, verdict: &Verdict) {
        if self.recorder.events.is_none() {
            return;
        }
        let connection = event.connection();
        let Some(connection) = connection else { return };
        let from = match self.network.destination(connection) {
            Some(other) if to == connection.owner => other,
            _ => connection.owner,
        };
        let (message, detail) = describe(event);
        let kind = SimEventKind::Sent {
            message,
            connection,
            to: self.place_of(to),
            detail,
            batches: batches(event),
            is_held: matches!(verdict, Verdict::Held),
            fate: match verdict {
                Verdict::Deliver(_) | Verdict::Held => Fate::UnderWay,
                Verdict::Reset | Verdict::Discard => Fate::Lost,
            },
        };
        event.set_cause(self.record(from, || kind));
    }

    /// Records a fact.
    pub(super) fn record_fact(&mut self, node: NodeId, fact: Fact) {
        self.record(node, || SimEventKind::Fact(fact));
    }

    /// Records what the application asked a client; what follows is caused by it. If it goes on
    /// with a call, the cause is what woke it.
    pub(super) fn record_call(&mut self, node: NodeId, call: Option<CallRecord>) {
        if self.recorder.events.is_none() {
            return;
        }
        self.recorder.current = self.recorder.wakes.get(&node).copied().unwrap_or(NONE);
        match call {
            Some(CallRecord::Called(operation, detail)) => {
                let kind = || SimEventKind::Called { operation, detail };
                self.recorder.current = self.record_from(NONE, node, kind);
            }
            Some(CallRecord::Taken(detail, error)) => {
                self.record(node, || SimEventKind::Returned { detail, error });
            }
            Some(CallRecord::Polled(spans)) => {
                self.record(node, || SimEventKind::Polled(spans));
            }
            Some(CallRecord::Rebalance(rebalance)) => {
                self.record(node, || SimEventKind::Rebalance(rebalance));
            }
            None => {}
        }
    }

    /// Records that a client ends, if nothing else ended it.
    pub(super) fn record_end(&mut self, node: NodeId) {
        if self.recorder.current == NONE {
            let kind = || SimEventKind::Changed(Change::Stopped, String::new());
            self.recorder.current = self.record(node, kind);
        }
    }

    /// Records an outcome for the application.
    pub(super) fn record_completion(&mut self, node: NodeId, completion: &Completion) {
        if self.recorder.events.is_none() {
            return;
        }
        let (detail, error) = match completion {
            Completion::Delivered(batch) => {
                let kind = SimEventKind::Delivered {
                    topic_partition: batch.topic_partition.clone(),
                    base_offset: batch.base_offset,
                    count: batch.records.len(),
                };
                self.record(node, || kind);
                return;
            }
            Completion::Undelivered(records) => {
                let error = records.first().map(|(_, error)| error.kind());
                (format!("failed ×{}", records.len()), error)
            }
            Completion::Committed(_, outcome) => {
                ("committed".to_owned(), outcome.as_ref().err().map(bus_core::Error::kind))
            }
            Completion::Reply(_) => ("answered".to_owned(), None),
            Completion::Wake(_) => {
                self.recorder.wakes.insert(node, self.recorder.current);
                return;
            }
        };
        self.record(node, || SimEventKind::Returned { detail, error });
    }
}

impl Event {
    /// The record that caused it.
    fn set_cause(&mut self, seq: EventSeq) {
        match self {
            Self::Input { cause, .. }
            | Self::Syn { cause, .. }
            | Self::Timer { cause, .. }
            | Self::Elected { cause, .. } => *cause = seq,
            // They come from outside, and no message is one of them.
            Self::Fault(_) | Self::Quiesce => {}
        }
    }

    fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::Syn { connection, .. }
            | Self::Input {
                input:
                    Input::Request { connection, .. }
                    | Input::Response { connection, .. }
                    | Input::Connected { connection },
                ..
            } => Some(*connection),
            Self::Input { .. }
            | Self::Timer { .. }
            | Self::Elected { .. }
            | Self::Fault(_)
            | Self::Quiesce => None,
        }
    }
}

fn describe(event: &Event) -> (MessageKind, String) {
    match event {
        Event::Input { input: Input::Request { request, .. }, .. } => {
            (MessageKind::Request(request.api()), request_detail(request))
        }
        Event::Input { input: Input::Response { response, .. }, .. } => {
            (MessageKind::Response(response.api()), response_detail(response))
        }
        Event::Syn { .. } => (MessageKind::Connect, String::new()),
        Event::Input { .. }
        | Event::Timer { .. }
        | Event::Elected { .. }
        | Event::Fault(_)
        | Event::Quiesce => (MessageKind::Accept, String::new()),
    }
}
