//! The coordinator of the transactional id: looked up at any broker, and again when it does not
//! answer or is not the coordinator any more.

use std::time::Duration;

use bus_core::ErrorKind;

use crate::client::connections::Link;
use crate::node::{BrokerId, Effects};
use crate::protocol::Request;
use crate::protocol::find_coordinator::{self, CoordinatorType};
use crate::time::SimTime;

use super::super::{Producer, Token};
use super::state::State;

/// librdkafka's wait before it looks for the coordinator again.
const SEEK_AGAIN: Duration = Duration::from_millis(500);
/// The same after a request without response.
const SEEK_SOON: Duration = Duration::from_millis(50);

/// Who the coordinator is.
#[derive(Debug, Default)]
pub(super) struct Coordinator {
    broker: Option<BrokerId>,
    is_sought: bool,
    seek_at: Option<SimTime>,
}

impl Coordinator {
    pub(super) const fn broker(&self) -> Option<BrokerId> {
        self.broker
    }

    pub(super) fn seek_at(&self) -> Option<SimTime> {
        self.seek_at.filter(|_| !self.is_sought)
    }

    /// Looks for it at `at`, unless that is planned already or under way.
    fn seek(&mut self, at: SimTime) {
        if !self.is_sought {
            self.seek_at.get_or_insert(at);
        }
    }

    /// It is another one, or none at the moment.
    pub(super) fn lost(&mut self, now: SimTime) {
        self.broker = None;
        self.seek(now + SEEK_AGAIN);
    }

    /// It did not answer: perhaps there is another one.
    pub(super) fn unanswered(&mut self, now: SimTime) {
        self.seek(now + SEEK_SOON);
    }
}

impl Producer {
    /// The way to the coordinator; if it is unknown it is sought.
    pub(super) fn coordinator_link(&mut self, now: SimTime) -> Option<Link> {
        let coordinator = &mut self.transaction.as_mut()?.coordinator;
        if coordinator.broker.is_none() {
            coordinator.seek(now);
        }
        coordinator.broker.map(Link::coordinator)
    }

    pub(super) fn pump_coordinator(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(transaction) = &mut self.transaction else { return };
        let coordinator = &mut transaction.coordinator;
        if coordinator.is_sought || coordinator.seek_at.is_none_or(|at| now < at) {
            return;
        }
        coordinator.seek_at = None;
        if transaction.state == State::FatalError {
            return;
        }
        transaction.coordinator.is_sought = true;
        let key = transaction.settings.id.clone();
        let coordinator_type = CoordinatorType::Transaction;
        let request = Request::FindCoordinator(find_coordinator::Request { coordinator_type, key });
        let (token, deadline) = (Token::FindCoordinator, self.connections.deadline(now));
        let brokers = &self.metadata.brokers;
        self.connections.send_to_any(now, brokers, token, request, deadline, effects);
    }

    pub(super) fn coordinator_answered(
        &mut self,
        now: SimTime,
        result: Result<BrokerId, ErrorKind>,
        effects: &mut Effects,
    ) {
        let Some(transaction) = &mut self.transaction else { return };
        transaction.coordinator.is_sought = false;
        match result {
            Ok(broker) => {
                let is_new = transaction.coordinator.broker.replace(broker) != Some(broker);
                if is_new {
                    transaction.partitions.register_soon(now);
                }
            }
            Err(
                kind @ (ErrorKind::TransactionalIdAuthorizationFailed
                | ErrorKind::ClusterAuthorizationFailed),
            ) => {
                let message = "the transaction coordinator cannot be looked up";
                self.fatal_error(now, kind, message, effects);
            }
            Err(_) => transaction.coordinator.lost(now),
        }
        self.pump_session(now, effects);
    }
}
