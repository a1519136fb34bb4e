//! Whether a new leader has what was read from the one before (KIP-320): after a change of leader
//! the consumer asks where the epoch of the last record that it fetched ends.
//!
//! As librdkafka has it: what is asked about is how far was fetched, not what was delivered. If the
//! leader's log ends before, records were lost, and the consumer goes on at that end, without what
//! it had fetched ahead; with `auto.offset.reset=none` it is an error instead.

use bus_core::{ErrorKind, OffsetReset};

use crate::client::connections::Link;
use crate::mutation::Mutation;
use crate::node::Effects;
use crate::protocol::Request;
use crate::protocol::offset_for_leader_epoch::{self, EpochEnd};
use crate::time::SimTime;

use super::fetcher::FetchPart;
use super::partition::FetchState;
use super::{Consumer, Token};

impl Consumer {
    /// Goes on with the leaders that the metadata names.
    pub(super) fn learn_leaders(&mut self) {
        for (topic_partition, partition) in &mut self.partitions {
            let Some(epoch) = self.metadata.leader_epoch(topic_partition) else { continue };
            let is_newer = partition.known_epoch.is_some_and(|known| known < epoch);
            partition.known_epoch = Some(epoch);
            if is_newer {
                // What was wrong with the old leader is no reason to wait for the new one.
                partition.not_before = SimTime::ZERO;
            }
            let leader = self.metadata.leader(topic_partition).map(|(leader, _)| leader);
            if let FetchState::Fetching(offset, broker) = partition.fetch
                && leader != Some(broker)
            {
                // Whatever the old leader answers is out of date.
                partition.fetch = FetchState::At(offset);
            }
            let has_epoch = partition.fetch_epoch.is_some();
            let validates = self.policy.validates_epochs
                && self.mutation != Some(Mutation::TruncationNotDetected);
            if is_newer && has_epoch && validates {
                partition.fetch = match partition.fetch {
                    FetchState::At(offset) | FetchState::Fetching(offset, _) => {
                        FetchState::Validate(offset)
                    }
                    other => other,
                };
            }
        }
    }

    /// Asks the leaders of partitions that must be asked about.
    pub(super) fn pump_validations(&mut self, now: SimTime, effects: &mut Effects) {
        if self.closing.is_some() {
            return;
        }
        let mut asks = Vec::new();
        for (topic_partition, partition) in &mut self.partitions {
            let FetchState::Validate(offset) = partition.fetch else { continue };
            let Some((leader, epoch)) = self.metadata.leader(topic_partition) else { continue };
            let Some(fetch_epoch) = partition.fetch_epoch.filter(|_| partition.not_before <= now)
            else {
                continue;
            };
            partition.fetch = FetchState::Validating(offset);
            let request = offset_for_leader_epoch::PartitionRequest {
                topic_partition: topic_partition.clone(),
                current_leader_epoch: Some(epoch),
                leader_epoch: fetch_epoch,
            };
            let (topic_partition, version) = (topic_partition.clone(), partition.version);
            asks.push((leader, FetchPart { topic_partition, version, offset }, request));
        }
        for (leader, part, partition) in asks {
            let request = Request::OffsetForLeaderEpoch(offset_for_leader_epoch::Request {
                replica: None,
                partitions: vec![partition],
            });
            let (token, deadline) = (Token::Validate(part), self.connections.deadline(now));
            self.connections.send(now, Link::data(leader), token, request, deadline, effects);
        }
    }

    /// A leader told where the epoch ends.
    pub(super) fn validated(
        &mut self,
        now: SimTime,
        part: &FetchPart,
        result: Result<Option<EpochEnd>, ErrorKind>,
        effects: &mut Effects,
    ) {
        let FetchPart { topic_partition, version, offset } = part;
        let Some(partition) = self.partitions.get_mut(topic_partition) else { return };
        if partition.version != *version || partition.fetch != FetchState::Validating(*offset) {
            return;
        }
        match result {
            Ok(Some(end)) if end.end_offset >= *offset => {
                partition.fetch = FetchState::At(*offset);
            }
            Ok(Some(end)) if self.config.auto_offset_reset != OffsetReset::None => {
                let version = self.new_version();
                let Some(partition) = self.partitions.get_mut(topic_partition) else { return };
                partition.seek(end.end_offset, version, false);
                partition.fetch_epoch = Some(end.leader_epoch);
            }
            Ok(_) => self.reset(now, topic_partition, ErrorKind::OffsetOutOfRange, effects),
            Err(_) => {
                partition.fetch = FetchState::Validate(*offset);
                self.want_metadata_later(now, effects);
                self.back_off(now, topic_partition, effects);
            }
        }
    }
}
