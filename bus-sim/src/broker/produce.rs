//! Produce: appends batches to the logs of partitions.
//!
//! - Checks, in this order: transactional id, internal topic, the verdict of the transaction's
//!   coordinator (see `transaction::verification`), leader, in-sync replicas (`acks=all`), size,
//!   record rules, timestamps, then whether the transaction is open, and the producer's epoch and
//!   sequence.
//! - Answers when `acks` is satisfied; with `All`, when the high watermark passes the batch (an
//!   error if too few are in sync then), the leadership is lost, or the request's timeout ends. A
//!   batch that was appended before is answered with its offset.
//! - With `acks=0` there is no response; an error closes the connection.
//!
//! Simplified: one batch per partition and request (as clients send); no compression.
//! Absent: quotas. See `docs/fidelity.md`.

use std::sync::Arc;

use bus_core::{Acks, Bytes, ErrorKind, Headers, Offset, TopicPartition};

use super::connections::Caller;
use super::producer_state::ProducerRules;
use super::replica::{Append, Limits};
use super::session::schedule;
use super::topic_control::is_internal;
use super::transaction::guard::Guard;
use super::transaction::verification::Verdicts;
use super::{Broker, BrokerTimer};
use crate::config::SimConfig;
use crate::fact::Fact;
use crate::mutation::Mutation;
use crate::node::{ConnectionId, Effects, Timer};
use crate::protocol::Response;
use crate::protocol::batch::{BatchRecord, RecordBatch};
use crate::protocol::produce::{self, Appended, PartitionResponse};
use crate::time::SimTime;

/// A produce request with `acks=all` whose batches are not yet replicated.
#[derive(Debug)]
pub(super) struct DelayedProduce {
    caller: Caller,
    response: produce::Response,
    /// By index of the response: the high watermark that it waits for.
    required: Vec<(usize, Offset)>,
}

impl Broker {
    /// Appends what needs no verdict of a coordinator, or has it.
    pub(super) fn append_produced(
        &mut self,
        now: SimTime,
        caller: Caller,
        request: produce::Request,
        verdicts: &Verdicts,
        effects: &mut Effects,
    ) {
        let is_authorized = request.transactional_id.is_some()
            || request.partitions.iter().all(|partition| !partition.batch.is_transactional);
        let waits = request.acks == Acks::All && !self.has(Mutation::AckedBeforeReplicated);
        let mut required = Vec::new();
        let mut partitions = Vec::with_capacity(request.partitions.len());
        for produce::PartitionRequest { topic_partition, batch } in request.partitions {
            let verdict = verdicts.get(&topic_partition).copied().transpose();
            let result = match verdict {
                _ if !is_authorized => Err(ErrorKind::TransactionalIdAuthorizationFailed),
                Err(error) => Err(known_to_producers(error, request.is_version_2)),
                Ok(guard) => {
                    self.append(now, request.acks, &topic_partition, batch, guard, effects)
                }
            };
            match &result {
                Ok(appended) if waits => required.push((partitions.len(), appended.end)),
                Ok(_) => {}
                Err(error) => effects.fact(Fact::ProduceRefused {
                    topic_partition: topic_partition.clone(),
                    error: *error,
                }),
            }
            let result = result.map(|outcome| outcome.appended);
            partitions.push(PartitionResponse { topic_partition, result });
        }
        let mut response = produce::Response { partitions };
        self.settle(&mut response, &mut required);
        let grown: Vec<_> = response
            .partitions
            .iter()
            .filter(|partition| partition.result.is_ok())
            .map(|partition| partition.topic_partition.clone())
            .collect();
        match request.acks {
            Acks::None if response.partitions.iter().any(|p| p.result.is_err()) => {
                self.connections.closed(caller.connection);
                effects.disconnect(caller.connection);
            }
            Acks::None => {
                self.connections.done(caller);
            }
            Acks::All if !required.is_empty() => {
                let connection = caller.connection;
                let at = now + request.timeout;
                schedule(BrokerTimer::ProduceExpires { connection }, at, effects);
                let delayed = DelayedProduce { caller, response, required };
                self.produces.insert(connection, delayed);
            }
            Acks::All | Acks::Leader => {
                self.connections.respond(caller, Response::Produce(response), effects);
            }
        }
        grown.iter().for_each(|topic_partition| self.partition_grew(topic_partition, effects));
    }

    fn append(
        &mut self,
        now: SimTime,
        acks: Acks,
        topic_partition: &TopicPartition,
        batch: Arc<RecordBatch>,
        guard: Option<Guard>,
        effects: &mut Effects,
    ) -> Result<Outcome, ErrorKind> {
        if is_internal(&topic_partition.topic) {
            return Err(ErrorKind::InvalidTopic);
        }
        let mutation = self.config.mutation;
        let missing = self.no_replica(topic_partition);
        let replica = self.replicas.get_mut(topic_partition).ok_or(missing)?;
        replica.check_leader(None)?;
        if acks == Acks::All && replica.lacks_replicas() {
            return Err(ErrorKind::NotEnoughReplicas);
        }
        let count = i64::try_from(batch.records.len()).unwrap_or(0);
        let batch = mutation.map_or_else(|| Arc::clone(&batch), |m| mutated(m, now, &batch));
        let limits = Limits {
            message_max_bytes: self.config.broker.message_max_bytes,
            producers: producer_rules(&self.config),
            checks_sequences: mutation != Some(Mutation::SequenceIgnored),
        };
        let (base_offset, log_append_time) = match replica.append(now, &batch, guard, limits)? {
            Append::Appended { base_offset, log_append_time } => {
                effects.fact(Fact::Appended {
                    broker: self.id,
                    topic_partition: topic_partition.clone(),
                    base_offset,
                    count: u32::try_from(batch.records.len()).unwrap_or(u32::MAX),
                    digest: batch.digest,
                });
                (base_offset, log_append_time)
            }
            Append::Duplicate { base_offset, timestamp } => {
                let topic_partition = topic_partition.clone();
                effects.fact(Fact::DuplicateBatch { topic_partition, base_offset });
                if mutation == Some(Mutation::DuplicateAnsweredAsError) {
                    return Err(ErrorKind::OutOfOrderSequenceNumber);
                }
                let is_last = mutation == Some(Mutation::DuplicateAnsweredWithLogEnd);
                let base_offset = if is_last { replica.log.end() - count } else { base_offset };
                // Kafka names a time here also where records keep their own.
                (base_offset, Some(timestamp))
            }
        };
        let wrong = i64::from(mutation == Some(Mutation::AckedWithWrongOffset));
        let log_start = replica.log.start();
        let appended = Appended { base_offset: base_offset + wrong, log_append_time, log_start };
        Ok(Outcome { appended, end: base_offset + count })
    }

    /// Answers the delayed produces of a partition whose batches are replicated, or cannot be by
    /// this broker any more.
    pub(super) fn settle_produces(
        &mut self,
        topic_partition: &TopicPartition,
        effects: &mut Effects,
    ) {
        let mut produces = std::mem::take(&mut self.produces);
        produces.retain(|connection, delayed| {
            let DelayedProduce { caller, response, required } = delayed;
            let mut of = required.iter().map(|(index, _)| &response.partitions[*index]);
            if !of.any(|partition| partition.topic_partition == *topic_partition) {
                return true;
            }
            self.settle(response, required);
            if required.is_empty() {
                let connection = *connection;
                effects.cancel_timer(Timer::Broker(BrokerTimer::ProduceExpires { connection }));
                let partitions = std::mem::take(&mut response.partitions);
                let response = Response::Produce(produce::Response { partitions });
                self.connections.respond(*caller, response, effects);
            }
            !required.is_empty()
        });
        self.produces = produces;
    }

    /// Decides the batches that wait no longer.
    fn settle(&self, response: &mut produce::Response, required: &mut Vec<(usize, Offset)>) {
        required.retain(|(index, end)| {
            let partition = &mut response.partitions[*index];
            match self.replication_of(&partition.topic_partition, *end) {
                None => true,
                Some(Ok(())) => false,
                Some(Err(error)) => {
                    partition.result = Err(error);
                    false
                }
            }
        });
    }

    /// Whether a partition is replicated up to an offset, if that is decided.
    fn replication_of(
        &self,
        topic_partition: &TopicPartition,
        end: Offset,
    ) -> Option<Result<(), ErrorKind>> {
        match self.leader(topic_partition, None) {
            Err(error) => Some(Err(error)),
            Ok(replica) if replica.high_watermark() < end => None,
            Ok(replica) if replica.lacks_replicas_after_append() => {
                Some(Err(ErrorKind::NotEnoughReplicasAfterAppend))
            }
            Ok(_) => Some(Ok(())),
        }
    }

    /// Answers a delayed produce; what is not replicated by now has timed out.
    pub(super) fn expire_produce(&mut self, connection: ConnectionId, effects: &mut Effects) {
        let Some(delayed) = self.produces.remove(&connection) else { return };
        let DelayedProduce { caller, mut response, mut required } = delayed;
        self.settle(&mut response, &mut required);
        for (index, _) in required {
            response.partitions[index].result = Err(ErrorKind::RequestTimedOut);
        }
        self.connections.respond(caller, Response::Produce(response), effects);
    }
}

/// What producers are checked by.
pub(super) fn producer_rules(config: &SimConfig) -> ProducerRules {
    ProducerRules {
        expiration: config.broker.producer_id_expiration,
        verifies_transactions: config.broker.transaction_partition_verification,
        checks_epochs: !matches!(
            config.mutation,
            Some(Mutation::ZombieTransactionAccepted | Mutation::ZombieAppendAccepted)
        ),
    }
}

/// Why a batch was not verified, in the words of a produce response. What may pass becomes an error
/// that all producers try again without asking for metadata.
const fn known_to_producers(error: ErrorKind, is_version_2: bool) -> ErrorKind {
    match error {
        ErrorKind::NetworkException
        | ErrorKind::CoordinatorLoadInProgress
        | ErrorKind::CoordinatorNotAvailable
        | ErrorKind::NotCoordinator => ErrorKind::NotEnoughReplicas,
        ErrorKind::ConcurrentTransactions if !is_version_2 => ErrorKind::NotEnoughReplicas,
        error => error,
    }
}

/// What came of a batch.
struct Outcome {
    appended: Appended,
    /// The offset behind it.
    end: Offset,
}

/// What a planted bug makes of a batch before it is appended.
fn mutated(mutation: Mutation, now: SimTime, batch: &Arc<RecordBatch>) -> Arc<RecordBatch> {
    let change: &dyn Fn(&mut BatchRecord) = match mutation {
        Mutation::PayloadCut => &|record| {
            if let Some(value) = &mut record.value {
                value.truncate(PAYLOAD_KEPT);
            }
        },
        Mutation::HeadersLost => &|record| record.headers = Headers::new(),
        Mutation::NullBecomesEmpty => &|record| {
            record.value.get_or_insert_with(Bytes::new);
        },
        Mutation::TimestampLost => &|record| record.timestamp = now.timestamp(),
        _ => return Arc::clone(batch),
    };
    let mut records = batch.records.to_vec();
    records.iter_mut().for_each(change);
    let changed = RecordBatch::new(batch.producer, records);
    Arc::new(RecordBatch { is_transactional: batch.is_transactional, ..changed })
}

/// What [`Mutation::PayloadCut`] keeps of a value.
const PAYLOAD_KEPT: usize = 64 * 1024;
