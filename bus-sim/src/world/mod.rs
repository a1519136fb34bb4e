//! The world: nodes, the queue of events between them, the network, and the trace. It owns time.
//!
//! The loop: take the next event, let its node handle it, and turn each effect into events.

mod network;
mod process;
mod queue;
mod trace;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{Error, ErrorKind, Result};

use crate::broker::{Broker, Controller, bootstrap};
use crate::choice::{Label, choice, choice_below};
use crate::client::{ClientMachine, Completion};
use crate::config::SimConfig;
use crate::digest::Digest;
use crate::node::{BrokerId, ClientId, ConnectionId, Effect, Effects, Input, NodeId, Timer};
use crate::time::SimTime;

pub(crate) use network::{Action, Direction, Endpoint, Rule};
use network::{Message, Network, Verdict, message_of};
pub(crate) use process::{MAIN, Process, ProcessId, ProcessState};
use queue::Queue;
use trace::Trace;
pub use trace::TraceHash;

/// Something that happens at a time.
#[derive(Debug)]
pub(crate) enum Event {
    /// A node handles an input; the digest is that of the message.
    Input { node: NodeId, input: Input, digest: u64 },
    /// A connection request arrives at its destination.
    Syn { connection: ConnectionId },
    /// A timer of a node comes.
    Timer { node: NodeId, timer: Timer },
    /// The next active controller is elected, unless the active one crashed again.
    Elected { crashes: u32 },
}

/// The simulated world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) config: Arc<SimConfig>,
    now: SimTime,
    queue: Queue,
    network: Network,
    trace: Trace,
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
    effects: Effects,
    ids_made: u64,
}

#[derive(Debug)]
struct BrokerSlot {
    broker: Broker,
    is_up: bool,
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
    pub(crate) fn new(config: SimConfig) -> Self {
        let config = Arc::new(config);
        let (controller, brokers) = bootstrap(&config);
        let mut world = Self {
            now: SimTime::ZERO,
            queue: Queue::default(),
            network: Network::new(config.seed, config.latency_min, config.latency_max),
            trace: Trace::new(config.record_trace),
            controller,
            controller_is_up: true,
            controller_crashes: 0,
            brokers: brokers.into_iter().map(|broker| BrokerSlot { broker, is_up: true }).collect(),
            clients: Vec::new(),
            processes: vec![Process::new("main")],
            process_ids: BTreeMap::from([("main".to_owned(), MAIN)]),
            completions: Vec::new(),
            effects: Effects::default(),
            ids_made: 0,
            config,
        };
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

    /// The lines of the trace, if they were kept.
    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take_lines()
    }

    /// Outcomes to hand over.
    pub(crate) fn take_completions(&mut self) -> Vec<Completion> {
        std::mem::take(&mut self.completions)
    }

    /// Whether there are outcomes to hand over.
    pub(crate) fn has_completions(&self) -> bool {
        !self.completions.is_empty()
    }

    /// Lets time pass to `to`, if no event is before it.
    pub(crate) fn advance(&mut self, to: SimTime) {
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
            Event::Input { node, input, digest } => self.deliver(node, input, digest),
            Event::Syn { connection } => self.accept(connection),
            Event::Timer { node, timer } => {
                let digest = Digest::of(&timer);
                self.deliver(node, Input::Timer(timer), digest);
            }
            Event::Elected { crashes } => self.controller_elected(crashes),
        }
        true
    }

    /// A new number of 64 random bits for an id of the application.
    pub(crate) fn random_id(&mut self, process: ProcessId) -> (u64, u64) {
        self.ids_made += 1;
        let cause = (process, self.ids_made);
        let draw = |half: u8| choice(self.config.seed, Label::ApplicationId, (cause, half));
        (draw(0), draw(1))
    }

    fn start_node(&mut self, node: NodeId) {
        self.handle(node, Input::Start);
    }

    /// A message or timer reaches its node, unless connection or node are gone.
    fn deliver(&mut self, node: NodeId, input: Input, digest: u64) {
        if let Some(message) = message_of(&input, digest)
            && !self.network.is_open(message.connection, message.direction)
        {
            return;
        }
        let kind = std::mem::discriminant(&input);
        self.trace.add(self.now, (node, kind, digest), || describe(node, &input, digest));
        match node {
            NodeId::Broker(id) if !self.broker(id).is_up => {}
            NodeId::Controller if !self.controller_is_up => {}
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
            process.inbox.push((id, input));
        } else {
            self.handle(NodeId::Client(id), input);
        }
    }

    /// Lets a node handle an input and carries out what it wants.
    fn handle(&mut self, node: NodeId, input: Input) {
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
    }

    fn carry_out(&mut self, node: NodeId, effects: &mut Effects) {
        let mut stops = false;
        for effect in effects.list.drain(..) {
            match effect {
                Effect::Connect { connection, to } => self.connect(connection, to),
                Effect::Disconnect { connection } => self.disconnect(connection, node),
                Effect::Request { connection, correlation, request } => {
                    let Some(to) = self.network.destination(connection) else { continue };
                    let digest = request.digest();
                    self.transmit(to, Input::Request { connection, correlation, request }, digest);
                }
                Effect::Respond { connection, correlation, response } => {
                    let digest = response.digest();
                    self.transmit(
                        connection.owner,
                        Input::Response { connection, correlation, response },
                        digest,
                    );
                }
                Effect::SetTimer { timer, at } => {
                    self.queue.set_timer(node, timer, at.max(self.now));
                }
                Effect::CancelTimer { timer } => self.queue.cancel_timer(node, &timer),
                Effect::Complete(completion) => self.completions.push(completion),
                Effect::Fact(fact) => {
                    self.trace.add(self.now, &fact, || format!("{node} ! {fact}"));
                }
                Effect::Stop => stops = true,
            }
        }
        if stops && let NodeId::Broker(id) = node {
            self.stop_broker(id);
        }
    }

    fn connect(&mut self, connection: ConnectionId, to: NodeId) {
        let link = (self.endpoint(connection.owner), self.endpoint(to));
        let name = self.name_of(connection.owner);
        self.network.open(connection, to, link, name);
        let message = Message { connection, direction: Direction::Request, api: None, digest: 0 };
        match self.network.send(self.now, &message) {
            Verdict::Deliver(at) => self.queue.push(at, Event::Syn { connection }),
            Verdict::Held => self.network.hold(&message, Event::Syn { connection }),
            Verdict::Reset | Verdict::Discard => {}
        }
    }

    /// A connection request arrives: it is accepted by a node that is up, and refused otherwise.
    fn accept(&mut self, connection: ConnectionId) {
        let Some(to) = self.network.destination(connection) else { return };
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
        self.queue
            .push(at, Event::Input { node, input: Input::Disconnected { connection }, digest });
    }

    fn transmit(&mut self, to: NodeId, input: Input, digest: u64) {
        let Some(message) = message_of(&input, digest) else { return };
        let event = Event::Input { node: to, input, digest };
        match self.network.send(self.now, &message) {
            Verdict::Deliver(at) => self.queue.push(at, event),
            Verdict::Held => self.network.hold(&message, event),
            Verdict::Reset => {
                let lost = message.connection;
                self.trace.add(self.now, ("lost", digest), || format!("network x {lost:?}"));
                self.reset(lost);
            }
            Verdict::Discard => {}
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

    fn broker(&self, id: BrokerId) -> &BrokerSlot {
        &self.brokers[broker_index(id)]
    }

    fn broker_mut(&mut self, id: BrokerId) -> &mut BrokerSlot {
        &mut self.brokers[broker_index(id)]
    }
}

/// Clients and processes.
impl World {
    /// Adds a client to a process and starts it.
    pub(crate) fn add_client(
        &mut self,
        process: ProcessId,
        make: impl FnOnce(NodeId, u64) -> ClientMachine,
    ) -> ClientId {
        let id = ClientId::try_from(self.clients.len()).unwrap_or(ClientId::MAX);
        let owner = &mut self.processes[process];
        let ordinal = owner.clients_made;
        owner.clients_made += 1;
        let name = Digest::of(&(owner.name.as_str(), owner.incarnation, ordinal));
        let machine = make(NodeId::Client(id), name);
        self.clients.push(ClientSlot { machine, process, name, is_alive: true });
        self.start_node(NodeId::Client(id));
        id
    }

    /// Gives a client something to do. Nothing happens if it is dead.
    pub(crate) fn with_client<T>(
        &mut self,
        id: ClientId,
        act: impl FnOnce(&mut ClientMachine, SimTime, &mut Effects) -> T,
    ) -> Option<T> {
        let slot = &mut self.clients[id as usize];
        if !slot.is_alive {
            return None;
        }
        let mut effects = std::mem::take(&mut self.effects);
        let result = act(&mut slot.machine, self.now, &mut effects);
        self.carry_out(NodeId::Client(id), &mut effects);
        self.effects = effects;
        Some(result)
    }

    /// Ends a client: its connections close, its timers stop.
    pub(crate) fn remove_client(&mut self, id: ClientId) {
        let slot = &mut self.clients[id as usize];
        if !slot.is_alive {
            return;
        }
        slot.is_alive = false;
        let node = NodeId::Client(id);
        self.queue.cancel_timers_of(node);
        for connection in self.network.connections_of(node) {
            self.disconnect(connection, node);
        }
    }

    /// Adds a process that runs.
    pub(crate) fn add_process(&mut self, name: &str) -> Result<ProcessId> {
        if self.process_ids.contains_key(name) {
            let message = format!("process {name:?} exists already; restart it instead");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let id = self.processes.len();
        self.processes.push(Process::new(name));
        self.process_ids.insert(name.to_owned(), id);
        Ok(id)
    }

    /// The process of that name.
    pub(crate) fn process_id(&self, name: &str) -> Result<ProcessId> {
        self.process_ids.get(name).copied().ok_or_else(|| {
            let known = self.process_ids.keys().cloned().collect::<Vec<_>>().join(", ");
            let message = format!("no process {name:?}; there are {known}");
            Error::new(ErrorKind::InvalidArgument, message)
        })
    }

    /// A process.
    pub(crate) fn process(&self, id: ProcessId) -> &Process {
        &self.processes[id]
    }

    /// Crashes a process: its clients are dead, their calls never complete.
    pub(crate) fn crash_process(&mut self, id: ProcessId) {
        self.note(format!("process {} crashes", self.processes[id].name));
        let process = &mut self.processes[id];
        process.state = ProcessState::Crashed;
        process.inbox.clear();
        for client in 0..self.clients.len() {
            if self.clients[client].process == id {
                self.remove_client(ClientId::try_from(client).unwrap_or(ClientId::MAX));
            }
        }
    }

    /// Starts a crashed process again, as its next incarnation.
    pub(crate) fn restart_process(&mut self, id: ProcessId) {
        self.note(format!("process {} restarts", self.processes[id].name));
        let process = &mut self.processes[id];
        process.state = ProcessState::Running;
        process.incarnation += 1;
        process.clients_made = 0;
    }

    /// Pauses a process: what reaches it waits.
    pub(crate) fn pause_process(&mut self, id: ProcessId) {
        self.note(format!("process {} pauses", self.processes[id].name));
        self.processes[id].state = ProcessState::Paused;
    }

    /// Resumes a paused process: it handles what has waited.
    pub(crate) fn resume_process(&mut self, id: ProcessId) {
        self.note(format!("process {} resumes", self.processes[id].name));
        self.processes[id].state = ProcessState::Running;
        for (client, input) in std::mem::take(&mut self.processes[id].inbox) {
            self.deliver_to_client(client, input);
        }
    }

    /// Who waits for what, for the report of a stall.
    pub(crate) fn waiting(&self) -> String {
        let waiting = self.clients.iter().filter(|slot| slot.is_alive).filter_map(|slot| {
            let what = slot.machine.waiting()?;
            Some(format!("process {}: {what}", self.processes[slot.process].name))
        });
        let waiting = waiting.collect::<Vec<_>>();
        if waiting.is_empty() {
            "no call on the bus, so the application waits for something else".to_owned()
        } else {
            waiting.join("; ")
        }
    }

    fn note(&mut self, line: String) {
        self.trace.add(self.now, &line, || line.clone());
    }
}

/// Faults.
impl World {
    /// Crashes a broker: its memory is gone, its connections break. If its machine loses power, so
    /// does what was not on disk.
    pub(crate) fn crash_broker(&mut self, id: BrokerId, loses_power: bool) {
        let what = if loses_power { "loses power" } else { "crashes" };
        self.note(format!("broker-{id} {what}"));
        let (node, now) = (NodeId::Broker(id), self.now);
        let slot = self.broker_mut(id);
        if !slot.is_up {
            return;
        }
        slot.broker.check_coordinators(now);
        slot.is_up = false;
        let mut effects = Effects::default();
        if loses_power {
            slot.broker.lose_power(now, &mut effects);
        } else {
            slot.broker.crash(now);
        }
        self.carry_out(node, &mut effects);
        self.queue.cancel_timers_of(node);
        for connection in self.network.connections_of(node) {
            self.reset(connection);
        }
    }

    /// Begins a controlled shutdown of a broker; nothing happens if it is down.
    pub(crate) fn shut_down_broker(&mut self, id: BrokerId) {
        self.note(format!("broker-{id} shuts down"));
        let now = self.now;
        if !self.broker(id).is_up {
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        self.broker_mut(id).broker.begin_shutdown(now, &mut effects);
        self.carry_out(NodeId::Broker(id), &mut effects);
        self.effects = effects;
    }

    /// A broker has shut down: its connections close, and what it sent before still arrives.
    fn stop_broker(&mut self, id: BrokerId) {
        self.note(format!("broker-{id} stops"));
        let (node, now) = (NodeId::Broker(id), self.now);
        let slot = self.broker_mut(id);
        slot.is_up = false;
        slot.broker.check_coordinators(now);
        slot.broker.stop(now);
        self.queue.cancel_timers_of(node);
        for connection in self.network.connections_of(node) {
            self.disconnect(connection, node);
        }
    }

    /// Crashes the active controller: sessions and requests in hand are lost. The other controllers
    /// elect the next, which has the same log.
    pub(crate) fn crash_controller(&mut self) {
        self.note("controller crashes".to_owned());
        let node = NodeId::Controller;
        self.controller.crash();
        self.queue.cancel_timers_of(node);
        for connection in self.network.connections_of(node) {
            self.reset(connection);
        }
        self.controller_crashes += 1;
        let broker = &self.config.broker;
        let most = broker.controller_quorum_election_backoff_max.as_nanos();
        let bound = u64::try_from(most).unwrap_or(u64::MAX - 1) + 1;
        let cause = self.controller_crashes;
        let more = choice_below(self.config.seed, Label::ControllerElection, cause, bound);
        let wait = broker.controller_quorum_fetch_timeout + Duration::from_nanos(more);
        self.controller_is_up = false;
        self.queue.push(self.now + wait, Event::Elected { crashes: cause });
    }

    /// The controllers elected the next active one, unless that has crashed too.
    fn controller_elected(&mut self, crashes: u32) {
        if crashes == self.controller_crashes {
            self.controller_is_up = true;
            self.note("controller elected".to_owned());
            self.start_node(NodeId::Controller);
        }
    }

    /// Starts a crashed broker.
    pub(crate) fn restart_broker(&mut self, id: BrokerId) {
        self.note(format!("broker-{id} starts"));
        if !std::mem::replace(&mut self.broker_mut(id).is_up, true) {
            self.start_node(NodeId::Broker(id));
        }
    }

    /// Checks that there is such a broker.
    pub(crate) fn check_broker(&self, id: BrokerId) -> Result<()> {
        if (1..=self.config.brokers).contains(&id) {
            return Ok(());
        }
        let message = format!("no broker {id}; there are 1 to {}", self.config.brokers);
        Err(Error::new(ErrorKind::InvalidArgument, message))
    }

    /// Cuts a link in both directions.
    pub(crate) fn cut(&mut self, a: Endpoint, b: Endpoint) {
        self.note(format!("link {a:?} {b:?} is cut"));
        self.network.cut(a, b);
        self.network.cut(b, a);
    }

    /// Cuts a link in one direction.
    pub(crate) fn cut_one_way(&mut self, from: Endpoint, to: Endpoint) {
        self.note(format!("link {from:?} to {to:?} is cut"));
        self.network.cut(from, to);
    }

    /// Whether a broker is up.
    pub(crate) fn is_broker_up(&self, id: BrokerId) -> bool {
        self.broker(id).is_up
    }

    /// Elects the preferred leaders that are in sync.
    pub(crate) fn elect_preferred(&mut self) {
        self.note("preferred leaders are elected".to_owned());
        if !self.controller_is_up {
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        self.controller.elect_preferred(self.now, &mut effects);
        self.carry_out(NodeId::Controller, &mut effects);
        self.effects = effects;
    }

    /// Heals all links.
    pub(crate) fn heal(&mut self) {
        self.note("links heal".to_owned());
        for (at, event) in self.network.heal(self.now) {
            self.queue.push(at, event);
        }
    }

    /// Does something to the next message that matches.
    pub(crate) fn add_rule(&mut self, rule: Rule) {
        self.network.add_rule(rule);
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
