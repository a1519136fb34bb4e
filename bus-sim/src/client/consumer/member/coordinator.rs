//! The coordinator of a member: finding it, and finding it again.

use bus_core::ErrorKind;

use crate::client::ClientTimer;
use crate::node::{BrokerId, Effects, Timer};
use crate::protocol::find_coordinator::CoordinatorType;
use crate::protocol::{Request, find_coordinator};
use crate::time::SimTime;

use super::super::{Consumer, Token};
use super::GROUP_RETRY;

impl Consumer {
    /// Asks for the coordinator, unless it is known or asked for.
    pub(in crate::client::consumer) fn want_coordinator(
        &mut self,
        now: SimTime,
        effects: &mut Effects,
    ) {
        let Some(member) = &mut self.member else { return };
        if member.coordinator.is_some() || member.is_finding || now < member.find_at {
            return;
        }
        member.is_finding = true;
        let request = Request::FindCoordinator(find_coordinator::Request {
            coordinator_type: CoordinatorType::Group,
            key: member.group_id.clone(),
        });
        let (token, deadline) = (Token::FindCoordinator, self.connections.deadline(now));
        let brokers = &self.metadata.brokers;
        self.connections.send_to_any(now, brokers, token, request, deadline, effects);
    }

    pub(in crate::client::consumer) fn found_coordinator(
        &mut self,
        now: SimTime,
        result: Result<BrokerId, ErrorKind>,
        effects: &mut Effects,
    ) {
        let Some(member) = &mut self.member else { return };
        member.is_finding = false;
        match result {
            Ok(broker) => {
                member.coordinator = Some(broker);
                self.join_if_out(now, effects);
            }
            Err(_) => self.find_coordinator_later(now, effects),
        }
    }

    pub(in crate::client::consumer) fn find_coordinator_later(
        &mut self,
        now: SimTime,
        effects: &mut Effects,
    ) {
        if let Some(member) = &mut self.member {
            member.is_finding = false;
            if member.find_at <= now {
                member.find_at = now + GROUP_RETRY;
                effects.set_timer(Timer::Client(ClientTimer::GroupRetry), member.find_at);
            }
        }
    }

    /// The coordinator is not where it was thought to be.
    pub(in crate::client::consumer) fn coordinator_lost(
        &mut self,
        now: SimTime,
        effects: &mut Effects,
    ) {
        if let Some(member) = &mut self.member {
            member.coordinator = None;
            member.heartbeat_in_flight = false;
            self.find_coordinator_later(now, effects);
        }
    }

    /// A request to the coordinator was refused: look for it again if it is not the coordinator.
    pub(in crate::client::consumer) fn note_coordinator_error(
        &mut self,
        now: SimTime,
        kind: ErrorKind,
        effects: &mut Effects,
    ) {
        let is_elsewhere = matches!(
            kind,
            ErrorKind::NotCoordinator
                | ErrorKind::CoordinatorNotAvailable
                | ErrorKind::NetworkException
                | ErrorKind::TimedOut
        );
        if is_elsewhere {
            self.coordinator_lost(now, effects);
        } else {
            effects.set_timer(Timer::Client(ClientTimer::GroupRetry), now + GROUP_RETRY);
        }
    }

    pub(in crate::client::consumer) fn group_retry(&mut self, now: SimTime, effects: &mut Effects) {
        if self.member.as_ref().is_some_and(|member| member.coordinator.is_none()) {
            let is_needed = self.subscription.is_some()
                || !self.commits.is_idle()
                || !self.committed_calls.is_empty();
            if is_needed {
                self.want_coordinator(now, effects);
            }
        } else {
            self.join_if_out(now, effects);
        }
    }
}
