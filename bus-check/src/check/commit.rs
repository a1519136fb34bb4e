//! E, commits: they are kept, they pass nothing that was not done, and they are followed.

use std::collections::{BTreeMap, BTreeSet};

use bus_core::{IsolationLevel, Offset, OffsetReset};

use super::{Anomalies, Anomaly, Promise, Subject};
use crate::environment::CommitMode;
use crate::history::{Answer, Call, ClientId, EntryId, NameId, Note, PartitionId, What};
use crate::model::Model;
use crate::model::commits::{Candidates, Stability};
use crate::model::operations::End;
use crate::model::sessions::Origin;
use crate::truth::Question;

/// What somebody was told is committed.
struct Told {
    group: NameId,
    partition: PartitionId,
    offset: Option<Offset>,
    asked: EntryId,
    answered: EntryId,
    candidates: Candidates,
}

/// E4: what is committed was committed by nobody.
pub(super) fn out_of_nowhere(model: &Model<'_>, found: &mut Anomalies) {
    each_told(model, |told| {
        found.examined += 1;
        if is_beyond(&told) && !commits_itself(model, told.group) {
            found.add(|| wrong(model, &told, "which nobody has committed"));
        }
    });
}

/// E5: a commit passes what the group was not given, or has not settled.
pub(super) fn too_far(model: &Model<'_>, found: &mut Anomalies) {
    each_told(model, |told| {
        if commits_itself(model, told.group) {
            found.examined += 1;
            if is_beyond(&told) {
                found.add(|| wrong(model, &told, "which passes what was given to the group"));
            }
        }
    });
    explicit(model, found);
}

/// E8: what is committed is less than what was committed last.
///
/// A coordinator that has just taken over answers by what lies below the high watermark that it
/// knows, which may be one fetch behind what the one before it acknowledged. So until all has
/// settled an old answer is an anomaly that needs a cause.
pub(super) fn lost(model: &Model<'_>, found: &mut Anomalies) {
    each_told(model, |told| {
        found.examined += 1;
        if told.candidates.contains(told.offset) || is_beyond(&told) {
            return;
        }
        found.add(|| {
            let last = told.candidates.commits.iter().map(|commit| commit.offset).max();
            let last =
                last.map_or_else(String::new, |last| format!(", after {last} was committed"));
            let mut anomaly = wrong(model, &told, "which is not what was committed last");
            anomaly.sentence.truncate(anomaly.sentence.len() - 1);
            anomaly.sentence += &last;
            anomaly.sentence += ".";
            if !model.is_settled(told.asked) {
                let group_id = model.history.name(told.group).to_owned();
                anomaly.promise = Promise::NotPromised;
                let since = model.at(told.asked);
                return anomaly.asking(Question::OldCommit { group_id, since });
            }
            anomaly
        });
    });
}

fn is_beyond(told: &Told) -> bool {
    let Some(offset) = told.offset.filter(|_| !told.candidates.contains(told.offset)) else {
        return false;
    };
    told.candidates.offsets().max().is_none_or(|max| max < offset)
}

/// Whether a consumer of the group commits by itself.
fn commits_itself(model: &Model<'_>, group: NameId) -> bool {
    let mut clients = (0..model.history.clients().len()).map(ClientId::from_index);
    clients.any(|client| {
        model
            .history
            .consumer(client)
            .is_some_and(|facts| facts.auto_commit && facts.group == Some(group))
    })
}

fn wrong(model: &Model<'_>, told: &Told, why: &str) -> Anomaly {
    let topic_partition = model.history.partition(told.partition);
    let offset = told.offset.map_or_else(|| "nothing".to_owned(), |offset| offset.to_string());
    let sentence = format!(
        "Group {:?} was told to have committed {offset} for {topic_partition}, {why}.",
        model.history.name(told.group)
    );
    let last = told.candidates.commits.iter().max_by_key(|commit| commit.offset);
    let witness = [last.map(|last| last.invoked), last.and_then(|last| last.ended)];
    let witness = witness.into_iter().flatten().chain([told.asked, told.answered]);
    let to = told.offset.unwrap_or(-1);
    let from = last.map_or(to, |last| last.offset);
    let subject = Subject::Handled(told.group, told.partition, to);
    Anomaly::new(subject, model.environment.is_kept_of_groups(), witness, sentence)
        .asking(Question::Moved { topic_partition, from, to })
}

/// Goes through all answers that say what is committed.
fn each_told(model: &Model<'_>, mut act: impl FnMut(Told)) {
    for operation in &model.operations {
        let (Some(asked), Some(answered), Some(answer)) =
            (operation.invoked, operation.ended, operation.answer)
        else {
            continue;
        };
        let window = asked..answered;
        let told = |group, partition, offset, stability| {
            let candidates = model.commits.candidates((group, partition), &window, stability);
            Told { group, partition, offset, asked, answered, candidates }
        };
        match (operation.call, answer) {
            (Some(Call::Committed(partitions)), Answer::Committed(offsets)) => {
                let Some(facts) = model.history.consumer(operation.client) else { continue };
                let Some(group) = facts.group else { continue };
                let stability = match facts.isolation {
                    IsolationLevel::ReadCommitted => Stability::Stable,
                    IsolationLevel::ReadUncommitted => Stability::Unstable,
                };
                for (partition, offset) in partitions.iter().zip(offsets) {
                    if !model.topic_of(*partition).is_deleted {
                        act(told(group, *partition, *offset, stability));
                    }
                }
            }
            (Some(Call::GroupOffsets(group)), Answer::GroupOffsets(offsets)) => {
                for (partition, offset, _) in offsets {
                    if !model.topic_of(*partition).is_deleted {
                        act(told(*group, *partition, Some(*offset), Stability::Unstable));
                    }
                }
            }
            _ => {}
        }
    }
}

/// What is open in a partition of a consumer.
#[derive(Default)]
struct Position {
    session: Option<usize>,
    /// The last record that was given, and its entry.
    last: Option<(Offset, EntryId)>,
    /// What was given and is not settled.
    unsettled: BTreeSet<Offset>,
}

/// E5 of explicit commits: of what lies below the commit in the current session, something was not
/// given, or is not settled where that is noted.
fn explicit(model: &Model<'_>, found: &mut Anomalies) {
    let handling = handling(model);
    let mut positions: BTreeMap<(ClientId, PartitionId), Position> = BTreeMap::new();
    let mut reads = model.reads.iter().peekable();
    // What was given before a seek or a new assignment says nothing of what is committed after it.
    let mut sessions = model.sessions.iter().enumerate().peekable();
    let mut current: BTreeMap<(ClientId, PartitionId), usize> = BTreeMap::new();
    for (at, entry) in model.history.iter() {
        while let Some((index, session)) = sessions.next_if(|(_, session)| session.began < at) {
            current.insert((session.client, session.partition), index);
        }
        while let Some(read) = reads.next_if(|read| read.entry <= at) {
            let position = positions.entry((read.client, read.partition())).or_default();
            if position.session != read.session {
                let session = read.session;
                *position = Position { session, ..Default::default() };
            }
            position.last = Some((read.offset(), read.entry));
            if handling.contains(&read.client) {
                position.unsettled.insert(read.offset());
            }
        }
        match &entry.what {
            What::Note(Note::HandleEnd(partition, offset, handled)) if handled.is_settled() => {
                if let Some(position) = positions.get_mut(&(entry.client, *partition)) {
                    position.unsettled.remove(offset);
                }
            }
            What::Invoke(id, Call::Commit(offsets)) => {
                let operation = model.operation(*id);
                if matches!(operation.end, End::Fail(_)) {
                    continue;
                }
                for (partition, offset) in offsets {
                    let key = (entry.client, *partition);
                    let position = positions.get(&key);
                    let position =
                        position.filter(|position| position.session == current.get(&key).copied());
                    let Some(position) = position else { continue };
                    found.examined += 1;
                    let passed = passed(model, (entry.client, *partition), position, *offset);
                    let Some((passed, evidence)) = passed else { continue };
                    found.add(|| {
                        let sentence = format!(
                            "{} committed {}@{offset}, but {passed} was not {}.",
                            model.history.title(entry.client),
                            model.history.partition(*partition),
                            if evidence.is_some() { "given to it" } else { "settled" }
                        );
                        let witness = [position.last.map(|(_, entry)| entry), Some(at), evidence];
                        let witness = witness.into_iter().chain([operation.ended]).flatten();
                        Anomaly::new(Subject::Operation(*id), claimed(model), witness, sentence)
                    });
                }
            }
            _ => {}
        }
    }
}

/// A record below a commit that was not given (and the entry that shows that it is there), or that
/// is not settled.
fn passed(
    model: &Model<'_>,
    (client, partition): (ClientId, PartitionId),
    position: &Position,
    offset: Offset,
) -> Option<(Offset, Option<EntryId>)> {
    let (last, _) = position.last?;
    if let Some(unsettled) = position.unsettled.range(..offset).next() {
        return Some((*unsettled, None));
    }
    position.session?;
    let isolation = model.isolation(client);
    let log = &model.logs[partition.index()];
    let cell = log.range(last + 1, offset).iter().find(|cell| {
        model.is_visible(cell, isolation) && !model.is_deleted(partition, cell.offset)
    })?;
    Some((cell.offset, cell.seen.map(|seen| model.reads[seen].entry)))
}

/// The consumers whose handling is noted.
fn handling(model: &Model<'_>) -> BTreeSet<ClientId> {
    let entries = model.history.entries().iter();
    entries
        .filter(|entry| {
            matches!(entry.what, What::Note(Note::HandleStart(..) | Note::HandleEnd(..)))
        })
        .map(|entry| entry.client)
        .collect()
}

/// What the application claims of its commits.
fn claimed(model: &Model<'_>) -> Promise {
    match model.environment.commits {
        CommitMode::AfterHandling | CommitMode::Transactional => Promise::Required,
        CommitMode::Unknown => Promise::Open,
        CommitMode::BeforeHandling => Promise::NotPromised,
    }
}

/// E6: the group has committed past a visible record that none of its consumers was given.
pub(super) fn skipped(model: &Model<'_>, found: &mut Anomalies) {
    let given = given(model);
    let end = EntryId::from_index(model.history.entries().len());
    let keys: Vec<_> = model.commits.keys().collect();
    for (group, partition) in keys {
        if model.topic_of(partition).is_deleted || is_reset(model, group) {
            continue;
        }
        let last = model.commits.candidates((group, partition), &(end..end), Stability::Unstable);
        let Some(passed) = last.offsets().min().filter(|_| !last.maybe_none) else { continue };
        let given = given.get(&(group, partition));
        let Some(from) = start(model, group, given) else { continue };
        let log = &model.logs[partition.index()];
        for cell in log.range(from, passed) {
            if !model.is_visible(cell, IsolationLevel::ReadCommitted)
                || model.is_deleted(partition, cell.offset)
            {
                continue;
            }
            found.examined += 1;
            if given.is_some_and(|given| given.binary_search(&cell.offset).is_ok()) {
                continue;
            }
            found.add(|| {
                let topic_partition = model.history.partition(partition);
                let sentence = format!(
                    "Group {:?} has committed {passed} for {topic_partition} and was never given \
                     {}.",
                    model.history.name(group),
                    cell.offset
                );
                let commit = last.commits.iter().min_by_key(|commit| commit.offset);
                let witness = [
                    cell.seen.map(|seen| model.reads[seen].entry),
                    commit.map(|commit| commit.invoked),
                    commit.and_then(|commit| commit.ended),
                ];
                let subject = Subject::Handled(group, partition, cell.offset);
                let (stays, is_not_cut) =
                    (model.environment.stays(), model.environment.is_not_cut());
                let promise = claimed(model).and(stays).and(is_not_cut);
                let question = Question::Lost { topic_partition, offset: cell.offset };
                Anomaly::new(subject, promise, witness.into_iter().flatten(), sentence)
                    .asking(question)
            });
        }
    }
}

/// What the consumers of each group were given, in the order of offsets.
fn given(model: &Model<'_>) -> BTreeMap<(NameId, PartitionId), Vec<Offset>> {
    let mut given: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for read in &model.reads {
        let facts = model.history.consumer(read.client);
        if let Some(group) = facts.and_then(|facts| facts.group) {
            given.entry((group, read.partition())).or_default().push(read.offset());
        }
    }
    given.values_mut().for_each(|offsets| offsets.sort_unstable());
    given
}

/// From where on a group must be given everything.
fn start(model: &Model<'_>, group: NameId, given: Option<&Vec<Offset>>) -> Option<Offset> {
    let mut clients = (0..model.history.clients().len()).map(ClientId::from_index);
    let all_earliest = clients.all(|client| {
        model
            .history
            .consumer(client)
            .is_none_or(|facts| facts.group != Some(group) || facts.reset == OffsetReset::Earliest)
    });
    if all_earliest { Some(0) } else { given?.first().copied() }
}

/// Whether an administrator or a seek has moved the group.
fn is_reset(model: &Model<'_>, group: NameId) -> bool {
    model.operations.iter().any(|operation| match operation.call {
        Some(Call::AlterGroupOffsets { group: other, .. } | Call::DeleteGroup(other)) => {
            *other == group
        }
        Some(Call::Seek(..) | Call::Assign(_)) => {
            let facts = model.history.consumer(operation.client);
            facts.is_some_and(|facts| facts.group == Some(group))
        }
        _ => false,
    })
}

/// E7: a record is given to a group again by a later session. That is permitted, and explained by
/// the session, unless all that can have been committed is behind the record, or the application
/// commits before it handles.
pub(super) fn given_again(model: &Model<'_>, found: &mut Anomalies) {
    let is_at_most_once = model.environment.commits == CommitMode::BeforeHandling;
    // The first read of each cell.
    let mut first: BTreeMap<(NameId, PartitionId), Vec<Option<EntryId>>> = BTreeMap::new();
    for session in model.sessions.iter().filter(|session| session.origin == Origin::Group) {
        let facts = model.history.consumer(session.client);
        let Some(group) = facts.and_then(|facts| facts.group) else { continue };
        let key = (group, session.partition);
        let Some(start) = session.reads.first() else { continue };
        let window = session.invoked..model.reads[*start].entry;
        let committed = model.commits.candidates(key, &window, Stability::Unstable);
        let least = committed.offsets().min().filter(|_| !committed.maybe_none);
        let cells = model.logs[session.partition.index()].cells.len();
        let first = first.entry(key).or_insert_with(|| vec![None; cells]);
        for index in &session.reads {
            let read = &model.reads[*index];
            found.examined += 1;
            let earlier = *first[read.cell].get_or_insert(read.entry);
            let is_again = earlier < session.invoked;
            let is_committed = least.is_some_and(|least| read.offset() < least);
            if !is_again {
                continue;
            }
            let promise = Promise::when(is_committed || is_at_most_once);
            found.add(|| {
                let topic_partition = model.history.partition(session.partition);
                let group_id = model.history.name(group).to_owned();
                let offset = read.offset();
                let sentence = format!(
                    "{} was given {topic_partition}@{offset}, which group {group_id:?} had been \
                     given before{}.",
                    model.history.title(read.client),
                    if is_committed { " and had committed" } else { "" }
                );
                let commit = committed.commits.iter().min_by_key(|commit| commit.offset);
                let commit = commit.filter(|_| is_committed).and_then(|commit| commit.ended);
                let witness = [Some(earlier), commit, Some(session.began), Some(read.entry)];
                let subject = Subject::Delivery(read.client, session.partition, offset);
                // What was not committed, its new owner must be given again.
                Anomaly::new(subject, promise, witness.into_iter().flatten(), sentence)
                    .explained_by(session.began)
                    .asking(Question::Redelivered { group_id, topic_partition, offset })
            });
        }
    }
}
