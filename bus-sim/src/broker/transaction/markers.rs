//! The ends of transactions on their way to the partitions (`TransactionMarkerChannelManager`).
//!
//! - Each leader is sent a WriteTxnMarkers, this broker itself as well; what has no leader, or gets
//!   no answer or one that may pass, is sent again, to whoever leads then.
//! - When all partitions have their marker, the transaction is complete.
//! - A partition that is gone needs none. One that has seen a newer coordinator or producer ends
//!   the sending: somebody else decides now.
//!
//! Simplified: one request per transaction and leader; sent again after 50 ms, which is Kafka's
//! reconnect backoff, where Kafka sends at once if there was an answer.

use std::collections::BTreeMap;
use std::time::Duration;

use bus_core::{ErrorKind, Partition, TopicPartition};

use super::state::{Completion, Metadata, Transaction};
use super::{Shard, Turn};
use crate::broker::peers::{Purpose, Token};
use crate::broker::{Broker, BrokerTimer};
use crate::mutation::Mutation;
use crate::node::{BrokerId, Effects, Name};
use crate::protocol::batch::ControlRecord;
use crate::protocol::write_txn_markers::{self, Marker};
use crate::protocol::{Request, Response};
use crate::time::SimTime;

/// By what a request to write markers is remembered.
#[derive(Debug)]
pub(in crate::broker) struct MarkersToken {
    /// The partition of the coordinator.
    partition: Partition,
    /// Its epoch when it asked.
    epoch: i32,
    transactional_id: Name,
    /// The partitions that were asked for.
    partitions: Vec<TopicPartition>,
}

impl Broker {
    /// Markers were written, or not.
    pub(in crate::broker) fn markers_concluded(
        &mut self,
        now: SimTime,
        token: MarkersToken,
        response: Option<Response>,
        effects: &mut Effects,
    ) {
        let results = match response {
            Some(Response::WriteTxnMarkers(mut response)) if !response.markers.is_empty() => {
                response.markers.swap_remove(0).1
            }
            _ => {
                let failed = |partition| (partition, Some(ErrorKind::NetworkException));
                token.partitions.into_iter().map(failed).collect()
            }
        };
        self.with_transactions(now, token.partition, effects, |shard, turn| {
            if shard.epoch == token.epoch && !shard.is_loading {
                shard.markers_concluded(turn, &token.transactional_id, results);
            }
        });
    }
}

impl Shard {
    /// Begins to write the markers of a transaction whose outcome is durable.
    pub(super) fn complete(&mut self, turn: &mut Turn<'_>, transactional_id: &Name) {
        let Some(transaction) = self.transactions.get_mut(transactional_id) else { return };
        let mut remaining = transaction.metadata.partitions.clone();
        let value = transaction.prepare_completion(turn.time());
        let is_commit = transaction.metadata.state.prepared() == Some(ControlRecord::Commit);
        if turn.has(Mutation::MarkerMissing) && is_commit && remaining.len() > 1 {
            remaining.pop_last();
        }
        let unsent = remaining.clone();
        transaction.completion = Some(Completion { value, remaining, unsent });
        self.send_markers(turn, transactional_id);
    }

    /// Sends the markers that have not been sent, or have come back.
    fn send_markers(&mut self, turn: &mut Turn<'_>, transactional_id: &Name) {
        let epoch = self.epoch;
        let Some(transaction) = self.transactions.get_mut(transactional_id) else { return };
        let Metadata { producer_id, producer_epoch, is_version_2, state, .. } =
            transaction.metadata;
        let Some(control) = state.prepared() else { return };
        let is_wrong = turn.has(Mutation::AbortMarkedAsCommit);
        let control = if is_wrong { ControlRecord::Commit } else { control };
        let Some(completion) = &mut transaction.completion else { return };
        for (leader, partitions) in completion.take_unsent(turn) {
            let marker = Marker {
                producer_id,
                producer_epoch,
                control,
                coordinator_epoch: epoch,
                is_version_2,
                partitions: partitions.clone(),
            };
            let request =
                Request::WriteTxnMarkers(write_txn_markers::Request { markers: vec![marker] });
            let token = Token::Markers(MarkersToken {
                partition: turn.partition,
                epoch,
                transactional_id: Name::clone(transactional_id),
                partitions,
            });
            let to = (leader, Purpose::Markers);
            turn.peers.send(turn.now, to, request, token, turn.effects);
        }
        self.go_on(turn, transactional_id);
    }

    fn markers_concluded(
        &mut self,
        turn: &mut Turn<'_>,
        transactional_id: &Name,
        results: Vec<(TopicPartition, Option<ErrorKind>)>,
    ) {
        let Some(transaction) = self.transactions.get_mut(transactional_id) else { return };
        let Some(completion) = &mut transaction.completion else { return };
        for (partition, error) in results {
            match error {
                None => {
                    completion.remaining.remove(&partition);
                }
                Some(ErrorKind::InvalidProducerEpoch | ErrorKind::TransactionCoordinatorFenced) => {
                    // As in Kafka, the transition stays pending.
                    transaction.completion = None;
                    return;
                }
                Some(_) => {
                    completion.unsent.insert(partition);
                }
            }
        }
        self.go_on(turn, transactional_id);
    }

    /// Completes a transaction that has all its markers, and otherwise sees to the missing ones.
    fn go_on(&mut self, turn: &mut Turn<'_>, transactional_id: &Name) {
        let Some(transaction) = self.transactions.get_mut(transactional_id) else { return };
        let Some(completion) = &transaction.completion else { return };
        if completion.remaining.is_empty() {
            let value = completion.value.clone();
            transaction.completion = None;
            turn.write(transactional_id, Some(value), None);
        } else if !completion.unsent.is_empty() {
            self.retry_markers_later(turn);
        }
    }

    pub(super) fn retry_markers_later(&mut self, turn: &mut Turn<'_>) {
        if !self.retries_markers {
            self.retries_markers = true;
            let partition = turn.partition;
            turn.schedule(BrokerTimer::RetryMarkers { partition }, turn.now + RETRY_BACKOFF);
        }
    }

    /// Sends what has come back again, and writes what could not be written.
    pub(in crate::broker) fn retry_markers(&mut self, turn: &mut Turn<'_>) {
        self.retries_markers = false;
        let waiting = self.transactions.iter().filter(|(_, t)| t.completion.is_some());
        let waiting: Vec<_> = waiting.map(|(id, _)| Name::clone(id)).collect();
        waiting.iter().for_each(|transactional_id| self.send_markers(turn, transactional_id));
    }
}

impl Completion {
    /// Takes the partitions to send markers to, by leader. Those without leader stay; those that
    /// are gone are done.
    fn take_unsent(&mut self, turn: &Turn<'_>) -> BTreeMap<BrokerId, Vec<TopicPartition>> {
        let mut sent = BTreeMap::<BrokerId, Vec<_>>::new();
        for partition in std::mem::take(&mut self.unsent) {
            match turn.image.partition(&partition).map(|state| state.leader) {
                None => {
                    self.remaining.remove(&partition);
                }
                Some(None) => {
                    self.unsent.insert(partition);
                }
                Some(Some(leader)) => sent.entry(leader).or_default().push(partition),
            }
        }
        sent
    }
}

impl Transaction {
    /// All markers are written, but the record that says so is not.
    pub(super) fn written_everywhere(&mut self, value: Metadata) {
        let (remaining, unsent) = Default::default();
        self.completion = Some(Completion { value, remaining, unsent });
    }
}

/// `reconnect.backoff.ms` of Kafka's connections between brokers.
const RETRY_BACKOFF: Duration = Duration::from_millis(50);
