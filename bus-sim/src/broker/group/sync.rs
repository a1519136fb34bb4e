//! SyncGroup: the leader's assignment makes the generation durable, and every member gets its part.

use std::collections::BTreeMap;

use bus_core::{Bytes, ErrorKind};

use super::classic::{Group, Member, State};
use super::{Shard, Then, Turn};
use crate::broker::connections::Caller;
use crate::mutation::Mutation;
use crate::node::Name;
use crate::protocol::Response;
use crate::protocol::sync_group::{self, Request};

impl Shard {
    pub(super) fn sync(&mut self, turn: &mut Turn<'_>, caller: Caller, request: Request) {
        let group = self.groups.get_mut(&request.group_id);
        let result = match group {
            Some(group) if group.state != State::Empty => group.sync(turn, caller, request),
            Some(_) | None => Some(Err(ErrorKind::UnknownMemberId)),
        };
        if let Some(result) = result {
            turn.respond(caller, Response::SyncGroup(sync_group::Response { result }));
        }
    }

    /// The assignment of a generation is durable: the members that wait learn theirs.
    pub(super) fn assigned(&mut self, turn: &mut Turn<'_>, group_id: &Name, generation: i32) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        if group.state != State::Stable || group.generation != generation {
            return;
        }
        turn.tell_state(group);
        for member in group.members.values_mut() {
            let assignment = assignment(turn, member);
            if member.answer_sync(turn, Ok(assignment)) {
                let timeout = member.session_timeout;
                member.touch(turn, &group.id, timeout);
            }
        }
    }
}

impl Shard {
    /// The assignment of a generation could not be written: the members that wait are told, and
    /// another rebalance begins.
    pub(super) fn not_assigned(
        &mut self,
        turn: &mut Turn<'_>,
        group_id: &Name,
        generation: i32,
        error: ErrorKind,
    ) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        if group.state != State::CompletingRebalance || group.generation != generation {
            return;
        }
        for member in group.members.values_mut() {
            member.assignment = Bytes::new();
            if member.answer_sync(turn, Err(error)) {
                let timeout = member.session_timeout;
                member.touch(turn, &group.id, timeout);
            }
        }
        group.rebalance_or_complete(turn);
    }
}

impl Group {
    /// Handles a sync; `None` if it waits.
    fn sync(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        request: Request,
    ) -> Option<Result<Bytes, ErrorKind>> {
        let member_id = &request.member_id;
        if let Err(error) = self.check_member(member_id, request.group_instance_id.as_ref()) {
            return Some(Err(error));
        }
        if request.generation != self.generation {
            return Some(Err(ErrorKind::IllegalGeneration));
        }
        match self.state {
            State::Empty => Some(Err(ErrorKind::UnknownMemberId)),
            State::PreparingRebalance => Some(Err(ErrorKind::RebalanceInProgress)),
            State::CompletingRebalance => {
                self.pending_syncs.remove(member_id);
                let is_leader = self.is_leader(member_id);
                if let Some(member) = self.members.get_mut(member_id) {
                    member.awaiting_sync = Some(caller);
                }
                if is_leader {
                    let assignments: BTreeMap<Name, Bytes> =
                        request.assignments.into_iter().collect();
                    let record = self
                        .record(|member| assignments.get(&member.id).cloned().unwrap_or_default());
                    let (group_id, generation) = (Name::clone(&self.id), self.generation);
                    turn.write(vec![record], Then::Assigned { group_id, generation });
                }
                None
            }
            State::Stable => {
                self.pending_syncs.remove(member_id);
                let member = self.members.get(member_id);
                Some(Ok(member.map_or_else(Bytes::new, |member| assignment(turn, member))))
            }
        }
    }
}

/// The assignment that a member gets.
fn assignment(turn: &Turn<'_>, member: &Member) -> Bytes {
    let is_stale = turn.config.mutation == Some(Mutation::StaleAssignment);
    if is_stale && !member.assignment_before.is_empty() {
        member.assignment_before.clone()
    } else {
        member.assignment.clone()
    }
}
