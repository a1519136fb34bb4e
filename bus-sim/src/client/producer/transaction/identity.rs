//! The producer id of a transactional id, and its epochs: given out by the coordinator.

use bus_core::ErrorKind;

use crate::node::Effects;
use crate::protocol::batch::{ProducerEpoch, ProducerId};
use crate::protocol::{Request, init_producer_id};
use crate::time::SimTime;

use super::super::dispatch::SESSION_RETRY;
use super::super::session::Session;
use super::super::{Producer, Token};
use super::failure::normalized;
use super::state::State;

impl Producer {
    /// Begins to ask for a producer id, unless it is asked for already.
    pub(super) fn start_session(&mut self, now: SimTime, effects: &mut Effects) {
        if !matches!(self.session, Session::Requested { .. }) {
            self.session = Session::Unassigned { retry_at: now, attempt: 0 };
        }
        self.pump_session(now, effects);
    }

    /// Asks the coordinator for a producer id, or for the next epoch of the one there is.
    pub(in crate::client::producer) fn pump_transactional_session(
        &mut self,
        now: SimTime,
        effects: &mut Effects,
    ) {
        let attempt = match self.session {
            Session::Draining if self.requests_in_flight == 0 => 0,
            Session::Unassigned { retry_at, attempt } if retry_at <= now => attempt,
            Session::Unassigned { retry_at, .. } => return self.watch_retry(retry_at, effects),
            _ => return,
        };
        let Some(transaction) = &self.transaction else { return };
        if transaction.state == State::FatalError {
            return;
        }
        let request = Request::InitProducerId(init_producer_id::Request {
            transactional: Some(init_producer_id::Transactional {
                transactional_id: transaction.settings.id.clone(),
                timeout: transaction.settings.timeout,
            }),
            current: transaction.identity,
        });
        self.session = Session::Unassigned { retry_at: now, attempt };
        let Some(link) = self.coordinator_link(now) else { return };
        self.session = Session::Requested { attempt };
        let deadline = self.connections.deadline(now);
        self.connections.send(now, link, Token::InitProducerId, request, deadline, effects);
    }

    /// The coordinator gave out a producer id and epoch.
    pub(in crate::client::producer) fn identified(
        &mut self,
        now: SimTime,
        identity: (ProducerId, ProducerEpoch),
        effects: &mut Effects,
    ) {
        let Some(transaction) = &mut self.transaction else { return };
        transaction.identity = Some(identity);
        match transaction.state {
            State::WaitPid => transaction.set_state(State::ReadyNotAcked),
            State::BeginAbort | State::AbortingTransaction => {
                transaction.set_state(State::AbortNotAcked);
            }
            _ => return,
        }
        self.set_result(now, Ok(()), effects);
    }

    /// The coordinator gave out none; it is asked again, unless the error is fatal.
    pub(in crate::client::producer) fn identity_refused(
        &mut self,
        now: SimTime,
        kind: ErrorKind,
        attempt: u32,
        effects: &mut Effects,
    ) {
        use ErrorKind as E;
        let Some(transaction) = &mut self.transaction else { return };
        match kind {
            E::InvalidTransactionTimeout
            | E::TransactionalIdAuthorizationFailed
            | E::ClusterAuthorizationFailed
            | E::UnsupportedVersion
            | E::InvalidProducerEpoch
            | E::ProducerFenced => {
                self.session = Session::Failed;
                let message = match normalized(kind) {
                    E::ProducerFenced => "a newer producer uses the transactional id",
                    _ => "the coordinator gives out no producer id",
                };
                return self.fatal_error(now, kind, message, effects);
            }
            E::NotCoordinator | E::CoordinatorNotAvailable => transaction.coordinator.lost(now),
            E::NetworkException | E::TimedOut => transaction.coordinator.unanswered(now),
            _ => {}
        }
        transaction.init_error = Some(kind);
        let retry_at = now + SESSION_RETRY;
        self.session = Session::Unassigned { retry_at, attempt: attempt + 1 };
        self.watch_retry(retry_at, effects);
    }

    /// Raises the epoch, after the transaction is aborted and nothing is in flight.
    pub(super) fn raise_epoch(&mut self, now: SimTime, effects: &mut Effects) {
        self.session = Session::Draining;
        self.pump_session(now, effects);
    }

    /// The producer id and epoch, while they may be used.
    pub(super) const fn usable_identity(&self) -> Option<(ProducerId, ProducerEpoch)> {
        match self.session {
            Session::Assigned { id, epoch } => Some((id, epoch)),
            _ => None,
        }
    }
}
