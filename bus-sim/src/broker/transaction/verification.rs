//! Before the first batch of a transaction: the leader asks the coordinator whether the partition
//! is in it (KIP-890, part 1), or, for a producer of version 2, adds it (part 2). So that a late
//! batch opens no transaction that nobody will end (`ReplicaManager.handleProduceAppend`,
//! `AddPartitionsToTxnManager`).
//!
//! - The request waits for the answer; its connection closing does not take it back, as in Kafka.
//! - What may pass is answered as `NotEnoughReplicas`, which producers of version 1 try again.
//! - For version 2, while the transaction before is completed, it is asked again every 20 ms for up
//!   to 100 ms.
//!
//! Simplified: each request asks for itself; Kafka asks for several at once, and fails an older one
//! of the same producer that waits.

use std::collections::BTreeMap;
use std::time::Duration;

use bus_core::{ErrorKind, TopicPartition};

use super::guard::Guard;
use super::state::Identity;
use crate::broker::connections::Caller;
use crate::broker::peers::{Purpose, Token};
use crate::broker::session::schedule;
use crate::broker::{Broker, BrokerTimer};
use crate::node::{ConnectionId, Effects};
use crate::protocol::batch::ProducerStamp;
use crate::protocol::{Request, Response, add_partitions_to_txn, produce, txn_offset_commit};
use crate::time::SimTime;

/// A request that waits for the coordinator of its transaction.
#[derive(Debug)]
pub(in crate::broker) struct Verifying {
    caller: Caller,
    awaiting: Awaiting,
    identity: Identity,
    is_version_2: bool,
    verdicts: Verdicts,
    since: SimTime,
}

/// Which request.
#[derive(Debug)]
enum Awaiting {
    Produce(produce::Request),
    TxnOffsetCommit(txn_offset_commit::Request),
}

/// What came of it: per partition that is to be verified the guard, or why it is not verified.
pub(in crate::broker) type Verdicts = BTreeMap<TopicPartition, Result<Guard, ErrorKind>>;

impl Broker {
    /// Produce: verifies what is to be verified, and appends.
    pub(in crate::broker) fn produce(
        &mut self,
        now: SimTime,
        caller: Caller,
        request: produce::Request,
        effects: &mut Effects,
    ) {
        let transactional = |partition: &produce::PartitionRequest| {
            let stamp = partition.batch.producer.filter(|_| partition.batch.is_transactional)?;
            Some((partition.topic_partition.clone(), stamp))
        };
        let stamps: Vec<_> = request.partitions.iter().filter_map(transactional).collect();
        let Some(transactional_id) =
            request.transactional_id.clone().filter(|_| !stamps.is_empty())
        else {
            return self.append_produced(now, caller, request, &Verdicts::new(), effects);
        };
        let stamp = stamps[0].1;
        let identity = Identity {
            transactional_id,
            producer_id: stamp.producer_id,
            producer_epoch: stamp.producer_epoch,
        };
        let is_version_2 = request.is_version_2;
        let verdicts = self.start_verification(&stamps, is_version_2);
        let awaiting = Awaiting::Produce(request);
        let since = now;
        let verifying = Verifying { caller, awaiting, identity, is_version_2, verdicts, since };
        self.verify(now, verifying, effects);
    }

    /// TxnOffsetCommit: verifies the partition of the group, and stores the offsets.
    pub(in crate::broker) fn txn_offset_commit(
        &mut self,
        now: SimTime,
        caller: Caller,
        request: txn_offset_commit::Request,
        effects: &mut Effects,
    ) {
        let partition = match self.check_txn_offset_commit(&request) {
            Ok(partition) => TopicPartition::new(&self.offsets_topic, partition),
            Err(error) => return self.refuse_txn_offset_commit(caller, request, error, effects),
        };
        let identity = Identity {
            transactional_id: request.transactional_id.clone(),
            producer_id: request.producer_id,
            producer_epoch: request.producer_epoch,
        };
        let is_version_2 = request.is_version_2;
        let stamp = ProducerStamp {
            producer_id: request.producer_id,
            producer_epoch: request.producer_epoch,
            base_sequence: crate::protocol::batch::NO_SEQUENCE,
        };
        let verdicts = self.start_verification(&[(partition, stamp)], is_version_2);
        let awaiting = Awaiting::TxnOffsetCommit(request);
        let since = now;
        let verifying = Verifying { caller, awaiting, identity, is_version_2, verdicts, since };
        self.verify(now, verifying, effects);
    }

    /// Notes which partitions are to be verified: those without an open transaction of the
    /// producer.
    fn start_verification(
        &mut self,
        stamps: &[(TopicPartition, ProducerStamp)],
        is_version_2: bool,
    ) -> Verdicts {
        if !is_version_2 && !self.config.broker.transaction_partition_verification {
            return Verdicts::new();
        }
        let mut verdicts = Verdicts::new();
        for (topic_partition, stamp) in stamps {
            let missing = self.no_replica(topic_partition);
            let found = self.replicas.get_mut(topic_partition).ok_or(missing);
            let found = found.and_then(|replica| replica.check_leader(None).map(|()| replica));
            match found {
                Err(error) => {
                    verdicts.insert(topic_partition.clone(), Err(error));
                }
                Ok(replica) => {
                    let producers = replica.producers_mut();
                    let guard = producers.and_then(|p| p.start_verification(*stamp, is_version_2));
                    verdicts.extend(guard.map(|guard| (topic_partition.clone(), Ok(guard))));
                }
            }
        }
        verdicts
    }

    /// Asks the coordinator, if there is something to ask.
    fn verify(&mut self, now: SimTime, verifying: Verifying, effects: &mut Effects) {
        let partitions: Vec<_> = verifying
            .verdicts
            .iter()
            .filter(|(_, verdict)| verdict.is_ok())
            .map(|(topic_partition, _)| topic_partition.clone())
            .collect();
        if partitions.is_empty() {
            return self.verified(now, verifying, effects);
        }
        let connection = verifying.caller.connection;
        let coordinator = self.transaction_coordinator(&verifying.identity.transactional_id);
        let request = Request::AddPartitionsToTxn(add_partitions_to_txn::Request {
            transactional_id: verifying.identity.transactional_id.clone(),
            producer_id: verifying.identity.producer_id,
            producer_epoch: verifying.identity.producer_epoch,
            verify_only: !verifying.is_version_2,
            partitions: partitions.clone(),
        });
        self.verifying.insert(connection, verifying);
        match coordinator {
            Ok(coordinator) => {
                let to = (coordinator, Purpose::Verification);
                let token = Token::Verification(connection);
                self.peers.send(now, to, request, token, effects);
            }
            Err(error) => {
                let results = partitions.into_iter().map(|p| (p, Some(error))).collect();
                self.learn_verdicts(now, connection, results, effects);
            }
        }
    }

    /// The coordinator answered, or did not.
    pub(in crate::broker) fn verification_concluded(
        &mut self,
        now: SimTime,
        connection: ConnectionId,
        response: Option<Response>,
        effects: &mut Effects,
    ) {
        let results = match response {
            Some(Response::AddPartitionsToTxn(response)) => response.partitions,
            _ => {
                let Some(verifying) = self.verifying.get(&connection) else { return };
                let error = Some(ErrorKind::NetworkException);
                verifying.verdicts.keys().map(|partition| (partition.clone(), error)).collect()
            }
        };
        self.learn_verdicts(now, connection, results, effects);
    }

    fn learn_verdicts(
        &mut self,
        now: SimTime,
        connection: ConnectionId,
        results: Vec<(TopicPartition, Option<ErrorKind>)>,
        effects: &mut Effects,
    ) {
        let Some(mut verifying) = self.verifying.remove(&connection) else { return };
        let is_concurrent =
            |(_, error): &(_, Option<ErrorKind>)| *error == Some(ErrorKind::ConcurrentTransactions);
        let may_retry = verifying.is_version_2 && now < verifying.since + RETRY_TIMEOUT;
        if may_retry && results.iter().any(is_concurrent) {
            self.verifying.insert(connection, verifying);
            schedule(BrokerTimer::RetryVerification { connection }, now + RETRY_BACKOFF, effects);
            return;
        }
        for (partition, error) in results {
            if let Some(error) = error
                && let Some(verdict) = verifying.verdicts.get_mut(&partition)
                && verdict.is_ok()
            {
                *verdict = Err(known_elsewhere(error, verifying.is_version_2));
            }
        }
        self.verified(now, verifying, effects);
    }

    /// Asks the coordinator again.
    pub(in crate::broker) fn retry_verification(
        &mut self,
        now: SimTime,
        connection: ConnectionId,
        effects: &mut Effects,
    ) {
        if let Some(verifying) = self.verifying.remove(&connection) {
            self.verify(now, verifying, effects);
        }
    }

    /// Goes on with a request whose partitions are verified, or not.
    fn verified(&mut self, now: SimTime, verifying: Verifying, effects: &mut Effects) {
        let Verifying { caller, awaiting, verdicts, .. } = verifying;
        match awaiting {
            Awaiting::Produce(request) => {
                self.append_produced(now, caller, request, &verdicts, effects);
            }
            Awaiting::TxnOffsetCommit(request) => {
                let verdict = verdicts.into_values().next().transpose();
                self.commit_in_transaction(now, caller, request, verdict, effects);
            }
        }
    }
}

/// Makes an error of the coordinator one that producers expect of others.
const fn known_elsewhere(error: ErrorKind, is_version_2: bool) -> ErrorKind {
    match error {
        ErrorKind::ProducerFenced => ErrorKind::InvalidProducerEpoch,
        ErrorKind::TransactionAbortable if !is_version_2 => ErrorKind::InvalidTxnState,
        error => error,
    }
}

/// `add.partitions.to.txn.retry.backoff.ms`.
const RETRY_BACKOFF: Duration = Duration::from_millis(20);
/// `add.partitions.to.txn.retry.backoff.max.ms`.
const RETRY_TIMEOUT: Duration = Duration::from_millis(100);
