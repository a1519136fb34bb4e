//! Fetch: reads batches, waiting for some to come.
//!
//! - Answers at once with an error of any partition, with `min_bytes`, or when it shall not wait;
//!   otherwise when appends bring `min_bytes`, or after `max_wait`.
//! - Reads whole batches: the first of a response also when it is larger than the limits.
//! - Reads up to the high watermark, or with `read_committed` to the last stable offset, and then
//!   names the aborted transactions in what it read: the client skips their records.
//!
//! Simplified: no fetch sessions (KIP-227). Absent: followers, fetching from followers (KIP-392),
//! truncation detection (KIP-320 beyond the leader epoch). See `docs/fidelity.md`.

use bus_core::{ErrorKind, IsolationLevel, Offset, TopicPartition};

use super::connections::Caller;
use super::replica::Replica;
use super::session::schedule;
use super::{Broker, BrokerTimer};
use crate::mutation::Mutation;
use crate::node::{ConnectionId, Effects, Timer};
use crate::protocol::Response;
use crate::protocol::batch::{ProducerId, StoredBatch};
use crate::protocol::fetch::{self, Fetched, PartitionRequest, PartitionResponse};
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
        let response = self.read(&request);
        let bytes: u64 = response.partitions.iter().map(bytes_of).sum();
        let is_done = request.max_wait.is_zero()
            || request.partitions.is_empty()
            || bytes >= u64::from(request.min_bytes)
            || response.partitions.iter().any(|partition| partition.result.is_err());
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

    /// Whether a delayed fetch has enough to read, or an error to tell.
    fn has_enough(&self, request: &fetch::Request) -> bool {
        let mut bytes = 0;
        for partition in &request.partitions {
            let epoch = partition.current_leader_epoch;
            let Ok(replica) = self.leader(&partition.topic_partition, epoch) else { return true };
            let limit = self.limit(replica, request.isolation_level);
            let readable = replica.log.bytes_between(partition.offset, limit);
            bytes += readable.min(u64::from(partition.max_bytes));
        }
        bytes >= u64::from(request.min_bytes)
    }

    /// How far a client reads.
    pub(super) fn limit(&self, replica: &Replica, isolation_level: IsolationLevel) -> Offset {
        match isolation_level {
            _ if self.config.mutation == Some(Mutation::OpenTransactionVisible) => {
                replica.high_watermark()
            }
            IsolationLevel::ReadUncommitted => replica.high_watermark(),
            IsolationLevel::ReadCommitted => replica.last_stable_offset(),
        }
    }

    fn read(&self, request: &fetch::Request) -> fetch::Response {
        let mut budget = Budget { bytes: request.max_bytes, is_untouched: true };
        let read = |partition: &PartitionRequest| PartitionResponse {
            topic_partition: partition.topic_partition.clone(),
            result: self.read_partition(request.isolation_level, partition, &mut budget),
        };
        fetch::Response { partitions: request.partitions.iter().map(read).collect() }
    }

    /// The aborted transactions in what was read, which a client that reads committed records skips.
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
        isolation_level: IsolationLevel,
        partition: &PartitionRequest,
        budget: &mut Budget,
    ) -> Result<Fetched, ErrorKind> {
        let epoch = partition.current_leader_epoch;
        let replica = self.leader(&partition.topic_partition, epoch)?;
        let max_bytes = partition.max_bytes.min(budget.bytes);
        let limit = self.limit(replica, isolation_level);
        let mut batches =
            replica.log.read(partition.offset, limit, max_bytes, budget.is_untouched)?;
        let size: u32 = batches.iter().map(|stored| stored.batch.size).sum();
        budget.bytes = budget.bytes.saturating_sub(size);
        budget.is_untouched &= batches.is_empty();
        if self.config.mutation == Some(Mutation::DeliveredTwice)
            && let Some(first) = batches.first().cloned()
        {
            batches.insert(0, first);
        }
        Ok(Fetched {
            high_watermark: replica.high_watermark(),
            last_stable_offset: replica.last_stable_offset(),
            log_start: replica.log.start(),
            aborted: self.aborted(replica, isolation_level, partition.offset, &batches),
            diverging_epoch: None,
            batches,
        })
    }
}

/// What a response may still hold.
struct Budget {
    bytes: u32,
    /// Nothing was read yet, so the first batch fits in any case.
    is_untouched: bool,
}

fn bytes_of(partition: &PartitionResponse) -> u64 {
    partition.result.as_ref().map_or(0, |fetched| {
        fetched.batches.iter().map(|stored| u64::from(stored.batch.size)).sum()
    })
}
