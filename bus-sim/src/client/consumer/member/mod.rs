//! Membership in a group by the classic protocol: find the coordinator, join, sync, heartbeat.
//!
//! A rebalance waits for the application: partitions come and go only when it has completed the
//! guard. Eager assignors revoke everything before each join; cooperative ones join with what they
//! own, give up what moves, and join once more.

mod coordinator;
mod join;

use std::sync::Arc;
use std::time::Duration;

use bus_core::{Assignor, Error, ErrorKind, Rebalance, RebalanceKind, StartAt, TopicPartition};

use crate::client::ClientTimer;
use crate::client::connections::Link;
use crate::mutation::Mutation;
use crate::node::{BrokerId, Effects, Name, Timer};
use crate::protocol::{Request, heartbeat, leave_group};
use crate::time::SimTime;

use super::{Consumer, Token, assignor};

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
    /// The generation whose assignment it was given last; -1 if it never was given one.
    assigned_generation: i32,
    /// The generation that this was a member in last; -1 if it never was.
    pub(super) last_generation: i32,
    pub(super) coordinator: Option<BrokerId>,
    is_finding: bool,
    /// The coordinator is not asked for before this.
    find_at: SimTime,
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

/// How a member leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// It gives up its subscription.
    Openly,
    /// It ends, or is too slow: a static member does not say so.
    Silently,
}

impl Member {
    pub(super) fn new(group_id: Name, group_instance_id: Option<Name>) -> Self {
        Self {
            group_id,
            group_instance_id,
            member_id: Name::from(""),
            generation: -1,
            assigned_generation: -1,
            last_generation: -1,
            coordinator: None,
            is_finding: false,
            find_at: SimTime::ZERO,
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

    /// The application is shown a guard: now a planted bug joins, and does not wait for it.
    pub(super) fn join_unrevoked(&mut self, now: SimTime, effects: &mut Effects) {
        let rejoins = matches!(
            self.member.as_ref().map(|member| &member.state),
            Some(State::In { next: Next::Rejoin })
        );
        if rejoins && self.mutation == Some(Mutation::JoinsBeforeRevoked) {
            self.join(now, effects);
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
    pub(super) fn fenced(&mut self, effects: &mut Effects) {
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
        self.keep_stored(Some(gone));
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
    ///
    /// A static member that closes, or whose application is too slow, stays with the coordinator
    /// until its session ends (KIP-345); one that subscribes to something else leaves.
    pub(super) fn leave(&mut self, now: SimTime, why: Leaving, effects: &mut Effects) {
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
        let stays = member.group_instance_id.is_some() && why == Leaving::Silently;
        if member_id.is_empty() || stays {
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
        self.leave(now, Leaving::Silently, effects);
        if let Some(member) = &mut self.member {
            member.joins_at_poll = true;
        }
        self.lose(now, effects);
    }
}
