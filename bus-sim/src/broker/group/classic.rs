//! A group of the classic protocol: its state, its members, and what may follow what.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bus_core::{Bytes, ErrorKind, GroupState, Timestamp, Topic, TopicPartition};

use super::Turn;
use super::record::{GroupRecord, GroupValue, MemberValue};
use super::transactional::{PendingOffsets, StoredOffset};
use crate::broker::BrokerTimer;
use crate::broker::connections::Caller;
use crate::node::Name;
use crate::protocol::join_group::{JoinedMember, Response as JoinResponse};
use crate::protocol::{Response, join_group, sync_group};
use crate::time::SimTime;

/// The state of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No members; offsets may remain.
    Empty,
    /// Waiting for the members to join.
    PreparingRebalance,
    /// Waiting for the assignment of the leader.
    CompletingRebalance,
    /// Every member has its assignment.
    Stable,
}

impl State {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }

    pub(super) const fn described(self) -> GroupState {
        match self {
            Self::Empty => GroupState::Empty,
            Self::PreparingRebalance => GroupState::PreparingRebalance,
            Self::CompletingRebalance => GroupState::CompletingRebalance,
            Self::Stable => GroupState::Stable,
        }
    }
}

/// A group.
#[derive(Debug)]
pub(in crate::broker) struct Group {
    pub(super) id: Name,
    pub(super) state: State,
    /// Whether the rebalance that is prepared began with an empty group.
    pub(super) is_initial: bool,
    /// Since when it is in its state.
    pub(super) since: Timestamp,
    pub(super) generation: i32,
    /// `None` for a group that only stores offsets.
    pub(super) protocol_type: Option<Name>,
    pub(super) protocol: Option<Name>,
    pub(super) leader: Option<Name>,
    pub(super) members: BTreeMap<Name, Member>,
    /// Which member has which static id.
    pub(super) static_members: BTreeMap<Name, Name>,
    /// Ids that were given out and have not joined.
    pub(super) pending_joins: BTreeSet<Name>,
    /// Members that have not synced in this generation.
    pub(super) pending_syncs: BTreeSet<Name>,
    /// In an initial rebalance: a member joined since the delay began.
    pub(super) has_newcomer: bool,
    /// In an initial rebalance: the delay now, and what is left after it.
    pub(super) delay: (Duration, Duration),
    /// What was committed, by partition. Durable.
    pub(super) offsets: BTreeMap<TopicPartition, StoredOffset>,
    /// What transactions are about to commit. Durable.
    pub(super) pending_offsets: PendingOffsets,
}

/// A member of a group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: Name,
    pub(super) group_instance_id: Option<Name>,
    pub(super) client_id: Name,
    pub(super) rebalance_timeout: Duration,
    pub(super) session_timeout: Duration,
    pub(super) protocols: Vec<(Name, Bytes)>,
    pub(super) assignment: Bytes,
    /// The assignment of the generation before, which only a planted bug gives out.
    pub(super) assignment_before: Bytes,
    /// Who waits for the rebalance to go on.
    pub(super) awaiting_join: Option<Caller>,
    /// Who waits for the assignment.
    pub(super) awaiting_sync: Option<Caller>,
    /// It has not seen the end of its first rebalance.
    pub(super) is_new: bool,
    /// When its session ends.
    pub(super) deadline: SimTime,
    /// When its timer comes, if it is set: not after the deadline.
    pub(super) timer: Option<SimTime>,
}

impl Member {
    pub(super) fn joining(id: Name, request: &join_group::Request, caller: Caller) -> Self {
        Self {
            id,
            group_instance_id: request.group_instance_id.clone(),
            client_id: Name::clone(&request.client_id),
            rebalance_timeout: request.rebalance_timeout,
            session_timeout: request.session_timeout,
            protocols: request.protocols.clone(),
            assignment: Bytes::new(),
            assignment_before: Bytes::new(),
            awaiting_join: Some(caller),
            awaiting_sync: None,
            is_new: true,
            deadline: SimTime::ZERO,
            timer: None,
        }
    }

    fn loaded(value: MemberValue, protocol: Option<&Name>) -> Self {
        let protocols = protocol.map(|name| (Name::clone(name), value.subscription));
        Self {
            id: value.member_id,
            group_instance_id: value.group_instance_id,
            client_id: value.client_id,
            rebalance_timeout: value.rebalance_timeout,
            session_timeout: value.session_timeout,
            protocols: protocols.into_iter().collect(),
            assignment_before: value.assignment.clone(),
            assignment: value.assignment,
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
            deadline: SimTime::ZERO,
            timer: None,
        }
    }

    /// The metadata for a protocol.
    pub(super) fn metadata(&self, protocol: Option<&Name>) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| Some(name) == protocol);
        found.map_or_else(Bytes::new, |(_, metadata)| metadata.clone())
    }

    pub(super) fn supports(&self, protocol: &Name) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// The member was heard of: its session ends `timeout` from now. The timer is moved only if it
    /// would come too late; if it comes too early, it is set again then.
    pub(super) fn touch(&mut self, turn: &mut Turn<'_>, group_id: &Name, timeout: Duration) {
        self.deadline = turn.now + timeout;
        if self.timer.is_none_or(|timer| timer > self.deadline) {
            self.watch(turn, group_id);
        }
    }

    /// Sets the timer to the end of the session.
    pub(super) fn watch(&mut self, turn: &mut Turn<'_>, group_id: &Name) {
        self.timer = Some(self.deadline);
        let (group_id, member_id) = (Name::clone(group_id), Name::clone(&self.id));
        turn.schedule(BrokerTimer::MemberSession { group_id, member_id }, self.deadline);
    }

    /// Members that wait for a rebalance need no heartbeats, except new ones: they might be gone.
    pub(super) const fn needs_no_heartbeat(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    pub(super) fn answer_join(
        &mut self,
        turn: &mut Turn<'_>,
        result: Result<join_group::Joined, ErrorKind>,
        member_id: &Name,
    ) {
        if let Some(caller) = self.awaiting_join.take() {
            let response = JoinResponse { result, member_id: Name::clone(member_id) };
            turn.respond(caller, Response::JoinGroup(response));
        }
    }

    /// Answers a waiting sync. Returns whether there was one.
    pub(super) fn answer_sync(
        &mut self,
        turn: &mut Turn<'_>,
        result: Result<Bytes, ErrorKind>,
    ) -> bool {
        let Some(caller) = self.awaiting_sync.take() else { return false };
        turn.respond(caller, Response::SyncGroup(sync_group::Response { result }));
        true
    }
}

impl Group {
    pub(super) fn new(id: Name, now: SimTime) -> Self {
        Self {
            id,
            state: State::Empty,
            is_initial: false,
            since: now.timestamp(),
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_joins: BTreeSet::new(),
            pending_syncs: BTreeSet::new(),
            has_newcomer: false,
            delay: (Duration::ZERO, Duration::ZERO),
            offsets: BTreeMap::new(),
            pending_offsets: PendingOffsets::new(),
        }
    }

    pub(super) fn transition(&mut self, turn: &mut Turn<'_>, state: State) {
        self.enter(turn.now, state);
        turn.tell_state(self);
    }

    fn enter(&mut self, now: SimTime, state: State) {
        self.is_initial = self.state == State::Empty;
        self.state = state;
        self.since = now.timestamp();
    }

    /// The record of this generation, with these assignments.
    pub(super) fn record(&self, assignment: impl Fn(&Member) -> Bytes) -> GroupRecord {
        let member = |member: &Member| MemberValue {
            member_id: Name::clone(&member.id),
            group_instance_id: member.group_instance_id.clone(),
            client_id: Name::clone(&member.client_id),
            rebalance_timeout: member.rebalance_timeout,
            session_timeout: member.session_timeout,
            subscription: member.metadata(self.protocol.as_ref()),
            assignment: assignment(member),
        };
        let value = GroupValue {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            since: self.since,
            members: self.members.values().map(member).collect(),
        };
        GroupRecord::Group { group_id: Name::clone(&self.id), value: Some(value) }
    }

    /// Learns a record that this coordinator wrote. The group is ahead of its records; what it
    /// waits for is the assignments of its generation.
    pub(super) fn replay(&mut self, now: SimTime, value: GroupValue) {
        if self.state != State::CompletingRebalance || self.generation != value.generation {
            return;
        }
        for member in value.members {
            if let Some(known) = self.members.get_mut(&member.member_id) {
                known.assignment_before =
                    std::mem::replace(&mut known.assignment, member.assignment);
            }
        }
        self.enter(now, State::Stable);
        self.since = value.since;
    }

    /// Learns a record that is read while the coordinator loads: the group is what it says.
    pub(super) fn load(&mut self, now: SimTime, value: GroupValue) {
        let state = if value.members.is_empty() { State::Empty } else { State::Stable };
        let instance = |member: &MemberValue| {
            let instance = member.group_instance_id.clone()?;
            Some((instance, Name::clone(&member.member_id)))
        };
        *self = Self {
            state,
            since: value.since,
            generation: value.generation,
            protocol_type: value.protocol_type,
            leader: value.leader,
            static_members: value.members.iter().filter_map(instance).collect(),
            members: value
                .members
                .into_iter()
                .map(|member| Member::loaded(member, value.protocol.as_ref()))
                .map(|member| (Name::clone(&member.id), member))
                .collect(),
            protocol: value.protocol,
            offsets: std::mem::take(&mut self.offsets),
            pending_offsets: std::mem::take(&mut self.pending_offsets),
            ..Self::new(Name::clone(&self.id), now)
        };
    }

    /// Whether a member with these protocols fits in.
    pub(super) fn supports(&self, protocol_type: &Name, protocols: &[(Name, Bytes)]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_ref() == Some(protocol_type)
            && protocols.iter().any(|(name, _)| self.is_candidate(name))
    }

    /// Whether all members support a protocol.
    fn is_candidate(&self, protocol: &Name) -> bool {
        self.members.values().all(|member| member.supports(protocol))
    }

    /// The protocol with the most votes: each member votes for the first of its own that all
    /// support.
    pub(super) fn select_protocol(&self) -> Option<Name> {
        let mut votes = BTreeMap::<&Name, usize>::new();
        for member in self.members.values() {
            let vote = member.protocols.iter().find(|(name, _)| self.is_candidate(name));
            if let Some((name, _)) = vote {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().max()?;
        votes.iter().find(|(_, count)| *count == most).map(|(name, _)| Name::clone(name))
    }

    /// Checks that a member is one, and not replaced by another with its static id.
    pub(super) fn check_member(
        &self,
        member_id: &Name,
        group_instance_id: Option<&Name>,
    ) -> Result<(), ErrorKind> {
        if let Some(instance) = group_instance_id {
            match self.static_members.get(instance) {
                None => return Err(ErrorKind::UnknownMemberId),
                Some(known) if known != member_id => return Err(ErrorKind::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorKind::UnknownMemberId) }
    }

    pub(super) fn is_leader(&self, member_id: &Name) -> bool {
        self.leader.as_ref() == Some(member_id)
    }

    pub(super) fn awaiting_join(&self) -> usize {
        self.members.values().filter(|member| member.awaiting_join.is_some()).count()
    }

    pub(super) fn all_have_joined(&self) -> bool {
        self.pending_joins.is_empty()
            && self.members.values().all(|member| member.awaiting_join.is_some())
    }

    /// The longest rebalance timeout of the members.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    /// A place in this generation; the leader sees all members.
    pub(super) fn joined(&self, member_id: &Name) -> join_group::Joined {
        let joined = |member: &Member| JoinedMember {
            member_id: Name::clone(&member.id),
            group_instance_id: member.group_instance_id.clone(),
            metadata: member.metadata(self.protocol.as_ref()),
        };
        let members = if self.is_leader(member_id) {
            self.members.values().map(joined).collect()
        } else {
            Vec::new()
        };
        join_group::Joined {
            generation: self.generation,
            protocol: self.protocol.clone().unwrap_or_else(|| "".into()),
            leader: self.leader.clone().unwrap_or_else(|| "".into()),
            members,
            skip_assignment: false,
        }
    }

    pub(super) fn add(&mut self, member: Member) {
        if self.members.is_empty() {
            self.leader = None;
        }
        if let Some(instance) = member.group_instance_id.clone() {
            self.static_members.insert(instance, Name::clone(&member.id));
        }
        self.leader.get_or_insert_with(|| Name::clone(&member.id));
        self.pending_joins.remove(&member.id);
        self.members.insert(Name::clone(&member.id), member);
    }

    /// Removes a member or a pending id, and its timer.
    pub(super) fn remove(&mut self, turn: &mut Turn<'_>, member_id: &Name) {
        let member = self.members.remove(member_id);
        let was_pending = self.pending_joins.remove(member_id);
        if was_pending || member.as_ref().is_some_and(|member| member.timer.is_some()) {
            let (group_id, member_id) = (Name::clone(&self.id), Name::clone(member_id));
            turn.cancel(BrokerTimer::MemberSession { group_id, member_id });
        }
        if let Some(instance) = member.and_then(|member| member.group_instance_id) {
            self.static_members.remove(&instance);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending_syncs.remove(member_id);
    }

    /// The topics that the members of a consumer group subscribe to; `None` if that is not known.
    pub(super) fn subscribed_topics(&self) -> Option<BTreeSet<Topic>> {
        if self.protocol_type.as_deref() != Some("consumer") {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_ref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscription(&member.metadata(Some(protocol)))?);
        }
        Some(topics)
    }
}

/// The topics of a subscription in the form of Kafka's consumers (version, then names).
fn subscription(metadata: &[u8]) -> Option<Vec<Topic>> {
    fn number<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (number, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(*number)
    }
    let mut bytes = metadata;
    let _version = i16::from_be_bytes(number(&mut bytes)?);
    let count = i32::from_be_bytes(number(&mut bytes)?);
    let mut topics = Vec::new();
    for _ in 0..count {
        let len = usize::try_from(i16::from_be_bytes(number(&mut bytes)?)).ok()?;
        let (name, rest) = bytes.split_at_checked(len)?;
        topics.push(Topic::from(std::str::from_utf8(name).ok()?));
        bytes = rest;
    }
    Some(topics)
}

impl Group {
    /// The group as its record would be; `None` while it rebalances.
    pub(in crate::broker) fn snapshot(&self) -> Option<GroupRecord> {
        let is_at_rest = matches!(self.state, State::Empty | State::Stable);
        is_at_rest.then(|| self.record(|member| member.assignment.clone()))
    }

    #[cfg(test)]
    pub(in crate::broker) fn leader(&self) -> Option<Name> {
        self.leader.clone()
    }

    pub(in crate::broker) const fn offsets(&self) -> &BTreeMap<TopicPartition, StoredOffset> {
        &self.offsets
    }

    pub(in crate::broker) const fn pending_offsets(&self) -> &PendingOffsets {
        &self.pending_offsets
    }
}
