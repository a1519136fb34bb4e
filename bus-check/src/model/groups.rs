//! Who owned which partition of a group, from when to when, as its members were told.
//!
//! A member owns a partition from the completion of the guard that assigns it to the completion of
//! the guard that revokes it, or until it gives everything up.

use std::collections::BTreeMap;
use std::time::Duration;

use bus_core::{RebalanceKind, Recovery};

use super::Model;
use super::operations::End;
use crate::history::{Answer, Call, ClientId, EntryId, NameId, Note, PartitionId, What};

/// Who owned what.
#[derive(Debug, Default)]
pub struct Groups {
    /// All ownerships, in the order in which they began.
    pub ownerships: Vec<Ownership>,
    /// By client: the entries and times of its polls.
    polls: Vec<Vec<(EntryId, u64)>>,
    /// By client: the entries that say that the group has given it up.
    given_up: Vec<Vec<EntryId>>,
    /// By client: guards in the order in which it was first given them.
    pub guards: Vec<Vec<Guard>>,
}

/// A partition in the hands of a member.
#[derive(Clone, Copy, Debug)]
pub struct Ownership {
    /// The group.
    pub group: NameId,
    /// The partition.
    pub partition: PartitionId,
    /// The member.
    pub client: ClientId,
    /// The generation in which it was assigned, where that is known.
    pub generation: Option<i32>,
    /// The completion of the guard that assigned it.
    pub began: EntryId,
    /// The poll that returned the guard that takes it away.
    pub revoking: Option<EntryId>,
    /// What ended it; none if it lasts.
    pub ended: Option<EntryId>,
}

/// A guard that a member was given.
#[derive(Clone, Debug)]
pub struct Guard {
    /// The answer of the poll.
    pub entry: EntryId,
    /// What happened.
    pub kind: RebalanceKind,
    /// To which partitions.
    pub partitions: Box<[PartitionId]>,
    /// The generation, where it is known.
    pub generation: Option<i32>,
    /// When it was completed.
    pub completed: Option<EntryId>,
}

impl Groups {
    pub(super) fn new(model: &Model<'_>) -> Self {
        let clients = model.history.clients().len();
        let mut groups = Self {
            ownerships: Vec::new(),
            polls: vec![Vec::new(); clients],
            given_up: vec![Vec::new(); clients],
            guards: vec![Vec::new(); clients],
        };
        let mut open: BTreeMap<(ClientId, PartitionId), usize> = BTreeMap::new();
        for (at, entry) in model.history.iter() {
            let Some(facts) = model.history.consumer(entry.client) else { continue };
            if let Some(group) = facts.group {
                groups.follow(model, (at, &entry.what), (group, entry.client), &mut open);
            }
        }
        groups
    }

    fn follow(
        &mut self,
        model: &Model<'_>,
        (at, what): (EntryId, &What),
        (group, client): (NameId, ClientId),
        open: &mut BTreeMap<(ClientId, PartitionId), usize>,
    ) {
        match what {
            What::Invoke(id, call) => match call {
                Call::Poll => self.polls[client.index()].push((at, model.at(at))),
                Call::Complete { kind, partitions } => {
                    self.complete(at, (group, client), (*kind, partitions), open);
                }
                Call::Subscribe(_) | Call::Unsubscribe | Call::CloseConsumer | Call::Assign(_)
                    if !matches!(model.operation(*id).end, End::Fail(_)) =>
                {
                    self.end_all(at, client, open);
                }
                _ => {}
            },
            What::Ok(_, Answer::Rebalance { kind, partitions, generation }) => {
                self.guard(at, client, (*kind, partitions, *generation), open);
            }
            What::Fail(id, failure) | What::Info(id, Some(failure)) => {
                let is_poll = matches!(model.operation(*id).call, Some(Call::Poll));
                if is_poll && matches!(failure.recovery, Recovery::Rejoin | Recovery::Close) {
                    self.given_up[client.index()].push(at);
                    self.end_all(at, client, open);
                }
            }
            What::Note(Note::Dropped) => self.end_all(at, client, open),
            What::Ok(..) | What::Info(_, None) | What::Note(_) => {}
        }
    }

    fn guard(
        &mut self,
        at: EntryId,
        client: ClientId,
        (kind, partitions, generation): (RebalanceKind, &[PartitionId], Option<i32>),
        open: &BTreeMap<(ClientId, PartitionId), usize>,
    ) {
        // Until it is completed, every poll returns the same guard.
        let guards = &mut self.guards[client.index()];
        let is_same = guards.last().is_some_and(|last| {
            last.completed.is_none() && last.kind == kind && *last.partitions == *partitions
        });
        if is_same {
            return;
        }
        let partitions: Box<[_]> = partitions.into();
        if kind != RebalanceKind::Assigned {
            for partition in &partitions {
                if let Some(ownership) = open.get(&(client, *partition)) {
                    self.ownerships[*ownership].revoking.get_or_insert(at);
                }
            }
        }
        guards.push(Guard { entry: at, kind, partitions, generation, completed: None });
    }

    fn complete(
        &mut self,
        at: EntryId,
        (group, client): (NameId, ClientId),
        (kind, partitions): (RebalanceKind, &[PartitionId]),
        open: &mut BTreeMap<(ClientId, PartitionId), usize>,
    ) {
        let guards = &mut self.guards[client.index()];
        let guard = guards.iter_mut().rev().find(|guard| {
            guard.completed.is_none() && guard.kind == kind && *guard.partitions == *partitions
        });
        let generation = guard.and_then(|guard| {
            guard.completed = Some(at);
            guard.generation
        });
        for partition in partitions {
            if let Some(ownership) = open.remove(&(client, *partition)) {
                self.ownerships[ownership].ended = Some(at);
            }
            if kind == RebalanceKind::Assigned {
                open.insert((client, *partition), self.ownerships.len());
                self.ownerships.push(Ownership {
                    group,
                    partition: *partition,
                    client,
                    generation,
                    began: at,
                    revoking: None,
                    ended: None,
                });
            }
        }
        if kind == RebalanceKind::Lost {
            self.given_up[client.index()].push(at);
        }
    }

    fn end_all(
        &mut self,
        at: EntryId,
        client: ClientId,
        open: &mut BTreeMap<(ClientId, PartitionId), usize>,
    ) {
        let range = (client, PartitionId(0))..=(client, PartitionId(u32::MAX));
        let ended: Vec<_> = open.range(range).map(|(key, index)| (*key, *index)).collect();
        for (key, index) in ended {
            open.remove(&key);
            self.ownerships[index].ended = Some(at);
        }
    }

    /// For how long a member had not polled at an entry.
    pub fn silence(&self, client: ClientId, at: (EntryId, u64)) -> Duration {
        let polls = &self.polls[client.index()];
        let before = polls.partition_point(|(poll, _)| *poll < at.0);
        let last = before.checked_sub(1).map_or(0, |last| polls[last].1);
        Duration::from_nanos(at.1.saturating_sub(last))
    }

    /// Whether a member learns after an entry that the group had given it up.
    pub fn is_given_up_after(&self, client: ClientId, at: EntryId) -> bool {
        self.given_up[client.index()].last().is_some_and(|last| *last > at)
    }

    /// The last poll of a client.
    pub fn last_poll(&self, client: ClientId) -> Option<(EntryId, u64)> {
        self.polls[client.index()].last().copied()
    }
}
