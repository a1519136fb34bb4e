//! Requests that any broker can answer: they go to one that is up. While none is, others are tried,
//! and the first that is up gets all of them.
//!
//! Simplified: of several brokers that are up and hold no long poll one is drawn; librdkafka takes
//! the one that it used last.

use std::time::Duration;

use crate::choice::Label;
use crate::client::ClientTimer;
use crate::node::{BrokerId, Effects, Timer};
use crate::protocol::Request;
use crate::time::SimTime;

use super::{Connections, Link, State, Waiting};

/// When another broker is tried, while none is up.
const TRY_ANOTHER: Duration = Duration::from_secs(1);

impl<T> Connections<T> {
    /// Sends a request to any broker: one that is up, or the first that is; rather to one of those
    /// that are named.
    pub(crate) fn send_to_any(
        &mut self,
        now: SimTime,
        named: &[BrokerId],
        token: T,
        request: Request,
        deadline: SimTime,
        effects: &mut Effects,
    ) {
        if let Some(link) = self.any_up(named) {
            return self.send(now, link, token, request, deadline, effects);
        }
        self.named = named.to_vec();
        let is_first = self.for_any.is_empty();
        self.for_any.push_back(Waiting { token, request, deadline });
        if is_first {
            self.try_another(now, effects);
        }
    }

    /// A broker that is up: rather one that holds no long poll, and then one that is named.
    fn any_up(&mut self, named: &[BrokerId]) -> Option<Link> {
        let weight = |broker: BrokerId| {
            let connection = self.links.get(&Link::data(broker))?;
            let is_blocked = connection.in_flight.iter().any(|request| request.is_long_poll);
            let weight = (!is_blocked, named.contains(&broker));
            (connection.state == State::Open).then_some(weight)
        };
        let up = self.bootstrap.iter().filter_map(|broker| Some((weight(*broker)?, *broker)));
        let up = up.collect::<Vec<_>>();
        let most = up.iter().map(|(weight, _)| *weight).max()?;
        let best = up.into_iter().filter(|(weight, _)| *weight == most);
        self.draw(&best.map(|(_, broker)| broker).collect::<Vec<_>>())
    }

    /// Connects to a broker that was not tried yet, while requests for any broker wait.
    pub(super) fn try_another(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(first) = self.for_any.iter().map(|waiting| waiting.deadline).min() else {
            return effects.cancel_timer(Timer::Client(ClientTimer::TryAnotherBroker));
        };
        let is_new = |broker: &BrokerId| !self.links.contains_key(&Link::data(*broker));
        let new = |brokers: &[BrokerId]| brokers.iter().copied().filter(is_new).collect::<Vec<_>>();
        let (named, all) = (new(&self.named), new(&self.bootstrap));
        if let Some(link) = self.draw(if named.is_empty() { &all } else { &named }) {
            self.open(now, link, effects);
        }
        let at = first.min(now + TRY_ANOTHER);
        effects.set_timer(Timer::Client(ClientTimer::TryAnotherBroker), at);
    }

    fn draw(&mut self, brokers: &[BrokerId]) -> Option<Link> {
        let bound = u64::try_from(brokers.len()).ok().filter(|bound| *bound > 0)?;
        self.draws += 1;
        let index = self.identity.choose(Label::MetadataBroker, self.draws, bound);
        brokers.get(usize::try_from(index).ok()?).copied().map(Link::data)
    }
}
