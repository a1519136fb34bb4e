//! Who owned which partition, and what the groups have committed in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use bus_core::{ErrorKind, Offset, OffsetAndMetadata, RebalanceKind, Recovery, TopicPartition};

use super::{Evidence, Law, Violation};
use crate::history::{Client, ClientId, CommitId, ConsumerFacts, Entry, Event};

/// Checks the laws of this module.
pub fn check(entries: &[Entry], evidence: &Evidence) -> Vec<Violation> {
    let mut violations = check_ownership(entries);
    violations.extend(check_committed(entries, evidence));
    violations
}

/// The commits of a history, as a question: what can have been committed when?
#[derive(Debug, Default)]
pub struct Commits<'a> {
    explicit: Vec<CommitView<'a>>,
    /// Offsets that an auto commit may have taken, by group, partition, and entry.
    stored: BTreeMap<(&'a str, TopicPartition), Vec<(usize, Offset)>>,
    /// Groups that were deleted with all their commits, by entry.
    deleted: Vec<(&'a str, usize)>,
}

#[derive(Debug)]
struct CommitView<'a> {
    group_id: &'a str,
    invoked: usize,
    done: Option<usize>,
    effect: CommitEffect,
    offsets: &'a [(TopicPartition, OffsetAndMetadata)],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommitEffect {
    Done,
    Unknown,
    None,
}

/// What can have been committed at some time within a window.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// The possible offsets.
    pub offsets: Vec<OffsetAndMetadata>,
    /// Whether it is possible that there was none.
    pub maybe_none: bool,
}

impl<'a> Commits<'a> {
    /// Gathers the commits of a history.
    pub fn of(entries: &'a [Entry]) -> Self {
        let mut commits = Self::default();
        let mut known: BTreeMap<CommitId, usize> = BTreeMap::new();
        let mut auto: BTreeMap<ClientId, (&str, bool)> = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            match &entry.event {
                Event::Commit { commit, group_id, offsets } => {
                    known.insert(*commit, commits.explicit.len());
                    let (done, effect) = (None, CommitEffect::Unknown);
                    let view = CommitView { group_id, invoked: index, done, effect, offsets };
                    commits.explicit.push(view);
                }
                Event::Committed { commit, outcome } => {
                    if let Some(commit) = known.get(commit) {
                        let commit = &mut commits.explicit[*commit];
                        commit.done = Some(index);
                        commit.effect = match outcome {
                            Ok(()) => CommitEffect::Done,
                            Err(error) if error.is_indeterminate() => CommitEffect::Unknown,
                            Err(_) => CommitEffect::None,
                        };
                    }
                }
                Event::Made(Client::Consumer(facts)) if facts.auto_commit => {
                    if let Some(group_id) = &facts.group_id {
                        auto.insert(entry.client, (group_id, facts.auto_store));
                    }
                }
                Event::Delivered(record) => {
                    if let Some((group_id, true)) = auto.get(&entry.client) {
                        let place = (*group_id, record.topic_partition());
                        let stored = commits.stored.entry(place).or_default();
                        stored.push((index, record.next_offset()));
                    }
                }
                Event::Stored(offsets) => {
                    if let Some((group_id, _)) = auto.get(&entry.client) {
                        for (place, offset) in offsets {
                            let place = (*group_id, place.clone());
                            commits.stored.entry(place).or_default().push((index, *offset));
                        }
                    }
                }
                Event::GroupDeleted(group_id) => commits.deleted.push((group_id, index)),
                _ => {}
            }
        }
        commits
    }

    /// What can have been committed at some time between two entries.
    pub fn candidates(
        &self,
        group_id: &str,
        place: &TopicPartition,
        window: &Range<usize>,
    ) -> Candidates {
        let deletions = self
            .deleted
            .iter()
            .filter(|(group, index)| *group == group_id && *index < window.start);
        let since = deletions.map(|(_, index)| *index).max().unwrap_or(0);
        let of_place = |commit: &CommitView<'a>| {
            let found = commit.offsets.iter().rev().find(|(other, _)| other == place);
            found
                .filter(|_| commit.group_id == group_id && commit.invoked >= since)
                .map(|(_, offset)| offset.clone())
        };
        let is_before = |commit: &CommitView<'a>, index: usize| {
            commit.effect == CommitEffect::Done && commit.done.is_some_and(|done| done < index)
        };
        let settled: Vec<_> = self
            .explicit
            .iter()
            .filter(|commit| of_place(commit).is_some() && is_before(commit, window.start))
            .collect();
        let offsets = self
            .explicit
            .iter()
            .filter(|commit| commit.effect != CommitEffect::None && commit.invoked < window.end)
            // A commit that ended before one that began, and ended before the window, is
            // overwritten.
            .filter(|commit| {
                let is_overwritten =
                    |later: &&CommitView<'a>| commit.done.is_some_and(|done| done < later.invoked);
                !settled.iter().any(is_overwritten)
            })
            .filter_map(of_place);
        let stored =
            self.stored.iter().filter(|((group, at), _)| *group == group_id && at == place);
        let stored = stored
            .flat_map(|(_, stored)| stored)
            .filter(|(index, _)| (since..window.end).contains(index))
            .map(|(_, offset)| OffsetAndMetadata::from(*offset));
        let maybe_none = settled.is_empty();
        Candidates { offsets: offsets.chain(stored).collect(), maybe_none }
    }
}

/// The committed offsets at the end are what was committed last.
fn check_committed(entries: &[Entry], evidence: &Evidence) -> Vec<Violation> {
    let commits = Commits::of(entries);
    let mut violations = Vec::new();
    for (group_id, committed) in &evidence.committed {
        let Some(committed) = committed else { continue };
        for place in evidence.logs.keys() {
            let window = entries.len()..entries.len();
            let expected = commits.candidates(group_id, place, &window);
            let found = committed.get(place);
            let is_right = match found {
                None => expected.offsets.is_empty() || expected.maybe_none,
                Some(found) => expected.offsets.contains(found),
            };
            if !is_right {
                let expected = &expected.offsets;
                let message = format!(
                    "group {group_id} has committed {found:?} for {place}; expected is {expected:?}"
                );
                violations.push(Violation::new(Law::Commit, message));
            }
        }
    }
    violations
}

/// Who owns a partition in a group, and since when.
struct Owner {
    client: ClientId,
    patience: Duration,
}

/// No two members own a partition of their group at the same time, unless the older one has not
/// polled for so long that the group may have given up on it.
fn check_ownership(entries: &[Entry]) -> Vec<Violation> {
    let mut members: BTreeMap<ClientId, (&str, &ConsumerFacts)> = BTreeMap::new();
    let mut polled: BTreeMap<ClientId, Duration> = BTreeMap::new();
    let mut owners: BTreeMap<(&str, &TopicPartition), Owner> = BTreeMap::new();
    let lost = lost_later(entries);
    let mut violations = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let client = entry.client;
        match &entry.event {
            Event::Made(Client::Consumer(facts)) => {
                if let Some(group_id) = &facts.group_id {
                    members.insert(client, (group_id, facts));
                }
            }
            Event::Polling => {
                polled.insert(client, entry.at);
            }
            Event::PollFailed(kind) if is_given_up(*kind) => {
                owners.retain(|_, owner| owner.client != client);
            }
            Event::Closed | Event::Unsubscribed | Event::Assigned(_) | Event::Subscribed => {
                owners.retain(|_, owner| owner.client != client);
            }
            Event::Rebalanced(rebalance) => {
                let Some((group_id, facts)) = members.get(&client) else { continue };
                for place in &rebalance.partitions {
                    let key = (*group_id, place);
                    if rebalance.kind != RebalanceKind::Assigned {
                        if owners.get(&key).is_some_and(|owner| owner.client == client) {
                            owners.remove(&key);
                        }
                        continue;
                    }
                    let owner = Owner { client, patience: facts.patience };
                    let Some(older) = owners.insert(key, owner) else { continue };
                    let silent = entry
                        .at
                        .saturating_sub(polled.get(&older.client).copied().unwrap_or_default());
                    let is_zombie = older.client == client
                        || silent >= older.patience
                        || lost.get(&(older.client, place)).is_some_and(|at| *at > index);
                    if !is_zombie {
                        let message = format!(
                            "{place} was given to client {} while client {} of group {group_id} \
                             owned it",
                            client.0, older.client.0
                        );
                        violations.push(Violation::new(Law::Ownership, message));
                    }
                }
            }
            _ => {}
        }
    }
    violations
}

/// Whether a poll that fails so says that the group has given the member up.
fn is_given_up(kind: ErrorKind) -> bool {
    matches!(kind.recovery(), Recovery::Rejoin | Recovery::Close)
}

/// Which partitions a member lost rather than gave away, and the last entry that says so.
fn lost_later(entries: &[Entry]) -> BTreeMap<(ClientId, &TopicPartition), usize> {
    let mut lost = BTreeMap::new();
    let mut owned: BTreeMap<ClientId, BTreeSet<&TopicPartition>> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        if let Event::Rebalanced(rebalance) = &entry.event {
            owned.entry(entry.client).or_default().extend(&rebalance.partitions);
        }
        if matches!(entry.event, Event::PollFailed(kind) if is_given_up(kind)) {
            let owned = owned.get(&entry.client).into_iter().flatten();
            lost.extend(owned.map(|place| ((entry.client, *place), index)));
        }
        if let Event::Rebalanced(rebalance) = &entry.event
            && rebalance.kind == RebalanceKind::Lost
        {
            lost.extend(rebalance.partitions.iter().map(|place| ((entry.client, place), index)));
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use bus_core::OffsetReset;

    use super::*;
    use crate::oracle::story::Story;

    #[test]
    fn a_second_owner_is_found() {
        let mut story = Story::new();
        story.owner();
        story.owner();
        assert_eq!(story.broken(), [Law::Ownership]);
    }

    #[test]
    fn an_owner_may_follow_one_that_gave_up_or_was_silent() {
        for end in [RebalanceKind::Revoked, RebalanceKind::Lost] {
            let mut story = Story::new();
            let first = story.owner();
            story.rebalance(first, end);
            story.owner();
            assert_eq!(story.broken(), []);
        }
        let mut story = Story::new();
        story.owner();
        story.wait(Duration::from_secs(2));
        story.owner();
        assert_eq!(story.broken(), [], "the first has not polled for two seconds");
        let mut story = Story::new();
        let first = story.owner();
        story.owner();
        story.rebalance(first, RebalanceKind::Lost);
        assert_eq!(story.broken(), [], "the first is told later that it was given up");
    }

    #[test]
    fn a_lost_commit_is_found() {
        let mut story = Story::with(&["a", "b"]);
        let owner = story.owner();
        story.commit(owner, 1);
        assert_eq!(story.broken(), []);
        story.commit_silently(owner, 2);
        assert_eq!(story.broken(), [Law::Commit]);
    }

    #[test]
    fn a_commit_out_of_nowhere_is_found() {
        let mut story = Story::with(&["a", "b"]);
        story.owner();
        story.set_committed(1);
        assert_eq!(story.broken(), [Law::Commit]);
    }

    #[test]
    fn an_auto_commit_that_passes_the_delivery_is_found() {
        let mut story = Story::with(&["a", "b"]);
        let member = story.member(OffsetReset::Earliest, true);
        story.rebalance(member, RebalanceKind::Assigned);
        story.deliver(member, 0);
        story.set_committed(1);
        assert_eq!(story.broken(), []);
        story.set_committed(2);
        assert_eq!(story.broken(), [Law::Commit]);
    }

    #[test]
    fn commits_of_a_deleted_group_are_gone() {
        let mut story = Story::with(&["a"]);
        let owner = story.owner();
        story.commit_silently(owner, 1);
        story.event(owner, Event::GroupDeleted("g".to_owned()));
        assert_eq!(story.broken(), []);
    }
}
