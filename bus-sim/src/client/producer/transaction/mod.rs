//! The transactions of a producer, as librdkafka's transaction manager has them (KIP-98, KIP-360,
//! KIP-447; with version 2 of transactions KIP-890).
//!
//! - `state`: the states, and which follows which;
//! - `call`: one call of the application at a time; one that ran out of time can be resumed;
//! - `coordinator`: who it is, and what waits for it;
//! - `identity`: the producer id and its epochs;
//! - `partitions`: partitions are told to the coordinator before the first record goes to them;
//! - `delivery`: batches that were not delivered;
//! - `offsets`: offsets of a group as part of a transaction;
//! - `end`: the end, on the coordinator;
//! - `failure`: what may be done about an error.
//!
//! Simplified: a request to a coordinator that was replaced runs to its own end, librdkafka breaks
//! it off; back-off has no jitter.

mod call;
mod coordinator;
mod delivery;
mod end;
mod failure;
mod identity;
mod offsets;
mod partitions;
mod state;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bus_core::{ErrorKind, Result};

use crate::client::ClientTimer;
use crate::client::connections::Outcome;
use crate::mutation::Mutation;
use crate::node::{Effects, Name, Timer};
use crate::protocol::Response;
use crate::protocol::batch::{ProducerEpoch, ProducerId};
use crate::time::SimTime;

use super::session::Session;
use super::{Producer, Token};
use call::Call;
use coordinator::Coordinator;
use end::End;
pub(super) use failure::failed_delivery;
use failure::{Class, Failure, normalized};
use offsets::OffsetsCommit;
use partitions::Partitions;
use state::{Move, State};

/// How a producer does transactions.
#[derive(Clone, Debug)]
pub(crate) struct TransactionSettings {
    /// `transactional.id`.
    pub(crate) id: Name,
    /// `transaction.timeout.ms`.
    pub(crate) timeout: Duration,
    /// Version 2 of the protocol (KIP-890), which librdkafka 2.12 does not speak.
    pub(crate) is_version_2: bool,
    /// An abort gives out again the sequences of what it dropped, though a leader may have it.
    pub(crate) reuses_sequences: bool,
}

/// The transactions of a producer.
#[derive(Debug)]
pub(crate) struct Transaction {
    settings: TransactionSettings,
    state: State,
    /// The first error of the transaction, or the fatal one.
    cause: Option<(ErrorKind, String)>,
    call: Option<Call>,
    /// The producer id and epoch, once there is one.
    identity: Option<(ProducerId, ProducerEpoch)>,
    /// Why there is no producer id yet.
    init_error: Option<ErrorKind>,
    coordinator: Coordinator,
    partitions: Partitions,
    offsets: Option<OffsetsCommit>,
    end: Option<End>,
    /// Requests by which the coordinator may know of the transaction: it must be told of the end.
    requests: u32,
    /// Records of the transaction that were not delivered.
    failed_deliveries: u64,
    /// After the abort another epoch is needed (KIP-360).
    needs_epoch_bump: bool,
    /// When the timer is set for.
    wake_at: Option<SimTime>,
}

/// Whether a request is due, or on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Due(SimTime),
    Asked,
}

impl Ask {
    fn is_due(self, now: SimTime) -> bool {
        matches!(self, Self::Due(at) if at <= now)
    }

    const fn due(self) -> Option<SimTime> {
        match self {
            Self::Due(at) => Some(at),
            Self::Asked => None,
        }
    }
}

impl Transaction {
    pub(crate) fn new(settings: TransactionSettings) -> Self {
        Self {
            settings,
            state: State::Init,
            cause: None,
            call: None,
            identity: None,
            init_error: None,
            coordinator: Coordinator::default(),
            partitions: Partitions::default(),
            offsets: None,
            end: None,
            requests: 0,
            failed_deliveries: 0,
            needs_epoch_bump: false,
            wake_at: None,
        }
    }

    pub(super) const fn settings(&self) -> &TransactionSettings {
        &self.settings
    }

    /// Counts records that were not delivered: a transaction without them cannot commit.
    pub(super) fn count_failures(&mut self, count: usize) {
        self.failed_deliveries += u64::try_from(count).unwrap_or(u64::MAX);
    }

    /// Whether a record may be taken from the application now.
    pub(super) fn check_send(&self) -> Result<()> {
        if self.state.takes_records() {
            return Ok(());
        }
        let error = if self.state == State::FatalError {
            self.state_failure().into_error()
        } else {
            let message = format!("records are not taken in transaction state {:?}", self.state);
            let error = bus_core::Error::new(ErrorKind::InvalidState, message);
            let is_called = self.call.as_ref().is_some_and(Call::is_awaited);
            if self.state.is_open() && !is_called {
                error.with_recovery(bus_core::Recovery::Abort)
            } else {
                error
            }
        };
        Err(error.definite())
    }

    /// What a call of the application waits for, if one does.
    pub(super) fn waiting(&self) -> Option<String> {
        let call = self.call.as_ref().filter(|call| call.is_awaited())?;
        Some(format!("a producer's {} waits in state {:?}", call.api().name(), self.state))
    }

    fn set_state(&mut self, next: State) {
        if self.state == next {
            return;
        }
        match self.state.to(next) {
            Move::Valid => self.state = next,
            Move::Ignored => {}
            Move::Invalid => unreachable!("a transaction went from {:?} to {next:?}", self.state),
        }
    }

    /// Why the state does not allow a call.
    fn state_failure(&self) -> Failure {
        let class = match self.state {
            State::FatalError => Class::Fatal,
            State::AbortableError => Class::Abortable,
            state => {
                let message = format!("not allowed in transaction state {state:?}");
                return Failure::new(ErrorKind::InvalidState, Class::Misuse, message);
            }
        };
        let (kind, message) = self.cause.clone().unwrap_or((ErrorKind::Fatal, String::new()));
        Failure::new(kind, class, message)
    }

    fn require(&self, states: &[State]) -> std::result::Result<(), Failure> {
        if states.contains(&self.state) { Ok(()) } else { Err(self.state_failure()) }
    }

    /// When the next thing is due.
    fn next_due(&self) -> Option<SimTime> {
        let call = self.call.as_ref().and_then(Call::deadline);
        let seek = self.coordinator.seek_at();
        let has_coordinator = self.coordinator.broker().is_some();
        let register = self.partitions.register_at().filter(|_| has_coordinator);
        let end = self.end.as_ref().and_then(End::due).filter(|_| has_coordinator);
        let offsets = self.offsets.as_ref().and_then(|offsets| offsets.due(has_coordinator));
        [call, seek, register, end, offsets].into_iter().flatten().min()
    }
}

impl Producer {
    /// Begins a transaction.
    pub(crate) fn begin_transaction(&mut self, now: SimTime, effects: &mut Effects) -> Result<()> {
        self.check_open()?;
        let Some(transaction) = &mut self.transaction else { return Err(not_transactional()) };
        if let Some(call) = &transaction.call {
            return Err(call.conflict().into_error());
        }
        transaction.require(&[State::Ready]).map_err(Failure::into_error)?;
        transaction.set_state(State::InTransaction);
        transaction.cause = None;
        transaction.failed_deliveries = 0;
        self.pump_transaction(now, effects);
        Ok(())
    }

    /// Whether records of the partition may be sent to its leader now.
    pub(super) fn may_send(&self, topic_partition: &bus_core::TopicPartition) -> bool {
        self.transaction.as_ref().is_none_or(|transaction| {
            transaction.state.sends_records()
                && transaction.partitions.is_registered(topic_partition)
        })
    }

    /// The transaction failed; it must be aborted. What is queued is dropped. Later errors of the
    /// same transaction change nothing.
    pub(super) fn abortable_error(
        &mut self,
        kind: ErrorKind,
        message: impl Into<String>,
        effects: &mut Effects,
    ) {
        let Some(transaction) = &mut self.transaction else { return };
        if transaction.state == State::FatalError || transaction.cause.is_some() {
            return;
        }
        // A planted bug may leave records behind the end of their transaction: they fail no other.
        let is_behind = transaction.state.to(State::AbortableError) == Move::Invalid;
        if (is_behind && self.mutation.is_some())
            || self.mutation == Some(Mutation::CommitIgnoresFailures)
        {
            return;
        }
        transaction.cause = Some((normalized(kind), message.into()));
        transaction.set_state(State::AbortableError);
        self.purge_queues(effects);
    }

    /// The transaction failed, and its sequences cannot be continued: after the abort the
    /// coordinator must raise the epoch.
    pub(super) fn abortable_error_with_bump(
        &mut self,
        kind: ErrorKind,
        message: impl Into<String>,
        effects: &mut Effects,
    ) {
        let Some(transaction) = &mut self.transaction else { return };
        if transaction.state == State::FatalError {
            return;
        }
        transaction.needs_epoch_bump = true;
        self.session = Session::AwaitingAbort;
        self.abortable_error(kind, message, effects);
    }

    /// The producer cannot go on.
    pub(super) fn fatal_error(
        &mut self,
        now: SimTime,
        kind: ErrorKind,
        message: impl Into<String>,
        effects: &mut Effects,
    ) {
        let Some(transaction) = &mut self.transaction else { return };
        transaction.cause = Some((normalized(kind), message.into()));
        transaction.set_state(State::FatalError);
        let failure = transaction.state_failure();
        self.fail_queues(&failure.clone().into_error(), effects);
        self.set_result(now, Err(failure), effects);
    }

    /// Does what is due, and sets the timer for what is due next.
    pub(super) fn pump_transaction(&mut self, now: SimTime, effects: &mut Effects) {
        if self.transaction.is_none() || self.closing_for_good() {
            return;
        }
        self.check_flushed(now, effects);
        self.check_deadline(now, effects);
        self.pump_coordinator(now, effects);
        self.pump_registration(now, effects);
        self.pump_offsets(now, effects);
        self.pump_end(now, effects);
        self.watch_transaction(effects);
    }

    pub(super) fn transaction_timer_fired(&mut self, now: SimTime, effects: &mut Effects) {
        if let Some(transaction) = &mut self.transaction {
            transaction.wake_at = None;
        }
        self.pump_session(now, effects);
        self.pump_transaction(now, effects);
    }

    /// A request about transactions has an outcome.
    pub(super) fn transaction_concluded(
        &mut self,
        now: SimTime,
        outcome: Outcome<Token>,
        effects: &mut Effects,
    ) {
        let (token, response) = match outcome {
            Outcome::Response(token, response) => (token, Ok(response)),
            Outcome::Failed { token, timed_out, .. } => {
                let kind =
                    if timed_out { ErrorKind::TimedOut } else { ErrorKind::NetworkException };
                (token, Err(kind))
            }
            Outcome::Down => return,
        };
        match (token, response) {
            (Token::FindCoordinator, Ok(Response::FindCoordinator(response))) => {
                self.coordinator_answered(now, response.result, effects);
            }
            (Token::FindCoordinator, Err(kind)) => {
                self.coordinator_answered(now, Err(kind), effects);
            }
            (Token::AddPartitions, Ok(Response::AddPartitionsToTxn(response))) => {
                self.partitions_answered(now, Ok(&response.partitions), effects);
            }
            (Token::AddPartitions, Err(kind)) => {
                self.partitions_answered(now, Err(kind), effects);
            }
            (Token::AddOffsets, Ok(Response::AddOffsetsToTxn(response))) => {
                self.add_offsets_answered(now, response.error, effects);
            }
            (Token::AddOffsets, Err(kind)) => self.add_offsets_answered(now, Some(kind), effects),
            (Token::FindGroup, Ok(Response::FindCoordinator(response))) => {
                self.group_found(now, response.result, effects);
            }
            (Token::FindGroup, Err(kind)) => self.group_found(now, Err(kind), effects),
            (Token::TxnOffsetCommit, Ok(Response::TxnOffsetCommit(response))) => {
                let refused = response.partitions.iter().find_map(|(_, error)| *error);
                self.offsets_answered(now, refused, effects);
            }
            (Token::TxnOffsetCommit, Err(kind)) => {
                self.offsets_answered(now, Some(kind), effects);
            }
            (Token::EndTxn, Ok(Response::EndTxn(response))) => {
                self.end_answered(now, response.result, effects);
            }
            (Token::EndTxn, Err(kind)) => self.end_answered(now, Err(kind), effects),
            _ => {}
        }
    }

    fn watch_transaction(&mut self, effects: &mut Effects) {
        let Some(transaction) = &mut self.transaction else { return };
        let Some(at) = transaction.next_due() else { return };
        if transaction.wake_at.is_none_or(|earlier| at < earlier) {
            transaction.wake_at = Some(at);
            effects.set_timer(Timer::Client(ClientTimer::Transaction), at);
        }
    }
}

fn not_transactional() -> bus_core::Error {
    let message = "the producer was made without a transactional id";
    bus_core::Error::new(ErrorKind::InvalidState, message)
}
