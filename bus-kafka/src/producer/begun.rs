//! Which partitions are known to have records of an idempotent producer: what librdkafka takes for
//! delivered before the first of them may be missing.
//!
//! A log takes a batch of a producer only behind the one before, unless it knows nothing of the
//! producer: then it takes any (KAFKA-14359, KAFKA-15591). So when a batch is refused, because the
//! leader has not heard of the partition or too few replicas are in sync, and the next one that is
//! under way is appended, the first one cannot come back. librdkafka 2.12 takes it for delivered
//! then (`rd_kafka_dr_implicit_ack`), without an offset. Seen on Kafka 4.3.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use bus_core::{Error, ErrorKind, Offset, Recovery, Result, TopicPartition};
use parking_lot::Mutex;

/// The partitions that have said where a record is.
#[derive(Debug, Default)]
pub(super) struct Begun {
    partitions: Mutex<Partitions>,
    /// Whether a record that may be missing was told of since this was last asked.
    has_doubt: AtomicBool,
}

#[derive(Debug, Default)]
struct Partitions {
    /// The last one: outcomes come in batches, each of one partition.
    last: Option<TopicPartition>,
    all: BTreeSet<TopicPartition>,
}

impl Begun {
    /// Notes where a record is, or says that it may be missing, if the log has not said so.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfOrderSequenceNumber`], indeterminate.
    pub(super) fn check(
        &self,
        topic_partition: &TopicPartition,
        offset: Option<Offset>,
    ) -> Result<()> {
        let mut partitions = self.partitions.lock();
        let is_last = partitions.last.as_ref() == Some(topic_partition);
        if offset.is_some() {
            if !is_last {
                partitions.last = Some(topic_partition.clone());
                partitions.all.insert(topic_partition.clone());
            }
            return Ok(());
        }
        if is_last || partitions.all.contains(topic_partition) {
            return Ok(());
        }
        self.has_doubt.store(true, Ordering::SeqCst);
        let message = "a record that was sent after it is the first one of this producer that the \
                       log has for certain: it may be missing";
        let error = Error::new(ErrorKind::OutOfOrderSequenceNumber, message);
        Err(error.with_recovery(Recovery::Retry).indeterminate())
    }

    /// Whether a record may be missing.
    pub(super) fn has_doubt(&self) -> bool {
        self.has_doubt.load(Ordering::SeqCst)
    }

    /// Forgets that a record may be missing: its transaction was aborted.
    pub(super) fn clear_doubt(&self) {
        self.has_doubt.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_before_the_first_offset_of_a_partition_may_be_missing() {
        let begun = Begun::default();
        let [first, second] = [0, 1].map(|partition| TopicPartition::new("orders", partition));
        begun.check(&first, Some(4)).unwrap();
        begun.check(&first, None).unwrap();
        let error = begun.check(&second, None).unwrap_err();
        assert!(error.is_indeterminate(), "{error}");
        assert_eq!(error.recovery(), Recovery::Retry);
        assert!(begun.has_doubt());
        begun.check(&second, Some(0)).unwrap();
        begun.check(&first, None).unwrap();
        begun.clear_doubt();
        assert!(!begun.has_doubt());
    }
}
