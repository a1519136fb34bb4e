//! D, as it is defined.

use bus_check::check::{Promise, Subject};
use bus_check::history::{Answer, Call, PartitionId, What};
use bus_core::{Acks, IsolationLevel, Offset, OffsetReset, StartAt};

use super::facts::{How, Read, Session};
use super::{Broken, Facts};

/// An offset is not behind the one before, within a poll or between polls.
pub(crate) fn monotonic(facts: &Facts<'_>, is_within: bool) -> Broken {
    let mut broken = Broken::new();
    for session in &facts.sessions {
        for pair in facts.reads_of(session).windows(2) {
            let (one, other) = (pair[0], pair[1]);
            if (one.entry == other.entry) == is_within && other.o() <= one.o() {
                let promise = if is_within { Promise::Required } else { facts.is_not_cut() };
                broken.insert((Subject::Delivery(one.client, one.p(), other.o()), promise));
            }
        }
    }
    broken
}

/// A visible record is left out, within a poll or between polls.
pub(crate) fn complete(facts: &Facts<'_>, is_within: bool) -> Broken {
    let mut broken = Broken::new();
    for session in &facts.sessions {
        let isolation = facts.isolation(session.client);
        for pair in facts.reads_of(session).windows(2) {
            let (one, other) = (pair[0], pair[1]);
            if (one.entry == other.entry) != is_within {
                continue;
            }
            let skipped = (one.o() + 1..other.o())
                .find(|offset| facts.is_visible((session.partition, *offset), isolation));
            if let Some(skipped) = skipped {
                let subject = Subject::Delivery(one.client, one.p(), skipped);
                broken.insert((subject, facts.stays().max(facts.is_not_cut())));
            }
        }
    }
    broken
}

/// The least that the log end can have been: all that was told or seen before is below it.
fn end_at(facts: &Facts<'_>, partition: PartitionId, at: usize) -> Offset {
    let ends = facts.history.entries().iter().take(at).flat_map(|entry| match &entry.what {
        What::Ok(_, Answer::Delivered { partition: id, offset: Some(offset), .. })
            if *id == partition =>
        {
            vec![offset + 1]
        }
        What::Ok(_, Answer::Records(records)) => {
            let of = records.iter().filter(|seen| seen.partition == partition);
            of.map(|seen| seen.offset + 1).collect()
        }
        What::Ok(id, Answer::Watermarks { high, .. }) => {
            let is_meant = facts
                .op(*id)
                .is_some_and(|op| matches!(op.call, Call::Watermarks(id) if *id == partition));
            if is_meant { vec![*high] } else { Vec::new() }
        }
        _ => Vec::new(),
    });
    ends.max().unwrap_or(0).max(0)
}

/// A session starts elsewhere than it should: by the commit, or as it was told.
pub(crate) fn start(facts: &Facts<'_>, by_commit: bool) -> Broken {
    let mut broken = Broken::new();
    for session in &facts.sessions {
        let reads = facts.reads_of(session);
        let Some(first) = reads.first() else { continue };
        if (session.from == StartAt::Committed) != by_commit || session.is_blurred {
            continue;
        }
        if !may_start(facts, session, first) {
            let subject = Subject::Delivery(session.client, session.partition, first.o());
            broken.insert((subject, facts.stays().max(facts.is_not_cut())));
        }
    }
    broken
}

fn may_start(facts: &Facts<'_>, session: &Session, first: &Read<'_>) -> bool {
    let own = facts.consumer(session.client).unwrap();
    let visible = |offset: Offset| facts.is_visible((session.partition, offset), own.isolation);
    let nothing_between = |from: Offset| !(from.max(0)..first.o()).any(visible);
    let end = end_at(facts, session.partition, session.invoked);
    let at = |from: Offset| !(first.o() < from && from <= end) && nothing_between(from);
    let is_bounded =
        facts.is_transactional(session.partition) && own.isolation == IsolationLevel::ReadCommitted;
    let at_end = is_bounded || first.o() >= end;
    let by_reset = match own.reset {
        OffsetReset::Earliest => nothing_between(0),
        OffsetReset::Latest => at_end,
        OffsetReset::None => false,
    };
    match session.from {
        StartAt::Beginning => nothing_between(0),
        StartAt::End => at_end,
        StartAt::Offset(from) => at(from),
        StartAt::Timestamp(_) => true,
        StartAt::Committed => match own.group {
            None => by_reset,
            Some(group) => {
                let stable = own.isolation == IsolationLevel::ReadCommitted;
                let window = session.invoked..first.entry;
                let (offsets, maybe_none) =
                    facts.may_be_committed((group, session.partition), &window, stable);
                offsets.iter().any(|offset| at(*offset)) || (maybe_none && by_reset)
            }
        },
    }
}

/// An end is told that does not lie behind a record which was acknowledged before.
pub(crate) fn d9(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for op in &facts.ops {
        let (Call::Watermarks(partition), Some(Answer::Watermarks { high, .. })) =
            (op.call, op.answer)
        else {
            continue;
        };
        let is_bounded = facts.is_transactional(*partition)
            && facts.isolation(op.client) == IsolationLevel::ReadCommitted;
        let is_stale = facts.sends().any(|send| {
            let is_before = send.ended.is_some_and(|ended| ended < op.invoked);
            is_before
                && send.how == How::Ok
                && facts.producer(send.client).acks == Acks::All
                && send.told_at().is_some_and(|(id, offset)| id == *partition && offset >= *high)
        });
        if is_stale && !is_bounded {
            let is_settled = facts
                .quiesced()
                .is_some_and(|q| facts.at(op.invoked) >= facts.at(q) + facts.settling());
            let promise = if is_settled { facts.is_kept() } else { Promise::NotPromised };
            broken.insert((Subject::Operation(op.id), promise));
        }
    }
    broken
}

/// A record of a paused partition, or of one that is not owned.
pub(crate) fn d10(facts: &Facts<'_>) -> Broken {
    let wrong = facts.reads.iter().filter(|read| read.is_paused || read.is_unowned);
    wrong
        .map(|read| (Subject::Delivery(read.client, read.p(), read.o()), Promise::Required))
        .collect()
}

/// A poll returns more records than it may.
pub(crate) fn d12(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for entry in facts.history.entries() {
        let What::Ok(id, Answer::Records(records)) = &entry.what else { continue };
        let most = facts.consumer(entry.client).unwrap().max_poll_records;
        if records.len() > most as usize {
            broken.insert((Subject::Operation(*id), Promise::Required));
        }
    }
    broken
}
