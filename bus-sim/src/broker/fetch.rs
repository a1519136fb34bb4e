//! Fetch: reads batches for consumers and followers, waiting for some to come.
//!
//! - Answers at once with an error or a diverging epoch of any partition, with `min_bytes`, or when
//!   it shall not wait; otherwise when appends bring `min_bytes`, or after `max_wait`.
//! - Reads whole batches: the first of a response also when it is larger than the limits.
//! - Consumers read up to the high watermark, or with `read_committed` to the last stable offset,
//!   and then learn of the aborted transactions in what they read, to skip their records; followers
//!   read to the end of the log. A follower's fetch tells the leader where its log ends, and can
//!   raise the high watermark; the response still has the one of before, so a follower learns of it
//!   one fetch late.
//! - Who names the epoch of the record before learns when the leader's log has another one there
//!   (KIP-595).
//!
//! Simplified: no fetch sessions (KIP-227). Absent: fetching from followers (KIP-392). See
//! `docs/fidelity.md`.

use bus_core::{ErrorKind, IsolationLevel, Offset, TopicPartition};

use super::connections::Caller;
use super::in_sync::FollowerFetch;
use super::replica::Replica;
use super::session::schedule;
use super::{Broker, BrokerTimer};
use crate::mutation::Mutation;
use crate::node::{ConnectionId, Effects, Timer};
use crate::protocol::Response;
use crate::protocol::batch::{ProducerId, StoredBatch};
use crate::protocol::fetch::{self, Fetched, PartitionRequest, PartitionResponse};
use crate::protocol::offset_for_leader_epoch::EpochEnd;
use crate::time::SimTime;

/// A fetch that waits for more.
#[derive(Debug)]
pub(super) struct DelayedFetch {
    caller: Caller,
    request: fetch::Request,
}

impl Broker {
    pub(super) fn fetch(
        &mut self,
        now: SimTime,
        caller: Caller,
        request: fetch::Request,
        effects: &mut Effects,
    ) {
        let mut response = self.read(&request);
        if request.replica.is_some() {
            self.note_positions(now, &request, &mut response, effects);
        }
        let bytes: u64 = response.partitions.iter().map(bytes_of).sum();
        let is_done = request.max_wait.is_zero()
            || request.partitions.is_empty()
            || bytes >= u64::from(request.min_bytes)
            || response.partitions.iter().any(is_urgent);
        if is_done {
            self.connections.respond(caller, Response::Fetch(response), effects);
            return;
        }
        let connection = caller.connection;
        for partition in &request.partitions {
            if let Some(replica) = self.replicas.get_mut(&partition.topic_partition) {
                replica.add_fetch_waiter(connection);
            }
        }
        schedule(BrokerTimer::FetchExpires { connection }, now + request.max_wait, effects);
        self.fetches.insert(connection, DelayedFetch { caller, request });
    }

    /// Answers the fetches that wait for this partition and have enough now.
    pub(super) fn wake_fetches(&mut self, topic_partition: &TopicPartition, effects: &mut Effects) {
        let Some(replica) = self.replicas.get_mut(topic_partition) else { return };
        for connection in replica.take_fetch_waiters() {
            let Some(delayed) = self.fetches.get(&connection) else { continue };
            if self.has_enough(&delayed.request) {
                self.complete_fetch(connection, effects);
            } else if let Some(replica) = self.replicas.get_mut(topic_partition) {
                replica.add_fetch_waiter(connection);
            }
        }
    }

    /// Answers a delayed fetch with what there is.
    pub(super) fn complete_fetch(&mut self, connection: ConnectionId, effects: &mut Effects) {
        let Some(DelayedFetch { caller, request }) = self.fetches.remove(&connection) else {
            return;
        };
        effects.cancel_timer(Timer::Broker(BrokerTimer::FetchExpires { connection }));
        let response = self.read(&request);
        self.connections.respond(caller, Response::Fetch(response), effects);
    }

    /// Notes where the log of a follower ends by the offsets that it fetches from.
    fn note_positions(
        &mut self,
        now: SimTime,
        request: &fetch::Request,
        response: &mut fetch::Response,
        effects: &mut Effects,
    ) {
        let Some((follower, broker_epoch)) = request.replica else { return };
        let (mut advanced, mut proposed) = (Vec::new(), Vec::new());
        for (asked, answer) in request.partitions.iter().zip(&mut response.partitions) {
            if is_urgent(answer) {
                continue;
            }
            let topic_partition = &asked.topic_partition;
            let Some(replica) = self.replicas.get_mut(topic_partition) else { continue };
            match replica
                .fetched(now, FollowerFetch { follower, broker_epoch, offset: asked.offset })
            {
                Ok(fetched) => {
                    advanced.extend(fetched.has_advanced.then(|| topic_partition.clone()));
                    proposed.extend(fetched.is_proposed.then(|| topic_partition.clone()));
                }
                Err(error) => answer.result = Err(error),
            }
        }
        proposed.into_iter().for_each(|partition| self.propose(partition, effects));
        advanced.iter().for_each(|partition| self.watermark_rose(now, partition, effects));
    }

    /// Whether a delayed fetch has enough to read, or an error to tell.
    fn has_enough(&self, request: &fetch::Request) -> bool {
        let mut bytes = 0;
        for partition in &request.partitions {
            let Ok(replica) = self.readable(request, partition) else { return true };
            if !matches!(self.diverging(replica, partition), Ok(None)) {
                return true;
            }
            let limit = self.limit(replica, request);
            let readable = replica.log.bytes_between(partition.offset, limit);
            bytes += readable.min(u64::from(partition.max_bytes));
        }
        bytes >= u64::from(request.min_bytes)
    }

    fn read(&self, request: &fetch::Request) -> fetch::Response {
        let mut budget = Budget { bytes: request.max_bytes, is_untouched: true };
        let read = |partition: &PartitionRequest| PartitionResponse {
            topic_partition: partition.topic_partition.clone(),
            result: self.read_partition(request, partition, &mut budget),
        };
        fetch::Response { partitions: request.partitions.iter().map(read).collect() }
    }

    /// The aborted transactions in what was read: who reads committed records skips them.
    fn aborted(
        &self,
        replica: &Replica,
        isolation_level: IsolationLevel,
        offset: Offset,
        batches: &[StoredBatch],
    ) -> Vec<(ProducerId, Offset)> {
        let is_shown = self.config.mutation == Some(Mutation::AbortedRecordVisible);
        let Some(last) = batches.last() else { return Vec::new() };
        match isolation_level {
            IsolationLevel::ReadCommitted if !is_shown => {
                let producers = replica.producers();
                let end = last.next_offset();
                producers.map_or_else(Vec::new, |p| p.aborted_between(offset, end))
            }
            IsolationLevel::ReadCommitted | IsolationLevel::ReadUncommitted => Vec::new(),
        }
    }

    fn read_partition(
        &self,
        request: &fetch::Request,
        partition: &PartitionRequest,
        budget: &mut Budget,
    ) -> Result<Fetched, ErrorKind> {
        let replica = self.readable(request, partition)?;
        let diverging_epoch = self.diverging(replica, partition)?;
        let mut batches = Vec::new();
        if diverging_epoch.is_none() {
            let max_bytes = partition.max_bytes.min(budget.bytes);
            let limit = self.limit(replica, request);
            batches = replica.log.read(partition.offset, limit, max_bytes, budget.is_untouched)?;
        }
        let size: u32 = batches.iter().map(|stored| stored.batch.size).sum();
        budget.bytes = budget.bytes.saturating_sub(size);
        budget.is_untouched &= batches.is_empty();
        if self.has(Mutation::DeliveredTwice)
            && request.replica.is_none()
            && let Some(first) = batches.first().cloned()
        {
            batches.insert(0, first);
        }
        Ok(Fetched {
            high_watermark: replica.high_watermark(),
            last_stable_offset: replica.last_stable_offset(),
            log_start: replica.log.start(),
            aborted: self.aborted(replica, request.isolation_level, partition.offset, &batches),
            diverging_epoch,
            batches,
        })
    }

    /// The replica that serves a fetch.
    fn readable(
        &self,
        request: &fetch::Request,
        partition: &PartitionRequest,
    ) -> Result<&Replica, ErrorKind> {
        let replica = self.leader(&partition.topic_partition, partition.current_leader_epoch)?;
        match request.replica {
            // It follows as of a newer image than the own one.
            Some((follower, _)) if !replica.is_followed_by(follower) => {
                Err(ErrorKind::UnknownLeaderEpoch)
            }
            _ => Ok(replica),
        }
    }

    /// How far a fetch reads.
    fn limit(&self, replica: &Replica, request: &fetch::Request) -> Offset {
        let is_follower = request.replica.is_some();
        match request.isolation_level {
            _ if is_follower || self.has(Mutation::ReadAboveWatermark) => replica.log.end(),
            IsolationLevel::ReadCommitted if !self.has(Mutation::OpenTransactionVisible) => {
                replica.last_stable_offset()
            }
            IsolationLevel::ReadCommitted | IsolationLevel::ReadUncommitted => {
                replica.high_watermark()
            }
        }
    }

    /// Where the logs part, if the leader's has another epoch before the offset asked for.
    fn diverging(
        &self,
        replica: &Replica,
        partition: &PartitionRequest,
    ) -> Result<Option<EpochEnd>, ErrorKind> {
        let Some(epoch) = partition.last_fetched_epoch else { return Ok(None) };
        if self.has(Mutation::DivergenceIgnored) {
            return Ok(None);
        }
        let end = replica.end_of_epoch(epoch).ok_or(ErrorKind::OffsetOutOfRange)?;
        if partition.offset < replica.log.start() {
            return Err(ErrorKind::OffsetOutOfRange);
        }
        let diverges = end.leader_epoch < epoch || end.end_offset < partition.offset;
        Ok(diverges.then_some(end))
    }
}

/// What a response may still hold.
struct Budget {
    bytes: u32,
    /// Nothing was read yet, so the first batch fits in any case.
    is_untouched: bool,
}

/// Whether a partition has something to tell at once.
fn is_urgent(partition: &PartitionResponse) -> bool {
    partition.result.as_ref().map_or(true, |fetched| fetched.diverging_epoch.is_some())
}

fn bytes_of(partition: &PartitionResponse) -> u64 {
    partition.result.as_ref().map_or(0, |fetched| {
        fetched.batches.iter().map(|stored| u64::from(stored.batch.size)).sum()
    })
}
