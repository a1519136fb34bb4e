//! What stories share: a topic, its log as a reader sees it, and the report.

use std::time::Duration;

use bus_core::{
    Bus, ConsumerConfig, ConsumerExt as _, ErrorKind, IsolationLevel, NewTopic, Record, Result,
    StartAt, Topic, TopicPartition,
};

use crate::report::{Broken, Report, Verdict};

/// Creates the topic of a story.
///
/// # Errors
/// Those of [`create_topic`](bus_core::Admin::create_topic), but for a topic that is there already.
pub async fn create_topic(bus: &Bus, topic: NewTopic) -> Result<()> {
    match bus.admin()?.create_topic(topic).await {
        Err(error) if error.kind() != ErrorKind::TopicAlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// All records of a topic from its beginning to its end, by partition and offset, as a reader with
/// that isolation level sees them.
///
/// # Errors
/// Those of a consumer.
pub async fn read_all(bus: &Bus, topic: &str, isolation: IsolationLevel) -> Result<Vec<Record>> {
    let described = bus.admin()?.describe_topic(Topic::from(topic)).await?;
    let consumer =
        bus.consumer(ConsumerConfig { isolation_level: isolation, ..Default::default() })?;
    let partitions: Vec<_> = described
        .partitions
        .iter()
        .map(|partition| TopicPartition::new(topic, partition.partition))
        .collect();
    let start: Vec<_> = partitions.iter().map(|p| (p.clone(), StartAt::Beginning)).collect();
    consumer.assign(&start)?;
    let mut records = Vec::new();
    for partition in &partitions {
        let end = consumer.watermarks(partition).await?.high;
        // What a transaction or an abort leaves at the end moves no position: it is waited for.
        let mut idle = 0;
        while consumer.position(partition)?.unwrap_or(0) < end && idle < PATIENCE {
            let batch = consumer.poll_records(Duration::from_secs(1)).await?;
            idle = if batch.is_empty() { idle + 1 } else { 0 };
            records.extend(batch);
        }
    }
    consumer.close().await?;
    records.sort_by_key(|record: &Record| (record.topic_partition(), record.offset));
    Ok(records)
}

/// After how many empty polls of a second a reader is at the end.
const PATIENCE: u32 = 5;

/// The value of a record as a text.
pub fn value(record: &Record) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}

/// The report of a story that came to its end.
pub fn report(records: usize, broken: Vec<Broken>, notes: Vec<String>) -> Report {
    let verdict = if broken.is_empty() { Verdict::Held } else { Verdict::Violated };
    Report {
        verdict,
        broken,
        notes,
        records: records as u64,
        partitions: Vec::new(),
        groups: Vec::new(),
    }
}
