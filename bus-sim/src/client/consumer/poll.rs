//! What a poll gives: an error, a rebalance, or records; in this order.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bus_core::{Error, ErrorKind, Operation, Rebalance, Record, Result, TopicPartition};

use crate::client::ClientTimer;
use crate::mutation::Mutation;
use crate::node::{Effects, Timer};
use crate::policy::AutoCommit;
use crate::time::SimTime;

use super::{Consumer, Partition};

/// What a poll found.
#[derive(Debug)]
pub(crate) enum Ready {
    Records(Vec<Record>),
    Rebalance(Arc<Rebalance>),
}

/// Whether the application polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polling {
    /// It does not.
    Idle,
    /// A poll waits.
    Waits,
    /// A poll waits, and nobody looks after it: the tasks of the process stand still.
    Stalled,
}

impl Consumer {
    /// Begins a poll.
    pub(crate) fn poll_begin(&mut self, now: SimTime, effects: &mut Effects) -> Result<()> {
        self.check_open()?;
        if self.polling != Polling::Idle {
            let message = "another poll waits; poll from one task at a time";
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        self.polling = Polling::Waits;
        effects.cancel_timer(Timer::Client(ClientTimer::MaxPollInterval));
        if let Some(member) = &mut self.member
            && std::mem::take(&mut member.joins_at_poll)
        {
            self.join_if_out(now, effects);
        }
        Ok(())
    }

    /// Ends a poll, also one that was cancelled.
    pub(crate) fn poll_end(&mut self, now: SimTime, effects: &mut Effects) {
        self.polling = Polling::Idle;
        self.poll_waker = None;
        self.last_poll = now;
        effects.cancel_timer(Timer::Client(ClientTimer::PollTimeout));
        self.watch_max_poll(effects);
    }

    /// The tasks of the process stand still from now on: a poll that waits is the last one.
    pub(crate) fn stall(&mut self, now: SimTime, effects: &mut Effects) {
        if self.polling == Polling::Waits {
            self.polling = Polling::Stalled;
            self.last_poll = now;
            self.watch_max_poll(effects);
        }
    }

    /// The tasks of the process go on.
    pub(crate) fn unstall(&mut self, effects: &mut Effects) {
        if self.polling == Polling::Stalled {
            self.polling = Polling::Waits;
            effects.cancel_timer(Timer::Client(ClientTimer::MaxPollInterval));
        }
    }

    /// Takes what is there; if nothing is, `waker` is woken when something may be, or at
    /// `deadline`, when the poll gives no records.
    pub(crate) fn poll_take(
        &mut self,
        now: SimTime,
        deadline: SimTime,
        waker: &Waker,
        effects: &mut Effects,
    ) -> Option<Result<Ready>> {
        if let Err(error) = self.check_open() {
            return Some(Err(error));
        }
        if let Some(error) = self.errors.pop_front() {
            return Some(Err(error));
        }
        if let Some(rebalance) = self.rebalance.as_ref().map(Arc::clone) {
            self.join_unrevoked(now, effects);
            return Some(Ok(Ready::Rebalance(rebalance)));
        }
        self.auto_commit_in_poll(now, AutoCommit::Poll, effects);
        let records = self.take_records(now);
        self.auto_commit_in_poll(now, AutoCommit::Prefetch, effects);
        if !records.is_empty() {
            self.pump(now, effects);
            return Some(Ok(Ready::Records(records)));
        }
        if deadline <= now {
            return Some(Ok(Ready::Records(records)));
        }
        self.poll_waker = Some(waker.clone());
        effects.set_timer(Timer::Client(ClientTimer::PollTimeout), deadline);
        None
    }

    /// Whether a poll would find something.
    pub(super) fn is_ready(&self) -> bool {
        self.closing.is_some()
            || self.fatal.is_some()
            || !self.errors.is_empty()
            || self.rebalance.is_some()
            || self.partitions.values().any(|p| p.has_records() && self.is_flowing(p))
    }

    /// What a call of the application waits for, if one does.
    pub(crate) fn waiting(&self) -> Option<String> {
        if self.polling != Polling::Idle {
            Some("a consumer polls".to_owned())
        } else if !self.commits.is_idle() {
            Some("a commit waits for the coordinator".to_owned())
        } else {
            None
        }
    }

    fn is_flowing(&self, partition: &Partition) -> bool {
        !partition.is_paused || self.mutation == Some(Mutation::PauseIgnored)
    }

    /// Delivers from each partition in turn, beginning with another one each time.
    fn take_records(&mut self, now: SimTime) -> Vec<Record> {
        let most = self.config.max_poll_records as usize;
        let mut records = Vec::new();
        let count = self.partitions.len();
        if count == 0 {
            return records;
        }
        let first = self.turn % count;
        self.turn = self.turn.wrapping_add(1);
        let pause_counts = self.mutation != Some(Mutation::PauseIgnored);
        let stores = self.config.enable_auto_offset_store;
        let mutation = self.mutation;
        let is_by_partition = mutation == Some(Mutation::MaxPollRecordsPerPartition);
        let mut deliver = |(topic_partition, partition): (&TopicPartition, &mut Partition)| {
            if !partition.has_records() || (partition.is_paused && pause_counts) {
                return;
            }
            let room = if is_by_partition { most } else { most - records.len() };
            partition.deliver(topic_partition, room, mutation, &mut records);
            if stores {
                partition.stored = partition.passed;
            }
        };
        self.partitions.iter_mut().skip(first).for_each(&mut deliver);
        self.partitions.iter_mut().take(first).for_each(&mut deliver);
        if !records.is_empty() {
            self.last_record = now;
        }
        records
    }

    /// Sets the timer of `max.poll.interval.ms`, for members of a group that do not poll now.
    pub(super) fn watch_max_poll(&mut self, effects: &mut Effects) {
        if self.subscription.is_some() && self.polling != Polling::Waits {
            let at = self.last_poll + self.config.max_poll_interval;
            effects.set_timer(Timer::Client(ClientTimer::MaxPollInterval), at);
        }
    }

    /// The application has not polled in time: the member leaves, and all it owns is lost.
    pub(super) fn check_max_poll(&mut self, now: SimTime, effects: &mut Effects) {
        let is_waiting = self.polling == Polling::Waits;
        if is_waiting || self.subscription.is_none() || self.closing.is_some() {
            return;
        }
        let interval: Duration = self.config.max_poll_interval;
        let message = format!("no poll for {interval:?}, which is max.poll.interval.ms");
        self.errors.push_back(
            Error::new(ErrorKind::MaxPollExceeded, message).with_operation(Operation::Poll),
        );
        self.leave_until_poll(now, effects);
    }
}
