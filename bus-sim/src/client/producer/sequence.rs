//! What sequences say of batches: acknowledgments that an earlier one is implied by, and batches
//! that are out of order.
//!
//! A log takes a batch of a producer only behind the one before, unless it knows nothing of the
//! producer: then it takes any (KAFKA-14359, KAFKA-15591). So what is sent before an acknowledged
//! batch is in the log, too, except perhaps before the first one that is acknowledged. librdkafka
//! takes it for delivered even there (`rd_kafka_dr_implicit_ack`), which loses it; `bus-kafka` says
//! that nobody knows, and so does this.

use bus_core::{Error, ErrorKind, Recovery, TopicPartition};

use crate::node::Effects;
use crate::policy::OutOfOrder;
use crate::protocol::produce;
use crate::time::SimTime;

use super::Producer;
use super::partition::Batch;
use super::session::Session;

/// What the error of a record says that is before the first one that was acknowledged.
const MAY_BE_MISSING: &str = "a record that was sent after it is the first one of this producer \
                              that the log has for certain: it may be missing";

impl Producer {
    /// A leader has a batch in its log.
    pub(super) fn acknowledged(
        &mut self,
        topic_partition: TopicPartition,
        batch: Batch,
        appended: Option<produce::Appended>,
        effects: &mut Effects,
    ) {
        let (mut earlier, mut is_certain) = (Vec::new(), true);
        if let Some(queue) = self.queue(&topic_partition) {
            (earlier, is_certain) = queue.take_earlier(&batch);
            queue.acknowledge(&batch);
        }
        for earlier in earlier {
            if is_certain {
                self.delivered(topic_partition.clone(), earlier, None, effects);
            } else {
                self.may_be_missing(topic_partition.clone(), earlier, effects);
            }
        }
        self.delivered(topic_partition, batch, appended, effects);
    }

    fn may_be_missing(
        &mut self,
        topic_partition: TopicPartition,
        batch: Batch,
        effects: &mut Effects,
    ) {
        if self.transaction.is_some() {
            let kind = ErrorKind::TransactionAbortable;
            self.abortable_error(kind, MAY_BE_MISSING, effects);
        }
        let error = Error::new(ErrorKind::OutOfOrderSequenceNumber, MAY_BE_MISSING);
        let error = error.with_recovery(Recovery::Retry).indeterminate();
        self.fail_batch_with(topic_partition, batch, error, effects);
    }

    /// A leader refused a batch of a producer without transactions because of its sequence, or its
    /// producer id.
    pub(super) fn out_of_order(
        &mut self,
        now: SimTime,
        topic_partition: TopicPartition,
        mut batch: Batch,
        kind: ErrorKind,
        effects: &mut Effects,
    ) {
        let queue = self.queue(&topic_partition);
        let is_oldest = queue.as_ref().is_none_or(|queue| queue.is_oldest(&batch));
        let is_ahead = queue.is_some_and(|queue| queue.is_ahead(&batch));
        if kind == ErrorKind::OutOfOrderSequenceNumber && !is_ahead {
            // The log has something else than was acknowledged: librdkafka gives up.
            batch.is_possibly_persisted = true;
            self.fatal_sequence(effects);
            return self.fail_batch(topic_partition, batch, kind, effects);
        }
        // Behind a batch that failed it is only early; the oldest one cannot be appended in this
        // session any more.
        if is_oldest {
            self.drain_session();
        } else if self.identity.policy.out_of_order == OutOfOrder::BumpEpoch {
            self.bump_session();
        }
        self.send_again(now, topic_partition, batch, effects);
    }

    /// The producer cannot go on: what is queued is dropped, and it takes nothing any more.
    fn fatal_sequence(&mut self, effects: &mut Effects) {
        self.session = Session::Failed;
        let message = "dropped because the producer has failed";
        self.fail_queues(&Error::new(ErrorKind::Purged, message), effects);
    }

    /// Refuses a record of a producer without transactions that cannot go on.
    pub(super) fn check_not_failed(&self) -> bus_core::Result<()> {
        if self.session == Session::Failed && self.transaction.is_none() {
            let message = "the sequences of the producer and of a leader differ";
            return Err(Error::new(ErrorKind::Fatal, message));
        }
        Ok(())
    }

    fn bump_session(&mut self) {
        if let Session::Assigned { id, epoch } = self.session {
            self.session = Session::Bumping { id, epoch };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bus_core::Delivery;

    use super::super::script::{Script, delivered, identity, produced};
    use super::*;

    /// A producer with two batches in flight, the first ones of its session.
    fn with_two_in_flight() -> (Script, [Delivery; 2]) {
        let mut script = Script::of(|identity, config| Producer::new(identity, config, 1, None));
        let first = script.send();
        script.answer_metadata();
        script.pass(Duration::from_millis(1));
        script.answer(identity(5, 0));
        let second = script.send();
        script.pass(Duration::from_millis(1));
        assert_eq!(script.requests.len(), 2, "{:?}", script.requests);
        (script, [first, second])
    }

    #[test]
    fn what_a_leader_refused_before_the_first_that_it_took_may_be_missing() {
        let (mut script, [first, second]) = with_two_in_flight();
        script.answer(produced(Err(ErrorKind::NotEnoughReplicas)));
        script.answer(produced(Ok(0)));
        let error = delivered(first).unwrap_err();
        assert!(error.is_indeterminate(), "{error}");
        assert_eq!(error.recovery(), Recovery::Retry);
        assert_eq!(delivered(second).unwrap().offset, Some(0));
        // From here on the leader takes only what follows.
        let [first, second] = [(); 2].map(|()| {
            let delivery = script.send();
            script.pass(Duration::from_millis(1));
            delivery
        });
        script.answer(produced(Err(ErrorKind::NotEnoughReplicasAfterAppend)));
        script.answer(produced(Ok(2)));
        assert_eq!(delivered(first).unwrap().offset, None);
        assert_eq!(delivered(second).unwrap().offset, Some(2));
    }

    #[test]
    fn a_sequence_that_the_leader_does_not_expect_ends_the_producer() {
        let (mut script, [first, second]) = with_two_in_flight();
        script.answer(produced(Err(ErrorKind::OutOfOrderSequenceNumber)));
        let error = delivered(first).unwrap_err();
        assert!(error.is_indeterminate(), "{error}");
        assert_eq!(delivered(script.send()).unwrap_err().kind(), ErrorKind::Fatal);
        script.answer(produced(Ok(0)));
        assert!(delivered(second).is_ok());
    }
}
