//! A: what is at an offset, and that it is what was sent.

use std::collections::BTreeMap;

use bus_core::{Acks, Offset, Partition};

use super::{Anomalies, Anomaly, Promise, Subject};
use crate::history::{EntryId, PartitionId};
use crate::model::Model;
use crate::model::log::{Cell, Log, Source, audit_of};
use crate::model::operations::Send;
use crate::truth::Question;

/// A1: two observations of an offset are of different records.
pub(super) fn inconsistent_offset(model: &Model<'_>, found: &mut Anomalies) {
    for (id, log) in logs(model) {
        found.examined += log.cells.len() as u64;
        for cell in &log.cells {
            let observations = &log.observations[cell.observations.clone()];
            if observations.len() < 2 {
                continue;
            }
            let first = observations[0].source;
            // Any two that differ show in comparison with the first of their kind.
            let firsts = [Some(first), cell.told.map(Source::Told), cell.seen.map(Source::Seen)];
            let conflict = observations[1..].iter().find_map(|observation| {
                let other = observation.source;
                let firsts = firsts.iter().flatten();
                let one = firsts.copied().find(|one| differ(model, *one, other))?;
                Some((one, other))
            });
            let Some((one, other)) = conflict else { continue };
            found.add(|| {
                let place = Subject::Place(id, cell.offset);
                let promise = promise_of(model, one).and(promise_of(model, other));
                let sentence = format!(
                    "{}@{} is {} and {}.",
                    model.history.partition(id),
                    cell.offset,
                    said(model, one),
                    said(model, other)
                );
                let witness = [entry_of(model, one), entry_of(model, other)];
                Anomaly::new(place, promise, witness, sentence).asking(lost(model, id, cell.offset))
            });
        }
    }
}

/// A2: one send is at more than one offset.
pub(super) fn duplicate_append(model: &Model<'_>, found: &mut Anomalies) {
    found.examined += model.sends.len() as u64;
    for send in model.sends.iter().filter(|send| send.seen.len() > 1) {
        found.add(|| {
            let facts = model.history.producer(send.client);
            let promise = Promise::when(
                facts.is_some_and(|facts| facts.is_idempotent() || facts.retries == 0),
            );
            let (places, entries) = seen_at(model, send);
            let sentence = format!(
                "Record {} of {} was sent once and is at {}.",
                send.id,
                model.history.title(send.client),
                places.join(" and ")
            );
            let offsets =
                send.seen.iter().map(|(id, cell)| model.logs[id.index()].cells[*cell].offset);
            let question = Question::Duplicated {
                topic_partition: model.history.partition(send.seen[0].0),
                offsets: offsets.collect(),
            };
            let witness = std::iter::once(send.invoked).chain(entries);
            Anomaly::new(Subject::Operation(send.id), promise, witness, sentence).asking(question)
        });
    }
}

/// A3: what was read was never sent there, or only later.
pub(super) fn garbage_read(model: &Model<'_>, found: &mut Anomalies) {
    for (id, log) in logs(model) {
        let is_foreign = model.topic_of(id).is_foreign;
        for cell in &log.cells {
            let Some(seen) = cell.seen else { continue };
            found.examined += 1;
            let read = &model.reads[seen];
            let subject = Subject::Place(id, cell.offset);
            match cell.send {
                // What was told to be there and looks different was changed on its way.
                None if cell.told.is_none() && !is_foreign => found.add(|| {
                    let sentence = format!(
                        "{} was given {}@{}, which nobody has sent there.",
                        model.history.title(read.client),
                        model.history.partition(id),
                        cell.offset
                    );
                    Anomaly::new(subject, Promise::Required, [read.entry], sentence)
                }),
                Some(send) if cell.is_exact && model.sends[send].invoked > read.entry => {
                    let send = &model.sends[send];
                    found.add(|| {
                        let sentence = format!(
                            "{}@{} was read before record {} was sent.",
                            model.history.partition(id),
                            cell.offset,
                            send.id
                        );
                        let witness = [read.entry, send.invoked];
                        Anomaly::new(subject, Promise::Required, witness, sentence)
                    });
                }
                _ => {}
            }
        }
    }
}

/// A4: what was read is not what was sent.
pub(super) fn mutated_record(model: &Model<'_>, found: &mut Anomalies) {
    for (id, log) in logs(model) {
        let mut last_append: Option<(i32, i64, EntryId)> = None;
        for cell in &log.cells {
            let Some(seen) = cell.seen else { continue };
            found.examined += 1;
            let read = &model.reads[seen];
            if let Some(what) = changed(model, cell) {
                let send = cell.send.or(cell.told).map(|send| &model.sends[send]);
                if let Some(send) = send {
                    found.add(|| {
                        let sentence = format!(
                            "Record {} of {} was read at {}@{} with another {what}.",
                            send.id,
                            model.history.title(send.client),
                            model.history.partition(id),
                            cell.offset
                        );
                        let witness =
                            [send.invoked, send.ended.unwrap_or(send.invoked), read.entry];
                        let subject = Subject::Operation(send.id);
                        // By its offset alone it may be another one, if that was given out again.
                        Anomaly::new(subject, model.environment.is_not_cut(), witness, sentence)
                            .asking(lost(model, id, cell.offset))
                    });
                }
            }
            let epoch = read.record.leader_epoch.filter(|_| read.record.is_log_append_time);
            let Some(epoch) = epoch else { continue };
            let appended = read.record.timestamp;
            if let Some((last_epoch, last, entry)) = last_append
                && last_epoch == epoch
                && appended < last
            {
                found.add(|| {
                    let sentence = format!(
                        "The time of the append goes back at {}@{}.",
                        model.history.partition(id),
                        cell.offset
                    );
                    let subject = Subject::Place(id, cell.offset);
                    Anomaly::new(subject, Promise::Required, [entry, read.entry], sentence)
                });
            }
            last_append = Some((epoch, appended, read.entry));
        }
    }
}

/// A5: a record is in a partition that was not asked for.
pub(super) fn misrouted_record(model: &Model<'_>, found: &mut Anomalies) {
    for send in &model.sends {
        let topic = &model.topics[send.record.topic.index()];
        let seen = (send.is_exact && send.seen.len() == 1).then(|| send.seen[0].0);
        let Some(id) = send.told.map(|(id, _)| id).or(seen) else { continue };
        let (place, number) = model.history.partitions()[id.index()];
        let until = send.ended.unwrap_or(EntryId(u32::MAX));
        let expected: Vec<Partition> = match (send.record.partition, send.record.key) {
            (Some(partition), _) => vec![partition],
            (None, Some(hash)) => {
                let known = topic.counts.iter().filter(|(_, told)| **told < until);
                known.map(|(count, _)| partition_of(hash, *count)).collect()
            }
            (None, None) => Vec::new(),
        };
        if expected.is_empty() || topic.is_deleted {
            continue;
        }
        found.examined += 1;
        if place == send.record.topic && expected.contains(&number) {
            continue;
        }
        found.add(|| {
            let sentence = format!(
                "Record {} of {} went to {}; expected is partition {}.",
                send.id,
                model.history.title(send.client),
                model.history.partition(id),
                expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
            );
            let witness = [send.invoked, send.ended.unwrap_or(send.invoked)];
            Anomaly::new(Subject::Operation(send.id), Promise::Required, witness, sentence)
        });
    }
}

/// A6: an audit finds nothing at an offset below the end.
pub(super) fn hole(model: &Model<'_>, found: &mut Anomalies) {
    for (id, log) in logs(model) {
        let Some(audit) = log.audits[0] else { continue };
        let topic = model.topic_of(id);
        let promise = Promise::when(!topic.is_transactional && !topic.is_foreign)
            .and(model.environment.stays());
        let mut expected = audit.low.max(log.deleted_below.min(audit.high));
        let audited = log.range(expected, audit.high).iter().filter(|cell| cell.audited[0]);
        let offsets = audited.map(|cell| cell.offset).chain([audit.high]);
        for offset in offsets {
            found.examined += 1;
            if offset > expected && promise == Promise::Required {
                found.add(|| {
                    let sentence = format!(
                        "{} has nothing at {expected}, but goes on at {offset}.",
                        model.history.partition(id)
                    );
                    let subject = Subject::Place(id, expected);
                    Anomaly::new(subject, promise, [audit.began, audit.noted], sentence)
                        .asking(lost(model, id, expected))
                });
            }
            expected = offset + 1;
        }
    }
}

/// A7: a session reads below a log start that was told before it began.
pub(super) fn read_below_start(model: &Model<'_>, found: &mut Anomalies) {
    for session in &model.sessions {
        let starts = &model.logs[session.partition.index()].starts;
        let known = starts.partition_point(|(told, _)| *told < session.invoked);
        let Some((told, low)) = known.checked_sub(1).map(|last| starts[last]) else { continue };
        for index in &session.reads {
            found.examined += 1;
            let read = &model.reads[*index];
            if read.offset() >= low {
                continue;
            }
            found.add(|| {
                let sentence = format!(
                    "{} was given {}@{} in a session that began after the log start was {low}.",
                    model.history.title(read.client),
                    model.history.partition(session.partition),
                    read.offset()
                );
                let subject = Subject::Delivery(read.client, session.partition, read.offset());
                let promise = model.environment.is_kept();
                Anomaly::new(subject, promise, [told, session.began, read.entry], sentence)
            });
        }
    }
}

/// A8: a record is not at the offset that its producer was told.
pub(super) fn wrong_offset_told(model: &Model<'_>, found: &mut Anomalies) {
    for (index, send) in model.sends.iter().enumerate() {
        let Some((id, offset)) = send.told_offset() else { continue };
        if model.topic_of(id).is_deleted {
            continue;
        }
        found.examined += 1;
        let ended = send.ended.unwrap_or(send.invoked);
        let acks = model.history.producer(send.client).map(|facts| facts.acks);
        if acks == Some(Acks::None) {
            found.add(|| {
                let sentence = format!("Record {} was told offset {offset}, with acks 0.", send.id);
                let witness = [send.invoked, ended];
                Anomaly::new(Subject::Operation(send.id), Promise::Required, witness, sentence)
            });
            continue;
        }
        let Some((elsewhere, read)) = true_place(model, index, send, (id, offset)) else {
            continue;
        };
        found.add(|| {
            let sentence = format!(
                "Record {} of {} was told {}@{offset} and is at {elsewhere}.",
                send.id,
                model.history.title(send.client),
                model.history.partition(id)
            );
            let witness = [send.invoked, ended, read];
            let promise = model.environment.is_not_cut();
            Anomaly::new(Subject::Operation(send.id), promise, witness, sentence)
                .asking(lost(model, id, offset))
        });
    }
}

/// Where a record is that is certainly not where it was told, and the entry that shows it.
fn true_place(
    model: &Model<'_>,
    index: usize,
    send: &Send<'_>,
    (id, offset): (PartitionId, Offset),
) -> Option<(String, EntryId)> {
    if !send.is_exact {
        return None;
    }
    let log = &model.logs[id.index()];
    let told = log.at(offset);
    if told.is_some_and(|cell| cell.seen.is_some() && cell.send == Some(index)) {
        return None;
    }
    let is_seen = told.is_some_and(|cell| cell.seen.is_some());
    let is_absent = log.audits[0].is_some_and(|audit| {
        let is_audited = told.is_some_and(|cell| cell.audited[0]);
        send.ended.is_some_and(|ended| ended < audit.began) && offset >= audit.low && !is_audited
    });
    if !is_seen && !is_absent {
        return None;
    }
    let (at, cell) = *send.seen.first()?;
    let cell = &model.logs[at.index()].cells[cell];
    let place = format!("{}@{}", model.history.partition(at), cell.offset);
    Some((place, model.reads[cell.seen?].entry))
}

/// A10: after the same record, two sessions of one isolation level see different ones.
pub(super) fn disagreeing_neighbors(model: &Model<'_>, found: &mut Anomalies) {
    let mut next: Vec<Vec<[Option<usize>; 2]>> =
        model.logs.iter().map(|log| vec![[None; 2]; log.cells.len()]).collect();
    for session in &model.sessions {
        let isolation = audit_of(model.isolation(session.client));
        for pair in session.reads.windows(2) {
            let (one, other) = (&model.reads[pair[0]], &model.reads[pair[1]]);
            if other.offset() <= one.offset() {
                continue;
            }
            found.examined += 1;
            let slot = &mut next[session.partition.index()][one.cell][isolation];
            let first = *slot.get_or_insert(pair[1]);
            let first = &model.reads[first];
            if first.offset() == other.offset() {
                continue;
            }
            found.add(|| {
                let sentence = format!(
                    "After {}@{}, {} was given {} next, and {} was given {}.",
                    model.history.partition(session.partition),
                    one.offset(),
                    model.history.title(first.client),
                    first.offset(),
                    model.history.title(other.client),
                    other.offset()
                );
                let subject = Subject::Delivery(other.client, session.partition, one.offset());
                let promise = model.environment.is_not_cut().and(model.environment.stays());
                Anomaly::new(subject, promise, [first.entry, one.entry, other.entry], sentence)
            });
        }
    }
}

/// The logs of topics that were not deleted.
fn logs<'m>(model: &'m Model<'_>) -> impl Iterator<Item = (PartitionId, &'m Log)> {
    let logs = model.logs.iter().enumerate();
    let logs = logs.map(|(index, log)| (PartitionId::from_index(index), log));
    logs.filter(|(id, _)| !model.topic_of(*id).is_deleted)
}

fn differ(model: &Model<'_>, one: Source, other: Source) -> bool {
    let digest = |source| match source {
        Source::Told(send) => model.sends[send].record.digest,
        Source::Seen(read) => model.reads[read].record.digest,
    };
    match (one, other) {
        (Source::Told(one), Source::Told(other)) => one != other,
        (Source::Seen(_), Source::Seen(_)) => digest(one) != digest(other),
        // Contents that nobody has sent are no other record, but a changed one.
        (Source::Told(_), Source::Seen(seen)) | (Source::Seen(seen), Source::Told(_)) => {
            let cell = model.cell_of(&model.reads[seen]);
            digest(one) != digest(other) && cell.send.is_some()
        }
    }
}

/// What an observation promises: consumers see only what is replicated; what a producer is told
/// holds if its acks say so and the cluster keeps it.
fn promise_of(model: &Model<'_>, source: Source) -> Promise {
    match source {
        Source::Seen(_) => model.environment.is_not_cut(),
        Source::Told(send) => {
            let facts = model.history.producer(model.sends[send].client);
            Promise::when(facts.is_some_and(|facts| facts.acks == Acks::All))
                .and(model.environment.is_kept())
        }
    }
}

fn entry_of(model: &Model<'_>, source: Source) -> EntryId {
    match source {
        Source::Told(send) => model.sends[send].ended.unwrap_or(model.sends[send].invoked),
        Source::Seen(read) => model.reads[read].entry,
    }
}

fn said(model: &Model<'_>, source: Source) -> String {
    match source {
        Source::Told(send) => format!("record {}, as its producer was told", model.sends[send].id),
        Source::Seen(read) => {
            let read = &model.reads[read];
            let cell = model.cell_of(read);
            let is_first =
                cell.seen.is_some_and(|seen| model.reads[seen].record.digest == read.record.digest);
            let title = model.history.title(read.client);
            match cell.send.filter(|_| is_first) {
                Some(send) => format!("record {}, as {title} saw", model.sends[send].id),
                None => format!("another record [{:08x}] for {title}", read.record.digest >> 32),
            }
        }
    }
}

/// What of a record is not as it was sent.
fn changed(model: &Model<'_>, cell: &Cell) -> Option<&'static str> {
    let read = &model.reads[cell.seen?];
    let Some(send) = cell.send else {
        // Something was told to be here, and what is here was never sent.
        return cell.told.map(|_| "key, value, or header");
    };
    if !cell.is_exact || read.record.is_log_append_time {
        return None;
    }
    let send = &model.sends[send];
    let timestamp = read.record.timestamp;
    let is_right = match send.record.timestamp {
        Some(sent) => timestamp == sent,
        None => {
            let is_told = send.told_timestamp.is_none_or(|told| told == timestamp);
            is_told && (timestamp >= send.record.now || !model.history.is_exact())
        }
    };
    (!is_right).then_some("timestamp")
}

/// The places of a record, and the entries that show each.
fn seen_at(model: &Model<'_>, send: &Send<'_>) -> (Vec<String>, Vec<EntryId>) {
    let mut places = BTreeMap::new();
    for (id, cell) in send.seen.iter().take(3) {
        let cell = &model.logs[id.index()].cells[*cell];
        let place = format!("{}@{}", model.history.partition(*id), cell.offset);
        if let Some(seen) = cell.seen {
            places.insert((*id, cell.offset), (place, model.reads[seen].entry));
        }
    }
    places.into_values().unzip()
}

fn partition_of(hash: i32, partitions: Partition) -> Partition {
    (hash & 0x7fff_ffff) % partitions.max(1)
}

pub(super) fn lost(model: &Model<'_>, id: PartitionId, offset: Offset) -> Question {
    Question::Lost { topic_partition: model.history.partition(id), offset }
}
