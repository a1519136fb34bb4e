//! Rebalances of a classic group: preparing (members join), completing (the leader assigns).
//!
//! - A rebalance waits for all members, for the longest of their rebalance timeouts; then dynamic
//!   members that have not joined are removed, static ones stay.
//! - The first rebalance of an empty group waits `group.initial.rebalance.delay.ms`, again whenever
//!   somebody joined, up to the rebalance timeout.
//! - Who has joined but not synced within the rebalance timeout is removed.

use bus_core::{Bytes, ErrorKind};

use super::classic::{Group, State};
use super::record::{GroupRecord, GroupValue};
use super::{Shard, Then, Turn};
use crate::broker::BrokerTimer;
use crate::node::Name;

impl Shard {
    /// The timer of the rebalance that is prepared has come.
    pub(in crate::broker) fn join_due(&mut self, turn: &mut Turn<'_>, group_id: &Name) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        if group.state != State::PreparingRebalance {
            return;
        }
        let (delay, remaining) = group.delay;
        if group.is_initial && group.has_newcomer && !remaining.is_zero() {
            group.has_newcomer = false;
            let next = turn.config.broker.group_initial_rebalance_delay.min(remaining);
            group.delay = (next, remaining.saturating_sub(delay));
            turn.schedule(BrokerTimer::Join { group_id: Name::clone(group_id) }, turn.now + next);
        } else {
            group.complete_join(turn);
        }
    }

    /// The timer for those that have not synced has come.
    pub(in crate::broker) fn sync_due(&mut self, turn: &mut Turn<'_>, group_id: &Name) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        if !matches!(group.state, State::CompletingRebalance | State::Stable)
            || group.pending_syncs.is_empty()
        {
            return;
        }
        for member_id in std::mem::take(&mut group.pending_syncs) {
            group.remove(turn, &member_id);
            turn.tell_left(group_id, &member_id, "rebalance expired");
        }
        group.prepare_rebalance(turn);
    }
}

impl Group {
    /// Something changed: begins a rebalance, or goes on with the one that is prepared.
    pub(super) fn rebalance_or_complete(&mut self, turn: &mut Turn<'_>) {
        match self.state {
            State::PreparingRebalance => self.maybe_complete_join(turn),
            State::Empty | State::CompletingRebalance | State::Stable => {
                self.prepare_rebalance(turn);
            }
        }
    }

    /// Begins a rebalance.
    pub(super) fn prepare_rebalance(&mut self, turn: &mut Turn<'_>) {
        if self.state == State::CompletingRebalance {
            for member in self.members.values_mut() {
                member.assignment = Bytes::new();
                if member.answer_sync(turn, Err(ErrorKind::RebalanceInProgress)) {
                    let timeout = member.session_timeout;
                    member.touch(turn, &self.id, timeout);
                }
            }
        }
        self.pending_syncs.clear();
        turn.cancel(BrokerTimer::Sync { group_id: Name::clone(&self.id) });
        self.transition(turn, State::PreparingRebalance);
        if self.is_initial {
            let delay = turn.config.broker.group_initial_rebalance_delay;
            self.has_newcomer = false;
            self.delay = (delay, self.rebalance_timeout().saturating_sub(delay));
            let timer = BrokerTimer::Join { group_id: Name::clone(&self.id) };
            turn.schedule(timer, turn.now + delay);
        } else if self.all_have_joined() {
            self.complete_join(turn);
        } else {
            self.schedule_join(turn);
        }
    }

    /// Goes on if everybody has joined. The first rebalance waits for its delay in any case.
    pub(super) fn maybe_complete_join(&mut self, turn: &mut Turn<'_>) {
        if !self.is_initial {
            self.complete_join_if_all(turn);
        }
    }

    /// Goes on if everybody has joined.
    pub(super) fn complete_join_if_all(&mut self, turn: &mut Turn<'_>) {
        if self.state == State::PreparingRebalance && self.all_have_joined() {
            self.complete_join(turn);
        }
    }

    fn schedule_join(&self, turn: &mut Turn<'_>) {
        let timer = BrokerTimer::Join { group_id: Name::clone(&self.id) };
        turn.schedule(timer, turn.now + self.rebalance_timeout());
    }

    /// Ends the first half of a rebalance.
    pub(super) fn complete_join(&mut self, turn: &mut Turn<'_>) {
        // 1. Dynamic members that have not joined are out.
        turn.cancel(BrokerTimer::Join { group_id: Name::clone(&self.id) });
        let is_missing = |id: &&Name| {
            let member = &self.members[*id];
            member.awaiting_join.is_none() && member.group_instance_id.is_none()
        };
        let missing: Vec<Name> = self.members.keys().filter(is_missing).cloned().collect();
        for member_id in missing {
            self.remove(turn, &member_id);
            turn.tell_left(&self.id, &member_id, "rebalance expired");
        }
        // 2. Without anybody that joined, the static members get more time, until their sessions
        //    end.
        if !self.elect_joined_leader() && !self.members.is_empty() {
            self.schedule_join(turn);
            return;
        }
        // 3. The next generation.
        self.generation = self.generation.wrapping_add(1);
        self.pending_syncs.clear();
        if self.members.is_empty() {
            self.protocol = None;
            self.transition(turn, State::Empty);
            turn.write(vec![self.record(|_| Bytes::new())], Then::Nothing);
            return;
        }
        self.protocol = self.select_protocol();
        self.transition(turn, State::CompletingRebalance);
        self.answer_joins(turn);
        let timer = BrokerTimer::Sync { group_id: Name::clone(&self.id) };
        turn.schedule(timer, turn.now + self.rebalance_timeout());
    }

    /// Tells every member of its place in the generation.
    fn answer_joins(&mut self, turn: &mut Turn<'_>) {
        let ids: Vec<Name> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id);
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.answer_join(turn, Ok(joined), &id);
            let timeout = member.session_timeout;
            member.touch(turn, &self.id, timeout);
            member.is_new = false;
            self.pending_syncs.insert(id);
        }
    }

    /// Makes sure that the leader is one that joined. Returns whether there is one.
    fn elect_joined_leader(&mut self) -> bool {
        let has_joined =
            |id: &Name| self.members.get(id).is_some_and(|member| member.awaiting_join.is_some());
        match &self.leader {
            None => false,
            Some(leader) if has_joined(leader) => true,
            Some(_) => {
                let Some(next) = self.members.keys().find(|id| has_joined(id)).cloned() else {
                    return false;
                };
                self.leader = Some(next);
                true
            }
        }
    }

    /// The record of a group that was just made, before anybody has joined.
    pub(super) fn record_of_new(&self) -> GroupRecord {
        let value = GroupValue {
            protocol_type: None,
            generation: 0,
            protocol: None,
            leader: None,
            since: self.since,
            members: Vec::new(),
        };
        GroupRecord::Group { group_id: Name::clone(&self.id), value: Some(value) }
    }
}
