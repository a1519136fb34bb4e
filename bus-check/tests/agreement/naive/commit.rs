//! E, commits, as they are defined.

use std::collections::BTreeSet;
use std::ops::Range;

use bus_check::CommitMode;
use bus_check::check::{Promise, Subject};
use bus_check::history::{Call, ClientId, NameId, Note, PartitionId, What};
use bus_core::{IsolationLevel, Offset};

use super::facts::{How, Session};
use super::transaction::Told;
use super::{Broken, Facts};

/// A commit that may count: from its call on, and for certain from its end on.
struct Counted {
    client: ClientId,
    invoked: usize,
    ended: Option<usize>,
    offset: Offset,
    is_of_transaction: bool,
}

impl Facts<'_> {
    fn counted(&self, (group, partition): (NameId, PartitionId)) -> Vec<Counted> {
        let mut counted = Vec::new();
        for op in &self.ops {
            let own = self.consumer(op.client).and_then(|own| own.group);
            let offsets = match op.call {
                Call::Commit(offsets) if own == Some(group) && !op.how.is_fail() => offsets,
                _ => continue,
            };
            let offset = offsets.iter().rev().find(|(id, _)| *id == partition);
            counted.extend(offset.map(|(_, offset)| Counted {
                client: op.client,
                invoked: op.invoked,
                ended: op.ended.filter(|_| op.how == How::Ok),
                offset: *offset,
                is_of_transaction: false,
            }));
        }
        for transaction in self.transactions() {
            let Some((invoked, ..)) = transaction.commits.first() else { continue };
            let offsets = self.offsets_of(&transaction);
            let offset = offsets
                .iter()
                .rev()
                .find(|(other, id, _, how)| (*other, *id) == (group, partition) && !how.is_fail());
            if transaction.is_not_committed() {
                continue;
            }
            counted.extend(offset.map(|(_, _, offset, _)| Counted {
                client: transaction.client,
                invoked: *invoked,
                ended: transaction.committed,
                offset: *offset,
                is_of_transaction: true,
            }));
        }
        counted.sort_by_key(|commit| commit.invoked);
        counted
    }

    /// What may be committed at some time in a window, and whether it may be nothing: all commits
    /// called for before its end, but those that were over before the last certain one began, and
    /// those of the same consumer, called and over before it.
    pub(crate) fn may_be_committed(
        &self,
        key: (NameId, PartitionId),
        window: &Range<usize>,
        is_stable: bool,
    ) -> (Vec<Offset>, bool) {
        let counted = self.counted(key);
        let known: Vec<_> = counted.iter().filter(|commit| commit.invoked < window.end).collect();
        let is_certain = |commit: &Counted| {
            commit.ended.is_some_and(|ended| ended < window.start)
                && (!commit.is_of_transaction || is_stable)
        };
        let last = known.iter().rfind(|commit| is_certain(commit));
        let is_overwritten = |commit: &Counted| {
            let Some(last) = last.filter(|last| last.invoked != commit.invoked) else {
                return false;
            };
            let Some(ended) = commit.ended else { return false };
            let is_of_order = commit.client == last.client
                && commit.invoked < last.invoked
                && last.ended.is_some_and(|last| ended <= last);
            ended < last.invoked || is_of_order
        };
        let open = known.iter().filter(|commit| !is_overwritten(commit));
        (open.map(|commit| commit.offset).collect(), last.is_none())
    }
}

enum Wrong {
    Beyond,
    Lost,
}

fn wrong(facts: &Facts<'_>, told: &Told) -> Option<Wrong> {
    let key = (told.group, told.partition);
    let window = told.asked..told.answered;
    let (offsets, maybe_none) = facts.may_be_committed(key, &window, told.is_stable);
    match told.offset {
        Some(offset) if offsets.contains(&offset) => None,
        None if maybe_none => None,
        Some(offset) if offsets.iter().all(|other| *other < offset) => Some(Wrong::Beyond),
        _ => Some(Wrong::Lost),
    }
}

fn told(facts: &Facts<'_>, is_meant: fn(&Wrong) -> bool) -> Broken {
    facts
        .told_commits()
        .iter()
        .filter(|told| wrong(facts, told).as_ref().is_some_and(is_meant))
        .map(|told| {
            let offset = told.offset.unwrap_or(-1);
            (Subject::Handled(told.group, told.partition, offset), facts.is_not_cut())
        })
        .collect()
}

/// What is committed was committed by nobody.
pub(crate) fn e4(facts: &Facts<'_>) -> Broken {
    told(facts, |wrong| matches!(wrong, Wrong::Beyond))
}

/// What is committed is less than what was committed last; required of who asks when all has
/// settled.
pub(crate) fn e8(facts: &Facts<'_>) -> Broken {
    let is_settled = |told: &Told| {
        let quiesced = facts.quiesced();
        quiesced.is_some_and(|q| facts.at(told.asked) >= facts.at(q) + facts.settling())
    };
    let all = facts.told_commits();
    let lost = all.iter().filter(|told| matches!(wrong(facts, told), Some(Wrong::Lost)));
    lost.map(|told| {
        let subject = Subject::Handled(told.group, told.partition, told.offset.unwrap_or(-1));
        let promise = if is_settled(told) { facts.is_not_cut() } else { Promise::NotPromised };
        (subject, promise)
    })
    .collect()
}

fn claimed(facts: &Facts<'_>) -> Promise {
    match facts.environment.commits {
        CommitMode::AfterHandling | CommitMode::Transactional => Promise::Required,
        CommitMode::Unknown => Promise::Open,
        CommitMode::BeforeHandling => Promise::NotPromised,
    }
}

/// A commit passes what its session was not given, or has not settled where that is noted.
pub(crate) fn e5(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for op in &facts.ops {
        let Call::Commit(offsets) = op.call else { continue };
        if op.how.is_fail() {
            continue;
        }
        for (partition, offset) in offsets {
            if passes(facts, op.client, (*partition, *offset), op.invoked) {
                broken.insert((Subject::Operation(op.id), claimed(facts)));
            }
        }
    }
    broken
}

fn passes(
    facts: &Facts<'_>,
    client: ClientId,
    (partition, offset): (PartitionId, Offset),
    at: usize,
) -> bool {
    let given: Vec<_> = facts
        .reads
        .iter()
        .filter(|read| read.client == client && read.p() == partition && read.entry < at)
        .collect();
    let Some(last) = given.last() else { return false };
    // What was given before the session that it is in now says nothing.
    let current = facts
        .sessions
        .iter()
        .rfind(|own| own.client == client && own.partition == partition && own.began < at);
    if last.session != current.map(|current| current.began) {
        return false;
    }
    // What was given last in a row, in one session.
    let row = given.iter().rev().take_while(|read| read.session == last.session);
    let row: Vec<_> = row.collect();
    let is_noted = |note: &Note| matches!(note, Note::HandleStart(..) | Note::HandleEnd(..));
    let is_handling = facts.history.entries().iter().any(|entry| {
        entry.client == client && matches!(&entry.what, What::Note(note) if is_noted(note))
    });
    let is_unsettled = row.iter().any(|read| {
        let after = facts.history.entries().iter().enumerate();
        let mut after = after.filter(|(index, _)| read.entry < *index && *index < at);
        let is_settled = after.any(|(_, entry)| match &entry.what {
            What::Note(Note::HandleEnd(id, settled, how)) => {
                entry.client == client
                    && (*id, *settled) == (partition, read.o())
                    && how.is_settled()
            }
            _ => false,
        });
        // Given again in the same row, it must be settled again.
        read.o() < offset && !is_settled
    });
    let isolation = facts.isolation(client);
    let is_passed = last.session.is_some()
        && (last.o() + 1..offset).any(|between| facts.is_visible((partition, between), isolation));
    (is_handling && is_unsettled) || is_passed
}

/// The group has committed past a visible record that none of its consumers was given.
pub(crate) fn e6(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for group in 0..facts.history.names().len() {
        let group = NameId::from_index(group);
        let own =
            |client: ClientId| facts.consumer(client).is_some_and(|own| own.group == Some(group));
        let is_moved = facts
            .ops
            .iter()
            .any(|op| matches!(op.call, Call::Seek(..) | Call::Assign(_)) && own(op.client));
        for partition in 0..facts.history.partitions().len() {
            let partition = PartitionId::from_index(partition);
            let end = facts.entries()..facts.entries();
            let (offsets, maybe_none) = facts.may_be_committed((group, partition), &end, false);
            let Some(passed) = offsets.iter().min().filter(|_| !maybe_none && !is_moved) else {
                continue;
            };
            for offset in 0..*passed {
                let place = (partition, offset);
                let is_given = facts
                    .reads
                    .iter()
                    .any(|read| own(read.client) && (read.p(), read.o()) == place);
                if facts.is_visible(place, IsolationLevel::ReadCommitted) && !is_given {
                    let promise = claimed(facts).max(facts.stays()).max(facts.is_not_cut());
                    broken.insert((Subject::Handled(group, partition, offset), promise));
                }
            }
        }
    }
    broken
}

/// A record is given to a group again by a later session.
pub(crate) fn e7(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    let group_of = |session: &Session| {
        let own = facts.consumer(session.client)?;
        own.group.filter(|_| session.is_of_group)
    };
    for session in &facts.sessions {
        let Some(group) = group_of(session) else { continue };
        let reads = facts.reads_of(session);
        let Some(first) = reads.first() else { continue };
        let window = session.invoked..first.entry;
        let (offsets, maybe_none) =
            facts.may_be_committed((group, session.partition), &window, false);
        for read in &reads {
            let mut earlier: BTreeSet<usize> = BTreeSet::new();
            for other in &facts.sessions {
                if group_of(other) == Some(group) && other.partition == session.partition {
                    let same =
                        facts.reads_of(other).into_iter().filter(|same| same.o() == read.o());
                    earlier.extend(same.map(|same| same.entry));
                }
            }
            let is_again = earlier.iter().any(|entry| *entry < session.invoked);
            let is_committed = !maybe_none && offsets.iter().all(|offset| read.o() < *offset);
            let is_forbidden =
                is_committed || facts.environment.commits == CommitMode::BeforeHandling;
            if is_again {
                let subject = Subject::Delivery(read.client, read.p(), read.o());
                broken.insert((subject, Promise::when(is_forbidden)));
            }
        }
    }
    broken
}
