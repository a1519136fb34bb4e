//! The partitions of a transaction: the coordinator is told of each before the first record goes
//! there, so that it knows where to write the end. One request at a time; with version 2 of
//! transactions the leaders do it.

use std::collections::BTreeSet;
use std::time::Duration;

use bus_core::{ErrorKind, TopicPartition};

use crate::node::Effects;
use crate::protocol::{Request, add_partitions_to_txn};
use crate::time::SimTime;

use super::super::{Producer, Token};
use super::failure::{Action, normalized};

/// librdkafka's wait for more partitions before it asks.
const GATHER: Duration = Duration::from_millis(1);
/// librdkafka's wait before it asks again.
const RETRY: Duration = Duration::from_millis(500);
/// The same while the transaction before is being completed.
const RETRY_CONCURRENT: Duration = Duration::from_millis(20);

/// The partitions of a transaction.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    /// To be told to the coordinator.
    pending: BTreeSet<TopicPartition>,
    /// On the way to it.
    asked: BTreeSet<TopicPartition>,
    /// Known to it.
    registered: BTreeSet<TopicPartition>,
    register_at: Option<SimTime>,
}

impl Partitions {
    pub(super) fn is_registered(&self, topic_partition: &TopicPartition) -> bool {
        self.registered.contains(topic_partition)
    }

    pub(super) fn register_at(&self) -> Option<SimTime> {
        self.register_at.filter(|_| !self.pending.is_empty())
    }

    /// Looks soon whether there is something to ask.
    pub(super) fn register_soon(&mut self, now: SimTime) {
        self.register_at.get_or_insert(now + GATHER);
    }

    pub(super) fn clear_pending(&mut self) {
        self.pending.clear();
        self.asked.clear();
    }

    pub(super) fn clear(&mut self) {
        self.clear_pending();
        self.registered.clear();
    }

    fn is_known(&self, topic_partition: &TopicPartition) -> bool {
        self.registered.contains(topic_partition)
            || self.pending.contains(topic_partition)
            || self.asked.contains(topic_partition)
    }
}

impl Producer {
    /// A record goes to the partition: it becomes part of the transaction.
    pub(in crate::client::producer) fn add_to_transaction(
        &mut self,
        now: SimTime,
        topic_partition: TopicPartition,
        effects: &mut Effects,
    ) {
        let Some(transaction) = &mut self.transaction else { return };
        if transaction.partitions.is_known(&topic_partition) {
            return;
        }
        if transaction.settings.is_version_2 {
            transaction.partitions.registered.insert(topic_partition);
            transaction.requests += 1;
            return;
        }
        transaction.partitions.pending.insert(topic_partition);
        transaction.partitions.register_soon(now);
        self.watch_transaction(effects);
    }

    /// Tells the coordinator of the partitions that it does not know.
    pub(super) fn pump_registration(&mut self, now: SimTime, effects: &mut Effects) {
        let identity = self.usable_identity();
        let Some(transaction) = &mut self.transaction else { return };
        if transaction.partitions.register_at.is_none_or(|at| now < at) {
            return;
        }
        if !transaction.state.sends_records() || transaction.partitions.pending.is_empty() {
            transaction.partitions.register_at = None;
            return;
        }
        let Some((producer_id, producer_epoch)) = identity else { return };
        let Some(link) = self.coordinator_link(now) else { return };
        let Some(transaction) = &mut self.transaction else { return };
        transaction.partitions.register_at = None;
        if !transaction.partitions.asked.is_empty() {
            // The answer to that looks for more.
            return;
        }
        let partitions = std::mem::take(&mut transaction.partitions.pending);
        let request = Request::AddPartitionsToTxn(add_partitions_to_txn::Request {
            transactional_id: transaction.settings.id.clone(),
            producer_id,
            producer_epoch,
            verify_only: false,
            partitions: partitions.iter().cloned().collect(),
        });
        transaction.partitions.asked = partitions;
        transaction.requests += 1;
        let deadline = self.connections.deadline(now);
        self.connections.send(now, link, Token::AddPartitions, request, deadline, effects);
    }

    pub(super) fn partitions_answered(
        &mut self,
        now: SimTime,
        result: Result<&[(TopicPartition, Option<ErrorKind>)], ErrorKind>,
        effects: &mut Effects,
    ) {
        let Some(transaction) = &mut self.transaction else { return };
        let refused = match result {
            Ok(_) if !transaction.state.sends_records() => {
                // It came too late: the transaction is being aborted.
                transaction.requests = transaction.requests.saturating_sub(1);
                return;
            }
            Ok(answers) => transaction.registered(answers),
            Err(kind) => {
                transaction.coordinator.unanswered(now);
                Some((kind, Action::Retry))
            }
        };
        let partitions = &mut transaction.partitions;
        partitions.pending.append(&mut partitions.asked);
        let Some((kind, action)) = refused else { return partitions.register_soon(now) };
        if matches!(kind, ErrorKind::NotCoordinator | ErrorKind::CoordinatorNotAvailable) {
            transaction.coordinator.lost(now);
        }
        let message = "a partition could not be added to the transaction";
        match action {
            Action::Retry => {
                let is_concurrent = kind == ErrorKind::ConcurrentTransactions;
                let wait = if is_concurrent { RETRY_CONCURRENT } else { RETRY };
                transaction.partitions.register_at = Some(now + wait);
            }
            Action::Abort => self.abortable_error(kind, message, effects),
            Action::Bump => self.abortable_error_with_bump(kind, message, effects),
            Action::Fatal => self.fatal_error(now, kind, message, effects),
        }
    }
}

impl super::Transaction {
    /// Notes which partitions the coordinator knows, and what counts of what it refused.
    fn registered(
        &mut self,
        answers: &[(TopicPartition, Option<ErrorKind>)],
    ) -> Option<(ErrorKind, Action)> {
        let mut refused = None;
        for (topic_partition, error) in answers {
            let Some(kind) = *error else {
                if self.partitions.asked.remove(topic_partition) {
                    self.partitions.registered.insert(topic_partition.clone());
                }
                continue;
            };
            let (action, is_of_all) = action_for(kind);
            if is_of_all {
                return Some((normalized(kind), action));
            }
            refused = Some((kind, action));
        }
        refused
    }
}

/// What may be done about a refusal, and whether it is the same for all partitions.
const fn action_for(kind: ErrorKind) -> (Action, bool) {
    use ErrorKind as E;
    match kind {
        E::NotCoordinator
        | E::CoordinatorNotAvailable
        | E::ConcurrentTransactions
        | E::CoordinatorLoadInProgress
        | E::UnknownTopicOrPartition => (Action::Retry, true),
        E::InvalidProducerEpoch
        | E::ProducerFenced
        | E::TransactionalIdAuthorizationFailed
        | E::InvalidTxnState
        | E::ClusterAuthorizationFailed => (Action::Fatal, true),
        E::UnknownProducerId | E::InvalidProducerIdMapping => (Action::Bump, true),
        _ => (Action::Abort, false),
    }
}
