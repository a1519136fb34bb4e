//! Calls of the application: one at a time. `init_transactions`, `commit`, and `abort` that ran out
//! of time go on, and the same call resumes them.

use std::time::Duration;

use bus_core::ErrorKind;

use crate::client::Reply;
use crate::mutation::Mutation;
use crate::node::Effects;
use crate::time::SimTime;

use super::super::Producer;
use super::failure::{Class, Failure, normalized};
use super::state::State;
use super::{Transaction, not_transactional};

/// How long a call waits: what `bus-kafka` passes to librdkafka.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A call that does not end at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    InitTransactions,
    SendOffsets,
    Commit,
    Abort,
}

impl Api {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::InitTransactions => "init_transactions",
            Self::SendOffsets => "send_offsets",
            Self::Commit => "commit",
            Self::Abort => "abort",
        }
    }
}

/// The call that was made last, until its outcome is known.
#[derive(Debug)]
pub(super) struct Call {
    api: Api,
    /// `None` when the call gave up waiting, and can be resumed.
    waiter: Option<Waiter>,
    /// What came of it while nobody waited.
    result: Option<Result<(), Failure>>,
    /// Whether the producer had failed before.
    was_fatal: bool,
}

#[derive(Debug)]
struct Waiter {
    reply: Reply<()>,
    deadline: Option<SimTime>,
    is_flushing: bool,
}

impl Call {
    pub(super) const fn api(&self) -> Api {
        self.api
    }

    pub(super) const fn is_awaited(&self) -> bool {
        self.waiter.is_some()
    }

    pub(super) fn deadline(&self) -> Option<SimTime> {
        self.waiter.as_ref()?.deadline
    }

    /// The failure of another call meanwhile.
    pub(super) fn conflict(&self) -> Failure {
        let message = format!("{} is under way; call it again until it ends", self.api.name());
        Failure::new(ErrorKind::InvalidState, Class::Retriable, message)
    }

    fn is_flushing(&self) -> bool {
        self.waiter.as_ref().is_some_and(|waiter| waiter.is_flushing)
    }
}

/// Whether a call that failed may be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resume {
    No,
    /// If the failure is retriable.
    Yes,
}

impl Producer {
    /// Fences older producers of the transactional id.
    pub(crate) fn init_transactions(
        &mut self,
        now: SimTime,
        reply: Reply<()>,
        effects: &mut Effects,
    ) {
        let deadline = Some(now + CALL_TIMEOUT);
        if self.begin_call(Api::InitTransactions, deadline, reply, effects) {
            match self.take_result() {
                Some(result) => self.proceed(now, result, effects),
                None => self.start_init(now, effects),
            }
        }
        self.pump_transaction(now, effects);
    }

    /// Flushes and commits.
    pub(crate) fn commit_transaction(
        &mut self,
        now: SimTime,
        reply: Reply<()>,
        effects: &mut Effects,
    ) {
        self.end_transaction(now, Api::Commit, Self::begin_commit, reply, effects);
    }

    /// Drops what is queued and aborts.
    pub(crate) fn abort_transaction(
        &mut self,
        now: SimTime,
        reply: Reply<()>,
        effects: &mut Effects,
    ) {
        self.end_transaction(now, Api::Abort, Self::begin_abort, reply, effects);
    }

    fn end_transaction(
        &mut self,
        now: SimTime,
        api: Api,
        begin: impl FnOnce(&mut Self, SimTime, &mut Effects),
        reply: Reply<()>,
        effects: &mut Effects,
    ) {
        if self.begin_call(api, Some(now + CALL_TIMEOUT), reply, effects) {
            begin(self, now, effects);
        }
        self.pump_transaction(now, effects);
    }

    /// Begins or resumes a call; if another one is under way this one has failed.
    pub(super) fn begin_call(
        &mut self,
        api: Api,
        deadline: Option<SimTime>,
        reply: Reply<()>,
        effects: &mut Effects,
    ) -> bool {
        if let Err(closed) = self.check_open() {
            reply.send(Err(closed), effects);
            return false;
        }
        let Some(transaction) = &mut self.transaction else {
            reply.send(Err(not_transactional()), effects);
            return false;
        };
        let waiter = Waiter { reply, deadline, is_flushing: false };
        match &mut transaction.call {
            Some(call) if call.api != api || call.is_awaited() => {
                let failure = call.conflict();
                waiter.reply.send(Err(failure.into_error()), effects);
                return false;
            }
            Some(call) => call.waiter = Some(waiter),
            None => {
                let was_fatal = transaction.state == State::FatalError;
                transaction.call =
                    Some(Call { api, waiter: Some(waiter), result: None, was_fatal });
            }
        }
        true
    }

    /// Takes note of what came of the call: if somebody waits, it goes on.
    pub(super) fn set_result(
        &mut self,
        now: SimTime,
        result: Result<(), Failure>,
        effects: &mut Effects,
    ) {
        let call = self.transaction.as_mut().and_then(|transaction| transaction.call.as_mut());
        let Some(call) = call else { return };
        if matches!(call.result, Some(Err(_))) {
            return;
        }
        if call.is_awaited() && !call.is_flushing() {
            self.proceed(now, result, effects);
        } else {
            call.result = Some(result);
        }
    }

    /// Ends the waiting for the call. The call itself ends too, unless it can be resumed.
    pub(super) fn finish_call(
        &mut self,
        result: Result<(), Failure>,
        resume: Resume,
        effects: &mut Effects,
    ) {
        let Some(transaction) = &mut self.transaction else { return };
        let Some(call) = &mut transaction.call else { return };
        let Some(waiter) = call.waiter.take() else { return };
        let is_unknown = call.api == Api::Commit && !call.was_fatal;
        let is_retriable = result.as_ref().is_err_and(|failure| failure.class == Class::Retriable);
        if resume == Resume::No || !is_retriable {
            transaction.call = None;
        }
        let outcome = result.map_err(|failure| {
            // The coordinator may have refused only the repetition of a commit whose response was
            // lost.
            let is_unknown = is_unknown && failure.class == Class::Fatal;
            let error = failure.into_error();
            if is_unknown { error.indeterminate() } else { error }
        });
        waiter.reply.send(outcome, effects);
    }

    /// Fails the call because the producer is closed.
    pub(in crate::client::producer) fn drop_call(&mut self, effects: &mut Effects) {
        let Some(transaction) = &mut self.transaction else { return };
        if let Some(Call { waiter: Some(waiter), .. }) = transaction.call.take() {
            let message = "the producer was closed before the call ended";
            let error = bus_core::Error::new(ErrorKind::Closed, message).indeterminate();
            waiter.reply.send(Err(error), effects);
        }
    }

    /// Goes on once nothing is in the buffer any more.
    pub(super) fn check_flushed(&mut self, now: SimTime, effects: &mut Effects) {
        if self.buffered_records > 0 {
            return;
        }
        let call = self.transaction.as_mut().and_then(|transaction| transaction.call.as_mut());
        let Some(call) = call.filter(|call| call.is_flushing()) else { return };
        let api = call.api;
        if let Some(waiter) = &mut call.waiter {
            waiter.is_flushing = false;
        }
        // What came of it meanwhile counts first.
        match self.take_result() {
            Some(result) => self.proceed(now, result, effects),
            None if api == Api::Commit => self.end_by_commit(now, effects),
            None => self.end_by_abort(now, effects),
        }
    }

    /// Fails a call that ran out of time.
    pub(super) fn check_deadline(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(transaction) = &self.transaction else { return };
        let Some(call) = &transaction.call else { return };
        if call.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        let left = self.buffered_records;
        let failure = if call.is_flushing() {
            let message = format!("{left} records were not delivered in time; call again");
            Failure::new(ErrorKind::TimedOut, Class::Retriable, message)
        } else {
            transaction.timed_out(call.api)
        };
        self.finish_call(Err(failure), Resume::Yes, effects);
    }

    fn take_result(&mut self) -> Option<Result<(), Failure>> {
        self.transaction.as_mut()?.call.as_mut()?.result.take()
    }

    /// Ends a call that has a result and somebody who waits for it.
    fn proceed(&mut self, now: SimTime, result: Result<(), Failure>, effects: &mut Effects) {
        let Some(transaction) = &mut self.transaction else { return };
        let Some(call) = &transaction.call else { return };
        let api = call.api;
        if let Err(failure) = result {
            let resume = if api == Api::SendOffsets { Resume::No } else { Resume::Yes };
            return self.finish_call(Err(failure), resume, effects);
        }
        let acknowledged = match api {
            Api::SendOffsets => Ok(()),
            Api::InitTransactions => {
                let required = transaction.require(&[State::ReadyNotAcked]);
                if required.is_ok() {
                    transaction.set_state(State::Ready);
                }
                required
            }
            Api::Commit => transaction.complete(State::CommitNotAcked),
            Api::Abort => transaction.complete(State::AbortNotAcked),
        };
        self.finish_call(acknowledged, Resume::No, effects);
        self.pump_session(now, effects);
    }

    fn start_init(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(transaction) = &mut self.transaction else { return };
        match transaction.state {
            State::Init | State::WaitPid => {
                transaction.set_state(State::WaitPid);
                transaction.init_error = None;
                self.start_session(now, effects);
            }
            // A call before has given up and it is done since: its result is there.
            State::ReadyNotAcked => {}
            _ => {
                let failure = transaction.state_failure();
                self.finish_call(Err(failure), Resume::Yes, effects);
            }
        }
    }

    fn begin_commit(&mut self, now: SimTime, effects: &mut Effects) {
        let failed = self.take_result().and_then(Result::err);
        let Some(transaction) = &mut self.transaction else { return };
        let begun = match failed {
            Some(failure) => Err(failure),
            None => transaction.require(&[
                State::InTransaction,
                State::BeginCommit,
                State::CommittingTransaction,
                State::CommitNotAcked,
            ]),
        };
        if let Err(failure) = begun {
            return self.finish_call(Err(failure), Resume::No, effects);
        }
        if transaction.state == State::InTransaction {
            transaction.set_state(State::BeginCommit);
        }
        if self.mutation == Some(Mutation::CommitBeforeFlush) {
            return self.end_by_commit(now, effects);
        }
        self.flush_for_call(now, effects);
    }

    fn begin_abort(&mut self, now: SimTime, effects: &mut Effects) {
        let failed = self.take_result().and_then(Result::err);
        let Some(transaction) = &mut self.transaction else { return };
        let begun = match failed {
            Some(failure) => Err(failure),
            None => transaction.require(&[
                State::InTransaction,
                State::BeginAbort,
                State::AbortingTransaction,
                State::AbortableError,
                State::AbortNotAcked,
            ]),
        };
        if let Err(failure) = begun {
            return self.finish_call(Err(failure), Resume::No, effects);
        }
        if matches!(transaction.state, State::InTransaction | State::AbortableError) {
            transaction.set_state(State::BeginAbort);
            transaction.partitions.clear_pending();
        }
        self.purge_queues(effects);
        self.flush_for_call(now, effects);
    }

    fn flush_for_call(&mut self, now: SimTime, effects: &mut Effects) {
        let call = self.transaction.as_mut().and_then(|transaction| transaction.call.as_mut());
        if let Some(waiter) = call.and_then(|call| call.waiter.as_mut()) {
            waiter.is_flushing = true;
        }
        self.begin_flush(now, None, effects);
        self.check_flushed(now, effects);
    }
}

impl Transaction {
    /// The application knows of the end: another transaction may begin.
    fn complete(&mut self, after: State) -> Result<(), Failure> {
        self.require(&[after])?;
        self.partitions.clear();
        self.needs_epoch_bump = false;
        self.requests = 0;
        self.set_state(State::Ready);
        Ok(())
    }

    fn timed_out(&self, api: Api) -> Failure {
        let init_error = self.init_error.map(normalized).filter(|_| api == Api::InitTransactions);
        match init_error {
            Some(kind) if kind != ErrorKind::TimedOut => {
                let message = format!("no producer id yet: {}", kind.description());
                Failure::new(kind, Class::Retriable, message)
            }
            _ => {
                let message = format!("{} did not end in time; call it again", api.name());
                Failure::new(ErrorKind::TimedOut, Class::Retriable, message)
            }
        }
    }
}
