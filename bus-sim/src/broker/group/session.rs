//! Heartbeat, LeaveGroup, and the end of sessions.
//!
//! Simplified: LeaveGroup names one member.

use bus_core::ErrorKind;

use super::classic::{Group, State};
use super::{Shard, Turn};
use crate::broker::connections::Caller;
use crate::mutation::Mutation;
use crate::node::Name;
use crate::protocol::{Response, heartbeat, leave_group};

impl Shard {
    pub(super) fn heartbeat(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        request: &heartbeat::Request,
    ) {
        let group = self.groups.get_mut(&request.group_id);
        let error = match group {
            Some(group) => group.heartbeat(turn, request).err(),
            None => Some(ErrorKind::UnknownMemberId),
        };
        turn.respond_when_written(caller, Response::Heartbeat(heartbeat::Response { error }));
    }

    pub(super) fn leave(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        request: &leave_group::Request,
    ) {
        let group = self.groups.get_mut(&request.group_id);
        let error = match group {
            Some(group) => group.leave(turn, request).err(),
            None => Some(ErrorKind::UnknownMemberId),
        };
        turn.respond_when_written(caller, Response::LeaveGroup(leave_group::Response { error }));
    }

    /// The timer of a member, or of an id that was given out, has come.
    pub(in crate::broker) fn session_due(
        &mut self,
        turn: &mut Turn<'_>,
        group_id: &Name,
        member_id: &Name,
    ) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        if group.pending_joins.remove(member_id) {
            group.complete_join_if_all(turn);
            return;
        }
        let Some(member) = group.members.get_mut(member_id) else { return };
        member.timer = None;
        if turn.now < member.deadline {
            // It was heard of in the meantime.
            member.watch(turn, group_id);
        } else if !member.needs_no_heartbeat()
            && turn.config.mutation != Some(Mutation::SessionNeverExpires)
        {
            group.remove_member(turn, member_id, "session expired");
            match group.state {
                State::Empty => {}
                // As in Kafka, an expiry also ends the delay of a first rebalance.
                State::PreparingRebalance => group.complete_join_if_all(turn),
                State::CompletingRebalance | State::Stable => group.rebalance_or_complete(turn),
            }
        }
    }
}

impl Group {
    fn heartbeat(
        &mut self,
        turn: &mut Turn<'_>,
        request: &heartbeat::Request,
    ) -> Result<(), ErrorKind> {
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation != self.generation {
            return Err(ErrorKind::IllegalGeneration);
        }
        if turn.config.mutation != Some(Mutation::HeartbeatNotCounted) {
            self.touch_member(turn, &request.member_id);
        }
        match self.state {
            State::Empty => Err(ErrorKind::UnknownMemberId),
            State::PreparingRebalance => Err(ErrorKind::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// A member was heard of.
    pub(super) fn touch_member(&mut self, turn: &mut Turn<'_>, member_id: &Name) {
        if let Some(member) = self.members.get_mut(member_id) {
            let timeout = member.session_timeout;
            member.touch(turn, &self.id, timeout);
        }
    }

    fn leave(
        &mut self,
        turn: &mut Turn<'_>,
        request: &leave_group::Request,
    ) -> Result<(), ErrorKind> {
        let instance = request.group_instance_id.as_ref();
        let member_id = if request.member_id.is_empty() {
            // Administration names a static member by its static id alone.
            let known = instance.and_then(|instance| self.static_members.get(instance));
            known.cloned().ok_or(ErrorKind::UnknownMemberId)?
        } else if self.pending_joins.contains(&request.member_id) {
            self.remove(turn, &request.member_id);
            self.maybe_complete_join(turn);
            return Ok(());
        } else {
            self.check_member(&request.member_id, instance)?;
            Name::clone(&request.member_id)
        };
        self.remove_member(turn, &member_id, "left");
        match self.state {
            State::Empty => {}
            State::PreparingRebalance => self.maybe_complete_join(turn),
            State::CompletingRebalance | State::Stable => self.rebalance_or_complete(turn),
        }
        Ok(())
    }

    /// Removes a member, and answers what it waits for, so that it joins anew if it is alive.
    fn remove_member(&mut self, turn: &mut Turn<'_>, member_id: &Name, reason: &'static str) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.answer_join(turn, Err(ErrorKind::UnknownMemberId), &"".into());
            member.answer_sync(turn, Err(ErrorKind::UnknownMemberId));
        }
        self.remove(turn, member_id);
        turn.tell_left(&self.id, member_id, reason);
    }
}
