//! Batches of a transaction that a leader refused, or that ran out of time: what is not delivered
//! is no part of the transaction, so it must be aborted.

use bus_core::{ErrorKind, TopicPartition};

use crate::node::Effects;
use crate::time::SimTime;

use super::super::Producer;
use super::super::partition::Batch;
use super::super::session::Session;

impl Producer {
    /// A leader refused a batch because of its producer id, epoch, or sequence.
    pub(in crate::client::producer) fn sequence_refused(
        &mut self,
        now: SimTime,
        topic_partition: TopicPartition,
        mut batch: Batch,
        kind: ErrorKind,
        effects: &mut Effects,
    ) {
        let is_ahead = self.queue(&topic_partition).is_some_and(|queue| queue.is_ahead(&batch));
        match kind {
            ErrorKind::OutOfOrderSequenceNumber if is_ahead => {
                // One before it failed, so it is only early. It would be sent again, were it not
                // for the abort.
                self.send_again(now, topic_partition, batch, effects);
                if self.identity.policy.epoch_bump_keeps_transaction {
                    return self.drain_session();
                }
                let message = "a batch was refused because one before it had failed";
                self.abortable_error_with_bump(kind, message, effects);
            }
            ErrorKind::OutOfOrderSequenceNumber => {
                // What the log holds is not what was acknowledged.
                batch.is_possibly_persisted = true;
                let message = "the sequences of the producer and of the leader differ";
                self.fatal_error(now, kind, message, effects);
                self.fail_batch(topic_partition, batch, kind, effects);
            }
            ErrorKind::UnknownProducerId => {
                let message = "the leader does not know the producer id any more";
                self.abortable_error_with_bump(kind, message, effects);
                self.fail_batch(topic_partition, batch, kind, effects);
            }
            _ => {
                let message = "a newer producer uses the transactional id";
                self.fatal_error(now, ErrorKind::ProducerFenced, message, effects);
                self.fail_batch(topic_partition, batch, kind, effects);
            }
        }
    }

    /// A batch is given up.
    pub(in crate::client::producer) fn given_up_in_transaction(
        &mut self,
        topic_partition: &TopicPartition,
        kind: ErrorKind,
        effects: &mut Effects,
    ) {
        if kind == ErrorKind::MessageTimedOut {
            self.records_timed_out(effects);
        } else {
            let message = format!("records for {topic_partition} were not delivered");
            self.abortable_error(kind, message, effects);
        }
    }

    /// An abort dropped batches that a leader may have.
    ///
    /// librdkafka 2.12 gives their sequences out again, so that a leader that has them takes the
    /// first batch of the next transaction for a repetition: it is acknowledged, committed, and
    /// lost. Raising the epoch is what it takes.
    pub(in crate::client::producer) fn purged_what_may_be_in_the_log(&mut self) {
        if let Some(transaction) = &mut self.transaction
            && !transaction.settings.reuses_sequences
        {
            transaction.needs_epoch_bump = true;
            if matches!(self.session, Session::Assigned { .. }) {
                self.session = Session::AwaitingAbort;
            }
        }
    }

    /// Records of a partition ran out of time: their sequences are missing.
    pub(in crate::client::producer) fn records_timed_out(&mut self, effects: &mut Effects) {
        if matches!(self.session, Session::Assigned { .. }) {
            let message = "records ran out of time";
            self.abortable_error_with_bump(ErrorKind::TimedOut, message, effects);
        }
    }
}
