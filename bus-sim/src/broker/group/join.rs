//! JoinGroup: a member asks for a place in the next generation.
//!
//! - A dynamic member without id gets one, and `MemberIdRequired` (KIP-394).
//! - A static member without id replaces the one of its `group.instance.id` (KIP-345): in a stable
//!   group whose protocol stays the same, without a rebalance; a leader is told to skip the
//!   assignment (KIP-814).
//! - In a stable group the leader's join forces a rebalance; a follower with unchanged metadata
//!   gets the current generation.
//!
//! Absent: groups of the newer protocol (KIP-848) beside classic ones. See `docs/fidelity.md`.

use bus_core::{ErrorKind, Uuid};

use super::classic::{Group, Member, State};
use super::{Shard, Then, Turn};
use crate::broker::BrokerTimer;
use crate::broker::connections::Caller;
use crate::choice::Label;
use crate::node::Name;
use crate::protocol::Response;
use crate::protocol::join_group::{self, Joined, Request};

impl Shard {
    pub(super) fn join(&mut self, turn: &mut Turn<'_>, caller: Caller, request: Request) {
        let is_unknown = request.member_id.is_empty();
        let is_new = !self.groups.contains_key(&request.group_id);
        if is_new && !is_unknown {
            answer(turn, caller, Err(ErrorKind::UnknownMemberId), request.member_id);
            return;
        }
        if is_new {
            let id = Name::clone(&request.group_id);
            self.groups.insert(Name::clone(&id), Group::new(id, turn.now));
            self.watch_offsets(turn);
        }
        let writes = turn.writes.len();
        let Some(group) = self.groups.get_mut(&request.group_id) else { return };
        if !group.accepts(turn, &request.member_id) {
            group.remove(turn, &request.member_id);
            answer(turn, caller, Err(ErrorKind::GroupMaxSizeReached), "".into());
        } else if !group.supports(&request.protocol_type, &request.protocols) {
            let member_id = request.member_id;
            answer(turn, caller, Err(ErrorKind::InconsistentGroupProtocol), member_id);
        } else if is_unknown {
            group.join_new(turn, caller, request);
        } else {
            group.join_known(turn, caller, request);
        }
        if is_new && turn.writes.len() == writes {
            // The group exists from now on, even if nobody joins it in the end.
            turn.write(vec![group.record_of_new()], Then::Nothing);
        }
    }

    /// The replacement of a static member is durable: it learns where it is.
    pub(super) fn static_rejoined(
        &mut self,
        turn: &mut Turn<'_>,
        group_id: &Name,
        member_id: &Name,
    ) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        let joined =
            Joined { skip_assignment: group.is_leader(member_id), ..group.joined(member_id) };
        if let Some(member) = group.members.get_mut(member_id) {
            member.answer_join(turn, Ok(joined), member_id);
        }
    }
}

impl Shard {
    /// The replacement of a static member could not be written.
    pub(super) fn not_rejoined(
        &mut self,
        turn: &mut Turn<'_>,
        group_id: &Name,
        member_id: &Name,
        error: ErrorKind,
    ) {
        let group = self.groups.get_mut(group_id);
        if let Some(member) = group.and_then(|group| group.members.get_mut(member_id)) {
            member.answer_join(turn, Err(error), &"".into());
        }
    }
}

impl Group {
    /// Whether there is room for the member.
    fn accepts(&self, turn: &Turn<'_>, member_id: &Name) -> bool {
        let max_size = turn.config.broker.group_max_size;
        let member = self.members.get(member_id);
        match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                // Counting those that wait turns the last ones away when the limit was lowered.
                member.is_some_and(|member| member.awaiting_join.is_some())
                    || self.awaiting_join() < max_size
            }
            State::CompletingRebalance | State::Stable => {
                member.is_some() || self.members.len() < max_size
            }
        }
    }

    fn join_new(&mut self, turn: &mut Turn<'_>, caller: Caller, request: Request) {
        let member_id = self.draw_member_id(turn, caller, &request);
        let Some(instance) = &request.group_instance_id else {
            let timer = BrokerTimer::MemberSession {
                group_id: Name::clone(&self.id),
                member_id: Name::clone(&member_id),
            };
            turn.schedule(timer, turn.now + request.session_timeout);
            self.pending_joins.insert(Name::clone(&member_id));
            answer(turn, caller, Err(ErrorKind::MemberIdRequired), member_id);
            return;
        };
        match self.static_members.get(instance).cloned() {
            Some(old) => self.replace_static(turn, caller, &old, member_id, &request),
            None => self.add_member(turn, caller, member_id, &request),
        }
    }

    fn join_known(&mut self, turn: &mut Turn<'_>, caller: Caller, request: Request) {
        let member_id = Name::clone(&request.member_id);
        if self.pending_joins.contains(&member_id) {
            self.add_member(turn, caller, member_id, &request);
            return;
        }
        let instance = request.group_instance_id.as_ref();
        if let Err(error) = self.check_member(&member_id, instance) {
            answer(turn, caller, Err(error), member_id);
            return;
        }
        let is_unchanged = self.members[&member_id].protocols == request.protocols;
        let gets_current = match self.state {
            State::PreparingRebalance => false,
            // It may not have received the response.
            State::CompletingRebalance => is_unchanged,
            State::Stable => is_unchanged && !self.is_leader(&member_id),
            State::Empty => {
                answer(turn, caller, Err(ErrorKind::UnknownMemberId), member_id);
                return;
            }
        };
        if gets_current {
            let joined = self.joined(&member_id);
            answer(turn, caller, Ok(joined), member_id);
            return;
        }
        self.update_member(&member_id, caller, &request);
        self.rebalance_or_complete(turn);
    }

    fn add_member(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        member_id: Name,
        request: &Request,
    ) {
        if self.state == State::PreparingRebalance && self.is_initial {
            self.has_newcomer = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(Name::clone(&request.protocol_type));
        }
        self.add(Member::joining(Name::clone(&member_id), request, caller));
        if let Some(member) = self.members.get_mut(&member_id) {
            // It may be gone before it learns of its place; until then it cannot send heartbeats.
            member.deadline = turn.now + NEW_MEMBER_JOIN_TIMEOUT;
            member.watch(turn, &self.id);
        }
        self.rebalance_or_complete(turn);
    }

    fn update_member(&mut self, member_id: &Name, caller: Caller, request: &Request) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        member.protocols.clone_from(&request.protocols);
        member.rebalance_timeout = request.rebalance_timeout;
        member.session_timeout = request.session_timeout;
        member.awaiting_join = Some(caller);
    }

    /// Puts a new member in the place of the one with its static id.
    fn replace_static(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        old_id: &Name,
        new_id: Name,
        request: &Request,
    ) {
        let Some(mut member) = self.members.remove(old_id) else { return };
        // Whoever waits under the old id is fenced.
        member.answer_join(turn, Err(ErrorKind::FencedInstanceId), old_id);
        member.answer_sync(turn, Err(ErrorKind::FencedInstanceId));
        if member.timer.take().is_some() {
            let (group_id, member_id) = (Name::clone(&self.id), Name::clone(old_id));
            turn.cancel(BrokerTimer::MemberSession { group_id, member_id });
        }
        turn.tell_left(&self.id, old_id, "fenced");
        if self.is_leader(old_id) {
            self.leader = Some(Name::clone(&new_id));
        }
        self.static_members.extend(
            request.group_instance_id.clone().map(|instance| (instance, Name::clone(&new_id))),
        );
        self.pending_syncs.remove(old_id);
        member.id = Name::clone(&new_id);
        member.is_new = false;
        member.client_id = Name::clone(&request.client_id);
        let session_timeout = member.session_timeout;
        member.touch(turn, &self.id, session_timeout);
        self.members.insert(Name::clone(&new_id), member);
        self.update_member(&new_id, caller, request);
        match self.state {
            State::Stable if self.protocol == self.select_protocol() => {
                let record = self.record(|member| member.assignment.clone());
                let group_id = Name::clone(&self.id);
                turn.write(vec![record], Then::StaticRejoined { group_id, member_id: new_id });
            }
            State::Stable => self.rebalance_or_complete(turn),
            // The leader may know the old id already, and would assign to it.
            State::CompletingRebalance => self.prepare_rebalance(turn),
            State::PreparingRebalance | State::Empty => self.maybe_complete_join(turn),
        }
    }

    /// Draws a member id: the client id (or the static id) and a UUID.
    fn draw_member_id(&self, turn: &mut Turn<'_>, caller: Caller, request: &Request) -> Name {
        let count = turn.connections.count_member_id(caller.connection);
        let cause = (&request.group_id, &request.client_id, caller.connection, count);
        let draw = |half: u8| turn.choices.id(Label::MemberId, (cause, half));
        let (high, low) = (draw(0), draw(1));
        let bits = (u128::from(high) << 64) | u128::from(low);
        let uuid = uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid();
        let prefix = request.group_instance_id.as_ref().unwrap_or(&request.client_id);
        member_id(prefix, uuid)
    }
}

fn member_id(prefix: &str, uuid: Uuid) -> Name {
    let mut buffer = Uuid::encode_buffer();
    let uuid = uuid.hyphenated().encode_lower(&mut buffer);
    let mut id = String::with_capacity(prefix.len() + 1 + uuid.len());
    id.push_str(prefix);
    id.push('-');
    id.push_str(uuid);
    id.into()
}

fn answer(turn: &mut Turn<'_>, caller: Caller, result: Result<Joined, ErrorKind>, member_id: Name) {
    let response = join_group::Response { result, member_id };
    turn.respond(caller, Response::JoinGroup(response));
}

/// How long a new member may wait in a rebalance before it has to ask again.
const NEW_MEMBER_JOIN_TIMEOUT: std::time::Duration = std::time::Duration::from_mins(5);
