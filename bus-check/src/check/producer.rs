//! C: order, identity, and completion of sends.

use std::collections::BTreeMap;

use bus_core::{ErrorKind, Offset, Partition};

use super::{Anomalies, Anomaly, Promise, Subject};
use crate::history::{
    Answer, Call, ClientId, EntryId, NameId, Note, OperationId, PartitionId, What,
};
use crate::model::Model;
use crate::model::operations::{End, Operation, Send};
use crate::truth::Question;

/// Where a send's record is, beyond doubt: partition and offset.
fn place_of(model: &Model<'_>, send: &Send<'_>) -> Option<(PartitionId, Offset)> {
    let place = match send.seen.as_slice() {
        [(id, cell)] if send.is_exact => Some((*id, model.logs[id.index()].cells[*cell].offset)),
        [] | [_] => send.told_offset(),
        _ => None,
    };
    place.filter(|(id, _)| !model.topic_of(*id).is_deleted)
}

/// C1: a record was sent after another one of its producer was acknowledged, and is before it. What
/// is not known to be there when it ends may come later.
pub(super) fn nonmonotonic_send(model: &Model<'_>, found: &mut Anomalies) {
    in_realtime(model, found, Whose::Own);
}

/// C3: the same of another producer's.
pub(super) fn realtime_inversion(model: &Model<'_>, found: &mut Anomalies) {
    in_realtime(model, found, Whose::Other);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Own,
    Other,
}

fn in_realtime(model: &Model<'_>, found: &mut Anomalies, whose: Whose) {
    let mut acknowledged = model.acknowledged.iter().peekable();
    let mut highest: Vec<Highest> = vec![Highest::default(); model.logs.len()];
    for send in &model.sends {
        while let Some((_, index)) = acknowledged.next_if(|(at, _)| *at < send.invoked) {
            let earlier = &model.sends[*index];
            if let Some((id, offset)) = place_of(model, earlier) {
                highest[id.index()].raise(earlier.client, offset, *index);
            }
        }
        let Some((id, offset)) = place_of(model, send) else { continue };
        found.examined += 1;
        let highest = &highest[id.index()];
        let earlier = match whose {
            Whose::Own => highest.of(send.client),
            Whose::Other => highest.of_others(send.client),
        };
        let Some((higher, index)) = earlier.filter(|(higher, _)| *higher > offset) else {
            continue;
        };
        found.add(|| {
            let promise = model.environment.is_kept();
            inversion(model, (&model.sends[index], higher), (send, offset), id, promise)
        });
    }
}

/// The highest offset of a partition, per producer.
#[derive(Clone, Debug, Default)]
struct Highest(Vec<(ClientId, Offset, usize)>);

impl Highest {
    fn raise(&mut self, client: ClientId, offset: Offset, send: usize) {
        match self.0.iter_mut().find(|(other, ..)| *other == client) {
            Some(own) if own.1 < offset => *own = (client, offset, send),
            Some(_) => {}
            None => self.0.push((client, offset, send)),
        }
    }

    fn of(&self, client: ClientId) -> Option<(Offset, usize)> {
        let own = self.0.iter().find(|(other, ..)| *other == client)?;
        Some((own.1, own.2))
    }

    fn of_others(&self, client: ClientId) -> Option<(Offset, usize)> {
        let others = self.0.iter().filter(|(other, ..)| *other != client);
        others.map(|(_, offset, send)| (*offset, *send)).max_by_key(|(offset, _)| *offset)
    }
}

fn inversion(
    model: &Model<'_>,
    (earlier, higher): (&Send<'_>, Offset),
    (later, lower): (&Send<'_>, Offset),
    id: PartitionId,
    promise: Promise,
) -> Anomaly {
    let topic_partition = model.history.partition(id);
    let sentence = format!(
        "Record {} of {} was sent after {} of {}, and is before it in {topic_partition}: at \
         {lower} and {higher}.",
        later.id,
        model.history.title(later.client),
        earlier.id,
        model.history.title(earlier.client),
    );
    let witness = [
        earlier.invoked,
        earlier.ended.unwrap_or(earlier.invoked),
        later.invoked,
        later.ended.unwrap_or(later.invoked),
    ];
    let question = Question::Reordered { topic_partition, earlier: higher, later: lower };
    Anomaly::new(Subject::Operation(later.id), promise, witness, sentence).asking(question)
}

/// C2: a record was sent after another one of its producer, and is before it.
pub(super) fn pipelined_inversion(model: &Model<'_>, found: &mut Anomalies) {
    let mut highest: Vec<Highest> = vec![Highest::default(); model.logs.len()];
    for (index, send) in model.sends.iter().enumerate() {
        let Some((id, offset)) = place_of(model, send) else { continue };
        found.examined += 1;
        let highest = &mut highest[id.index()];
        if let Some((higher, earlier)) = highest.of(send.client).filter(|(own, _)| *own > offset) {
            found.add(|| {
                let facts = model.history.producer(send.client);
                let keeps_order = facts.is_some_and(|facts| facts.keeps_order());
                let promise = Promise::when(keeps_order).and(model.environment.is_not_cut());
                inversion(model, (&model.sends[earlier], higher), (send, offset), id, promise)
            });
        }
        highest.raise(send.client, offset, index);
    }
}

/// C4: a record whose producer is gone is missing between two that are there.
pub(super) fn sequence_hole(model: &Model<'_>, found: &mut Anomalies) {
    type Missing = Vec<usize>;
    /// What is known of a producer in a partition.
    #[derive(Default)]
    struct Sequence {
        is_begun: bool,
        is_broken: bool,
        missing: Missing,
    }
    let mut sequences: BTreeMap<(ClientId, PartitionId), Sequence> = BTreeMap::new();
    for (index, send) in model.sends.iter().enumerate() {
        let facts = model.history.producer(send.client);
        if !facts.is_some_and(|facts| facts.is_idempotent()) || !send.is_exact {
            continue;
        }
        let Some(id) = destination(model, send) else { continue };
        let Some(audit) = model.logs[id.index()].audits[0] else { continue };
        if send.invoked >= audit.began || audit.low > 0 || model.topic_of(id).is_deleted {
            continue;
        }
        let sequence = sequences.entry((send.client, id)).or_default();
        let is_there = send
            .seen
            .iter()
            .any(|(at, cell)| *at == id && model.logs[at.index()].cells[*cell].audited[0]);
        if is_there {
            sequence.is_begun = true;
            for missing in sequence.missing.drain(..) {
                let earlier = &model.sends[missing];
                found.add(|| hole(model, earlier, send, id));
            }
        } else if sequence.is_begun && !sequence.is_broken {
            match send.end {
                // Nobody was told, so nobody began a new sequence behind it.
                End::Pending | End::Info(None) => sequence.missing.push(index),
                // A failure that was told may end the sequence.
                End::Fail(_) | End::Info(Some(_)) => {
                    sequence.is_broken = true;
                    sequence.missing.clear();
                }
                End::Ok => {}
            }
        }
        found.examined += 1;
    }
}

fn hole(model: &Model<'_>, missing: &Send<'_>, later: &Send<'_>, id: PartitionId) -> Anomaly {
    let sentence = format!(
        "Record {} of {} is not in {}, though {}, which was sent after it, is.",
        missing.id,
        model.history.title(missing.client),
        model.history.partition(id),
        later.id
    );
    let witness = [missing.invoked, later.invoked];
    Anomaly::new(Subject::Operation(missing.id), Promise::Required, witness, sentence)
}

/// The partition that a send goes to, if it is known.
fn destination(model: &Model<'_>, send: &Send<'_>) -> Option<PartitionId> {
    if let Some((told, _)) = send.told {
        return Some(told);
    }
    let counts = &model.topics[send.record.topic.index()].counts;
    let number: Partition = match (send.record.partition, send.record.key) {
        (Some(partition), _) => partition,
        (None, Some(hash)) if counts.len() == 1 => {
            let count = counts.keys().next().copied().unwrap_or(1);
            (hash & 0x7fff_ffff) % count.max(1)
        }
        _ => return None,
    };
    let partitions = model.history.partitions();
    let place = (send.record.topic, number);
    partitions.iter().position(|known| *known == place).map(PartitionId::from_index)
}

/// C5: a send ends more than once, or not at all although its producer is closed.
pub(super) fn completion_not_once(model: &Model<'_>, found: &mut Anomalies) {
    found.examined += model.sends.len() as u64;
    for (at, entry) in model.history.iter() {
        let (What::Ok(id, _) | What::Fail(id, _) | What::Info(id, _)) = &entry.what else {
            continue;
        };
        let operation = model.operation(*id);
        let (Some(Call::Send(_)), Some(first)) = (operation.call, operation.ended) else {
            continue;
        };
        if first == at {
            continue;
        }
        found.add(|| {
            let title = model.history.title(operation.client);
            let sentence = format!("Record {id} of {title} completed twice.");
            let witness = [operation.invoked.unwrap_or(at), first, at];
            Anomaly::new(Subject::Operation(*id), Promise::Required, witness, sentence)
        });
    }
    let (closed, grace) = (closed(model), grace(model));
    for send in &model.sends {
        let Some(closed) = closed.get(&send.client) else { continue };
        let Some(closed) = closed.get(closed.partition_point(|closed| *closed <= send.invoked))
        else {
            continue;
        };
        // Who gives up waiting for it only later, at the end of its process, was told nothing.
        let is_open = match (send.end, send.ended) {
            (End::Info(None), Some(ended)) => model.at(ended) > model.at(*closed) + grace,
            _ => send.ended.is_none(),
        };
        if !is_open {
            continue;
        }
        found.add(|| {
            let title = model.history.title(send.client);
            let sentence = format!("Record {} of {title} never completed.", send.id);
            let witness = [send.invoked, *closed];
            Anomaly::new(Subject::Operation(send.id), Promise::Required, witness, sentence)
        });
    }
}

/// When each producer was closed with success, in order.
fn closed(model: &Model<'_>) -> BTreeMap<ClientId, Vec<EntryId>> {
    let mut closed = BTreeMap::<ClientId, Vec<EntryId>>::new();
    for operation in &model.operations {
        if let (Some(Call::CloseProducer { .. }), End::Ok, Some(ended)) =
            (operation.call, operation.end, operation.ended)
        {
            closed.entry(operation.client).or_default().push(ended);
        }
    }
    closed.values_mut().for_each(|closed| closed.sort_unstable());
    closed
}

/// By how much entries of a real run may be late, in nanoseconds.
fn grace(model: &Model<'_>) -> u64 {
    if model.history.is_exact() { 0 } else { 1_000_000_000 }
}

/// C6: of two deliveries of one producer and partition, the one that was sent later ends earlier.
pub(super) fn completions_out_of_order(model: &Model<'_>, found: &mut Anomalies) {
    let grace = grace(model);
    let mut last: BTreeMap<(ClientId, PartitionId), (u64, usize)> = BTreeMap::new();
    for (index, send) in model.sends.iter().enumerate() {
        let (Some((id, _)), Some(ended)) = (send.told, send.ended) else { continue };
        found.examined += 1;
        let at = model.at(ended);
        let last = last.entry((send.client, id)).or_insert((at, index));
        if at + grace < last.0 {
            let earlier = &model.sends[last.1];
            found.add(|| {
                let facts = model.history.producer(send.client);
                let promise = Promise::when(facts.is_some_and(|facts| facts.keeps_order()));
                let sentence = format!(
                    "Record {} of {} completed before {}, which was sent before it.",
                    send.id,
                    model.history.title(send.client),
                    earlier.id
                );
                let witness =
                    [earlier.invoked, send.invoked, ended, earlier.ended.unwrap_or(ended)];
                Anomaly::new(Subject::Operation(send.id), promise, witness, sentence)
            });
        }
        if at >= last.0 {
            *last = (at, index);
        }
    }
}

/// The initializations of each transactional id: producer, invoked, ended with success.
pub(super) type Initializations = BTreeMap<NameId, Vec<(ClientId, EntryId, Option<EntryId>)>>;

/// Finds the initializations of all transactional ids.
pub(super) fn initializations(model: &Model<'_>) -> Initializations {
    let mut found = Initializations::new();
    for operation in &model.operations {
        let facts = model.history.producer(operation.client);
        let id = facts.and_then(|facts| facts.transaction);
        if let (Some(Call::InitTransactions), Some(invoked), Some((id, _))) =
            (operation.call, operation.invoked, id)
        {
            let ended = operation.ended.filter(|_| operation.end == End::Ok);
            found.entry(id).or_default().push((operation.client, invoked, ended));
        }
    }
    found
}

/// The initialization of a newer producer that had returned before `at`, if this producer's own had
/// returned before the newer one was called for.
pub(super) fn newer_before(
    model: &Model<'_>,
    initializations: &Initializations,
    client: ClientId,
    at: EntryId,
) -> Option<EntryId> {
    let (id, _) = model.history.producer(client)?.transaction?;
    let all = initializations.get(&id)?;
    let own = all.iter().filter(|(owner, ..)| *owner == client).filter_map(|(.., ended)| *ended);
    let own = own.filter(|ended| *ended < at).max()?;
    all.iter()
        .filter(|(owner, invoked, _)| *owner != client && *invoked > own)
        .filter_map(|(.., ended)| *ended)
        .find(|ended| *ended < at)
}

/// C7: a producer appends after a newer one of its transactional id was initialized.
pub(super) fn zombie_append(model: &Model<'_>, found: &mut Anomalies) {
    let initializations = initializations(model);
    for send in &model.sends {
        let facts = model.history.producer(send.client);
        if facts.is_none_or(|facts| facts.transaction.is_none()) {
            continue;
        }
        found.examined += 1;
        let (End::Ok, Some(ended)) = (send.end, send.ended) else { continue };
        let newer = newer_before(model, &initializations, send.client, send.invoked);
        let Some(newer) = newer else { continue };
        found.add(|| {
            let sentence = format!(
                "Record {} of {} was acknowledged, though a newer producer of its transactional id \
                 was there before.",
                send.id,
                model.history.title(send.client)
            );
            let witness = [newer, send.invoked, ended];
            Anomaly::new(Subject::Operation(send.id), Promise::Required, witness, sentence)
        });
    }
}

/// C8: a producer is fenced, though no other one was initialized since, and none of its
/// transactions took too long. One cause is left: its own request for an epoch came late, after it
/// had been sent again.
pub(super) fn false_fencing(model: &Model<'_>, found: &mut Anomalies) {
    let initializations = initializations(model);
    let mut told: BTreeMap<ClientId, OperationId> = BTreeMap::new();
    for (at, entry) in model.history.iter() {
        let (What::Fail(id, failure) | What::Info(id, Some(failure))) = &entry.what else {
            continue;
        };
        let fenced = [ErrorKind::ProducerFenced, ErrorKind::InvalidProducerEpoch];
        let operation = model.operation(*id);
        let facts = model.history.producer(operation.client);
        let Some((name, timeout)) = facts.and_then(|facts| facts.transaction) else { continue };
        if !fenced.contains(&failure.kind) || told.contains_key(&operation.client) {
            continue;
        }
        told.insert(operation.client, *id);
        found.examined += 1;
        let all = initializations.get(&name).map(Vec::as_slice).unwrap_or_default();
        let own = all.iter().filter(|(owner, ..)| *owner == operation.client);
        let own = own.filter_map(|(.., ended)| *ended).filter(|ended| *ended < at).max();
        let is_replaced = all.iter().any(|(owner, invoked, ended)| {
            *owner != operation.client
                && *invoked < at
                && ended.is_none_or(|ended| own.is_none_or(|own| ended > own))
        });
        let is_late = model.transactions.iter().any(|transaction| {
            let until = transaction.committed.or(transaction.aborted).unwrap_or(at).min(at);
            let lasted = model.at(until).saturating_sub(model.at(transaction.began));
            transaction.client == operation.client
                && transaction.began < at
                && u128::from(lasted) >= timeout.as_nanos()
        });
        if is_replaced || is_late {
            continue;
        }
        let since = own.map_or(0, |own| model.at(own));
        found.add(|| fenced_for_nothing(model, (*id, at), operation, (name, since)));
    }
}

fn fenced_for_nothing(
    model: &Model<'_>,
    (id, at): (OperationId, EntryId),
    operation: &Operation<'_>,
    (name, since): (NameId, u64),
) -> Anomaly {
    let name = model.history.name(name).to_owned();
    let sentence = format!(
        "{} was fenced, though it is the newest producer of {name:?} and no transaction took too \
         long.",
        model.history.title(operation.client)
    );
    let witness = [operation.invoked.unwrap_or(at), at];
    Anomaly::new(Subject::Operation(id), Promise::NotPromised, witness, sentence)
        .asking(Question::Fenced { name, since })
}

/// C9: a flush or a commit has returned, and a send before it ends later.
pub(super) fn flush_too_early(model: &Model<'_>, found: &mut Anomalies) {
    let grace = grace(model);
    // The latest end of all sends so far, by producer; one that has none never ends.
    let mut latest: BTreeMap<ClientId, (u64, usize)> = BTreeMap::new();
    let mut next = 0;
    let mut before: BTreeMap<OperationId, (u64, usize)> = BTreeMap::new();
    for (at, entry) in model.history.iter() {
        match &entry.what {
            What::Invoke(_, Call::Send(_)) => {
                let end = model.sends[next].ended.map_or(u64::MAX, |ended| model.at(ended));
                let last = latest.entry(entry.client).or_insert((end, next));
                if last.0 < end {
                    *last = (end, next);
                }
                next += 1;
            }
            What::Invoke(id, Call::Flush | Call::CommitTransaction) => {
                if let Some(last) = latest.get(&entry.client) {
                    before.insert(*id, *last);
                }
            }
            What::Ok(id, Answer::Done) if model.operation(*id).ended == Some(at) => {
                let Some((end, send)) = before.get(id) else { continue };
                found.examined += 1;
                if *end <= entry.at.saturating_add(grace) {
                    continue;
                }
                let send = &model.sends[*send];
                found.add(|| {
                    let sentence = format!(
                        "{} was told that all is flushed, before record {} was complete.",
                        model.history.title(entry.client),
                        send.id
                    );
                    let witness = [send.invoked, at, send.ended.unwrap_or(send.invoked)];
                    Anomaly::new(Subject::Operation(*id), Promise::Required, witness, sentence)
                });
            }
            What::Note(Note::Dropped) => {
                latest.remove(&entry.client);
            }
            _ => {}
        }
    }
}
