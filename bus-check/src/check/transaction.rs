//! F: transactions: all or nothing, seen only when committed, in order, and by their newest
//! producer.

use std::collections::{BTreeMap, BTreeSet};

use bus_core::{IsolationLevel, Offset, Recovery};

use super::producer::{initializations, newer_before};
use super::{Anomalies, Anomaly, Promise, Subject};
use crate::environment::CommitMode;
use crate::history::{Answer, Call, EntryId, NameId, OperationId, PartitionId, TopicId};
use crate::model::Model;
use crate::model::operations::{End, Send};
use crate::model::sessions::Read;
use crate::model::transactions::Transaction;

/// F1: a record of a transaction that was aborted is read.
pub(super) fn aborted_read(model: &Model<'_>, found: &mut Anomalies) {
    each_read(model, |read, send, transaction| {
        found.examined += 1;
        let Some(aborted) = transaction.aborted.filter(|_| transaction.is_not_committed()) else {
            return;
        };
        found.add(|| {
            let sentence = format!(
                "{} was given record {} at {}@{}, of a transaction that was aborted.",
                model.history.title(read.client),
                send.id,
                model.history.partition(read.partition()),
                read.offset()
            );
            let subject = Subject::Delivery(read.client, read.partition(), read.offset());
            let witness = [transaction.began, send.invoked, aborted, read.entry];
            Anomaly::new(subject, Promise::Required, witness, sentence)
        });
    });
}

/// F2: a record of a transaction is read before its commit is called for.
pub(super) fn dirty_read(model: &Model<'_>, found: &mut Anomalies) {
    each_read(model, |read, send, transaction| {
        found.examined += 1;
        if transaction.commit_invoked.is_some_and(|commit| commit < read.entry) {
            return;
        }
        found.add(|| {
            let sentence = format!(
                "{} was given record {} at {}@{}, of a transaction whose commit had not been \
                 called for.",
                model.history.title(read.client),
                send.id,
                model.history.partition(read.partition()),
                read.offset()
            );
            let subject = Subject::Delivery(read.client, read.partition(), read.offset());
            let witness = [Some(transaction.began), Some(send.invoked), Some(read.entry)];
            let witness = witness.into_iter().chain([transaction.commit_invoked]).flatten();
            Anomaly::new(subject, Promise::Required, witness, sentence)
        });
    });
}

/// Goes through the reads of transactional records by `read_committed` consumers.
fn each_read(model: &Model<'_>, mut act: impl FnMut(&Read<'_>, &Send<'_>, &Transaction)) {
    if model.transactions.is_empty() {
        return;
    }
    for read in &model.reads {
        let Some(send) = model.send_in(model.cell_of(read)) else { continue };
        let Some(transaction) = send.transaction else { continue };
        if model.isolation(read.client) == IsolationLevel::ReadCommitted {
            act(read, send, &model.transactions[transaction]);
        }
    }
}

/// What the audits say of a transaction.
struct Seen {
    /// A record that is visible, and the read that shows it.
    visible: Option<(OperationId, EntryId)>,
    /// A record that is in the log or was acknowledged, and is not visible.
    missing: Option<(OperationId, EntryId)>,
}

/// Looks for the records of a transaction in the audits; none if an audit is missing.
fn audited(model: &Model<'_>, transaction: &Transaction) -> Option<Seen> {
    let mut seen = Seen { visible: None, missing: None };
    for index in &transaction.sends {
        let send = &model.sends[*index];
        let place = match send.seen.as_slice() {
            [place] if send.is_exact => Some(*place),
            [] => None,
            _ => return None,
        };
        let Some(id) = place.map(|(id, _)| id).or_else(|| send.told.map(|(id, _)| id)) else {
            continue;
        };
        let log = &model.logs[id.index()];
        let audit = log.audits[1]?;
        if audit.began <= transaction.last || model.topic_of(id).is_deleted {
            return None;
        }
        let cell = place.map(|(id, cell)| &model.logs[id.index()].cells[cell]);
        let offset =
            cell.map(|cell| cell.offset).or_else(|| send.told.and_then(|(_, offset)| offset));
        if offset.is_some_and(|offset| offset < audit.low || model.is_deleted(id, offset)) {
            continue;
        }
        if cell.is_some_and(|cell| cell.audited[1]) {
            let read = model.sessions[audit.session]
                .reads
                .iter()
                .find(|read| Some(model.reads[**read].offset()) == offset);
            let entry = read.map_or(audit.noted, |read| model.reads[*read].entry);
            seen.visible.get_or_insert((send.id, entry));
        } else if cell.is_some() || send.end == End::Ok {
            seen.missing.get_or_insert((send.id, audit.noted));
        }
    }
    Some(seen)
}

/// Goes through all transactions with records that the audits decide.
fn each_audited(model: &Model<'_>, mut act: impl FnMut(&Transaction, &Seen)) {
    for transaction in model.transactions.iter().filter(|found| !found.sends.is_empty()) {
        if let Some(seen) = audited(model, transaction) {
            act(transaction, &seen);
        }
    }
}

fn torn_apart(
    model: &Model<'_>,
    transaction: &Transaction,
    seen: &Seen,
    (promise, what): (Promise, &str),
) -> Anomaly {
    let mut sentence = format!(
        "A transaction of {:?}, begun at {} s, {what}:",
        model.history.name(transaction.id),
        crate::history::text::seconds(model.at(transaction.began))
    );
    let visible = seen.visible.map(|(visible, _)| format!(" record {visible} is visible"));
    let missing = seen.missing.map(|(missing, _)| format!(" record {missing} is not"));
    let parts: Vec<_> = visible.into_iter().chain(missing).collect();
    sentence += &parts.join(" and");
    sentence += ".";
    let end = transaction.committed.or(transaction.aborted).or(transaction.commit_invoked);
    let entries = [seen.visible, seen.missing].into_iter().flatten().map(|(_, entry)| entry);
    let witness = [Some(transaction.began), end].into_iter().flatten().chain(entries);
    Anomaly::new(Subject::Transaction(transaction.began), promise, witness, sentence)
}

/// F4: some records of a transaction are visible in the end, and others are not.
pub(super) fn torn(model: &Model<'_>, found: &mut Anomalies) {
    each_audited(model, |transaction, seen| {
        found.examined += 1;
        if seen.visible.is_some() && seen.missing.is_some() {
            let promise = model.environment.is_kept();
            found.add(|| torn_apart(model, transaction, seen, (promise, "is torn")));
        }
    });
}

/// F5: records of a transaction that committed are not visible in the end.
pub(super) fn lost(model: &Model<'_>, found: &mut Anomalies) {
    each_audited(model, |transaction, seen| {
        found.examined += u64::from(transaction.committed.is_some());
        if transaction.committed.is_some() && seen.missing.is_some() {
            let promise = model.environment.is_kept();
            found.add(|| torn_apart(model, transaction, seen, (promise, "committed")));
        }
    });
}

/// F6: records of a transaction that did not commit are visible in the end.
pub(super) fn phantom(model: &Model<'_>, found: &mut Anomalies) {
    each_audited(model, |transaction, seen| {
        found.examined += u64::from(transaction.is_not_committed());
        if transaction.is_not_committed() && seen.visible.is_some() {
            found.add(|| {
                torn_apart(model, transaction, seen, (Promise::Required, "did not commit"))
            });
        }
    });
}

/// F7: of a transaction whose outcome is unknown, some records are visible and others are not.
pub(super) fn split(model: &Model<'_>, found: &mut Anomalies) {
    each_audited(model, |transaction, seen| {
        found.examined += u64::from(transaction.is_open());
        if transaction.is_open() && seen.visible.is_some() && seen.missing.is_some() {
            let promise = model.environment.is_kept();
            found.add(|| torn_apart(model, transaction, seen, (promise, "may have committed")));
        }
    });
}

/// F8: what is committed for a group is the offset of a transaction that did not commit.
pub(super) fn offsets(model: &Model<'_>, found: &mut Anomalies) {
    let mut sent: BTreeMap<(NameId, PartitionId, Offset), usize> = BTreeMap::new();
    for (index, transaction) in model.transactions.iter().enumerate() {
        if transaction.is_not_committed() {
            for (group, partition, offset, _) in &transaction.offsets {
                sent.entry((*group, *partition, *offset)).or_insert(index);
            }
        }
    }
    for operation in &model.operations {
        let (Some(asked), Some(answered), Some(answer)) =
            (operation.invoked, operation.ended, operation.answer)
        else {
            continue;
        };
        let group = model.history.consumer(operation.client).and_then(|facts| facts.group);
        let told: Vec<(NameId, PartitionId, Offset)> = match (operation.call, answer, group) {
            (Some(Call::Committed(partitions)), Answer::Committed(offsets), Some(group)) => {
                let told = partitions.iter().zip(offsets);
                told.filter_map(|(id, offset)| Some((group, *id, (*offset)?))).collect()
            }
            (Some(Call::GroupOffsets(group)), Answer::GroupOffsets(offsets), _) => {
                offsets.iter().map(|(id, offset, _)| (*group, *id, *offset)).collect()
            }
            _ => continue,
        };
        for (group, partition, offset) in told {
            found.examined += 1;
            let Some(index) = sent.get(&(group, partition, offset)) else { continue };
            let transaction = &model.transactions[*index];
            let window = asked..answered;
            let stability = crate::model::commits::Stability::Unstable;
            let others = model.commits.candidates((group, partition), &window, stability);
            if transaction.began > answered || others.contains(Some(offset)) {
                continue;
            }
            found.add(|| {
                let sentence = format!(
                    "Group {:?} has committed {}@{offset}, as a transaction that did not commit \
                     would have it.",
                    model.history.name(group),
                    model.history.partition(partition)
                );
                let end = transaction.aborted.unwrap_or(transaction.last);
                let witness = [transaction.began, end, asked, answered];
                let subject = Subject::Handled(group, partition, offset);
                Anomaly::new(subject, Promise::Required, witness, sentence)
            });
        }
    }
}

/// F9: a producer commits after a newer one of its transactional id was initialized.
pub(super) fn zombie(model: &Model<'_>, found: &mut Anomalies) {
    let initializations = initializations(model);
    for transaction in &model.transactions {
        let (Some(id), Some(committed)) = (transaction.last_commit, transaction.committed) else {
            continue;
        };
        found.examined += 1;
        let Some(invoked) = model.operation(id).invoked.filter(|_| !transaction.is_empty()) else {
            continue;
        };
        let newer = newer_before(model, &initializations, transaction.client, invoked);
        let Some(newer) = newer else { continue };
        found.add(|| {
            let sentence = format!(
                "{} committed a transaction, though a newer producer of {:?} was there before.",
                model.history.title(transaction.client),
                model.history.name(transaction.id)
            );
            let witness = [transaction.began, newer, invoked, committed];
            Anomaly::new(Subject::Operation(id), Promise::Required, witness, sentence)
        });
    }
}

/// Whether a record of a transaction counts: it committed, or somebody has seen that.
fn counts(model: &Model<'_>, send: &Send<'_>) -> bool {
    let Some(transaction) = send.transaction else { return false };
    let is_seen = send.is_exact
        && send.seen.iter().any(|(id, cell)| model.logs[id.index()].cells[*cell].seen_committed);
    is_seen || (model.transactions[transaction].committed.is_some() && send.end == End::Ok)
}

/// The claim that each input is processed once.
fn exactly_once(model: &Model<'_>) -> Promise {
    match model.environment.commits {
        CommitMode::Transactional => Promise::Required,
        CommitMode::Unknown => Promise::Open,
        CommitMode::AfterHandling | CommitMode::BeforeHandling => Promise::NotPromised,
    }
}

/// F10: two transactional outputs in one topic have one input, and both count.
pub(super) fn duplicate_output(model: &Model<'_>, found: &mut Anomalies) {
    let mut first: BTreeMap<(TopicId, PartitionId, Offset), usize> = BTreeMap::new();
    for (index, send) in model.sends.iter().enumerate() {
        let Some((cause, offset)) = send.record.cause.filter(|_| counts(model, send)) else {
            continue;
        };
        found.examined += 1;
        let earlier = *first.entry((send.record.topic, cause, offset)).or_insert(index);
        if earlier == index {
            continue;
        }
        let earlier = &model.sends[earlier];
        found.add(|| {
            let sentence = format!(
                "Records {} and {} are both made of {}@{offset}, and both count.",
                earlier.id,
                send.id,
                model.history.partition(cause)
            );
            let ended = |send: &Send<'_>| send.ended.unwrap_or(send.invoked);
            let witness = [earlier.invoked, ended(earlier), send.invoked, ended(send)];
            Anomaly::new(Subject::Operation(send.id), exactly_once(model), witness, sentence)
        });
    }
}

/// F11: a transaction has committed the offset of an input, and there is no output that counts.
pub(super) fn missing_output(model: &Model<'_>, found: &mut Anomalies) {
    let mut outputs: BTreeSet<(PartitionId, Offset)> = BTreeSet::new();
    let mut inputs: BTreeSet<TopicId> = BTreeSet::new();
    for send in &model.sends {
        let Some((cause, offset)) = send.record.cause else { continue };
        inputs.insert(model.history.topic_of(cause));
        if counts(model, send) {
            outputs.insert((cause, offset));
        }
    }
    let mut reached: BTreeMap<(NameId, PartitionId), Offset> = BTreeMap::new();
    for transaction in &model.transactions {
        let Some(committed) = transaction.committed else { continue };
        for (group, partition, offset, id) in &transaction.offsets {
            if !inputs.contains(&model.history.topic_of(*partition))
                || matches!(model.operation(*id).end, End::Fail(_))
            {
                continue;
            }
            let from = reached.get(&(*group, *partition)).copied().unwrap_or(0);
            reached.insert((*group, *partition), from.max(*offset));
            for cell in model.logs[partition.index()].range(from, *offset) {
                if !model.is_visible(cell, IsolationLevel::ReadCommitted) {
                    continue;
                }
                found.examined += 1;
                if outputs.contains(&(*partition, cell.offset)) {
                    continue;
                }
                found.add(|| {
                    let sentence = format!(
                        "A transaction of {:?} has committed {}@{offset}, and no output of {} \
                         counts.",
                        model.history.name(transaction.id),
                        model.history.partition(*partition),
                        cell.offset
                    );
                    let seen = cell.seen.map(|seen| model.reads[seen].entry);
                    let witness = seen.into_iter().chain([transaction.began, committed]);
                    let subject = Subject::Handled(*group, *partition, cell.offset);
                    Anomaly::new(subject, exactly_once(model), witness, sentence)
                });
            }
        }
    }
}

/// F12: the last stable offset is behind the high watermark, and no transaction is open.
pub(super) fn hanging(model: &Model<'_>, found: &mut Anomalies) {
    for (index, log) in model.logs.iter().enumerate() {
        let [Some(all), Some(committed)] = log.audits else { continue };
        if committed.began <= all.noted {
            continue;
        }
        let now = model.at(committed.began);
        let may_be_open = model.transactions.iter().any(|transaction| {
            let facts = model.history.producer(transaction.client);
            let timeout = facts
                .and_then(|facts| facts.transaction)
                .map_or(0, |(_, timeout)| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
            let settling = u64::try_from(model.environment.settling.as_nanos()).unwrap_or(u64::MAX);
            let due = model.at(transaction.last).saturating_add(timeout).saturating_add(settling);
            let is_over = transaction.committed.is_some() || transaction.aborted.is_some();
            !is_over && due > now
        });
        found.examined += 1;
        if committed.high >= all.high || may_be_open {
            continue;
        }
        found.add(|| {
            let id = PartitionId::from_index(index);
            let sentence = format!(
                "{} is readable to {} only, though it goes on to {} and no transaction is open.",
                model.history.partition(id),
                committed.high,
                all.high
            );
            let witness = [all.began, all.noted, committed.began, committed.noted];
            Anomaly::new(Subject::Partition(id), Promise::Required, witness, sentence)
        });
    }
}

/// F14: a record of a transaction is before one of an earlier transaction of its id.
pub(super) fn out_of_order(model: &Model<'_>, found: &mut Anomalies) {
    let mut committed: Vec<(EntryId, usize)> = model
        .transactions
        .iter()
        .enumerate()
        .filter_map(|(index, transaction)| Some((transaction.committed?, index)))
        .collect();
    committed.sort_unstable();
    let mut committed = committed.into_iter().peekable();
    let mut highest: BTreeMap<(NameId, PartitionId), (Offset, usize)> = BTreeMap::new();
    for transaction in &model.transactions {
        while let Some((_, index)) = committed.next_if(|(at, _)| *at < transaction.began) {
            let earlier = &model.transactions[index];
            for (id, offset) in places(model, earlier) {
                let last = highest.entry((earlier.id, id)).or_insert((offset, index));
                if last.0 < offset {
                    *last = (offset, index);
                }
            }
        }
        if transaction.committed.is_none() {
            continue;
        }
        found.examined += 1;
        let inverted = places(model, transaction).find_map(|(id, offset)| {
            let last = highest.get(&(transaction.id, id)).filter(|last| last.0 > offset)?;
            Some((id, offset, *last))
        });
        let Some((id, offset, (higher, earlier))) = inverted else { continue };
        let earlier = &model.transactions[earlier];
        found.add(|| {
            let sentence = format!(
                "A transaction of {:?} has {}@{offset}, before {higher} of one that had committed \
                 when it began.",
                model.history.name(transaction.id),
                model.history.partition(id)
            );
            let last = transaction.committed.unwrap_or(transaction.last);
            let witness =
                [earlier.began, earlier.committed.unwrap_or(earlier.last), transaction.began, last];
            let subject = Subject::Transaction(transaction.began);
            Anomaly::new(subject, model.environment.is_kept(), witness, sentence)
        });
    }
}

/// F19: a transaction committed although one of its records was not delivered.
pub(super) fn incomplete_commit(model: &Model<'_>, found: &mut Anomalies) {
    for transaction in &model.transactions {
        let Some(committed) = transaction.committed else { continue };
        found.examined += 1;
        let failed = transaction.sends.iter().find_map(|index| {
            let send = &model.sends[*index];
            let ended = send.ended.filter(|ended| *ended < committed)?;
            let failure = send.end.failure().filter(|found| found.recovery == Recovery::Abort)?;
            Some((send, ended, failure))
        });
        let Some((send, ended, failure)) = failed else { continue };
        found.add(|| {
            let sentence = format!(
                "A transaction of {:?} committed although record {} had failed ({}).",
                model.history.name(transaction.id),
                send.id,
                failure.kind
            );
            let witness = [transaction.began, send.invoked, ended, committed];
            let subject = Subject::Transaction(transaction.began);
            Anomaly::new(subject, Promise::Required, witness, sentence)
        });
    }
}

/// Where the records of a transaction are, beyond doubt.
fn places<'m>(
    model: &'m Model<'_>,
    transaction: &'m Transaction,
) -> impl Iterator<Item = (PartitionId, Offset)> + 'm {
    transaction.sends.iter().filter_map(|index| {
        let send = &model.sends[*index];
        match send.seen.as_slice() {
            [(id, cell)] if send.is_exact => {
                Some((*id, model.logs[id.index()].cells[*cell].offset))
            }
            _ => None,
        }
    })
}
