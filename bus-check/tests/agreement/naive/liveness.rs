//! H, as it is defined.

use bus_check::check::{Promise, Subject};
use bus_check::history::{Call, EntryId};
use bus_core::{IsolationLevel, Offset};

use super::facts::{How, Session};
use super::group::{changes, guard_entries, settled};
use super::{Broken, Facts};

/// An operation had all the time that it may take, and has not ended; or was given up then.
pub(crate) fn h1(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    let Some(quiesced) = facts.quiesced() else { return broken };
    let last = facts.at(facts.entries() - 1);
    for op in &facts.ops {
        let until = match (op.how, op.ended) {
            (How::Pending, _) => last,
            (How::Info(None), Some(ended)) => facts.at(ended),
            _ => continue,
        };
        let settling = facts.environment.settling;
        let timeout = facts
            .history
            .producer(op.client)
            .map_or(settling, |own| own.delivery_timeout.max(settling));
        let since = facts.at(op.invoked).max(facts.at(quiesced));
        let is_late = u128::from(since) + timeout.as_nanos() <= u128::from(until);
        if is_late && !matches!(op.call, Call::Poll) {
            broken.insert((Subject::Operation(op.id), Promise::Required));
        }
    }
    broken
}

/// A reader has polled for long, and was not given the next visible record.
pub(crate) fn h2(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    let Some(quiesced) = facts.quiesced() else { return broken };
    for session in &facts.sessions {
        let polls = facts.ops.iter().filter(|op| {
            matches!(op.call, Call::Poll) && op.client == session.client && op.ended.is_some()
        });
        // The last one that was called for.
        let poll = polls.max_by_key(|op| op.id).and_then(|op| op.ended);
        let reads = facts.reads_of(session);
        let (Some(poll), Some(last)) = (poll, reads.last()) else { continue };
        if session.ended.is_some() || session.is_paused || session.is_blurred {
            continue;
        }
        let Some(next) = next(facts, session, last.o()) else { continue };
        let place = (session.partition, next);
        let told = facts.sends().filter(|send| send.told_at() == Some(place));
        let told = told.filter_map(|send| send.ended).min();
        let seen = facts.first_seen(place).map(|read| read.entry);
        let known = told.into_iter().chain(seen).min().expect("it is known");
        let guards = guard_entries(facts);
        let guard = guards.iter().rfind(|(client, ..)| *client == session.client);
        let guard = guard.map_or(0, |(_, entry, done)| facts.at(done.unwrap_or(*entry)));
        let since = facts.at(known).max(facts.at(quiesced)).max(guard);
        if since + facts.settling() <= facts.at(poll) {
            let subject = Subject::Delivery(session.client, session.partition, next);
            broken.insert((subject, Promise::Required));
        }
    }
    broken
}

/// The next offset that a reader must be given.
fn next(facts: &Facts<'_>, session: &Session, last: Offset) -> Option<Offset> {
    let isolation = facts.isolation(session.client);
    let is_audited = facts.audit(session.partition, IsolationLevel::ReadUncommitted).is_some();
    let later = facts.held.keys().filter(|(id, offset)| *id == session.partition && *offset > last);
    let mut later = later.filter(|place| {
        let mut told: Vec<_> =
            facts.sends().filter(|send| send.told_at() == Some(**place)).collect();
        told.sort_by_key(|send| send.ended);
        let is_told = told.first().is_some_and(|send| facts.is_committed(send));
        facts.is_visible(**place, isolation) || (is_told && !is_audited)
    });
    later.next().map(|(_, offset)| *offset)
}

/// A group rebalances long after anybody has joined or left it.
pub(crate) fn h5(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    let (Some(quiesced), Some(settled)) = (facts.quiesced(), settled(facts)) else {
        return broken;
    };
    for (client, entry, _) in guard_entries(facts) {
        let group = facts.consumer(client).and_then(|own| own.group);
        let mut before = facts.history.entries().iter().take(entry).skip(quiesced);
        let has_changed = before.any(|entry| {
            facts.consumer(entry.client).and_then(|own| own.group) == group
                && changes(facts, &entry.what).is_some()
        });
        if entry > settled && !has_changed {
            let subject = Subject::Guard(EntryId::from_index(entry));
            broken.insert((subject, Promise::Required));
        }
    }
    broken
}

/// A close took longer than it may.
pub(crate) fn h9(facts: &Facts<'_>) -> Broken {
    const GRACE: u128 = 5_000_000_000;
    let mut broken = Broken::new();
    for op in &facts.ops {
        let deadline = match op.call {
            Call::CloseProducer { timeout } => *timeout,
            Call::CloseConsumer => facts.environment.settling,
            _ => continue,
        };
        let took = op.ended.map(|ended| facts.at(ended).saturating_sub(facts.at(op.invoked)));
        if took.is_some_and(|took| u128::from(took) > deadline.as_nanos() + GRACE) {
            broken.insert((Subject::Operation(op.id), Promise::Required));
        }
    }
    broken
}
