//! D: sessions: from the right place on, everything, once, in order, and only when it is due.

use bus_core::{Acks, IsolationLevel, Offset, OffsetReset, StartAt};

use super::{Anomalies, Anomaly, Promise, Subject};
use crate::history::{Answer, Call, ConsumerFacts, EntryId, What};
use crate::model::Model;
use crate::model::commits::Stability;
use crate::model::log::Cell;
use crate::model::sessions::{Read, ReadFault, Session};
use crate::truth::Question;

/// Whether two reads are of one poll or of two.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Span {
    Within,
    Between,
}

/// D1: within a poll, an offset is not behind the one before.
pub(super) fn nonmonotonic_within(model: &Model<'_>, found: &mut Anomalies) {
    monotonic(model, found, Span::Within);
}

/// D3: the same between polls.
pub(super) fn nonmonotonic(model: &Model<'_>, found: &mut Anomalies) {
    monotonic(model, found, Span::Between);
}

fn monotonic(model: &Model<'_>, found: &mut Anomalies, span: Span) {
    each_pair(model, span, |one, other| {
        found.examined += 1;
        if other.offset() > one.offset() {
            return;
        }
        found.add(|| {
            let topic_partition = model.history.partition(one.partition());
            let sentence = format!(
                "{} was given {topic_partition}@{} after {}.",
                model.history.title(one.client),
                other.offset(),
                one.offset()
            );
            let promise = match span {
                Span::Within => Promise::Required,
                Span::Between => model.environment.is_not_cut(),
            };
            let (from, to) = (one.offset(), other.offset());
            let subject = Subject::Delivery(one.client, one.partition(), to);
            Anomaly::new(subject, promise, [one.entry, other.entry], sentence)
                .asking(Question::Moved { topic_partition, from, to })
        });
    });
}

/// D2: within a poll, a visible record is left out.
pub(super) fn skipped_within(model: &Model<'_>, found: &mut Anomalies) {
    complete(model, found, Span::Within);
}

/// D4: the same between polls.
pub(super) fn skipped(model: &Model<'_>, found: &mut Anomalies) {
    complete(model, found, Span::Between);
}

fn complete(model: &Model<'_>, found: &mut Anomalies, span: Span) {
    each_pair(model, span, |one, other| {
        found.examined += 1;
        let log = &model.logs[one.partition().index()];
        let between = log.cells.get(one.cell + 1..other.cell).unwrap_or_default();
        let isolation = model.isolation(one.client);
        let skipped = between.iter().find(|cell| {
            model.is_visible(cell, isolation) && !model.is_deleted(one.partition(), cell.offset)
        });
        let Some(skipped) = skipped else { return };
        found.add(|| skip(model, (one, other), skipped));
    });
}

fn skip(model: &Model<'_>, (one, other): (&Read<'_>, &Read<'_>), skipped: &Cell) -> Anomaly {
    let topic_partition = model.history.partition(one.partition());
    let seen = skipped.seen.map(|seen| &model.reads[seen]);
    let sentence = format!(
        "{} was given {topic_partition}@{} and then {}, but not {}, which {} saw.",
        model.history.title(one.client),
        one.offset(),
        other.offset(),
        skipped.offset,
        seen.map_or_else(|| "nobody".to_owned(), |seen| model.history.title(seen.client))
    );
    let promise = model.environment.stays().and(model.environment.is_not_cut());
    let subject = Subject::Delivery(one.client, one.partition(), skipped.offset);
    let witness = [Some(one.entry), Some(other.entry), seen.map(|seen| seen.entry)];
    let (from, to) = (one.offset(), other.offset());
    Anomaly::new(subject, promise, witness.into_iter().flatten(), sentence)
        .asking(Question::Moved { topic_partition, from, to })
}

fn each_pair(model: &Model<'_>, span: Span, mut act: impl FnMut(&Read<'_>, &Read<'_>)) {
    for session in &model.sessions {
        for pair in session.reads.windows(2) {
            let (one, other) = (&model.reads[pair[0]], &model.reads[pair[1]]);
            let is_within = one.entry == other.entry;
            if is_within == (span == Span::Within) {
                act(one, other);
            }
        }
    }
}

/// D5: a session that should start at the committed offset starts elsewhere.
pub(super) fn wrong_start(model: &Model<'_>, found: &mut Anomalies) {
    starts(model, found, |session| session.from == StartAt::Committed);
}

/// D6: a session that was told where to start starts elsewhere.
pub(super) fn wrong_seek(model: &Model<'_>, found: &mut Anomalies) {
    starts(model, found, |session| session.from != StartAt::Committed);
}

fn starts(model: &Model<'_>, found: &mut Anomalies, is_meant: fn(&Session) -> bool) {
    for session in model.sessions.iter().filter(|session| is_meant(session)) {
        let Some(facts) = model.history.consumer(session.client) else { continue };
        let Some(first) = session.reads.first().map(|first| &model.reads[*first]) else { continue };
        if session.is_blurred {
            continue;
        }
        found.examined += 1;
        let expected = expected(model, session, facts, first);
        let verdicts: Vec<_> =
            expected.iter().map(|start| judge(model, session, facts, *start, first)).collect();
        if verdicts.contains(&Fit::Right) {
            continue;
        }
        let is_late = verdicts.iter().all(|fit| matches!(fit, Fit::Late(_)));
        found.add(|| {
            let topic_partition = model.history.partition(session.partition);
            let sentence = format!(
                "{} was given {topic_partition}@{} first, too {}: it should start {}.",
                model.history.title(session.client),
                first.offset(),
                if is_late { "late" } else { "early" },
                expected.iter().map(|start| start.to_string()).collect::<Vec<_>>().join(" or ")
            );
            let promise = model.environment.stays().and(model.environment.is_not_cut());
            let subject = Subject::Delivery(session.client, session.partition, first.offset());
            let skipped = verdicts.iter().find_map(|fit| match fit {
                Fit::Late(entry) => Some(*entry),
                Fit::Right | Fit::Early => None,
            });
            let witness = [Some(session.invoked), Some(first.entry), skipped.filter(|_| is_late)];
            let to = first.offset();
            let question = Question::Moved { topic_partition, from: to, to };
            Anomaly::new(subject, promise, witness.into_iter().flatten(), sentence).asking(question)
        });
    }
}

/// Where a session may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Beginning,
    End,
    At(Offset),
    Time(i64),
    Nowhere,
}

impl std::fmt::Display for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Beginning => f.write_str("at the beginning"),
            Self::End => f.write_str("at the end"),
            Self::At(offset) => write!(f, "at {offset}"),
            Self::Time(millis) => {
                write!(f, "at {}", bus_core::Timestamp::from_millis(*millis))
            }
            Self::Nowhere => f.write_str("nowhere"),
        }
    }
}

/// All places at which a session may start.
fn expected(
    model: &Model<'_>,
    session: &Session,
    facts: &ConsumerFacts,
    first: &Read<'_>,
) -> Vec<Start> {
    let reset = match facts.reset {
        OffsetReset::Earliest => Start::Beginning,
        OffsetReset::Latest => Start::End,
        OffsetReset::None => Start::Nowhere,
    };
    match session.from {
        StartAt::Beginning => vec![Start::Beginning],
        StartAt::End => vec![Start::End],
        StartAt::Timestamp(time) => vec![Start::Time(time.as_millis())],
        StartAt::Offset(offset) if model.is_deleted(session.partition, offset) => {
            vec![Start::At(offset), reset]
        }
        StartAt::Offset(offset) => vec![Start::At(offset)],
        StartAt::Committed => {
            let Some(group) = facts.group else { return vec![reset] };
            let window = session.invoked..first.entry;
            let stability = match facts.isolation {
                IsolationLevel::ReadCommitted => Stability::Stable,
                IsolationLevel::ReadUncommitted => Stability::Unstable,
            };
            let found = model.commits.candidates((group, session.partition), &window, stability);
            let mut expected: Vec<_> = found.offsets().map(Start::At).collect();
            let is_out_of_range =
                found.offsets().any(|offset| model.is_deleted(session.partition, offset));
            if found.maybe_none || is_out_of_range {
                expected.push(reset);
            }
            expected.sort_unstable_by_key(|start| match start {
                Start::At(offset) => *offset,
                _ => -1,
            });
            expected.dedup();
            expected
        }
    }
}

/// How the first read of a session fits to a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Right,
    /// A visible record before it was left out, which this entry shows.
    Late(EntryId),
    Early,
}

fn judge(
    model: &Model<'_>,
    session: &Session,
    facts: &ConsumerFacts,
    start: Start,
    first: &Read<'_>,
) -> Fit {
    let id = session.partition;
    let log = &model.logs[id.index()];
    let offset = first.offset();
    // Without a stable end, nobody knows where the end was for this consumer.
    let is_bounded =
        model.topic_of(id).is_transactional && facts.isolation == IsolationLevel::ReadCommitted;
    let visible = |cell: &&Cell| {
        model.is_visible(cell, facts.isolation) && !model.is_deleted(id, cell.offset)
    };
    let late = |from: Offset| {
        let left_out = log.range(from, offset).iter().find(visible)?;
        Some(model.reads[left_out.seen?].entry)
    };
    match start {
        Start::Nowhere => Fit::Early,
        Start::End | Start::Time(_) if is_bounded => Fit::Right,
        Start::Beginning => late(0).map_or(Fit::Right, Fit::Late),
        Start::End if offset < model.end_at(id, session.invoked) => Fit::Early,
        Start::End => Fit::Right,
        // Out of range, it is for the reset policy to decide, and nobody knows the range.
        Start::At(from) if offset < from && from <= model.end_at(id, session.invoked) => Fit::Early,
        Start::At(from) => late(from).map_or(Fit::Right, Fit::Late),
        Start::Time(time) => {
            let timestamp = |cell: &Cell| cell.seen.map(|seen| model.reads[seen].record.timestamp);
            let known = |cell: &Cell| {
                let seen = cell.seen.map(|seen| model.reads[seen].entry);
                let told = cell.told.and_then(|told| model.sends[told].ended);
                [seen, told].into_iter().flatten().any(|entry| entry < session.invoked)
            };
            let mut from = log.cells.iter().filter(visible);
            let from = from.find(|cell| timestamp(cell).is_some_and(|found| found >= time));
            match from {
                Some(cell) if cell.offset < offset && known(cell) => {
                    Fit::Late(cell.seen.map_or(first.entry, |seen| model.reads[seen].entry))
                }
                Some(cell) if cell.offset > offset && known(cell) => Fit::Early,
                _ => Fit::Right,
            }
        }
    }
}

/// D9: an end is told that does not lie behind a record which was acknowledged before.
pub(super) fn stale_end(model: &Model<'_>, found: &mut Anomalies) {
    let mut acknowledged: Vec<Option<(Offset, EntryId)>> = vec![None; model.logs.len()];
    let mut before: Vec<Option<(Offset, EntryId)>> = vec![None; model.operations.len()];
    for (at, entry) in model.history.iter() {
        match &entry.what {
            What::Ok(id, Answer::Delivered { partition, offset: Some(offset), .. })
                if model.operation(*id).ended == Some(at) =>
            {
                let facts = model.history.producer(entry.client);
                let highest = &mut acknowledged[partition.index()];
                if facts.is_some_and(|facts| facts.acks == Acks::All)
                    && highest.is_none_or(|(highest, _)| highest < *offset)
                {
                    *highest = Some((*offset, at));
                }
            }
            What::Invoke(id, Call::Watermarks(partition)) => {
                before[id.index()] = acknowledged[partition.index()];
            }
            What::Ok(id, Answer::Watermarks { high, .. }) => {
                let operation = model.operation(*id);
                let Some(Call::Watermarks(partition)) = operation.call else { continue };
                let topic = model.topic_of(*partition);
                let is_bounded = topic.is_transactional
                    && model.isolation(operation.client) == IsolationLevel::ReadCommitted;
                if operation.ended != Some(at) || topic.is_deleted || is_bounded {
                    continue;
                }
                found.examined += 1;
                let earlier = before[id.index()].filter(|(offset, _)| offset >= high);
                let Some((offset, told)) = earlier else { continue };
                found.add(|| {
                    let place = model.history.partition(*partition);
                    let sentence = format!(
                        "{} was told that {place} ends at {high}, after {offset} was acknowledged.",
                        model.history.title(operation.client)
                    );
                    let witness = [told, operation.invoked.unwrap_or(at), at];
                    // A leader that has not heard of the next one answers by what it knows.
                    let asked = operation.invoked.unwrap_or(at);
                    let promise = if model.is_settled(asked) {
                        model.environment.is_kept()
                    } else {
                        Promise::NotPromised
                    };
                    let since = model.at(asked);
                    Anomaly::new(Subject::Operation(*id), promise, witness, sentence)
                        .asking(Question::OldEnd { topic_partition: place, offset, since })
                });
            }
            _ => {}
        }
    }
}

/// D10: a record of a paused partition, or of one that is not owned.
pub(super) fn not_due(model: &Model<'_>, found: &mut Anomalies) {
    for read in &model.reads {
        found.examined += 1;
        let Some(fault) = read.fault else { continue };
        found.add(|| {
            let (why, since) = match fault {
                ReadFault::Paused(since) => ("which was paused", Some(since)),
                ReadFault::NotOwned(since) => ("which it does not own", since),
            };
            let sentence = format!(
                "{} was given {}@{} of a partition {why}.",
                model.history.title(read.client),
                model.history.partition(read.partition()),
                read.offset()
            );
            let subject = Subject::Delivery(read.client, read.partition(), read.offset());
            let witness = [since, Some(read.polled), Some(read.entry)];
            Anomaly::new(subject, Promise::Required, witness.into_iter().flatten(), sentence)
        });
    }
}

/// D12: a poll returns more records than it may.
pub(super) fn too_large(model: &Model<'_>, found: &mut Anomalies) {
    for (at, entry) in model.history.iter() {
        let What::Ok(id, Answer::Records(records)) = &entry.what else { continue };
        let Some(facts) = model.history.consumer(entry.client) else { continue };
        found.examined += 1;
        if records.len() <= facts.max_poll_records as usize {
            continue;
        }
        found.add(|| {
            let sentence = format!(
                "{} was given {} records by one poll; at most {} were asked for.",
                model.history.title(entry.client),
                records.len(),
                facts.max_poll_records
            );
            let invoked = model.operation(*id).invoked.unwrap_or(at);
            Anomaly::new(Subject::Operation(*id), Promise::Required, [invoked, at], sentence)
        });
    }
}
