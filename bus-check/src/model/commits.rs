//! The commits of groups, as a question: what can have been committed at some time?
//!
//! A commit counts from the entry that invokes it to eternity, until a later one has certainly
//! overwritten it. One whose outcome is unknown may arrive at any later time. What an auto commit
//! takes is any offset that was stored, by delivery or by hand.

use std::collections::BTreeMap;
use std::ops::Range;

use bus_core::Offset;

use super::Model;
use super::operations::End;
use crate::history::{Answer, Call, ClientId, EntryId, NameId, PartitionId, What};

/// The commits of all groups.
#[derive(Debug, Default)]
pub struct Commits {
    places: BTreeMap<(NameId, PartitionId), Place>,
    /// When groups were deleted with all their commits.
    deleted: Vec<(NameId, EntryId)>,
}

/// The commits of a group in a partition.
#[derive(Debug, Default)]
struct Place {
    /// In the order of their calls.
    commits: Vec<Commit>,
    /// For each commit, the last end of it and all before: what can't end later is not looked at.
    last_ends: Vec<EntryId>,
    /// Offsets that an auto commit may have taken, in order.
    stored: Vec<(EntryId, Offset)>,
}

/// A commit.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// Whose it is.
    pub client: ClientId,
    /// When it was called.
    pub invoked: EntryId,
    /// When it was certain; never, if its outcome is unknown.
    pub ended: Option<EntryId>,
    /// The offset.
    pub offset: Offset,
    /// The transaction that it is part of.
    pub transaction: Option<usize>,
}

/// What can have been committed at some time within a window.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// The explicit commits.
    pub commits: Vec<Commit>,
    /// Offsets that auto commits may have taken.
    pub stored: Vec<Offset>,
    /// Whether it is possible that there was none.
    pub maybe_none: bool,
}

impl Candidates {
    /// The possible offsets.
    pub fn offsets(&self) -> impl Iterator<Item = Offset> {
        self.commits.iter().map(|commit| commit.offset).chain(self.stored.iter().copied())
    }

    /// Whether the group can have committed this.
    pub fn contains(&self, offset: Option<Offset>) -> bool {
        match offset {
            Some(offset) => self.offsets().any(|candidate| candidate == offset),
            None => self.maybe_none,
        }
    }
}

/// How sure a reader of commits is to see those of transactions that have committed: their markers
/// are written after the commit has returned, and only some requests wait for that (KIP-447).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// It waits for pending offsets, as `read_committed` consumers do.
    Stable,
    /// It may see what was there before.
    Unstable,
}

impl Commits {
    pub(super) fn new(model: &Model<'_>) -> Self {
        let mut commits = Self::default();
        for (at, entry) in model.history.iter() {
            match &entry.what {
                What::Invoke(id, call) => {
                    let end = model.operation(*id).end;
                    if matches!(end, End::Fail(_)) {
                        continue;
                    }
                    let ended = model.operation(*id).ended.filter(|_| end == End::Ok);
                    commits.invoke(model, (at, ended), entry.client, call);
                }
                What::Ok(id, Answer::Records(records))
                    if model.operation(*id).ended == Some(at) =>
                {
                    let facts = model.history.consumer(entry.client);
                    let facts = facts.filter(|facts| facts.auto_commit && facts.auto_store);
                    if let Some(group) = facts.and_then(|facts| facts.group) {
                        for record in records {
                            let place = commits.places.entry((group, record.partition));
                            place.or_default().stored.push((at, record.offset + 1));
                        }
                    }
                }
                _ => {}
            }
        }
        commits.add_transactions(model);
        for place in commits.places.values_mut() {
            place.commits.sort_by_key(|commit| commit.invoked);
            let mut last = EntryId(0);
            for commit in &place.commits {
                last = last.max(commit.ended.unwrap_or(NEVER));
                place.last_ends.push(last);
            }
        }
        commits
    }

    fn invoke(
        &mut self,
        model: &Model<'_>,
        (invoked, ended): (EntryId, Option<EntryId>),
        client: ClientId,
        call: &Call,
    ) {
        let group = model.history.consumer(client).and_then(|facts| facts.group);
        let asked = match call {
            Call::Commit(offsets) => group.map(|group| (group, offsets)),
            Call::AlterGroupOffsets { group, offsets } => Some((*group, offsets)),
            Call::StoreOffsets(offsets) => {
                let facts = model.history.consumer(client);
                let group = group.filter(|_| facts.is_some_and(|facts| facts.auto_commit));
                for (partition, offset) in offsets {
                    let Some(group) = group else { break };
                    let place = self.places.entry((group, *partition)).or_default();
                    place.stored.push((invoked, *offset));
                }
                None
            }
            Call::DeleteGroup(group) => {
                self.deleted.extend(ended.map(|_| (*group, invoked)));
                None
            }
            _ => None,
        };
        let Some((group, offsets)) = asked else { return };
        // Named twice in one call, a partition gets the last offset.
        let last: BTreeMap<_, _> = offsets.iter().copied().collect();
        for (partition, offset) in last {
            let place = self.places.entry((group, partition)).or_default();
            place.commits.push(Commit { client, invoked, ended, offset, transaction: None });
        }
    }

    /// The offsets of transactions count with the commit of the transaction.
    fn add_transactions(&mut self, model: &Model<'_>) {
        for (index, transaction) in model.transactions.iter().enumerate() {
            let Some(invoked) = transaction.commit_invoked else { continue };
            if transaction.is_not_committed() {
                continue;
            }
            let mut last: BTreeMap<_, _> = BTreeMap::new();
            for (group, partition, offset, call) in &transaction.offsets {
                if !matches!(model.operation(*call).end, End::Fail(_)) {
                    last.insert((*group, *partition), *offset);
                }
            }
            for (key, offset) in last {
                self.places.entry(key).or_default().commits.push(Commit {
                    client: transaction.client,
                    invoked,
                    ended: transaction.committed,
                    offset,
                    transaction: Some(index),
                });
            }
        }
    }

    /// The groups and partitions with commits.
    pub fn keys(&self) -> impl Iterator<Item = (NameId, PartitionId)> {
        self.places.keys().copied()
    }

    /// All commits of a group in a partition, in the order of their calls.
    pub fn all(&self, group: NameId, partition: PartitionId) -> &[Commit] {
        self.places.get(&(group, partition)).map_or(&[], |place| &place.commits)
    }

    /// When the group was last deleted before an entry.
    fn deleted_before(&self, group: NameId, at: EntryId) -> EntryId {
        let deleted = self.deleted.iter().filter(|(name, deleted)| *name == group && *deleted < at);
        deleted.map(|(_, deleted)| *deleted).max().unwrap_or(EntryId(0))
    }

    /// What can have been committed at some time between two entries.
    pub fn candidates(
        &self,
        (group, partition): (NameId, PartitionId),
        window: &Range<EntryId>,
        stability: Stability,
    ) -> Candidates {
        let Some(place) = self.places.get(&(group, partition)) else {
            return Candidates { maybe_none: true, ..Default::default() };
        };
        let since = self.deleted_before(group, window.start);
        let is_settled = |commit: &Commit| {
            commit.ended.is_some_and(|ended| ended < window.start)
                && commit.invoked >= since
                && (commit.transaction.is_none() || stability == Stability::Stable)
        };
        let known = place.commits.partition_point(|commit| commit.invoked < window.end);
        let known = &place.commits[..known];
        // The last one that has certainly arrived overwrites all that ended before it began, and
        // those of its own consumer that were called before it and have ended.
        let settled = known.iter().rposition(is_settled);
        let mut commits = Vec::new();
        for (index, commit) in known.iter().enumerate().rev() {
            if let Some(settled) = settled {
                let last = known[settled];
                if index < settled && place.last_ends[index] < last.invoked {
                    break;
                }
                let is_before = commit.ended.is_some_and(|ended| {
                    let is_of_order = commit.client == last.client && Some(ended) <= last.ended;
                    ended < last.invoked || (index < settled && is_of_order)
                });
                if index != settled && is_before {
                    continue;
                }
            }
            if commit.invoked >= since {
                commits.push(*commit);
            }
        }
        let stored = place.stored.iter().filter(|(at, _)| (since..window.end).contains(at));
        let stored = stored.map(|(_, offset)| *offset).collect();
        Candidates { commits, stored, maybe_none: settled.is_none() }
    }
}

/// The end of what may still come.
const NEVER: EntryId = EntryId(u32::MAX);
