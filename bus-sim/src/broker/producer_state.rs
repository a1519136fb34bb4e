//! What a partition knows of its producers: epoch, last sequences, last five batches, and open and
//! ended transactions (Kafka's `ProducerStateManager`, `ProducerAppendInfo`, `TransactionIndex`).
//!
//! - A batch with the sequences of one of the last five is a duplicate: answered with its offset.
//! - Otherwise its first sequence must follow the last one; a new epoch begins at 0; a producer
//!   that is not known (new, or expired) may begin anywhere.
//! - A producer expires `producer.id.expiration.ms` after the latest timestamp of its last batch,
//!   unless a transaction of it is open.
//! - The first batch of a transaction opens it, and a marker ends it. A marker can raise the epoch,
//!   which fences; the sequences stay if it does not.
//! - The last stable offset is before every transaction that is open, or whose marker is not
//!   replicated.
//!
//! Simplified: expiry is looked at when the producer's next batch comes, as of Kafka's last check
//! (every 10 minutes of the world).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bus_core::{ErrorKind, Offset, Timestamp};

use super::transaction::guard::{Guard, Verifications};
use crate::protocol::batch::{
    ControlRecord, NO_SEQUENCE, ProducerEpoch, ProducerId, ProducerStamp, RecordBatch, Sequence,
    StoredBatch, sequence_after,
};
use crate::protocol::write_txn_markers::Marker;
use crate::time::SimTime;

/// The producers of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProducerStates {
    producers: BTreeMap<ProducerId, ProducerState>,
    /// Open transactions: the first offset, and whose.
    open: BTreeMap<Offset, ProducerId>,
    /// The markers of ended transactions, and the first offset of each. Sorted by marker.
    ended: Vec<(Offset, Offset)>,
    /// The transactions among them that were aborted. Sorted by marker.
    aborted: Vec<AbortedTransaction>,
    /// Of a leader: transactions whose first batch is not there yet.
    verifications: Verifications,
}

/// What is known of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ProducerState {
    epoch: ProducerEpoch,
    /// That of the last marker, or -1.
    coordinator_epoch: i32,
    /// The last batches, at most [`BATCHES_KEPT`], oldest first. Of one epoch.
    batches: VecDeque<BatchState>,
    /// The latest timestamp of the last batch.
    timestamp: Timestamp,
    /// When it was updated.
    updated: SimTime,
    /// Where the open transaction begins, if there is one.
    transaction: Option<Offset>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BatchState {
    first_sequence: Sequence,
    last_sequence: Sequence,
    base_offset: Offset,
    timestamp: Timestamp,
}

/// An entry of the index of aborted transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AbortedTransaction {
    producer_id: ProducerId,
    first_offset: Offset,
    marker_offset: Offset,
    /// The last stable offset after the marker: no transaction that ends later begins before it.
    last_stable_offset: Offset,
}

/// What a batch is, by its sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sequencing {
    /// To be appended.
    Next,
    /// In the log already, there, with that latest timestamp.
    Duplicate(Offset, Timestamp),
}

/// What the broker is configured with that producers are checked by.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProducerRules {
    /// `producer.id.expiration.ms`.
    pub(super) expiration: Duration,
    /// `transaction.partition.verification.enable`.
    pub(super) verifies_transactions: bool,
    /// Unless a planted bug lets older epochs in.
    pub(super) checks_epochs: bool,
}

impl ProducerStates {
    /// Says what a batch of a client is, or why it must not be appended.
    pub(super) fn check(
        &mut self,
        now: SimTime,
        batch: &RecordBatch,
        guard: Option<Guard>,
        rules: ProducerRules,
    ) -> Result<Sequencing, ErrorKind> {
        let Some(stamp) = batch.producer else { return Ok(Sequencing::Next) };
        self.expire(now, rules.expiration, stamp.producer_id);
        let state = self.producers.get(&stamp.producer_id);
        if let Some(duplicate) = state.and_then(|s| s.find(stamp, batch.records.len())) {
            return Ok(Sequencing::Duplicate(duplicate.base_offset, duplicate.timestamp));
        }
        if batch.is_transactional {
            self.check_verified((stamp.producer_id, stamp.producer_epoch), guard, rules)?;
        }
        let is_older = state.is_some_and(|state| stamp.producer_epoch < state.epoch);
        if is_older && rules.checks_epochs {
            return Err(ErrorKind::InvalidProducerEpoch);
        }
        let is_known = state.is_some_and(|state| !state.batches.is_empty());
        let is_admitted = self
            .verifications
            .get(stamp.producer_id)
            .is_none_or(|first| first.admits(stamp.base_sequence, is_known));
        if !is_admitted || !(is_older || state.is_none_or(|state| state.is_next(stamp))) {
            return Err(ErrorKind::OutOfOrderSequenceNumber);
        }
        if !batch.is_transactional && state.is_some_and(|state| state.transaction.is_some()) {
            return Err(ErrorKind::InvalidTxnState);
        }
        Ok(Sequencing::Next)
    }

    /// Says why a batch of a coordinator must not be appended for a transaction.
    pub(super) fn check_transactional(
        &self,
        producer: (ProducerId, ProducerEpoch),
        guard: Option<Guard>,
        rules: ProducerRules,
    ) -> Result<(), ErrorKind> {
        self.check_verified(producer, guard, rules)?;
        let state = self.producers.get(&producer.0);
        let is_older = state.is_some_and(|state| producer.1 < state.epoch);
        if is_older && rules.checks_epochs {
            return Err(ErrorKind::InvalidProducerEpoch);
        }
        Ok(())
    }

    /// Says why a marker must not be appended.
    pub(super) fn check_marker(&self, marker: &Marker) -> Result<(), ErrorKind> {
        let Some(state) = self.producers.get(&marker.producer_id) else { return Ok(()) };
        // With version 2 a marker is above the epoch of its records, and one of the same epoch is
        // the marker of the transaction before, sent again.
        let is_late = marker.is_version_2
            && marker.producer_epoch == state.epoch
            && state.transaction.is_some();
        if marker.producer_epoch < state.epoch || is_late {
            Err(ErrorKind::InvalidProducerEpoch)
        } else if marker.coordinator_epoch < state.coordinator_epoch {
            Err(ErrorKind::TransactionCoordinatorFenced)
        } else {
            Ok(())
        }
    }

    /// Begins to verify the transaction that a batch would open; `None` if it is open.
    pub(super) fn start_verification(
        &mut self,
        stamp: ProducerStamp,
        is_version_2: bool,
    ) -> Option<Guard> {
        let ProducerStamp { producer_id, producer_epoch, base_sequence } = stamp;
        if self.has_open((producer_id, producer_epoch)) {
            return None;
        }
        let verifications = &mut self.verifications;
        Some(verifications.start(producer_id, producer_epoch, base_sequence, is_version_2))
    }

    /// Whether a transaction of this producer and epoch is open.
    fn has_open(&self, (producer_id, epoch): (ProducerId, ProducerEpoch)) -> bool {
        let state = self.producers.get(&producer_id);
        state.is_some_and(|state| state.transaction.is_some() && state.epoch == epoch)
    }

    /// Where transactions begin that are open, or whose markers are not below the high watermark.
    pub(super) fn first_unstable_offset(&self, high_watermark: Offset) -> Option<Offset> {
        let replicated = self.ended.partition_point(|(marker, _)| *marker < high_watermark);
        let unreplicated = self.ended[replicated..].iter().map(|(_, first)| *first);
        unreplicated.chain(self.open.keys().next().copied()).min()
    }

    /// The aborted transactions with records from `offset` to before `end`, sorted by first offset.
    pub(super) fn aborted_between(&self, offset: Offset, end: Offset) -> Vec<(ProducerId, Offset)> {
        let first = self.aborted.partition_point(|aborted| aborted.marker_offset < offset);
        let mut found = Vec::new();
        for aborted in &self.aborted[first..] {
            if aborted.first_offset < end {
                found.push((aborted.producer_id, aborted.first_offset));
            }
            if aborted.last_stable_offset >= end {
                break;
            }
        }
        found.sort_unstable_by_key(|(_, first_offset)| *first_offset);
        found
    }

    /// Notes a batch that was appended, or replays one from the log.
    pub(super) fn replay(&mut self, now: SimTime, stored: &StoredBatch) {
        let Some(stamp) = stored.batch.producer else { return };
        let state = self.producers.entry(stamp.producer_id).or_insert_with(|| ProducerState {
            epoch: stamp.producer_epoch,
            coordinator_epoch: -1,
            batches: VecDeque::new(),
            timestamp: Timestamp::EPOCH,
            updated: now,
            transaction: None,
        });
        if state.epoch != stamp.producer_epoch {
            state.epoch = stamp.producer_epoch;
            state.batches.clear();
        }
        state.updated = now;
        state.timestamp = stored.max_timestamp();
        if stored.batch.is_transactional {
            self.verifications.clear(stamp.producer_id);
        }
        if let Some(control) = stored.batch.control {
            state.coordinator_epoch = stored.batch.coordinator_epoch().unwrap_or(-1);
            if let Some(first_offset) = state.transaction.take() {
                self.end(stamp.producer_id, control, first_offset, stored.base_offset);
            }
            return;
        }
        state.push(stamp, stored);
        if stored.batch.is_transactional && state.transaction.is_none() {
            state.transaction = Some(stored.base_offset);
            self.open.insert(stored.base_offset, stamp.producer_id);
        }
    }

    fn end(
        &mut self,
        producer_id: ProducerId,
        control: ControlRecord,
        first_offset: Offset,
        marker_offset: Offset,
    ) {
        self.open.remove(&first_offset);
        self.ended.push((marker_offset, first_offset));
        if control == ControlRecord::Abort {
            let last_stable_offset = self.open.keys().next().copied().unwrap_or(marker_offset + 1);
            self.aborted.push(AbortedTransaction {
                producer_id,
                first_offset,
                marker_offset,
                last_stable_offset,
            });
        }
    }

    /// Checks that a transaction is open, or that its coordinator said so since `guard` was made.
    fn check_verified(
        &self,
        producer: (ProducerId, ProducerEpoch),
        guard: Option<Guard>,
        rules: ProducerRules,
    ) -> Result<(), ErrorKind> {
        let is_verified =
            || self.verifications.get(producer.0).is_some_and(|state| state.is_of(guard));
        if !rules.verifies_transactions || self.has_open(producer) || is_verified() {
            Ok(())
        } else {
            Err(ErrorKind::InvalidTxnState)
        }
    }

    /// Forgets a producer that has been idle at Kafka's last check.
    fn expire(&mut self, now: SimTime, expiration: Duration, producer_id: ProducerId) {
        let check_nanos = nanos(EXPIRATION_CHECK);
        let check = SimTime::from_nanos(now.as_nanos() / check_nanos * check_nanos);
        let Some(state) = self.producers.get(&producer_id) else { return };
        if state.transaction.is_some() {
            return;
        }
        let idle = check.timestamp().as_millis().saturating_sub(state.timestamp.as_millis());
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

    /// Whether a batch follows the last one, or begins a new epoch.
    fn is_next(&self, stamp: ProducerStamp) -> bool {
        let last = self.batches.back().filter(|_| stamp.producer_epoch == self.epoch);
        stamp.base_sequence == last.map_or(0, |last| sequence_after(last.last_sequence, 1))
    }

    fn push(&mut self, stamp: ProducerStamp, stored: &StoredBatch) {
        if stamp.base_sequence == NO_SEQUENCE {
            return;
        }
        if self.batches.len() == BATCHES_KEPT {
            self.batches.pop_front();
        }
        self.batches.push_back(BatchState {
            first_sequence: stamp.base_sequence,
            last_sequence: stamp.last_sequence(stored.batch.records.len()),
            base_offset: stored.base_offset,
            timestamp: self.timestamp,
        });
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

    const RULES: ProducerRules =
        ProducerRules { expiration: EXPIRATION, verifies_transactions: true, checks_epochs: true };

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
            match self.states.check(self.now, &batch, None, RULES)? {
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
