//! Brokers and the controller: a broker routes requests to machines, one file per API or machine.
//!
//! In reading order: `connections` (one request at a time), `session` (with the controller),
//! `image` (what is known of the cluster), `peers` (other brokers), `partitions`; `replica`, `log`,
//! `epochs`, and `in_sync` (one partition); `replication` and `alter_partition` (as follower and as
//! leader), `produce`, `fetch`, `list_offsets`, `metadata`, `topics`, `group` (the group
//! coordinator), and `transaction` (the transaction coordinator, and what partitions do for it).
//!
//! A crash keeps logs, topic ids, and the numbers that must never be used twice; all else is
//! memory.

mod alter_partition;
mod bootstrap;
mod broker_control;
mod check;
mod connections;
mod controller;
mod election;
mod encoding;
mod epochs;
mod fetch;
mod group;
mod image;
mod in_sync;
mod list_offsets;
mod log;
mod metadata;
mod offset_for_leader_epoch;
mod partition_control;
mod partitions;
mod peers;
mod produce;
mod producer_state;
mod replica;
mod replication;
mod session;
#[cfg(test)]
mod tests;
mod topic_config;
mod topic_control;
mod topics;
mod transaction;

use std::collections::BTreeMap;
use std::sync::Arc;

use bus_core::{ErrorKind, Partition, Topic, TopicPartition};

use self::alter_partition::Proposals;
pub use self::bootstrap::bootstrap;
use self::connections::{Caller, Connections};
pub use self::controller::Controller;
use self::fetch::DelayedFetch;
use self::group::{DelayedDeletion, Shard};
use self::image::Image;
use self::peers::Peers;
use self::produce::DelayedProduce;
use self::replica::Replica;
use self::replication::Fetcher;
use self::session::Session;
use self::topics::Forward;
use self::transaction::{DelayedMarkers, ProducerIds, Verifying};
use crate::choice::Choices;
use crate::config::SimConfig;
use crate::mutation::Mutation;
use crate::node::{BrokerId, ConnectionId, Effects, Input, Name, NodeId, Timer};
use crate::protocol::Request;
use crate::time::SimTime;

/// A timer of a broker or of the controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BrokerTimer {
    /// When to tell the controller that the broker is alive.
    Heartbeat,
    /// When to try again to connect to the controller, or to register with it.
    Reconnect,
    /// When a delayed fetch is answered with what there is.
    FetchExpires {
        /// Its connection; one request of it is handled at a time.
        connection: ConnectionId,
    },
    /// When a delayed produce is answered with what is replicated.
    ProduceExpires {
        /// Its connection.
        connection: ConnectionId,
    },
    /// When a request that was forwarded to the controller is given up.
    ForwardExpires {
        /// The connection of who asked.
        connection: ConnectionId,
    },
    /// When the oldest request to another broker has waited too long.
    PeerExpires {
        /// Its connection.
        connection: ConnectionId,
    },
    /// When to fetch again, as a follower, after errors.
    ReplicaFetch {
        /// The broker to fetch from.
        leader: BrokerId,
    },
    /// When to look for followers that lag.
    CheckInSync,
    /// When to propose again who is in sync, after an error.
    SendProposals,
    /// When a coordinator has read its partition of `__consumer_offsets`.
    LoadCoordinator {
        /// The partition.
        partition: Partition,
    },
    /// When a coordinator gives up what waits for replicas for too long.
    ExpireWrites {
        /// Its partition of `__consumer_offsets`.
        partition: Partition,
    },
    /// When a coordinator looks for expired offsets.
    ExpireOffsets {
        /// Its partition of `__consumer_offsets`.
        partition: Partition,
    },
    /// When a transaction coordinator has read its partition of `__transaction_state`.
    LoadTransactions {
        /// The partition.
        partition: Partition,
    },
    /// When a transaction coordinator looks for transactions that are open too long.
    AbortTransactions {
        /// Its partition of `__transaction_state`.
        partition: Partition,
    },
    /// When a transaction coordinator looks for transactional ids that expired.
    ExpireTransactionalIds {
        /// Its partition of `__transaction_state`.
        partition: Partition,
    },
    /// When a transaction coordinator sends markers again.
    RetryMarkers {
        /// Its partition of `__transaction_state`.
        partition: Partition,
    },
    /// When a request to write markers is answered with what is replicated.
    MarkersExpire {
        /// Its connection.
        connection: ConnectionId,
    },
    /// When a leader asks the coordinator of a transaction again.
    RetryVerification {
        /// The connection of the request that waits for it.
        connection: ConnectionId,
    },
    /// When to see whether a member was heard of (or, of a new one, has joined).
    MemberSession {
        /// The group.
        group_id: Name,
        /// The member.
        member_id: Name,
    },
    /// When a rebalance goes on without those that have not joined.
    Join {
        /// The group.
        group_id: Name,
    },
    /// When those that have not synced are removed.
    Sync {
        /// The group.
        group_id: Name,
    },
    /// When a controlled shutdown ends although the controller does not allow it.
    ShutdownExpires,
    /// Of the controller: when preferred leaders are elected.
    BalanceLeaders,
    /// Of the controller: when to see whether a broker was heard of.
    BrokerSession {
        /// The broker.
        broker: BrokerId,
    },
}

/// One broker.
#[derive(Debug)]
pub struct Broker {
    id: BrokerId,
    config: Arc<SimConfig>,
    choices: Choices,
    /// The name of the internal topic of groups, made once.
    offsets_topic: Topic,
    /// The name of the internal topic of transactions, made once.
    transactions_topic: Topic,
    /// Durable.
    producer_ids: ProducerIds,
    /// The logs are durable; the rest of a replica is memory.
    replicas: BTreeMap<TopicPartition, Replica>,
    session: Session,
    image: Image,
    connections: Connections,
    peers: Peers,
    /// As a follower: what is fetched, by the broker that leads it.
    fetchers: BTreeMap<BrokerId, Fetcher>,
    /// As a leader: who shall be in sync.
    proposals: Proposals,
    /// By connection: it has one request in hand.
    fetches: BTreeMap<ConnectionId, DelayedFetch>,
    produces: BTreeMap<ConnectionId, DelayedProduce>,
    forwards: BTreeMap<ConnectionId, Forward>,
    deletions: BTreeMap<ConnectionId, DelayedDeletion>,
    /// The coordinators of groups, by the partition of `__consumer_offsets` that each leads.
    shards: BTreeMap<Partition, Shard>,
    /// The coordinators of transactions, by the partition of `__transaction_state` that each leads.
    transactions: BTreeMap<Partition, transaction::Shard>,
    /// By connection.
    marker_writes: BTreeMap<ConnectionId, DelayedMarkers>,
    verifying: BTreeMap<ConnectionId, Verifying>,
}

impl Broker {
    /// A broker that was never started. See [`bootstrap()`] for a cluster that is up.
    pub fn new(id: BrokerId, config: &Arc<SimConfig>, choices: &Choices) -> Self {
        Self {
            id,
            config: Arc::clone(config),
            choices: choices.clone(),
            offsets_topic: Topic::from(OFFSETS_TOPIC),
            transactions_topic: Topic::from(TRANSACTIONS_TOPIC),
            producer_ids: ProducerIds::new(match config.mutation {
                Some(Mutation::ProducerIdsOverlap) => 0,
                _ => id,
            }),
            replicas: BTreeMap::new(),
            session: Session::new(id),
            image: Image::new(config),
            connections: Connections::default(),
            peers: Peers::new(id),
            fetchers: BTreeMap::new(),
            proposals: Proposals::default(),
            fetches: BTreeMap::new(),
            produces: BTreeMap::new(),
            forwards: BTreeMap::new(),
            deletions: BTreeMap::new(),
            shards: BTreeMap::new(),
            transactions: BTreeMap::new(),
            marker_writes: BTreeMap::new(),
            verifying: BTreeMap::new(),
        }
    }

    /// Handles `input` at `now`, adding what shall happen next to `effects`.
    pub fn handle(&mut self, now: SimTime, input: Input, effects: &mut Effects) {
        match input {
            Input::Start => {
                self.session.start(effects);
                self.start_replication(now, effects);
            }
            Input::Request { connection, .. } if !self.session.is_ready() => {
                // Kafka opens its listener when it has caught up with the metadata log.
                effects.disconnect(connection);
            }
            Input::Request { connection, correlation, request } => {
                self.connections.arrived(connection, correlation, request);
            }
            Input::Response { connection, correlation, response } => {
                self.on_response(now, connection, correlation, *response, effects);
            }
            Input::Connected { connection } => self.on_connected(now, connection, effects),
            Input::Disconnected { connection } => self.on_disconnected(now, connection, effects),
            Input::Timer(Timer::Broker(timer)) => self.on_timer(now, timer, effects),
            Input::Timer(Timer::Client(_)) => {}
        }
        while let Some((caller, request)) = self.connections.next() {
            let api = request.api();
            self.dispatch(now, caller, *request, effects);
            if !self.config.plan.faults.is_empty() {
                effects.handled(caller.connection, caller.correlation, api);
            }
        }
    }

    /// Loses what is in memory. [`Input::Start`] begins it again.
    pub fn crash(&mut self, now: SimTime) {
        let Self { id: _, config: _, offsets_topic: _, producer_ids: _, replicas, .. } = self;
        replicas.values_mut().for_each(|replica| replica.crash(now));
        self.session.crash();
        self.image = Image::new(&self.config);
        self.connections = Connections::default();
        self.peers.crash();
        self.fetchers.clear();
        self.proposals = Proposals::default();
        self.fetches.clear();
        self.produces.clear();
        self.forwards.clear();
        self.deletions.clear();
        self.shards.clear();
        self.transactions.clear();
        self.marker_writes.clear();
        self.verifying.clear();
    }

    /// Ends in good order: what it has appended is on disk. As after a crash, [`Input::Start`]
    /// begins it again.
    pub fn stop(&mut self, now: SimTime) {
        self.flush();
        self.session.stop();
        self.crash(now);
    }

    fn dispatch(&mut self, now: SimTime, caller: Caller, request: Request, effects: &mut Effects) {
        match request {
            Request::Produce(request) => self.produce(now, caller, request, effects),
            Request::Fetch(request) => self.fetch(now, caller, request, effects),
            Request::ListOffsets(request) => self.list_offsets(caller, &request, effects),
            Request::OffsetForLeaderEpoch(request) => {
                self.offset_for_leader_epoch(caller, &request, effects);
            }
            Request::Metadata(request) => self.metadata(caller, &request, effects),
            Request::FindCoordinator(request) => self.find_coordinator(caller, &request, effects),
            Request::JoinGroup(request) => self.join_group(now, caller, request, effects),
            Request::SyncGroup(request) => self.sync_group(now, caller, request, effects),
            Request::Heartbeat(request) => self.heartbeat(now, caller, &request, effects),
            Request::LeaveGroup(request) => self.leave_group(now, caller, &request, effects),
            Request::OffsetCommit(request) => self.offset_commit(now, caller, request, effects),
            Request::OffsetFetch(request) => self.offset_fetch(now, caller, request, effects),
            Request::InitProducerId(request) => {
                self.init_producer_id(now, caller, request, effects);
            }
            request @ (Request::CreateTopics(_)
            | Request::DeleteTopics(_)
            | Request::CreatePartitions(_)) => self.forward(now, caller, request, effects),
            Request::ListGroups(_) => self.list_groups(caller, effects),
            Request::DescribeGroups(request) => self.describe_groups(caller, request, effects),
            Request::DeleteGroups(request) => self.delete_groups(now, caller, request, effects),
            Request::AddPartitionsToTxn(request) => {
                self.add_partitions_to_txn(now, caller, request, effects);
            }
            Request::AddOffsetsToTxn(request) => {
                self.add_offsets_to_txn(now, caller, &request, effects);
            }
            Request::TxnOffsetCommit(request) => {
                self.txn_offset_commit(now, caller, request, effects);
            }
            Request::EndTxn(request) => self.end_txn(now, caller, &request, effects),
            Request::WriteTxnMarkers(request) => {
                self.write_txn_markers(now, caller, request, effects);
            }
            Request::RegisterBroker(_)
            | Request::BrokerHeartbeat(_)
            | Request::FetchMetadataLog(_)
            | Request::AlterPartition(_) => {
                // Only the controller answers these; Kafka closes the connection as well.
                self.connections.forget(caller.connection);
                effects.disconnect(caller.connection);
            }
        }
    }

    fn on_timer(&mut self, now: SimTime, timer: BrokerTimer, effects: &mut Effects) {
        match timer {
            BrokerTimer::Heartbeat => {
                self.session.heartbeat_due(now, &self.image, &self.config, effects);
            }
            BrokerTimer::Reconnect => self.session.retry(effects),
            BrokerTimer::FetchExpires { connection } => {
                self.complete_fetch(connection, effects);
            }
            BrokerTimer::ProduceExpires { connection } => {
                self.expire_produce(connection, effects);
            }
            BrokerTimer::ForwardExpires { connection } => {
                self.expire_forward(connection, effects);
            }
            BrokerTimer::PeerExpires { connection } => {
                self.peer_expires(now, connection, effects);
            }
            BrokerTimer::ReplicaFetch { leader } => self.fetch_from(now, leader, effects),
            BrokerTimer::CheckInSync => self.check_in_sync(now, effects),
            BrokerTimer::SendProposals => self.send_proposals(effects),
            BrokerTimer::LoadCoordinator { partition } => {
                self.load_coordinator(now, partition, effects);
            }
            BrokerTimer::ExpireWrites { partition } => self.expire_writes(now, partition, effects),
            BrokerTimer::ExpireOffsets { partition } => {
                self.with_shard(now, partition, effects, Shard::expire_offsets);
            }
            BrokerTimer::LoadTransactions { partition } => {
                self.load_transactions(now, partition, effects);
            }
            BrokerTimer::AbortTransactions { partition } => {
                let handler = transaction::Shard::abort_timed_out;
                self.with_transactions(now, partition, effects, handler);
            }
            BrokerTimer::ExpireTransactionalIds { partition } => {
                let handler = transaction::Shard::expire_ids;
                self.with_transactions(now, partition, effects, handler);
            }
            BrokerTimer::RetryMarkers { partition } => {
                let handler = transaction::Shard::retry_markers;
                self.with_transactions(now, partition, effects, handler);
            }
            BrokerTimer::MarkersExpire { connection } => self.expire_markers(connection, effects),
            BrokerTimer::RetryVerification { connection } => {
                self.retry_verification(now, connection, effects);
            }
            BrokerTimer::MemberSession { group_id, member_id } => {
                self.with_group(now, &group_id, effects, |shard, turn| {
                    shard.session_due(turn, &group_id, &member_id);
                });
            }
            BrokerTimer::Join { group_id } => {
                self.with_group(now, &group_id, effects, |shard, turn| {
                    shard.join_due(turn, &group_id);
                });
            }
            BrokerTimer::Sync { group_id } => {
                self.with_group(now, &group_id, effects, |shard, turn| {
                    shard.sync_due(turn, &group_id);
                });
            }
            BrokerTimer::ShutdownExpires => effects.stop(),
            BrokerTimer::BrokerSession { .. } | BrokerTimer::BalanceLeaders => {}
        }
    }

    fn on_disconnected(&mut self, now: SimTime, connection: ConnectionId, effects: &mut Effects) {
        if connection.owner == NodeId::Broker(self.id) {
            if self.session.disconnected(now, connection, effects) {
                self.proposals_lost();
                self.forwards.values_mut().for_each(Forward::not_sent);
            } else {
                self.peer_closed(now, connection, effects);
            }
            // A connection to itself has both ends here.
            self.caller_closed(connection, effects);
            return;
        }
        self.caller_closed(connection, effects);
    }

    /// Forgets a connection that another node opened. What waits for a verdict goes on.
    fn caller_closed(&mut self, connection: ConnectionId, effects: &mut Effects) {
        if self.connections.closed(connection) && !self.has(Mutation::SentBeforeCloseDropped) {
            return;
        }
        self.connections.forget(connection);
        // What waited there is dropped. Members stay until their sessions end.
        if self.fetches.remove(&connection).is_some() {
            effects.cancel_timer(Timer::Broker(BrokerTimer::FetchExpires { connection }));
        }
        if self.produces.remove(&connection).is_some() {
            effects.cancel_timer(Timer::Broker(BrokerTimer::ProduceExpires { connection }));
        }
        if self.forwards.remove(&connection).is_some() {
            effects.cancel_timer(Timer::Broker(BrokerTimer::ForwardExpires { connection }));
        }
        if self.marker_writes.remove(&connection).is_some() {
            effects.cancel_timer(Timer::Broker(BrokerTimer::MarkersExpire { connection }));
        }
        self.deletions.remove(&connection);
    }

    /// Whether that bug is planted.
    fn has(&self, mutation: Mutation) -> bool {
        self.config.mutation == Some(mutation)
    }

    /// The replica that leads a partition.
    fn leader(
        &self,
        topic_partition: &TopicPartition,
        epoch: Option<i32>,
    ) -> Result<&Replica, ErrorKind> {
        let Some(replica) = self.replicas.get(topic_partition) else {
            return Err(self.no_replica(topic_partition));
        };
        replica.check_leader(epoch).map(|()| replica)
    }

    /// Why there is no replica here.
    fn no_replica(&self, topic_partition: &TopicPartition) -> ErrorKind {
        match self.image.partition(topic_partition) {
            Some(_) => ErrorKind::NotLeaderOrFollower,
            None => ErrorKind::UnknownTopicOrPartition,
        }
    }
}

/// The internal topic that groups are stored in.
const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// The internal topic that transactions are stored in.
const TRANSACTIONS_TOPIC: &str = "__transaction_state";
