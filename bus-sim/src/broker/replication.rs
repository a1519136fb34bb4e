//! Replication as a follower: fetches what the leaders of its partitions have, and takes back what
//! they do not have.
//!
//! - One fetcher per leading broker, with one long poll under way. It names the end of each log and
//!   the epoch of its last record; a leader whose log parts from there answers with a diverging
//!   epoch, and the follower truncates (KIP-101, KIP-279, KIP-595).
//! - A partition with an error waits `replica.fetch.backoff.ms`. One that was fenced waits for the
//!   image to name the new leader.
//! - An offset that the leader does not have is resolved by asking for the end of its log.
//!
//! Simplified: partitions are fetched in their order, where Kafka lets those with data go last.
//! Absent: leaders whose log begins behind the follower's end, as nothing deletes records.

use std::collections::BTreeMap;

use bus_core::{ErrorKind, IsolationLevel, Offset, TopicPartition};

use super::peers::{Purpose, Token};
use super::replica::Replica;
use super::session::schedule;
use super::{Broker, BrokerTimer};
use crate::config::Truncation;
use crate::fact::Fact;
use crate::mutation::Mutation;
use crate::node::{BrokerId, Effects, Timer};
use crate::protocol::fetch::{self, Fetched};
use crate::protocol::list_offsets::{self, OffsetSpec};
use crate::protocol::offset_for_leader_epoch::EpochEnd;
use crate::protocol::{Request, Response};
use crate::time::SimTime;

/// What is fetched from one broker.
#[derive(Debug, Default)]
pub(super) struct Fetcher {
    partitions: BTreeMap<TopicPartition, FetchState>,
    /// Whether a fetch is under way.
    is_fetching: bool,
}

/// Where a partition stands. Its offset is always the end of its log.
#[derive(Debug)]
struct FetchState {
    leader_epoch: i32,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It is a part of the next fetch.
    Fetching,
    /// It had an error, and waits.
    Delayed(SimTime),
    /// The leader is asked for an end of its log.
    Resolving,
}

/// What was asked of a leader about a partition: an answer counts while that is still so.
#[derive(Debug)]
pub(super) struct Position {
    topic_partition: TopicPartition,
    offset: Offset,
    leader_epoch: i32,
}

impl Broker {
    /// Makes a partition follow its leader from where its log ends.
    pub(super) fn start_following(
        &mut self,
        now: SimTime,
        topic_partition: &TopicPartition,
        effects: &mut Effects,
    ) {
        let is_old_rule = self.truncates_to_watermark();
        let Some(replica) = self.replicas.get_mut(topic_partition) else { return };
        let Some((leader, leader_epoch)) = replica.leader() else { return };
        let fetcher = self.fetchers.entry(leader).or_default();
        let state = FetchState { leader_epoch, phase: Phase::Fetching };
        fetcher.partitions.insert(topic_partition.clone(), state);
        if is_old_rule {
            let to = replica.high_watermark();
            self.truncate(now, topic_partition, to, effects);
        }
    }

    fn truncates_to_watermark(&self) -> bool {
        self.config.broker.truncation == Truncation::ToHighWatermark
            || self.has(Mutation::TruncatedToWatermark)
    }

    /// Stops following, as the leader or with another one.
    pub(super) fn stop_following(&mut self, topic_partition: &TopicPartition) {
        for fetcher in self.fetchers.values_mut() {
            fetcher.partitions.remove(topic_partition);
        }
    }

    /// Sends what there is to fetch, and closes the connections that nothing is fetched from.
    pub(super) fn wake_fetchers(&mut self, now: SimTime, effects: &mut Effects) {
        let is_idle = |fetcher: &Fetcher| fetcher.partitions.is_empty();
        let leaders = self.fetchers.iter().filter(|(_, fetcher)| is_idle(fetcher));
        for leader in leaders.map(|(leader, _)| *leader).collect::<Vec<_>>() {
            self.fetchers.remove(&leader);
            effects.cancel_timer(Timer::Broker(BrokerTimer::ReplicaFetch { leader }));
            self.peers.close((leader, Purpose::Replication), effects);
        }
        let leaders: Vec<_> = self.fetchers.keys().copied().collect();
        leaders.into_iter().for_each(|leader| self.fetch_from(now, leader, effects));
    }

    /// Sends the next fetch to a broker, unless one is under way.
    pub(super) fn fetch_from(&mut self, now: SimTime, leader: BrokerId, effects: &mut Effects) {
        let Some(broker_epoch) = self.session.epoch() else { return };
        let config = &self.config.broker;
        let is_old_rule = self.truncates_to_watermark();
        let Some(fetcher) = self.fetchers.get_mut(&leader).filter(|f| !f.is_fetching) else {
            return;
        };
        let mut partitions = Vec::new();
        let mut next_try = None;
        for (topic_partition, state) in &mut fetcher.partitions {
            match state.phase {
                Phase::Resolving => continue,
                Phase::Delayed(until) if now < until => {
                    next_try = Some(next_try.map_or(until, |next: SimTime| next.min(until)));
                    continue;
                }
                Phase::Delayed(_) | Phase::Fetching => state.phase = Phase::Fetching,
            }
            let Some(replica) = self.replicas.get(topic_partition) else { continue };
            partitions.push(fetch::PartitionRequest {
                topic_partition: topic_partition.clone(),
                offset: replica.log.end(),
                current_leader_epoch: Some(state.leader_epoch),
                last_fetched_epoch: replica.latest_epoch().filter(|_| !is_old_rule),
                max_bytes: config.replica_fetch_max_bytes,
            });
        }
        if partitions.is_empty() {
            let timer = BrokerTimer::ReplicaFetch { leader };
            next_try.into_iter().for_each(|at| schedule(timer.clone(), at, effects));
            return;
        }
        fetcher.is_fetching = true;
        let positions = partitions.iter().map(|partition| Position {
            topic_partition: partition.topic_partition.clone(),
            offset: partition.offset,
            leader_epoch: partition.current_leader_epoch.unwrap_or(-1),
        });
        let token = Token::ReplicaFetch(positions.collect());
        let request = Request::Fetch(fetch::Request {
            replica: Some((self.id, broker_epoch)),
            max_wait: config.replica_fetch_wait_max,
            min_bytes: 1,
            max_bytes: config.replica_fetch_response_max_bytes,
            isolation_level: IsolationLevel::ReadUncommitted,
            partitions,
        });
        self.peers.send(now, (leader, Purpose::Replication), request, token, effects);
    }

    /// A fetch from a broker ended, without a response if the connection broke.
    pub(super) fn fetched_from(
        &mut self,
        now: SimTime,
        leader: BrokerId,
        positions: Vec<Position>,
        response: Option<Response>,
        effects: &mut Effects,
    ) {
        let Some(fetcher) = self.fetchers.get_mut(&leader) else { return };
        fetcher.is_fetching = false;
        if let Some(Response::Fetch(response)) = response {
            for (position, answer) in positions.into_iter().zip(response.partitions) {
                if self.is_current(leader, &position) {
                    self.follow_fetched(now, leader, position, answer.result, effects);
                }
            }
        } else {
            let until = now + self.config.broker.replica_fetch_backoff;
            for state in fetcher.partitions.values_mut() {
                state.phase = Phase::Delayed(until);
            }
        }
        self.fetch_from(now, leader, effects);
    }

    /// Whether a partition still stands where it did when its leader was asked.
    fn is_current(&self, leader: BrokerId, position: &Position) -> bool {
        let Position { topic_partition, offset, leader_epoch } = position;
        let state = self.fetchers.get(&leader).and_then(|f| f.partitions.get(topic_partition));
        let replica = self.replicas.get(topic_partition);
        state.is_some_and(|state| state.leader_epoch == *leader_epoch)
            && replica.is_some_and(|replica| replica.log.end() == *offset)
    }

    /// Does what a leader's answer to a fetch says of a partition.
    fn follow_fetched(
        &mut self,
        now: SimTime,
        leader: BrokerId,
        position: Position,
        result: Result<Fetched, ErrorKind>,
        effects: &mut Effects,
    ) {
        let topic_partition = &position.topic_partition;
        match result {
            Ok(Fetched { diverging_epoch: Some(leaders), .. }) => {
                let Some(replica) = self.replicas.get(topic_partition) else { return };
                let to = truncation_point(replica, leaders);
                self.truncate(now, topic_partition, to, effects);
            }
            Ok(fetched) => self.append_fetched(now, topic_partition, fetched, effects),
            Err(ErrorKind::OffsetOutOfRange) => {
                self.set_phase(leader, topic_partition, Phase::Resolving);
                self.ask_for_end(now, leader, position, effects);
            }
            Err(error) => self.follow_error(now, leader, topic_partition, error),
        }
    }

    /// Delays a partition after an error, or waits for the image if its leader is not any more.
    fn follow_error(
        &mut self,
        now: SimTime,
        leader: BrokerId,
        topic_partition: &TopicPartition,
        error: ErrorKind,
    ) {
        if error == ErrorKind::FencedLeaderEpoch {
            self.stop_following(topic_partition);
        } else {
            let until = now + self.config.broker.replica_fetch_backoff;
            self.set_phase(leader, topic_partition, Phase::Delayed(until));
        }
    }

    fn set_phase(&mut self, leader: BrokerId, topic_partition: &TopicPartition, phase: Phase) {
        let fetcher = self.fetchers.get_mut(&leader);
        let state = fetcher.and_then(|fetcher| fetcher.partitions.get_mut(topic_partition));
        if let Some(state) = state {
            state.phase = phase;
        }
    }

    /// Appends what was fetched, and learns the leader's high watermark.
    fn append_fetched(
        &mut self,
        now: SimTime,
        topic_partition: &TopicPartition,
        fetched: Fetched,
        effects: &mut Effects,
    ) {
        let Some(replica) = self.replicas.get_mut(topic_partition) else { return };
        for stored in fetched.batches {
            effects.fact(Fact::Replicated {
                broker: self.id,
                topic_partition: topic_partition.clone(),
                base_offset: stored.base_offset,
                count: u32::try_from(stored.batch.records.len()).unwrap_or(u32::MAX),
                leader_epoch: stored.leader_epoch,
            });
            replica.append_as_follower(now, stored);
        }
        replica.follow_high_watermark(now, fetched.high_watermark);
    }

    /// Takes back what is at and behind an offset.
    fn truncate(
        &mut self,
        now: SimTime,
        topic_partition: &TopicPartition,
        to: Offset,
        effects: &mut Effects,
    ) {
        let Some(replica) = self.replicas.get_mut(topic_partition) else { return };
        let from = replica.log.end();
        replica.truncate(now, to);
        if to < from {
            let topic_partition = topic_partition.clone();
            effects.fact(Fact::Truncated { broker: self.id, topic_partition, from, to });
        }
    }

    /// Asks the leader for the end of its log, as it does not have the offset to fetch from.
    fn ask_for_end(
        &mut self,
        now: SimTime,
        leader: BrokerId,
        position: Position,
        effects: &mut Effects,
    ) {
        let request = Request::ListOffsets(list_offsets::Request {
            replica: Some(self.id),
            isolation_level: IsolationLevel::ReadUncommitted,
            partitions: vec![list_offsets::PartitionRequest {
                topic_partition: position.topic_partition.clone(),
                current_leader_epoch: Some(position.leader_epoch),
                spec: OffsetSpec::Latest,
            }],
        });
        let token = Token::LeaderEnd(position);
        self.peers.send(now, (leader, Purpose::Replication), request, token, effects);
    }

    /// The leader named the end of its log.
    pub(super) fn learned_end(
        &mut self,
        now: SimTime,
        leader: BrokerId,
        position: &Position,
        response: Option<Response>,
        effects: &mut Effects,
    ) {
        if !self.is_current(leader, position) {
            return;
        }
        let result = match response {
            Some(Response::ListOffsets(mut response)) => {
                response.partitions.pop().map_or(Ok(None), |partition| partition.result)
            }
            _ => Err(ErrorKind::NetworkException),
        };
        let topic_partition = &position.topic_partition;
        match result {
            Ok(end) => {
                self.truncate(now, topic_partition, end.unwrap_or(position.offset), effects);
                self.set_phase(leader, topic_partition, Phase::Fetching);
            }
            Err(error) => self.follow_error(now, leader, topic_partition, error),
        }
        self.fetch_from(now, leader, effects);
    }
}

/// Where a follower's log ends as far as it is like its leader's, by what that answered: the end of
/// the largest epoch that it has and that is not above the follower's last.
fn truncation_point(replica: &Replica, leaders: EpochEnd) -> Offset {
    let log_end = replica.log.end();
    match replica.end_of_epoch(leaders.leader_epoch) {
        // The leader's epoch is not known here: the logs part before it, perhaps earlier.
        Some(own) if own.leader_epoch != leaders.leader_epoch => own.end_offset.min(log_end),
        Some(own) => own.end_offset.min(leaders.end_offset).min(log_end),
        None => leaders.end_offset.min(log_end),
    }
}
