//! The end of a transaction: `EndTxn` to its coordinator, again and again until there is an answer.

use bus_core::ErrorKind;

use crate::client::backoff;
use crate::mutation::Mutation;
use crate::node::Effects;
use crate::protocol::batch::{ProducerEpoch, ProducerId};
use crate::protocol::{Request, end_txn};
use crate::time::SimTime;

use super::super::session::Session;
use super::super::{Producer, Token};
use super::Ask;
use super::call::Resume;
use super::failure::{Action, Class, Failure, normalized};
use super::state::State;

/// A transaction that is ended.
#[derive(Debug)]
pub(super) struct End {
    is_commit: bool,
    identity: (ProducerId, ProducerEpoch),
    ask: Ask,
    retries: u32,
}

impl End {
    /// When the request is due.
    pub(super) const fn due(&self) -> Option<SimTime> {
        self.ask.due()
    }
}

impl Producer {
    /// Everything is delivered, or has failed: the second part of a commit.
    pub(super) fn end_by_commit(&mut self, now: SimTime, effects: &mut Effects) {
        let identity = self.usable_identity();
        let Some(transaction) = &mut self.transaction else { return };
        let required = transaction.require(&[
            State::BeginCommit,
            State::CommittingTransaction,
            State::CommitNotAcked,
        ]);
        if let Err(failure) = required {
            return self.finish_call(Err(failure), Resume::Yes, effects);
        }
        match transaction.state {
            // A call before gave up waiting, and it is done since.
            State::CommitNotAcked => return self.set_result(now, Ok(()), effects),
            // Or it still goes on.
            State::CommittingTransaction => return,
            _ => {}
        }
        let ignores_failures = self.mutation == Some(Mutation::CommitIgnoresFailures);
        if transaction.failed_deliveries > 0 && !ignores_failures {
            let message = format!("{} records were not delivered", transaction.failed_deliveries);
            let kind = ErrorKind::TransactionAbortable;
            self.abortable_error(kind, message.clone(), effects);
            let failure = Failure::new(kind, Class::Abortable, message);
            return self.finish_call(Err(failure), Resume::Yes, effects);
        }
        if transaction.requests == 0 {
            // The coordinator knows nothing of the transaction.
            return self.ended(now, true, effects);
        }
        let Some(identity) = identity else { return self.without_identity(effects) };
        transaction.set_state(State::CommittingTransaction);
        self.start_end(now, true, identity, effects);
    }

    /// Nothing is in flight any more: the second part of an abort.
    pub(super) fn end_by_abort(&mut self, now: SimTime, effects: &mut Effects) {
        let session = self.session;
        let Some(transaction) = &mut self.transaction else { return };
        let required = transaction.require(&[
            State::BeginAbort,
            State::AbortingTransaction,
            State::AbortNotAcked,
        ]);
        if let Err(failure) = required {
            return self.finish_call(Err(failure), Resume::Yes, effects);
        }
        match transaction.state {
            State::AbortNotAcked => return self.set_result(now, Ok(()), effects),
            State::AbortingTransaction => return,
            _ => {}
        }
        if transaction.requests == 0 {
            return self.ended(now, false, effects);
        }
        if !matches!(session, Session::Assigned { .. } | Session::AwaitingAbort) {
            // Another epoch is asked for already: when it is there the abort is done.
            return;
        }
        let Some(identity) = transaction.identity else { return self.without_identity(effects) };
        transaction.set_state(State::AbortingTransaction);
        self.start_end(now, false, identity, effects);
    }

    fn without_identity(&mut self, effects: &mut Effects) {
        let message = "there is no producer id at the moment";
        let failure = Failure::new(ErrorKind::InvalidState, Class::Retriable, message);
        self.finish_call(Err(failure), Resume::Yes, effects);
    }

    fn start_end(
        &mut self,
        now: SimTime,
        is_commit: bool,
        identity: (ProducerId, ProducerEpoch),
        effects: &mut Effects,
    ) {
        let Some(transaction) = &mut self.transaction else { return };
        transaction.end = Some(End { is_commit, identity, ask: Ask::Due(now), retries: 0 });
        self.pump_end(now, effects);
    }

    /// Sends the request if it is due.
    pub(super) fn pump_end(&mut self, now: SimTime, effects: &mut Effects) {
        let end = self.transaction.as_ref().and_then(|transaction| transaction.end.as_ref());
        if !end.is_some_and(|end| end.ask.is_due(now)) {
            return;
        }
        let Some(link) = self.coordinator_link(now) else { return };
        let Some(transaction) = &mut self.transaction else { return };
        let Some(end) = &mut transaction.end else { return };
        end.ask = Ask::Asked;
        let (producer_id, producer_epoch) = end.identity;
        let request = Request::EndTxn(end_txn::Request {
            transactional_id: transaction.settings.id.clone(),
            producer_id,
            producer_epoch,
            is_commit: end.is_commit,
            is_version_2: transaction.settings.is_version_2,
        });
        let deadline = self.connections.deadline(now);
        self.connections.send(now, link, Token::EndTxn, request, deadline, effects);
    }

    pub(super) fn end_answered(
        &mut self,
        now: SimTime,
        result: Result<(ProducerId, ProducerEpoch), ErrorKind>,
        effects: &mut Effects,
    ) {
        let Some(transaction) = &mut self.transaction else { return };
        let Some(end) = &mut transaction.end else { return };
        let is_commit = end.is_commit;
        let may_retry = match transaction.state {
            State::CommittingTransaction | State::AbortingTransaction => true,
            State::AbortableError => {
                transaction.end = None;
                return self.ended_after_failure(now, is_commit && result.is_ok(), effects);
            }
            _ if result.is_ok() => {
                transaction.end = None;
                return;
            }
            _ => false,
        };
        let kind = match result {
            Ok(identity) => {
                transaction.end = None;
                self.take_epoch(identity);
                return self.ended(now, is_commit, effects);
            }
            Err(kind) => kind,
        };
        let action = action_for(kind);
        match kind {
            ErrorKind::NotCoordinator | ErrorKind::CoordinatorNotAvailable => {
                transaction.coordinator.lost(now);
            }
            ErrorKind::NetworkException | ErrorKind::TimedOut => {
                transaction.coordinator.unanswered(now);
            }
            _ => {}
        }
        if action == Action::Retry && may_retry {
            end.retries += 1;
            let (first, most) = (self.config.retry_backoff, self.config.retry_backoff_max);
            end.ask = Ask::Due(now + backoff(first, most, end.retries - 1));
            return;
        }
        transaction.end = None;
        self.end_refused(now, kind, action, is_commit, effects);
    }

    fn end_refused(
        &mut self,
        now: SimTime,
        kind: ErrorKind,
        action: Action,
        is_commit: bool,
        effects: &mut Effects,
    ) {
        let kind = normalized(kind);
        let message = "the coordinator did not end the transaction";
        let class = match action {
            Action::Fatal => return self.fatal_error(now, kind, message, effects),
            // The epoch is raised, which aborts what is open.
            Action::Bump if !is_commit => return self.raise_epoch(now, effects),
            Action::Bump | Action::Abort => {
                let Some(transaction) = &mut self.transaction else { return };
                if transaction.state == State::AbortingTransaction {
                    // The abort can be tried again from its beginning.
                    transaction.set_state(State::BeginAbort);
                }
                if action == Action::Bump {
                    transaction.needs_epoch_bump = true;
                }
                self.abortable_error(kind, message, effects);
                Class::Abortable
            }
            Action::Retry => Class::Retriable,
        };
        self.set_result(now, Err(Failure::new(kind, class, message)), effects);
    }

    /// The answer came when the transaction had failed in the client already.
    fn ended_after_failure(&mut self, now: SimTime, is_committed: bool, effects: &mut Effects) {
        let Some(transaction) = &self.transaction else { return };
        let mut failure = transaction.state_failure();
        if is_committed {
            failure.class = Class::Fatal;
            failure.message = format!("committed, but it had failed before: {}", failure.message);
        }
        self.set_result(now, Err(failure), effects);
    }

    /// The transaction is over on the coordinator; the application is told.
    fn ended(&mut self, now: SimTime, is_commit: bool, effects: &mut Effects) {
        let Some(transaction) = &mut self.transaction else { return };
        if transaction.needs_epoch_bump {
            return self.raise_epoch(now, effects);
        }
        let next = if is_commit { State::CommitNotAcked } else { State::AbortNotAcked };
        transaction.set_state(next);
        self.set_result(now, Ok(()), effects);
    }

    /// With version 2 of transactions each end raises the epoch.
    fn take_epoch(&mut self, identity: (ProducerId, ProducerEpoch)) {
        let Some(transaction) = &mut self.transaction else { return };
        if !transaction.settings.is_version_2 || transaction.identity == Some(identity) {
            return;
        }
        transaction.identity = Some(identity);
        transaction.needs_epoch_bump = false;
        let (id, epoch) = identity;
        self.session = Session::Assigned { id, epoch };
        self.restamp_queues(identity);
    }
}

const fn action_for(kind: ErrorKind) -> Action {
    use ErrorKind as E;
    match kind {
        E::TimedOut
        | E::NetworkException
        | E::CoordinatorNotAvailable
        | E::NotCoordinator
        | E::CoordinatorLoadInProgress
        | E::ConcurrentTransactions => Action::Retry,
        E::UnknownProducerId | E::InvalidProducerIdMapping => Action::Bump,
        E::InvalidProducerEpoch
        | E::ProducerFenced
        | E::TransactionalIdAuthorizationFailed
        | E::ClusterAuthorizationFailed
        | E::InvalidTxnState => Action::Fatal,
        _ => Action::Abort,
    }
}
