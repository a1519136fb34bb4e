//! Faults: what is done to brokers, the controller, and links from outside.

use std::time::Duration;

use bus_core::{Error, ErrorKind, Result};

use crate::choice::Label;
use crate::event::{Change, Place, SimEventKind};
use crate::fact::Fact;
use crate::node::{BrokerId, Effect, Effects, Input, NodeId};

use super::{Endpoint, Event, Rule, World};

impl World {
    /// Crashes a broker: its memory is gone, its connections break. If its machine loses power, so
    /// does what was not on disk.
    pub(crate) fn crash_broker(&mut self, id: BrokerId, loses_power: bool) {
        let what = if loses_power { "loses power" } else { "crashes" };
        self.note(format!("broker-{id} {what}"));
        let change = if loses_power { Change::PowerLost } else { Change::Crashed };
        self.record_change(Place::Broker(id), change);
        let (node, now) = (NodeId::Broker(id), self.now);
        let slot = self.broker_mut(id);
        if !slot.is_up {
            return;
        }
        slot.broker.check_coordinators(now);
        slot.is_up = false;
        slot.is_shutting_down = false;
        slot.inbox = None;
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
        self.record_change(Place::Broker(id), Change::ShuttingDown);
        let now = self.now;
        // One that stands still is told when it goes on, if it is asked again.
        if !self.broker(id).is_up || self.is_frozen(NodeId::Broker(id)) {
            return;
        }
        let slot = self.broker_mut(id);
        (slot.is_shutting_down, slot.starts_again) = (true, false);
        let mut effects = std::mem::take(&mut self.effects);
        self.broker_mut(id).broker.begin_shutdown(now, &mut effects);
        self.carry_out(NodeId::Broker(id), &mut effects);
        self.effects = effects;
    }

    /// A broker has shut down: its connections close, and what it sent before still arrives.
    pub(super) fn stop_broker(&mut self, id: BrokerId) {
        self.note(format!("broker-{id} stops"));
        self.record_change(Place::Broker(id), Change::Stopped);
        let (node, now) = (NodeId::Broker(id), self.now);
        let slot = self.broker_mut(id);
        slot.is_up = false;
        slot.broker.check_coordinators(now);
        slot.broker.stop(now);
        slot.is_shutting_down = false;
        let starts_again = std::mem::take(&mut slot.starts_again);
        self.queue.cancel_timers_of(node);
        for connection in self.network.connections_of(node) {
            self.disconnect(connection, node);
        }
        if starts_again {
            self.restart_broker(id);
        }
    }

    /// Crashes the active controller: sessions and requests in hand are lost. The other controllers
    /// elect the next, which has the same log.
    pub(crate) fn crash_controller(&mut self) {
        self.note("controller crashes".to_owned());
        self.record_change(Place::Controller, Change::Crashed);
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
        let describe = || format!("crash {cause} of the controller");
        let more = self.choices.below(Label::ControllerElection, cause, bound, describe);
        let wait = broker.controller_quorum_fetch_timeout + Duration::from_nanos(more);
        self.controller_is_up = false;
        let crashed = self.recorder.current;
        self.queue.push(self.now + wait, Event::Elected { crashes: cause, cause: crashed });
    }

    /// The controllers elected the next active one, unless that has crashed too.
    pub(super) fn controller_elected(&mut self, crashes: u32) {
        if crashes == self.controller_crashes {
            self.controller_is_up = true;
            self.note("controller elected".to_owned());
            self.record_change(Place::Controller, Change::Started);
            self.start_node(NodeId::Controller);
        }
    }

    /// Starts a crashed broker.
    pub(crate) fn restart_broker(&mut self, id: BrokerId) {
        self.note(format!("broker-{id} starts"));
        self.record_change(Place::Broker(id), Change::Started);
        if !std::mem::replace(&mut self.broker_mut(id).is_up, true) {
            self.start_node(NodeId::Broker(id));
        }
    }

    /// Starts a broker that is down, and one that is shutting down, once it is.
    pub(super) fn bring_up(&mut self, id: BrokerId) {
        let slot = self.broker_mut(id);
        if slot.is_shutting_down {
            slot.starts_again = true;
        } else if !slot.is_up {
            self.restart_broker(id);
        }
    }

    /// Lets a broker stand still: what reaches it waits, and so do its timers; its machine still
    /// accepts connections. Returns whether it was moving.
    pub(crate) fn freeze_broker(&mut self, id: BrokerId) -> bool {
        self.note(format!("broker-{id} freezes"));
        self.record_change(Place::Broker(id), Change::Paused);
        let slot = self.broker_mut(id);
        let is_moving = slot.is_up && slot.inbox.is_none();
        if is_moving {
            slot.inbox = Some(Vec::new());
        }
        is_moving
    }

    /// Lets a broker go on that stands still: it handles what has waited, in order.
    pub(crate) fn thaw_broker(&mut self, id: BrokerId) {
        let Some(waiting) = self.broker_mut(id).inbox.take() else { return };
        self.note(format!("broker-{id} thaws"));
        self.record_change(Place::Broker(id), Change::Resumed);
        let node = NodeId::Broker(id);
        // What it handles first may take a timer back that came due meanwhile.
        let waiting = waiting.into_iter().map(|(input, arrived)| match input {
            Input::Timer(timer) => {
                let number = self.queue.set_timer(node, timer.clone(), self.now, arrived);
                (Input::Timer(timer), arrived, Some(number))
            }
            input => (input, arrived, None),
        });
        for (input, arrived, number) in waiting.collect::<Vec<_>>() {
            self.recorder.current = arrived;
            let is_gone = match (&input, number) {
                (Input::Timer(timer), Some(number)) => !self.queue.take_timer(node, timer, number),
                _ => false,
            };
            if !is_gone && self.broker(id).is_up {
                self.handle(node, input);
            }
        }
    }

    /// Whether a node is a broker that stands still.
    pub(super) fn is_frozen(&self, node: NodeId) -> bool {
        match node {
            NodeId::Broker(id) => self.broker(id).inbox.is_some(),
            NodeId::Controller | NodeId::Client(_) => false,
        }
    }

    /// Keeps what reaches a broker that stands still.
    pub(super) fn keep_waiting(&mut self, id: BrokerId, input: Input) {
        if let Some(director) = &mut self.director {
            director.stood_still(id);
        }
        let arrived = self.recorder.current;
        if let Some(inbox) = &mut self.broker_mut(id).inbox {
            inbox.push((input, arrived));
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
        self.record_links(&[(a, b), (b, a)], SimEventKind::Cut);
        self.network.cut(a, b);
        self.network.cut(b, a);
    }

    /// Cuts a link in one direction.
    pub(crate) fn cut_one_way(&mut self, from: Endpoint, to: Endpoint) {
        self.note(format!("link {from:?} to {to:?} is cut"));
        self.record_links(&[(from, to)], SimEventKind::Cut);
        self.network.cut(from, to);
    }

    /// Whether a broker is up.
    pub(crate) fn is_broker_up(&self, id: BrokerId) -> bool {
        self.broker(id).is_up
    }

    /// Elects the preferred leaders that are in sync. Returns whether one was elected.
    pub(crate) fn elect_preferred(&mut self) -> bool {
        self.note("preferred leaders are elected".to_owned());
        if !self.controller_is_up {
            return false;
        }
        let mut effects = std::mem::take(&mut self.effects);
        self.controller.elect_preferred(self.now, &mut effects);
        let is_leader = |effect: &Effect| matches!(effect, Effect::Fact(Fact::Leader { .. }));
        let has_elected = effects.list.iter().any(is_leader);
        self.carry_out(NodeId::Controller, &mut effects);
        self.effects = effects;
        has_elected
    }

    /// Heals some links, each in one direction.
    pub(super) fn mend(&mut self, links: &[(Endpoint, Endpoint)]) {
        self.record_links(links, SimEventKind::Mended);
        for (at, event) in self.network.mend(links, self.now) {
            self.queue.push(at, event);
        }
    }

    /// Heals all links.
    pub(crate) fn heal(&mut self) {
        self.note("links heal".to_owned());
        self.record_healed();
        for (at, event) in self.network.heal(self.now) {
            self.queue.push(at, event);
        }
    }

    /// Does something to messages that match.
    pub(crate) fn add_rule(&mut self, rule: Rule) {
        self.network.add_rule(rule);
    }
}
