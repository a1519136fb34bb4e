//! The audit at the end of a case: reads what the cluster holds, for the oracle to judge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bus_core::{
    Consumer, ConsumerConfig, ConsumerExt, ErrorKind, Partition, StartAt, Topic, TopicPartition,
};

use crate::cx::{Cx, STEP, quick_consumer};
use crate::failure::{Failure, FailureKind, Verdict};
use crate::history::{Client, Entry, Event};
use crate::oracle::{Evidence, Log, judge};

/// Reads the evidence and judges the history by it.
///
/// # Errors
/// The laws that are broken; or why the evidence cannot be read.
pub async fn audit(cx: &Cx) -> Verdict {
    let entries = cx.history().entries();
    let logs = logs(cx, &topics(&entries)).await?;
    let mut committed = BTreeMap::new();
    let admin = cx.raw_bus().admin()?;
    for group_id in groups(&entries) {
        let offsets = match admin.group_offsets(&group_id).await {
            Ok(offsets) => {
                Some(offsets.into_iter().map(|o| (o.topic_partition, o.committed)).collect())
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => None,
            Err(error) => return Err(error.into()),
        };
        committed.insert(group_id, offsets);
    }
    // What has happened meanwhile belongs to the history, too.
    let violations = judge(&cx.history().entries(), &Evidence { logs, committed });
    if violations.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = violations.iter().take(10).map(ToString::to_string).collect();
    Err(Failure::new(FailureKind::Law, lines.join("\n  ")))
}

/// The topics of the case with their partitions, but for those that were deleted in between.
fn topics(entries: &[Entry]) -> BTreeMap<Topic, Partition> {
    let mut topics = BTreeMap::new();
    for entry in entries {
        if let Event::Partitions { topic, partitions } = &entry.event {
            topics.insert(topic.clone(), *partitions);
        }
    }
    for entry in entries {
        if let Event::TopicDeleted(topic) = &entry.event {
            topics.remove(topic);
        }
    }
    topics
}

fn groups(entries: &[Entry]) -> BTreeSet<String> {
    let groups = entries.iter().filter_map(|entry| match &entry.event {
        Event::Made(Client::Consumer(facts)) => facts.group_id.clone(),
        Event::Commit { group_id, .. } => Some(group_id.clone()),
        _ => None,
    });
    groups.collect()
}

/// Reads each partition from its start to its end.
async fn logs(
    cx: &Cx,
    topics: &BTreeMap<Topic, Partition>,
) -> Verdict<BTreeMap<TopicPartition, Log>> {
    let places: Vec<_> = topics
        .iter()
        .flat_map(|(topic, partitions)| {
            (0..*partitions).map(move |n| TopicPartition::new(topic, n))
        })
        .collect();
    let mut logs = BTreeMap::new();
    if places.is_empty() {
        return Ok(logs);
    }
    let consumer = cx.raw_bus().consumer(quick_consumer(ConsumerConfig::default()))?;
    for place in &places {
        let watermarks = consumer.watermarks(place).await?;
        let log = Log { start: watermarks.low, end: watermarks.high, records: Vec::new() };
        logs.insert(place.clone(), log);
    }
    let filled: Vec<_> = places
        .into_iter()
        .filter(|place| logs[place].start < logs[place].end)
        .map(|place| (place, StartAt::Beginning))
        .collect();
    if !filled.is_empty() {
        consumer.assign(&filled)?;
        read(cx, &consumer, &mut logs).await?;
    }
    // The next case must not wait for it.
    drop(cx.raw_bus().spawn("close", async move { consumer.close().await }));
    Ok(logs)
}

async fn read(
    cx: &Cx,
    consumer: &Arc<dyn Consumer>,
    logs: &mut BTreeMap<TopicPartition, Log>,
) -> Verdict {
    let is_read = |log: &Log| {
        log.start == log.end || log.records.iter().any(|record| record.next_offset() == log.end)
    };
    cx.until("the logs are read to their ends", async || {
        for record in consumer.poll_records(STEP).await? {
            if let Some(log) = logs.get_mut(&record.topic_partition())
                && record.offset < log.end
            {
                log.records.push(record);
            }
        }
        Ok(logs.values().all(is_read).then_some(()))
    })
    .await
}
