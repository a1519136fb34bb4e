//! A and B, as they are defined.

use bus_check::check::{Promise, Subject};
use bus_check::history::{Answer, Call, What};
use bus_core::{Acks, IsolationLevel, Offset};

use super::facts::{How, Op, Read};
use super::{Broken, Facts};

#[derive(Clone, Copy)]
enum Observed<'f, 'a> {
    Told(&'f Op<'a>),
    Seen(&'f Read<'a>),
}

fn observations<'f, 'a>(
    facts: &'f Facts<'a>,
    place: (bus_check::history::PartitionId, Offset),
) -> Vec<Observed<'f, 'a>> {
    let told = facts.sends().filter(|send| send.told_at() == Some(place));
    let seen = facts.reads.iter().filter(|read| (read.p(), read.o()) == place);
    let mut all: Vec<_> = told.map(Observed::Told).chain(seen.map(Observed::Seen)).collect();
    all.sort_by_key(|observed| match observed {
        Observed::Told(send) => send.ended.unwrap_or(usize::MAX),
        Observed::Seen(read) => read.entry,
    });
    all
}

/// Two observations of an offset are of different records.
pub(crate) fn a1(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for place in facts.held.keys() {
        let is_known = facts.held[place].0.is_some();
        let differ = |one: Observed<'_, '_>, other: Observed<'_, '_>| match (one, other) {
            (Observed::Told(one), Observed::Told(other)) => one.id != other.id,
            (Observed::Seen(one), Observed::Seen(other)) => one.seen.digest != other.seen.digest,
            (Observed::Told(told), Observed::Seen(seen))
            | (Observed::Seen(seen), Observed::Told(told)) => {
                told.sent().digest != seen.seen.digest && is_known
            }
        };
        let promise = |observed: Observed<'_, '_>| match observed {
            Observed::Told(send) => facts.is_kept_with_acks(send.client),
            Observed::Seen(_) => facts.is_not_cut(),
        };
        let all = observations(facts, *place);
        // The first that contradicts the first of all, or of those told, or of those seen.
        let told = all.iter().find(|observed| matches!(observed, Observed::Told(_)));
        let seen = all.iter().find(|observed| matches!(observed, Observed::Seen(_)));
        let firsts: Vec<_> = all.first().into_iter().chain(told).chain(seen).copied().collect();
        let conflict = all.iter().skip(1).find_map(|other| {
            let one = firsts.iter().find(|one| differ(**one, *other))?;
            Some((*one, *other))
        });
        let any = all
            .iter()
            .enumerate()
            .any(|(index, one)| all[index + 1..].iter().any(|other| differ(*one, *other)));
        assert_eq!(conflict.is_some(), any, "a conflict of any two shows in these");
        if let Some((one, other)) = conflict {
            let promise = promise(one).max(promise(other));
            broken.insert((Subject::Place(place.0, place.1), promise));
        }
    }
    broken
}

/// One send is at more than one offset.
pub(crate) fn a2(facts: &Facts<'_>) -> Broken {
    let several = facts.sends().filter(|send| facts.seen(send.id).0.len() > 1);
    several
        .map(|send| {
            let own = facts.producer(send.client);
            let promise = Promise::when(own.is_idempotent() || own.retries == 0);
            (Subject::Operation(send.id), promise)
        })
        .collect()
}

/// What was read was never sent there, or only later.
pub(crate) fn a3(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for (place, (held, is_exact)) in &facts.held {
        let Some(seen) = facts.first_seen(*place) else { continue };
        let is_told = facts.sends().any(|send| send.told_at() == Some(*place));
        let is_garbage = match held {
            None => !is_told,
            Some(send) => *is_exact && facts.op(*send).unwrap().invoked > seen.entry,
        };
        if is_garbage {
            broken.insert((Subject::Place(place.0, place.1), Promise::Required));
        }
    }
    broken
}

/// What was read is not what was sent.
pub(crate) fn a4(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for (place, (held, is_exact)) in &facts.held {
        let Some(seen) = facts.first_seen(*place) else { continue };
        let mut told: Vec<_> =
            facts.sends().filter(|send| send.told_at() == Some(*place)).collect();
        told.sort_by_key(|send| send.ended);
        let changed = match held {
            None => told.first().copied(),
            Some(send) => {
                let send = facts.op(*send).unwrap();
                let told = match send.answer {
                    Some(Answer::Delivered { timestamp, .. }) => *timestamp,
                    _ => None,
                };
                let timestamp = seen.seen.timestamp;
                let is_right = match send.sent().timestamp {
                    Some(sent) => sent == timestamp,
                    None => {
                        told.is_none_or(|told| told == timestamp) && timestamp >= send.sent().now
                    }
                };
                Some(send).filter(|_| *is_exact && !is_right)
            }
        };
        broken.extend(changed.map(|send| (Subject::Operation(send.id), Promise::Required)));
    }
    broken
}

/// A record is in a partition that was not asked for.
pub(crate) fn a5(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for send in facts.sends() {
        let (seen, is_exact) = facts.seen(send.id);
        let seen = (seen.len() == 1 && is_exact).then(|| seen[0].0);
        let Some(partition) = send.told().map(|(told, _)| told).or(seen) else { continue };
        let (topic, number) = facts.history.partitions()[partition.index()];
        let expected = match (send.sent().partition, send.sent().key) {
            (Some(partition), _) => vec![partition],
            (None, Some(key)) => {
                counts(facts, send).into_iter().map(|count| (key & 0x7fff_ffff) % count).collect()
            }
            (None, None) => Vec::new(),
        };
        let is_right = topic == send.sent().topic && expected.contains(&number);
        if !expected.is_empty() && !is_right {
            broken.insert((Subject::Operation(send.id), Promise::Required));
        }
    }
    broken
}

/// The numbers of partitions that the topic of a send has had until its end.
fn counts(facts: &Facts<'_>, send: &Op<'_>) -> Vec<i32> {
    let until = send.ended.unwrap_or(usize::MAX);
    let counts = facts.history.entries().iter().enumerate().filter_map(|(at, entry)| {
        let What::Invoke(id, call) = &entry.what else { return None };
        let is_refused = facts
            .history
            .entries()
            .iter()
            .any(|entry| matches!(&entry.what, What::Fail(other, _) if other == id));
        match call {
            Call::CreateTopic { topic, partitions }
            | Call::CreatePartitions { topic, partitions }
                if *topic == send.sent().topic && at < until && !is_refused =>
            {
                Some(*partitions)
            }
            _ => None,
        }
    });
    counts.collect()
}

/// An audit finds nothing at an offset below the end.
pub(crate) fn a6(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for partition in partitions(facts) {
        let Some(audit) = facts.audit(partition, IsolationLevel::ReadUncommitted) else { continue };
        for offset in audit.low..audit.high {
            let is_first = offset == audit.low || audit.seen.contains(&(offset - 1));
            let is_hole = !audit.seen.contains(&offset) && is_first;
            if is_hole && !facts.is_transactional(partition) {
                broken.insert((Subject::Place(partition, offset), Promise::Required));
            }
        }
    }
    broken
}

fn partitions(facts: &Facts<'_>) -> Vec<bus_check::history::PartitionId> {
    (0..facts.history.partitions().len()).map(bus_check::history::PartitionId::from_index).collect()
}

/// A session reads below a log start that was told before it began.
pub(crate) fn a7(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for session in &facts.sessions {
        for read in facts.reads_of(session) {
            let is_below = facts.ops.iter().any(|op| match (op.call, op.answer, op.ended) {
                (Call::Watermarks(id), Some(Answer::Watermarks { low, .. }), Some(ended)) => {
                    *id == session.partition && ended < session.invoked && read.o() < *low
                }
                _ => false,
            });
            if is_below {
                let subject = Subject::Delivery(read.client, read.p(), read.o());
                broken.insert((subject, facts.is_kept()));
            }
        }
    }
    broken
}

/// A record is not at the offset that its producer was told.
pub(crate) fn a8(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for send in facts.sends() {
        let Some(told) = send.told_at() else { continue };
        let (seen, is_exact) = facts.seen(send.id);
        let is_elsewhere = is_exact && !seen.is_empty() && !seen.contains(&told);
        let is_seen = facts.first_seen(told).is_some();
        let audit = facts.audit(told.0, IsolationLevel::ReadUncommitted);
        let is_absent = audit.is_some_and(|audit| {
            send.ended.is_some_and(|ended| ended < audit.began)
                && told.1 >= audit.low
                && !audit.seen.contains(&told.1)
        });
        let is_none = facts.producer(send.client).acks == Acks::None;
        if is_none || (is_elsewhere && (is_seen || is_absent)) {
            broken.insert((Subject::Operation(send.id), Promise::Required));
        }
    }
    broken
}

/// After the same record, two sessions of one isolation level see different ones.
pub(crate) fn a10(facts: &Facts<'_>) -> Broken {
    // All pairs of neighbors, in the order of sessions.
    let mut pairs = Vec::new();
    for session in &facts.sessions {
        let reads = facts.reads_of(session);
        for pair in reads.windows(2).filter(|pair| pair[0].o() < pair[1].o()) {
            let isolation = facts.isolation(session.client);
            pairs.push((session.partition, isolation, pair[0].o(), pair[1].o(), session.client));
        }
    }
    let mut broken = Broken::new();
    for (index, (partition, isolation, one, other, client)) in pairs.iter().enumerate() {
        // The first session that saw this neighbor decides.
        let first = pairs[..index]
            .iter()
            .find(|pair| (pair.0, pair.1, pair.2) == (*partition, *isolation, *one));
        if first.is_some_and(|first| first.3 != *other) {
            let subject = Subject::Delivery(*client, *partition, *one);
            broken.insert((subject, facts.is_not_cut().max(facts.stays())));
        }
    }
    broken
}

/// A delivered record was never seen, and a session read from before it to behind it.
pub(crate) fn b1(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for send in facts.sends() {
        let Some((partition, offset)) = send.told_at() else { continue };
        let is_unseen = facts.seen(send.id).0.is_empty();
        let is_passed = facts.sessions.iter().any(|session| {
            session.partition == partition
                && facts.first_seen((partition, offset)).is_none()
                && facts
                    .reads_of(session)
                    .windows(2)
                    .any(|pair| pair[0].o() < offset && offset < pair[1].o())
        });
        if is_unseen && is_passed && facts.is_committed(send) {
            let promise = facts.is_kept_with_acks(send.client).max(facts.stays());
            broken.insert((Subject::Operation(send.id), promise));
        }
    }
    broken
}

/// The last audit does not find a delivered record.
pub(crate) fn b2(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for send in facts.sends() {
        let (Some((partition, offset)), Some(ended)) = (send.told(), send.ended) else { continue };
        if facts.producer(send.client).acks == Acks::None {
            continue;
        }
        let audit = facts.audit(partition, IsolationLevel::ReadUncommitted);
        let Some(audit) = audit.filter(|audit| ended < audit.began) else { continue };
        let is_there = facts.seen(send.id).0.iter().any(|(at, offset)| {
            let there = facts.audit(*at, IsolationLevel::ReadUncommitted);
            there.is_some_and(|there| there.seen.contains(offset))
        });
        let is_changed = offset.is_some_and(|offset| {
            audit.seen.contains(&offset) && facts.held[&(partition, offset)].0.is_none()
        });
        let is_below = offset.is_some_and(|offset| offset < audit.low);
        if !is_there && !is_changed && !is_below {
            let promise = facts.is_kept_with_acks(send.client).max(facts.stays());
            broken.insert((Subject::Operation(send.id), promise));
        }
    }
    broken
}

/// What definitely failed to be sent is in the log.
pub(crate) fn b3(facts: &Facts<'_>) -> Broken {
    let failed = facts.sends().filter(|send| matches!(send.how, How::Fail(_)));
    failed
        .filter(|send| {
            let (seen, is_exact) = facts.seen(send.id);
            !seen.is_empty() && is_exact
        })
        .map(|send| (Subject::Operation(send.id), Promise::Required))
        .collect()
}

/// An end that is asked for after another one was told is lower.
pub(crate) fn b6(facts: &Facts<'_>) -> Broken {
    let asked: Vec<_> = facts
        .ops
        .iter()
        .filter_map(|op| match (op.call, op.answer) {
            (Call::Watermarks(id), Some(Answer::Watermarks { high, .. })) => Some((op, *id, *high)),
            _ => None,
        })
        .collect();
    let mut broken = Broken::new();
    for (later, partition, high) in &asked {
        let is_regress = asked.iter().any(|(earlier, other, before)| {
            other == partition
                && facts.isolation(earlier.client) == facts.isolation(later.client)
                && earlier.ended.is_some_and(|ended| ended < later.invoked)
                && before > high
        });
        if is_regress {
            broken.insert((Subject::Operation(later.id), facts.is_kept()));
        }
    }
    broken
}
