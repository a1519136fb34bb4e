//! OffsetForLeaderEpoch: where an epoch ends in the leader's log, for who wants to know whether the
//! records that it read before are still there (KIP-320).

use super::Broker;
use super::connections::Caller;
use crate::node::Effects;
use crate::protocol::Response;
use crate::protocol::offset_for_leader_epoch::{
    self as protocol, PartitionRequest, PartitionResponse,
};

impl Broker {
    pub(super) fn offset_for_leader_epoch(
        &mut self,
        caller: Caller,
        request: &protocol::Request,
        effects: &mut Effects,
    ) {
        let find = |partition: &PartitionRequest| PartitionResponse {
            topic_partition: partition.topic_partition.clone(),
            result: self
                .leader(&partition.topic_partition, partition.current_leader_epoch)
                .map(|replica| replica.end_of_epoch(partition.leader_epoch)),
        };
        let partitions = request.partitions.iter().map(find).collect();
        let response = Response::OffsetForLeaderEpoch(protocol::Response { partitions });
        self.connections.respond(caller, response, effects);
    }
}
