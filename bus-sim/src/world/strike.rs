//! Strikes: what the faults of the plan do to the world, when the director says so.
//!
//! It happens between two events. A response that is ready when its request makes a fault due is
//! withheld until the fault has struck, so that a fault can come between an append and its
//! acknowledgment.

use std::sync::Arc;

use bus_core::TopicPartition;

use crate::fault::{Envelope, Fault, FaultReport, Messages, Party, Planned, Stage, Struck, Target};
use crate::node::{BrokerId, ConnectionId, CorrelationId, Effect, Effects, Input, NodeId};
use crate::protocol::Api;

use super::director::{Director, Due, Held, Seen};
use super::network::Message;
use super::{
    Action, ClientSlot, Direction, Endpoint, Event, MAIN, Process, ProcessChange, ProcessId,
    ProcessState, Rule, Side, Withheld, World,
};

/// What the director is told, and what it holds back.
impl World {
    /// What came of the faults of the plan.
    pub(crate) fn fault_reports(&self) -> Vec<FaultReport> {
        let reports = self.director.iter().flat_map(|director| director.reports());
        let explained = reports.map(|(planned, mut report)| {
            self.commits.explain(planned, &mut report);
            report
        });
        explained.collect()
    }

    /// Tells the director how far a request has come. Returns whether that makes a fault due.
    pub(super) fn notice(&mut self, stage: Stage, api: Api, from: NodeId, to: NodeId) -> bool {
        let Some(director) = &mut self.director else { return false };
        let from = seen(from, &self.clients, &self.processes);
        let to = seen(to, &self.clients, &self.processes);
        director.request(stage, api, from, to)
    }

    /// A request is sent: rules for messages that it makes due are in time for it.
    pub(super) fn notice_sent(&mut self, api: Api, from: NodeId, to: NodeId) {
        if self.notice(Stage::Sent, api, from, to) {
            while let Some(index) = self.director.as_mut().and_then(|director| director.next_rule())
            {
                self.strike(index);
            }
        }
    }

    /// Requests were handled: the responses of those that make a fault due are to be withheld.
    pub(super) fn notice_handled(&mut self, node: NodeId, effects: &Effects) {
        for effect in &effects.list {
            if let Effect::Handled { connection, correlation, api } = effect
                && self.notice(Stage::Handled, *api, connection.owner, node)
            {
                self.withhold.push((*connection, *correlation));
            }
        }
    }

    /// Whether a response that is ready has to wait until a fault has struck.
    pub(super) fn is_withheld(
        &mut self,
        api: Api,
        node: NodeId,
        (connection, correlation): (ConnectionId, CorrelationId),
    ) -> bool {
        let is_due = self.notice(Stage::Answered, api, connection.owner, node);
        // A connection keeps its order: behind a response that waits, others wait, too.
        let is_behind = |withheld: &Withheld| match withheld.input {
            Input::Response { connection: at, .. } => at == connection,
            _ => false,
        };
        is_due
            || self.withhold.contains(&(connection, correlation))
            || self.withheld.iter().any(is_behind)
    }

    /// Prepares for the plan of the configuration.
    pub(super) fn follow_plan(&mut self) {
        let config = Arc::clone(&self.config);
        if let Some(at) = config.plan.quiesce_at {
            self.queue.push(at, Event::Quiesce);
        }
        let Some((director, timed)) = Director::new(&config.plan, config.record_choices) else {
            return;
        };
        self.director = Some(director);
        for (at, due) in timed {
            self.queue.push(at, Event::Fault(due));
        }
    }

    /// Keeps a message until its link heals.
    pub(super) fn hold(&mut self, message: &Message, event: Event) {
        if let (Some(director), Some(link)) = (&mut self.director, self.network.link(message)) {
            director.held_back(link);
        }
        self.network.hold(message, event);
    }

    /// Tells the director of a rule that a message matched.
    pub(super) fn rule_matched(&mut self) {
        let matched = self.network.take_matched();
        if let (Some((index, is_over)), Some(director)) = (matched, &mut self.director) {
            director.changed(index);
            if is_over {
                director.end(index, self.now);
            }
        }
    }

    /// A process is at a crash point. Returns whether it has crashed now.
    pub(crate) fn reached(&mut self, name: &str, point: &str) -> bool {
        self.record_reached(name, point);
        if let Some(director) = &mut self.director {
            director.reached(name, point);
            self.strike_due();
        }
        self.process_ids
            .get(name)
            .is_some_and(|id| self.processes[*id].state == ProcessState::Crashed)
    }

    /// Does what is due, and sends the responses that waited for it.
    pub(crate) fn strike_due(&mut self) {
        if self.director.is_none() {
            return;
        }
        while let Some(due) = self.director.as_mut().and_then(|director| director.next_due()) {
            match due {
                Due::Strike(index) => self.strike(index),
                Due::End(index) => self.end(index),
            }
        }
        self.send_withheld();
    }

    fn send_withheld(&mut self) {
        for withheld in std::mem::take(&mut self.withheld) {
            if self.is_frozen(withheld.from) {
                self.withheld.push(withheld);
            } else {
                self.recorder.current = withheld.cause;
                // If its node is down by now, so is the connection.
                self.transmit(withheld.to, withheld.input, withheld.digest);
            }
        }
    }
}

/// Strikes and their ends.
impl World {
    fn strike(&mut self, index: usize) {
        let found = self.director.as_ref().and_then(|director| director.to_strike(index));
        let Some(planned) = found else { return };
        let found = self.find(&planned.fault);
        let allowed = found.and_then(|found| self.is_tolerated(&planned).map(|()| found));
        let (on, held, has_changed) = match allowed {
            Ok((on, brokers)) => {
                self.note_fault(&planned, &on);
                let (held, has_changed) = self.inflict(index, &planned, &brokers);
                (on, held, has_changed)
            }
            Err(nobody) => {
                self.note_fault(&planned, &nobody);
                (nobody, Held::Nothing, false)
            }
        };
        let struck = Struck { at: self.now, event: self.trace.events(), on, has_changed };
        let Some(director) = &mut self.director else { return };
        for (at, due) in director.struck(index, struck, held) {
            self.queue.push(at, Event::Fault(due));
        }
    }

    fn note_fault(&mut self, planned: &Planned, on: &str) {
        let Planned { id, fault, .. } = planned;
        self.note(format!("fault {id} strikes {} {on}", fault.kind().name()));
    }

    /// Finds out whom a fault strikes: for people, and the brokers by number.
    fn find(&self, fault: &Fault) -> Result<(String, Vec<BrokerId>), String> {
        let targets = fault.targets();
        let brokers = targets.into_iter().map(|target| self.resolve(target));
        let brokers = brokers.collect::<Result<Vec<_>, _>>()?;
        if let [a, b] = brokers.as_slice()
            && a == b
        {
            return Err(format!("nobody: both are broker-{a}"));
        }
        let mut on: Vec<String> = brokers.iter().map(|id| format!("broker-{id}")).collect();
        match fault {
            Fault::CutProcess(name, _)
            | Fault::ResetConnections(name, _)
            | Fault::CrashProcess(name)
            | Fault::PauseProcess(name)
            | Fault::StallProcess(name) => {
                self.process_id(name).map_err(|_| format!("nobody: no process {name:?}"))?;
                on.insert(0, name.clone());
            }
            Fault::LoseRequest(messages)
            | Fault::LoseResponse(messages)
            | Fault::DelayRequest(messages, _)
            | Fault::DelayResponse(messages, _) => {
                self.sides(messages)?;
                on.push(messages.api.name().to_owned());
            }
            Fault::CrashController | Fault::ElectPreferred => on.push("controller".to_owned()),
            fault => {
                if let Some((name, database)) = fault.commits_of() {
                    self.process_id(name).map_err(|_| format!("nobody: no process {name:?}"))?;
                    on.push(format!("{name} at {database}"));
                }
            }
        }
        Ok((on.join(" "), brokers))
    }

    /// Checks that a fault is within the envelope of the plan.
    fn is_tolerated(&self, planned: &Planned) -> Result<(), String> {
        let fault = &planned.fault;
        if self.config.plan.envelope == Envelope::Beyond {
            return Ok(());
        }
        if planned.slows_brokers(self.config.broker_session_timeout() / 4) {
            return Err("nobody: brokers that are slow for so long are as good as away".to_owned());
        }
        if !fault.takes_broker_away() {
            return Ok(());
        }
        let away = (1..=self.config.brokers).find(|id| {
            let slot = self.broker(*id);
            let is_known =
                slot.broker.epoch().is_some_and(|epoch| self.controller.is_registered(*id, epoch));
            !slot.is_up || slot.is_shutting_down || slot.inbox.is_some() || !is_known
        });
        if let Some(id) = away {
            return Err(format!("nobody: broker-{id} is away, one more is not tolerated"));
        }
        if self.network.is_cluster_cut() {
            return Err("nobody: a link of the cluster is cut, more is not tolerated".to_owned());
        }
        let loses_power = matches!(fault, Fault::LosePower(_));
        for (topic_partition, state) in self.controller.partitions() {
            if state.in_sync_replicas.len() < state.replicas.len() {
                let why = "has replicas out of sync, more is not tolerated";
                return Err(format!("nobody: {topic_partition} {why}"));
            }
            if loses_power && state.replicas.len() == 1 {
                return Err(format!("nobody: {topic_partition} has one replica"));
            }
        }
        Ok(())
    }

    /// The broker that a target means now.
    fn resolve(&self, target: &Target) -> Result<BrokerId, String> {
        let partition = |topic, partition: &i32| {
            let topic_partition = TopicPartition::new(topic, *partition);
            let state = self.controller.partition(&topic_partition);
            state.ok_or_else(|| format!("nobody: there is no {topic_partition}"))
        };
        match target {
            Target::Broker(id) => Ok(*id),
            Target::Leader(topic, number) => partition(topic, number)?
                .leader
                .ok_or_else(|| format!("nobody: {topic}-{number} has no leader")),
            Target::Follower(topic, number) => {
                let state = partition(topic, number)?;
                let mut others =
                    state.replicas.iter().copied().filter(|id| Some(*id) != state.leader);
                let in_sync = others.clone().find(|id| state.in_sync_replicas.contains(id));
                let found = in_sync.or_else(|| others.next());
                found.ok_or_else(|| format!("nobody: {topic}-{number} has no follower"))
            }
            Target::GroupCoordinator(group) => self
                .controller
                .group_coordinator(group)
                .ok_or_else(|| format!("nobody: group {group} has no coordinator")),
            Target::TransactionCoordinator(id) => self
                .controller
                .transaction_coordinator(id)
                .ok_or_else(|| format!("nobody: {id} has no coordinator")),
        }
    }

    /// Does what a fault does. Returns what it holds, and whether anything changed.
    fn inflict(&mut self, index: usize, planned: &Planned, brokers: &[BrokerId]) -> (Held, bool) {
        match &planned.fault {
            Fault::CrashBroker(_) => self.fell(brokers[0], |world, id| {
                world.crash_broker(id, false);
            }),
            Fault::LosePower(_) => self.fell(brokers[0], |world, id| world.crash_broker(id, true)),
            Fault::ShutDownBroker(_) => self.fell(brokers[0], Self::shut_down_broker),
            Fault::FreezeBroker(_) if self.freeze_broker(brokers[0]) => {
                (Held::Frozen(brokers[0]), false)
            }
            Fault::FreezeBroker(_) => (Held::Nothing, false),
            Fault::IsolateBroker(_)
            | Fault::CutBrokers(..)
            | Fault::CutOneWay(..)
            | Fault::CutFromController(_)
            | Fault::CutProcess(..) => {
                let links = self.links(&planned.fault, brokers);
                for (from, to) in &links {
                    self.cut_one_way(*from, *to);
                }
                (Held::Links(links), false)
            }
            Fault::ResetConnections(name, _) => {
                let process = self.process_ids.get(name).copied().unwrap_or(MAIN);
                (Held::Nothing, self.reset_link(process, brokers[0]))
            }
            Fault::CrashController => {
                let was_up = self.controller_is_up;
                self.crash_controller();
                (Held::Nothing, was_up)
            }
            Fault::ElectPreferred => (Held::Nothing, self.elect_preferred()),
            Fault::LoseRequest(messages) => {
                self.lay_down(index, planned, messages, Direction::Request, Action::Lose)
            }
            Fault::LoseResponse(messages) => {
                self.lay_down(index, planned, messages, Direction::Response, Action::Lose)
            }
            Fault::DelayRequest(messages, by) => {
                self.lay_down(index, planned, messages, Direction::Request, Action::Delay(*by))
            }
            Fault::DelayResponse(messages, by) => {
                self.lay_down(index, planned, messages, Direction::Response, Action::Delay(*by))
            }
            Fault::CrashProcess(name) => self.stop_process(name, ProcessChange::Crashed),
            Fault::PauseProcess(name) => self.stop_process(name, ProcessChange::Paused),
            Fault::StallProcess(name) => self.stop_process(name, ProcessChange::Stalled),
            Fault::RefuseCommit(..)
            | Fault::LoseCommit(..)
            | Fault::LoseCommitAnswer(..)
            | Fault::DelayCommit(..) => {
                self.commits.lay_down(index, planned);
                (Held::Rule, false)
            }
        }
    }

    fn fell(&mut self, id: BrokerId, act: impl FnOnce(&mut Self, BrokerId)) -> (Held, bool) {
        let was_up = self.is_broker_up(id);
        act(self, id);
        (if was_up { Held::Down(id) } else { Held::Nothing }, was_up)
    }

    fn stop_process(&mut self, name: &str, change: ProcessChange) -> (Held, bool) {
        let Some(id) = self.process_ids.get(name).copied().filter(|id| *id != MAIN) else {
            return (Held::Nothing, false);
        };
        let Process { state, incarnation, .. } = self.processes[id];
        let held = match (change, state) {
            (_, ProcessState::Crashed) => return (Held::Nothing, false),
            (ProcessChange::Crashed, _) => {
                self.crash_process(id);
                Held::Crashed(id, incarnation)
            }
            (ProcessChange::Paused, ProcessState::Running) => {
                self.pause_process(id);
                Held::Paused(id, incarnation)
            }
            (ProcessChange::Stalled, ProcessState::Running) => {
                self.stall_process(id);
                Held::Paused(id, incarnation)
            }
            _ => return (Held::Nothing, false),
        };
        self.process_changes.push((id, change));
        (held, true)
    }

    /// Makes a rule for messages.
    fn lay_down(
        &mut self,
        index: usize,
        planned: &Planned,
        messages: &Messages,
        direction: Direction,
        action: Action,
    ) -> (Held, bool) {
        let Ok((from, to)) = self.sides(messages) else { return (Held::Nothing, false) };
        let is_once = planned.until.is_none();
        let fault = Some(index);
        self.add_rule(Rule { api: messages.api, direction, from, to, action, fault, is_once });
        (Held::Rule, false)
    }

    fn sides(&self, messages: &Messages) -> Result<(Side, Side), String> {
        let side = |party: Option<&Party>| -> Result<Side, String> {
            Ok(match party {
                None => Side::Anybody,
                Some(Party::AnyBroker) => Side::AnyBroker,
                Some(Party::AnyProcess) => Side::AnyProcess,
                Some(Party::Broker(id)) => Side::Is(Endpoint::Broker(*id)),
                Some(Party::Controller) => Side::Is(Endpoint::Controller),
                Some(Party::Process(name)) => {
                    let id = self.process_id(name);
                    Side::Is(Endpoint::Process(
                        id.map_err(|_| format!("nobody: no process {name:?}"))?,
                    ))
                }
            })
        };
        Ok((side(messages.from.as_ref())?, side(messages.to.as_ref())?))
    }

    /// The links that a fault cuts, each in one direction.
    fn links(&self, fault: &Fault, brokers: &[BrokerId]) -> Vec<(Endpoint, Endpoint)> {
        let broker = Endpoint::Broker(brokers[0]);
        let both = |other| [(broker, other), (other, broker)];
        match fault {
            Fault::IsolateBroker(_) => {
                let others = (1..=self.config.brokers).filter(|id| *id != brokers[0]);
                let others = others.map(Endpoint::Broker).chain([Endpoint::Controller]);
                others.flat_map(both).collect()
            }
            Fault::CutBrokers(..) => both(Endpoint::Broker(brokers[1])).into(),
            Fault::CutOneWay(..) => vec![(broker, Endpoint::Broker(brokers[1]))],
            Fault::CutFromController(_) => both(Endpoint::Controller).into(),
            Fault::CutProcess(name, _) => {
                let process = self.process_ids.get(name).copied().unwrap_or(MAIN);
                both(Endpoint::Process(process)).into()
            }
            _ => Vec::new(),
        }
    }

    /// Resets the connections between a process and a broker. Returns whether there was one.
    fn reset_link(&mut self, process: ProcessId, id: BrokerId) -> bool {
        let mut found = self.network.connections_of(NodeId::Broker(id));
        found.retain(|connection| self.endpoint(connection.owner) == Endpoint::Process(process));
        for connection in &found {
            self.reset(*connection);
        }
        !found.is_empty()
    }

    fn end(&mut self, index: usize) {
        let now = self.now;
        let ended = self.director.as_mut().and_then(|director| director.end(index, now));
        let Some((id, held)) = ended else { return };
        self.note(format!("fault {id} ends"));
        let Some(director) = &self.director else { return };
        match held {
            Held::Nothing => {}
            // Another fault that struck since then keeps it down.
            Held::Down(_) if director.holds(|other| *other == held) => {}
            Held::Down(id) => self.bring_up(id),
            Held::Frozen(id) => self.thaw_broker(id),
            Held::Links(mut links) => {
                links.retain(|link| {
                    !director.holds(|other| match other {
                        Held::Links(others) => others.contains(link),
                        _ => false,
                    })
                });
                self.mend(&links);
            }
            Held::Rule => {
                self.network.remove_rules(Some(index));
                self.commits.remove_rules(Some(index));
            }
            Held::Crashed(id, incarnation) | Held::Paused(id, incarnation) => {
                if self.processes[id].incarnation == incarnation {
                    self.go_on(id);
                }
            }
        }
    }

    /// Restarts a process that has crashed, resumes one that is paused.
    fn go_on(&mut self, id: ProcessId) {
        let change = match self.processes[id].state {
            ProcessState::Running => return,
            ProcessState::Paused | ProcessState::Stalled => ProcessChange::Resumed,
            ProcessState::Crashed => ProcessChange::Restarted,
        };
        match change {
            ProcessChange::Restarted => self.restart_process(id),
            _ => self.resume_process(id),
        }
        self.process_changes.push((id, change));
    }

    /// Heals everything, and lets no fault of the plan strike any more.
    pub(crate) fn quiesce(&mut self) {
        self.note("quiesce".to_owned());
        if let Some(director) = &mut self.director {
            director.quiesce(self.now);
        }
        self.network.remove_rules(None);
        self.commits.remove_rules(None);
        self.heal();
        for id in 1..=self.config.brokers {
            self.thaw_broker(id);
            self.bring_up(id);
        }
        for id in 1..self.processes.len() {
            self.go_on(id);
        }
    }
}

fn seen<'a>(node: NodeId, clients: &[ClientSlot], processes: &'a [Process]) -> Seen<'a> {
    match node {
        NodeId::Controller => Seen::Controller,
        NodeId::Broker(id) => Seen::Broker(id),
        NodeId::Client(id) => Seen::Process(&processes[clients[id as usize].process].name),
    }
}
