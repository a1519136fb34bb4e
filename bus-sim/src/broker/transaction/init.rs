//! InitProducerId with a transactional id: a higher epoch, which fences the producers before
//! (`TransactionCoordinator.handleInitProducerId`).
//!
//! - An open transaction is aborted first, with an epoch that nobody is told; the caller is sent
//!   away with `ConcurrentTransactions` until that is done.
//! - A producer that names its id and epoch (KIP-360) gets the next epoch only if nobody else asked
//!   since; if it asks again, the same one.
//! - When the epochs of an id are used up, another id takes over.

use bus_core::ErrorKind;

use super::state::{State, Transaction, is_exhausted};
use super::{Answer, Outcome, Reply, Shard, Turn};
use crate::broker::connections::Caller;
use crate::mutation::Mutation;
use crate::node::Name;
use crate::protocol::batch::{ProducerEpoch, ProducerId};
use crate::protocol::init_producer_id::Transactional;

impl Shard {
    pub(super) fn init(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        transactional: &Transactional,
        current: Option<(ProducerId, ProducerEpoch)>,
    ) {
        let transactional_id = &transactional.transactional_id;
        if !self.transactions.contains_key(transactional_id) {
            let new =
                Transaction::new(turn.producer_ids.next(), transactional.timeout, turn.time());
            self.transactions.insert(Name::clone(transactional_id), new);
        }
        let Some(transaction) = self.transactions.get_mut(transactional_id) else { return };
        let outcome = transaction.init(turn, transactional, current);
        if let Err(error) = outcome {
            turn.respond(caller, Answer::InitProducerId, Err(error));
        } else if let Ok(result) = outcome
            && let Some(write) = turn.writes.last_mut()
        {
            write.reply = Some(Reply { caller, answer: Answer::InitProducerId, result });
        }
    }
}

impl Transaction {
    /// Writes what a new producer begins with, and says what it is answered once that is durable.
    fn init(
        &mut self,
        turn: &mut Turn<'_>,
        transactional: &Transactional,
        current: Option<(ProducerId, ProducerEpoch)>,
    ) -> Result<Outcome, ErrorKind> {
        let Transactional { transactional_id, timeout } = transactional;
        if self.pending.is_some() {
            return Err(ErrorKind::ConcurrentTransactions);
        }
        if current.is_some_and(|current| !self.may_continue(current)) {
            return Err(ErrorKind::ProducerFenced);
        }
        let now = turn.time();
        if turn.has(Mutation::OpenTransactionForgotten) && self.metadata.state == State::Ongoing {
            self.metadata.state = State::Empty;
        }
        match self.metadata.state {
            State::PrepareCommit | State::PrepareAbort => Err(ErrorKind::ConcurrentTransactions),
            State::Empty | State::CompleteCommit | State::CompleteAbort => {
                let expected = current.map(|(_, epoch)| epoch);
                let value = if self.is_exhausted()
                    && expected.is_none_or(|expected| expected == self.epoch())
                {
                    let next = turn.producer_ids.next();
                    self.prepare_rotation(next, *timeout, expected.is_some(), now)
                } else {
                    self.prepare_epoch(*timeout, expected, now)?
                };
                let session = (value.producer_id, value.producer_epoch);
                turn.write(transactional_id, Some(value), None);
                Ok(Ok(session))
            }
            State::Ongoing => {
                let value = self.prepare_fence(turn.is_version_2(), now);
                turn.tell_fence(transactional_id, &value, "another producer");
                turn.write(transactional_id, Some(value), None);
                Ok(Err(ErrorKind::ConcurrentTransactions))
            }
            State::Dead | State::PrepareEpochFence => unreachable!("these are never written"),
        }
    }

    /// Whether a producer that names its id and epoch is the one that was here last: then the epoch
    /// is looked at as well. The id before is good if its epochs were used up.
    fn may_continue(&self, (producer_id, epoch): (ProducerId, ProducerEpoch)) -> bool {
        self.metadata.producer_epoch < 0
            || producer_id == self.metadata.producer_id
            || (Some(producer_id) == self.metadata.previous_producer_id && is_exhausted(epoch))
    }
}
