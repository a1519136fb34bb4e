//! The audit at the end of a case: reads what the cluster holds, for the oracle to judge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Consumer, ConsumerConfig, ConsumerExt, ErrorKind, IsolationLevel, Offset, OffsetAndMetadata,
    Partition, ProducerConfig, ProducerExt, ProducerRecord, StartAt, Topic, TopicPartition,
    TransactionConfig, Watermarks,
};

use crate::cx::{Cx, STEP, quick_consumer, quick_producer};
use crate::failure::{Failure, FailureKind, Verdict};
use crate::history::{Client, Entry, Event};
use crate::oracle::{Evidence, Log, judge, transactions};

/// Reads the evidence and judges the history by it.
///
/// # Errors
/// The laws that are broken; or why the evidence cannot be read.
pub async fn audit(cx: &Cx) -> Verdict {
    let entries = cx.history().entries();
    let places = places(&entries);
    let mut evidence = Evidence::default();
    if has_transactions(&entries) {
        let ends = settle(cx, &entries, &places).await?;
        evidence.logs = logs(cx, &places, IsolationLevel::ReadCommitted, &ends).await?;
        evidence.uncommitted = logs(cx, &places, IsolationLevel::ReadUncommitted, &ends).await?;
    } else {
        evidence.logs = logs(cx, &places, IsolationLevel::ReadCommitted, &BTreeMap::new()).await?;
    }
    for group_id in groups(&entries) {
        let committed = committed(cx, &group_id, &places, !evidence.uncommitted.is_empty()).await?;
        evidence.committed.insert(group_id, committed);
    }
    // What has happened meanwhile belongs to the history, too.
    let violations = judge(&cx.history().entries(), &evidence);
    if violations.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = violations.iter().take(10).map(ToString::to_string).collect();
    Err(Failure::new(FailureKind::Law, lines.join("\n  ")))
}

fn has_transactions(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| match &entry.event {
        Event::Made(Client::Producer { transactional_id, .. }) => transactional_id.is_some(),
        Event::ForeignTransactions(_) => true,
        _ => false,
    })
}

/// Ends what transactions were left open, and sends one more record to each partition: whoever has
/// read that has read all before it, whatever markers are there. Returns where these records are.
async fn settle(
    cx: &Cx,
    entries: &[Entry],
    places: &[TopicPartition],
) -> Verdict<BTreeMap<TopicPartition, Offset>> {
    for id in transactions::left_open(entries) {
        let config = TransactionConfig::new(id);
        let producer = cx.raw_bus().transactional_producer(ProducerConfig::default(), config)?;
        producer.init_transactions().await?;
        drop(cx.raw_bus().spawn("close", async move { producer.close(CLOSE).await }));
    }
    let [committed, uncommitted] =
        [IsolationLevel::ReadCommitted, IsolationLevel::ReadUncommitted].map(reader_config);
    let committed = cx.raw_bus().consumer(committed)?;
    let uncommitted = cx.raw_bus().consumer(uncommitted)?;
    for place in places {
        cx.until("the markers are written", async || {
            let stable = committed.watermarks(place).await?.high;
            Ok((stable == uncommitted.watermarks(place).await?.high).then_some(()))
        })
        .await?;
    }
    let producer = cx.raw_bus().producer(quick_producer())?;
    let record = |place: &TopicPartition| {
        ProducerRecord::to(&place.topic).partition(place.partition).key("audit").value("the end")
    };
    let mut ends = BTreeMap::new();
    for (place, sent) in places.iter().zip(producer.send_all(places.iter().map(record)).await) {
        ends.insert(place.clone(), sent?.offset.unwrap_or_default());
    }
    drop(cx.raw_bus().spawn("close", async move {
        drop((committed.close().await, uncommitted.close().await, producer.close(CLOSE).await));
    }));
    Ok(ends)
}

/// How long a client of the audit may take to close.
const CLOSE: Duration = Duration::from_secs(10);

fn reader_config(isolation_level: IsolationLevel) -> ConsumerConfig {
    quick_consumer(ConsumerConfig { isolation_level, ..Default::default() })
}

/// What a group has committed; `None` where that cannot be known.
async fn committed(
    cx: &Cx,
    group_id: &str,
    places: &[TopicPartition],
    has_transactions: bool,
) -> Verdict<Option<BTreeMap<TopicPartition, OffsetAndMetadata>>> {
    if has_transactions {
        // It waits until no offset is part of an open transaction.
        let member = cx.raw_bus().consumer(quick_consumer(ConsumerConfig::in_group(group_id)))?;
        member.committed(places).await?;
        drop(cx.raw_bus().spawn("close", async move { member.close().await }));
    }
    match cx.raw_bus().admin()?.group_offsets(group_id).await {
        Ok(offsets) => {
            Ok(Some(offsets.into_iter().map(|o| (o.topic_partition, o.committed)).collect()))
        }
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The partitions of the case's topics.
fn places(entries: &[Entry]) -> Vec<TopicPartition> {
    let topics = topics(entries);
    let places = topics
        .iter()
        .flat_map(|(topic, count)| (0..*count).map(move |n| TopicPartition::new(topic, n)));
    places.collect()
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
    groups.filter(|group_id| !group_id.is_empty()).collect()
}

/// Reads each partition from its start to its end, or to where it is told.
async fn logs(
    cx: &Cx,
    places: &[TopicPartition],
    isolation: IsolationLevel,
    ends: &BTreeMap<TopicPartition, Offset>,
) -> Verdict<BTreeMap<TopicPartition, Log>> {
    let mut logs = BTreeMap::new();
    if places.is_empty() {
        return Ok(logs);
    }
    let consumer = cx.raw_bus().consumer(reader_config(isolation))?;
    for place in places {
        let watermarks = replicated(cx, &consumer, place).await?;
        let end = ends.get(place).copied().unwrap_or(watermarks.high);
        logs.insert(place.clone(), Log { start: watermarks.low, end, records: Vec::new() });
    }
    // The last offset of each partition that is to be read.
    let mut unread: BTreeMap<TopicPartition, Offset> = logs
        .iter()
        .map(|(place, log)| (place, log.start, ends.get(place).copied().unwrap_or(log.end - 1)))
        .filter(|(_, start, last)| start <= last)
        .map(|(place, _, last)| (place.clone(), last))
        .collect();
    if !unread.is_empty() {
        let from: Vec<_> = unread.keys().map(|place| (place.clone(), StartAt::Beginning)).collect();
        consumer.assign(&from)?;
        read(cx, &consumer, &mut logs, &mut unread).await?;
    }
    // The next case must not wait for it.
    drop(cx.raw_bus().spawn("close", async move { consumer.close().await }));
    Ok(logs)
}

/// The ends of a partition. What is acknowledged by its leader alone takes a moment to be visible;
/// if it does not become so, a law is broken.
async fn replicated(
    cx: &Cx,
    consumer: &Arc<dyn Consumer>,
    place: &TopicPartition,
) -> Verdict<Watermarks> {
    const MOMENT: Duration = Duration::from_secs(5);

    let acknowledged = |entry: &Entry| match &entry.event {
        Event::Sent { outcome: Ok(metadata), .. } if metadata.topic_partition == *place => {
            metadata.offset
        }
        _ => None,
    };
    let last = cx.history().entries().iter().filter_map(acknowledged).max();
    let deadline = cx.raw_bus().elapsed() + MOMENT;
    loop {
        let watermarks = consumer.watermarks(place).await?;
        if last.is_none_or(|last| last < watermarks.high) || cx.raw_bus().elapsed() > deadline {
            return Ok(watermarks);
        }
    }
}

async fn read(
    cx: &Cx,
    consumer: &Arc<dyn Consumer>,
    logs: &mut BTreeMap<TopicPartition, Log>,
    unread: &mut BTreeMap<TopicPartition, Offset>,
) -> Verdict {
    cx.until("the logs are read to their ends", async || {
        for record in consumer.poll_records(STEP).await? {
            let place = record.topic_partition();
            if unread.get(&place).is_some_and(|last| record.offset >= *last) {
                unread.remove(&place);
            }
            if let Some(log) = logs.get_mut(&place)
                && record.offset < log.end
            {
                log.records.push(record);
            }
        }
        Ok(unread.is_empty().then_some(()))
    })
    .await
}
