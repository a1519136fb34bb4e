//! Membership in a group by the classic protocol: find the coordinator, join, sync, heartbeat.
//!
//! A rebalance waits for the application: partitions come and go only when it has completed the
//! guard. Eager assignors revoke everything before each join; cooperative ones join with what they
//! own, give up what moves, and join once more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Assignor, Bytes, Error, ErrorKind, Rebalance, RebalanceKind, StartAt, Topic, TopicPartition,
};

use crate::client::connections::{Link, SOCKET_TIMEOUT};
use crate::client::{ClientTimer, any_broker};
use crate::mutation::Mutation;
use crate::node::{BrokerId, Effects, Name, Timer};
use crate::protocol::find_coordinator::CoordinatorType;
use crate::protocol::{
    Request, find_coordinator, heartbeat, join_group, leave_group, metadata, sync_group,
};
use crate::time::SimTime;

use super::assignor::{self, assign};
use super::wire::{MemberSubscription, decode_assignment, encode_assignment};
use super::{Consumer, Token};

/// librdkafka's pause before it asks for the coordinator, or joins, again.
const GROUP_RETRY: Duration = Duration::from_millis(100);

/// A member of a group, or one that only commits.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) group_id: Name,
    pub(super) group_instance_id: Option<Name>,
    /// Empty until the coordinator gave one.
    pub(super) member_id: Name,
    /// -1 outside of a generation.
    pub(super) generation: i32,
    pub(super) coordinator: Option<BrokerId>,
    is_finding: bool,
    attempt: u32,
    state: State,
    /// The member joins again as soon as it can.
    wants_rejoin: bool,
    heartbeat_in_flight: bool,
    session_ends: SimTime,
    session_is_watched: bool,
    is_leaving: bool,
    /// The application was too slow: the member joins again when it polls.
    pub(super) joins_at_poll: bool,
}

#[derive(Debug)]
enum State {
    /// Not in the group, or waiting to join.
    Out,
    /// Joining: with the members, if this one leads.
    Joining,
    /// Leading: waiting for the metadata of all topics.
    Leading {
        assignor: Assignor,
        members: Vec<assignor::Member>,
    },
    Syncing,
    /// In a generation; a guard may be pending.
    In {
        next: Next,
    },
}

/// What follows the pending guard.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Nothing: the generation goes on.
    Stay,
    /// Join again.
    Rejoin,
    /// Take these on, and join again (cooperative: what was to be revoked is free now).
    AssignAndRejoin(Vec<TopicPartition>),
}

impl Member {
    pub(super) fn new(group_id: Name, group_instance_id: Option<Name>) -> Self {
        Self {
            group_id,
            group_instance_id,
            member_id: Name::from(""),
            generation: -1,
            coordinator: None,
            is_finding: false,
            attempt: 0,
            state: State::Out,
            wants_rejoin: false,
            heartbeat_in_flight: false,
            session_ends: SimTime::ZERO,
            session_is_watched: false,
            is_leaving: false,
            joins_at_poll: false,
        }
    }
}

/// The coordinator.
impl Consumer {
    /// Asks for the coordinator, unless it is known or asked for.
    pub(super) fn want_coordinator(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(member) = &mut self.member else { return };
        if member.coordinator.is_some() || member.is_finding {
            return;
        }
        member.is_finding = true;
        member.attempt += 1;
        let broker = any_broker(&self.identity, &self.metadata.brokers, member.attempt);
        let request = Request::FindCoordinator(find_coordinator::Request {
            coordinator_type: CoordinatorType::Group,
            key: member.group_id.clone(),
        });
        let link = Link::coordinator(broker);
        let deadline = now + SOCKET_TIMEOUT;
        self.connections.send(now, link, Token::FindCoordinator, request, deadline, effects);
    }

    pub(super) fn found_coordinator(
        &mut self,
        now: SimTime,
        result: Result<BrokerId, ErrorKind>,
        effects: &mut Effects,
    ) {
        let Some(member) = &mut self.member else { return };
        member.is_finding = false;
        match result {
            Ok(broker) => {
                member.coordinator = Some(broker);
                self.join_if_out(now, effects);
            }
            Err(_) => self.find_coordinator_later(now, effects),
        }
    }

    pub(super) fn find_coordinator_later(&mut self, now: SimTime, effects: &mut Effects) {
        if let Some(member) = &mut self.member {
            member.is_finding = false;
            effects.set_timer(Timer::Client(ClientTimer::GroupRetry), now + GROUP_RETRY);
        }
    }

    /// The coordinator is not where it was thought to be.
    pub(super) fn coordinator_lost(&mut self, now: SimTime, effects: &mut Effects) {
        if let Some(member) = &mut self.member {
            member.coordinator = None;
            member.heartbeat_in_flight = false;
            self.find_coordinator_later(now, effects);
        }
    }

    /// A request to the coordinator was refused: look for it again if it is not the coordinator.
    pub(super) fn note_coordinator_error(
        &mut self,
        now: SimTime,
        kind: ErrorKind,
        effects: &mut Effects,
    ) {
        let is_elsewhere = matches!(
            kind,
            ErrorKind::NotCoordinator
                | ErrorKind::CoordinatorNotAvailable
                | ErrorKind::NetworkException
                | ErrorKind::TimedOut
        );
        if is_elsewhere {
            self.coordinator_lost(now, effects);
        } else {
            effects.set_timer(Timer::Client(ClientTimer::GroupRetry), now + GROUP_RETRY);
        }
    }

    pub(super) fn group_retry(&mut self, now: SimTime, effects: &mut Effects) {
        if self.member.as_ref().is_some_and(|member| member.coordinator.is_none()) {
            let is_needed = self.subscription.is_some()
                || !self.commits.is_idle()
                || !self.committed_calls.is_empty();
            if is_needed {
                self.want_coordinator(now, effects);
            }
        } else {
            self.join_if_out(now, effects);
        }
    }
}

/// Joining.
impl Consumer {
    /// The topics of the subscription are not what they were.
    pub(super) fn subscription_changed(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(member) = &mut self.member else { return };
        match member.state {
            State::Out => self.join_if_out(now, effects),
            State::In { .. } if self.rebalance.is_none() => self.rejoin(now, effects),
            State::In { .. } | State::Joining | State::Leading { .. } | State::Syncing => {
                member.wants_rejoin = true;
            }
        }
    }

    /// Joins, if this is a member that is out of the group and knows what it subscribes to.
    pub(super) fn join_if_out(&mut self, now: SimTime, effects: &mut Effects) {
        let is_subscribed = self.subscription.as_ref().is_some_and(|s| s.found.is_some());
        let Some(member) = &self.member else { return };
        let is_out = matches!(member.state, State::Out) && !member.joins_at_poll;
        if !is_subscribed || !is_out || self.rebalance.is_some() || self.closing.is_some() {
            return;
        }
        if member.coordinator.is_some() {
            self.join(now, effects);
        } else {
            self.want_coordinator(now, effects);
        }
    }

    fn join(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(topics) = self.subscription.as_ref().and_then(|s| s.found.as_ref()) else {
            return;
        };
        let topics = topics.keys().cloned().collect::<Vec<_>>();
        let is_cooperative = self.is_cooperative();
        let Some(member) = &mut self.member else { return };
        let Some(coordinator) = member.coordinator else {
            member.state = State::Out;
            return self.want_coordinator(now, effects);
        };
        let owned =
            if is_cooperative { self.partitions.keys().cloned().collect() } else { Vec::new() };
        let subscription = MemberSubscription { topics, owned, generation: member.generation };
        let metadata = subscription.encode();
        let protocols = self.config.assignors.iter();
        let request = Request::JoinGroup(join_group::Request {
            group_id: member.group_id.clone(),
            member_id: member.member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: self.client_id.clone(),
            session_timeout: self.config.session_timeout,
            rebalance_timeout: self.config.max_poll_interval,
            protocol_type: "consumer".into(),
            protocols: protocols.map(|a| (a.name().into(), metadata.clone())).collect(),
        });
        member.state = State::Joining;
        member.wants_rejoin = false;
        effects.cancel_timer(Timer::Client(ClientTimer::Heartbeat));
        let deadline = now + self.config.max_poll_interval + Duration::from_secs(5);
        let link = Link::coordinator(coordinator);
        self.connections.send(now, link, Token::JoinGroup, request, deadline, effects);
    }

    pub(super) fn rejoin_later(&mut self, now: SimTime, effects: &mut Effects) {
        if let Some(member) = &mut self.member {
            member.state = State::Out;
            effects.set_timer(Timer::Client(ClientTimer::GroupRetry), now + GROUP_RETRY);
        }
    }

    pub(super) fn joined(
        &mut self,
        now: SimTime,
        response: join_group::Response,
        effects: &mut Effects,
    ) {
        let Some(member) = &mut self.member else { return };
        if !matches!(member.state, State::Joining) {
            return;
        }
        let joined = match response.result {
            Ok(joined) => joined,
            Err(ErrorKind::MemberIdRequired) => {
                member.member_id = response.member_id;
                return self.join(now, effects);
            }
            Err(kind) => return self.join_refused(now, kind, effects),
        };
        member.member_id = response.member_id;
        member.generation = joined.generation;
        member.session_ends = now + self.config.session_timeout;
        let leads = joined.leader == member.member_id && !joined.skip_assignment;
        let assignor = self.config.assignors.iter().find(|a| a.name() == &*joined.protocol);
        match assignor.filter(|_| leads) {
            Some(assignor) => {
                let members = joined.members.into_iter().map(|joined| assignor::Member {
                    member_id: joined.member_id,
                    group_instance_id: joined.group_instance_id,
                    subscription: MemberSubscription::decode(&joined.metadata).unwrap_or_default(),
                });
                let members = members.collect();
                member.state = State::Leading { assignor: *assignor, members };
                self.ask_leader_metadata(now, effects);
            }
            None => self.sync(now, Vec::new(), effects),
        }
    }

    fn join_refused(&mut self, now: SimTime, kind: ErrorKind, effects: &mut Effects) {
        match kind {
            ErrorKind::UnknownMemberId => self.forget_member_id(),
            ErrorKind::FencedInstanceId => return self.fenced(effects),
            ErrorKind::IllegalGeneration | ErrorKind::RebalanceInProgress => {}
            kind if kind.recovery() == bus_core::Recovery::Retry => {
                self.note_coordinator_error(now, kind, effects);
            }
            kind => {
                let group_id = self.member.as_ref().map(|member| member.group_id.to_string());
                self.errors.push_back(
                    Error::new(kind, "the group refused the member")
                        .with_operation(bus_core::Operation::Poll)
                        .with_group_id(group_id.unwrap_or_default()),
                );
                self.rejoin_later(now, effects);
                let at = now + Duration::from_secs(1);
                return effects.set_timer(Timer::Client(ClientTimer::GroupRetry), at);
            }
        }
        self.rejoin_later(now, effects);
    }

    /// The leader asks for all topics that any member subscribes to: it may not know them all.
    fn ask_leader_metadata(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(State::Leading { members, .. }) = self.member.as_ref().map(|m| &m.state) else {
            return;
        };
        let topics = members.iter().flat_map(|member| member.subscription.topics.iter().cloned());
        let topics = topics.collect::<BTreeSet<_>>().into_iter().collect();
        self.metadata_attempt += 1;
        let broker = any_broker(&self.identity, &self.metadata.brokers, self.metadata_attempt);
        let request = Request::Metadata(metadata::Request { topics: Some(topics) });
        let deadline = now + SOCKET_TIMEOUT;
        let link = Link::data(broker);
        self.connections.send(now, link, Token::LeaderMetadata, request, deadline, effects);
    }

    /// Makes the assignment of the generation.
    pub(super) fn lead(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(member) = &mut self.member else { return };
        let State::Leading { assignor, members } = &member.state else { return };
        let topics = members.iter().flat_map(|member| &member.subscription.topics);
        let partitions = topics
            .filter_map(|topic| Some((topic.clone(), self.metadata.partitions(topic)?)))
            .collect::<BTreeMap<Topic, i32>>();
        let assignment = assign(*assignor, members, &partitions);
        let assignments =
            assignment.iter().map(|(id, mine)| (id.clone(), encode_assignment(mine))).collect();
        self.sync(now, assignments, effects);
    }

    fn sync(&mut self, now: SimTime, assignments: Vec<(Name, Bytes)>, effects: &mut Effects) {
        let Some(member) = &mut self.member else { return };
        member.state = State::Syncing;
        let Some(coordinator) = member.coordinator else {
            return self.rejoin_later(now, effects);
        };
        let request = Request::SyncGroup(sync_group::Request {
            group_id: member.group_id.clone(),
            generation: member.generation,
            member_id: member.member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            assignments,
        });
        let deadline = now + self.config.max_poll_interval + Duration::from_secs(5);
        let link = Link::coordinator(coordinator);
        self.connections.send(now, link, Token::SyncGroup, request, deadline, effects);
    }

    pub(super) fn synced(
        &mut self,
        now: SimTime,
        result: Result<Bytes, ErrorKind>,
        effects: &mut Effects,
    ) {
        let Some(member) = &mut self.member else { return };
        if !matches!(member.state, State::Syncing) {
            return;
        }
        match result {
            Ok(assignment) => {
                member.session_ends = now + self.config.session_timeout;
                member.heartbeat_in_flight = false;
                let mut assigned = decode_assignment(&assignment).unwrap_or_default();
                if self.mutation == Some(Mutation::EveryMemberGetsEveryRecord) {
                    assigned = self.all_partitions();
                }
                self.take_assignment(assigned);
                let heartbeat = now + self.config.heartbeat_interval;
                effects.set_timer(Timer::Client(ClientTimer::Heartbeat), heartbeat);
                self.watch_session(effects);
                self.watch_auto_commit(now, effects);
            }
            Err(ErrorKind::RebalanceInProgress) => self.join(now, effects),
            Err(kind) => self.join_refused(now, kind, effects),
        }
    }

    /// Shows the application what the assignment changes.
    fn take_assignment(&mut self, assigned: Vec<TopicPartition>) {
        let is_cooperative = self.is_cooperative();
        if !is_cooperative {
            return self.show(RebalanceKind::Assigned, assigned, Next::Stay);
        }
        let is_new = |tp: &&TopicPartition| !self.partitions.contains_key(*tp);
        let added = assigned.iter().filter(is_new).cloned().collect::<Vec<_>>();
        let is_gone = |tp: &&TopicPartition| !assigned.contains(tp);
        let gone = self.partitions.keys().filter(is_gone).cloned().collect::<Vec<_>>();
        if gone.is_empty() {
            self.show(RebalanceKind::Assigned, added, Next::Stay);
        } else {
            self.show(RebalanceKind::Revoked, gone, Next::AssignAndRejoin(added));
        }
    }

    fn show(&mut self, kind: RebalanceKind, partitions: Vec<TopicPartition>, next: Next) {
        self.rebalance = Some(Arc::new(Rebalance { kind, partitions }));
        if let Some(member) = &mut self.member {
            member.state = State::In { next };
        }
    }

    fn all_partitions(&self) -> Vec<TopicPartition> {
        let Some(found) = self.subscription.as_ref().and_then(|s| s.found.as_ref()) else {
            return Vec::new();
        };
        let all = found.iter().flat_map(|(topic, count)| {
            (0..*count).map(move |partition| TopicPartition::new(topic, partition))
        });
        all.collect()
    }

    fn is_cooperative(&self) -> bool {
        self.config.assignors.iter().any(|assignor| assignor.is_cooperative())
    }
}

/// In the group.
impl Consumer {
    pub(super) fn heartbeat(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(member) = &mut self.member else { return };
        if !matches!(member.state, State::In { .. }) {
            return;
        }
        let next = now + self.config.heartbeat_interval;
        effects.set_timer(Timer::Client(ClientTimer::Heartbeat), next);
        let Some(coordinator) = member.coordinator else {
            return self.want_coordinator(now, effects);
        };
        if member.heartbeat_in_flight || member.generation < 0 {
            return;
        }
        member.heartbeat_in_flight = true;
        let request = Request::Heartbeat(heartbeat::Request {
            group_id: member.group_id.clone(),
            generation: member.generation,
            member_id: member.member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
        });
        let deadline = now + self.config.session_timeout;
        let token = Token::Heartbeat(member.generation);
        let link = Link::coordinator(coordinator);
        self.connections.send(now, link, token, request, deadline, effects);
    }

    pub(super) fn heartbeat_answered(
        &mut self,
        now: SimTime,
        generation: i32,
        error: Option<ErrorKind>,
        effects: &mut Effects,
    ) {
        let Some(member) = &mut self.member else { return };
        if member.generation != generation || !matches!(member.state, State::In { .. }) {
            return;
        }
        member.heartbeat_in_flight = false;
        match error {
            None => member.session_ends = now + self.config.session_timeout,
            Some(ErrorKind::RebalanceInProgress) => {
                member.session_ends = now + self.config.session_timeout;
                if self.rebalance.is_none() {
                    self.rejoin(now, effects);
                }
            }
            Some(ErrorKind::UnknownMemberId) => {
                self.forget_member_id();
                self.lose(now, effects);
            }
            Some(ErrorKind::IllegalGeneration) => {
                member.generation = -1;
                self.lose(now, effects);
            }
            Some(ErrorKind::FencedInstanceId) => self.fenced(effects),
            Some(kind) => self.note_coordinator_error(now, kind, effects),
        }
    }

    fn watch_session(&mut self, effects: &mut Effects) {
        if let Some(member) = &mut self.member
            && !member.session_is_watched
        {
            member.session_is_watched = true;
            effects.set_timer(Timer::Client(ClientTimer::SessionTimeout), member.session_ends);
        }
    }

    /// No heartbeat was answered for the session timeout: the partitions are another's by now.
    pub(super) fn check_session(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(member) = &mut self.member else { return };
        member.session_is_watched = false;
        if !matches!(member.state, State::In { .. }) {
            return;
        }
        if member.session_ends > now {
            self.watch_session(effects);
        } else {
            self.forget_member_id();
            self.lose(now, effects);
        }
    }

    /// The group rebalances: eager members give everything up first.
    fn rejoin(&mut self, now: SimTime, effects: &mut Effects) {
        if self.is_cooperative() {
            self.join(now, effects);
        } else {
            let partitions = self.assignment();
            self.show(RebalanceKind::Revoked, partitions, Next::Rejoin);
        }
    }

    /// The membership is gone, and with it all partitions; an older guard is overtaken.
    fn lose(&mut self, now: SimTime, effects: &mut Effects) {
        effects.cancel_timer(Timer::Client(ClientTimer::Heartbeat));
        let partitions = self.assignment();
        if partitions.is_empty() {
            self.rebalance = None;
            if let Some(member) = &mut self.member {
                member.state = State::Out;
            }
            self.join_if_out(now, effects);
        } else {
            self.show(RebalanceKind::Lost, partitions, Next::Rejoin);
        }
    }

    /// Another member uses the same `group.instance.id`: nothing can be done with this one.
    fn fenced(&mut self, effects: &mut Effects) {
        let Some(member) = &mut self.member else { return };
        let message = "another member uses this group.instance.id now";
        let error = Error::new(ErrorKind::FencedInstanceId, message)
            .with_group_id(member.group_id.to_string());
        member.state = State::Out;
        member.generation = -1;
        self.subscription = None;
        self.rebalance = None;
        self.fatal = Some(error);
        self.drop_partitions(effects);
    }

    fn forget_member_id(&mut self) {
        if let Some(member) = &mut self.member {
            member.member_id = Name::from("");
            member.generation = -1;
        }
    }

    /// The application has taken note of a rebalance.
    pub(crate) fn complete_rebalance(
        &mut self,
        now: SimTime,
        completed: &Arc<Rebalance>,
        effects: &mut Effects,
    ) -> bus_core::Result<()> {
        if self.closing.is_some() {
            return Err(super::closed());
        }
        match &self.rebalance {
            Some(pending) if Arc::ptr_eq(pending, completed) => self.rebalance = None,
            Some(_) | None => return Ok(()),
        }
        match completed.kind {
            RebalanceKind::Assigned => {
                for topic_partition in &completed.partitions {
                    self.add_partition(topic_partition.clone(), StartAt::Committed);
                }
                self.want_metadata_of_assigned(now, effects);
            }
            RebalanceKind::Revoked => {
                self.commit_stored(now, Some(&completed.partitions), effects);
                self.remove_partitions(&completed.partitions);
            }
            RebalanceKind::Lost => self.remove_partitions(&completed.partitions),
        }
        self.go_on(now, effects);
        self.pump(now, effects);
        Ok(())
    }

    fn go_on(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(member) = &mut self.member else { return };
        let State::In { next } = &mut member.state else { return };
        match std::mem::replace(next, Next::Stay) {
            Next::Stay if member.wants_rejoin => self.rejoin(now, effects),
            Next::Stay => {}
            Next::Rejoin => {
                member.state = State::Out;
                member.joins_at_poll = false;
                self.join_if_out(now, effects);
            }
            Next::AssignAndRejoin(added) => {
                self.show(RebalanceKind::Assigned, added, Next::Rejoin);
            }
        }
    }

    fn remove_partitions(&mut self, gone: &[TopicPartition]) {
        for topic_partition in gone {
            self.partitions.remove(topic_partition);
        }
    }

    fn want_metadata_of_assigned(&mut self, now: SimTime, effects: &mut Effects) {
        let is_unknown = |tp: &TopicPartition| self.metadata.leader(tp).is_none();
        if self.partitions.keys().any(is_unknown) {
            self.want_metadata(now, effects);
        }
    }
}

/// Leaving.
impl Consumer {
    /// Leaves the group, if this is a member; a static one just stops (KIP-345).
    pub(super) fn leave(&mut self, now: SimTime, effects: &mut Effects) {
        self.rebalance = None;
        for timer in [
            ClientTimer::Heartbeat,
            ClientTimer::SessionTimeout,
            ClientTimer::MaxPollInterval,
            ClientTimer::GroupRetry,
        ] {
            effects.cancel_timer(Timer::Client(timer));
        }
        let Some(member) = &mut self.member else { return };
        member.state = State::Out;
        member.session_is_watched = false;
        member.generation = -1;
        let member_id = std::mem::replace(&mut member.member_id, Name::from(""));
        let Some(coordinator) = member.coordinator else { return };
        if member_id.is_empty() || member.group_instance_id.is_some() {
            return;
        }
        member.is_leaving = true;
        let request = Request::LeaveGroup(leave_group::Request {
            group_id: member.group_id.clone(),
            member_id,
            group_instance_id: None,
        });
        let deadline = now + Duration::from_secs(5);
        let link = Link::coordinator(coordinator);
        self.connections.send(now, link, Token::LeaveGroup, request, deadline, effects);
    }

    pub(super) fn left(&mut self) {
        if let Some(member) = &mut self.member {
            member.is_leaving = false;
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.is_leaving)
    }

    /// Leaves because the application is too slow; it joins again when it polls.
    pub(super) fn leave_until_poll(&mut self, now: SimTime, effects: &mut Effects) {
        self.leave(now, effects);
        if let Some(member) = &mut self.member {
            member.joins_at_poll = true;
        }
        self.lose(now, effects);
    }
}
