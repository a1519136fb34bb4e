//! Offsets of a group as part of a transaction, in two steps: the coordinator of the transaction
//! is told of the group (with version 2 of transactions nobody tells it), then the coordinator of
//! the group stores the offsets as pending.
//!
//! Simplified: who coordinates the group is asked every 500 ms until the time of the call is up;
//! librdkafka may wait longer.

use std::time::Duration;

use bus_core::{ErrorKind, GroupMetadata, OffsetAndMetadata, TopicPartition};

use crate::client::connections::Link;
use crate::client::{Reply, backoff};
use crate::node::{BrokerId, Effects, Name};
use crate::protocol::find_coordinator::{self, CoordinatorType};
use crate::protocol::offset_commit::PartitionRequest;
use crate::protocol::{Request, add_offsets_to_txn, txn_offset_commit};
use crate::time::SimTime;

use super::super::{Producer, Token};
use super::call::{Api, CALL_TIMEOUT, Resume};
use super::failure::{Class, Failure, normalized};
use super::state::State;
use super::{Ask, not_transactional};

/// librdkafka's wait before it sends the offsets again.
const RETRY: Duration = Duration::from_millis(500);

/// A call for offsets in a transaction.
#[derive(Debug)]
pub(super) struct OffsetsCommit {
    group_id: Name,
    generation: i32,
    member_id: Name,
    group_instance_id: Option<Name>,
    partitions: Vec<PartitionRequest>,
    deadline: SimTime,
    step: Step,
    ask: Ask,
    retries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The coordinator of the transaction is told of the group.
    AddOffsets,
    /// The coordinator of the group is looked up.
    FindGroup,
    /// The coordinator of the group stores the offsets.
    Store(BrokerId),
}

impl OffsetsCommit {
    /// When the next request is due.
    pub(super) fn due(&self, has_coordinator: bool) -> Option<SimTime> {
        self.ask.due().filter(|_| has_coordinator || self.step != Step::AddOffsets)
    }
}

impl Producer {
    /// Commits offsets of a group with the transaction.
    pub(crate) fn send_offsets(
        &mut self,
        now: SimTime,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        group: &GroupMetadata,
        reply: Reply<()>,
        effects: &mut Effects,
    ) {
        if let Err(error) = self.check_offsets(offsets) {
            return reply.send(Err(error), effects);
        }
        if offsets.is_empty() {
            // librdkafka has nothing to do, and does not look at its state.
            return reply.send(self.check_open_transaction(), effects);
        }
        if !self.begin_call(Api::SendOffsets, None, reply, effects) {
            return;
        }
        let identity = self.usable_identity();
        let Some(transaction) = &mut self.transaction else { return };
        if let Err(failure) = transaction.require(&[State::InTransaction]) {
            return self.finish_call(Err(failure), Resume::No, effects);
        }
        if identity.is_none() {
            let message = "there is no producer id at the moment";
            let failure = Failure::new(ErrorKind::InvalidState, Class::Retriable, message);
            return self.finish_call(Err(failure), Resume::No, effects);
        }
        let skips_coordinator = transaction.settings.is_version_2;
        let partition =
            |(topic_partition, offset): &(TopicPartition, OffsetAndMetadata)| PartitionRequest {
                topic_partition: topic_partition.clone(),
                offset: offset.offset,
                leader_epoch: None,
                metadata: offset.metadata.as_str().into(),
            };
        transaction.offsets = Some(OffsetsCommit {
            group_id: group.group_id.as_str().into(),
            generation: group.generation,
            member_id: group.member_id.as_str().into(),
            group_instance_id: group.group_instance_id.as_deref().map(Name::from),
            partitions: offsets.iter().map(partition).collect(),
            deadline: now + CALL_TIMEOUT.min(transaction.settings.timeout),
            step: if skips_coordinator { Step::FindGroup } else { Step::AddOffsets },
            ask: Ask::Due(now),
            retries: 0,
        });
        if transaction.settings.is_version_2 {
            transaction.requests += 1;
        }
        self.pump_transaction(now, effects);
    }

    /// Sends the request that is due.
    pub(super) fn pump_offsets(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(transaction) = &self.transaction else { return };
        let Some(offsets) = &transaction.offsets else { return };
        if !offsets.ask.is_due(now) {
            return;
        }
        match offsets.step {
            Step::AddOffsets => self.ask_add_offsets(now, effects),
            Step::FindGroup => self.ask_group(now, effects),
            Step::Store(broker) => self.ask_store(now, broker, effects),
        }
    }

    fn ask_add_offsets(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(link) = self.coordinator_link(now) else { return };
        let Some(transaction) = &mut self.transaction else { return };
        let Some(offsets) = &mut transaction.offsets else { return };
        // A request that is repeated names the epoch that it had first, which has not changed
        // since.
        let Some((producer_id, producer_epoch)) = transaction.identity else { return };
        let request = Request::AddOffsetsToTxn(add_offsets_to_txn::Request {
            transactional_id: transaction.settings.id.clone(),
            producer_id,
            producer_epoch,
            group_id: offsets.group_id.clone(),
        });
        offsets.ask = Ask::Asked;
        transaction.requests += 1;
        let deadline = self.connections.deadline(now);
        self.connections.send(now, link, Token::AddOffsets, request, deadline, effects);
    }

    fn ask_group(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(transaction) = &mut self.transaction else { return };
        let Some(offsets) = &mut transaction.offsets else { return };
        offsets.ask = Ask::Asked;
        let request = Request::FindCoordinator(find_coordinator::Request {
            coordinator_type: CoordinatorType::Group,
            key: offsets.group_id.clone(),
        });
        let (token, deadline) = (Token::FindGroup, self.connections.deadline(now));
        let brokers = &self.metadata.brokers;
        self.connections.send_to_any(now, brokers, token, request, deadline, effects);
    }

    fn ask_store(&mut self, now: SimTime, broker: BrokerId, effects: &mut Effects) {
        let identity = self.usable_identity();
        let Some(transaction) = &mut self.transaction else { return };
        let Some(offsets) = &mut transaction.offsets else { return };
        let Some((producer_id, producer_epoch)) = identity else {
            return self.offsets_answered(now, Some(ErrorKind::InvalidState), effects);
        };
        if transaction.state != State::InTransaction {
            return self.offsets_answered(now, Some(ErrorKind::InvalidState), effects);
        }
        offsets.ask = Ask::Asked;
        let request = Request::TxnOffsetCommit(txn_offset_commit::Request {
            transactional_id: transaction.settings.id.clone(),
            producer_id,
            producer_epoch,
            is_version_2: transaction.settings.is_version_2,
            group_id: offsets.group_id.clone(),
            generation: offsets.generation,
            member_id: offsets.member_id.clone(),
            group_instance_id: offsets.group_instance_id.clone(),
            partitions: offsets.partitions.clone(),
        });
        // The coordinator of a group is asked on the connection for records: it is no coordinator
        // of the producer's own.
        let link = Link::data(broker);
        let deadline = self.connections.deadline(now);
        self.connections.send(now, link, Token::TxnOffsetCommit, request, deadline, effects);
    }

    pub(super) fn add_offsets_answered(
        &mut self,
        now: SimTime,
        refused: Option<ErrorKind>,
        effects: &mut Effects,
    ) {
        use ErrorKind as E;
        let Some(transaction) = &mut self.transaction else { return };
        let Some(offsets) = &mut transaction.offsets else { return };
        let is_late = offsets.deadline <= now;
        let Some(kind) = refused.or_else(|| is_late.then_some(E::TimedOut)) else {
            offsets.step = Step::FindGroup;
            offsets.ask = Ask::Due(now);
            offsets.retries = 0;
            return;
        };
        if !matches!(kind, E::NetworkException | E::TimedOut) {
            transaction.requests = transaction.requests.saturating_sub(1);
        }
        let class = match kind {
            kind if is_elsewhere(kind) => {
                transaction.coordinator.unanswered(now);
                Class::Retriable
            }
            kind if is_busy(kind) => Class::Retriable,
            E::TransactionalIdAuthorizationFailed
            | E::ClusterAuthorizationFailed
            | E::InvalidProducerEpoch
            | E::InvalidTxnState => Class::Fatal,
            _ => Class::Abortable,
        };
        if class == Class::Retriable && !is_late {
            offsets.retries += 1;
            let (first, most) = (self.config.retry_backoff, self.config.retry_backoff_max);
            offsets.ask = Ask::Due(now + backoff(first, most, offsets.retries - 1));
            return;
        }
        let message = "the group could not be added to the transaction";
        self.end_offsets(now, Failure::new(normalized(kind), class, message), effects);
    }

    pub(super) fn group_found(
        &mut self,
        now: SimTime,
        result: Result<BrokerId, ErrorKind>,
        effects: &mut Effects,
    ) {
        use ErrorKind as E;
        let Some(transaction) = &mut self.transaction else { return };
        let Some(offsets) = &mut transaction.offsets else { return };
        match result {
            Ok(broker) => {
                offsets.step = Step::Store(broker);
                offsets.ask = Ask::Due(now);
            }
            Err(
                kind @ (E::TransactionalIdAuthorizationFailed
                | E::ClusterAuthorizationFailed
                | E::GroupAuthorizationFailed),
            ) => self.offsets_answered(now, Some(kind), effects),
            Err(_) if offsets.deadline <= now => {
                self.offsets_answered(now, Some(E::TimedOut), effects);
            }
            Err(_) => offsets.ask = Ask::Due(now + RETRY),
        }
    }

    pub(super) fn offsets_answered(
        &mut self,
        now: SimTime,
        refused: Option<ErrorKind>,
        effects: &mut Effects,
    ) {
        use ErrorKind as E;
        let Some(transaction) = &mut self.transaction else { return };
        let Some(offsets) = &mut transaction.offsets else { return };
        let Some(kind) = refused else {
            transaction.offsets = None;
            return self.set_result(now, Ok(()), effects);
        };
        let is_late = offsets.deadline <= now;
        let class = match kind {
            kind if is_elsewhere(kind) => {
                offsets.step = Step::FindGroup;
                Class::Retriable
            }
            kind if is_busy(kind) => Class::Retriable,
            E::TransactionalIdAuthorizationFailed
            | E::ClusterAuthorizationFailed
            | E::InvalidProducerIdMapping
            | E::InvalidProducerEpoch
            | E::InvalidTxnState => Class::Fatal,
            _ => Class::Abortable,
        };
        if class == Class::Retriable && !is_late {
            offsets.ask = Ask::Due(now + RETRY);
            return;
        }
        let class = if class == Class::Retriable { Class::Abortable } else { class };
        let message = "the offsets could not be added to the transaction";
        self.end_offsets(now, Failure::new(normalized(kind), class, message), effects);
    }

    /// The call has failed, and with it perhaps the transaction or the producer.
    fn end_offsets(&mut self, now: SimTime, failure: Failure, effects: &mut Effects) {
        if let Some(transaction) = &mut self.transaction {
            transaction.offsets = None;
        }
        let (kind, message) = (failure.kind, failure.message.clone());
        match failure.class {
            Class::Fatal => return self.fatal_error(now, kind, message, effects),
            Class::Abortable => self.abortable_error(kind, message, effects),
            Class::Retriable | Class::Misuse => {}
        }
        self.set_result(now, Err(failure), effects);
    }

    fn check_offsets(
        &self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
    ) -> bus_core::Result<()> {
        self.check_open()?;
        for (topic_partition, offset) in offsets {
            topic_partition.validate()?;
            bus_core::consumer::validate_offset(topic_partition, offset.offset)?;
        }
        Ok(())
    }

    fn check_open_transaction(&self) -> bus_core::Result<()> {
        let Some(transaction) = &self.transaction else { return Err(not_transactional()) };
        if let Some(call) = transaction.call.as_ref().filter(|call| call.is_awaited()) {
            return Err(call.conflict().into_error());
        }
        if transaction.state.is_open() {
            return Ok(());
        }
        Err(transaction.state_failure().into_error())
    }
}

/// Whether the coordinator may be another broker by now.
const fn is_elsewhere(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotCoordinator
            | ErrorKind::CoordinatorNotAvailable
            | ErrorKind::RequestTimedOut
            | ErrorKind::NetworkException
            | ErrorKind::TimedOut
    )
}

/// Whether the coordinator will take it later.
const fn is_busy(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConcurrentTransactions
            | ErrorKind::CoordinatorLoadInProgress
            | ErrorKind::UnknownTopicOrPartition
    )
}
