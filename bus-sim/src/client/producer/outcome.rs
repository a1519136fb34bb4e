//! What comes of batches: delivered, to be sent again, or failed.

use std::time::Duration;

use bus_core::{Acks, DeliverySender, Error, ErrorKind, Operation, Recovery, TopicPartition};

use crate::client::{Completion, DeliveredBatch, backoff};
use crate::mutation::Mutation;
use crate::node::Effects;
use crate::protocol::batch::{BATCH_OVERHEAD, ProducerEpoch, ProducerId};
use crate::protocol::{metadata, produce};
use crate::time::SimTime;

use super::Producer;
use super::dispatch::SESSION_RETRY;
use super::partition::{Batch, PartitionQueue, Pending};
use super::planted;
use super::session::Session;
use super::topic::TopicState;
use super::transaction::failed_delivery;

/// `topic.metadata.propagation.max.ms`: a topic that is unknown for this long does not exist. 5 s
/// is what `bus-kafka` sets; librdkafka's own default is 30 s.
const PROPAGATION: Duration = Duration::from_secs(5);

impl Producer {
    /// A batch is in the log (or was sent off, with acks=0).
    pub(super) fn delivered(
        &mut self,
        topic_partition: TopicPartition,
        batch: Batch,
        appended: Option<produce::Appended>,
        effects: &mut Effects,
    ) {
        self.settle(&topic_partition, &batch, effects);
        if batch.attempts > 0 && self.mutation == Some(Mutation::RetryDeliveredSilently) {
            return planted::forget(batch);
        }
        let timestamps = batch.content.records.iter().map(|record| record.timestamp);
        let records = batch.senders.into_iter().zip(timestamps).collect();
        effects.complete(Completion::Delivered(DeliveredBatch {
            topic_partition,
            base_offset: appended.map(|appended| appended.base_offset),
            log_append_time: appended.and_then(|appended| appended.log_append_time),
            records,
        }));
    }

    /// The broker refused a batch.
    pub(super) fn refused(
        &mut self,
        now: SimTime,
        topic_partition: TopicPartition,
        mut batch: Batch,
        kind: ErrorKind,
        effects: &mut Effects,
    ) {
        use ErrorKind as E;
        match kind {
            E::DuplicateSequenceNumber => {
                // In the log since too long ago to say where.
                self.acknowledged(topic_partition, batch, None, effects);
            }
            E::OutOfOrderSequenceNumber | E::UnknownProducerId | E::InvalidProducerEpoch
                if self.transaction.is_some() =>
            {
                self.sequence_refused(now, topic_partition, batch, kind, effects);
            }
            E::OutOfOrderSequenceNumber | E::UnknownProducerId | E::InvalidProducerEpoch => {
                self.out_of_order(now, topic_partition, batch, kind, effects);
            }
            E::NotLeaderOrFollower
            | E::LeaderNotAvailable
            | E::UnknownTopicOrPartition
            | E::FencedLeaderEpoch
            | E::UnknownTopicId => {
                // A leader that lost the leadership while the batch was replicated says so, too.
                batch.is_possibly_persisted |=
                    kind == E::NotLeaderOrFollower && self.config.acks == Acks::All;
                self.want_metadata(now, effects);
                self.retry_or_fail(now, topic_partition, batch, kind, effects);
            }
            E::RequestTimedOut | E::NotEnoughReplicasAfterAppend => {
                batch.is_possibly_persisted = true;
                self.retry_or_fail(now, topic_partition, batch, kind, effects);
            }
            kind if kind.recovery() == Recovery::Retry => {
                self.retry_or_fail(now, topic_partition, batch, kind, effects);
            }
            kind => self.give_up(topic_partition, batch, kind, effects),
        }
    }

    /// There is no response to a batch.
    pub(super) fn lost(
        &mut self,
        now: SimTime,
        topic_partition: TopicPartition,
        mut batch: Batch,
        was_sent: bool,
        effects: &mut Effects,
    ) {
        if self.mutation == Some(Mutation::FailedBatchForgotten) {
            self.settle(&topic_partition, &batch, effects);
            return planted::forget(batch);
        }
        batch.is_possibly_persisted |= was_sent;
        self.want_metadata_later(now, effects);
        self.retry_or_fail(now, topic_partition, batch, ErrorKind::NetworkException, effects);
    }

    /// The broker answered to the request for a producer id.
    pub(super) fn initialized(
        &mut self,
        now: SimTime,
        result: Result<(i64, i16), ErrorKind>,
        effects: &mut Effects,
    ) {
        let Session::Requested { attempt } = self.session else { return };
        match result {
            Ok((id, epoch)) => {
                self.session = Session::Assigned { id, epoch };
                self.restamp_queues((id, epoch));
                self.identified(now, (id, epoch), effects);
            }
            Err(kind) if self.transaction.is_some() => {
                self.identity_refused(now, kind, attempt, effects);
            }
            Err(_) => {
                let retry_at = now + SESSION_RETRY;
                self.session = Session::Unassigned { retry_at, attempt: attempt + 1 };
                self.watch_retry(retry_at, effects);
            }
        }
    }

    /// Numbers what is queued from the start, for a new producer id or epoch.
    pub(super) fn restamp_queues(&mut self, identity: (ProducerId, ProducerEpoch)) {
        for state in self.topics.values_mut() {
            for queue in &mut state.partitions {
                queue.restamp(identity);
            }
        }
    }

    /// Metadata arrived: records that waited for it get their partitions.
    pub(super) fn learn(
        &mut self,
        now: SimTime,
        response: &metadata::Response,
        effects: &mut Effects,
    ) {
        self.metadata.update(response);
        let (mut is_missing, mut is_unasked) = (false, false);
        let mut topics = std::mem::take(&mut self.topics);
        for (topic, state) in &mut topics {
            match self.metadata.partitions(topic) {
                Some(count) => {
                    state.is_missing = false;
                    let count = usize::try_from(count).unwrap_or(0);
                    // A topic that shrank was made again; its queues are kept for their records.
                    while state.partitions.len() < count {
                        state.partitions.push(PartitionQueue::default());
                    }
                    self.assign_waiting(now, topic, state, effects);
                }
                // The first record came while the request was under way: it says nothing of it.
                None if response.topics.iter().all(|found| found.topic != *topic) => {
                    is_unasked |= !state.unassigned.is_empty();
                }
                None if now.since(state.unknown_since) >= PROPAGATION => {
                    state.is_missing = true;
                    let waiting = state.unassigned.drain(..).map(|(_, pending)| pending).collect();
                    self.fail_pending(waiting, |_| unknown_topic(topic), effects);
                }
                None => is_missing |= !state.unassigned.is_empty(),
            }
        }
        self.topics = topics;
        self.answer_partition_requests(response, effects);
        if is_unasked {
            self.want_metadata(now, effects);
        } else if is_missing {
            self.want_metadata_later(now, effects);
        }
    }

    /// Fails what ran out of time before it could be sent.
    pub(super) fn expire(&mut self, now: SimTime, effects: &mut Effects) {
        let timeout = self.config.delivery_timeout;
        let mut oldest: Option<SimTime> = None;
        let mut expired_pending = Vec::new();
        let mut expired_batches = Vec::new();
        let mut expired_in_queue = 0;
        for (topic, state) in &mut self.topics {
            let is_expired = |enqueued: SimTime| enqueued + timeout <= now;
            let count =
                state.unassigned.partition_point(|(_, pending)| is_expired(pending.enqueued));
            expired_pending.extend(state.unassigned.drain(..count).map(|(_, pending)| pending));
            for (partition, queue) in (0..).zip(&mut state.partitions) {
                let expired = queue.take_expired(is_expired);
                expired_in_queue += expired.len();
                expired_pending.extend(expired);
                while queue.retries.front().is_some_and(|retry| is_expired(retry.enqueued)) {
                    let topic_partition = TopicPartition { topic: topic.clone(), partition };
                    expired_batches
                        .extend(queue.retries.pop_front().map(|retry| (topic_partition, retry)));
                }
                let heads = [
                    queue.retries.front().map(|retry| retry.enqueued),
                    queue.open.front().map(|pending| pending.enqueued),
                ];
                oldest = oldest.into_iter().chain(heads.into_iter().flatten()).min();
            }
            let waiting = state.unassigned.front().map(|(_, pending)| pending.enqueued);
            oldest = oldest.into_iter().chain(waiting).min();
        }
        self.fail_pending(expired_pending, |_| timed_out().definite(), effects);
        for (topic_partition, batch) in expired_batches {
            self.give_up(topic_partition, batch, ErrorKind::MessageTimedOut, effects);
        }
        if expired_in_queue > 0 && self.transaction.is_some() {
            self.records_timed_out(effects);
        }
        // What is in flight has its own deadline; look again when the oldest in a queue is due.
        if self.buffered_records > 0 {
            self.watch_delivery_timeout(oldest.unwrap_or(now), effects);
        }
    }

    /// Fails everything that is in the buffer or in flight.
    pub(super) fn fail_everything(&mut self, effects: &mut Effects) {
        let mut failed = Vec::new();
        let purged = || Error::new(ErrorKind::Purged, "the producer was closed before delivery");
        for state in std::mem::take(&mut self.topics).into_values() {
            let waiting = state.unassigned.into_iter().map(|(_, pending)| pending);
            failed.extend(waiting.map(|pending| (pending.sender, purged())));
            for queue in state.partitions {
                failed.extend(queue.open.into_iter().map(|pending| (pending.sender, purged())));
                failed.extend(queue.retries.into_iter().flat_map(purged_batch));
            }
        }
        for token in self.connections.take_tokens() {
            if let super::Token::Produce(_, mut batch) = token {
                batch.is_possibly_persisted = true;
                failed.extend(purged_batch(batch));
            }
        }
        self.buffered_records = 0;
        self.buffered_bytes = 0;
        for flush in self.flushes.drain(..) {
            if let Some(reply) = flush.reply {
                reply.send(Ok(()), effects);
            }
        }
        self.undelivered(failed, effects);
    }

    /// Drops what is queued, as aborting a transaction does; what is in flight goes on.
    pub(super) fn purge_queues(&mut self, effects: &mut Effects) {
        self.fail_queues(&Error::new(ErrorKind::Purged, "dropped with its transaction"), effects);
    }

    /// Fails what is queued; what is in flight goes on.
    pub(super) fn fail_queues(&mut self, why: &Error, effects: &mut Effects) {
        let certain = || why.clone().definite().with_operation(Operation::Send);
        let mut failed = Vec::new();
        let mut is_any_in_log = false;
        let mut topics = std::mem::take(&mut self.topics);
        for state in topics.values_mut() {
            let waiting = state.unassigned.drain(..).map(|(_, pending)| pending);
            let mut pending = waiting.collect::<Vec<_>>();
            for queue in &mut state.partitions {
                let (open, retries) = queue.purge();
                pending.extend(open);
                for batch in retries {
                    is_any_in_log |= batch.is_possibly_persisted;
                    let bytes = payload_bytes(&batch);
                    self.release(&batch.numbers, bytes, effects);
                    let error = certain();
                    let is_known = !batch.is_possibly_persisted;
                    let error = if is_known { error } else { error.indeterminate() };
                    let senders = batch.senders.into_iter();
                    failed.extend(senders.map(|sender| (sender, error.clone())));
                }
            }
            for pending in pending {
                self.release(&[pending.number], u64::from(pending.size), effects);
                failed.push((pending.sender, certain()));
            }
        }
        self.topics = topics;
        if is_any_in_log {
            self.purged_what_may_be_in_the_log();
        }
        self.undelivered(failed, effects);
    }

    /// Fails a record that was not taken into the buffer after all.
    pub(super) fn reject(&mut self, pending: Pending, error: Error, effects: &mut Effects) {
        self.release(&[pending.number], u64::from(pending.size), effects);
        let error = error.with_operation(Operation::Send);
        effects.complete(Completion::Undelivered(vec![(pending.sender, error)]));
    }

    /// Reports records that were not delivered.
    fn undelivered(&mut self, mut failed: Vec<(DeliverySender, Error)>, effects: &mut Effects) {
        if failed.is_empty() {
            return;
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.count_failures(failed.len());
            for (_, error) in &mut failed {
                *error = failed_delivery(error.clone());
            }
        }
        effects.complete(Completion::Undelivered(failed));
    }

    /// Fails records that no batch has.
    pub(super) fn fail_pending(
        &mut self,
        records: Vec<Pending>,
        error: impl Fn(&Pending) -> Error,
        effects: &mut Effects,
    ) {
        if records.is_empty() {
            return;
        }
        let mut failed = Vec::with_capacity(records.len());
        for pending in records {
            self.release(&[pending.number], u64::from(pending.size), effects);
            let error = error(&pending).with_operation(Operation::Send);
            failed.push((pending.sender, error));
        }
        self.undelivered(failed, effects);
    }

    fn assign_waiting(
        &mut self,
        now: SimTime,
        topic: &bus_core::Topic,
        state: &mut TopicState,
        effects: &mut Effects,
    ) {
        let bias = self.key_bias();
        for (explicit, pending) in std::mem::take(&mut state.unassigned) {
            let key = pending.record.key.as_deref();
            let linger = self.config.sticky_linger;
            match state.partition_for(now, &self.identity, topic, explicit, key, linger, bias) {
                Some(Ok(partition)) => {
                    state.partitions[partition].push(pending);
                    if self.transaction.is_some() {
                        let place = super::topic_partition(topic, partition);
                        self.add_to_transaction(now, place, effects);
                    }
                }
                // As if it had not been taken: librdkafka knows the topics when it starts.
                Some(Err(error)) => self.reject(pending, error, effects),
                None => state.unassigned.push_back((explicit, pending)),
            }
        }
    }

    fn answer_partition_requests(&mut self, response: &metadata::Response, effects: &mut Effects) {
        for (topic, reply) in std::mem::take(&mut self.partition_requests) {
            let Some(found) = response.topics.iter().find(|found| found.topic == topic) else {
                self.partition_requests.push((topic, reply));
                continue;
            };
            let partitions = match &found.result {
                Ok(details) => Ok(i32::try_from(details.partitions.len()).unwrap_or(i32::MAX)),
                Err(kind) => Err(Error::new(*kind, format!("topic {topic} has no metadata"))),
            };
            reply.send(partitions, effects);
        }
    }

    fn retry_or_fail(
        &mut self,
        now: SimTime,
        topic_partition: TopicPartition,
        batch: Batch,
        kind: ErrorKind,
        effects: &mut Effects,
    ) {
        if batch.enqueued + self.config.delivery_timeout <= now {
            self.give_up(topic_partition, batch, ErrorKind::MessageTimedOut, effects);
        } else if batch.attempts >= self.config.retries {
            self.give_up(topic_partition, batch, kind, effects);
        } else {
            self.send_again(now, topic_partition, batch, effects);
        }
    }

    pub(super) fn send_again(
        &mut self,
        now: SimTime,
        topic_partition: TopicPartition,
        mut batch: Batch,
        effects: &mut Effects,
    ) {
        let wait =
            backoff(self.config.retry_backoff, self.config.retry_backoff_max, batch.attempts);
        batch.attempts += 1;
        batch.retry_at = now + wait;
        self.watch_retry(batch.retry_at, effects);
        let is_idempotent = self.session != Session::Off;
        if let Some(queue) = self.queue(&topic_partition) {
            queue.landed(&batch);
            queue.put_back(batch);
            if is_idempotent {
                queue.drain();
            }
        }
    }

    /// Fails a batch for good. Its sequences are missing then, so the session must end; a policy
    /// gives them out again instead.
    fn give_up(
        &mut self,
        topic_partition: TopicPartition,
        batch: Batch,
        kind: ErrorKind,
        effects: &mut Effects,
    ) {
        let reuses_sequences = self.identity.policy.timeout_reuses_sequences;
        if self.transaction.is_some() {
            self.given_up_in_transaction(&topic_partition, kind, effects);
        } else if kind == ErrorKind::MessageTimedOut && reuses_sequences {
            if let Some(queue) = self.queue(&topic_partition) {
                queue.rewind(&batch);
            }
        } else {
            self.drain_session();
        }
        self.fail_batch(topic_partition, batch, kind, effects);
    }

    /// Reports the records of a batch as not delivered.
    pub(super) fn fail_batch(
        &mut self,
        topic_partition: TopicPartition,
        batch: Batch,
        kind: ErrorKind,
        effects: &mut Effects,
    ) {
        let error = match kind {
            ErrorKind::MessageTimedOut => timed_out(),
            kind => Error::new(kind, ""),
        };
        let is_in_doubt =
            batch.is_possibly_persisted && self.mutation != Some(Mutation::TimeoutCalledDefinite);
        let error = if is_in_doubt { error.indeterminate() } else { error.definite() };
        self.fail_batch_with(topic_partition, batch, error, effects);
    }

    /// Reports the records of a batch as not delivered, with that error.
    pub(super) fn fail_batch_with(
        &mut self,
        topic_partition: TopicPartition,
        batch: Batch,
        error: Error,
        effects: &mut Effects,
    ) {
        self.settle(&topic_partition, &batch, effects);
        let error = error.with_operation(Operation::Send).with_topic_partition(topic_partition);
        let failed = batch.senders.into_iter().map(|sender| (sender, error.clone())).collect();
        self.undelivered(failed, effects);
    }

    /// A batch has its final outcome: its room in the buffer is free.
    fn settle(&mut self, topic_partition: &TopicPartition, batch: &Batch, effects: &mut Effects) {
        if let Some(queue) = self.queue(topic_partition) {
            queue.landed(batch);
        }
        self.release(&batch.numbers, payload_bytes(batch), effects);
    }

    fn release(&mut self, numbers: &[u64], bytes: u64, effects: &mut Effects) {
        self.buffered_records -= u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        self.buffered_bytes = self.buffered_bytes.saturating_sub(bytes);
        for flush in &mut self.flushes {
            let done = numbers.partition_point(|number| *number < flush.before);
            flush.remaining -= u32::try_from(done).unwrap_or(u32::MAX).min(flush.remaining);
            if flush.remaining == 0
                && let Some(reply) = flush.reply.take()
            {
                reply.send(Ok(()), effects);
            }
        }
        self.flushes.retain(|flush| flush.remaining > 0);
        if self.has_room() {
            self.wake_ready(effects);
        }
    }

    pub(super) fn drain_session(&mut self) {
        if matches!(self.session, Session::Assigned { .. } | Session::Bumping { .. }) {
            self.session = Session::Draining;
        }
    }

    pub(super) fn queue(
        &mut self,
        topic_partition: &TopicPartition,
    ) -> Option<&mut PartitionQueue> {
        let index = usize::try_from(topic_partition.partition).ok()?;
        self.topics.get_mut(&topic_partition.topic)?.partitions.get_mut(index)
    }
}

/// The bytes of a batch's records.
fn payload_bytes(batch: &Batch) -> u64 {
    u64::from(batch.content.size.saturating_sub(BATCH_OVERHEAD))
}

fn timed_out() -> Error {
    Error::new(ErrorKind::MessageTimedOut, "not delivered within delivery.timeout.ms")
}

pub(super) fn unknown_topic(topic: &bus_core::Topic) -> Error {
    let message = format!("topic {topic} does not exist; create it first");
    Error::new(ErrorKind::UnknownTopicOrPartition, message)
}

fn purged_batch(batch: Batch) -> impl Iterator<Item = (DeliverySender, Error)> {
    let error = Error::new(ErrorKind::Purged, "the producer was closed before delivery");
    let error = if batch.is_possibly_persisted { error.indeterminate() } else { error };
    batch.senders.into_iter().map(move |sender| (sender, error.clone()))
}
