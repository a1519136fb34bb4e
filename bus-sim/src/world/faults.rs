//! Faults: what is done to brokers, the controller, and links from outside.

use std::time::Duration;

use bus_core::{Error, ErrorKind, Result};

use crate::choice::{Label, choice_below};
use crate::event::{Change, Place, SimEventKind};
use crate::node::{BrokerId, Effects, NodeId};

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
        if !self.broker(id).is_up {
            return;
        }
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
        self.queue.cancel_timers_of(node);
        for connection in self.network.connections_of(node) {
            self.disconnect(connection, node);
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
        let more = choice_below(self.config.seed, Label::ControllerElection, cause, bound);
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
        self.record_links(|world| world.cut_between(a, b, false));
        self.network.cut(a, b);
        self.network.cut(b, a);
    }

    /// Cuts a link in one direction.
    pub(crate) fn cut_one_way(&mut self, from: Endpoint, to: Endpoint) {
        self.note(format!("link {from:?} to {to:?} is cut"));
        self.record_links(|world| world.cut_between(from, to, true));
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
        self.record_links(|_| SimEventKind::Healed);
        for (at, event) in self.network.heal(self.now) {
            self.queue.push(at, event);
        }
    }

    /// Does something to the next message that matches.
    pub(crate) fn add_rule(&mut self, rule: Rule) {
        self.network.add_rule(rule);
    }
}
