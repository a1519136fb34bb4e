//! What time does to transactional ids: a transaction that is open too long is aborted, and an id
//! that is not used expires (`TransactionStateManager.timedOutTransactions`,
//! `removeExpiredTransactionalIds`).
//!
//! Both are looked for at intervals from the start of the world, as Kafka's schedulers do; here
//! only at those where something may be found.

use std::time::Duration;

use bus_core::Timestamp;

use super::state::{State, Transaction};
use super::{Shard, Turn};
use crate::broker::BrokerTimer;
use crate::mutation::Mutation;
use crate::time::SimTime;

impl Shard {
    /// Aborts transactions that are open for longer than their timeout, and fences their producers.
    pub(in crate::broker) fn abort_timed_out(&mut self, turn: &mut Turn<'_>) {
        self.timeouts_at = None;
        let (now, is_version_2) = (turn.time(), turn.is_version_2());
        for (transactional_id, transaction) in &mut self.transactions {
            let is_late = transaction.times_out().is_some_and(|deadline| deadline < now);
            if is_late && transaction.pending.is_none() {
                let value = transaction.prepare_fence(is_version_2, now);
                turn.tell_fence(transactional_id, &value, "timeout");
                turn.write(transactional_id, Some(value), None);
            }
        }
        self.watch(turn);
    }

    /// Removes transactional ids that were not used for `transactional.id.expiration.ms`.
    pub(in crate::broker) fn expire_ids(&mut self, turn: &mut Turn<'_>) {
        self.expiry_at = None;
        let now = turn.time();
        let expiration = turn.config.broker.transactional_id_expiration;
        for (transactional_id, transaction) in &mut self.transactions {
            let is_old = transaction.expires(expiration).is_some_and(|time| time <= now);
            if is_old && transaction.pending.is_none() {
                transaction.prepare_death();
                turn.write(transactional_id, None, None);
            }
        }
        self.watch(turn);
    }

    /// Sets the timers to the next time that something may be found.
    pub(super) fn watch(&mut self, turn: &mut Turn<'_>) {
        let partition = turn.partition;
        let config = &turn.config.broker;
        let never = turn.has(Mutation::TransactionNeverTimesOut);
        // It is too late one millisecond after the deadline.
        let deadlines = self.transactions.values().filter(|_| !never);
        let timeout = deadlines.filter_map(Transaction::times_out).min();
        let timeout = timeout.map(|time| after(time, Duration::from_millis(1)));
        let interval = config.transaction_abort_interval;
        let timeout = timeout.map(|time| tick(time, turn.now, interval));
        let expiration = config.transactional_id_expiration;
        let expiry = self.transactions.values().filter_map(|t| t.expires(expiration)).min();
        let interval = config.transactional_id_expiration_interval;
        let expiry = expiry.map(|time| tick(time, turn.now, interval));
        set(turn, &mut self.timeouts_at, timeout, BrokerTimer::AbortTransactions { partition });
        let timer = BrokerTimer::ExpireTransactionalIds { partition };
        set(turn, &mut self.expiry_at, expiry, timer);
    }
}

impl Transaction {
    /// Until when the open transaction may stay open.
    fn times_out(&self) -> Option<Timestamp> {
        let started = self.metadata.started.filter(|_| self.metadata.state == State::Ongoing)?;
        Some(after(started, self.metadata.timeout))
    }

    /// When the id expires if it is not used.
    fn expires(&self, expiration: Duration) -> Option<Timestamp> {
        let is_at_rest = self.metadata.state.is_at_rest() && self.metadata.producer_epoch >= 0;
        is_at_rest.then(|| after(self.metadata.updated, expiration))
    }
}

fn after(time: Timestamp, duration: Duration) -> Timestamp {
    let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(time.as_millis().saturating_add(millis))
}

/// The first multiple of the interval that is after `now` and not before `time`.
fn tick(time: Timestamp, now: SimTime, interval: Duration) -> SimTime {
    let millis = time.as_millis().saturating_sub(SimTime::EPOCH.as_millis()).max(0);
    let nanos = u128::try_from(millis).unwrap_or(0) * 1_000_000;
    let earliest = nanos.max(u128::from(now.as_nanos()) + 1);
    let interval = interval.as_nanos().max(1);
    let tick = earliest.div_ceil(interval) * interval;
    SimTime::from_nanos(u64::try_from(tick).unwrap_or(u64::MAX))
}

/// Sets a timer, or takes it back, if it is not set like that already.
fn set(turn: &mut Turn<'_>, at: &mut Option<SimTime>, to: Option<SimTime>, timer: BrokerTimer) {
    if *at == to {
        return;
    }
    *at = to;
    match to {
        Some(to) => turn.schedule(timer, to),
        None => turn.cancel(timer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_multiples_of_the_interval() {
        let second = Duration::from_secs(1);
        let at = |millis| Timestamp::from_millis(SimTime::EPOCH.as_millis() + millis);
        let time = |millis: u64| SimTime::from_nanos(millis * 1_000_000);
        assert_eq!(tick(at(1_500), time(0), second), time(2_000));
        assert_eq!(tick(at(2_000), time(0), second), time(2_000), "not before the time");
        assert_eq!(tick(at(500), time(2_000), second), time(3_000), "after now");
    }
}
