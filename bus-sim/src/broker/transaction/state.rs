//! A transactional id at its coordinator: what is durable of it, and what may follow what (Kafka's
//! `TransactionMetadata` and `TxnTransitMetadata`).
//!
//! A transition is prepared: the value to be written is made, and until it is below the high
//! watermark nothing else may be. Only the replay of that value changes the state.
//!
//! With version 2 of transactions (KIP-890) each end raises the epoch. An epoch that is used up
//! makes room for another producer id.

use std::collections::BTreeSet;
use std::time::Duration;

use bus_core::{ErrorKind, Timestamp, TopicPartition};

use crate::node::Name;
use crate::protocol::batch::{ControlRecord, ProducerEpoch, ProducerId};

/// The state of a transactional id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum State {
    /// No transaction since the last InitProducerId.
    Empty,
    /// A transaction is open.
    Ongoing,
    /// It is decided that the transaction commits; markers are being written.
    PrepareCommit,
    /// It is decided that the transaction aborts; markers are being written.
    PrepareAbort,
    /// All markers of the commit are written.
    CompleteCommit,
    /// All markers of the abort are written.
    CompleteAbort,
    /// The transactional id has expired. Never written.
    Dead,
    /// An open transaction is aborted with a higher epoch. Never written.
    PrepareEpochFence,
}

impl State {
    /// Kafka's name of it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
            Self::Dead => "Dead",
            Self::PrepareEpochFence => "PrepareEpochFence",
        }
    }

    /// What the markers say while they are written.
    pub(super) const fn prepared(self) -> Option<ControlRecord> {
        match self {
            Self::PrepareCommit => Some(ControlRecord::Commit),
            Self::PrepareAbort => Some(ControlRecord::Abort),
            Self::Empty
            | Self::Ongoing
            | Self::CompleteCommit
            | Self::CompleteAbort
            | Self::Dead
            | Self::PrepareEpochFence => None,
        }
    }

    /// Whether nothing of a transaction is left to do.
    pub(super) const fn is_at_rest(self) -> bool {
        matches!(self, Self::Empty | Self::CompleteCommit | Self::CompleteAbort)
    }
}

/// What is durable of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Metadata {
    pub(in crate::broker) producer_id: ProducerId,
    /// The id before this one.
    pub(in crate::broker) previous_producer_id: Option<ProducerId>,
    /// The id that takes over when the markers are written, as the epochs of this one are used up.
    pub(in crate::broker) next_producer_id: Option<ProducerId>,
    /// -1 until the first InitProducerId is durable.
    pub(in crate::broker) producer_epoch: ProducerEpoch,
    /// The epoch before, for a producer that asks again.
    pub(in crate::broker) last_producer_epoch: Option<ProducerEpoch>,
    /// How long a transaction may be open.
    pub(in crate::broker) timeout: Duration,
    pub(in crate::broker) state: State,
    /// The partitions of the transaction.
    pub(in crate::broker) partitions: BTreeSet<TopicPartition>,
    /// When the transaction began.
    pub(in crate::broker) started: Option<Timestamp>,
    pub(in crate::broker) updated: Timestamp,
    /// By which version of transactions the last one ended.
    pub(in crate::broker) is_version_2: bool,
}

/// A transactional id at its coordinator.
#[derive(Debug)]
pub(in crate::broker) struct Transaction {
    /// Durable.
    pub(super) metadata: Metadata,
    /// What is being written.
    pub(super) pending: Option<State>,
    /// The epoch of a fence that is being written, or could not be written: the producer counts as
    /// fenced, and the next fence does not raise the epoch again.
    pub(super) fenced_epoch: Option<ProducerEpoch>,
    /// The markers that are being written.
    pub(super) completion: Option<Completion>,
}

/// The end of a transaction on its way to the partitions.
#[derive(Debug)]
pub(super) struct Completion {
    /// What is written when all markers are.
    pub(super) value: Metadata,
    /// The partitions without a marker so far.
    pub(super) remaining: BTreeSet<TopicPartition>,
    /// Those among them whose leaders have not been asked, or said no.
    pub(super) unsent: BTreeSet<TopicPartition>,
}

impl Transaction {
    /// A transactional id that was never seen.
    pub(super) const fn new(producer_id: ProducerId, timeout: Duration, now: Timestamp) -> Self {
        let metadata = Metadata {
            producer_id,
            previous_producer_id: None,
            next_producer_id: None,
            producer_epoch: -1,
            last_producer_epoch: None,
            timeout,
            state: State::Empty,
            partitions: BTreeSet::new(),
            started: None,
            updated: now,
            is_version_2: false,
        };
        Self::loaded(metadata)
    }

    /// A transactional id as its record says.
    pub(super) const fn loaded(metadata: Metadata) -> Self {
        Self { metadata, pending: None, fenced_epoch: None, completion: None }
    }

    /// Learns a value that is durable.
    pub(super) fn replay(&mut self, value: Metadata) {
        *self = Self::loaded(value);
    }

    /// The epoch that producers are checked by.
    pub(super) fn epoch(&self) -> ProducerEpoch {
        self.fenced_epoch.unwrap_or(self.metadata.producer_epoch)
    }

    /// Whether only another producer id has epochs left. The last one is kept for fencing.
    pub(super) fn is_exhausted(&self) -> bool {
        is_exhausted(self.epoch())
    }

    /// The next epoch, for InitProducerId; the same again for a producer that asks again.
    ///
    /// # Errors
    /// The producer that expects an epoch is fenced.
    pub(super) fn prepare_epoch(
        &mut self,
        timeout: Duration,
        expected: Option<ProducerEpoch>,
        now: Timestamp,
    ) -> Result<Metadata, ErrorKind> {
        let (current, last) = (self.epoch(), self.metadata.last_producer_epoch);
        let (epoch, last) = match expected {
            None => (current + 1, None),
            Some(expected) if current < 0 || expected == current => {
                (current + 1, Some(current).filter(|epoch| *epoch >= 0))
            }
            Some(expected) if Some(expected) == last => (current, last),
            Some(_) => return Err(ErrorKind::ProducerFenced),
        };
        let producer_id = self.metadata.producer_id;
        Ok(self.prepare(State::Empty, |value| {
            *value = Metadata {
                producer_id,
                producer_epoch: epoch,
                last_producer_epoch: last,
                ..initialized(value, timeout, now)
            };
        }))
    }

    /// Another producer id, for InitProducerId when the epochs of this one are used up.
    pub(super) fn prepare_rotation(
        &mut self,
        producer_id: ProducerId,
        timeout: Duration,
        keeps_last: bool,
        now: Timestamp,
    ) -> Metadata {
        let last = Some(self.epoch()).filter(|_| keeps_last);
        self.prepare(State::Empty, |value| {
            *value = Metadata {
                producer_id,
                producer_epoch: 0,
                last_producer_epoch: last,
                ..initialized(value, timeout, now)
            };
        })
    }

    /// More partitions in the transaction, which begins with the first.
    pub(super) fn prepare_partitions(
        &mut self,
        partitions: &[TopicPartition],
        is_version_2: bool,
        now: Timestamp,
    ) -> Metadata {
        let is_new = self.metadata.state != State::Ongoing;
        self.prepare(State::Ongoing, |value| {
            value.partitions.extend(partitions.iter().cloned());
            value.started = if is_new { Some(now) } else { value.started };
            value.updated = now;
            value.is_version_2 = is_version_2;
        })
    }

    /// The end of the transaction.
    pub(super) fn prepare_end(
        &mut self,
        control: ControlRecord,
        is_version_2: bool,
        next_producer_id: Option<ProducerId>,
        now: Timestamp,
    ) -> Metadata {
        let state = match control {
            ControlRecord::Commit => State::PrepareCommit,
            ControlRecord::Abort => State::PrepareAbort,
        };
        let is_open = self.metadata.state == State::Ongoing;
        self.prepare(state, |value| {
            if is_version_2 {
                value.last_producer_epoch = Some(value.producer_epoch);
                value.producer_epoch += 1;
            }
            // An abort without partitions is accepted from version 2 on, and needs a start as well.
            value.started = if is_open { value.started } else { Some(now) };
            value.next_producer_id = next_producer_id;
            value.updated = now;
            value.is_version_2 = is_version_2;
        })
    }

    /// The abort of an open transaction with a higher epoch, which no producer knows: it fences.
    pub(super) fn prepare_fence(&mut self, is_version_2: bool, now: Timestamp) -> Metadata {
        if is_version_2 {
            return self.prepare_end(ControlRecord::Abort, true, None, now);
        }
        let epoch = self.fenced_epoch.unwrap_or_else(|| self.metadata.producer_epoch + 1);
        self.fenced_epoch = Some(epoch);
        let mut value = self.prepare_end(ControlRecord::Abort, false, None, now);
        (value.producer_epoch, value.last_producer_epoch) = (epoch, None);
        value
    }

    /// What is written when all markers are.
    pub(super) fn prepare_completion(&mut self, now: Timestamp) -> Metadata {
        let state = match self.metadata.state {
            State::PrepareCommit => State::CompleteCommit,
            _ => State::CompleteAbort,
        };
        self.prepare(state, |value| {
            if value.is_version_2
                && let Some(next) = value.next_producer_id
            {
                (value.producer_id, value.producer_epoch) = (next, 0);
            }
            value.next_producer_id = None;
            value.partitions.clear();
            value.updated = now;
        })
    }

    /// The transactional id expires.
    pub(super) fn prepare_death(&mut self) {
        self.pending = Some(State::Dead);
    }

    /// Makes the value of a transition, which is pending from now on.
    fn prepare(&mut self, state: State, change: impl FnOnce(&mut Metadata)) -> Metadata {
        assert_eq!(self.pending, None, "one transition is written at a time");
        assert!(
            may_follow(self.metadata.state, state),
            "{} does not follow {}",
            state.name(),
            self.metadata.state.name()
        );
        self.pending = Some(state);
        let mut value = self.metadata.clone();
        value.previous_producer_id = Some(value.producer_id);
        value.state = state;
        change(&mut value);
        value
    }
}

/// Whether the epochs of a producer id are used up.
pub(super) const fn is_exhausted(epoch: ProducerEpoch) -> bool {
    epoch >= ProducerEpoch::MAX - 1
}

/// What InitProducerId makes of a value, but for ids and epochs.
fn initialized(value: &Metadata, timeout: Duration, now: Timestamp) -> Metadata {
    Metadata { timeout, partitions: BTreeSet::new(), started: None, updated: now, ..value.clone() }
}

/// Kafka's `validPreviousStates`.
const fn may_follow(before: State, after: State) -> bool {
    match after {
        State::Empty | State::Dead => before.is_at_rest(),
        State::Ongoing => before.is_at_rest() || matches!(before, State::Ongoing),
        State::PrepareCommit | State::PrepareEpochFence => matches!(before, State::Ongoing),
        // Version 2 aborts also where no partition was added.
        State::PrepareAbort => before.is_at_rest() || matches!(before, State::Ongoing),
        State::CompleteCommit => matches!(before, State::PrepareCommit),
        State::CompleteAbort => matches!(before, State::PrepareAbort),
    }
}

/// What a transaction is called in requests: transactional id, producer id, and epoch.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Identity {
    pub(in crate::broker) transactional_id: Name,
    pub(in crate::broker) producer_id: ProducerId,
    pub(in crate::broker) producer_epoch: ProducerEpoch,
}
