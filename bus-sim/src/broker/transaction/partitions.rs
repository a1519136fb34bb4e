//! AddPartitionsToTxn and AddOffsetsToTxn: the partitions of a transaction, before anything is
//! written to them (`TransactionCoordinator.handleAddPartitionsToTransaction`).
//!
//! A leader asks to verify that a partition is in the open transaction (KIP-890, part 1), or, for a
//! producer of version 2, adds the partition itself (part 2).

use bus_core::{ErrorKind, TopicPartition};

use super::state::{Identity, State, Transaction};
use super::{Answer, Reply, Shard, Turn};
use crate::broker::connections::Caller;
use crate::mutation::Mutation;
use crate::node::{Name, NodeId};
use crate::protocol::{Response, add_offsets_to_txn, add_partitions_to_txn};

impl Shard {
    pub(super) fn add_partitions(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        request: add_partitions_to_txn::Request,
    ) {
        let identity = Identity {
            transactional_id: request.transactional_id,
            producer_id: request.producer_id,
            producer_epoch: request.producer_epoch,
        };
        let partitions = request.partitions;
        if request.verify_only {
            self.verify(turn, caller, &identity, partitions);
        } else {
            let answer = Answer::AddPartitionsToTxn(partitions.clone());
            self.add(turn, (caller, answer), &identity, &partitions);
        }
    }

    pub(super) fn add_offsets(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        request: &add_offsets_to_txn::Request,
        offsets: TopicPartition,
    ) {
        let identity = Identity {
            transactional_id: Name::clone(&request.transactional_id),
            producer_id: request.producer_id,
            producer_epoch: request.producer_epoch,
        };
        self.add(turn, (caller, Answer::AddOffsetsToTxn), &identity, &[offsets]);
    }

    fn add(
        &mut self,
        turn: &mut Turn<'_>,
        (caller, answer): (Caller, Answer),
        identity: &Identity,
        partitions: &[TopicPartition],
    ) {
        let session = (identity.producer_id, identity.producer_epoch);
        let checked = self.checked(turn, identity);
        match checked
            .and_then(|transaction| transaction.may_add(partitions).map(|a| (transaction, a)))
        {
            Err(error) => turn.respond(caller, answer, Err(error)),
            Ok((_, Addition::Known)) => turn.respond(caller, answer, Ok(session)),
            Ok((transaction, Addition::New)) => {
                // Leaders add partitions for producers of version 2, which do not ask themselves.
                let is_version_2 = matches!(caller.connection.owner, NodeId::Broker(_));
                let value = transaction.prepare_partitions(partitions, is_version_2, turn.time());
                let reply = Reply { caller, answer, result: Ok(session) };
                turn.write(&identity.transactional_id, Some(value), Some(reply));
            }
        }
    }

    /// Says of each partition whether it is in the open transaction. What is pending does not
    /// matter: the leader checks again when it appends.
    fn verify(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        identity: &Identity,
        partitions: Vec<TopicPartition>,
    ) {
        let found = self.checked(turn, identity).and_then(|transaction| {
            let is_decided = transaction.metadata.state.prepared().is_some();
            if is_decided { Err(ErrorKind::ConcurrentTransactions) } else { Ok(transaction) }
        });
        let error = |partition: &TopicPartition| match &found {
            Err(error) => Some(*error),
            Ok(transaction) if transaction.metadata.partitions.contains(partition) => None,
            Ok(_) => Some(ErrorKind::TransactionAbortable),
        };
        let verdicts = partitions.iter().map(error).collect::<Vec<_>>();
        let partitions = partitions.into_iter().zip(verdicts).collect();
        let response = Response::AddPartitionsToTxn(add_partitions_to_txn::Response { partitions });
        turn.connections.respond(caller, response, turn.effects);
    }

    /// The transactional id of a producer that is not fenced.
    pub(super) fn checked(
        &mut self,
        turn: &Turn<'_>,
        identity: &Identity,
    ) -> Result<&mut Transaction, ErrorKind> {
        let transaction = self
            .transactions
            .get_mut(&identity.transactional_id)
            .ok_or(ErrorKind::InvalidProducerIdMapping)?;
        if transaction.metadata.producer_id != identity.producer_id {
            Err(ErrorKind::InvalidProducerIdMapping)
        } else if transaction.epoch() != identity.producer_epoch
            && !turn.has(Mutation::ZombieTransactionAccepted)
            && !turn.has(Mutation::ZombieAppendAccepted)
        {
            Err(ErrorKind::ProducerFenced)
        } else {
            Ok(transaction)
        }
    }
}

/// Whether partitions are new to a transaction.
enum Addition {
    Known,
    New,
}

impl Transaction {
    fn may_add(&self, partitions: &[TopicPartition]) -> Result<Addition, ErrorKind> {
        let is_known = |partition| self.metadata.partitions.contains(partition);
        if self.pending.is_some() || self.metadata.state.prepared().is_some() {
            Err(ErrorKind::ConcurrentTransactions)
        } else if self.metadata.state == State::Ongoing && partitions.iter().all(is_known) {
            Ok(Addition::Known)
        } else {
            Ok(Addition::New)
        }
    }
}
