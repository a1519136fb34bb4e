//! The world: nodes, the queue of events between them, the network, and the trace. It owns time.
//!
//! The loop: take the next event, let its node handle it, and turn each effect into events.

mod commits;
mod detail;
mod director;
mod faults;
mod network;
mod process;
mod queue;
mod record;
mod strike;
mod trace;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::broker::{Broker, Controller, bootstrap};
use crate::choice::{Choices, Label};
use crate::client::{ClientMachine, Completion};
use crate::config::SimConfig;
use crate::digest::Digest;
use crate::event::EventSeq;
use crate::fact::ToldFact;
use crate::fault::Stage;
use crate::node::{
    BrokerId, ClientId, ConnectionId, CorrelationId, Effect, Effects, Input, NodeId, Timer,
};
use crate::time::SimTime;

use commits::Commits;
use director::{Director, Due};
pub(crate) use network::{Action, Direction, Endpoint, Rule, Side};
use network::{Message, Network, Verdict, message_of};
pub(crate) use process::{MAIN, Process, ProcessChange, ProcessId, ProcessState};
use queue::Queue;
pub(crate) use record::CallRecord;
use record::{NONE, Recorder};
use trace::Trace;
pub use trace::TraceHash;

/// Something that happens at a time. Its cause is an event of the record; see [`record`].
#[derive(Debug)]
pub(crate) enum Event {
    /// A node handles an input; the digest is that of the message.
    Input { node: NodeId, input: Input, digest: u64, cause: EventSeq },
    /// A connection request arrives at its destination.
    Syn { connection: ConnectionId, cause: EventSeq },
    /// A timer of a node comes.
    Timer { node: NodeId, timer: Timer, cause: EventSeq },
    /// The next active controller is elected, unless the active one crashed again.
    Elected { crashes: u32, cause: EventSeq },
    /// A fault of the plan strikes or ends.
    Fault(Due),
    /// Everything heals.
    Quiesce,
}

/// The simulated world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) config: Arc<SimConfig>,
    pub(crate) choices: Choices,
    now: SimTime,
    queue: Queue,
    network: Network,
    trace: Trace,
    recorder: Recorder,
    controller: Controller,
    controller_is_up: bool,
    /// How often the active controller has crashed.
    controller_crashes: u32,
    brokers: Vec<BrokerSlot>,
    clients: Vec<ClientSlot>,
    processes: Vec<Process>,
    process_ids: BTreeMap<String, ProcessId>,
    /// Outcomes for the application, to be handed over once the world is unlocked.
    completions: Vec<Completion>,
    /// What faults of the plan did to processes, to be told to their tasks.
    process_changes: Vec<(ProcessId, ProcessChange)>,
    /// None without a plan.
    director: Option<Box<Director>>,
    commits: Commits,
    /// Requests whose responses are withheld if they are ready at once.
    withhold: Vec<(ConnectionId, CorrelationId)>,
    /// Responses that are sent once what is due has struck.
    withheld: Vec<Withheld>,
    effects: Effects,
    ids_made: u64,
}

#[derive(Debug)]
struct BrokerSlot {
    broker: Broker,
    is_up: bool,
    is_shutting_down: bool,
    /// Whether it starts again once it has shut down.
    starts_again: bool,
    /// What waits for a broker that stands still; none for one that does not.
    inbox: Option<Vec<(Input, EventSeq)>>,
}

impl BrokerSlot {
    const fn up(broker: Broker) -> Self {
        Self { broker, is_up: true, is_shutting_down: false, starts_again: false, inbox: None }
    }
}

/// A response that is ready.
#[derive(Debug)]
struct Withheld {
    from: NodeId,
    to: NodeId,
    input: Input,
    digest: u64,
    cause: EventSeq,
}

#[derive(Debug)]
struct ClientSlot {
    machine: ClientMachine,
    process: ProcessId,
    /// The hash of process, incarnation, and number there: the client's name in choices.
    name: u64,
    is_alive: bool,
}

impl World {
    pub(crate) fn new(config: SimConfig, choices: Choices) -> Self {
        let config = Arc::new(config);
        let (controller, brokers) = bootstrap(&config, &choices);
        let mut world = Self {
            now: SimTime::ZERO,
            queue: Queue::default(),
            network: Network::new(&config, &choices),
            trace: Trace::new(&config),
            recorder: Recorder::new(config.record_events),
            controller,
            controller_is_up: true,
            controller_crashes: 0,
            brokers: brokers.into_iter().map(BrokerSlot::up).collect(),
            clients: Vec::new(),
            processes: vec![Process::new("main")],
            process_ids: BTreeMap::from([("main".to_owned(), MAIN)]),
            completions: Vec::new(),
            process_changes: Vec::new(),
            director: None,
            commits: Commits::default(),
            withhold: Vec::new(),
            withheld: Vec::new(),
            effects: Effects::recording(config.record_events),
            ids_made: 0,
            choices,
            config,
        };
        world.follow_plan();
        world.start_node(NodeId::Controller);
        for id in 1..=world.config.brokers {
            world.start_node(NodeId::Broker(id));
        }
        world
    }

    /// The time of the world.
    pub(crate) const fn now(&self) -> SimTime {
        self.now
    }

    /// When the next event is.
    pub(crate) fn next_time(&mut self) -> Option<SimTime> {
        self.queue.next_time()
    }

    /// How many events there were.
    pub(crate) const fn events(&self) -> u64 {
        self.trace.events()
    }

    /// The hash of all events so far.
    pub(crate) fn trace_hash(&self) -> TraceHash {
        self.trace.hash()
    }

    /// The facts, if they were kept.
    pub(crate) fn take_facts(&mut self) -> Vec<ToldFact> {
        self.trace.take_facts()
    }

    /// The lines of the trace, if they were kept.
    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take_lines()
    }

    /// Outcomes to hand over.
    pub(crate) fn take_completions(&mut self) -> Vec<Completion> {
        std::mem::take(&mut self.completions)
    }

    /// Whether there are outcomes to hand over, or processes to tell.
    pub(crate) fn has_completions(&self) -> bool {
        !self.completions.is_empty() || !self.process_changes.is_empty()
    }

    /// What faults of the plan did to processes since this was last asked.
    pub(crate) fn take_process_changes(&mut self) -> Vec<(ProcessId, ProcessChange)> {
        std::mem::take(&mut self.process_changes)
    }

    /// Lets time pass to `to`, if no event is before it.
    pub(crate) fn advance(&mut self, to: SimTime) {
        self.recorder.current = NONE;
        if to > self.now && self.next_time().is_none_or(|next| next > to) {
            self.now = to;
        }
    }

    /// Handles the next event, if it is not after `until`.
    pub(crate) fn step(&mut self, until: SimTime) -> bool {
        if self.next_time().is_none_or(|next| next > until) {
            return false;
        }
        let Some((at, event)) = self.queue.pop() else { return false };
        self.now = self.now.max(at);
        match event {
            Event::Input { node, input, digest, cause } => self.deliver(node, input, digest, cause),
            Event::Syn { connection, cause } => self.accept(connection, cause),
            Event::Timer { node, timer, cause } => {
                let digest = Digest::of(&timer);
                self.deliver(node, Input::Timer(timer), digest, cause);
            }
            Event::Elected { crashes, cause } => {
                self.recorder.current = cause;
                self.controller_elected(crashes);
            }
            Event::Fault(due) => {
                if let Some(director) = &mut self.director {
                    director.is_due(due);
                }
            }
            Event::Quiesce => self.quiesce(),
        }
        self.strike_due();
        true
    }

    /// A new number of 64 random bits for an id of the application.
    pub(crate) fn random_id(&mut self, process: ProcessId) -> (u64, u64) {
        self.ids_made += 1;
        let cause = (process, self.ids_made);
        let draw = |half: u8| self.choices.id(Label::ApplicationId, (cause, half));
        (draw(0), draw(1))
    }

    fn start_node(&mut self, node: NodeId) {
        self.record_start(node);
        self.handle(node, Input::Start);
    }

    /// A message or timer reaches its node, unless connection or node are gone.
    fn deliver(&mut self, node: NodeId, input: Input, digest: u64, cause: EventSeq) {
        if let Some(message) = message_of(&input, digest)
            && !self.network.is_open(message.connection, message.direction)
        {
            self.record_discarded(cause, node);
            return;
        }
        let kind = std::mem::discriminant(&input);
        self.trace.add(self.now, (node, kind, digest), || describe(node, &input, digest));
        let is_there = match node {
            NodeId::Client(id) => self.clients[id as usize].is_alive,
            NodeId::Broker(_) | NodeId::Controller => self.is_up(node),
        };
        if !is_there {
            self.record_discarded(cause, node);
            return;
        }
        self.record_input(cause, node, &input);
        match node {
            NodeId::Broker(id) if self.is_frozen(node) => self.keep_waiting(id, input),
            NodeId::Client(id) => self.deliver_to_client(id, input),
            NodeId::Broker(_) | NodeId::Controller => self.handle(node, input),
        }
    }

    fn deliver_to_client(&mut self, id: ClientId, input: Input) {
        let slot = &self.clients[id as usize];
        if !slot.is_alive {
            return;
        }
        let process = &mut self.processes[slot.process];
        if process.state == ProcessState::Paused {
            process.inbox.push((id, input, self.recorder.current));
        } else {
            self.handle(NodeId::Client(id), input);
        }
    }

    /// Lets a node handle an input and carries out what it wants.
    fn handle(&mut self, node: NodeId, input: Input) {
        let received = match &input {
            Input::Response { connection, response, .. } if self.director.is_some() => {
                self.network.destination(*connection).map(|from| (from, response.api()))
            }
            _ => None,
        };
        let mut effects = std::mem::take(&mut self.effects);
        match node {
            NodeId::Controller => self.controller.handle(self.now, input, &mut effects),
            NodeId::Broker(id) => {
                let now = self.now;
                self.broker_mut(id).broker.handle(now, input, &mut effects);
            }
            NodeId::Client(id) => {
                self.clients[id as usize].machine.handle(self.now, input, &mut effects);
            }
        }
        self.carry_out(node, &mut effects);
        self.effects = effects;
        if let Some((from, api)) = received {
            self.notice(Stage::Received, api, node, from);
        }
    }

    fn carry_out(&mut self, node: NodeId, effects: &mut Effects) {
        let mut stops = false;
        if self.director.is_some() {
            self.notice_handled(node, effects);
        }
        for effect in effects.list.drain(..) {
            match effect {
                Effect::Connect { connection, to } => self.connect(connection, to),
                Effect::Disconnect { connection } => self.disconnect(connection, node),
                Effect::Request { connection, correlation, request } => {
                    let Some(to) = self.network.destination(connection) else { continue };
                    self.notice_sent(request.api(), node, to);
                    let digest = request.digest();
                    self.transmit(to, Input::Request { connection, correlation, request }, digest);
                }
                Effect::Respond { connection, correlation, response } => {
                    let (digest, api) = (response.digest(), response.api());
                    let to = connection.owner;
                    let input = Input::Response { connection, correlation, response };
                    if self.is_withheld(api, node, (connection, correlation)) {
                        let cause = self.recorder.current;
                        self.withheld.push(Withheld { from: node, to, input, digest, cause });
                    } else {
                        self.transmit(to, input, digest);
                    }
                }
                Effect::SetTimer { timer, at } => {
                    let cause = self.recorder.current;
                    self.queue.set_timer(node, timer, at.max(self.now), cause);
                }
                Effect::CancelTimer { timer } => self.queue.cancel_timer(node, &timer),
                Effect::Complete(completion) => {
                    self.record_completion(node, &completion);
                    self.completions.push(completion);
                }
                Effect::Fact(fact) => {
                    if let Some(director) = &mut self.director {
                        director.fact(&fact);
                    }
                    let recorded = self.recorder.is_on().then(|| fact.clone());
                    self.trace.fact(self.now, node, fact);
                    // Now it has its number.
                    if let Some(fact) = recorded {
                        self.record_fact(node, fact);
                    }
                }
                Effect::Handled { .. } => {}
                Effect::Stop => stops = true,
            }
        }
        self.withhold.clear();
        if stops && let NodeId::Broker(id) = node {
            self.stop_broker(id);
        }
    }

    fn connect(&mut self, connection: ConnectionId, to: NodeId) {
        let link = (self.endpoint(connection.owner), self.endpoint(to));
        let name = self.name_of(connection.owner);
        self.network.open(connection, to, link, name);
        let message = Message { connection, direction: Direction::Request, api: None, digest: 0 };
        let verdict = self.network.send(self.now, &message);
        let mut event = Event::Syn { connection, cause: NONE };
        self.record_sent(to, &mut event, &verdict);
        match verdict {
            Verdict::Deliver(at) => self.queue.push(at, event),
            Verdict::Held => self.hold(&message, event),
            Verdict::Reset | Verdict::Discard => {}
        }
    }

    /// A connection request arrives: it is accepted by a node that is up, and refused otherwise.
    fn accept(&mut self, connection: ConnectionId, cause: EventSeq) {
        let Some(to) = self.network.destination(connection) else { return };
        self.record_syn(cause, to);
        if !self.is_up(to) {
            self.reset(connection);
            return;
        }
        self.network.accept(connection);
        self.transmit(connection.owner, Input::Connected { connection }, 1);
    }

    fn disconnect(&mut self, connection: ConnectionId, by: NodeId) {
        let Some(to) = self.network.destination(connection) else { return };
        let other = if by == connection.owner { to } else { connection.owner };
        if self.network.close(connection, by) {
            self.tell_disconnected(connection, other);
        }
    }

    /// Breaks a connection on both sides.
    fn reset(&mut self, connection: ConnectionId) {
        let Some((to, owner_open, other_open)) = self.network.remove(connection) else { return };
        if owner_open {
            self.tell_disconnected(connection, connection.owner);
        }
        if other_open {
            self.tell_disconnected(connection, to);
        }
    }

    fn tell_disconnected(&mut self, connection: ConnectionId, node: NodeId) {
        let at = self.now + self.config.latency_max;
        let digest = Digest::of(&connection);
        let (input, cause) = (Input::Disconnected { connection }, self.recorder.current);
        self.queue.push(at, Event::Input { node, input, digest, cause });
    }

    fn transmit(&mut self, to: NodeId, input: Input, digest: u64) {
        let Some(message) = message_of(&input, digest) else { return };
        let mut event = Event::Input { node: to, input, digest, cause: NONE };
        let verdict = self.network.send(self.now, &message);
        self.record_sent(to, &mut event, &verdict);
        match verdict {
            Verdict::Deliver(at) => self.queue.push(at, event),
            Verdict::Held => self.hold(&message, event),
            Verdict::Reset => {
                let lost = message.connection;
                self.trace.add(self.now, ("lost", digest), || format!("network x {lost:?}"));
                self.reset(lost);
            }
            Verdict::Discard => {}
        }
        if self.director.is_some() {
            self.rule_matched();
        }
    }

    fn endpoint(&self, node: NodeId) -> Endpoint {
        match node {
            NodeId::Controller => Endpoint::Controller,
            NodeId::Broker(id) => Endpoint::Broker(id),
            NodeId::Client(id) => Endpoint::Process(self.clients[id as usize].process),
        }
    }

    fn name_of(&self, node: NodeId) -> u64 {
        match node {
            NodeId::Client(id) => self.clients[id as usize].name,
            NodeId::Broker(_) | NodeId::Controller => Digest::of(&node),
        }
    }

    fn is_up(&self, node: NodeId) -> bool {
        match node {
            NodeId::Broker(id) => self.broker(id).is_up,
            NodeId::Controller => self.controller_is_up,
            NodeId::Client(_) => false,
        }
    }

    fn note(&mut self, line: String) {
        self.trace.add(self.now, &line, || line.clone());
        self.record_note(line);
    }

    fn broker(&self, id: BrokerId) -> &BrokerSlot {
        &self.brokers[broker_index(id)]
    }

    fn broker_mut(&mut self, id: BrokerId) -> &mut BrokerSlot {
        &mut self.brokers[broker_index(id)]
    }
}

fn broker_index(id: BrokerId) -> usize {
    usize::try_from(id - 1).unwrap_or(usize::MAX)
}

fn describe(node: NodeId, input: &Input, digest: u64) -> String {
    match input {
        Input::Start => format!("{node} start"),
        Input::Request { connection, correlation, request } => {
            format!("{node} <- {connection:?} {}/{correlation} {digest:016x}", request.api().name())
        }
        Input::Response { connection, correlation, response } => {
            let api = response.api().name();
            format!("{node} -> {connection:?} {api}/{correlation} {digest:016x}")
        }
        Input::Connected { connection } => format!("{node} connected {connection:?}"),
        Input::Disconnected { connection } => format!("{node} disconnected {connection:?}"),
        Input::Timer(Timer::Broker(timer)) => format!("{node} timer {timer:?}"),
        Input::Timer(Timer::Client(timer)) => format!("{node} timer {timer:?}"),
    }
}
