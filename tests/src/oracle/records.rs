//! What was sent, against what the logs hold: nothing lost, changed, twice, misplaced, or invented.

use std::collections::{BTreeMap, BTreeSet};

use bus_core::{
    Offset, ProducerRecord, Record, RecordMetadata, Result, TimestampType, TopicPartition,
    partitioner,
};

use super::transactions::{Fate, Transactions};
use super::{Evidence, Law, Log, Violation, partition_counts};
use crate::history::{Client, ClientId, Entry, Event, SendId, Shown};

/// Checks the laws of this module.
pub fn check(entries: &[Entry], evidence: &Evidence) -> Vec<Violation> {
    let sends = sends(entries);
    let transactions = Transactions::of(entries);
    let mut violations = Vec::new();
    let written = |place| evidence.written(place);
    for send in sends.values() {
        if let Some((_, metadata)) = send.acknowledged() {
            violations.extend(check_place(send, metadata, entries));
            if let Some(log) = written(&metadata.topic_partition) {
                violations.extend(check_acknowledged(send, metadata, log));
            }
        }
    }
    let foreign: BTreeSet<_> = entries
        .iter()
        .filter_map(|entry| match &entry.event {
            Event::Foreign(topic) => Some(topic),
            _ => None,
        })
        .collect();
    let is_disturbed = entries
        .iter()
        .any(|entry| matches!(&entry.event, Event::Inflicted(fault) if fault.disturbs_brokers()));
    for (place, visible) in &evidence.logs {
        let log = written(place).unwrap_or(visible);
        violations.extend(check_visible(place, visible, log));
        if foreign.contains(&place.topic) {
            continue;
        }
        let sent_there = |send| sends.get(&send).is_some_and(|send| send.may_be_in(place));
        let (least, most) = transactions.markers(place, sent_there);
        // A coordinator that was not answered has a marker written again.
        let most = if most > 0 && is_disturbed { Offset::MAX } else { most };
        violations.extend(check_offsets(place, log, (least, most)));
        violations.extend(check_rest(&sends, place, log));
        if !transactions.is_empty() {
            let may_show = |id: &SendId| transactions.fate(*id) != Some(Fate::Aborted);
            let shown = sends.iter().filter(|(id, _)| may_show(id));
            let shown = shown.map(|(id, send)| (*id, send.clone())).collect();
            violations.extend(check_rest(&shown, place, visible));
        }
    }
    violations.extend(check_order(entries, &sends));
    violations
}

/// A send with its outcome.
#[derive(Clone)]
struct Send<'a> {
    client: ClientId,
    invoked: &'a Entry,
    record: &'a ProducerRecord,
    outcome: Option<(&'a Entry, &'a Result<RecordMetadata>)>,
}

impl<'a> Send<'a> {
    /// Whether it is to this partition, or does not say to which.
    fn may_be_in(&self, place: &TopicPartition) -> bool {
        let ProducerRecord { topic, partition, .. } = self.record;
        *topic == place.topic && partition.is_none_or(|partition| partition == place.partition)
    }

    fn acknowledged(&self) -> Option<(&'a Entry, &'a RecordMetadata)> {
        match self.outcome {
            Some((entry, Ok(metadata))) => Some((entry, metadata)),
            _ => None,
        }
    }

    /// Whether the record may be in the log without an offset that was told.
    fn is_unknown(&self) -> bool {
        match self.outcome {
            None => true,
            Some((_, Ok(metadata))) => metadata.offset.is_none(),
            Some((_, Err(error))) => error.is_indeterminate(),
        }
    }
}

fn sends(entries: &[Entry]) -> BTreeMap<SendId, Send<'_>> {
    let mut sends = BTreeMap::new();
    for entry in entries {
        match &entry.event {
            Event::Send { send, record } => {
                let client = entry.client;
                sends.insert(*send, Send { client, invoked: entry, record, outcome: None });
            }
            Event::Sent { send, outcome } => {
                if let Some(send) = sends.get_mut(send) {
                    send.outcome = Some((entry, outcome));
                }
            }
            _ => {}
        }
    }
    sends
}

/// Offsets rise by one from the log start to the end, but for so many markers of transactions.
fn check_offsets(
    place: &TopicPartition,
    log: &Log,
    (least, most): (Offset, Offset),
) -> Option<Violation> {
    let mut expected = log.start;
    let mut holes = Vec::new();
    for record in &log.records {
        if record.offset < expected {
            let message = format!("{place}@{} was read twice", record.offset);
            return Some(Violation::new(Law::Duplicate, message));
        }
        holes.extend(expected..record.offset);
        expected = record.next_offset();
    }
    holes.extend(expected..log.end);
    if expected > log.end {
        let message = format!("{place} ends at {}, but was read to {expected}", log.end);
        return Some(Violation::new(Law::Offset, message));
    }
    let count = Offset::try_from(holes.len()).unwrap_or(Offset::MAX);
    let message =
        format!("{place} has no records at {holes:?}; from {least} to {most} markers are expected");
    (!(least..=most).contains(&count)).then(|| Violation::new(Law::Offset, message))
}

/// Readers of committed records are given some of the records, as they are.
fn check_visible(place: &TopicPartition, visible: &Log, log: &Log) -> Option<Violation> {
    let record = visible.records.iter().find(|record| log.at(record.offset) != Some(record))?;
    let message = format!("{place}@{} is not there for readers of all records", record.offset);
    Some(Violation::new(Law::Garbage, message))
}

/// The record went to the partition that was asked for, or to that of its key.
fn check_place(send: &Send<'_>, metadata: &RecordMetadata, entries: &[Entry]) -> Option<Violation> {
    let place = &metadata.topic_partition;
    let ProducerRecord { topic, partition, key, .. } = send.record;
    let expected: BTreeSet<_> = match (partition, key) {
        (Some(partition), _) => BTreeSet::from([*partition]),
        (None, Some(key)) => partition_counts(entries)
            .get(topic)?
            .iter()
            .map(|count| partitioner::partition_for_key(key, *count))
            .collect(),
        (None, None) => return None,
    };
    let key = Shown(key.as_ref());
    let message = format!("a record of key {key} went to {place}; expected is {expected:?}");
    let is_right = *topic == place.topic && expected.contains(&place.partition);
    (!is_right).then(|| Violation::new(Law::Place, message))
}

/// An acknowledged record is in the log, where the acknowledgement says, as it was sent.
fn check_acknowledged(send: &Send<'_>, metadata: &RecordMetadata, log: &Log) -> Option<Violation> {
    let offset = metadata.offset?;
    if offset < log.start {
        return None;
    }
    let place = &metadata.topic_partition;
    let found = log.at(offset);
    let elsewhere = || log.records.iter().find(|record| differs(send, record).is_none());
    let difference = match found {
        None => "there is nothing".to_owned(),
        Some(record) => differs(send, record)?,
    };
    if let Some(other) = elsewhere() {
        let message = format!(
            "value {} was acknowledged at {place}@{offset} and is at {}",
            Shown(send.record.value.as_ref()),
            other.offset
        );
        return Some(Violation::new(Law::Offset, message));
    }
    let law = if found.is_none() { Law::Lost } else { Law::Bytes };
    let value = Shown(send.record.value.as_ref());
    let message = format!("value {value} was acknowledged at {place}@{offset}; {difference}");
    Some(Violation::new(law, message))
}

/// How the record in the log differs from the one that was sent, if it does.
fn differs(send: &Send<'_>, found: &Record) -> Option<String> {
    let sent = send.record;
    if sent.key != found.key {
        let (sent, found) = (Shown(sent.key.as_ref()), Shown(found.key.as_ref()));
        return Some(format!("the key sent was {sent}, the key there is {found}"));
    }
    if sent.value != found.value {
        let (sent, found) = (Shown(sent.value.as_ref()), Shown(found.value.as_ref()));
        return Some(format!("the value sent was {sent}, the value there is {found}"));
    }
    if sent.headers != found.headers {
        let (sent, found) = (&sent.headers, &found.headers);
        return Some(format!("the headers sent were {sent:?}, the headers there are {found:?}"));
    }
    let ended = send.outcome.map(|(entry, _)| entry.now);
    let is_right = match (found.timestamp_type, sent.timestamp) {
        (TimestampType::CreateTime, Some(timestamp)) => found.timestamp == timestamp,
        _ => {
            let until = ended.unwrap_or(found.timestamp);
            (send.invoked.now..=until).contains(&found.timestamp)
        }
    };
    let message = format!(
        "the timestamp sent was {:?} (from {} to {ended:?}), that there is {} ({:?})",
        sent.timestamp, send.invoked.now, found.timestamp, found.timestamp_type
    );
    (!is_right).then_some(message)
}

/// Whatever else a log holds comes from sends with an unknown outcome, one record from each.
fn check_rest(
    sends: &BTreeMap<SendId, Send<'_>>,
    place: &TopicPartition,
    log: &Log,
) -> Vec<Violation> {
    let acknowledged: BTreeSet<Offset> = sends
        .values()
        .filter_map(|send| send.acknowledged())
        .filter(|(_, metadata)| metadata.topic_partition == *place)
        .filter_map(|(_, metadata)| metadata.offset)
        .collect();
    let mut used = BTreeSet::new();
    let mut violations = Vec::new();
    for record in log.records.iter().filter(|record| !acknowledged.contains(&record.offset)) {
        let alike = sends
            .iter()
            .filter(|(_, send)| send.may_be_in(place) && differs(send, record).is_none());
        let (unknown, known): (Vec<_>, Vec<_>) = alike.partition(|(_, send)| send.is_unknown());
        if let Some((id, _)) = unknown.iter().find(|(id, _)| !used.contains(*id)) {
            used.insert(**id);
            continue;
        }
        let (law, why) =
            if !unknown.is_empty() || known.iter().any(|(_, send)| send.acknowledged().is_some()) {
                (Law::Duplicate, "is there twice")
            } else if known.is_empty() {
                (Law::Garbage, "was never sent there, or was aborted")
            } else {
                (Law::Garbage, "was refused for certain")
            };
        let (offset, value) = (record.offset, Shown(record.value.as_ref()));
        violations.push(Violation::new(law, format!("{place}@{offset} value {value} {why}")));
    }
    violations
}

/// Offsets follow real time, and the order of the calls of each producer that keeps it.
fn check_order(entries: &[Entry], sends: &BTreeMap<SendId, Send<'_>>) -> Vec<Violation> {
    let mut violations = Vec::new();
    // A topic that is made anew begins at offset 0 again.
    let deleted: BTreeSet<_> = entries
        .iter()
        .filter_map(|entry| match &entry.event {
            Event::TopicDeleted(topic) => Some(topic),
            _ => None,
        })
        .collect();
    // What is acknowledged before a send begins is before its record.
    let mut highest: BTreeMap<&TopicPartition, Offset> = BTreeMap::new();
    let mut before: BTreeMap<SendId, BTreeMap<&TopicPartition, Offset>> = BTreeMap::new();
    for entry in entries {
        match &entry.event {
            Event::Send { send, .. } => {
                before.insert(*send, highest.clone());
            }
            Event::Sent { send, outcome: Ok(metadata) }
                if !deleted.contains(&metadata.topic_partition.topic) =>
            {
                let (place, Some(offset)) = (&metadata.topic_partition, metadata.offset) else {
                    continue;
                };
                let earlier = before.remove(send).and_then(|before| before.get(place).copied());
                if let Some(earlier) = earlier.filter(|earlier| *earlier >= offset) {
                    let message = format!(
                        "{place}@{offset} was sent after {place}@{earlier} was acknowledged"
                    );
                    violations.push(Violation::new(Law::Order, message));
                }
                let highest = highest.entry(place).or_insert(offset);
                *highest = offset.max(*highest);
            }
            _ => {}
        }
    }
    let ordered: BTreeSet<_> = entries
        .iter()
        .filter(|entry| {
            matches!(entry.event, Event::Made(Client::Producer { keeps_order: true, .. }))
        })
        .map(|entry| entry.client)
        .collect();
    let mut last: BTreeMap<(ClientId, &TopicPartition), Offset> = BTreeMap::new();
    for send in sends.values().filter(|send| ordered.contains(&send.client)) {
        let Some((_, metadata)) = send.acknowledged() else { continue };
        let (place, Some(offset)) = (&metadata.topic_partition, metadata.offset) else { continue };
        if deleted.contains(&place.topic) {
            continue;
        }
        if let Some(earlier) = last.insert((send.client, place), offset)
            && earlier >= offset
        {
            let message =
                format!("{place}@{offset} was sent after {place}@{earlier}, in one producer");
            violations.push(Violation::new(Law::Order, message));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use bus_core::ErrorKind;

    use super::*;
    use crate::oracle::story::{Story, place};

    #[test]
    fn a_good_history_breaks_no_law() {
        assert_eq!(Story::with(&["a", "b", "b"]).broken(), []);
    }

    #[test]
    fn a_lost_record_is_found() {
        let mut story = Story::with(&["a", "b"]);
        story.log().records.pop();
        story.log().end -= 1;
        assert_eq!(story.broken(), [Law::Lost]);
    }

    #[test]
    fn a_changed_record_is_found() {
        let change: [fn(&mut Record); 4] = [
            |record| record.value = None,
            |record| record.key = Some("k".into()),
            |record| record.headers.push("h", None),
            |record| record.timestamp = bus_core::Timestamp::EPOCH,
        ];
        for change in change {
            let mut story = Story::with(&["a"]);
            change(&mut story.log().records[0]);
            assert_eq!(story.broken(), [Law::Bytes]);
        }
    }

    #[test]
    fn a_wrong_acknowledgement_is_found() {
        let mut story = Story::with(&["a", "b"]);
        story.log().records.swap(0, 1);
        (story.log().records[0].offset, story.log().records[1].offset) = (0, 1);
        assert_eq!(story.broken(), [Law::Offset, Law::Offset]);
    }

    #[test]
    fn a_hole_is_found() {
        let mut story = Story::with(&["a"]);
        story.log().end = 2;
        assert_eq!(story.broken(), [Law::Offset]);
    }

    #[test]
    fn a_duplicate_is_found() {
        let mut story = Story::with(&["a"]);
        story.append("a");
        assert_eq!(story.broken(), [Law::Duplicate]);
        let mut story = Story::with(&["a"]);
        let again = story.log().records[0].clone();
        story.log().records.push(again);
        assert_eq!(story.broken(), [Law::Duplicate]);
    }

    #[test]
    fn a_record_that_was_never_sent_is_found() {
        let mut story = Story::with(&["a"]);
        story.append("b");
        assert_eq!(story.broken(), [Law::Garbage]);
    }

    #[test]
    fn an_unknown_outcome_allows_one_record() {
        let mut story = Story::new();
        let producer = story.producer();
        let send = story.send(producer, "a");
        story.append("a");
        assert_eq!(story.broken(), [], "the send is pending");
        story.fail(producer, send, ErrorKind::RequestTimedOut);
        assert_eq!(story.broken(), [], "the outcome is unknown");
        story.append("a");
        assert_eq!(story.broken(), [Law::Duplicate]);
    }

    #[test]
    fn a_refused_record_that_is_there_is_found() {
        let mut story = Story::new();
        let producer = story.producer();
        let send = story.send(producer, "a");
        story.append("a");
        story.fail(producer, send, ErrorKind::MessageTooLarge);
        assert_eq!(story.broken(), [Law::Garbage]);
    }

    #[test]
    fn a_reversed_batch_is_found() {
        let mut story = Story::new();
        let producer = story.producer();
        let (first, second) = (story.send(producer, "a"), story.send(producer, "b"));
        let (b, a) = (story.append("b"), story.append("a"));
        story.acknowledge(producer, first, a);
        story.acknowledge(producer, second, b);
        assert_eq!(story.broken(), [Law::Order]);
    }

    #[test]
    fn an_offset_before_what_was_acknowledged_is_found() {
        let mut story = Story::new();
        let (one, other) = (story.producer(), story.producer());
        let (b, a) = (story.append("b"), story.append("a"));
        let send = story.send(one, "a");
        story.log().records[1].timestamp = bus_core::Timestamp::from_millis(6);
        story.acknowledge(one, send, a);
        let send = story.send(other, "b");
        story.log().records[0].timestamp = bus_core::Timestamp::from_millis(8);
        story.acknowledge(other, send, b);
        assert!(story.broken().contains(&Law::Order), "{:?}", story.broken());
    }

    #[test]
    fn a_misplaced_record_is_found() {
        let mut story = Story::new();
        let producer = story.producer();
        let record = ProducerRecord::to("t").partition(1).value("a");
        let send = story.send_record(producer, record);
        let offset = story.append("a");
        story.acknowledge(producer, send, offset);
        assert_eq!(story.broken(), [Law::Place]);
        assert_eq!(place().partition, 0);
    }
}
