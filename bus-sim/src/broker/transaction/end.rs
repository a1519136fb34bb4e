//! EndTxn: decides a transaction (`TransactionCoordinator.handleEndTransaction`).
//!
//! - The answer goes out when the decision is durable; the markers follow.
//! - Asked again for the same outcome, it says yes; for the other one, `InvalidTxnState`.
//! - With version 1 a request names a producer, not a transaction: one that is late decides the
//!   next. With version 2 each end raises the epoch, so that a late one is recognized (KIP-890).

use bus_core::ErrorKind;

use super::state::{Identity, Metadata, State, Transaction};
use super::{Answer, Outcome, Reply, Shard, Turn};
use crate::broker::connections::Caller;
use crate::mutation::Mutation;
use crate::node::Name;
use crate::protocol::batch::{ControlRecord, ProducerEpoch};
use crate::protocol::end_txn;

/// What an end is.
enum End {
    /// It was decided like this before.
    Decided,
    /// It is decided by writing this.
    Write(Box<Metadata>),
}

impl Shard {
    pub(super) fn end(&mut self, turn: &mut Turn<'_>, caller: Caller, request: &end_txn::Request) {
        let identity = Identity {
            transactional_id: Name::clone(&request.transactional_id),
            producer_id: request.producer_id,
            producer_epoch: request.producer_epoch,
        };
        let control = if request.is_commit { ControlRecord::Commit } else { ControlRecord::Abort };
        let is_version_2 = request.is_version_2;
        let end = if is_version_2 {
            self.end_version_2(turn, &identity, control)
        } else {
            self.end_version_1(turn, &identity, control)
        };
        let session = |shard: &Self| -> Outcome {
            let known = &shard.transactions[&identity.transactional_id].metadata;
            Ok((known.producer_id, known.producer_epoch))
        };
        match end {
            Err(error) => turn.respond(caller, Answer::EndTxn { is_version_2 }, Err(error)),
            Ok(End::Decided) => {
                let is_known = !turn.has(Mutation::EndSentAgainFenced);
                let result = if is_known { session(self) } else { Err(ErrorKind::ProducerFenced) };
                turn.respond(caller, Answer::EndTxn { is_version_2 }, result);
            }
            Ok(End::Write(value)) => {
                // An epoch that is used up is not told: the producer goes on with the next id.
                let next = value.next_producer_id.map(|next| (next, 0));
                let result = Ok(next.unwrap_or((value.producer_id, value.producer_epoch)));
                let reply = Reply { caller, answer: Answer::EndTxn { is_version_2 }, result };
                turn.write(&identity.transactional_id, Some(*value), Some(reply));
            }
        }
    }

    fn end_version_1(
        &mut self,
        turn: &Turn<'_>,
        identity: &Identity,
        control: ControlRecord,
    ) -> Result<End, ErrorKind> {
        let transaction = self.checked(turn, identity)?;
        if transaction.pending.is_some() {
            return Err(ErrorKind::ConcurrentTransactions);
        }
        match (transaction.metadata.state, control) {
            (State::Ongoing, _) => {
                let value = transaction.prepare_end(control, false, None, turn.time());
                Ok(End::Write(Box::new(value)))
            }
            (State::CompleteCommit, ControlRecord::Commit)
            | (State::CompleteAbort, ControlRecord::Abort) => Ok(End::Decided),
            (State::PrepareCommit, ControlRecord::Commit)
            | (State::PrepareAbort, ControlRecord::Abort) => Err(ErrorKind::ConcurrentTransactions),
            _ => Err(ErrorKind::InvalidTxnState),
        }
    }

    fn end_version_2(
        &mut self,
        turn: &mut Turn<'_>,
        identity: &Identity,
        control: ControlRecord,
    ) -> Result<End, ErrorKind> {
        let transaction = self
            .transactions
            .get_mut(&identity.transactional_id)
            .ok_or(ErrorKind::InvalidProducerIdMapping)?;
        let asked = transaction.asked(identity, turn.has(Mutation::ZombieTransactionAccepted))?;
        if transaction.pending.is_some() {
            return Err(ErrorKind::ConcurrentTransactions);
        }
        match (transaction.metadata.state, control, asked) {
            (State::Ongoing, _, _)
            | (State::Empty, ControlRecord::Abort, _)
            | (State::CompleteCommit | State::CompleteAbort, ControlRecord::Abort, Asked::Now) => {
                let next = transaction.is_exhausted().then(|| turn.producer_ids.next());
                let value = transaction.prepare_end(control, true, next, turn.time());
                Ok(End::Write(Box::new(value)))
            }
            (State::CompleteCommit, ControlRecord::Commit, Asked::Again)
            | (State::CompleteAbort, ControlRecord::Abort, Asked::Again) => Ok(End::Decided),
            (State::PrepareCommit, ControlRecord::Commit, _)
            | (State::PrepareAbort, ControlRecord::Abort, _) => {
                Err(ErrorKind::ConcurrentTransactions)
            }
            _ => Err(ErrorKind::InvalidTxnState),
        }
    }
}

/// Which transaction a request of version 2 means, by its epoch.
#[derive(Clone, Copy)]
enum Asked {
    /// The one that is open, or none.
    Now,
    /// The one before, which ended.
    Again,
}

impl Transaction {
    /// Which transaction a request of version 2 means.
    fn asked(&self, identity: &Identity, is_zombie_welcome: bool) -> Result<Asked, ErrorKind> {
        let Metadata { producer_id, previous_producer_id, state, .. } = self.metadata;
        let (epoch, named) = (self.epoch(), identity.producer_epoch);
        // The epochs were used up, and the answer that named the next id was lost.
        let is_before_rotation = previous_producer_id == Some(identity.producer_id)
            && named == ProducerEpoch::MAX - 1
            && epoch == 0;
        if producer_id != identity.producer_id && !is_before_rotation {
            return Err(ErrorKind::InvalidProducerIdMapping);
        }
        let is_now = named == epoch;
        let is_again = is_before_rotation || named.checked_add(1) == Some(epoch);
        match state {
            State::Empty | State::Ongoing if is_now || is_zombie_welcome => Ok(Asked::Now),
            State::PrepareCommit | State::PrepareAbort if is_again => Ok(Asked::Again),
            State::CompleteCommit | State::CompleteAbort if is_again => Ok(Asked::Again),
            State::CompleteCommit | State::CompleteAbort if is_now => Ok(Asked::Now),
            _ => Err(ErrorKind::ProducerFenced),
        }
    }
}
