//! What became of the logs of the partitions that are shown.

use std::collections::BTreeMap;

use bus_check::picture::diagram::{LogChange, LogChangeKind, LogStrip};
use bus_core::TopicPartition;
use bus_sim::fact::{Fact, TransactionFact};
use bus_sim::protocol::batch::ControlRecord;
use bus_sim::{SimEvent, SimEventKind};

use super::{Cast, words};

/// A strip for each partition.
pub(super) fn strips(cast: &Cast<'_>) -> Vec<LogStrip> {
    let strips = cast.partitions.iter().map(|partition| {
        let mut known = Values { cast, at: BTreeMap::new() };
        let changes = cast.events.iter().filter_map(|event| {
            let SimEventKind::Fact(fact) = &event.kind else { return None };
            (words::partition(fact) == Some(partition)).then_some(())?;
            let kind = change(&mut known, event, partition, fact)?;
            let lane = match fact {
                Fact::Appended { broker, .. }
                | Fact::Replicated { broker, .. }
                | Fact::Truncated { broker, .. }
                | Fact::PageCacheLost { broker, .. }
                | Fact::HighWatermark { broker, .. } => cast.lanes.broker(*broker)?,
                _ => cast.lanes.find(&event.place)?,
            };
            Some(LogChange { id: event.seq, at: event.at.as_nanos(), lane, kind })
        });
        LogStrip { partition: partition.to_string(), changes: changes.collect() }
    });
    strips.collect()
}

/// The values of records, as far as they were seen on their way to a leader.
struct Values<'a> {
    cast: &'a Cast<'a>,
    /// What was last appended at each offset.
    at: BTreeMap<i64, String>,
}

impl Values<'_> {
    /// The values of a batch that a leader appends: those of the request that it handles.
    fn appended(&mut self, event: &SimEvent, partition: &TopicPartition, base: i64, count: u32) {
        let arrived = event.cause.and_then(|cause| self.cast.event(cause));
        let sent = arrived.and_then(|arrived| self.cast.event(arrived.cause?));
        let Some(SimEvent { kind: SimEventKind::Sent { values, .. }, .. }) = sent else { return };
        let of = values.iter().find(|(of, _)| of == partition).map(|(_, values)| values);
        for (offset, value) in (base..base + i64::from(count)).zip(of.into_iter().flatten()) {
            self.at.insert(offset, value.clone());
        }
    }

    fn of(&self, base: i64, count: u32) -> Vec<String> {
        let offsets = base..base + i64::from(count);
        let values = offsets.map(|offset| self.at.get(&offset).cloned());
        values.map(|value| value.unwrap_or_else(|| "·".to_owned())).collect()
    }
}

fn change(
    known: &mut Values<'_>,
    event: &SimEvent,
    partition: &TopicPartition,
    fact: &Fact,
) -> Option<LogChangeKind> {
    Some(match fact {
        Fact::Appended { base_offset: from, count, .. } => {
            known.appended(event, partition, *from, *count);
            let values = known.of(*from, *count);
            LogChangeKind::Added {
                from: *from,
                to: from + i64::from(*count),
                values,
                is_copy: false,
            }
        }
        Fact::Replicated { base_offset: from, count, .. } => {
            let values = known.of(*from, *count);
            LogChangeKind::Added {
                from: *from,
                to: from + i64::from(*count),
                values,
                is_copy: true,
            }
        }
        Fact::Truncated { from, to, .. } => LogChangeKind::Truncated { from: *from, to: *to },
        Fact::PageCacheLost { from, to, .. } => LogChangeKind::PowerLost { from: *from, to: *to },
        Fact::HighWatermark { offset, .. } => LogChangeKind::HighWatermark(*offset),
        Fact::Transaction(TransactionFact::Marker { control, offset, .. }) => {
            let is_commit = *control == ControlRecord::Commit;
            LogChangeKind::Marker { offset: *offset, is_commit }
        }
        _ => return None,
    })
}
