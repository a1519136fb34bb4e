//! Joining a group: the join, the assignment if this member leads, and the sync.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Assignor, Bytes, Error, ErrorKind, Rebalance, RebalanceKind, Topic, TopicPartition,
};

use crate::client::ClientTimer;
use crate::client::connections::Link;
use crate::mutation::Mutation;
use crate::node::{Effects, Name, Timer};
use crate::protocol::{Request, join_group, metadata, sync_group};
use crate::time::SimTime;

use super::super::assignor::{self, Claims, assign};
use super::super::wire::{MemberSubscription, decode_assignment, encode_assignment};
use super::super::{Consumer, Token};
use super::{GROUP_RETRY, Next, State};

impl Consumer {
    /// The topics of the subscription are not what they were.
    pub(in crate::client::consumer) fn subscription_changed(
        &mut self,
        now: SimTime,
        effects: &mut Effects,
    ) {
        let Some(member) = &mut self.member else { return };
        match member.state {
            State::Out => self.join_if_out(now, effects),
            State::In { .. } if self.rebalance.is_none() => {
                let given_up = self.given_up();
                if given_up.is_empty() {
                    self.rejoin(now, effects);
                } else {
                    self.show(RebalanceKind::Revoked, given_up, Next::Rejoin);
                }
            }
            State::In { .. } | State::Joining | State::Leading { .. } | State::Syncing => {
                member.wants_rejoin = true;
            }
        }
    }

    /// What a cooperative member has of topics that it does not subscribe to any more: it gives
    /// that up before it joins again.
    fn given_up(&self) -> Vec<TopicPartition> {
        let found = self.subscription.as_ref().and_then(|s| s.found.as_ref());
        let is_gone = |tp: &&TopicPartition| found.is_some_and(|f| !f.contains_key(&tp.topic));
        let is_cooperative = self.is_cooperative();
        self.partitions.keys().filter(is_gone).filter(|_| is_cooperative).cloned().collect()
    }

    /// Joins, if this is a member that is out of the group and knows what it subscribes to.
    pub(in crate::client::consumer) fn join_if_out(&mut self, now: SimTime, effects: &mut Effects) {
        let is_subscribed = self.subscription.as_ref().is_some_and(|s| s.found.is_some());
        let Some(member) = &self.member else { return };
        let is_out = matches!(member.state, State::Out) && !member.joins_at_poll;
        if !is_subscribed || !is_out || self.rebalance.is_some() || self.closing.is_some() {
            return;
        }
        if !self.commits.is_idle() {
            self.commits.holds_join = true;
            return;
        }
        if member.coordinator.is_some() {
            self.join(now, effects);
        } else {
            self.want_coordinator(now, effects);
        }
    }

    pub(super) fn join(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(topics) = self.subscription.as_ref().and_then(|s| s.found.as_ref()) else {
            return;
        };
        let topics = topics.keys().cloned().collect::<Vec<_>>();
        let is_cooperative = self.is_cooperative();
        let Some(member) = &mut self.member else { return };
        if topics.is_empty() {
            // A member waits with joining until there is something to read.
            member.state = State::Out;
            return;
        }
        let Some(coordinator) = member.coordinator else {
            member.state = State::Out;
            return self.want_coordinator(now, effects);
        };
        // An eager member owns nothing when it joins, so its generation says nothing. What a
        // cooperative one owns is of the last assignment that it was given, not of a generation
        // that it joined without being given one.
        let is_dated = is_cooperative && self.policy.dates_claims && member.generation >= 0;
        let generation = if is_dated { member.assigned_generation } else { -1 };
        let owned =
            if is_cooperative { self.partitions.keys().cloned().collect() } else { Vec::new() };
        let subscription = MemberSubscription { topics, owned, generation };
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

    pub(in crate::client::consumer) fn rejoin_later(
        &mut self,
        now: SimTime,
        effects: &mut Effects,
    ) {
        if let Some(member) = &mut self.member {
            member.state = State::Out;
            effects.set_timer(Timer::Client(ClientTimer::GroupRetry), now + GROUP_RETRY);
        }
    }

    pub(in crate::client::consumer) fn joined(
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
        member.last_generation = joined.generation;
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
        let request = Request::Metadata(metadata::Request { topics: Some(topics) });
        let (token, deadline) = (Token::LeaderMetadata, self.connections.deadline(now));
        let brokers = &self.metadata.brokers;
        self.connections.send_to_any(now, brokers, token, request, deadline, effects);
    }

    /// Makes the assignment of the generation.
    pub(in crate::client::consumer) fn lead(&mut self, now: SimTime, effects: &mut Effects) {
        let Some(member) = &mut self.member else { return };
        let State::Leading { assignor, members } = &member.state else { return };
        let is_hasty = self.mutation == Some(Mutation::HandedOverUnrevoked);
        let assignor = match assignor {
            Assignor::CooperativeSticky if is_hasty => Assignor::RoundRobin,
            assignor => *assignor,
        };
        let topics = members.iter().flat_map(|member| &member.subscription.topics);
        let partitions = topics
            .filter_map(|topic| Some((topic.clone(), self.metadata.partitions(topic)?)))
            .collect::<BTreeMap<Topic, i32>>();
        let is_dated = self.policy.dates_claims;
        let claims = if is_dated { Claims::Dated } else { Claims::Trusted };
        let assignment = assign(assignor, members, &partitions, claims);
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

    pub(in crate::client::consumer) fn synced(
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
                member.assigned_generation = member.generation;
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
        let is_shown_again = self.mutation == Some(Mutation::AssignedAgain);
        let is_new = |tp: &&TopicPartition| is_shown_again || !self.partitions.contains_key(*tp);
        let added = assigned.iter().filter(is_new).cloned().collect::<Vec<_>>();
        let is_gone = |tp: &&TopicPartition| !assigned.contains(tp);
        let gone = self.partitions.keys().filter(is_gone).cloned().collect::<Vec<_>>();
        if gone.is_empty() {
            self.show(RebalanceKind::Assigned, added, Next::Stay);
        } else {
            self.show(RebalanceKind::Revoked, gone, Next::AssignAndRejoin(added));
        }
    }

    pub(super) fn show(
        &mut self,
        kind: RebalanceKind,
        partitions: Vec<TopicPartition>,
        next: Next,
    ) {
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

    pub(in crate::client::consumer) fn is_cooperative(&self) -> bool {
        self.config.assignors.iter().any(|assignor| assignor.is_cooperative())
    }
}
