//! B: what was acknowledged is there, what was refused is not, and ends do not go back.

use std::collections::BTreeMap;

use bus_core::{Acks, Offset};

use super::{Anomalies, Anomaly, Promise, Subject, log};
use crate::history::{Answer, Call, EntryId, OperationId, PartitionId, What};
use crate::model::Model;
use crate::model::log::audit_of;
use crate::model::operations::{End, Send};
use crate::model::sessions::Read;
use crate::truth::Question;

/// B1: a delivered record was never seen, and a session read from before it to behind it.
pub(super) fn lost_write(model: &Model<'_>, found: &mut Anomalies) {
    let mut jumps: BTreeMap<(PartitionId, Offset), (usize, usize)> = BTreeMap::new();
    for session in &model.sessions {
        let log = &model.logs[session.partition.index()];
        for pair in session.reads.windows(2) {
            let (one, other) = (&model.reads[pair[0]], &model.reads[pair[1]]);
            let between = log.cells.get(one.cell + 1..other.cell).unwrap_or_default();
            for cell in between.iter().filter(|cell| cell.seen.is_none()) {
                jumps.entry((session.partition, cell.offset)).or_insert((pair[0], pair[1]));
            }
        }
    }
    for send in &model.sends {
        let Some((id, offset)) = send.told_offset() else { continue };
        if model.topic_of(id).is_deleted {
            continue;
        }
        found.examined += 1;
        if !send.seen.is_empty() || !model.is_committed(send) || model.is_deleted(id, offset) {
            continue;
        }
        let Some((one, other)) = jumps.get(&(id, offset)) else { continue };
        found.add(|| lost(model, send, (id, offset), [&model.reads[*one], &model.reads[*other]]));
    }
}

fn lost(
    model: &Model<'_>,
    send: &Send<'_>,
    (id, offset): (PartitionId, Offset),
    [one, other]: [&Read<'_>; 2],
) -> Anomaly {
    let sentence = format!(
        "Record {} of {} was acknowledged at {}@{offset} and never seen: {} read {} and then {}.",
        send.id,
        model.history.title(send.client),
        model.history.partition(id),
        model.history.title(one.client),
        one.offset(),
        other.offset()
    );
    let witness = [send.invoked, send.ended.unwrap_or(send.invoked), one.entry, other.entry];
    Anomaly::new(Subject::Operation(send.id), is_kept(model, send), witness, sentence)
        .asking(log::lost(model, id, offset))
}

/// SAFE, for the acks of a send.
fn is_kept(model: &Model<'_>, send: &Send<'_>) -> Promise {
    let facts = model.history.producer(send.client);
    Promise::when(facts.is_some_and(|facts| facts.acks == Acks::All))
        .and(model.environment.is_kept())
        .and(model.environment.stays())
}

/// B2: the last audit does not find a delivered record.
pub(super) fn lost_finally(model: &Model<'_>, found: &mut Anomalies) {
    for send in &model.sends {
        let (Some((id, offset)), Some(ended)) = (send.told, send.ended) else { continue };
        // With acks=0 nobody has said that it arrived.
        let facts = model.history.producer(send.client);
        if facts.is_some_and(|facts| facts.acks == Acks::None) {
            continue;
        }
        let log = &model.logs[id.index()];
        let Some(audit) = log.audits[0] else { continue };
        let is_below = offset.is_some_and(|offset| offset < audit.low);
        if model.topic_of(id).is_deleted || ended >= audit.began || is_below {
            continue;
        }
        found.examined += 1;
        let is_there =
            send.seen.iter().any(|(at, cell)| model.logs[at.index()].cells[*cell].audited[0]);
        // What is there and is not known was changed on its way: that is another anomaly.
        let is_changed = || {
            let cell = offset.and_then(|offset| log.at(offset));
            cell.is_some_and(|cell| cell.audited[0] && cell.send.is_none())
        };
        if is_there || is_changed() || offset.is_some_and(|offset| model.is_deleted(id, offset)) {
            continue;
        }
        found.add(|| {
            let at = offset.map_or_else(|| "somewhere".to_owned(), |offset| offset.to_string());
            let sentence = format!(
                "Record {} of {} was acknowledged at {}@{at} and is not in the log, which goes \
                 from {} to {}.",
                send.id,
                model.history.title(send.client),
                model.history.partition(id),
                audit.low,
                audit.high
            );
            let witness = [send.invoked, ended, audit.began, audit.noted];
            let subject = Subject::Operation(send.id);
            Anomaly::new(subject, is_kept(model, send), witness, sentence).asking(log::lost(
                model,
                id,
                offset.unwrap_or(-1),
            ))
        });
    }
}

/// B3: what definitely failed to be sent is in the log.
pub(super) fn resurrected_send(model: &Model<'_>, found: &mut Anomalies) {
    for send in &model.sends {
        let (End::Fail(failure), Some(ended)) = (send.end, send.ended) else { continue };
        found.examined += 1;
        let Some((id, cell)) = send.seen.first().filter(|_| send.is_exact) else { continue };
        let cell = &model.logs[id.index()].cells[*cell];
        let Some(seen) = cell.seen else { continue };
        found.add(|| {
            let sentence = format!(
                "Record {} of {} definitely failed ({}) and is at {}@{}.",
                send.id,
                model.history.title(send.client),
                failure.kind,
                model.history.partition(*id),
                cell.offset
            );
            let witness = [send.invoked, ended, model.reads[seen].entry];
            Anomaly::new(Subject::Operation(send.id), Promise::Required, witness, sentence)
        });
    }
}

/// B6: an end that is asked for after another one was told is lower.
pub(super) fn end_regress(model: &Model<'_>, found: &mut Anomalies) {
    type Told = (Offset, EntryId);
    let mut highest: BTreeMap<(PartitionId, usize), Told> = BTreeMap::new();
    let mut before: BTreeMap<OperationId, Told> = BTreeMap::new();
    for (at, entry) in model.history.iter() {
        match &entry.what {
            What::Invoke(id, Call::Watermarks(partition)) => {
                let key = (*partition, audit_of(model.isolation(entry.client)));
                if let Some(told) = highest.get(&key) {
                    before.insert(*id, *told);
                }
            }
            What::Ok(id, Answer::Watermarks { high, .. }) => {
                let operation = model.operation(*id);
                let Some(Call::Watermarks(partition)) = operation.call else { continue };
                if operation.ended != Some(at) || model.topic_of(*partition).is_deleted {
                    continue;
                }
                found.examined += 1;
                if let Some((earlier, told)) = before.get(id).filter(|(told, _)| told > high) {
                    found.add(|| {
                        let place = model.history.partition(*partition);
                        let sentence =
                            format!("The end of {place} was {earlier}, and {high} later.");
                        let question =
                            Question::Moved { topic_partition: place, from: *earlier, to: *high };
                        let witness = [*told, operation.invoked.unwrap_or(at), at];
                        let promise = model.environment.is_kept();
                        Anomaly::new(Subject::Operation(*id), promise, witness, sentence)
                            .asking(question)
                    });
                }
                let key = (*partition, audit_of(model.isolation(operation.client)));
                let told = highest.entry(key).or_insert((*high, at));
                if told.0 < *high {
                    *told = (*high, at);
                }
            }
            _ => {}
        }
    }
}
