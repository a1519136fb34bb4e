//! ListOffsets: an offset by time, or at one of the ends.
//!
//! By time: the first batch whose latest timestamp is not older, and in it the first such record;
//! not beyond what the isolation level lets a client read. What is beyond the high watermark of a
//! leader that has not reached the start of its epoch is not available (KIP-207): clients may have
//! seen more. To a follower the end is that of the log.
//!
//! Absent: the offset of the latest timestamp, tiered storage. See `docs/fidelity.md`.

use bus_core::{ErrorKind, IsolationLevel, Offset};

use super::Broker;
use super::connections::Caller;
use crate::mutation::Mutation;
use crate::node::Effects;
use crate::protocol::Response;
use crate::protocol::list_offsets::{self, OffsetSpec, PartitionRequest, PartitionResponse};

impl Broker {
    pub(super) fn list_offsets(
        &mut self,
        caller: Caller,
        request: &list_offsets::Request,
        effects: &mut Effects,
    ) {
        let find = |partition: &PartitionRequest| PartitionResponse {
            topic_partition: partition.topic_partition.clone(),
            result: self.find_offset(request, partition),
        };
        let partitions = request.partitions.iter().map(find).collect();
        let response = Response::ListOffsets(list_offsets::Response { partitions });
        self.connections.respond(caller, response, effects);
    }

    fn find_offset(
        &self,
        request: &list_offsets::Request,
        partition: &PartitionRequest,
    ) -> Result<Option<Offset>, ErrorKind> {
        let epoch = partition.current_leader_epoch;
        let replica = self.leader(&partition.topic_partition, epoch)?;
        let limit = match request.isolation_level {
            _ if request.replica.is_some() => replica.log.end(),
            _ if self.has(Mutation::EndOfCheckpointTold) => replica.checkpoint(),
            IsolationLevel::ReadCommitted if !self.has(Mutation::OpenTransactionVisible) => {
                replica.last_stable_offset()
            }
            IsolationLevel::ReadCommitted | IsolationLevel::ReadUncommitted => {
                replica.high_watermark()
            }
        };
        let is_unknown = request.replica.is_none()
            && replica.lags_behind_epoch()
            && !self.has(Mutation::EndToldTooEarly);
        let found = match partition.spec {
            OffsetSpec::Earliest if self.has(Mutation::EarliestIsNewestBatch) => {
                return Ok(Some(replica.log.last_base()));
            }
            OffsetSpec::Earliest => return Ok(Some(replica.log.start())),
            OffsetSpec::Latest => Some(limit).filter(|_| !is_unknown),
            OffsetSpec::Timestamp(timestamp) => {
                replica.log.find_by_time(timestamp).filter(|offset| *offset < limit)
            }
        };
        if found.is_none() && is_unknown {
            return Err(ErrorKind::OffsetNotAvailable);
        }
        Ok(found)
    }
}
