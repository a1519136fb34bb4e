//! What consumers were given, against the logs and the commits: from the right place on,
//! everything, once, in order, unchanged, and only while they owned the partition.
//!
//! A *session* is the time in which one consumer reads one partition without a jump: it begins with
//! an assignment or a seek and ends with the next one, or when the partition is given up.

use std::collections::BTreeMap;

use bus_core::{
    IsolationLevel, Offset, OffsetReset, RebalanceKind, Record, StartAt, Timestamp, TopicPartition,
};

use super::groups::Commits;
use super::{Evidence, Law, Log, Violation};
use crate::history::{Client, ClientId, ConsumerFacts, Entry, Event, Shown};

/// Checks the laws of this module.
pub fn check(entries: &[Entry], evidence: &Evidence) -> Vec<Violation> {
    let commits = Commits::of(entries);
    let mut sessions = Sessions { entries, evidence, commits, open: BTreeMap::new() };
    let mut consumers: BTreeMap<ClientId, &ConsumerFacts> = BTreeMap::new();
    let mut violations = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        if let Event::Made(Client::Consumer(facts)) = &entry.event {
            consumers.insert(entry.client, facts);
        }
        let Some(facts) = consumers.get(&entry.client) else { continue };
        if let Event::Delivered(record) = &entry.event {
            violations.extend(sessions.deliver(index, entry.client, facts, record));
        } else {
            sessions.change(index, entry);
        }
    }
    violations
}

struct Sessions<'a> {
    entries: &'a [Entry],
    evidence: &'a Evidence,
    commits: Commits<'a>,
    open: BTreeMap<(ClientId, TopicPartition), Session>,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    /// The entry that began it.
    since: usize,
    from: StartAt,
    /// The offset that was delivered last.
    last: Option<Offset>,
    is_paused: bool,
}

impl Session {
    const fn new(since: usize, from: StartAt) -> Self {
        Self { since, from, last: None, is_paused: false }
    }
}

impl Sessions<'_> {
    /// Follows what begins and ends sessions.
    fn change(&mut self, index: usize, entry: &Entry) {
        let client = entry.client;
        match &entry.event {
            Event::Assigned(partitions) => {
                self.end_all(client);
                for (place, from) in partitions {
                    self.open.insert((client, place.clone()), Session::new(index, *from));
                }
            }
            Event::Rebalanced(rebalance) => {
                for place in &rebalance.partitions {
                    let key = (client, place.clone());
                    if rebalance.kind == RebalanceKind::Assigned {
                        self.open.insert(key, Session::new(index, StartAt::Committed));
                    } else {
                        self.open.remove(&key);
                    }
                }
            }
            Event::Sought { topic_partition, to } => {
                if let Some(session) = self.open.get_mut(&(client, topic_partition.clone())) {
                    let is_paused = session.is_paused;
                    *session = Session { is_paused, ..Session::new(index, *to) };
                }
            }
            Event::Paused(partitions) | Event::Resumed(partitions) => {
                let is_paused = matches!(entry.event, Event::Paused(_));
                for place in partitions {
                    if let Some(session) = self.open.get_mut(&(client, place.clone())) {
                        session.is_paused = is_paused;
                    }
                }
            }
            Event::Subscribed | Event::Unsubscribed | Event::Closed => self.end_all(client),
            _ => {}
        }
    }

    fn end_all(&mut self, client: ClientId) {
        self.open.retain(|(owner, _), _| *owner != client);
    }

    /// Judges one delivery.
    fn deliver(
        &mut self,
        index: usize,
        client: ClientId,
        facts: &ConsumerFacts,
        record: &Record,
    ) -> Vec<Violation> {
        let (place, offset) = (record.topic_partition(), record.offset);
        let mut violations = Vec::new();
        let mut broken = |law, message: String| violations.push(Violation::new(law, message));
        let Some(session) = self.open.get(&(client, place.clone())).copied() else {
            let message = format!("{place}@{offset} went to client {}, not the owner", client.0);
            broken(Law::Ownership, message);
            return violations;
        };
        if session.is_paused {
            broken(Law::Ownership, format!("{place}@{offset} was delivered while it was paused"));
        }
        if let Some(log) = self.evidence.given(&place, facts.isolation) {
            match log.at(offset) {
                Some(kept) => {
                    differs(record, kept)
                        .into_iter()
                        .for_each(|message| broken(Law::Bytes, message));
                }
                None if offset >= log.start => {
                    let value = Shown(record.value.as_ref());
                    let message = format!("{place}@{offset} value {value} is not in the log");
                    broken(Law::Garbage, message);
                }
                None => {}
            }
            let wrong = match session.last {
                Some(last) => wrong_next(log, last, offset),
                None => self.wrong_start(&session, index, facts, &place, offset),
            };
            if let Some((law, message)) = wrong {
                broken(law, format!("{place}: client {} was given {message}", client.0));
            }
        } else if session.last.is_some_and(|last| last >= offset) {
            broken(Law::Order, format!("{place}@{offset} was delivered after {:?}", session.last));
        }
        if let Some(session) = self.open.get_mut(&(client, place)) {
            session.last = Some(offset);
        }
        violations
    }

    /// What is wrong with `offset` as the first of its session, if it is.
    fn wrong_start(
        &self,
        session: &Session,
        index: usize,
        facts: &ConsumerFacts,
        place: &TopicPartition,
        offset: Offset,
    ) -> Option<(Law, String)> {
        let log = self.evidence.given(place, facts.isolation)?;
        let mut expected: Vec<Start> = Vec::new();
        match session.from {
            StartAt::Beginning => expected.push(Start::At(log.start)),
            StartAt::End => expected.push(Start::End),
            StartAt::Offset(from) => expected.push(Start::At(from)),
            StartAt::Timestamp(time) => expected.push(Start::Time(time)),
            StartAt::Committed => {
                let window = session.since..index;
                let found = facts
                    .group_id
                    .as_ref()
                    .map(|group| self.commits.candidates(group, place, &window))
                    .unwrap_or_default();
                expected.extend(found.offsets.iter().map(|commit| Start::At(commit.offset)));
                if found.offsets.is_empty() || found.maybe_none {
                    expected.push(Start::Reset);
                }
            }
        }
        let firsts: Vec<_> =
            expected.iter().map(|start| self.first(*start, log, session, facts, place)).collect();
        if firsts.iter().any(|first| first.accepts(offset)) {
            return None;
        }
        // Too late is a skipped record, too early one that was committed.
        let is_late = firsts.iter().all(|first| first.min < offset);
        let law = if is_late { Law::Skipped } else { Law::Duplicate };
        let message =
            format!("offset {offset} first; expected is {expected:?}, that is {firsts:?}");
        Some((law, message))
    }

    /// The offsets that may be delivered first in a session that begins at `start`.
    fn first(
        &self,
        start: Start,
        log: &Log,
        session: &Session,
        facts: &ConsumerFacts,
        place: &TopicPartition,
    ) -> First {
        let written = self.evidence.written(place).unwrap_or(log);
        let exactly = |offset| {
            let first = log.next_visible(offset).unwrap_or(log.end);
            First { min: first, max: first }
        };
        match start {
            Start::At(offset) if (log.start..=written.end).contains(&offset) => exactly(offset),
            Start::Time(time) => {
                let found = written.records.iter().find(|record| record.timestamp >= time);
                found.map_or_else(
                    || self.first(Start::End, log, session, facts, place),
                    |record| exactly(record.offset),
                )
            }
            // Nothing that was acknowledged before; what came in the meantime may be on either
            // side.
            // An open transaction holds back the end for readers of committed records.
            Start::End if self.is_held_back(facts) => First { min: log.start, max: log.end },
            Start::End => First { min: self.end_at(session.since, place, log.start), max: log.end },
            // Out of range, too, is for the reset policy to decide.
            Start::At(_) | Start::Reset => match facts.reset {
                OffsetReset::Earliest => exactly(log.start),
                OffsetReset::Latest => self.first(Start::End, log, session, facts, place),
                OffsetReset::None => First { min: log.end, max: log.start - 1 },
            },
        }
    }

    fn is_held_back(&self, facts: &ConsumerFacts) -> bool {
        facts.isolation == IsolationLevel::ReadCommitted && !self.evidence.uncommitted.is_empty()
    }

    /// The least that the end of the log can have been at this entry.
    fn end_at(&self, index: usize, place: &TopicPartition, log_start: Offset) -> Offset {
        let ends = self.entries[..index].iter().filter_map(|entry| match &entry.event {
            Event::Sent { outcome: Ok(metadata), .. } if metadata.topic_partition == *place => {
                metadata.offset.map(|offset| offset + 1)
            }
            _ => None,
        });
        ends.max().unwrap_or(log_start)
    }
}

#[derive(Clone, Copy, Debug)]
enum Start {
    At(Offset),
    Time(Timestamp),
    End,
    Reset,
}

/// A range of offsets, both ends included.
#[derive(Clone, Copy, Debug)]
struct First {
    min: Offset,
    max: Offset,
}

impl First {
    fn accepts(self, offset: Offset) -> bool {
        (self.min..=self.max).contains(&offset)
    }
}

/// What is wrong with `offset` right after `last`, if it is.
fn wrong_next(log: &Log, last: Offset, offset: Offset) -> Option<(Law, String)> {
    if offset == last {
        return Some((Law::Duplicate, format!("offset {offset} twice")));
    }
    if offset < last {
        return Some((Law::Order, format!("offset {offset} after {last}")));
    }
    let expected = log.next_visible(last + 1)?;
    let message = || format!("offset {offset} after {last}; {expected} was skipped");
    (offset > expected).then(|| (Law::Skipped, message()))
}

/// How a record differs from the one that another consumer read at the same offset, if it does.
fn differs(given: &Record, kept: &Record) -> Option<String> {
    let place = given.topic_partition();
    let Record { topic: _, partition: _, offset, leader_epoch: _, .. } = given;
    let is_equal = given.key == kept.key
        && given.value == kept.value
        && given.headers == kept.headers
        && given.timestamp == kept.timestamp
        && given.timestamp_type == kept.timestamp_type;
    let (given, kept) = (Shown(given.value.as_ref()), Shown(kept.value.as_ref()));
    let message =
        || format!("{place}@{offset} was delivered with value {given} and read as {kept}");
    (!is_equal).then(message)
}

#[cfg(test)]
mod tests {
    use bus_core::OffsetReset::{Earliest, Latest};

    use super::*;
    use crate::oracle::story::{Story, place};

    #[test]
    fn a_good_history_breaks_no_law() {
        let mut story = Story::with(&["a", "b", "c"]);
        let first = story.owner();
        story.deliver(first, 0);
        story.deliver(first, 1);
        story.commit(first, 1);
        story.rebalance(first, RebalanceKind::Revoked);
        let second = story.owner();
        story.deliver(second, 1);
        story.deliver(second, 2);
        assert_eq!(story.broken(), []);
    }

    #[test]
    fn a_skipped_record_is_found() {
        let mut story = Story::with(&["a", "b", "c"]);
        let owner = story.owner();
        story.deliver(owner, 0);
        story.deliver(owner, 2);
        assert_eq!(story.broken(), [Law::Skipped]);
    }

    #[test]
    fn a_start_behind_the_commit_is_found() {
        let mut story = Story::with(&["a", "b", "c"]);
        let owner = story.owner();
        story.deliver(owner, 1);
        assert_eq!(story.broken(), [Law::Skipped], "nothing was committed");
        let mut story = Story::with(&["a", "b", "c"]);
        let first = story.owner();
        story.deliver(first, 0);
        story.commit(first, 1);
        story.rebalance(first, RebalanceKind::Revoked);
        let second = story.owner();
        story.deliver(second, 2);
        assert_eq!(story.broken(), [Law::Skipped], "1 was committed");
    }

    #[test]
    fn a_start_before_the_commit_is_found() {
        let mut story = Story::with(&["a", "b", "c"]);
        let first = story.owner();
        story.deliver(first, 0);
        story.deliver(first, 1);
        story.commit(first, 2);
        story.rebalance(first, RebalanceKind::Revoked);
        let second = story.owner();
        story.deliver(second, 1);
        assert_eq!(story.broken(), [Law::Duplicate]);
    }

    #[test]
    fn a_repetition_or_inversion_is_found() {
        let mut story = Story::with(&["a", "b"]);
        let owner = story.owner();
        story.deliver(owner, 0);
        story.deliver(owner, 0);
        assert_eq!(story.broken(), [Law::Duplicate]);
        story.deliver(owner, 1);
        story.deliver(owner, 0);
        assert_eq!(story.broken(), [Law::Duplicate, Law::Order]);
    }

    #[test]
    fn latest_must_skip_what_was_acknowledged() {
        let mut story = Story::with(&["a", "b"]);
        let member = story.member(Latest, false);
        story.rebalance(member, RebalanceKind::Assigned);
        story.deliver(member, 1);
        assert_eq!(story.broken(), [Law::Duplicate]);
        let mut story = Story::with(&["a", "b"]);
        let member = story.member(Latest, false);
        story.rebalance(member, RebalanceKind::Assigned);
        let producer = story.producer();
        let offset = story.sent(producer, "c");
        story.deliver(member, offset);
        assert_eq!(story.broken(), []);
    }

    #[test]
    fn a_seek_that_is_not_followed_is_found() {
        let mut story = Story::with(&["a", "b", "c"]);
        let reader = story.reader(StartAt::Beginning);
        story.deliver(reader, 0);
        story.event(reader, Event::Sought { topic_partition: place(), to: StartAt::Offset(2) });
        story.deliver(reader, 1);
        assert_eq!(story.broken(), [Law::Duplicate]);
    }

    #[test]
    fn a_delivery_to_a_stranger_is_found() {
        let mut story = Story::with(&["a"]);
        let member = story.member(Earliest, false);
        story.deliver(member, 0);
        assert_eq!(story.broken(), [Law::Ownership]);
        let owner = story.owner();
        story.rebalance(owner, RebalanceKind::Revoked);
        story.deliver(owner, 0);
        assert_eq!(story.broken(), [Law::Ownership, Law::Ownership]);
    }

    #[test]
    fn a_delivery_while_paused_is_found() {
        let mut story = Story::with(&["a"]);
        let reader = story.reader(StartAt::Beginning);
        story.event(reader, Event::Paused(vec![place()]));
        story.deliver(reader, 0);
        assert_eq!(story.broken(), [Law::Ownership]);
    }

    #[test]
    fn a_changed_delivery_is_found() {
        let mut story = Story::with(&["a"]);
        let reader = story.reader(StartAt::Beginning);
        let mut record = story.log().records[0].clone();
        record.value = Some("A".into());
        story.event(reader, Event::Delivered(record));
        assert_eq!(story.broken(), [Law::Bytes]);
    }

    #[test]
    fn an_auto_commit_passes_what_was_delivered_only() {
        let auto = |first_of_second| {
            let mut story = Story::with(&["a", "b", "c"]);
            let first = story.member(Earliest, true);
            story.rebalance(first, RebalanceKind::Assigned);
            story.deliver(first, 0);
            story.rebalance(first, RebalanceKind::Revoked);
            let second = story.owner();
            story.deliver(second, first_of_second);
            story.broken()
        };
        assert_eq!(auto(1), []);
        assert_eq!(auto(2), [Law::Skipped]);
    }
}
