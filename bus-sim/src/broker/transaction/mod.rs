//! Transactions (KIP-98, KIP-360, KIP-447, KIP-890). The coordinator is one [`Shard`] per partition
//! of `__transaction_state`; the rest is what partitions do for it.
//!
//! As in `group`, handlers decide and write a record; the state changes only in [`Shard::replay`],
//! once the record is below the high watermark. While one is being written, the transactional id
//! refuses other transitions with `ConcurrentTransactions`. So after a crash a coordinator is what
//! its records say; and where they say that the end of a transaction is decided, it sends the
//! markers again.
//!
//! Coordinator: `state` is a transactional id, `record` its record, `coordinator` connects the
//! shards with the broker (Kafka's `TransactionStateManager`), `init`, `partitions`, and `end` are
//! the requests (`TransactionCoordinator`), `expiry` timeouts, and `markers` sends the ends to the
//! partitions (`TransactionMarkerChannelManager`).
//!
//! Partitions: `write_markers` appends the ends, `verification` asks the coordinator before the
//! first batch of a transaction (`AddPartitionsToTxnManager`), and `guard` is what it remembers
//! meanwhile. What a partition knows of its producers is in `producer_state`, what a group makes of
//! offsets in transactions in `group::transactional`.
//!
//! Simplified: a record of a coordinator waits for the high watermark as long as its broker leads;
//! Kafka gives up after the timeout of the transaction.
//! Absent: two-phase commit (KIP-939), DescribeTransactions, ListTransactions. See
//! `docs/fidelity.md`.

mod coordinator;
mod end;
mod expiry;
pub(super) mod guard;
mod init;
mod markers;
mod partitions;
pub(super) mod record;
pub(super) mod state;
pub(super) mod verification;
mod write_markers;

use std::collections::{BTreeMap, VecDeque};

use bus_core::{ErrorKind, Offset, Partition, Timestamp, TopicPartition};

pub(super) use self::markers::MarkersToken;
use self::record::TransactionRecord;
use self::state::{Metadata, Transaction};
pub(super) use self::verification::Verifying;
pub(super) use self::write_markers::DelayedMarkers;
use super::BrokerTimer;
use super::connections::{Caller, Connections};
use super::image::Image;
use super::peers::Peers;
use super::session::schedule;
use crate::config::SimConfig;
use crate::fact::TransactionFact;
use crate::mutation::Mutation;
use crate::node::{BrokerId, Effects, Name, Timer};
use crate::protocol::batch::{ProducerEpoch, ProducerId};
use crate::protocol::{
    Response, add_offsets_to_txn, add_partitions_to_txn, end_txn, init_producer_id,
};
use crate::time::SimTime;

/// The coordinator of the transactional ids of one partition of `__transaction_state`.
#[derive(Debug)]
pub(super) struct Shard {
    /// The leader epoch of the partition: markers carry it.
    epoch: i32,
    /// It reads its partition; its transactional ids are not known yet.
    is_loading: bool,
    transactions: BTreeMap<Name, Transaction>,
    /// What was written and is not below the high watermark, with the offset behind it.
    uncommitted: VecDeque<(Offset, Write)>,
    /// When it looks for transactions that are open too long, if the timer is set.
    timeouts_at: Option<SimTime>,
    /// When it looks for transactional ids that expired, if the timer is set.
    expiry_at: Option<SimTime>,
    /// Whether the timer is set that sends markers again.
    retries_markers: bool,
}

/// A record to append, and who waits until it is below the high watermark.
#[derive(Debug)]
struct Write {
    record: TransactionRecord,
    reply: Option<Reply>,
}

/// Who waits for a record, and what is answered when it is durable.
#[derive(Debug)]
struct Reply {
    caller: Caller,
    answer: Answer,
    result: Outcome,
}

/// Producer id and epoch, or why there are none.
type Outcome = Result<(ProducerId, ProducerEpoch), ErrorKind>;

/// Of which request an answer is.
#[derive(Debug)]
enum Answer {
    InitProducerId,
    AddPartitionsToTxn(Vec<TopicPartition>),
    AddOffsetsToTxn,
    EndTxn { is_version_2: bool },
}

impl Answer {
    fn response(self, result: Outcome) -> Response {
        // Producers of version 1 send versions of these requests that have no `ProducerFenced`, and
        // leaders make the same of it.
        let old = result.map_err(|error| match error {
            ErrorKind::ProducerFenced => ErrorKind::InvalidProducerEpoch,
            error => error,
        });
        let error = old.err();
        match self {
            Self::InitProducerId => Response::InitProducerId(init_producer_id::Response { result }),
            Self::AddPartitionsToTxn(partitions) => {
                let partitions = partitions.into_iter().map(|partition| (partition, error));
                let partitions = partitions.collect();
                Response::AddPartitionsToTxn(add_partitions_to_txn::Response { partitions })
            }
            Self::AddOffsetsToTxn => {
                Response::AddOffsetsToTxn(add_offsets_to_txn::Response { error })
            }
            Self::EndTxn { is_version_2 } => {
                let result = if is_version_2 { result } else { old };
                Response::EndTxn(end_txn::Response { result })
            }
        }
    }
}

/// What a handler of a shard works with.
pub(super) struct Turn<'a> {
    now: SimTime,
    partition: Partition,
    config: &'a SimConfig,
    image: &'a Image,
    connections: &'a mut Connections,
    peers: &'a mut Peers,
    producer_ids: &'a mut ProducerIds,
    effects: &'a mut Effects,
    writes: Vec<Write>,
}

impl Turn<'_> {
    fn time(&self) -> Timestamp {
        self.now.timestamp()
    }

    fn has(&self, mutation: Mutation) -> bool {
        self.config.mutation == Some(mutation)
    }

    /// Whether the cluster has version 2 of transactions.
    fn is_version_2(&self) -> bool {
        self.config.broker.transaction_version >= 2
    }

    fn respond(&mut self, caller: Caller, answer: Answer, result: Outcome) {
        self.connections.respond(caller, answer.response(result), self.effects);
    }

    fn write(&mut self, transactional_id: &Name, value: Option<Metadata>, reply: Option<Reply>) {
        let record = TransactionRecord { transactional_id: Name::clone(transactional_id), value };
        self.writes.push(Write { record, reply });
    }

    fn schedule(&mut self, timer: BrokerTimer, at: SimTime) {
        schedule(timer, at, self.effects);
    }

    fn cancel(&mut self, timer: BrokerTimer) {
        self.effects.cancel_timer(Timer::Broker(timer));
    }

    /// Tells the trace that the producers of a transactional id are fenced by an abort.
    fn tell_fence(&mut self, transactional_id: &Name, value: &Metadata, reason: &'static str) {
        let fact = TransactionFact::Fenced {
            transactional_id: Name::clone(transactional_id),
            producer_id: value.producer_id,
            producer_epoch: value.producer_epoch,
            reason,
        };
        self.effects.fact(fact.into());
    }
}

impl Shard {
    pub(super) fn new(epoch: i32, is_loading: bool) -> Self {
        Self {
            epoch,
            is_loading,
            transactions: BTreeMap::new(),
            uncommitted: VecDeque::new(),
            timeouts_at: None,
            expiry_at: None,
            retries_markers: false,
        }
    }

    /// Changes what is durable.
    fn replay(&mut self, record: TransactionRecord) {
        let TransactionRecord { transactional_id, value } = record;
        match value {
            Some(value) => match self.transactions.get_mut(&transactional_id) {
                Some(transaction) => transaction.replay(value),
                None => {
                    self.transactions.insert(transactional_id, Transaction::loaded(value));
                }
            },
            None => {
                self.transactions.remove(&transactional_id);
            }
        }
    }

    /// What it knows, as its records would say it.
    pub(super) fn durable(&self) -> BTreeMap<Name, Metadata> {
        let is_durable = |transaction: &Transaction| transaction.metadata.producer_epoch >= 0;
        self.transactions
            .iter()
            .filter(|(_, transaction)| is_durable(transaction))
            .map(|(id, transaction)| (Name::clone(id), transaction.metadata.clone()))
            .collect()
    }
}

/// Gives out producer ids from this broker's own block.
#[derive(Debug)]
pub(super) struct ProducerIds {
    broker: BrokerId,
    /// Durable: how many were given out.
    given: i64,
}

impl ProducerIds {
    pub(super) const fn new(broker: BrokerId) -> Self {
        Self { broker, given: 0 }
    }

    pub(super) fn next(&mut self) -> ProducerId {
        let id = i64::from(self.broker) * PRODUCER_IDS_PER_BROKER + self.given;
        self.given += 1;
        id
    }
}

/// The producer ids of broker `b` are from `b` times this.
const PRODUCER_IDS_PER_BROKER: i64 = 1_000_000_000;
