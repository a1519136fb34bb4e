//! The queue of a partition: an open batch that fills up, and failed batches that go first.

use std::collections::VecDeque;
use std::sync::Arc;

use bus_core::{DeliverySender, ProducerConfig};

use crate::node::BrokerId;
use crate::protocol::batch::{
    BatchRecord, ProducerEpoch, ProducerId, ProducerStamp, RecordBatch, Sequence, sequence_after,
    sequence_before,
};
use crate::time::SimTime;

/// A record in the buffer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) record: BatchRecord,
    pub(super) size: u32,
    pub(super) sender: DeliverySender,
    /// The number of the send in this producer.
    pub(super) number: u64,
    pub(super) enqueued: SimTime,
}

/// Records that are sent as one, and again as one.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(super) content: Arc<RecordBatch>,
    pub(super) senders: Vec<DeliverySender>,
    /// The number of its first record.
    pub(super) first_number: u64,
    /// The numbers of all its records, ascending.
    pub(super) numbers: Vec<u64>,
    /// When its first record was sent by the application.
    pub(super) enqueued: SimTime,
    pub(super) attempts: u32,
    pub(super) retry_at: SimTime,
    /// Whether a broker may have it.
    pub(super) is_possibly_persisted: bool,
}

/// The queue of a partition.
#[derive(Debug, Default)]
pub(super) struct PartitionQueue {
    /// Batches to send again, in their first order.
    pub(super) retries: VecDeque<Batch>,
    /// Records that no batch has yet.
    pub(super) open: VecDeque<Pending>,
    open_bytes: u64,
    /// The numbers of the first records of the batches in flight, ascending.
    pub(super) in_flight: Vec<u64>,
    next_sequence: Sequence,
    /// The sequence behind the last batch that was acknowledged.
    next_acknowledged: Sequence,
    /// A batch of the session was acknowledged.
    has_begun: bool,
    /// A batch failed, or the leader changed, and others are still in flight: nothing is sent
    /// before they have an outcome.
    is_draining: bool,
    leader: Option<BrokerId>,
    /// From here on sequences are given out again, once nothing is in flight.
    rewind_to: Option<Sequence>,
}

/// What a batch is marked with.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchStamp {
    /// Producer id and epoch.
    pub(super) producer: Option<(ProducerId, ProducerEpoch)>,
    pub(super) is_transactional: bool,
    /// A planted bug.
    pub(super) is_reversed: bool,
}

/// Whether something can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// Nothing is there.
    Empty,
    /// Yes.
    Now,
    /// A failed batch is due then.
    RetryAt(SimTime),
    /// The open batch has lingered then.
    LingerAt(SimTime),
}

impl PartitionQueue {
    pub(super) fn push(&mut self, pending: Pending) {
        self.open_bytes += u64::from(pending.size);
        self.open.push_back(pending);
    }

    /// Whether the open batch cannot grow.
    pub(super) fn is_full(&self, config: &ProducerConfig) -> bool {
        self.open_bytes >= u64::from(config.batch_size)
            || self.open.len() >= config.batch_records as usize
    }

    pub(super) fn readiness(
        &self,
        now: SimTime,
        config: &ProducerConfig,
        is_flushing: bool,
    ) -> Readiness {
        if let Some(retry) = self.retries.front() {
            return if retry.retry_at <= now {
                Readiness::Now
            } else {
                Readiness::RetryAt(retry.retry_at)
            };
        }
        let Some(first) = self.open.front() else { return Readiness::Empty };
        let lingered = first.enqueued + config.linger;
        if is_flushing || lingered <= now || self.is_full(config) {
            Readiness::Now
        } else {
            Readiness::LingerAt(lingered)
        }
    }

    /// Takes the batch to send next: a failed one, or a new one of the open records.
    pub(super) fn take(&mut self, config: &ProducerConfig, stamp: BatchStamp) -> Option<Batch> {
        if let (Some(first), Some(session)) = (self.rewind_to.take(), stamp.producer) {
            self.restamp_from(first, session);
        }
        let batch = match self.retries.pop_front() {
            Some(retry) => retry,
            None => self.cut(config, stamp)?,
        };
        let place = self.in_flight.partition_point(|first| *first < batch.first_number);
        self.in_flight.insert(place, batch.first_number);
        Some(batch)
    }

    /// Notes that a batch has an outcome.
    pub(super) fn landed(&mut self, batch: &Batch) {
        self.in_flight.retain(|first| *first != batch.first_number);
        self.is_draining &= !self.in_flight.is_empty();
    }

    /// Sends nothing before all that is in flight has an outcome.
    pub(super) fn drain(&mut self) {
        self.is_draining = !self.in_flight.is_empty();
    }

    /// Notes who leads. What was sent to another leader must be over before anything is sent to
    /// this one, which would take what it gets first for the first.
    pub(super) fn is_led_by(&mut self, leader: BrokerId) {
        if self.leader.replace(leader).is_some_and(|before| before != leader) {
            self.drain();
        }
    }

    pub(super) const fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Takes the batches before an acknowledged one that wait to be sent again, and says whether
    /// they are in the log for certain, too: a log that knows the producer takes only what follows.
    pub(super) fn take_earlier(&mut self, batch: &Batch) -> (Vec<Batch>, bool) {
        let is_before = |other: &Batch| other.first_number < batch.first_number;
        let count = self.retries.partition_point(is_before);
        (self.retries.drain(..count).collect(), self.has_begun)
    }

    /// Notes that the log has a batch.
    pub(super) fn acknowledge(&mut self, batch: &Batch) {
        if let Some(stamp) = batch.content.producer {
            self.has_begun = true;
            self.next_acknowledged = sequence_after(stamp.base_sequence, batch.senders.len());
        }
        // The log is further on.
        self.rewind_to = None;
    }

    /// Gives the sequences of a batch that is given up out again, as if no leader had it.
    pub(super) fn rewind(&mut self, batch: &Batch) {
        if let Some(stamp) = batch.content.producer {
            self.rewind_to.get_or_insert(stamp.base_sequence);
            self.drain();
        }
    }

    /// Whether a batch before this one is not acknowledged.
    pub(super) fn is_ahead(&self, batch: &Batch) -> bool {
        let first = batch.content.producer.map_or(0, |stamp| stamp.base_sequence);
        first.wrapping_sub(self.next_acknowledged) > 0
    }

    /// Takes everything that is not in flight. The sequences of what had been sent before are given
    /// out again.
    pub(super) fn purge(&mut self) -> (VecDeque<Pending>, VecDeque<Batch>) {
        self.open_bytes = 0;
        let retries = std::mem::take(&mut self.retries);
        let count = retries.iter().map(|batch| batch.senders.len()).sum();
        self.next_sequence = sequence_before(self.next_sequence, count);
        (std::mem::take(&mut self.open), retries)
    }

    /// Whether no older batch is in flight or waits.
    pub(super) fn is_oldest(&self, batch: &Batch) -> bool {
        let older = |first: &u64| *first < batch.first_number;
        !self.in_flight.iter().any(older)
            && !self.retries.iter().any(|retry| older(&retry.first_number))
    }

    /// Puts a failed batch back to its place.
    pub(super) fn put_back(&mut self, batch: Batch) {
        let place = self.retries.partition_point(|other| other.first_number < batch.first_number);
        self.retries.insert(place, batch);
    }

    /// Gives the batches that wait sequences from the start, of a new producer session.
    pub(super) fn restamp(&mut self, session: (ProducerId, ProducerEpoch)) {
        self.next_acknowledged = 0;
        self.has_begun = false;
        self.rewind_to = None;
        self.restamp_from(0, session);
    }

    fn restamp_from(
        &mut self,
        first: Sequence,
        (producer_id, producer_epoch): (ProducerId, ProducerEpoch),
    ) {
        self.next_sequence = first;
        for batch in &mut self.retries {
            let stamp =
                ProducerStamp { producer_id, producer_epoch, base_sequence: self.next_sequence };
            self.next_sequence = sequence_after(self.next_sequence, batch.senders.len());
            batch.content = Arc::new(batch.content.with_producer(Some(stamp)));
        }
    }

    /// Takes the open records that ran out of time.
    pub(super) fn take_expired(&mut self, expired: impl Fn(SimTime) -> bool) -> Vec<Pending> {
        let count = self.open.partition_point(|pending| expired(pending.enqueued));
        let taken = self.open.drain(..count).collect::<Vec<_>>();
        self.open_bytes -= taken.iter().map(|pending| u64::from(pending.size)).sum::<u64>();
        taken
    }

    fn cut(&mut self, config: &ProducerConfig, stamp: BatchStamp) -> Option<Batch> {
        let BatchStamp { producer, is_transactional, is_reversed } = stamp;
        let enqueued = self.open.front()?.enqueued;
        let count = self.records_for_batch(config);
        let mut records = Vec::with_capacity(count);
        let mut senders = Vec::with_capacity(count);
        let mut numbers = Vec::with_capacity(count);
        for pending in self.open.drain(..count) {
            self.open_bytes -= u64::from(pending.size);
            records.push(pending.record);
            senders.push(pending.sender);
            numbers.push(pending.number);
        }
        if is_reversed {
            records.reverse();
        }
        let stamp = producer.map(|(producer_id, producer_epoch)| {
            let base_sequence = self.next_sequence;
            self.next_sequence = sequence_after(base_sequence, count);
            ProducerStamp { producer_id, producer_epoch, base_sequence }
        });
        let first_number = *numbers.first()?;
        let content = RecordBatch { is_transactional, ..RecordBatch::new(stamp, records) };
        Some(Batch {
            content: Arc::new(content),
            senders,
            first_number,
            numbers,
            enqueued,
            attempts: 0,
            retry_at: SimTime::ZERO,
            is_possibly_persisted: false,
        })
    }

    /// How many of the open records fit in one batch; at least one.
    fn records_for_batch(&self, config: &ProducerConfig) -> usize {
        let mut bytes = 0;
        let most = config.batch_records as usize;
        let fits = self.open.iter().take(most).take_while(|pending| {
            bytes += u64::from(pending.size);
            bytes <= u64::from(config.batch_size)
        });
        fits.count().max(1)
    }
}
