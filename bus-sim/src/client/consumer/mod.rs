//! The consumer, as librdkafka has it: reads ahead from the leaders of its partitions, and is a
//! member of its group.
//!
//! - `partition`: the four places of a partition, and its buffer;
//! - `fetcher`: where to start, and fetching; `validation`: what a new leader has;
//! - `subscription`: the topics, as the metadata knows them;
//! - `member`: joining, heartbeats, rebalances; `assignor`, `wire`;
//! - `commits`: one commit at a time, in the order of the calls; `committed`: what was committed;
//!   `stored`: what the next auto commit commits, and when;
//! - `queries`: watermarks and offsets by time;
//! - `poll`: what the application gets.

mod assignor;
mod commits;
mod committed;
mod fetcher;
mod member;
mod partition;
mod poll;
mod queries;
mod stored;
mod subscription;
mod validation;
pub(crate) mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use bus_core::{
    ConsumerConfig, Error, ErrorKind, GroupMetadata, Offset, Rebalance, Result, StartAt,
    Subscription, Topic, TopicPartition,
};
use regex::Regex;

use crate::client::connections::{Connections, Outcome};
use crate::client::metadata::{Metadata, Refresh};
use crate::client::{ClientTimer, Completion, Identity, Reply};
use crate::mutation::Mutation;
use crate::node::{BrokerId, Effects, Input, Name, Timer};
use crate::policy::ClientPolicy;
use crate::protocol::Response;
use crate::time::SimTime;

use commits::Commits;
use committed::CommittedCall;
use fetcher::FetchPart;
use member::{Leaving, Member};
use partition::Partition;
use poll::Polling;
pub(crate) use poll::Ready;
use queries::Query;
use stored::Stored;

/// What a request is remembered by.
#[derive(Debug)]
pub(crate) enum Token {
    Metadata,
    LeaderMetadata,
    FindCoordinator,
    JoinGroup,
    SyncGroup,
    /// In this generation.
    Heartbeat(i32),
    LeaveGroup,
    Commit(u64),
    Committed(CommittedCall),
    StartFromCommitted(Vec<(TopicPartition, u64)>),
    StartFromList(TopicPartition, u64),
    Fetch(BrokerId, Vec<FetchPart>),
    Validate(FetchPart),
    Query {
        query: u64,
        part: usize,
    },
}

/// A consumer.
#[derive(Debug)]
pub(crate) struct Consumer {
    config: ConsumerConfig,
    client_id: Name,
    policy: ClientPolicy,
    mutation: Option<Mutation>,
    connections: Connections<Token>,
    metadata: Metadata,
    refresh: Refresh,
    subscription: Option<Subscribed>,
    /// Missing topics, and patterns without a match, that the application was told of. They stay
    /// when the subscription goes, as in librdkafka.
    reported: BTreeSet<Topic>,
    /// What the metadata was asked for last; `None` for all topics.
    asked_topics: Option<Vec<Topic>>,
    partitions: BTreeMap<TopicPartition, Partition>,
    /// Brokers with a fetch under way.
    fetching: BTreeSet<BrokerId>,
    /// Brokers to leave alone for a while.
    backing_off: BTreeMap<BrokerId, SimTime>,
    /// When the timer is set for that ends this.
    backoff_at: Option<SimTime>,
    member: Option<Member>,
    commits: Commits,
    stored: Stored,
    queries: BTreeMap<u64, Query>,
    /// Calls for committed offsets that wait for the coordinator.
    committed_calls: Vec<CommittedCall>,
    /// What the application must hear of first.
    errors: VecDeque<Error>,
    rebalance: Option<Arc<Rebalance>>,
    polling: Polling,
    poll_waker: Option<Waker>,
    /// When the last poll ended; none while one waits.
    last_poll: SimTime,
    next_version: u64,
    next_query: u64,
    /// Which partition is delivered from first; moves on so that none starves.
    turn: usize,
    last_record: SimTime,
    fatal: Option<Error>,
    closing: Option<Closing>,
}

/// What is subscribed.
#[derive(Debug)]
struct Subscribed {
    subscription: Subscription,
    patterns: Vec<Regex>,
    /// The topics that exist and match, with how many partitions they have; `None` until the first
    /// metadata.
    found: Option<BTreeMap<Topic, i32>>,
}

#[derive(Debug)]
enum Closing {
    /// Commits and leaving are under way.
    Leaving(Vec<Reply<()>>),
    Closed,
}

impl Consumer {
    pub(crate) fn new(
        identity: Identity,
        config: ConsumerConfig,
        client_id: &str,
        brokers: i32,
        mutation: Option<Mutation>,
    ) -> Self {
        let member = config.group_id.as_deref().map(|group_id| {
            Member::new(group_id.into(), config.group_instance_id.as_deref().map(Name::from))
        });
        Self {
            policy: identity.policy,
            stored: Stored::default(),
            connections: Connections::new(identity, brokers),
            metadata: Metadata::new(brokers),
            refresh: Refresh::default(),
            subscription: None,
            reported: BTreeSet::new(),
            asked_topics: Some(Vec::new()),
            partitions: BTreeMap::new(),
            fetching: BTreeSet::new(),
            backing_off: BTreeMap::new(),
            backoff_at: None,
            member,
            commits: Commits::default(),
            queries: BTreeMap::new(),
            committed_calls: Vec::new(),
            errors: VecDeque::new(),
            rebalance: None,
            polling: Polling::Idle,
            poll_waker: None,
            last_poll: SimTime::ZERO,
            next_version: 0,
            next_query: 0,
            turn: 0,
            last_record: SimTime::ZERO,
            fatal: None,
            closing: None,
            config,
            client_id: client_id.into(),
            mutation,
        }
    }

    /// Subscribes, in place of what was subscribed or assigned.
    pub(crate) fn subscribe(
        &mut self,
        now: SimTime,
        subscription: Subscription,
        effects: &mut Effects,
    ) -> Result<()> {
        self.check_open()?;
        subscription.validate()?;
        if self.member.is_none() {
            let message = "to subscribe, set group.id; or assign partitions by hand";
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let compile = |pattern: &String| {
            Regex::new(pattern).map_err(|error| {
                let message = format!("pattern {pattern:?} is no regular expression");
                Error::new(ErrorKind::InvalidArgument, message).with_source(error)
            })
        };
        let patterns = subscription.patterns.iter().map(compile).collect::<Result<_>>()?;
        if self.subscription.is_none() {
            self.commit_stored(now, None, effects);
            self.drop_partitions(effects);
        }
        // A cooperative member rejoins only if other topics come of it.
        let before = self.subscription.take().filter(|_| self.is_cooperative());
        let found = before.and_then(|before| before.found);
        self.subscription = Some(Subscribed { subscription, patterns, found });
        self.last_poll = now;
        self.watch_max_poll(effects);
        self.want_metadata(now, effects);
        Ok(())
    }

    /// Reads exactly these partitions.
    pub(crate) fn assign(
        &mut self,
        now: SimTime,
        partitions: &[(TopicPartition, StartAt)],
        effects: &mut Effects,
    ) -> Result<()> {
        self.check_open()?;
        for (index, (topic_partition, start)) in partitions.iter().enumerate() {
            topic_partition.validate()?;
            start.validate(topic_partition)?;
            if partitions[..index].iter().any(|(other, _)| other == topic_partition) {
                return Err(Error::new(ErrorKind::InvalidArgument, "the partition is named twice")
                    .with_topic_partition(topic_partition.clone()));
            }
        }
        self.commit_stored(now, None, effects);
        if self.subscription.take().is_some() {
            self.leave(now, Leaving::Openly, effects);
        }
        self.drop_partitions(effects);
        for (topic_partition, start) in partitions {
            self.add_partition(topic_partition.clone(), *start);
        }
        self.watch_auto_commit(now, effects);
        self.want_metadata(now, effects);
        self.pump(now, effects);
        Ok(())
    }

    /// Leaves the group and gives up all partitions.
    pub(crate) fn unsubscribe(&mut self, now: SimTime, reply: Reply<()>, effects: &mut Effects) {
        if let Err(error) = self.check_open() {
            return reply.send(Err(error), effects);
        }
        self.commit_stored(now, None, effects);
        if self.subscription.take().is_some() {
            self.leave(now, Leaving::Openly, effects);
        }
        self.drop_partitions(effects);
        reply.send(Ok(()), effects);
    }

    pub(crate) fn assignment(&self) -> Vec<TopicPartition> {
        self.partitions.keys().cloned().collect()
    }

    pub(crate) fn paused(&self) -> Vec<TopicPartition> {
        let paused = self.partitions.iter().filter(|(_, partition)| partition.is_paused);
        paused.map(|(topic_partition, _)| topic_partition.clone()).collect()
    }

    pub(crate) fn position(&self, topic_partition: &TopicPartition) -> Result<Option<Offset>> {
        self.check_open()?;
        match self.partitions.get(topic_partition) {
            Some(partition) => Ok(partition.position),
            None => Err(not_assigned(topic_partition)),
        }
    }

    /// Whether a partition may be sought.
    pub(crate) fn check_seek(&self, topic_partition: &TopicPartition, to: StartAt) -> Result<()> {
        self.check_open()?;
        to.validate(topic_partition)?;
        match self.partitions.contains_key(topic_partition) {
            true => Ok(()),
            false => Err(not_assigned(topic_partition)),
        }
    }

    /// Moves the position of a partition, once it is known where to.
    pub(crate) fn seek(
        &mut self,
        now: SimTime,
        topic_partition: &TopicPartition,
        to: Offset,
        effects: &mut Effects,
    ) -> Result<()> {
        self.check_open()?;
        let version = self.new_version();
        let keep_buffer = self.mutation == Some(Mutation::SeekIgnored);
        let Some(partition) = self.partitions.get_mut(topic_partition) else {
            return Err(not_assigned(topic_partition));
        };
        partition.seek(to, version, keep_buffer);
        self.pump(now, effects);
        Ok(())
    }

    /// Pauses or resumes partitions; all or, with an error, none.
    pub(crate) fn set_paused(
        &mut self,
        now: SimTime,
        partitions: &[TopicPartition],
        is_paused: bool,
        effects: &mut Effects,
    ) -> Result<()> {
        self.check_open()?;
        if let Some(missing) = partitions.iter().find(|tp| !self.partitions.contains_key(*tp)) {
            return Err(not_assigned(missing));
        }
        for topic_partition in partitions {
            if let Some(partition) = self.partitions.get_mut(topic_partition) {
                partition.is_paused = is_paused;
            }
        }
        self.pump(now, effects);
        self.wake_if_ready(effects);
        Ok(())
    }

    pub(crate) fn group_metadata(&self) -> Option<GroupMetadata> {
        let member = self.member.as_ref()?;
        Some(GroupMetadata {
            group_id: member.group_id.to_string(),
            generation: member.generation,
            member_id: member.member_id.to_string(),
            group_instance_id: member.group_instance_id.as_deref().map(str::to_owned),
            native: None,
        })
    }

    /// Commits, leaves, and closes.
    pub(crate) fn close(&mut self, now: SimTime, reply: Reply<()>, effects: &mut Effects) {
        match &mut self.closing {
            Some(Closing::Closed) => reply.send(Ok(()), effects),
            Some(Closing::Leaving(replies)) => replies.push(reply),
            None => {
                self.commit_stored(now, None, effects);
                self.closing = Some(Closing::Leaving(vec![reply]));
                self.rebalance = None;
                self.drop_partitions(effects);
                self.finish_close_if_done(now, effects);
                self.wake(effects);
            }
        }
    }

    /// Leaves the group without a last commit, for a consumer that was dropped. Returns whether
    /// there is nothing left to wait for.
    pub(crate) fn abandon(&mut self, now: SimTime, effects: &mut Effects) {
        if self.closing.is_none() {
            self.closing = Some(Closing::Leaving(Vec::new()));
            self.rebalance = None;
            self.drop_partitions(effects);
            self.finish_close_if_done(now, effects);
        }
    }

    pub(crate) fn handle(&mut self, now: SimTime, input: Input, effects: &mut Effects) {
        match self.connections.handle(now, input, effects) {
            Ok(outcomes) => {
                for outcome in outcomes {
                    self.conclude(now, outcome, effects);
                }
                self.pump(now, effects);
            }
            Err(Input::Timer(Timer::Client(timer))) => {
                self.timer(now, timer, effects);
                self.pump(now, effects);
            }
            Err(_) => {}
        }
        self.wake_if_ready(effects);
        self.finish_close_if_done(now, effects);
    }

    fn conclude(&mut self, now: SimTime, outcome: Outcome<Token>, effects: &mut Effects) {
        match outcome {
            Outcome::Response(token, response) => self.answered(now, token, response, effects),
            Outcome::Failed { token, timed_out, .. } => {
                self.unanswered(now, token, timed_out, effects);
            }
            Outcome::Down => {
                if self.closing.is_none() && !self.partitions.is_empty() {
                    self.want_metadata(now, effects);
                }
            }
        }
    }

    fn answered(&mut self, now: SimTime, token: Token, response: Response, effects: &mut Effects) {
        match (token, response) {
            (Token::Metadata, Response::Metadata(response)) => {
                self.refresh.end();
                self.learn(now, &response, effects);
            }
            (Token::LeaderMetadata, Response::Metadata(response)) => {
                self.metadata.update(&response);
                self.lead(now, effects);
            }
            (Token::FindCoordinator, Response::FindCoordinator(response)) => {
                self.found_coordinator(now, response.result, effects);
            }
            (Token::JoinGroup, Response::JoinGroup(response)) => {
                self.joined(now, response, effects);
            }
            (Token::SyncGroup, Response::SyncGroup(response)) => {
                self.synced(now, response.result, effects);
            }
            (Token::Heartbeat(generation), Response::Heartbeat(response)) => {
                self.heartbeat_answered(now, generation, response.error, effects);
            }
            (Token::LeaveGroup, Response::LeaveGroup(_)) => self.left(),
            (Token::Commit(id), Response::OffsetCommit(response)) => {
                self.commit_answered(now, id, &response.partitions, effects);
            }
            (Token::Committed(call), Response::OffsetFetch(response)) => {
                self.committed_answered(now, call, response.result, effects);
            }
            (Token::StartFromCommitted(parts), Response::OffsetFetch(response)) => {
                self.start_from_committed(now, &parts, response.result, effects);
            }
            (Token::StartFromList(topic_partition, version), Response::ListOffsets(response)) => {
                let result = response.partitions.into_iter().next().map(|first| first.result);
                let result = result.unwrap_or(Err(ErrorKind::UnknownServerError));
                self.start_from_list(now, &topic_partition, version, result, effects);
            }
            (Token::Fetch(broker, parts), Response::Fetch(response)) => {
                self.fetched(now, broker, &parts, response, effects);
            }
            (Token::Validate(part), Response::OffsetForLeaderEpoch(response)) => {
                let result = response.partitions.into_iter().next().map(|first| first.result);
                let result = result.unwrap_or(Err(ErrorKind::UnknownServerError));
                self.validated(now, &part, result, effects);
            }
            (Token::Query { query, part }, Response::ListOffsets(response)) => {
                let result = response.partitions.into_iter().next().map(|first| first.result);
                let result = result.unwrap_or(Err(ErrorKind::UnknownServerError));
                self.query_answered(now, query, part, result, effects);
            }
            _ => {}
        }
    }

    fn unanswered(&mut self, now: SimTime, token: Token, timed_out: bool, effects: &mut Effects) {
        let kind = if timed_out { ErrorKind::TimedOut } else { ErrorKind::NetworkException };
        match token {
            Token::Metadata => {
                self.refresh.end();
                self.want_metadata_later(now, effects);
            }
            Token::LeaderMetadata | Token::JoinGroup | Token::SyncGroup => {
                self.coordinator_lost(now, effects);
                self.rejoin_later(now, effects);
            }
            Token::FindCoordinator => self.find_coordinator_later(now, effects),
            Token::Heartbeat(generation) => {
                self.heartbeat_answered(now, generation, Some(kind), effects);
            }
            Token::LeaveGroup => self.left(),
            Token::Commit(id) => self.commit_unanswered(now, id, effects),
            Token::Committed(call) => {
                self.coordinator_lost(now, effects);
                self.ask_committed_again(now, call, effects);
            }
            Token::StartFromCommitted(parts) => {
                self.coordinator_lost(now, effects);
                self.start_from_committed(now, &parts, Err(kind), effects);
            }
            Token::StartFromList(topic_partition, version) => {
                self.start_from_list(now, &topic_partition, version, Err(kind), effects);
            }
            Token::Fetch(broker, parts) => self.fetch_failed(now, broker, &parts, effects),
            Token::Validate(part) => self.validated(now, &part, Err(kind), effects),
            Token::Query { query, part } => {
                self.query_answered(now, query, part, Err(kind), effects);
            }
        }
    }

    fn timer(&mut self, now: SimTime, timer: ClientTimer, effects: &mut Effects) {
        match timer {
            ClientTimer::MetadataRefresh => {
                self.refresh.timer_fired();
                self.want_metadata(now, effects);
            }
            ClientTimer::PollTimeout => self.wake(effects),
            ClientTimer::MaxPollInterval => self.check_max_poll(now, effects),
            ClientTimer::Heartbeat => self.heartbeat(now, effects),
            ClientTimer::SessionTimeout => self.check_session(now, effects),
            ClientTimer::GroupRetry => self.group_retry(now, effects),
            ClientTimer::AutoCommit => self.auto_commit(now, effects),
            ClientTimer::FetchBackoff => self.backoff_due(now, effects),
            ClientTimer::CommitRetry => self.pump_commits(now, effects),
            ClientTimer::CommittedRetry => self.committed_retry(now, effects),
            _ => {}
        }
    }

    /// Does what can be done now.
    fn pump(&mut self, now: SimTime, effects: &mut Effects) {
        self.pump_commits(now, effects);
        self.pump_committed_calls(now, effects);
        self.pump_starts(now, effects);
        self.pump_validations(now, effects);
        self.pump_fetches(now, effects);
        self.pump_queries(now, effects);
    }

    fn add_partition(&mut self, topic_partition: TopicPartition, start: StartAt) {
        let version = self.new_version();
        let mut partition = Partition::new(start, version);
        self.stored.give_back(&topic_partition, &mut partition);
        self.partitions.insert(topic_partition, partition);
    }

    fn drop_partitions(&mut self, effects: &mut Effects) {
        self.keep_stored(None);
        self.partitions.clear();
        self.errors.clear();
        effects.cancel_timer(Timer::Client(ClientTimer::AutoCommit));
    }

    fn new_version(&mut self) -> u64 {
        self.next_version += 1;
        self.next_version
    }

    fn check_open(&self) -> Result<()> {
        match (&self.closing, &self.fatal) {
            (Some(_), _) => Err(closed()),
            (None, Some(fatal)) => Err(fatal.clone()),
            (None, None) => Ok(()),
        }
    }

    fn finish_close_if_done(&mut self, now: SimTime, effects: &mut Effects) {
        if !matches!(self.closing, Some(Closing::Leaving(_))) || !self.commits.is_idle() {
            return;
        }
        if self.subscription.take().is_some() {
            self.leave(now, Leaving::Silently, effects);
        }
        if self.is_leaving() {
            return;
        }
        let Some(Closing::Leaving(replies)) = self.closing.replace(Closing::Closed) else { return };
        self.fail_all_calls(effects);
        self.connections.close_all(effects);
        for reply in replies {
            reply.send(Ok(()), effects);
        }
        self.wake(effects);
    }

    fn fail_all_calls(&mut self, effects: &mut Effects) {
        for call in std::mem::take(&mut self.committed_calls) {
            call.fail(closed(), effects);
        }
        for (_, query) in std::mem::take(&mut self.queries) {
            query.fail(closed(), effects);
        }
    }

    fn wake(&mut self, effects: &mut Effects) {
        if let Some(waker) = self.poll_waker.take() {
            effects.complete(Completion::Wake(waker));
        }
    }

    fn wake_if_ready(&mut self, effects: &mut Effects) {
        if self.poll_waker.is_some() && self.is_ready() {
            self.wake(effects);
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the consumer is closed")
}

fn not_assigned(topic_partition: &TopicPartition) -> Error {
    Error::new(ErrorKind::InvalidState, "the partition is not assigned to this consumer")
        .with_topic_partition(topic_partition.clone())
}
