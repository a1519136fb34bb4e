//! WriteTxnMarkers: appends the ends of transactions to their partitions
//! (`KafkaApis.handleWriteTxnMarkersRequest`).
//!
//! - A marker takes an offset, raises the epoch of its producer, and is refused if that or the
//!   coordinator's epoch is an older one.
//! - In `__consumer_offsets` the coordinator of groups writes it, which learns the end by it; while
//!   it is not ready, this broker counts as not the leader.
//! - Answered when all markers are below the high watermark, or after 30 s.

use std::sync::Arc;
use std::time::Duration;

use bus_core::{ErrorKind, Offset, TopicPartition};

use crate::broker::connections::Caller;
use crate::broker::session::schedule;
use crate::broker::{Broker, BrokerTimer};
use crate::fact::{Fact, TransactionFact};
use crate::mutation::Mutation;
use crate::node::{ConnectionId, Effects, Timer};
use crate::protocol::Response;
use crate::protocol::batch::{ProducerId, RecordBatch};
use crate::protocol::write_txn_markers::{self, Marker};
use crate::time::SimTime;

/// A request to write markers, some of which are not replicated.
#[derive(Debug)]
pub(in crate::broker) struct DelayedMarkers {
    caller: Caller,
    markers: Vec<(ProducerId, Vec<(TopicPartition, Progress)>)>,
}

/// How far a marker is.
#[derive(Clone, Copy, Debug)]
enum Progress {
    /// It waits for this high watermark.
    Appended(Offset),
    Refused(ErrorKind),
}

impl Broker {
    pub(in crate::broker) fn write_txn_markers(
        &mut self,
        now: SimTime,
        caller: Caller,
        request: write_txn_markers::Request,
        effects: &mut Effects,
    ) {
        let mut markers = Vec::with_capacity(request.markers.len());
        for marker in request.markers {
            let mut partitions = Vec::with_capacity(marker.partitions.len());
            for topic_partition in &marker.partitions {
                let progress = match self.append_marker(now, &marker, topic_partition, effects) {
                    Ok(end) => Progress::Appended(end),
                    Err(error) => Progress::Refused(error),
                };
                partitions.push((topic_partition.clone(), progress));
            }
            markers.push((marker.producer_id, partitions));
        }
        let connection = caller.connection;
        self.marker_writes.insert(connection, DelayedMarkers { caller, markers });
        schedule(BrokerTimer::MarkersExpire { connection }, now + TIMEOUT, effects);
        self.settle_markers(effects);
    }

    /// Appends a marker, and returns the offset behind it.
    fn append_marker(
        &mut self,
        now: SimTime,
        marker: &Marker,
        topic_partition: &TopicPartition,
        effects: &mut Effects,
    ) -> Result<Offset, ErrorKind> {
        let unknown = ErrorKind::UnknownTopicOrPartition;
        let replica = self.replicas.get_mut(topic_partition).ok_or(unknown)?;
        replica.check_leader(None)?;
        if replica.lacks_replicas() {
            return Err(ErrorKind::NotEnoughReplicas);
        }
        let producers = replica.producers().ok_or(ErrorKind::NotLeaderOrFollower)?;
        producers.check_marker(marker)?;
        let offset = replica.log.end();
        if topic_partition.topic == self.offsets_topic {
            let partition = topic_partition.partition;
            if self.shards.get(&partition).is_none_or(|shard| !shard.is_ready()) {
                return Err(ErrorKind::NotLeaderOrFollower);
            }
            self.with_shard(now, partition, effects, |shard, turn| {
                shard.write_marker(turn, marker.clone());
            });
        } else {
            let producer = (marker.producer_id, marker.producer_epoch);
            let time = now.timestamp();
            let batch =
                RecordBatch::marker(producer, marker.control, marker.coordinator_epoch, time);
            let digest = batch.digest;
            replica.append_unchecked(now, Arc::new(batch));
            if self.config.mutation == Some(Mutation::MarkerOffsetReused) {
                replica.log.reuse_last_offset();
            }
            effects.fact(Fact::Appended {
                broker: self.id,
                topic_partition: topic_partition.clone(),
                base_offset: offset,
                count: 1,
                digest,
            });
            self.partition_grew(topic_partition, effects);
        }
        let fact = TransactionFact::Marker {
            topic_partition: topic_partition.clone(),
            producer_id: marker.producer_id,
            producer_epoch: marker.producer_epoch,
            control: marker.control,
            offset,
        };
        effects.fact(fact.into());
        Ok(self.replicas.get(topic_partition).map_or(offset, |replica| replica.log.end()))
    }

    /// Answers the requests whose markers are all replicated, or never will be here.
    pub(in crate::broker) fn settle_markers(&mut self, effects: &mut Effects) {
        let is_done = |delayed: &DelayedMarkers| {
            let mut partitions = delayed.markers.iter().flat_map(|(_, partitions)| partitions);
            partitions.all(|(partition, progress)| match progress {
                Progress::Refused(_) => true,
                Progress::Appended(end) => self
                    .replicas
                    .get(partition)
                    .is_none_or(|replica| !replica.is_leader() || replica.high_watermark() >= *end),
            })
        };
        let done = self.marker_writes.iter().filter(|(_, delayed)| is_done(delayed));
        for connection in done.map(|(connection, _)| *connection).collect::<Vec<_>>() {
            self.expire_markers(connection, effects);
        }
    }

    /// Answers a request to write markers; what is not replicated by now has timed out.
    pub(in crate::broker) fn expire_markers(
        &mut self,
        connection: ConnectionId,
        effects: &mut Effects,
    ) {
        let Some(delayed) = self.marker_writes.remove(&connection) else { return };
        effects.cancel_timer(Timer::Broker(BrokerTimer::MarkersExpire { connection }));
        let outcome = |(partition, progress): (TopicPartition, Progress)| {
            let error = match (progress, self.replicas.get(&partition)) {
                (Progress::Refused(error), _) => Some(error),
                (_, None) => Some(ErrorKind::UnknownTopicOrPartition),
                (_, Some(replica)) if !replica.is_leader() => Some(ErrorKind::NotLeaderOrFollower),
                (Progress::Appended(end), Some(replica)) => {
                    (replica.high_watermark() < end).then_some(ErrorKind::RequestTimedOut)
                }
            };
            (partition, error)
        };
        let markers = delayed
            .markers
            .into_iter()
            .map(|(producer_id, partitions)| {
                (producer_id, partitions.into_iter().map(outcome).collect())
            })
            .collect();
        let response = Response::WriteTxnMarkers(write_txn_markers::Response { markers });
        self.connections.respond(delayed.caller, response, effects);
    }
}

/// `request.timeout.ms` of a broker.
const TIMEOUT: Duration = Duration::from_secs(30);
