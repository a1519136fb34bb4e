//! H: when all faults are healed, everything comes to its end within the time that it may take.

use std::collections::BTreeMap;

use super::group::{change, settled};
use super::{Anomalies, Anomaly, Promise, Subject};
use crate::history::{Call, ClientId, EntryId, NameId, OperationId};
use crate::model::Model;
use crate::model::log::Cell;
use crate::model::operations::End;

/// H1: an operation had all the time that it may take, and has not ended; or was given up then.
pub(super) fn without_end(model: &Model<'_>, found: &mut Anomalies) {
    let (Some(quiesced), Some(last)) = (model.quiesced, model.history.entries().last()) else {
        return;
    };
    for (index, operation) in model.operations.iter().enumerate() {
        let (Some(call), Some(invoked)) = (operation.call, operation.invoked) else { continue };
        found.examined += 1;
        let until = match (operation.end, operation.ended) {
            (End::Pending, _) => last.at,
            (End::Info(None), Some(ended)) => model.at(ended),
            _ => continue,
        };
        let timeout = match model.history.producer(operation.client) {
            Some(facts) => facts.delivery_timeout.max(model.environment.settling),
            None => model.environment.settling,
        };
        let since = model.at(invoked).max(model.at(quiesced));
        // How long a poll may take, the history does not say.
        if matches!(call, Call::Poll) || u128::from(since) + timeout.as_nanos() > u128::from(until)
        {
            continue;
        }
        found.add(|| {
            let id = OperationId::from_index(index);
            let title = model.history.title(operation.client);
            let sentence = format!("Operation {id} of {title} has not ended.");
            let witness = [Some(invoked), Some(quiesced), operation.ended];
            let subject = Subject::Operation(id);
            Anomaly::new(subject, Promise::Required, witness.into_iter().flatten(), sentence)
        });
    }
}

/// H2: a reader has polled for long, and was not given the next visible record.
pub(super) fn not_delivered(model: &Model<'_>, found: &mut Anomalies) {
    let Some(quiesced) = model.quiesced else { return };
    let settling = u64::try_from(model.environment.settling.as_nanos()).unwrap_or(u64::MAX);
    let polls = last_polls(model);
    for session in &model.sessions {
        let Some((poll, polled_at)) = polls.get(&session.client).copied() else { continue };
        let Some(last) = session.reads.last().map(|last| &model.reads[*last]) else { continue };
        if session.ended.is_some()
            || session.is_paused
            || session.is_blurred
            || model.topic_of(session.partition).is_deleted
        {
            continue;
        }
        found.examined += 1;
        let isolation = model.isolation(session.client);
        let log = &model.logs[session.partition.index()];
        let next = log.cells[last.cell + 1..].iter().find(|cell| {
            // Without an audit, what was acknowledged must count as being there.
            let is_told = log.audits[0].is_none()
                && cell.told.is_some_and(|told| model.is_committed(&model.sends[told]));
            (model.is_visible(cell, isolation) || is_told)
                && !model.is_deleted(session.partition, cell.offset)
        });
        let Some((next, known)) = next.and_then(|next| Some((next, known_since(model, next)?)))
        else {
            continue;
        };
        let since = model.at(known).max(model.at(quiesced)).max(last_change(model, session.client));
        if since.saturating_add(settling) > polled_at {
            continue;
        }
        found.add(|| {
            let sentence = format!(
                "{} was given {}@{} and is still waiting for {}.",
                model.history.title(session.client),
                model.history.partition(session.partition),
                last.offset(),
                next.offset
            );
            let subject = Subject::Delivery(session.client, session.partition, next.offset);
            let witness = [last.entry, known, quiesced, poll];
            Anomaly::new(subject, Promise::Required, witness, sentence)
        });
    }
}

/// The entry that first tells of a cell.
fn known_since(model: &Model<'_>, cell: &Cell) -> Option<EntryId> {
    let seen = cell.seen.map(|seen| model.reads[seen].entry);
    let told = cell.told.and_then(|told| model.sends[told].ended);
    seen.into_iter().chain(told).min()
}

/// The last poll of each client that was answered, with its time.
fn last_polls(model: &Model<'_>) -> BTreeMap<ClientId, (EntryId, u64)> {
    let mut last = BTreeMap::new();
    for operation in &model.operations {
        if let (Some(Call::Poll), Some(ended)) = (operation.call, operation.ended) {
            last.insert(operation.client, (ended, model.at(ended)));
        }
    }
    last
}

/// When a consumer last did what may delay its records: it was given a guard, or moved.
fn last_change(model: &Model<'_>, client: ClientId) -> u64 {
    let guard = model.groups.guards[client.index()].last();
    guard.map_or(0, |guard| model.at(guard.completed.unwrap_or(guard.entry)))
}

/// H5: a group rebalances long after anybody has joined or left it.
pub(super) fn rebalance_storm(model: &Model<'_>, found: &mut Anomalies) {
    let Some(settled) = settled(model) else { return };
    // The first change of each group after the faults: what comes later is no cause.
    let mut changed: BTreeMap<NameId, EntryId> = BTreeMap::new();
    for (at, entry) in model.history.iter().skip_while(|(at, _)| Some(*at) < model.quiesced) {
        let facts = model.history.consumer(entry.client);
        if let (Some(group), Some(_)) =
            (facts.and_then(|facts| facts.group), change(model, &entry.what))
        {
            changed.entry(group).or_insert(at);
        }
    }
    for (index, guards) in model.groups.guards.iter().enumerate() {
        let client = ClientId::from_index(index);
        let Some(group) = model.history.consumer(client).and_then(|facts| facts.group) else {
            continue;
        };
        for guard in guards {
            found.examined += 1;
            let is_quiet = changed.get(&group).is_none_or(|changed| *changed > guard.entry);
            if guard.entry <= settled || !is_quiet {
                continue;
            }
            found.add(|| {
                let sentence = format!(
                    "{} was told {:?}, long after anybody joined or left group {:?}.",
                    model.history.title(client),
                    guard.kind,
                    model.history.name(group)
                );
                let witness = [settled, guard.entry];
                Anomaly::new(Subject::Guard(guard.entry), Promise::Required, witness, sentence)
            });
        }
    }
}

/// H9: a close took longer than it may.
pub(super) fn late_close(model: &Model<'_>, found: &mut Anomalies) {
    for (index, operation) in model.operations.iter().enumerate() {
        let deadline = match operation.call {
            Some(Call::CloseProducer { timeout }) => *timeout,
            Some(Call::CloseConsumer) => model.environment.settling,
            _ => continue,
        };
        let (Some(invoked), Some(ended)) = (operation.invoked, operation.ended) else { continue };
        found.examined += 1;
        let took = model.at(ended).saturating_sub(model.at(invoked));
        if u128::from(took) <= deadline.as_nanos() + GRACE {
            continue;
        }
        found.add(|| {
            let id = OperationId::from_index(index);
            let sentence = format!(
                "{} took {} s to close; it had {} s.",
                model.history.title(operation.client),
                crate::history::text::seconds(took),
                deadline.as_secs()
            );
            let witness = [invoked, ended];
            Anomaly::new(Subject::Operation(id), Promise::Required, witness, sentence)
        });
    }
}

/// What a close may take beside its deadline, in nanoseconds: leaving a group, and breaking
/// connections.
const GRACE: u128 = 5_000_000_000;
