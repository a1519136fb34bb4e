//! Requests and responses, at the level of Kafka's protocol: one file per API, with the fields and
//! the errors that matter. Nothing here does anything.
//!
//! Simplified: no version negotiation (`ApiVersions`); typed values instead of bytes, except where
//! Kafka's own brokers do not look inside (member metadata, assignments).

pub mod add_offsets_to_txn;
pub mod add_partitions_to_txn;
pub mod batch;
pub mod cluster;
pub mod end_txn;
pub mod fetch;
pub mod find_coordinator;
pub mod groups;
pub mod heartbeat;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod sync_group;
pub mod topics;
pub mod txn_offset_commit;
pub mod write_txn_markers;

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

macro_rules! apis {
    ($($(#[doc = $doc:literal])+ $api:ident($module:ident),)+) => {
        /// The API of a request.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        pub enum Api {
            $($(#[doc = $doc])+ $api,)+
        }

        impl Api {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$api),+];

            /// Kafka's name of it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$api => stringify!($api),)+ }
            }

            /// The API of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|api| api.name() == name)
            }
        }

        /// A request of any API.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Request {
            $($(#[doc = $doc])+ $api(apis!(@request $module $api)),)+
        }

        /// A response of any API.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Response {
            $($(#[doc = $doc])+ $api(apis!(@response $module $api)),)+
        }

        impl Request {
            /// Which API it is of.
            pub const fn api(&self) -> Api {
                match self { $(Self::$api(_) => Api::$api,)+ }
            }
        }

        impl Response {
            /// Which API it is of.
            pub const fn api(&self) -> Api {
                match self { $(Self::$api(_) => Api::$api,)+ }
            }
        }
    };
    (@request topics CreateTopics) => { topics::CreateTopicsRequest };
    (@request topics DeleteTopics) => { topics::DeleteTopicsRequest };
    (@request topics CreatePartitions) => { topics::CreatePartitionsRequest };
    (@request groups ListGroups) => { groups::ListGroupsRequest };
    (@request groups DescribeGroups) => { groups::DescribeGroupsRequest };
    (@request groups DeleteGroups) => { groups::DeleteGroupsRequest };
    (@request cluster RegisterBroker) => { cluster::RegisterBrokerRequest };
    (@request cluster BrokerHeartbeat) => { cluster::BrokerHeartbeatRequest };
    (@request cluster AlterPartition) => { cluster::AlterPartitionRequest };
    (@request cluster FetchMetadataLog) => { cluster::FetchMetadataLogRequest };
    (@request $module:ident $api:ident) => { $module::Request };
    (@response topics CreateTopics) => { topics::TopicResponse };
    (@response topics DeleteTopics) => { topics::TopicResponse };
    (@response topics CreatePartitions) => { topics::TopicResponse };
    (@response groups ListGroups) => { groups::ListGroupsResponse };
    (@response groups DescribeGroups) => { groups::DescribeGroupsResponse };
    (@response groups DeleteGroups) => { groups::DeleteGroupsResponse };
    (@response cluster RegisterBroker) => { cluster::RegisterBrokerResponse };
    (@response cluster BrokerHeartbeat) => { cluster::BrokerHeartbeatResponse };
    (@response cluster AlterPartition) => { cluster::AlterPartitionResponse };
    (@response cluster FetchMetadataLog) => { cluster::FetchMetadataLogResponse };
    (@response $module:ident $api:ident) => { $module::Response };
}

apis! {
    /// Appends batches.
    Produce(produce),
    /// Reads batches.
    Fetch(fetch),
    /// Finds offsets by time, or at the ends.
    ListOffsets(list_offsets),
    /// Describes topics, partitions, and brokers.
    Metadata(metadata),
    /// Finds the coordinator of a group or transactional id.
    FindCoordinator(find_coordinator),
    /// Joins a group.
    JoinGroup(join_group),
    /// Hands out the assignment of a generation.
    SyncGroup(sync_group),
    /// Keeps a member alive, and tells it of a rebalance.
    Heartbeat(heartbeat),
    /// Leaves a group.
    LeaveGroup(leave_group),
    /// Commits offsets.
    OffsetCommit(offset_commit),
    /// Reads committed offsets.
    OffsetFetch(offset_fetch),
    /// Gives out a producer id.
    InitProducerId(init_producer_id),
    /// Adds partitions to a transaction, or verifies that they are in it.
    AddPartitionsToTxn(add_partitions_to_txn),
    /// Adds the offsets of a group to a transaction.
    AddOffsetsToTxn(add_offsets_to_txn),
    /// Stores offsets that count once the transaction commits.
    TxnOffsetCommit(txn_offset_commit),
    /// Ends a transaction.
    EndTxn(end_txn),
    /// Writes the ends of transactions to partitions.
    WriteTxnMarkers(write_txn_markers),
    /// Finds where a leader epoch ends.
    OffsetForLeaderEpoch(offset_for_leader_epoch),
    /// Creates topics.
    CreateTopics(topics),
    /// Deletes topics.
    DeleteTopics(topics),
    /// Grows topics.
    CreatePartitions(topics),
    /// Lists the groups of a coordinator.
    ListGroups(groups),
    /// Describes groups.
    DescribeGroups(groups),
    /// Deletes groups.
    DeleteGroups(groups),
    /// A broker registers with the controller.
    RegisterBroker(cluster),
    /// A broker keeps its registration alive.
    BrokerHeartbeat(cluster),
    /// A broker reads the metadata log of the controller.
    FetchMetadataLog(cluster),
    /// A leader changes who is in sync.
    AlterPartition(cluster),
}

impl Request {
    /// The digest of what the request asks: the cause of the choices about its way.
    pub fn digest(&self) -> u64 {
        Digest::of(self)
    }
}

impl Response {
    /// The digest of what it says, for the trace.
    pub fn digest(&self) -> u64 {
        Digest::of(self)
    }
}

/// Hashes batches by their own digests instead of by all their bytes.
fn hash_batches<'a, H: Hasher>(
    batches: impl IntoIterator<Item = &'a batch::StoredBatch>,
    state: &mut H,
) {
    for batch in batches {
        (batch.base_offset, batch.leader_epoch).hash(state);
        batch.batch.hash(state);
    }
}
