//! ListOffsets: an offset by time, or at one of the ends.
//!
//! By time: the first batch whose latest timestamp is not older, and in it the first such record;
//! not beyond what the isolation level lets a client read.
//!
//! Absent: the offset of the latest timestamp, tiered storage. See `docs/fidelity.md`.

use bus_core::{ErrorKind, IsolationLevel, Offset};

use super::Broker;
use super::connections::Caller;
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
            result: self.find_offset(request.isolation_level, partition),
        };
        let partitions = request.partitions.iter().map(find).collect();
        let response = Response::ListOffsets(list_offsets::Response { partitions });
        self.connections.respond(caller, response, effects);
    }

    fn find_offset(
        &self,
        isolation_level: IsolationLevel,
        partition: &PartitionRequest,
    ) -> Result<Option<Offset>, ErrorKind> {
        let epoch = partition.current_leader_epoch;
        let replica = self.leader(&partition.topic_partition, epoch)?;
        let limit = self.limit(replica, isolation_level);
        Ok(match partition.spec {
            OffsetSpec::Earliest => Some(replica.log.start()),
            OffsetSpec::Latest => Some(limit),
            OffsetSpec::Timestamp(timestamp) => {
                replica.log.find_by_time(timestamp).filter(|offset| *offset < limit)
            }
        })
    }
}
