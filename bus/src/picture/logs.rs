//! What became of the logs of the partitions that are shown.

use std::collections::BTreeMap;

use bus_check::picture::diagram::{LogChange, LogChangeKind, LogStrip, UNKNOWN};
use bus_core::TopicPartition;
use bus_sim::event::{CarriedBatch, EventSeq};
use bus_sim::fact::{Fact, TransactionFact};
use bus_sim::protocol::batch::{ControlRecord, ProducerId};
use bus_sim::{SimEvent, SimEventKind};

use super::{Cast, words};

/// A strip for each partition.
pub(super) fn strips(cast: &Cast<'_>) -> Vec<LogStrip> {
    let strips = cast.partitions.iter().map(|partition| {
        let mut known = Known { cast, sent: sent(cast, partition), at: BTreeMap::new() };
        let changes = cast.events.iter().flat_map(|event| {
            let SimEventKind::Fact(fact) = &event.kind else { return Vec::new() };
            if words::partition(fact) != Some(partition) {
                return Vec::new();
            }
            let lane = match fact {
                Fact::Appended { broker, .. }
                | Fact::Replicated { broker, .. }
                | Fact::Truncated { broker, .. }
                | Fact::PageCacheLost { broker, .. }
                | Fact::HighWatermark { broker, .. } => cast.lanes.broker(*broker),
                _ => cast.lanes.find(&event.place),
            };
            let Some(lane) = lane else { return Vec::new() };
            let kinds = changes(&mut known, event, fact).into_iter();
            kinds
                .map(|kind| LogChange { id: event.seq, at: event.at.as_nanos(), lane, kind })
                .collect()
        });
        LogStrip { partition: partition.to_string(), changes: changes.collect() }
    });
    strips.collect()
}

/// What was sent to the leaders of a partition, with the number of the event, in their order.
fn sent<'a>(cast: &Cast<'a>, partition: &TopicPartition) -> Vec<(EventSeq, &'a CarriedBatch)> {
    let sent = cast.events.iter().flat_map(|event| match &event.kind {
        SimEventKind::Sent { batches, .. } => {
            batches.iter().map(|batch| (event.seq, batch)).collect()
        }
        _ => Vec::new(),
    });
    sent.filter(|(_, batch)| batch.topic_partition == *partition).collect()
}

/// A record that was seen on its way to a leader.
struct Seen {
    value: String,
    /// Whose transaction it belongs to, as long as that is open.
    transaction_of: Option<ProducerId>,
}

/// The records of a partition, as far as they were seen.
struct Known<'a> {
    cast: &'a Cast<'a>,
    /// What was sent.
    sent: Vec<(EventSeq, &'a CarriedBatch)>,
    /// What was last appended at each offset.
    at: BTreeMap<i64, Seen>,
}

impl Known<'_> {
    /// The records of a batch that a leader appends: those of the request that it handles, or of
    /// one before that waited (a leader asks the coordinator of a transaction first).
    fn appended(&mut self, event: &SimEvent, base: i64, count: u32, digest: u64) {
        // Whatever was there, or above, was taken back before.
        self.at.split_off(&base);
        let arrived = event.cause.and_then(|cause| self.cast.event(cause));
        let handled = arrived.and_then(|arrived| arrived.cause);
        let before = self.sent.partition_point(|(seq, _)| *seq < event.seq);
        let before = || self.sent[..before].iter().rev();
        let found = before().find(|(seq, _)| Some(*seq) == handled);
        let found = found.or_else(|| before().find(|(_, batch)| batch.digest == digest));
        let Some((_, CarriedBatch { values, transaction_of, .. })) = found else { return };
        for (offset, value) in (base..base + i64::from(count)).zip(values) {
            let (value, transaction_of) = (value.clone(), *transaction_of);
            self.at.insert(offset, Seen { value, transaction_of });
        }
    }

    fn values(&self, base: i64, count: u32) -> Vec<String> {
        let offsets = base..base + i64::from(count);
        let values = offsets.map(|offset| self.at.get(&offset).map(|seen| seen.value.clone()));
        values.map(|value| value.unwrap_or_else(|| UNKNOWN.to_owned())).collect()
    }

    /// The records of the transaction that a producer ends here, as ranges.
    fn ended(&mut self, producer: ProducerId) -> Vec<(i64, i64)> {
        let mut ranges: Vec<(i64, i64)> = Vec::new();
        for (offset, seen) in &mut self.at {
            if seen.transaction_of != Some(producer) {
                continue;
            }
            seen.transaction_of = None;
            match ranges.last_mut() {
                Some((_, to)) if *to == *offset => *to += 1,
                _ => ranges.push((*offset, offset + 1)),
            }
        }
        ranges
    }
}

fn changes(known: &mut Known<'_>, event: &SimEvent, fact: &Fact) -> Vec<LogChangeKind> {
    let added = |known: &Known<'_>, from: i64, count: u32, is_copy: bool| LogChangeKind::Added {
        from,
        to: from + i64::from(count),
        values: known.values(from, count),
        is_copy,
    };
    let change = match fact {
        Fact::Appended { base_offset: from, count, digest, .. } => {
            known.appended(event, *from, *count, *digest);
            added(known, *from, *count, false)
        }
        Fact::Replicated { base_offset: from, count, .. } => added(known, *from, *count, true),
        Fact::Truncated { from, to, .. } => LogChangeKind::Truncated { from: *from, to: *to },
        Fact::PageCacheLost { from, to, .. } => LogChangeKind::PowerLost { from: *from, to: *to },
        Fact::HighWatermark { offset, .. } => LogChangeKind::HighWatermark(*offset),
        Fact::Transaction(TransactionFact::Marker { control, offset, producer_id, .. }) => {
            let is_commit = *control == ControlRecord::Commit;
            let ended = known.ended(*producer_id).into_iter().filter(|_| !is_commit);
            let mut changes: Vec<_> =
                ended.map(|(from, to)| LogChangeKind::Aborted { from, to }).collect();
            changes.push(LogChangeKind::Marker { offset: *offset, is_commit });
            return changes;
        }
        _ => return Vec::new(),
    };
    vec![change]
}
