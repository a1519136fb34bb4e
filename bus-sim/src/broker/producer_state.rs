//! What a partition knows of its idempotent producers: epoch, last sequences, last five batches.
//!
//! - A batch with the sequences of one of the last five is a duplicate: answered with its offset.
//! - Otherwise its first sequence must follow the last one; a new epoch begins at 0; a producer
//!   that is not known (new, or expired) may begin anywhere.
//! - A producer expires `producer.id.expiration.ms` after the latest timestamp of its last batch.
//!
//! Simplified: expiry is looked at when the producer's next batch comes, as of Kafka's last check
//! (every 10 minutes of the world).
//! Absent: transactions. See `docs/fidelity.md`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bus_core::{ErrorKind, Offset, Timestamp};

use crate::protocol::batch::{
    ProducerEpoch, ProducerId, ProducerStamp, RecordBatch, Sequence, StoredBatch, sequence_after,
};
use crate::time::SimTime;

/// The idempotent producers of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProducerStates {
    producers: BTreeMap<ProducerId, ProducerState>,
}

/// What is known of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ProducerState {
    epoch: ProducerEpoch,
    /// The last batches, at most [`BATCHES_KEPT`], oldest first.
    batches: VecDeque<BatchState>,
    /// When it was updated.
    updated: SimTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BatchState {
    first_sequence: Sequence,
    last_sequence: Sequence,
    base_offset: Offset,
    timestamp: Timestamp,
}

/// What a batch is, by its sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sequencing {
    /// To be appended.
    Next,
    /// In the log already, there, with that latest timestamp.
    Duplicate(Offset, Timestamp),
}

impl ProducerStates {
    /// Says what a batch is, or why it must not be appended.
    pub(super) fn check(
        &mut self,
        now: SimTime,
        expiration: Duration,
        batch: &RecordBatch,
    ) -> Result<Sequencing, ErrorKind> {
        let Some(stamp) = batch.producer else { return Ok(Sequencing::Next) };
        self.expire(now, expiration, stamp.producer_id);
        let Some(state) = self.producers.get(&stamp.producer_id) else {
            return Ok(Sequencing::Next);
        };
        if let Some(duplicate) = state.find(stamp, batch.records.len()) {
            return Ok(Sequencing::Duplicate(duplicate.base_offset, duplicate.timestamp));
        }
        if stamp.producer_epoch < state.epoch {
            return Err(ErrorKind::InvalidProducerEpoch);
        }
        let last = state.batches.back().map(|batch| batch.last_sequence);
        let is_in_sequence = if stamp.producer_epoch == state.epoch {
            last.is_none_or(|last| stamp.base_sequence == sequence_after(last, 1))
        } else {
            stamp.base_sequence == 0
        };
        if is_in_sequence { Ok(Sequencing::Next) } else { Err(ErrorKind::OutOfOrderSequenceNumber) }
    }

    /// Notes a batch that was appended, or replays one from the log.
    pub(super) fn replay(&mut self, now: SimTime, stored: &StoredBatch) {
        let Some(stamp) = stored.batch.producer else { return };
        let state = self.producers.entry(stamp.producer_id).or_insert_with(|| ProducerState {
            epoch: stamp.producer_epoch,
            batches: VecDeque::new(),
            updated: now,
        });
        if state.epoch != stamp.producer_epoch {
            state.epoch = stamp.producer_epoch;
            state.batches.clear();
        }
        if state.batches.len() == BATCHES_KEPT {
            state.batches.pop_front();
        }
        state.updated = now;
        state.batches.push_back(BatchState {
            first_sequence: stamp.base_sequence,
            last_sequence: stamp.last_sequence(stored.batch.records.len()),
            base_offset: stored.base_offset,
            timestamp: stored.max_timestamp(),
        });
    }

    /// Forgets a producer that has been idle at Kafka's last check.
    fn expire(&mut self, now: SimTime, expiration: Duration, producer_id: ProducerId) {
        let check_nanos = nanos(EXPIRATION_CHECK);
        let check = SimTime::from_nanos(now.as_nanos() / check_nanos * check_nanos);
        let Some(state) = self.producers.get(&producer_id) else { return };
        let Some(last) = state.batches.back() else { return };
        let idle = check.timestamp().as_millis().saturating_sub(last.timestamp.as_millis());
        let expiration = i64::try_from(expiration.as_millis()).unwrap_or(i64::MAX);
        if check > state.updated && idle >= expiration {
            self.producers.remove(&producer_id);
        }
    }
}

impl ProducerState {
    fn find(&self, stamp: ProducerStamp, count: usize) -> Option<&BatchState> {
        if stamp.producer_epoch != self.epoch {
            return None;
        }
        self.batches.iter().find(|batch| {
            batch.first_sequence == stamp.base_sequence
                && batch.last_sequence == stamp.last_sequence(count)
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How many batches are kept of each producer: as many as a client may have in flight.
const BATCHES_KEPT: usize = 5;

/// `producer.id.expiration.check.interval.ms`.
const EXPIRATION_CHECK: Duration = Duration::from_mins(10);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::log::Log;
    use crate::broker::tests::batch;
    use crate::protocol::batch::StoredTimestamp;

    const EXPIRATION: Duration = Duration::from_hours(24);

    struct Partition {
        log: Log,
        states: ProducerStates,
        now: SimTime,
    }

    impl Partition {
        fn new() -> Self {
            Self { log: Log::default(), states: ProducerStates::default(), now: SimTime::ZERO }
        }

        /// Produces `count` records of producer 7, and returns the offset or the error.
        fn produce(
            &mut self,
            epoch: i16,
            sequence: i32,
            count: usize,
        ) -> Result<Offset, ErrorKind> {
            let stamp =
                ProducerStamp { producer_id: 7, producer_epoch: epoch, base_sequence: sequence };
            let time = self.now.timestamp().as_millis();
            let batch = Arc::new(batch(&vec![time; count]).with_producer(Some(stamp)));
            match self.states.check(self.now, EXPIRATION, &batch)? {
                Sequencing::Duplicate(offset, _) => Ok(offset),
                Sequencing::Next => {
                    let (offset, timestamp) = (self.log.end(), StoredTimestamp::CreateTime);
                    let stored =
                        StoredBatch { base_offset: offset, leader_epoch: 0, timestamp, batch };
                    self.log.append(self.now, stored);
                    self.states.replay(self.now, self.log.batches().last().unwrap());
                    Ok(offset)
                }
            }
        }
    }

    #[test]
    fn a_duplicate_of_the_last_five_has_its_offset() {
        let mut partition = Partition::new();
        for batch in 0..6 {
            assert_eq!(partition.produce(0, batch * 2, 2), Ok(i64::from(batch) * 2));
        }
        assert_eq!(partition.produce(0, 2, 2), Ok(2));
        assert_eq!(partition.produce(0, 10, 2), Ok(10));
        assert_eq!(partition.produce(0, 0, 2), Err(ErrorKind::OutOfOrderSequenceNumber));
        assert_eq!(partition.produce(0, 2, 1), Err(ErrorKind::OutOfOrderSequenceNumber));
        assert_eq!(partition.log.end(), 12);
    }

    #[test]
    fn a_gap_is_out_of_order() {
        let mut partition = Partition::new();
        assert_eq!(partition.produce(0, 0, 1), Ok(0));
        assert_eq!(partition.produce(0, 2, 1), Err(ErrorKind::OutOfOrderSequenceNumber));
        assert_eq!(partition.produce(0, 1, 1), Ok(1));
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_fences_the_old_one() {
        let mut partition = Partition::new();
        assert_eq!(partition.produce(3, 0, 1), Ok(0));
        assert_eq!(partition.produce(4, 1, 1), Err(ErrorKind::OutOfOrderSequenceNumber));
        assert_eq!(partition.produce(4, 0, 1), Ok(1));
        assert_eq!(partition.produce(3, 1, 1), Err(ErrorKind::InvalidProducerEpoch));
    }

    #[test]
    fn an_unknown_producer_may_begin_anywhere() {
        let mut partition = Partition::new();
        assert_eq!(partition.produce(0, 17, 1), Ok(0));
        assert_eq!(partition.produce(0, 18, 1), Ok(1));
    }

    #[test]
    fn sequences_wrap_around() {
        let mut partition = Partition::new();
        assert_eq!(partition.produce(0, i32::MAX - 1, 4), Ok(0));
        assert_eq!(partition.produce(0, 2, 1), Ok(4));
        assert_eq!(partition.produce(0, i32::MAX - 1, 4), Ok(0), "a duplicate");
    }

    #[test]
    fn an_idle_producer_expires() {
        let mut partition = Partition::new();
        assert_eq!(partition.produce(0, 0, 1), Ok(0));
        partition.now += EXPIRATION - Duration::from_secs(1);
        assert_eq!(partition.produce(0, 5, 1), Err(ErrorKind::OutOfOrderSequenceNumber));
        partition.now += Duration::from_secs(1);
        assert_eq!(partition.produce(0, 5, 1), Ok(1));
    }

    #[test]
    fn replaying_the_log_gives_the_same_state() {
        let mut partition = Partition::new();
        for (epoch, sequence) in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5)] {
            partition.produce(epoch, sequence, 1).unwrap();
        }
        let mut replayed = ProducerStates::default();
        for stored in partition.log.batches() {
            replayed.replay(SimTime::ZERO, stored);
        }
        assert_eq!(replayed, partition.states);
    }
}
