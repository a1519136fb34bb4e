//! Between brokers and the controller: registration, heartbeats, and the metadata log, from which
//! each broker replays what it knows of the cluster (KRaft).

use std::collections::BTreeMap;

use bus_core::{ErrorKind, Partition, Topic, TopicPartition, Uuid};

use crate::node::BrokerId;

/// The epoch of a broker's registration; a newer one fences the older.
pub type BrokerEpoch = i64;

/// A broker that started registers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegisterBrokerRequest {
    /// The broker.
    pub broker: BrokerId,
    /// A number that is another one after each start.
    pub incarnation: u32,
    /// The registration that it had when it was shut down cleanly, if it was (KIP-966).
    pub previous_broker_epoch: Option<BrokerEpoch>,
}

/// The registration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegisterBrokerResponse {
    /// The epoch.
    pub result: Result<BrokerEpoch, ErrorKind>,
}

/// A broker is alive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BrokerHeartbeatRequest {
    /// The broker.
    pub broker: BrokerId,
    /// Its registration.
    pub broker_epoch: BrokerEpoch,
    /// How far it has read the metadata log; it is unfenced when that is far enough.
    pub metadata_offset: i64,
    /// It wants to stop (controlled shutdown).
    pub want_shutdown: bool,
}

/// What the controller thinks of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BrokerHeartbeatResponse {
    /// Why the registration does not count any more.
    pub error: Option<ErrorKind>,
    /// Whether the broker leads nothing and is not in sync anywhere.
    pub is_fenced: bool,
    /// Whether it may stop now.
    pub may_shut_down: bool,
}

/// Reads the metadata log, waiting for more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FetchMetadataLogRequest {
    /// The broker.
    pub broker: BrokerId,
    /// The offset of the first record wanted.
    pub offset: i64,
}

/// Records of the metadata log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FetchMetadataLogResponse {
    /// The records, from the offset asked for on.
    pub records: Vec<MetadataRecord>,
}

/// A fact of the cluster. Controller and brokers change what they know only by replaying these.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MetadataRecord {
    /// A broker registered; it is fenced until it caught up.
    RegisterBroker {
        /// The broker.
        broker: BrokerId,
        /// Its registration.
        broker_epoch: BrokerEpoch,
        /// The number of its start.
        incarnation: u32,
    },
    /// A broker was fenced or unfenced.
    BrokerFenced {
        /// The broker.
        broker: BrokerId,
        /// Whether it is fenced now.
        is_fenced: bool,
    },
    /// A broker began a controlled shutdown: it leads nothing from now on.
    BrokerInControlledShutdown {
        /// The broker.
        broker: BrokerId,
    },
    /// A topic was created.
    Topic {
        /// The name.
        topic: Topic,
        /// The id.
        topic_id: Uuid,
    },
    /// A property of a topic was set (or, with `None`, went back to its default).
    TopicConfig {
        /// The topic.
        topic: Topic,
        /// Name and value.
        config: BTreeMap<String, Option<String>>,
    },
    /// A partition was created or changed.
    Partition {
        /// The topic.
        topic: Topic,
        /// Which partition.
        partition: Partition,
        /// Its state from now on.
        state: PartitionState,
    },
    /// A topic was deleted.
    RemoveTopic {
        /// The topic.
        topic: Topic,
    },
}

/// What the controller decides about a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionState {
    /// The replicas, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// Those in sync.
    pub in_sync_replicas: Vec<BrokerId>,
    /// Those that may lead when nobody is in sync (ELR, KIP-966).
    pub eligible_leaders: Vec<BrokerId>,
    /// While there is no leader and nobody in sync: who led last.
    pub last_known_leader: Option<BrokerId>,
    /// The leader, if there is one.
    pub leader: Option<BrokerId>,
    /// Higher with each new leader.
    pub leader_epoch: i32,
    /// Higher with each change.
    pub partition_epoch: i32,
}

impl PartitionState {
    /// A new partition with these replicas, all in sync, led by the first.
    pub fn new(replicas: Vec<BrokerId>) -> Self {
        Self {
            in_sync_replicas: replicas.clone(),
            eligible_leaders: Vec::new(),
            last_known_leader: None,
            leader: replicas.first().copied(),
            replicas,
            leader_epoch: 0,
            partition_epoch: 0,
        }
    }
}

/// A leader asks the controller to change who is in sync (AlterPartition, KIP-497).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AlterPartitionRequest {
    /// The leader.
    pub broker: BrokerId,
    /// Its registration.
    pub broker_epoch: BrokerEpoch,
    /// The partitions.
    pub partitions: Vec<AlterPartition>,
}

/// Who shall be in sync.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AlterPartition {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The leader's epoch.
    pub leader_epoch: i32,
    /// The partition epoch that the change is made from; it fails if there is a newer one.
    pub partition_epoch: i32,
    /// The replicas in sync, each with its registration.
    pub in_sync_replicas: Vec<(BrokerId, BrokerEpoch)>,
}

/// What the controller made of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AlterPartitionResponse {
    /// Per partition of the request: the state from now on, or why it was refused. Or why nothing
    /// of it was looked at.
    pub result: Result<Vec<AlteredPartition>, ClusterError>,
}

/// What the controller made of a proposal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AlteredPartition {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// Its state from now on, or why it was refused.
    pub result: Result<PartitionState, ClusterError>,
}

/// An error between brokers and the controller, by Kafka's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClusterError {
    /// The registration of the broker is not its newest.
    StaleBrokerEpoch,
    /// There is no such partition.
    UnknownTopicOrPartition,
    /// The controller knows less than the broker.
    NotController,
    /// There is a newer leader epoch.
    FencedLeaderEpoch,
    /// The broker does not lead, or those in sync are no replicas.
    InvalidRequest,
    /// The partition epoch is not the newest.
    InvalidUpdateVersion,
    /// One of those in sync is fenced, or has registered again.
    IneligibleReplica,
}
