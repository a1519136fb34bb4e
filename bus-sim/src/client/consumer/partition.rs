//! What a consumer keeps per assigned partition: the four places, and what was fetched ahead.

use std::collections::{BTreeMap, VecDeque};

use bus_core::{Offset, Record, StartAt, TopicPartition};

use crate::mutation::Mutation;
use crate::node::BrokerId;
use crate::protocol::batch::{ControlRecord, ProducerId, StoredBatch};
use crate::protocol::fetch::Fetched;
use crate::time::SimTime;

/// An assigned partition.
#[derive(Debug)]
pub(super) struct Partition {
    /// Where the next fetch starts, or how that is found out.
    pub(super) fetch: FetchState,
    /// The leader epoch of the record before that, if it is known: the leader is asked whether it
    /// has that record when it changes (KIP-320).
    pub(super) fetch_epoch: Option<i32>,
    /// The newest leader epoch that was seen in metadata.
    pub(super) known_epoch: Option<i32>,
    /// After an error: when it may be asked about again.
    pub(super) not_before: SimTime,
    /// Offset of the next record to deliver, once one was delivered or sought.
    pub(super) position: Option<Offset>,
    /// The same, with the ends of transactions behind it that were passed.
    pub(super) passed: Option<Offset>,
    /// What the next auto commit commits.
    pub(super) stored: Option<Offset>,
    /// What was committed last by this consumer.
    pub(super) committed: Option<Offset>,
    pub(super) is_paused: bool,
    /// Counts seeks: a response to a request of an older version is out of date (KAFKA-7703).
    pub(super) version: u64,
    /// Batches that were fetched and not yet delivered to their end.
    buffer: VecDeque<Buffered>,
    pub(super) buffered_bytes: u64,
    buffered_records: usize,
    /// The leader epoch of the last record delivered.
    pub(super) leader_epoch: Option<i32>,
}

/// How the next fetch finds its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchState {
    /// It must be looked up.
    Find(StartAt),
    /// It is being looked up.
    Finding(StartAt),
    /// It is known.
    At(Offset),
    /// It is known, and a fetch from this broker is under way.
    Fetching(Offset, BrokerId),
    /// It is known; a new leader must be asked whether it has what is before it.
    Validate(Offset),
    /// The leader is being asked.
    Validating(Offset),
    /// There is none, and the reset policy gives none either: nothing is read until a seek.
    Nowhere,
}

#[derive(Debug)]
struct Buffered {
    batch: StoredBatch,
    /// The first record to deliver.
    next: usize,
    /// Not if it is the end of a transaction.
    is_delivered: bool,
}

/// The aborted transactions that a leader named for what it sent, as librdkafka looks them up.
struct Aborted {
    /// Per producer the first offsets of its aborted transactions, ascending; an abort marker
    /// removes the first.
    starts: BTreeMap<ProducerId, VecDeque<Offset>>,
    mutation: Option<Mutation>,
}

impl Aborted {
    fn new(named: &[(ProducerId, Offset)], mutation: Option<Mutation>) -> Self {
        let mut starts = BTreeMap::<ProducerId, VecDeque<Offset>>::new();
        for (producer, first) in named {
            let ignores_producer = mutation == Some(Mutation::AbortFilterIgnoresProducer);
            let producer = if ignores_producer { 0 } else { *producer };
            starts.entry(producer).or_default().push_back(*first);
        }
        for starts in starts.values_mut() {
            starts.make_contiguous().sort_unstable();
        }
        Self { starts, mutation }
    }

    /// Whether a batch belongs to an aborted transaction. Batches are asked about in their order.
    fn contains(&mut self, batch: &StoredBatch) -> bool {
        let Some(stamp) = batch.batch.producer.filter(|_| !self.starts.is_empty()) else {
            return false;
        };
        let producer = match self.mutation {
            Some(Mutation::AbortFilterIgnoresProducer) => 0,
            _ => stamp.producer_id,
        };
        let Some(starts) = self.starts.get_mut(&producer) else { return false };
        let has_begun = starts.front().is_some_and(|first| *first <= batch.base_offset);
        match batch.batch.control {
            Some(ControlRecord::Abort) if has_begun => {
                if self.mutation != Some(Mutation::AbortNeverEnds) {
                    starts.pop_front();
                }
                false
            }
            Some(_) => false,
            None => has_begun && batch.batch.is_transactional,
        }
    }
}

/// A planted bug.
fn shows_markers(mutation: Option<Mutation>) -> bool {
    mutation == Some(Mutation::MarkerDelivered)
}

impl Partition {
    pub(super) fn new(start: StartAt, version: u64) -> Self {
        Self {
            fetch: FetchState::Find(start),
            fetch_epoch: None,
            known_epoch: None,
            not_before: SimTime::ZERO,
            position: None,
            passed: None,
            stored: None,
            committed: None,
            is_paused: false,
            version,
            buffer: VecDeque::new(),
            buffered_bytes: 0,
            buffered_records: 0,
            leader_epoch: None,
        }
    }

    /// Starts anew somewhere else. What was fetched is out of date.
    pub(super) fn seek(&mut self, to: Offset, version: u64, keep_buffer: bool) {
        self.version = version;
        self.fetch_epoch = None;
        self.fetch = FetchState::At(to);
        self.position = Some(to);
        self.passed = self.position;
        self.leader_epoch = None;
        if !keep_buffer {
            self.clear_buffer();
        }
    }

    /// The offset to fetch from was looked up.
    pub(super) fn found(&mut self, offset: Offset, leader_epoch: Option<i32>) {
        self.fetch = FetchState::At(offset);
        self.fetch_epoch = leader_epoch;
    }

    pub(super) fn clear_buffer(&mut self) {
        self.buffer.clear();
        self.buffered_bytes = 0;
        self.buffered_records = 0;
    }

    /// Whether there is room to fetch ahead.
    pub(super) fn wants_more(&self, prefetch_records: u32) -> bool {
        self.buffered_records < prefetch_records as usize
    }

    pub(super) fn has_records(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Takes what a fetch brought, without the records of transactions that the leader named as
    /// aborted. Returns where to fetch next.
    pub(super) fn take_in(
        &mut self,
        from: Offset,
        fetched: &Fetched,
        mutation: Option<Mutation>,
    ) -> Offset {
        let mut next_offset = from;
        let mut aborted = Aborted::new(&fetched.aborted, mutation);
        for batch in &fetched.batches {
            let is_aborted = aborted.contains(batch);
            if batch.next_offset() > from && !is_aborted {
                let next = usize::try_from((from - batch.base_offset).max(0)).unwrap_or(0);
                self.buffered_bytes += u64::from(batch.batch.size);
                let is_delivered = batch.batch.control.is_none() || shows_markers(mutation);
                if is_delivered {
                    self.buffered_records += batch.batch.records.len() - next;
                }
                self.buffer.push_back(Buffered { batch: batch.clone(), next, is_delivered });
            }
            next_offset = next_offset.max(batch.next_offset());
            self.fetch_epoch = Some(batch.leader_epoch);
        }
        next_offset
    }

    /// Delivers up to `most` records into `out`.
    pub(super) fn deliver(
        &mut self,
        TopicPartition { topic, partition }: &TopicPartition,
        most: usize,
        mutation: Option<Mutation>,
        out: &mut Vec<Record>,
    ) {
        let end = out.len() + most;
        let mut is_first = true;
        while out.len() < end {
            let Some(front) = self.buffer.front_mut() else { break };
            let stored = &front.batch;
            if !front.is_delivered {
                // The end of a transaction: no record, but it is passed.
                self.leader_epoch = Some(stored.leader_epoch);
                self.passed = Some(stored.next_offset());
                self.buffered_bytes -= u64::from(stored.batch.size);
                self.buffer.pop_front();
                continue;
            }
            let records = &stored.batch.records;
            if mutation == Some(Mutation::FirstOfBatchSkipped)
                && !std::mem::take(&mut is_first)
                && records.len() > 1
                && front.next == 0
            {
                front.next = 1;
                self.buffered_records -= 1;
            }
            let count = (records.len() - front.next).min(end - out.len());
            let first = stored.base_offset + i64::try_from(front.next).unwrap_or(0);
            out.reserve(count);
            for (offset, record) in (first..).zip(&records[front.next..front.next + count]) {
                let (timestamp, timestamp_type) = stored.timestamp_of(record);
                out.push(Record {
                    topic: topic.clone(),
                    partition: *partition,
                    offset,
                    timestamp,
                    timestamp_type,
                    leader_epoch: Some(stored.leader_epoch),
                    key: record.key.clone(),
                    value: record.value.clone(),
                    headers: record.headers.clone(),
                });
            }
            self.leader_epoch = Some(stored.leader_epoch);
            self.position = Some(first + i64::try_from(count).unwrap_or(0));
            self.passed = self.position;
            self.buffered_records -= count;
            front.next += count;
            if front.next == records.len() {
                self.buffered_bytes -= u64::from(stored.batch.size);
                self.buffer.pop_front();
            } else if mutation == Some(Mutation::PollDropsTheRest) {
                self.buffered_records -= records.len() - front.next;
                self.buffered_bytes -= u64::from(stored.batch.size);
                self.buffer.pop_front();
            }
        }
    }

    /// The end of what was fetched ahead.
    pub(super) fn fetched_to(&self) -> Option<Offset> {
        Some(self.buffer.back()?.batch.next_offset())
    }
}
