//! The broker around its shards: which one a request goes to, appending what they write, loading
//! (Kafka's `TransactionStateManager`).

use std::sync::Arc;
use std::time::Duration;

use bus_core::{ErrorKind, Partition, TopicPartition};

use super::record::TransactionRecord;
use super::state::Metadata;
use super::{Answer, Outcome, Shard, Turn, Write};
use crate::broker::connections::Caller;
use crate::broker::session::schedule;
use crate::broker::{Broker, BrokerTimer};
use crate::fact::{Fact, TransactionFact};
use crate::node::{Effects, Name, Timer};
use crate::protocol::batch::{RecordBatch, StoredBatch};
use crate::protocol::{add_offsets_to_txn, add_partitions_to_txn, end_txn, init_producer_id};
use crate::time::SimTime;

impl Broker {
    /// InitProducerId: for idempotence a new id each time, with epoch 0, also for a producer that
    /// asks for another epoch, as in Kafka; with a transactional id what its coordinator says.
    pub(in crate::broker) fn init_producer_id(
        &mut self,
        now: SimTime,
        caller: Caller,
        request: init_producer_id::Request,
        effects: &mut Effects,
    ) {
        let Some(transactional) = request.transactional else {
            let id = self.producer_ids.next();
            return self.answer(caller, Answer::InitProducerId, Ok((id, 0)), effects);
        };
        let max = self.config.broker.transaction_max_timeout;
        let is_possible = !transactional.timeout.is_zero() && transactional.timeout <= max;
        let found = if is_possible || transactional.transactional_id.is_empty() {
            self.transactions_of(&transactional.transactional_id)
        } else {
            Err(ErrorKind::InvalidTransactionTimeout)
        };
        match found {
            Ok(partition) => self.with_transactions(now, partition, effects, |shard, turn| {
                shard.init(turn, caller, &transactional, request.current);
            }),
            Err(error) => self.answer(caller, Answer::InitProducerId, Err(error), effects),
        }
    }

    /// AddPartitionsToTxn, of a client or of a leader that was asked to append.
    pub(in crate::broker) fn add_partitions_to_txn(
        &mut self,
        now: SimTime,
        caller: Caller,
        request: add_partitions_to_txn::Request,
        effects: &mut Effects,
    ) {
        // Kafka names the partitions that do not exist, and says of the others that it did not try.
        let is_known = |partition: &TopicPartition| self.image.partition(partition).is_some();
        let found = if request.partitions.iter().all(is_known) {
            self.transactions_of(&request.transactional_id)
        } else {
            Err(ErrorKind::UnknownTopicOrPartition)
        };
        match found {
            Ok(partition) => self.with_transactions(now, partition, effects, |shard, turn| {
                shard.add_partitions(turn, caller, request);
            }),
            Err(error) => {
                let answer = Answer::AddPartitionsToTxn(request.partitions);
                self.answer(caller, answer, Err(error), effects);
            }
        }
    }

    /// AddOffsetsToTxn: adds the partition of `__consumer_offsets` that the group belongs to.
    pub(in crate::broker) fn add_offsets_to_txn(
        &mut self,
        now: SimTime,
        caller: Caller,
        request: &add_offsets_to_txn::Request,
        effects: &mut Effects,
    ) {
        let found = self.coordinator_partition(&request.group_id).and_then(|(offsets, _)| {
            Ok((self.transactions_of(&request.transactional_id)?, offsets))
        });
        match found {
            Ok((partition, offsets)) => {
                let offsets = TopicPartition::new(&self.offsets_topic, offsets);
                self.with_transactions(now, partition, effects, |shard, turn| {
                    shard.add_offsets(turn, caller, request, offsets);
                });
            }
            Err(error) => self.answer(caller, Answer::AddOffsetsToTxn, Err(error), effects),
        }
    }

    /// EndTxn.
    pub(in crate::broker) fn end_txn(
        &mut self,
        now: SimTime,
        caller: Caller,
        request: &end_txn::Request,
        effects: &mut Effects,
    ) {
        match self.transactions_of(&request.transactional_id) {
            Ok(partition) => self.with_transactions(now, partition, effects, |shard, turn| {
                shard.end(turn, caller, request);
            }),
            Err(error) => {
                let answer = Answer::EndTxn { is_version_2: request.is_version_2 };
                self.answer(caller, answer, Err(error), effects);
            }
        }
    }

    fn answer(&mut self, caller: Caller, answer: Answer, result: Outcome, effects: &mut Effects) {
        self.connections.respond(caller, answer.response(result), effects);
    }

    /// The shard of a transactional id, if it is here and ready.
    fn transactions_of(&self, transactional_id: &Name) -> Result<Partition, ErrorKind> {
        if transactional_id.is_empty() {
            return Err(ErrorKind::InvalidRequest);
        }
        let (partition, _) = self.partition_of(&self.transactions_topic, transactional_id)?;
        match self.transactions.get(&partition) {
            None => Err(ErrorKind::NotCoordinator),
            Some(shard) if shard.is_loading => Err(ErrorKind::CoordinatorLoadInProgress),
            Some(_) => Ok(partition),
        }
    }

    /// Runs a handler on a shard, and appends what it writes.
    pub(in crate::broker) fn with_transactions(
        &mut self,
        now: SimTime,
        partition: Partition,
        effects: &mut Effects,
        handler: impl FnOnce(&mut Shard, &mut Turn<'_>),
    ) {
        let Some(shard) = self.transactions.get_mut(&partition) else { return };
        let mut turn = Turn {
            now,
            partition,
            config: &self.config,
            image: &self.image,
            connections: &mut self.connections,
            peers: &mut self.peers,
            producer_ids: &mut self.producer_ids,
            effects,
            writes: Vec::new(),
        };
        handler(shard, &mut turn);
        let writes = turn.writes;
        if !writes.is_empty() {
            self.append_transactions(now, partition, writes, effects);
        }
    }

    /// Appends what a shard wrote, and goes on with what is below the high watermark.
    fn append_transactions(
        &mut self,
        now: SimTime,
        partition: Partition,
        writes: Vec<Write>,
        effects: &mut Effects,
    ) {
        let topic_partition = TopicPartition::new(&self.transactions_topic, partition);
        for write in writes {
            let Some(replica) = self.replicas.get_mut(&topic_partition) else { return };
            let refused = match replica.check_leader(None) {
                Err(_) => Some(ErrorKind::NotCoordinator),
                Ok(()) => replica.lacks_replicas().then_some(ErrorKind::CoordinatorNotAvailable),
            };
            if let Some(error) = refused {
                self.with_transactions(now, partition, effects, |shard, turn| {
                    shard.not_written(turn, write, error);
                });
                continue;
            }
            let record = write.record.encode(now.timestamp());
            let batch = Arc::new(RecordBatch::new(None, vec![record]));
            let (base_offset, _) = replica.append_unchecked(now, Arc::clone(&batch));
            effects.fact(Fact::Appended {
                broker: self.id,
                topic_partition: topic_partition.clone(),
                base_offset,
                count: 1,
                digest: batch.digest,
            });
            let end = replica.log.end();
            if let Some(shard) = self.transactions.get_mut(&partition) {
                shard.uncommitted.push_back((end, write));
            }
        }
        self.commit_transactions(now, partition, effects);
        self.partition_grew(&topic_partition, effects);
    }

    /// Replays what is below the high watermark, and does what follows it.
    pub(in crate::broker) fn commit_transactions(
        &mut self,
        now: SimTime,
        partition: Partition,
        effects: &mut Effects,
    ) {
        let topic_partition = TopicPartition::new(&self.transactions_topic, partition);
        let high_watermark =
            self.replicas.get(&topic_partition).map_or(0, |replica| replica.high_watermark());
        while let Some(shard) = self.transactions.get_mut(&partition)
            && let Some((_, Write { record, reply })) =
                shard.uncommitted.pop_front_if(|(end, _)| *end <= high_watermark)
        {
            tell_state(&record.transactional_id, record.value.as_ref(), effects);
            let transactional_id = Name::clone(&record.transactional_id);
            shard.replay(record);
            if let Some(reply) = reply {
                self.answer(reply.caller, reply.answer, reply.result, effects);
            }
            self.with_transactions(now, partition, effects, |shard, turn| {
                shard.written(turn, &transactional_id);
            });
        }
    }

    /// Becomes or stops being the coordinator of a partition.
    pub(in crate::broker) fn follow_transactions(
        &mut self,
        now: SimTime,
        partition: Partition,
        new_epoch: Option<i32>,
        has_lead: bool,
        effects: &mut Effects,
    ) {
        if !has_lead || new_epoch.is_some() {
            self.unload_transactions(partition, effects);
        }
        let Some(epoch) = new_epoch else { return };
        let topic_partition = TopicPartition::new(&self.transactions_topic, partition);
        let records = self.replicas[&topic_partition].log.record_count();
        let is_loading = records > 0;
        self.transactions.insert(partition, Shard::new(epoch, is_loading));
        if is_loading {
            let records = u32::try_from(records).unwrap_or(u32::MAX);
            let at = now + LOAD_TIME + LOAD_TIME_PER_RECORD * records;
            schedule(BrokerTimer::LoadTransactions { partition }, at, effects);
        }
    }

    /// Replays the partition of a coordinator.
    pub(in crate::broker) fn load_transactions(
        &mut self,
        now: SimTime,
        partition: Partition,
        effects: &mut Effects,
    ) {
        let topic_partition = TopicPartition::new(&self.transactions_topic, partition);
        let Some(replica) = self.replicas.get(&topic_partition) else { return };
        let Some(shard) = self.transactions.get_mut(&partition).filter(|shard| shard.is_loading)
        else {
            return;
        };
        replica.log.batches().for_each(|stored| shard.load(stored));
        shard.is_loading = false;
        let records = replica.log.record_count();
        effects.fact(Fact::CoordinatorLoaded { broker: self.id, topic_partition, records });
        // The coordinator before may not have known yet that they are durable.
        for (transactional_id, transaction) in &shard.transactions {
            tell_state(transactional_id, Some(&transaction.metadata), effects);
        }
        self.with_transactions(now, partition, effects, Shard::loaded);
    }

    /// Stops being the coordinator of a partition: who waits there shall look for the new one.
    fn unload_transactions(&mut self, partition: Partition, effects: &mut Effects) {
        let Some(shard) = self.transactions.remove(&partition) else { return };
        for (_, write) in shard.uncommitted {
            if let Some(reply) = write.reply {
                self.answer(reply.caller, reply.answer, Err(ErrorKind::NotCoordinator), effects);
            }
        }
        for timer in [
            BrokerTimer::LoadTransactions { partition },
            BrokerTimer::AbortTransactions { partition },
            BrokerTimer::ExpireTransactionalIds { partition },
            BrokerTimer::RetryMarkers { partition },
        ] {
            effects.cancel_timer(Timer::Broker(timer));
        }
    }
}

impl Shard {
    /// Replays a batch while the coordinator loads.
    pub(in crate::broker) fn load(&mut self, stored: &StoredBatch) {
        let records = stored.batch.records.iter();
        records.filter_map(TransactionRecord::decode).for_each(|record| self.replay(record));
    }

    /// Whether it has loaded all, and all that it wrote is replicated.
    pub(in crate::broker) fn is_at_rest(&self) -> bool {
        !self.is_loading && self.uncommitted.is_empty()
    }

    /// A record of a transactional id is durable: goes on with it.
    fn written(&mut self, turn: &mut Turn<'_>, transactional_id: &Name) {
        let Some(transaction) = self.transactions.get(transactional_id) else { return };
        if transaction.metadata.state.prepared().is_some() {
            self.complete(turn, transactional_id);
        }
        self.watch(turn);
    }

    /// A record could not be appended: nothing is pending any more, except the last step of a
    /// transaction, which is tried again.
    fn not_written(&mut self, turn: &mut Turn<'_>, write: Write, error: ErrorKind) {
        let Write { record: TransactionRecord { transactional_id, value }, reply } = write;
        if let Some(transaction) = self.transactions.get_mut(&transactional_id) {
            match value.filter(|_| transaction.metadata.state.prepared().is_some()) {
                Some(value) => {
                    transaction.written_everywhere(value);
                    self.retry_markers_later(turn);
                }
                None => transaction.pending = None,
            }
        }
        if let Some(reply) = reply {
            turn.respond(reply.caller, reply.answer, Err(error));
        }
    }

    /// Goes on, after a load, with what was decided and not done.
    fn loaded(&mut self, turn: &mut Turn<'_>) {
        let is_decided = |(_, transaction): &(&Name, &super::state::Transaction)| {
            transaction.metadata.state.prepared().is_some()
        };
        let decided = self.transactions.iter().filter(is_decided);
        let decided: Vec<_> = decided.map(|(id, _)| Name::clone(id)).collect();
        decided.iter().for_each(|transactional_id| self.complete(turn, transactional_id));
        self.watch(turn);
    }
}

/// Tells the trace the state of a transactional id; none if it has expired.
fn tell_state(transactional_id: &Name, value: Option<&Metadata>, effects: &mut Effects) {
    let transactional_id = Name::clone(transactional_id);
    let Some(value) = value else {
        effects.fact(TransactionFact::Expired { transactional_id }.into());
        return;
    };
    let fact = TransactionFact::State {
        transactional_id,
        state: value.state.name(),
        producer_id: value.producer_id,
        producer_epoch: value.producer_epoch,
    };
    effects.fact(fact.into());
}

/// How long a coordinator takes to load, at least.
const LOAD_TIME: Duration = Duration::from_millis(1);
/// How much longer for each record: a million a second.
const LOAD_TIME_PER_RECORD: Duration = Duration::from_micros(1);
